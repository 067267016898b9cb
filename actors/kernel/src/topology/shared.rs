//! What the components of a set have to do with each other.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BTreeSet},
};

use super::{ComponentName, Graph};

/// How many components are followed at once, as the bits of a number.
const BITS: usize = 64;

/// A component that some of a set depend on or are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommonDependency<'a> {
    /// Which.
    pub component: &'a ComponentName,
    /// How many of the set depend on it or are it.
    pub members: usize,
    /// How many the set has.
    pub set: usize,
    /// How many depend on it in all.
    pub dependents: usize,
    /// How many of those are in the set.
    pub dependents_in_set: usize,
}

impl CommonDependency<'_> {
    /// The share of the set that depends on it or is it, 0 to 1.
    pub fn coverage(&self) -> f64 {
        share(self.members, self.set)
    }

    /// The share of those that depend on it which is in the set, 0 to 1; 1 if nobody depends on it.
    pub fn precision(&self) -> f64 {
        share(self.dependents_in_set, self.dependents)
    }

    /// The most likely to be behind it all first: the higher coverage, then the higher precision, then the fewer dependents.
    fn rank(&self, other: &Self) -> Ordering {
        let precise = |one: &Self, of: &Self| match one.dependents {
            0 => of.dependents.max(1),
            _ => one.dependents_in_set.saturating_mul(of.dependents.max(1)),
        };
        // a/b against c/d as a·d against c·b, without rounding
        let (mine, theirs) = (precise(self, other), precise(other, self));
        let coverage = Reverse(self.members).cmp(&Reverse(other.members));
        coverage.then(theirs.cmp(&mine)).then(self.dependents.cmp(&other.dependents)).then_with(|| self.component.cmp(other.component))
    }
}

fn share(part: usize, whole: usize) -> f64 {
    let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    if whole == 0 { 1.0 } else { number(part) / number(whole) }
}

impl Graph {
    /// Which of a set of failing components depend on no other of it, over however many hops and through whomever: where
    /// the failure may have begun. Those of the set that depend on each other in a circle stand together, as one. What
    /// the graph does not know depends on nothing. In the order of the first name of each.
    ///
    /// Takes time in proportion to what the set depends on.
    pub fn roots_among<'a>(&self, set: &BTreeSet<&'a str>) -> Vec<Vec<&'a str>> {
        let mut failing: BTreeMap<usize, Vec<&'a str>> = BTreeMap::new();
        let mut roots = Vec::new();
        for name in set {
            match self.knot(name) {
                Some(knot) => failing.entry(knot).or_default().push(*name),
                None => roots.push(vec![*name]),
            }
        }
        // upwards: what a knot depends on was looked at before it
        let mut fails_below: BTreeSet<usize> = BTreeSet::new();
        for knot in self.reachable(failing.keys().copied()) {
            let mut below = self.condensed.below.get(knot).into_iter().flatten();
            if below.any(|other| failing.contains_key(other) || fails_below.contains(other)) {
                fails_below.insert(knot);
            }
        }
        roots.extend(failing.into_iter().filter(|(knot, _)| !fails_below.contains(knot)).map(|(_, names)| names));
        roots.sort_unstable();
        roots
    }

    /// The components that those of a set depend on, over however many hops, or are; at most `most`, the most likely to be
    /// behind it all first. What the graph does not know counts to the set and is not among them.
    ///
    /// Takes time in proportion to what the set depends on, for every 64 of it; once for each graph, to that for all its
    /// components.
    pub fn common_dependencies(&self, set: &BTreeSet<&str>, most: usize) -> Vec<CommonDependency<'_>> {
        let numbers: Vec<usize> = set.iter().filter_map(|name| self.number(name)).collect();
        let knots = self.reachable(numbers.iter().filter_map(|number| self.condensed.knot_of.get(*number)).copied());
        let reached = self.followed(&numbers, &knots);
        let dependents = self.dependents.get_or_init(|| self.count_dependents());
        let mut common: Vec<CommonDependency<'_>> = Vec::new();
        for knot in &knots {
            let members = reached.get(*knot).copied().unwrap_or(0);
            for number in self.condensed.members.get(*knot).into_iter().flatten() {
                let Some(component) = self.names.get(*number) else { continue };
                let itself = usize::from(set.contains(component.as_str()));
                let dependents = dependents.get(*number).copied().unwrap_or(0);
                common.push(CommonDependency {
                    component,
                    members,
                    set: set.len(),
                    dependents,
                    dependents_in_set: members.saturating_sub(itself),
                });
            }
        }
        common.sort_unstable_by(CommonDependency::rank);
        common.truncate(most);
        common
    }

    fn knot(&self, name: &str) -> Option<usize> {
        self.condensed.knot_of.get(self.number(name)?).copied()
    }

    /// The knots and all that they depend on, upwards.
    fn reachable(&self, from: impl Iterator<Item = usize>) -> BTreeSet<usize> {
        let mut waiting: Vec<usize> = from.collect();
        let mut reached: BTreeSet<usize> = waiting.iter().copied().collect();
        while let Some(knot) = waiting.pop() {
            let below = self.condensed.below.get(knot).into_iter().flatten();
            waiting.extend(below.filter(|other| reached.insert(**other)));
        }
        reached
    }

    /// How many of `numbers` come to each of `knots`, which are all that they come to.
    fn followed(&self, numbers: &[usize], knots: &BTreeSet<usize>) -> Vec<usize> {
        let mut counts = vec![0_usize; self.condensed.members.len()];
        for some in numbers.chunks(BITS) {
            let mut marks = vec![0_u64; counts.len()];
            for (bit, number) in some.iter().enumerate() {
                let knot = self.condensed.knot_of.get(*number).and_then(|knot| marks.get_mut(*knot));
                knot.into_iter().for_each(|marks| *marks |= 1 << bit);
            }
            // downwards: whoever depends on a knot was looked at before it
            for knot in knots.iter().rev() {
                let Some(mark) = marks.get(*knot).copied().filter(|mark| *mark != 0) else { continue };
                for below in self.condensed.below.get(*knot).into_iter().flatten() {
                    marks.get_mut(*below).into_iter().for_each(|marks| *marks |= mark);
                }
                let count = usize::try_from(mark.count_ones()).unwrap_or(0);
                counts.get_mut(*knot).into_iter().for_each(|counted| *counted += count);
            }
        }
        counts
    }

    fn count_dependents(&self) -> Vec<usize> {
        let (all, knots): (Vec<usize>, _) = ((0..self.names.len()).collect(), (0..self.condensed.members.len()).collect());
        let reached = self.followed(&all, &knots);
        let of = |knot: &usize| reached.get(*knot).map_or(0, |count| count.saturating_sub(1));
        self.condensed.knot_of.iter().map(of).collect()
    }
}
