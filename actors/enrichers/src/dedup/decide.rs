//! Which episode a record belongs to, and what it means for it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use opspilot_kernel::{
    alert::{AlertRecord, AlertStatus, ResolvedBy, Transition},
    ids::{AlertId, Seq},
    time::Timestamp,
};
use opspilot_ledger::{
    AlertEntry,
    pipeline::{AlertState, Board, Decision},
};
use serde_json::json;

use super::ID;
use crate::stage::{Item, Verdict, continuation, reason};

/// What is known of the newest episode under a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Episode {
    /// The alert's own id.
    pub(crate) alert: AlertId,
    /// How it ended, if it did: when by our clock, and why.
    pub(crate) over: Option<(Timestamp, Option<ResolvedBy>)>,
}

impl Episode {
    pub(crate) fn of(state: &AlertState) -> Episode {
        let over = match state.alert.status {
            AlertStatus::Firing => None,
            AlertStatus::Resolved => Some((state.resolved_logged_at.unwrap_or(state.last_logged_at), state.resolved_by)),
        };
        Episode { alert: state.alert.id.clone(), over }
    }
}

/// Gives every record of `items` its verdict; returns why.
pub(crate) fn decide(reopen_window: Duration, board: &Board, items: &mut [Item]) -> Vec<Decision> {
    let mut seen: BTreeMap<AlertId, Episode> = BTreeMap::new();
    let mut decisions = Vec::new();
    for item in items {
        let AlertEntry::Record { seq, record } = &item.entry else { continue };
        let known = seen.get(&record.alert).cloned().or_else(|| board.alerts.get(&record.alert).map(Episode::of));
        let verdict = judge(record, known.as_ref(), Some(reopen_window));
        let alert = match (&known, verdict) {
            (_, Verdict::Starts { goes_on: true, .. }) => continuation(record),
            (Some(episode), _) => episode.alert.clone(),
            (None, _) => record.alert.clone(),
        };
        decisions.push(explain(*seq, record, known.as_ref(), verdict, reopen_window, alert.clone()));
        match verdict {
            Verdict::Starts { .. } | Verdict::Resumes => {
                seen.insert(record.alert.clone(), Episode { alert, over: None });
            }
            Verdict::Ends => {
                seen.insert(record.alert.clone(), Episode { alert, over: Some((record.logged_at, record.resolved_by)) });
            }
            Verdict::Counts | Verdict::Late | Verdict::Unknown => {}
        }
        item.verdict = Some(verdict);
    }
    decisions
}

/// What `record` means, given the newest episode under its claim. Without a `reopen_window` nothing that
/// is over ever goes on.
pub(crate) fn judge(record: &AlertRecord, known: Option<&Episode>, reopen_window: Option<Duration>) -> Verdict {
    let Some(episode) = known else {
        return match record.transition {
            Transition::Firing => Verdict::Starts { reopen_within: reopen_window, goes_on: false },
            Transition::Repeat | Transition::Resolved => Verdict::Unknown,
        };
    };
    match (record.transition, episode.over) {
        (Transition::Firing | Transition::Repeat, None) => Verdict::Counts,
        (Transition::Resolved, None) => Verdict::Ends,
        // observed before the person closed it, read afterwards: what they saw and closed is this
        (_, Some((over, Some(ResolvedBy::Person)))) if record.logged_at <= over => Verdict::Late,
        (Transition::Resolved, Some(_)) => Verdict::Late,
        // its detector does not know of the person, so to it what comes again is a mere repeat
        (Transition::Repeat, Some((_, by))) if by != Some(ResolvedBy::Person) => Verdict::Late,
        (Transition::Firing | Transition::Repeat, Some((over, _))) => match reopen_window {
            Some(window) if record.logged_at.since(over) <= window => Verdict::Resumes,
            _ => Verdict::Starts { reopen_within: reopen_window, goes_on: true },
        },
    }
}

fn explain(seq: Seq, record: &Arc<AlertRecord>, known: Option<&Episode>, verdict: Verdict, window: Duration, alert: AlertId) -> Decision {
    let ended = known.and_then(|episode| episode.over);
    let why = reason(ended.and_then(|(_, by)| by));
    let (outcome, text) = match verdict {
        Verdict::Starts { goes_on: false, .. } => ("new", "a new episode begins: this alert was not known".to_owned()),
        Verdict::Starts { goes_on: true, .. } => {
            ("new", format!("a new episode begins: the earlier one was over ({why}) for longer than the window in which it would go on"))
        }
        Verdict::Resumes => ("resumed", format!("the episode goes on: it was over ({why}), but fires again within the window")),
        Verdict::Counts => ("counted", "seen again: the alert already holds, so this only counts".to_owned()),
        Verdict::Ends => ("ended", format!("the episode is over: {}", reason(record.resolved_by))),
        Verdict::Late => ("late", format!("the episode was already over ({why}), so this only counts")),
        Verdict::Unknown => (
            "unknown",
            match record.transition {
                Transition::Resolved => "nothing to resolve: this alert was never seen firing",
                Transition::Firing | Transition::Repeat => "a repeat of an alert that was never seen firing opens nothing",
            }
            .to_owned(),
        ),
    };
    let inputs = json!({
        "transition": record.transition,
        "fingerprint": record.fingerprint,
        "rule": record.rule,
        "detected_by": record.detected_by,
        "signal_seq": record.signal_seq,
        "known": known.map(|episode| json!({
            "alert": episode.alert,
            "status": if episode.over.is_some() { "resolved" } else { "firing" },
            "resolved_at": episode.over.map(|(at, _)| at),
            "resolved_by": episode.over.and_then(|(_, by)| by),
        })),
        "reopen_window_secs": window.as_secs(),
    });
    Decision {
        seq,
        at: record.logged_at,
        stage: ID.as_str(),
        alert: Some(alert),
        incident: None,
        outcome,
        text,
        inputs,
        repeats: matches!(verdict, Verdict::Counts | Verdict::Late | Verdict::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{alert, at, record};

    const WINDOW: Duration = Duration::from_secs(1800);

    fn over(minute: i64, by: ResolvedBy) -> Episode {
        Episode { alert: alert("a"), over: Some((at(minute * 60), Some(by))) }
    }

    #[test]
    fn every_transition_of_every_state_has_its_verdict() {
        let firing = Episode { alert: alert("a"), over: None };
        let person = over(10, ResolvedBy::Person);
        let quiet = over(10, ResolvedBy::Quiet);
        let begins = Verdict::Starts { reopen_within: Some(WINDOW), goes_on: false };
        let begins_again = Verdict::Starts { reopen_within: Some(WINDOW), goes_on: true };
        let table = [
            // (transition, logged at minute, known episode, verdict)
            (Transition::Firing, 0, None, begins),
            (Transition::Repeat, 0, None, Verdict::Unknown),
            (Transition::Resolved, 0, None, Verdict::Unknown),
            (Transition::Firing, 1, Some(&firing), Verdict::Counts),
            (Transition::Repeat, 1, Some(&firing), Verdict::Counts),
            (Transition::Resolved, 1, Some(&firing), Verdict::Ends),
            (Transition::Repeat, 9, Some(&person), Verdict::Late),
            (Transition::Repeat, 10, Some(&person), Verdict::Late),
            (Transition::Repeat, 11, Some(&person), Verdict::Resumes),
            (Transition::Repeat, 40, Some(&person), Verdict::Resumes),
            (Transition::Repeat, 41, Some(&person), begins_again),
            (Transition::Repeat, 11, Some(&quiet), Verdict::Late),
            (Transition::Resolved, 11, Some(&person), Verdict::Late),
            (Transition::Firing, 9, Some(&person), Verdict::Late),
            (Transition::Firing, 10, Some(&person), Verdict::Late),
            (Transition::Firing, 11, Some(&person), Verdict::Resumes),
            (Transition::Firing, 40, Some(&person), Verdict::Resumes),
            (Transition::Firing, 41, Some(&person), begins_again),
            (Transition::Firing, 10, Some(&quiet), Verdict::Resumes),
            (Transition::Firing, 41, Some(&quiet), begins_again),
            (Transition::Repeat, 41, Some(&quiet), Verdict::Late),
        ];
        for (transition, minute, known, verdict) in table {
            let record = record("a", transition, minute * 60);
            assert_eq!(judge(&record, known, Some(WINDOW)), verdict, "{transition:?} at {minute} of {known:?}");
        }
    }

    #[test]
    fn with_no_window_an_episode_that_is_over_never_goes_on() {
        let record = record("a", Transition::Firing, 601);
        let verdict = judge(&record, Some(&over(10, ResolvedBy::Quiet)), None);
        assert_eq!(verdict, Verdict::Starts { reopen_within: None, goes_on: true });
    }

    #[test]
    fn later_records_of_a_batch_see_what_the_earlier_ones_did() {
        let entries = [
            ("a", Transition::Firing, 0),
            ("a", Transition::Repeat, 1),
            ("b", Transition::Repeat, 1),
            ("a", Transition::Resolved, 2),
            ("a", Transition::Repeat, 3),
            ("a", Transition::Firing, 4),
            ("a", Transition::Resolved, 5),
            ("a", Transition::Firing, 5 + 1801),
            ("a", Transition::Repeat, 5 + 1802),
        ];
        let mut items: Vec<Item> = (1..)
            .zip(entries)
            .map(|(seq, (name, transition, second))| {
                Item::new(AlertEntry::Record { seq, record: Arc::new(record(name, transition, second)) })
            })
            .collect();
        let decisions = decide(WINDOW, &Board::default(), &mut items);
        let outcomes: Vec<_> = decisions.iter().map(|decision| decision.outcome).collect();
        assert_eq!(outcomes, ["new", "counted", "unknown", "ended", "late", "resumed", "ended", "new", "counted"]);
        assert_ne!(decisions[7].alert, decisions[6].alert, "a new episode has its own id");
        assert_eq!(decisions[8].alert, decisions[7].alert, "and later records count to it");
    }
}
