//! Who is likely to have caused it: components ranked by what speaks for each.
//!
//! Three things speak for a component. *What is wrong with it*: its changes that had not gone back to usual when the incident
//! began, those that tell of its own trouble most. *How early*: whose trouble began first, among those that the complaints
//! connect with the incident. *Who is named*: the complaints of each component name others; blame starts at the
//! components of the incident and walks along those names until nobody names anybody else. A component's share is its
//! part of everything that speaks for any of them; the less the kinds of evidence agree, the more is left for something unseen.

use std::{collections::BTreeMap, time::Duration};

use opspilot_kernel::{alert::Observation, time::Timestamp};

use super::{
    changes::{Change, Kind, complaints},
    pack::Pack,
    stats::millis,
    words,
};

/// How much of the blame walks on at each step.
const WALK: f64 = 0.85;
const STEPS: usize = 40;
/// How much of a share comes from what is wrong with a component; the rest from being named.
const WRONG: f64 = 0.6;
/// What remains of that for a component that no complaint connects with the incident.
const APART: f64 = 0.3;
/// What remains for one that came last.
const LATE: f64 = 0.35;
/// What remains of it for one that tells of others' trouble only.
const FOREIGN: f64 = 0.8;
/// What speaks for something that was not seen, as long as no kind of evidence agrees with another.
const UNKNOWN: f64 = 0.5;
/// Causes that are named at all.
const MOST: usize = 5;
const LEAST_SHARE: f64 = 0.03;
/// So much earlier is earlier.
const MARKED: Duration = Duration::from_secs(5);

/// A component with what speaks for it.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) component: String,
    pub(super) share: f64,
    /// What shows it, the most telling first.
    pub(super) shown: Vec<Observation>,
    /// How many kinds of evidence agree, of four.
    pub(super) agreement: u32,
}

/// Somebody that observes, or is spoken of.
#[derive(Debug, Clone, Default)]
struct Component {
    name: String,
    changes: Vec<usize>,
    named_by: Vec<(usize, Observation)>,
    restart: bool,
}

/// What is known of who is who.
struct Scene<'a> {
    found: &'a [Change],
    components: Vec<Component>,
    /// By every name it goes by.
    known: BTreeMap<String, usize>,
    edges: BTreeMap<(usize, usize), f64>,
}

/// The components that may have caused it, the likeliest first. `of_incident` are the sources of its alerts.
pub(super) fn suspects(pack: &Pack, found: &[Change], of_incident: &[String]) -> Vec<Suspect> {
    let mut scene = Scene::of(pack, found, of_incident);
    scene.listen(pack);
    let blame = scene.walk();
    let onsets: Vec<Option<Timestamp>> = (0..scene.components.len()).map(|one| scene.onset(one)).collect();
    let connected = |one: usize| blame.get(one).is_some_and(|blame| *blame > 1e-6);
    let of_connected = || onsets.iter().enumerate().filter(|(one, _)| connected(*one)).filter_map(|(_, onset)| *onset);
    let first = of_connected().min().unwrap_or(pack.window.onset);
    let last = of_connected().max().unwrap_or(pack.window.onset).max(pack.window.onset);
    let mut suspects: Vec<(f64, Suspect)> = Vec::new();
    for (one, component) in scene.components.iter().enumerate() {
        let early = match onsets.get(one).copied().flatten() {
            None => 0.0,
            Some(_) if last.since(first) < Duration::from_secs(2) => 0.5,
            Some(onset) => (millis(last.since(onset)) / millis(last.since(first))).clamp(0.0, 1.0),
        };
        let strength = scene.strength(one);
        let local = scene.own_trouble(one);
        let wrong = strength * (LATE + (1.0 - LATE) * early) * if connected(one) { 1.0 } else { APART } * if local { 1.0 } else { FOREIGN };
        let speaks = WRONG * wrong + (1.0 - WRONG) * blame.get(one).copied().unwrap_or(0.0);
        let ahead = onsets.get(one).copied().flatten().is_some_and(|onset| onset.after(MARKED) <= pack.window.onset);
        let metric = scene.active(one).any(|change| change.kind == Kind::Metric);
        let agreement = [ahead, !component.named_by.is_empty(), local, metric].into_iter().filter(|agrees| *agrees).count();
        // blame that only started there and went nowhere says nothing
        if strength > 0.0 || !component.named_by.is_empty() {
            let agreement = u32::try_from(agreement).unwrap_or(0);
            suspects
                .push((speaks, Suspect { component: super::say::name(&component.name), share: 0.0, shown: scene.shown(one), agreement }));
        }
    }
    // what stands alone, with nothing that agrees, is where it was seen and no cause
    let alone = suspects.len() == 1 && suspects.iter().all(|(_, suspect)| suspect.agreement == 0);
    if alone {
        return Vec::new();
    }
    let agreement = suspects.iter().map(|(_, suspect)| suspect.agreement).max().unwrap_or(0);
    let unknown = UNKNOWN * (1.0 - f64::from(agreement) / 4.0);
    let all = unknown + suspects.iter().map(|(speaks, _)| speaks).sum::<f64>();
    suspects.iter_mut().for_each(|(speaks, suspect)| suspect.share = (100.0 * *speaks / all.max(1e-9)).round() / 100.0);
    suspects.sort_by(|(a, one), (b, other)| b.total_cmp(a).then_with(|| one.component.cmp(&other.component)));
    let ranked =
        suspects.into_iter().map(|(_, suspect)| suspect).filter(|suspect| suspect.share >= LEAST_SHARE && !suspect.shown.is_empty());
    ranked.take(MOST).collect()
}

impl<'a> Scene<'a> {
    /// Sources that are instances of the same thing are one component.
    fn of(pack: &Pack, found: &'a [Change], of_incident: &[String]) -> Scene<'a> {
        let mut scene = Scene { found, components: Vec::new(), known: BTreeMap::new(), edges: BTreeMap::new() };
        let mut of_source: Vec<usize> = Vec::new();
        for source in &pack.sources {
            let alias = words::alias(&source.name);
            let one = alias.as_ref().and_then(|alias| scene.known.get(alias)).copied().unwrap_or(scene.components.len());
            match (scene.components.get_mut(one), alias) {
                (Some(shared), Some(alias)) => shared.name = alias,
                (Some(_), None) => {}
                (None, alias) => {
                    scene.components.push(Component { name: source.name.clone(), ..Component::default() });
                    scene.known.extend(alias.map(|alias| (alias, one)));
                }
            }
            let full = source.name.to_lowercase();
            if words::alias(&source.name).is_some() {
                scene.known.entry(full).or_insert(one);
            }
            of_source.push(one);
            if let Some(component) = scene.components.get_mut(one) {
                component.restart |= of_incident.contains(&source.name);
            }
        }
        for (index, change) in found.iter().enumerate() {
            let one = of_source.get(change.source).copied();
            if let Some(component) = one.and_then(|one| scene.components.get_mut(one)) {
                component.changes.push(index);
            }
        }
        scene
    }

    /// Goes through the complaints for whom they name.
    fn listen(&mut self, pack: &Pack) {
        let complaints = complaints(pack, self.found);
        for change in complaints.values().flatten() {
            let Some(line) = &change.line else { continue };
            let Some(from) = self.components.iter().position(|own| own.changes.iter().any(|index| self.is(*index, change))) else {
                continue;
            };
            let mut named: Vec<usize> = words::names(line).iter().filter_map(|name| self.known.get(name).copied()).collect();
            if let Some(endpoint) = words::endpoint(line)
                && !words::names(endpoint).iter().any(|name| self.known.contains_key(name))
            {
                named.push(self.components.len());
                self.known.insert(endpoint.to_lowercase(), self.components.len());
                self.components.push(Component { name: endpoint.to_owned(), ..Component::default() });
            }
            named.sort_unstable();
            named.dedup();
            for to in named.into_iter().filter(|to| *to != from) {
                *self.edges.entry((from, to)).or_default() += change.weight;
                let said = change.shown.iter().find(|shown| matches!(shown, Observation::Log { .. }));
                if let (Some(component), Some(said)) = (self.components.get_mut(to), said) {
                    component.named_by.push((from, said.clone()));
                }
            }
        }
    }

    fn is(&self, index: usize, change: &Change) -> bool {
        self.found.get(index).is_some_and(|own| std::ptr::eq(own, change))
    }

    /// Where the blame comes to rest.
    fn walk(&self) -> Vec<f64> {
        let starts = self.components.iter().filter(|component| component.restart).count();
        let start = |component: &Component| {
            if component.restart { 1.0 / super::stats::real(u64::try_from(starts).unwrap_or(1)).max(1.0) } else { 0.0 }
        };
        let mut blame: Vec<f64> = self.components.iter().map(start).collect();
        let mut out: Vec<f64> = vec![0.0; self.components.len()];
        for ((from, _), weight) in &self.edges {
            if let Some(sum) = out.get_mut(*from) {
                *sum += weight;
            }
        }
        for _ in 0..STEPS {
            let mut next: Vec<f64> = self.components.iter().map(|component| (1.0 - WALK) * start(component)).collect();
            for (one, own) in blame.iter().enumerate() {
                if out.get(one).is_none_or(|out| *out <= 0.0)
                    && let Some(rests) = next.get_mut(one)
                {
                    *rests += WALK * own;
                }
            }
            for ((from, to), weight) in &self.edges {
                let part = weight / out.get(*from).copied().unwrap_or(1.0).max(1e-9);
                let moved = WALK * part * blame.get(*from).copied().unwrap_or(0.0);
                if let Some(own) = next.get_mut(*to) {
                    *own += moved;
                }
            }
            blame = next;
        }
        blame
    }

    fn own(&self, one: usize) -> impl Iterator<Item = &'a Change> + '_ {
        let indices = self.components.get(one).map(|component| component.changes.as_slice()).unwrap_or_default();
        indices.iter().filter_map(|index| self.found.get(*index))
    }

    /// Changes that had not gone back to usual when it began.
    fn active(&self, one: usize) -> impl Iterator<Item = &'a Change> + '_ {
        self.own(one).filter(|change| change.bad && !change.over)
    }

    fn onset(&self, one: usize) -> Option<Timestamp> {
        self.active(one).map(|change| change.began).min()
    }

    fn strength(&self, one: usize) -> f64 {
        let mut left = 1.0;
        self.active(one).take(6).for_each(|change| left *= 1.0 - 0.5 * change.weight);
        let trouble = self.onset(one);
        // something done to a component counts only if trouble of its own followed
        let deed =
            self.own(one).filter(|change| change.kind == Kind::Deed).any(|deed| trouble.is_some_and(|trouble| deed.began <= trouble));
        if deed {
            left *= 0.8;
        }
        1.0 - left
    }

    fn own_trouble(&self, one: usize) -> bool {
        self.active(one).any(|change| change.line.as_deref().is_some_and(words::is_local))
    }

    /// What is shown for it: the earliest, the most telling, what was done to it, and who names it.
    fn shown(&self, one: usize) -> Vec<Observation> {
        let mut shown: Vec<Observation> = Vec::new();
        let mut show = |observation: &Observation| {
            if !shown.contains(observation) {
                shown.push(observation.clone());
            }
        };
        let telling =
            |change: &&Change| if change.line.as_deref().is_some_and(words::is_local) { 2.0 + change.weight } else { change.weight };
        self.active(one).min_by_key(|change| change.began).into_iter().flat_map(|change| change.shown.iter().rev()).for_each(&mut show);
        let heaviest = self.active(one).max_by(|a, b| telling(a).total_cmp(&telling(b)));
        heaviest.into_iter().flat_map(|change| change.shown.iter().rev()).for_each(&mut show);
        let metric = self.active(one).filter(|change| change.kind == Kind::Metric).min_by_key(|change| change.began);
        metric.and_then(|change| change.shown.first()).into_iter().for_each(&mut show);
        let trouble = self.onset(one);
        let deed = self.own(one).find(|change| change.kind == Kind::Deed && trouble.is_some_and(|trouble| change.began <= trouble));
        deed.and_then(|change| change.shown.last()).into_iter().for_each(&mut show);
        let mut heard: Vec<usize> = Vec::new();
        for (from, said) in self.components.get(one).map(|component| component.named_by.as_slice()).unwrap_or_default() {
            if heard.len() < 2 && !heard.contains(from) {
                heard.push(*from);
                show(said);
            }
        }
        shown
    }
}
