//! How many new alerts a rule may raise in a minute, and what is said about the rest.
//!
//! A minute begins with the first new alert after the previous minute is over. What is held back in
//! it is told when it ends, in one record: how many matches, of which rule. That is an alert of its
//! own: it fires at the end of every minute in which something was held back, and is over after a
//! minute in which nothing was.

use std::{collections::BTreeMap, time::Duration};

use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy, Transition},
    fingerprint::Fingerprint,
    ids::{AlertId, Seq},
    signal::Severity,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::episodes::Moment;

const MINUTE: Duration = Duration::from_secs(60);

/// The cap of one rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cap {
    /// When the current minute began; nothing before the first alert.
    began: Option<Timestamp>,
    /// New alerts in it.
    started: u32,
    /// Matches held back in it, and the newest of them.
    held: u64,
    last: Option<Last>,
    /// The alert that tells of it, while it fires.
    told: Option<AlertId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Last {
    seq: Seq,
    at: Timestamp,
}

/// Who a summary speaks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule<'a> {
    pub(crate) id: &'a str,
    pub(crate) limit: u32,
    pub(crate) detected_by: &'static str,
}

impl Cap {
    /// Whether one more alert may begin; if not, the match is counted here.
    pub(crate) fn admits(&mut self, limit: u32, seq: Seq, at: Timestamp, now: Timestamp) -> bool {
        if self.is_over(now) && self.due().is_none() {
            *self = Cap { told: self.told.take(), ..Cap::default() };
        }
        // a clock that was set back must not stretch the minute
        self.began = Some(self.began.map_or(now, |began| began.min(now)));
        if self.started < limit {
            self.started += 1;
            return true;
        }
        self.held = self.held.saturating_add(1);
        self.last = Some(Last { seq, at });
        false
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.began.is_none_or(|began| now >= began.after(MINUTE))
    }

    /// When there will be something to say.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.began.filter(|_| self.held > 0 || self.told.is_some()).map(|began| began.after(MINUTE))
    }

    /// Says what is to be said at `moment`; true if anything changed.
    pub(crate) fn advance(&mut self, rule: Rule<'_>, moment: Moment, out: &mut Vec<AlertRecord>) -> bool {
        if self.due().is_none_or(|due| due > moment.at) {
            return false;
        }
        let fingerprint = fingerprint(rule);
        if let Some(last) = self.last.filter(|_| self.held > 0) {
            let told = self.told.take();
            let alert = told.unwrap_or_else(|| AlertId::derived(&[rule.id, &fingerprint.to_string(), &last.seq.to_string()]));
            let mut spoken = summary(rule, fingerprint, alert.clone(), Transition::Firing, moment);
            (spoken.count, spoken.signal_seq, spoken.at) = (self.held, last.seq, last.at);
            let (matches, alerts) = (counted(self.held, "match", "matches"), counted(rule.limit.into(), "new alert", "new alerts"));
            spoken.title = format!("Rule {}: {matches} held back in a minute, above the cap of {alerts} a minute", rule.id);
            out.push(spoken);
            *self = Cap { began: Some(moment.at), told: Some(alert), ..Cap::default() };
        } else if let Some(alert) = self.told.take() {
            let mut spoken = summary(rule, fingerprint, alert, Transition::Resolved, moment);
            spoken.resolved_by = Some(ResolvedBy::Clear);
            spoken.title = format!("Rule {}: nothing is held back any more", rule.id);
            out.push(spoken);
            *self = Cap::default();
        }
        true
    }

    /// Ends what is told, because the rule is gone.
    pub(crate) fn abandon(self, rule: Rule<'_>, moment: Moment, out: &mut Vec<AlertRecord>) {
        if let Some(alert) = self.told {
            let mut spoken = summary(rule, fingerprint(rule), alert, Transition::Resolved, moment);
            spoken.resolved_by = Some(ResolvedBy::RuleChanged);
            spoken.title = format!("Rule {} is gone", rule.id);
            out.push(spoken);
        }
    }
}

fn labels(rule: Rule<'_>) -> BTreeMap<String, String> {
    [("alertname", rule.id), ("held_back", "true"), ("source", rule.detected_by)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

fn fingerprint(rule: Rule<'_>) -> Fingerprint {
    Fingerprint::of_labels(&labels(rule))
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn summary(rule: Rule<'_>, fingerprint: Fingerprint, alert: AlertId, transition: Transition, moment: Moment) -> AlertRecord {
    AlertRecord {
        alert,
        detected_by: rule.detected_by.to_owned(),
        rule: rule.id.to_owned(),
        fingerprint,
        transition,
        resolved_by: None,
        at: moment.at,
        logged_at: moment.at,
        signal_seq: moment.seq,
        count: 0,
        source: rule.detected_by.to_owned(),
        title: String::new(),
        description: "The rule matches for more sources than max_alerts_per_minute allows. Make its pattern narrower, or raise the cap."
            .to_owned(),
        severity: Severity::Warning,
        labels: labels(rule),
        supports: false,
        evidence: Vec::new(),
    }
}
