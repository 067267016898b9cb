//! All objectives, and the counters that tell of them.
//!
//! A counter that shows less than before began anew at zero. What it grew by between two values is shared out over the time
//! between them, so a value that comes late by its own series' order adds nothing and is left out; one that is late by
//! another's counts where it belongs. Of two with the same time the later one counts. A counter that was silent for an hour
//! begins anew, and its first value alone shows no growth, as in Prometheus.

use std::{collections::HashMap, time::Duration};

use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy},
    fingerprint::Fingerprint,
    matcher::all_hold,
    signal::SignalRef,
    time::Timestamp,
};

use super::{
    config::{Role, Slo},
    objective::{Head, Objective},
    ring::Pair,
};
use crate::{
    counts::Counts,
    deadlines::Deadlines,
    episodes::Moment,
    state::Change,
    threshold::{
        compiled::label,
        pack::{Cut, Packer, Unpacker},
        series::Point,
    },
};

/// What objectives and counters are stored under.
pub(crate) const PREFIX: &str = "slo/";
pub(crate) const COUNTER: &str = "counter/";

/// A counter that is silent for longer begins anew.
const MEMORY: Duration = Duration::from_secs(3600);

/// All objectives.
#[derive(Debug, Default)]
pub(crate) struct Slos {
    all: Vec<Objective>,
    counters: HashMap<u64, Counter>,
    max: usize,
    idle: Deadlines,
    dirty: Vec<u64>,
    /// Objectives that are gone or mean something else, and what is stored of them.
    orphans: Vec<Head>,
    dropped: Vec<String>,
    evicted: u64,
}

/// One series of an objective.
#[derive(Debug, Clone, PartialEq)]
struct Counter {
    objective: usize,
    /// Whether it tells of errors, of all events, or is a ratio.
    roles: u8,
    at: Timestamp,
    logged_at: Timestamp,
    value: f64,
    /// The value before, and its time.
    before: Option<(Timestamp, f64)>,
    idle: Option<Timestamp>,
    dirty: bool,
}

const PART: u8 = 1;
const TOTAL: u8 = 2;
const RATIO: u8 = 4;

impl Counter {
    fn is(&self, role: u8) -> bool {
        self.roles & role != 0
    }

    fn pair(&self, growth: f64) -> Pair {
        [if self.is(PART) { growth } else { 0.0 }, if self.is(TOTAL) { growth } else { 0.0 }]
    }

    fn pack(&self, objective: u64) -> Vec<u8> {
        let mut packer = Packer::default();
        packer.count(objective);
        packer.count(u64::from(self.roles));
        packer.time(self.at);
        packer.time(self.logged_at);
        packer.value(self.value);
        packer.len(self.before.iter().len());
        if let Some((at, value)) = self.before {
            packer.time(at);
            packer.value(value);
        }
        packer.bytes()
    }

    fn unpack(body: &[u8]) -> Result<(u64, Counter), Cut> {
        let mut unpacker = Unpacker::new(body);
        let objective = unpacker.count()?;
        let roles = u8::try_from(unpacker.count()?).map_err(|_| Cut)?;
        let (at, logged_at, value) = (unpacker.time()?, unpacker.time()?, unpacker.value()?);
        let before = if unpacker.count()? > 0 { Some((unpacker.time()?, unpacker.value()?)) } else { None };
        Ok((objective, Counter { objective: 0, roles, at, logged_at, value, before, idle: None, dirty: false }))
    }
}

/// By how much a counter grew.
fn growth(before: f64, now: f64) -> f64 {
    let grown = if now >= before { now - before } else { now };
    if grown.is_finite() { grown } else { 0.0 }
}

impl Slos {
    pub(crate) fn new(slos: Vec<Slo>, max: usize) -> Slos {
        Slos { all: slos.into_iter().map(Objective::new).collect(), max: max.max(1), ..Slos::default() }
    }

    /// The metrics that each objective is about.
    pub(crate) fn metrics(&self) -> Vec<(usize, &str)> {
        let mut pairs: Vec<(usize, &str)> = Vec::new();
        for (index, objective) in self.all.iter().enumerate() {
            pairs.extend(objective.slo.selectors().map(|(_, selector)| (index, selector.metric.as_str())));
        }
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }

    fn roles(&self, index: usize, signal: &SignalRef<'_>) -> u8 {
        let Some(Objective { slo, .. }) = self.all.get(index) else { return 0 };
        if !all_hold(&slo.matchers, |name| label(signal, name)) {
            return 0;
        }
        let told = slo
            .selectors()
            .filter(|(_, selector)| selector.metric == signal.name && all_hold(&selector.matchers, |name| label(signal, name)));
        told.fold(0, |roles, (role, _)| {
            roles
                | match role {
                    Role::Part => PART,
                    Role::Total => TOTAL,
                    Role::Ratio => RATIO,
                }
        })
    }

    /// Takes a value in for the objective `index`.
    pub(crate) fn sample(&mut self, index: usize, signal: &SignalRef<'_>, point: Point, counts: &mut Counts, out: &mut Vec<AlertRecord>) {
        let Some(objective) = self.all.get(index) else { return };
        let key = crate::threshold::fingerprint(&objective.name, signal).as_u64();
        let roles = match self.counters.get(&key) {
            Some(counter) => counter.roles,
            None => self.roles(index, signal),
        };
        if roles == 0 {
            return;
        }
        counts.matched += 1;
        let value = point.value;
        if value < 0.0 || (roles & RATIO != 0 && value > 1.0) {
            counts.ignored += 1;
            return;
        }
        if point.at > point.logged_at {
            counts.ahead += 1;
        }
        let point = Point { at: point.at.min(point.logged_at), ..point };
        if !self.counters.contains_key(&key) {
            self.enter(
                key,
                Counter {
                    objective: index,
                    roles,
                    at: point.at,
                    logged_at: point.logged_at,
                    value,
                    before: None,
                    idle: None,
                    dirty: false,
                },
            );
            if roles & RATIO == 0 {
                return;
            }
        } else if roles & RATIO == 0 {
            return self.grown(key, point, counts, out);
        }
        self.rated(key, point, counts, out);
    }

    /// A counter shows another value.
    fn grown(&mut self, key: u64, point: Point, counts: &mut Counts, out: &mut Vec<AlertRecord>) {
        let Some(counter) = self.counters.get_mut(&key) else { return };
        let Some(objective) = self.all.get_mut(counter.objective) else { return };
        let Point { at, value, .. } = point;
        if at < counter.at {
            counts.ignored += 1;
            return;
        }
        if at == counter.at {
            // instead of the value that it had for this moment
            if let Some((from, before)) = counter.before {
                let more = growth(before, value) - growth(before, counter.value);
                objective.add(from, at, counter.pair(more));
            }
        } else if at.since(counter.at) > MEMORY {
            counter.before = None;
        } else {
            objective.add(counter.at, at, counter.pair(growth(counter.value, value)));
            counter.before = Some((counter.at, counter.value));
        }
        objective.spoke(Some(counter.at), Some(at));
        (counter.at, counter.value, counter.logged_at) = (at, value, point.logged_at);
        if let Some((from, _)) = counter.before {
            objective.heard(from, at, Moment { seq: point.seq, at: point.logged_at }, out);
        }
        self.touched(key);
    }

    /// A ratio shows a value.
    fn rated(&mut self, key: u64, point: Point, counts: &mut Counts, out: &mut Vec<AlertRecord>) {
        let Some(counter) = self.counters.get_mut(&key) else { return };
        let Some(objective) = self.all.get_mut(counter.objective) else { return };
        let Point { at, value, .. } = point;
        // of two values with the same time the later one counts; at its first one a series has none before
        let again = counter.before.is_some() && at == counter.at;
        let pair = if again { [value - counter.value, 0.0] } else { [value, 1.0] };
        if !objective.add_at(at, pair) {
            counts.ignored += 1;
            return;
        }
        if at >= counter.at {
            objective.spoke(Some(counter.at), Some(at));
            (counter.at, counter.value, counter.before) = (at, value, Some((at, value)));
        }
        counter.logged_at = point.logged_at;
        let minute = Duration::from_secs(60);
        objective.heard(at.before(minute), at, Moment { seq: point.seq, at: point.logged_at }, out);
        self.touched(key);
    }

    fn enter(&mut self, key: u64, counter: Counter) {
        while self.counters.len() >= self.max && self.drop_idle(Timestamp::from_millis(i64::MAX)) {
            self.evicted = self.evicted.saturating_add(1);
        }
        self.insert(key, counter);
        self.touched(key);
    }

    fn insert(&mut self, key: u64, counter: Counter) {
        if let Some(objective) = self.all.get_mut(counter.objective) {
            objective.spoke(None, Some(counter.at));
        }
        self.counters.insert(key, counter);
    }

    fn touched(&mut self, key: u64) {
        let Some(counter) = self.counters.get_mut(&key) else { return };
        self.idle.set(key, &mut counter.idle, counter.logged_at.after(MEMORY));
        if !std::mem::replace(&mut counter.dirty, true) {
            self.dirty.push(key);
        }
    }

    /// Lets go of the counter that was silent for longest, if it is due; false if there is none.
    fn drop_idle(&mut self, now: Timestamp) -> bool {
        while let Some((due, key)) = self.idle.first()
            && due <= now
        {
            let mut entered = Some(due);
            self.idle.clear(key, &mut entered);
            let Some(counter) = self.counters.get_mut(&key) else { continue };
            counter.idle = None;
            let truth = counter.logged_at.after(MEMORY);
            if truth > due {
                self.idle.set(key, &mut counter.idle, truth);
                continue;
            }
            if !counter.dirty {
                self.dirty.push(key);
            }
            if let Some(gone) = self.counters.remove(&key)
                && let Some(objective) = self.all.get_mut(gone.objective)
            {
                objective.spoke(Some(gone.at), None);
            }
            return true;
        }
        false
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, moment: Moment, out: &mut Vec<AlertRecord>) {
        for mut head in std::mem::take(&mut self.orphans) {
            head.end(ResolvedBy::RuleChanged, "the objective was changed or removed", moment, out);
        }
        self.all.iter_mut().for_each(|objective| objective.wait(moment, out));
        while self.drop_idle(moment.at) {}
    }

    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        if !self.orphans.is_empty() {
            return Some(Timestamp::ZERO);
        }
        self.all.iter().filter_map(Objective::timer).min()
    }

    pub(crate) fn touch(&mut self) {
        self.all.iter_mut().for_each(Objective::touch);
        for (key, counter) in &mut self.counters {
            if !std::mem::replace(&mut counter.dirty, true) {
                self.dirty.push(*key);
            }
        }
    }

    pub(crate) fn changed(&mut self, changes: &mut Vec<Change>) {
        changes.extend(self.dropped.drain(..).map(Change::gone));
        self.dirty.sort_unstable();
        self.dirty.dedup();
        for key in self.dirty.drain(..) {
            let name = format!("{COUNTER}{}", Fingerprint::from_u64(key));
            let counter = self.counters.get_mut(&key);
            let body = counter.and_then(|counter| {
                counter.dirty = false;
                Some(counter.pack(self.all.get(counter.objective)?.key))
            });
            changes.push(Change { key: name, body });
        }
        for objective in &mut self.all {
            if !std::mem::take(&mut objective.dirty) {
                continue;
            }
            let name = format!("{PREFIX}{}", objective.name);
            changes.push(Change::of(name.clone(), Some(&objective.head)));
            for (letter, ring) in [('h', &mut objective.hours), ('m', &mut objective.minutes)] {
                let chunks = ring.changed().into_iter();
                changes.extend(chunks.map(|(place, body)| Change { key: format!("{name}/{letter}{place:03}"), body: Some(body) }));
            }
        }
    }

    fn find(&self, key: u64) -> Option<usize> {
        self.all.iter().position(|objective| objective.key == key)
    }

    /// Takes a stored piece back: `slo/KEY`, `slo/KEY/hNNN` or `slo/KEY/mNNN`.
    pub(crate) fn restore(&mut self, name: &str, rest: &str, body: &[u8]) -> Result<(), String> {
        let (key, part) = rest.split_once('/').unwrap_or((rest, ""));
        let key = u64::from_str_radix(key, 16).map_err(|error| error.to_string())?;
        let head = || serde_json::from_slice::<Head>(body).map_err(|error| error.to_string());
        let Some(objective) = self.find(key).and_then(|index| self.all.get_mut(index)) else {
            self.dropped.push(name.to_owned());
            if part.is_empty() {
                self.orphans.push(head()?);
            }
            return Ok(());
        };
        match part.chars().next() {
            None => {
                objective.head = head()?;
                Ok(())
            }
            Some('h') => objective.hours.restore(body).map_err(|cut| cut.to_string()),
            Some('m') => objective.minutes.restore(body).map_err(|cut| cut.to_string()),
            Some(_) => Err("unknown part of an objective".to_owned()),
        }
    }

    /// Takes a stored counter back.
    pub(crate) fn restore_counter(&mut self, name: &str, rest: &str, body: &[u8]) -> Result<(), String> {
        let key: Fingerprint = rest.parse().map_err(|_| "no counter's key".to_owned())?;
        let (objective, counter) = Counter::unpack(body).map_err(|cut| cut.to_string())?;
        let Some(index) = self.find(objective) else {
            self.dropped.push(name.to_owned());
            return Ok(());
        };
        let mut counter = Counter { objective: index, ..counter };
        self.idle.set(key.as_u64(), &mut counter.idle, counter.logged_at.after(MEMORY));
        self.insert(key.as_u64(), counter);
        Ok(())
    }

    /// The objectives of `new` that `old` has not or that mean something else there, and how far they look back.
    pub(crate) fn changed_part(old: &[Slo], new: &[Slo]) -> (Vec<Slo>, Option<Duration>) {
        let known: Vec<u64> = old.iter().cloned().map(|slo| Objective::new(slo).key).collect();
        let fresh: Vec<Objective> = new.iter().cloned().map(Objective::new).filter(|objective| !known.contains(&objective.key)).collect();
        let back = fresh.iter().map(Objective::looks_back).max();
        (fresh.into_iter().map(|objective| objective.slo).collect(), back)
    }

    /// Takes over what `other` knows of the same objectives.
    pub(crate) fn adopt(&mut self, other: Slos) {
        let places: Vec<Option<usize>> = other.all.iter().map(|objective| self.find(objective.key)).collect();
        for (mut objective, place) in other.all.into_iter().zip(&places) {
            if let Some(own) = place.and_then(|place| self.all.get_mut(place)) {
                objective.recalled();
                *own = objective;
            }
        }
        for (key, counter) in other.counters {
            if let Some(index) = places.get(counter.objective).copied().flatten() {
                self.enter(key, Counter { objective: index, idle: None, dirty: false, ..counter });
            }
        }
    }

    /// How many counters are followed, whether there may be no more, and how many had to go.
    pub(crate) fn followed(&self) -> (usize, bool, u64) {
        (self.counters.len(), !self.all.is_empty() && self.counters.len() >= self.max, self.evicted)
    }

    #[cfg(test)]
    pub(crate) fn objective(&self, index: usize) -> &Objective {
        &self.all[index]
    }
}
