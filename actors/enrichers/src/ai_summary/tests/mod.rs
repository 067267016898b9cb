//! The explainer, on the recorded outage of the demo, on nothing, on hostile text, and in a running service.

mod demo;
mod honest;
mod module;
mod proof;

use std::collections::BTreeMap;

use opspilot_kernel::{
    alert::{Alert, AlertStatus, Observation},
    fingerprint::Fingerprint,
    ids::{AlertId, IncidentId},
    incident::{Incident, IncidentStatus},
    signal::{Severity, SignalRef},
    time::Timestamp,
};
use opspilot_ledger::Evidence;

use super::{
    config::Runbook,
    explain::{Explained, Input, explain},
    memory::Offered,
    pack::{Pack, Window},
};

/// A signal that owns its texts.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    pub(super) at: Timestamp,
    pub(super) source: String,
    pub(super) message: String,
    pub(super) name: String,
    pub(super) value: Option<f64>,
    pub(super) severity: Severity,
}

impl Owned {
    pub(super) fn log(at: Timestamp, source: &str, message: &str, severity: Severity) -> Owned {
        Owned { at, source: source.to_owned(), message: message.to_owned(), name: String::new(), value: None, severity }
    }

    pub(super) fn with<T>(&self, use_it: impl FnOnce(&SignalRef<'_>) -> T) -> T {
        let signal = match self.value {
            Some(value) => SignalRef::metric(self.at, &self.source, &self.name, value),
            None => SignalRef::log(self.at, &self.source, &self.message),
        };
        use_it(&SignalRef { severity: self.severity, ..signal })
    }
}

/// An alert of `rule`, first seen with `first`.
pub(super) fn alert(rule: &str, first: &Owned, last: Timestamp, occurrences: u64) -> Alert {
    Alert {
        id: AlertId::derived(&[rule]),
        fingerprint: Fingerprint::of_pairs([("rule", rule)]),
        status: AlertStatus::Firing,
        source: first.source.clone(),
        name: rule.to_owned(),
        detected_by: "detector.regex".to_owned(),
        title: format!("{rule}: {}", first.message),
        description: String::new(),
        severity: Severity::Critical,
        labels: BTreeMap::new(),
        occurrences,
        first_seen_at: first.at,
        last_seen_at: last,
        resolved_at: None,
        suppressed_by: None,
        incident_id: None,
    }
}

/// The incident of an alert.
pub(super) fn incident(alert: &Alert) -> Incident {
    Incident {
        id: IncidentId::derived(&[alert.name.as_str()]),
        title: alert.title.clone(),
        description: String::new(),
        severity: alert.severity,
        status: IncidentStatus::Open,
        detected_by: alert.detected_by.clone(),
        rule: alert.name.clone(),
        source: alert.source.clone(),
        labels: alert.labels.clone(),
        occurrences: alert.occurrences,
        opened_at: alert.first_seen_at,
        last_seen_at: alert.last_seen_at,
        acknowledged_at: None,
        acknowledged_by: None,
        assignee: None,
        snoozed_until: None,
        resolved_at: None,
        resolution: None,
        merged_into: None,
        alert_count: 1,
        evidence_count: 1,
    }
}

/// Everything a test may want to say besides the signals.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) runbooks: Vec<Runbook>,
    pub(super) actions: Vec<Offered>,
    pub(super) earlier: Vec<(Incident, bool)>,
}

/// The explanation of the incident of `rule` that began with `signals[first]`, as of `now`.
pub(super) fn explained(signals: &[Owned], rule: &str, first: usize, now: Timestamp, known: &Known) -> (Explained, Vec<Evidence>) {
    let founding = &signals[first];
    let alike = signals.iter().filter(|signal| {
        signal.source == founding.source && signal.severity == founding.severity && signal.at >= founding.at && signal.at <= now
    });
    let alert = alert(rule, founding, now, u64::try_from(alike.count()).unwrap());
    let incident = incident(&alert);
    let observation = match founding.value {
        Some(value) => {
            Observation::Metric { at: founding.at, source: founding.source.clone(), name: founding.name.clone(), value, expected: None }
        }
        None => Observation::Log { at: founding.at, source: founding.source.clone(), text: founding.message.clone() },
    };
    let own = vec![Evidence { id: "e1".to_owned(), observation }];
    let window = Window {
        from: founding.at.before(std::time::Duration::from_hours(1)),
        onset: founding.at,
        to: founding.at.after(std::time::Duration::from_mins(15)),
    };
    let mut pack = Pack::new(window);
    signals.iter().filter(|signal| signal.at <= now).for_each(|signal| signal.with(|signal| pack.take(signal)));
    let alerts = [alert];
    let input = Input {
        incident: &incident,
        alerts: &alerts,
        own: &own,
        found: 0,
        pack: Some(&pack),
        earlier: &known.earlier,
        runbooks: &known.runbooks,
        actions: &known.actions,
        now,
        missing: Vec::new(),
    };
    let explained = explain(&input);
    let evidence = own.into_iter().chain(explained.evidence.clone()).collect();
    (explained, evidence)
}
