//! Two configurations on the same recording.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use opspilot_kernel::{fingerprint::Fingerprint, time::Timestamp};
use serde_json::{Value as Json, json};

use super::{Facts, Side, grouped, many, recording, span};
use crate::replay::story::{Episode, RuleSum};

/// What a rule does under one configuration and under the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) module: String,
    pub(crate) rule: String,
    /// Alerts.
    pub(crate) before: u64,
    pub(crate) after: u64,
    /// Alerts of the same condition that hold at the same time.
    pub(crate) paired: u64,
    /// By how many milliseconds those fire earlier, in the middle; below zero if later.
    pub(crate) earlier_ms: Option<i64>,
    /// By how many the first alert of the rule fires earlier.
    pub(crate) first_earlier_ms: Option<i64>,
}

/// The difference as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) changes: Vec<Change>,
    pub(crate) alerts: (u64, u64),
    pub(crate) incidents: (usize, usize),
}

/// How far `later` is before `earlier`, in words.
pub(super) fn lead(millis: i64) -> String {
    let by = span(Duration::from_millis(millis.unsigned_abs()));
    match millis {
        0 => "at the same time".to_owned(),
        1.. => format!("{by} earlier"),
        _ => format!("{by} later"),
    }
}

fn difference(before: u64, after: u64) -> i64 {
    i64::try_from(after).unwrap_or(i64::MAX).saturating_sub(i64::try_from(before).unwrap_or(i64::MAX))
}

impl Change {
    /// What changes, in words.
    pub(crate) fn said(&self) -> String {
        let times = |count: u64| if count == 1 { "once".to_owned() } else { format!("{count} times") };
        let more = difference(self.before, self.after);
        let compared = match more {
            0 => "as many alerts".to_owned(),
            1.. => format!("{more} more alert{}", if more == 1 { "" } else { "s" }),
            _ => format!("{} fewer alert{}", more.unsigned_abs(), if more == -1 { "" } else { "s" }),
        };
        let mut text = if self.after == 0 { "would not have fired".to_owned() } else { format!("would have fired {}", times(self.after)) };
        if let Some(millis) = self.earlier_ms.or(self.first_earlier_ms).filter(|millis| *millis != 0) {
            text.push_str(&format!(", {}", lead(millis)));
        }
        format!("{text}, {compared}")
    }

    fn json(&self) -> Json {
        json!({
            "module": self.module, "rule": self.rule, "before": self.before, "after": self.after,
            "difference": difference(self.before, self.after), "paired": self.paired,
            "earlier_ms": self.earlier_ms, "first_earlier_ms": self.first_earlier_ms, "summary": self.said(),
        })
    }
}

impl Difference {
    /// What changes as a whole, in words.
    pub(crate) fn said(&self) -> String {
        let ((before, after), (less, more)) = (self.alerts, self.incidents);
        let compared = match difference(before, after) {
            0 => "as many".to_owned(),
            count @ 1.. => format!("{count} more"),
            count => format!("{} fewer", count.unsigned_abs()),
        };
        let incidents = many(u64::try_from(more).unwrap_or(u64::MAX), "incident");
        format!("{} instead of {} ({compared}), {incidents} instead of {less}", many(after, "alert"), grouped(before))
    }

    /// As `--json` writes it.
    pub(crate) fn json(&self, facts: &Facts, before: &Side, after: &Side) -> Json {
        let side = |side: &Side| {
            let mut json = super::json(facts, side);
            if let Some(json) = json.as_object_mut() {
                json.remove("recording");
            }
            json
        };
        json!({
            "recording": recording(facts),
            "rules": self.changes.iter().map(Change::json).collect::<Vec<_>>(),
            "alerts": { "before": self.alerts.0, "after": self.alerts.1, "difference": difference(self.alerts.0, self.alerts.1) },
            "incidents": { "before": self.incidents.0, "after": self.incidents.1 },
            "summary": self.said(),
            "before": side(before),
            "after": side(after),
        })
    }
}

/// Holds what came of one configuration against what came of the other.
pub(crate) fn compared(before: &Side, after: &Side) -> Difference {
    let rules: BTreeSet<&(String, String)> = before.story.rules.keys().chain(after.story.rules.keys()).collect();
    let (was, is) = (by_rule(&before.story.episodes), by_rule(&after.story.episodes));
    let none = BTreeMap::new();
    let changes = rules.into_iter().map(|rule| {
        let key = (rule.0.as_str(), rule.1.as_str());
        let mut leads = leads(was.get(&key).unwrap_or(&none), is.get(&key).unwrap_or(&none));
        leads.sort_unstable();
        let (old, new) = (before.story.rules.get(rule), after.story.rules.get(rule));
        let count = |sum: Option<&RuleSum>| sum.map_or(0, |sum| sum.alerts);
        Change {
            module: rule.0.clone(),
            rule: rule.1.clone(),
            before: count(old),
            after: count(new),
            paired: u64::try_from(leads.len()).unwrap_or(u64::MAX),
            earlier_ms: leads.get(leads.len() / 2).copied(),
            first_earlier_ms: old.zip(new).map(|(old, new)| old.first.millis() - new.first.millis()),
        }
    });
    Difference {
        changes: changes.collect(),
        alerts: (before.story.alerts, after.story.alerts),
        incidents: (before.story.incidents().count(), after.story.incidents().count()),
    }
}

/// When alerts of one condition held, in order.
type Held = Vec<(Timestamp, Timestamp)>;
type Rules<'a> = BTreeMap<(&'a str, &'a str), BTreeMap<Fingerprint, Held>>;

fn by_rule(episodes: &[Episode]) -> Rules<'_> {
    let mut rules = Rules::new();
    for episode in episodes {
        let end = episode.over_at.unwrap_or(Timestamp::from_millis(i64::MAX));
        let rule = rules.entry((&episode.module, &episode.rule)).or_default();
        rule.entry(episode.fingerprint).or_default().push((episode.fired_at, end));
    }
    rules
}

/// By how much each alert fires earlier than the one that it overlaps, of those that overlap one.
fn leads(before: &BTreeMap<Fingerprint, Held>, after: &BTreeMap<Fingerprint, Held>) -> Vec<i64> {
    let mut leads = Vec::new();
    for (fingerprint, was) in before {
        let (mut was, mut is) = (was.iter().peekable(), after.get(fingerprint).into_iter().flatten().peekable());
        while let (Some(old), Some(new)) = (was.peek(), is.peek()) {
            if old.1 < new.0 {
                was.next();
            } else if new.1 < old.0 {
                is.next();
            } else {
                leads.push(old.0.millis() - new.0.millis());
                was.next();
                is.next();
            }
        }
    }
    leads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_in_one_sentence() {
        let change = |before, after, earlier_ms| Change {
            module: "m".into(),
            rule: "r".into(),
            before,
            after,
            paired: 1,
            earlier_ms,
            first_earlier_ms: None,
        };
        assert_eq!(change(44, 3, Some(540_000)).said(), "would have fired 3 times, 9m earlier, 41 fewer alerts");
        assert_eq!(change(1, 2, Some(-1000)).said(), "would have fired 2 times, 1s later, 1 more alert");
        assert_eq!(change(1, 1, Some(0)).said(), "would have fired once, as many alerts");
        assert_eq!(change(1, 0, None).said(), "would not have fired, 1 fewer alert");
    }

    #[test]
    fn alerts_are_paired_with_those_they_overlap() {
        let held = |spans: &[(i64, i64)]| -> BTreeMap<Fingerprint, Held> {
            let at = Timestamp::from_millis;
            BTreeMap::from([(Fingerprint::from_u64(1), spans.iter().map(|(from, to)| (at(*from), at(*to))).collect())])
        };
        assert_eq!(leads(&held(&[(100, 200), (500, 600)]), &held(&[(0, 50), (90, 300), (550, 560)])), [10, -50]);
        assert_eq!(leads(&held(&[(100, 200)]), &held(&[(300, 400)])), [0_i64; 0]);
        assert_eq!(leads(&held(&[(100, 200)]), &BTreeMap::new()), [0_i64; 0]);
    }
}
