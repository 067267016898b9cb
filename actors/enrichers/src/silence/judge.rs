//! Whether an alert is held back at an instant, and by what.
//!
//! Looked for in this order: a silence, a maintenance window, another alert that fires.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use opspilot_kernel::{
    facets::Facets,
    ids::AlertId,
    matcher::Operator,
    silence::{Silence, SilenceState},
    time::Timestamp,
};
use opspilot_ledger::pipeline::{Inhibitor, Shield, SilenceSet, Sweep};
use serde_json::json;

use super::{
    config::Config,
    inhibit::{Rule, digest},
    window::{Mode, Window},
};
use crate::stage::{By, Suppression};

/// What the stage goes by.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    windows: Vec<Window>,
    inhibit: Vec<Rule>,
    silences: bool,
    remind_before: Duration,
    /// Names the whole of it.
    plan: String,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Rules {
        let text = serde_json::to_string(&(&config.windows, &config.inhibit)).unwrap_or_default();
        let inhibit = config.inhibit.iter().cloned().map(Rule::new).collect();
        Rules {
            windows: config.windows.clone(),
            inhibit,
            silences: true,
            remind_before: config.remind_before.0,
            plan: digest(std::iter::once(text.as_str())),
        }
    }
}

impl Rules {
    /// What holds while the stage is switched off: nothing is held back.
    pub(crate) fn none() -> Rules {
        Rules { windows: Vec::new(), inhibit: Vec::new(), silences: false, remind_before: Duration::ZERO, plan: "off".to_owned() }
    }

    /// When alerts that fire must be looked at again: when something begins or ends that holds alerts back. What is past is
    /// due at once.
    pub(crate) fn due(&self, silences: &SilenceSet, sweep: &Sweep) -> Option<Timestamp> {
        let until = sweep.until;
        // where nothing was ever looked at, nothing is held back that this would let go
        let new = sweep.plan.is_empty() && self.windows.is_empty() && self.inhibit.is_empty();
        if sweep.plan != self.plan && !new || sweep.place.is_some() || sweep.again {
            return Some(until);
        }
        let silences = silences.silences.iter().filter(|_| self.silences);
        let times = silences.flat_map(|silence| [silence.starts_at, silence.ends_at]).filter(|at| *at > until);
        times.chain(self.windows.iter().filter_map(|window| window.next_change(until))).min()
    }

    /// So long before its end a silence is reminded of.
    pub(crate) fn remind_before(&self) -> Duration {
        self.remind_before
    }

    /// Names the whole of it.
    pub(super) fn plan(&self) -> &str {
        &self.plan
    }

    /// The look at alerts that fire which goes on, or begins, at `at`; none if nothing is due by then.
    pub(crate) fn sweep_at(&self, silences: &SilenceSet, sweep: &Sweep, at: Timestamp) -> Option<Sweep> {
        self.due(silences, sweep).filter(|due| *due <= at)?;
        if sweep.place.is_some() && sweep.plan == self.plan {
            return Some(sweep.clone());
        }
        Some(Sweep { until: at.max(sweep.until), plan: self.plan.clone(), place: None, again: false })
    }

    /// By what an alert holds others back.
    pub(crate) fn shields(&self, alert: Facets<'_>) -> Vec<Shield> {
        self.inhibit.iter().filter_map(|rule| rule.shield(alert)).collect()
    }

    /// What may hold this alert back has one of these keys.
    pub(crate) fn keys(&self, alert: Facets<'_>) -> Vec<String> {
        self.inhibit.iter().filter_map(|rule| Some(rule.held_by(alert)?.0)).collect()
    }
}

/// The silences, to be found by what they match.
struct Index<'a> {
    /// Those with a matcher `name = value`: by name, then by value.
    by_label: BTreeMap<&'a str, HashMap<&'a str, Vec<&'a Silence>>>,
    others: Vec<&'a Silence>,
}

impl<'a> Index<'a> {
    fn of(silences: impl Iterator<Item = &'a Silence>) -> Index<'a> {
        let mut index = Index { by_label: BTreeMap::new(), others: Vec::new() };
        for silence in silences {
            match silence.matchers.iter().find(|matcher| matcher.operator() == Operator::Equal && !matcher.value().is_empty()) {
                Some(matcher) => index.by_label.entry(matcher.name()).or_default().entry(matcher.value()).or_default().push(silence),
                None => index.others.push(silence),
            }
        }
        index
    }

    /// The silence that hides this alert at `at`; of several the one that does so for longest.
    fn hides(&self, alert: Facets<'_>, at: Timestamp) -> Option<&'a Silence> {
        let by_label = self.by_label.iter().filter_map(|(name, values)| values.get(&*alert.value(name))).flatten();
        let hiding = by_label.chain(&self.others).copied().filter(|silence| silence.hides(alert, at));
        hiding.max_by(|a, b| (a.ends_at, &a.id).cmp(&(b.ends_at, &b.id)))
    }
}

/// What is to be known of an alert to judge it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) alert: Facets<'a>,
    pub(super) claim: &'a AlertId,
    /// When it began, if it was held back then.
    pub(super) began: Option<Timestamp>,
    /// What holds it back so far.
    pub(super) current: Option<&'a str>,
    /// It began just now, or fires anew.
    pub(super) anew: bool,
}

/// What holds alerts back, as it stands between two entries of a batch.
pub(super) struct Judge<'a> {
    rules: &'a Rules,
    silences: Index<'a>,
    inhibitors: BTreeMap<String, BTreeSet<Inhibitor>>,
    /// Of each window: from when until when what was found out about it holds, and whether it takes place.
    phases: Vec<Option<(Timestamp, Timestamp, bool)>>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(rules: &'a Rules, silences: &'a SilenceSet, inhibitors: &BTreeMap<String, BTreeSet<Inhibitor>>) -> Judge<'a> {
        let silences = Index::of(silences.silences.iter().filter(|_| rules.silences));
        Judge { rules, silences, inhibitors: inhibitors.clone(), phases: vec![None; rules.windows.len()] }
    }

    /// From now on this alert holds others back by these, and by nothing else.
    pub(super) fn shield(&mut self, claim: &AlertId, title: &str, before: &[Shield], shields: &[Shield]) {
        for shield in before {
            if let Some(all) = self.inhibitors.get_mut(&shield.key) {
                all.retain(|one| one.claim != *claim);
            }
        }
        for Shield { key, both } in shields {
            let one = Inhibitor { both: *both, claim: claim.clone(), title: title.to_owned() };
            self.inhibitors.entry(key.clone()).or_default().insert(one);
        }
    }

    /// What holds this alert back at `at`.
    pub(super) fn judge(&mut self, case: Case<'_>, at: Timestamp) -> Option<Suppression> {
        self.silenced(case, at).or_else(|| self.in_maintenance(case, at)).or_else(|| self.inhibited(case))
    }

    fn silenced(&self, case: Case<'_>, at: Timestamp) -> Option<Suppression> {
        let silence = self.silences.hides(case.alert, at)?;
        debug_assert_eq!(silence.state(at), SilenceState::Active);
        let text = format!("silenced by {} until {}: {}", silence.created_by, silence.ends_at, silence.comment);
        let inputs = json!({
            "silence": silence.id,
            "matchers": silence.matchers,
            "starts_at": silence.starts_at,
            "ends_at": silence.ends_at,
            "at": at,
        });
        Some(Suppression { by: By::Silence(silence.id.clone()), text, inputs })
    }

    fn in_maintenance(&mut self, case: Case<'_>, at: Timestamp) -> Option<Suppression> {
        let rules = self.rules;
        let mut windows = rules.windows.iter().zip(&mut self.phases);
        let taking_place = windows.find_map(|(window, phase)| {
            let holds = case.alert.match_all(&window.matchers) && takes_place(window, phase, at);
            holds.then_some(window)
        });
        let (window, over) = match taking_place {
            Some(window) => (window, false),
            // it began inside, and nobody is to be told of that unless it fires again
            None => {
                let current = case.current.filter(|_| !case.anew)?.strip_prefix("maintenance:")?;
                let window = rules.windows.iter().find(|window| window.id == current && window.mode == Mode::Suppress)?;
                (case.began.and_then(|began| window.at(began)).map(|_| window)?, true)
            }
        };
        let mut text = format!("in the maintenance window {}", window.id);
        if !window.comment.is_empty() {
            text = format!("{text}: {}", window.comment);
        }
        if over {
            text.push_str("; it began to fire inside the window, which is over, and is told of only if it fires again");
        }
        let inputs = json!({ "window": window.id, "mode": window.mode, "matchers": window.matchers, "at": at });
        Some(Suppression { by: By::Maintenance(window.id.clone()), text, inputs })
    }

    fn inhibited(&self, case: Case<'_>) -> Option<Suppression> {
        self.rules.inhibit.iter().find_map(|rule| {
            let (key, both) = rule.held_by(case.alert)?;
            let all = self.inhibitors.get(&key)?;
            let source = all.iter().find(|one| !(both && one.both) && one.claim != *case.claim)?;
            let rule = &rule.inhibition;
            let text = format!("held back by the rule {} while another alert fires: {}", rule.id, source.title);
            let equal: BTreeMap<&str, _> = rule.equal.iter().map(|label| (label.as_str(), case.alert.value(label))).collect();
            let inputs =
                json!({ "rule": rule.id, "source": rule.source, "target": rule.target, "equal": equal, "inhibited_by": source.claim });
            Some(Suppression { by: By::Inhibition { rule: rule.id.clone(), claim: source.claim.clone() }, text, inputs })
        })
    }
}

/// Whether a window takes place at `at`; what was found out holds until it next begins or ends.
fn takes_place(window: &Window, phase: &mut Option<(Timestamp, Timestamp, bool)>, at: Timestamp) -> bool {
    match phase {
        Some((from, until, active)) if *from <= at && at < *until => *active,
        _ => {
            let active = window.at(at).is_some();
            let until = window.next_change(at).unwrap_or(Timestamp::from_millis(i64::MAX));
            *phase = Some((at, until, active));
            active
        }
    }
}
