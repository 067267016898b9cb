//! Reads what an explanation follows from out of the ledger, within its budget, and has it made.

use std::{
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use opspilot_kernel::{
    alert::Alert,
    ids::{IncidentId, Seq},
    time::Timestamp,
};
use opspilot_ledger::{Around, Evidence, Ledger, LedgerError, Looked, Page, Reader, SearchBudget, StoredExplanation, Unexplained};

use super::{
    config::Config,
    explain::{Explained, Input, explain},
    memory::Offered,
    pack::{Pack, Window},
};

/// Alerts, pieces of own evidence from each end, and earlier incidents that are looked at.
const ALERTS: usize = 50;
const EVIDENCE: i64 = 100;
const EARLIER: i64 = 200;
/// How far a sender's clock may be ahead of ours, and how late a signal may come.
const AHEAD: Duration = Duration::from_mins(5);
const LATE: Duration = Duration::from_mins(15);
/// Rows and bytes of signals looked at, besides the bound on signals that is configured.
const ROWS: usize = 20_000;
const BYTES: usize = 128 << 20;

/// Everything an explanation follows from, as it was read.
struct Material {
    start: Unexplained,
    alerts: Vec<Alert>,
    pack: Option<Pack>,
    looked: u64,
    missing: Vec<String>,
}

/// An explanation, ready to be stored.
pub(super) struct Made {
    pub(super) explained: Explained,
    pub(super) before: Option<StoredExplanation>,
    pub(super) occurrences: u64,
    pub(super) looked: u64,
}

/// Why an incident is not explained now.
#[derive(Debug)]
pub(super) enum Unmade {
    /// It was explained with all that is known.
    Unchanged,
    /// It was explained by itself as often as that may be.
    Often,
}

/// Explains an incident: from everything before `upto`, an event's number, unless that was done; whoever asks gets it anyway.
pub(super) fn make(
    ledger: &Ledger,
    config: &Config,
    actions: &[Offered],
    id: &IncidentId,
    upto: Seq,
    asked: bool,
) -> Result<Result<Made, Unmade>, LedgerError> {
    let material = ledger.read_blocking(|reader| {
        let start = reader.unexplained(id, EVIDENCE, EARLIER)?;
        let known = start.before.as_ref().map(|before| (before.basis, before.times));
        match known {
            Some((basis, _)) if !asked && basis >= upto => return Ok(Err(Unmade::Unchanged)),
            Some((_, times)) if !asked && times >= u64::from(config.most_times) => return Ok(Err(Unmade::Often)),
            _ => {}
        }
        let mut missing = Vec::new();
        let alerts = reader.incident_alerts(id, &Page::first(ALERTS)).map(|listed| listed.items).unwrap_or_else(|error| {
            missing.push(format!("its alerts could not be read ({error})"));
            Vec::new()
        });
        let (pack, looked) = pack(reader, config, &start, &alerts, &mut missing);
        Ok(Ok(Material { start, alerts, pack, looked, missing }))
    })?;
    let material = match material {
        Ok(material) => material,
        Err(unmade) => return Ok(Err(unmade)),
    };
    let now = ledger.clock().now();
    let own = own_evidence(&material.start);
    let found = material.start.before.as_ref().map_or(0, |before| before.found);
    let input = |pack, missing| Input {
        incident: &material.start.incident,
        alerts: &material.alerts,
        own: &own,
        found,
        pack,
        earlier: &material.start.earlier,
        runbooks: &config.runbooks,
        actions,
        now,
        missing,
    };
    // whatever stands in the signals, the incident gets an explanation
    let made = catch_unwind(AssertUnwindSafe(|| explain(&input(material.pack.as_ref(), material.missing.clone()))));
    let explained = made.unwrap_or_else(|_| explain(&input(None, vec!["what happened around it could not be worked through".to_owned()])));
    let Material { start: Unexplained { incident, before, .. }, looked, .. } = material;
    Ok(Ok(Made { explained, before, occurrences: incident.occurrences, looked }))
}

/// What can be cited under an id that it has: the incident's own evidence, and what was found before.
fn own_evidence(start: &Unexplained) -> Vec<Evidence> {
    let before = start.before.iter().flat_map(|before| before.evidence.clone());
    start.evidence.iter().cloned().chain(before).collect()
}

fn pack(reader: &mut Reader<'_>, config: &Config, start: &Unexplained, alerts: &[Alert], missing: &mut Vec<String>) -> (Option<Pack>, u64) {
    let opened = start.incident.opened_at;
    let onset = alerts.iter().map(|alert| alert.first_seen_at).min().unwrap_or(opened);
    let (back, ahead) = (config.lookback.0, config.lookahead.0);
    let window = Window { from: onset.before(back), onset, to: onset.after(ahead) };
    let around = Around {
        moment: opened,
        since: window.from.min(opened.before(back)).before(AHEAD),
        until: opened.max(window.to).after(LATE),
        signals: usize::try_from(config.most_signals).unwrap_or(usize::MAX),
    };
    let budget = SearchBudget { rows: ROWS, bytes: BYTES, time: config.budget.0 };
    let mut pack = Pack::new(window);
    let looked = reader.signals_near(&around, &budget, |_, signal| {
        pack.take(signal);
        ControlFlow::Continue(())
    });
    match looked {
        Ok(looked) => {
            missing.extend(cut_short(&looked));
            if pack.beyond > 0 {
                missing.push(format!("{} signals were of too many different kinds to tell apart", pack.beyond));
            }
            (Some(pack), looked.signals)
        }
        Err(error) => {
            missing.push(format!("the signals around it could not be read ({error})"));
            (None, 0)
        }
    }
}

/// What was not looked at, in words.
fn cut_short(looked: &Looked) -> Option<String> {
    let time = |at: Timestamp| super::say::clock(at);
    let range = match (looked.from, looked.upto) {
        (None, None) => return None,
        (Some(from), None) => format!("those received before {} were not looked at", time(from)),
        (None, Some(upto)) => format!("those received after {} were not looked at", time(upto)),
        (Some(from), Some(upto)) => format!("those received before {} and after {} were not looked at", time(from), time(upto)),
    };
    Some(format!("there are more signals than one look takes ({}): {range}", looked.signals))
}
