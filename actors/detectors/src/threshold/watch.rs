//! Rules that miss a metric of which no series is followed: there never was one, or all were forgotten.
//!
//! One alert for each rule, as Prometheus' `absent()` gives one for each selector. Time counts from the first entry of the
//! log that the rule saw, or from the last value of the last series; never by the machine's clock.

use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy},
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{
    compiled::Compiled,
    say::{self, Claim, Face},
};
use crate::{episodes::Moment, state::Change};

/// What a watch is stored under.
pub(super) const PREFIX: &str = "rule/";

/// One rule with `absent_after`.
#[derive(Debug)]
struct Watch {
    rule: usize,
    /// How many series of it are followed.
    followed: usize,
    state: Option<State>,
    dirty: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct State {
    rule: String,
    digest: u64,
    /// Since when there has been nothing.
    since: Timestamp,
    gone: Option<(Claim, Face)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Watches {
    all: Vec<Watch>,
    /// Those of rules that are gone or mean something else.
    orphans: Vec<(String, State)>,
    dropped: Vec<String>,
    due: Option<Timestamp>,
    /// Whether every watch has begun.
    begun: bool,
}

fn face(compiled: &Compiled) -> Face {
    let rule = &compiled.rule;
    let source = rule.source.clone().unwrap_or_else(|| super::ID.to_owned());
    let fingerprint = say::absence_of(&rule.id, &rule.metric, "", &rule.labels);
    let mut labels = rule.labels.clone();
    for (name, value) in [("alertname", rule.id.as_str()), ("metric", &rule.metric), ("condition", "absent")] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    if let Some(source) = &rule.source {
        labels.insert("source".to_owned(), source.clone());
    }
    Face { rule: rule.id.clone(), source, labels, fingerprint }
}

/// What the rule is about, as people would write it.
fn selector(compiled: &Compiled) -> String {
    let rule = &compiled.rule;
    let labels = rule.labels.iter().map(|(name, value)| format!("{name}={value}"));
    let source = rule.source.iter().map(|source| format!("source={source}"));
    let parts: Vec<String> = labels.chain(source).chain(rule.matchers.iter().map(ToString::to_string)).collect();
    if parts.is_empty() { rule.metric.clone() } else { format!("{}{{{}}}", rule.metric, parts.join(",")) }
}

impl Watch {
    /// Says that nothing comes, if it has been so for long enough; otherwise when that would be.
    fn look(&mut self, compiled: &Compiled, moment: Moment, out: &mut Vec<AlertRecord>) -> Option<Timestamp> {
        let after = compiled.rule.absent_after?;
        let state = self.state.as_mut().filter(|state| self.followed == 0 && state.gone.is_none())?;
        let due = state.since.after(after.0);
        if due > moment.at {
            return Some(due);
        }
        let face = face(compiled);
        let title = say::cut(&format!("no series of {} for {after}", selector(compiled)));
        let gone = Claim::new(&face, title, compiled.rule.severity, &format!("since {}", state.since.millis()));
        let description = format!("nothing that the rule selects has sent a value since {}", state.since);
        out.push(gone.begun(&face, moment.at, description, moment));
        state.gone = Some((gone, face));
        self.dirty = true;
        None
    }
}

impl Watches {
    pub(super) fn new(rules: &[Compiled]) -> Watches {
        let watched = rules.iter().enumerate().filter(|(_, compiled)| compiled.rule.absent_after.is_some());
        let all = watched.map(|(rule, _)| Watch { rule, followed: 0, state: None, dirty: false }).collect();
        Watches { all, ..Watches::default() }
    }

    fn of(&mut self, rule: usize) -> Option<&mut Watch> {
        let place = self.all.binary_search_by_key(&rule, |watch| watch.rule).ok()?;
        self.all.get_mut(place)
    }

    /// A series of the rule is followed from here on.
    pub(super) fn entered(&mut self, rule: usize) {
        if let Some(watch) = self.of(rule) {
            watch.followed = watch.followed.saturating_add(1);
        }
    }

    /// The rule's selector gave a value: if it was missed, that is over.
    pub(super) fn spoke(&mut self, rule: usize, at: Timestamp, moment: Moment, out: &mut Vec<AlertRecord>) {
        let Some(watch) = self.of(rule) else { return };
        let Some(state) = &mut watch.state else { return };
        if let Some((gone, face)) = state.gone.take() {
            let why = format!("values come, after {} without any", say::words(moment.at.since(state.since)));
            out.push(gone.over(&face, ResolvedBy::Clear, at, &why, moment));
            watch.dirty = true;
        }
    }

    /// A series of the rule, last heard of at `last`, is not followed any more.
    pub(super) fn left(&mut self, rule: usize, compiled: &Compiled, last: Timestamp, moment: Moment, out: &mut Vec<AlertRecord>) {
        let due = {
            let Some(watch) = self.of(rule) else { return };
            watch.followed = watch.followed.saturating_sub(1);
            let Some(state) = watch.state.as_mut().filter(|_| watch.followed == 0) else { return };
            state.since = last;
            watch.dirty = true;
            // at once, or it would depend on where the log was cut when that is
            watch.look(compiled, moment, out)
        };
        self.due = [self.due, due].into_iter().flatten().min();
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, rules: &[Compiled], moment: Moment, out: &mut Vec<AlertRecord>) {
        for (key, state) in std::mem::take(&mut self.orphans) {
            if let Some((gone, face)) = state.gone {
                out.push(gone.over(&face, ResolvedBy::RuleChanged, moment.at, "the rule was changed or removed", moment));
            }
            self.dropped.push(key);
        }
        if self.begun && self.due.is_none_or(|due| due > moment.at) {
            return;
        }
        self.begun = true;
        self.due = None;
        for watch in &mut self.all {
            let Some(compiled) = rules.get(watch.rule) else { continue };
            if watch.state.is_none() {
                let (rule, digest) = (compiled.rule.id.clone(), compiled.digest);
                watch.state = Some(State { rule, digest, since: moment.at, gone: None });
                watch.dirty = true;
            }
            let due = watch.look(compiled, moment, out);
            self.due = [self.due, due].into_iter().flatten().min();
        }
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        // time begins to count at the start, also if nothing ever comes
        let at_once = !self.orphans.is_empty() || (!self.begun && !self.all.is_empty());
        if at_once { Some(Timestamp::ZERO) } else { self.due }
    }

    pub(super) fn touch(&mut self) {
        self.all.iter_mut().for_each(|watch| watch.dirty = watch.state.is_some());
    }

    pub(super) fn changed(&mut self, changes: &mut Vec<Change>) {
        for watch in &mut self.all {
            if let (true, Some(state)) = (std::mem::take(&mut watch.dirty), &watch.state) {
                let key = format!("{PREFIX}{}", state.rule);
                self.dropped.retain(|dropped| *dropped != key);
                changes.push(Change::of(key, Some(state)));
            }
        }
        changes.extend(self.dropped.drain(..).map(Change::gone));
    }

    pub(super) fn restore(&mut self, key: &str, body: &[u8], rules: &[Compiled]) -> Result<(), String> {
        let state: State = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let digest = state.digest;
        let same = |compiled: &&Compiled| compiled.rule.id == state.rule && compiled.digest == digest;
        let watch = self.all.iter_mut().find(|watch| rules.get(watch.rule).as_ref().is_some_and(same));
        match watch {
            Some(watch) => watch.state = Some(state),
            None => self.orphans.push((key.to_owned(), state)),
        }
        // looked at with the next entry, which is soon enough: whatever is due is due by then
        self.begun = false;
        Ok(())
    }

    /// Takes over since when `other` has been missing values; what it said was not heard.
    pub(super) fn adopt(&mut self, rule: usize, other: &Watches, of: usize) {
        let place = other.all.iter().find(|watch| watch.rule == of);
        let Some(state) = place.and_then(|watch| watch.state.clone()) else { return };
        if let Some(watch) = self.of(rule) {
            watch.state = Some(State { gone: None, ..state });
            watch.dirty = true;
            self.begun = false;
        }
    }
}
