//! Along the edges of one component, hop by hop.

use std::collections::BTreeSet;

use super::{ComponentName, Graph};

/// How far a walk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Over at most so many edges.
    pub hops: usize,
    /// To at most so many components.
    pub results: usize,
}

impl Default for Reach {
    fn default() -> Reach {
        Reach { hops: 8, results: 1000 }
    }
}

/// A component that a walk came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop<'a> {
    /// Which.
    pub component: &'a ComponentName,
    /// Over how many edges at least; 1 for a neighbour.
    pub hops: usize,
}

/// Where a walk came to, the nearest first, by name where that is equal. The component it began at is not among them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Walk<'a> {
    /// The components.
    pub found: Vec<Hop<'a>>,
    /// There are more, beyond the reach.
    pub more: bool,
}

/// How many components a failure of one may affect: those that depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BlastRadius {
    /// How many depend on it at each distance; the first are those that depend on it directly.
    pub by_hop: Vec<usize>,
    /// There are more, beyond the reach.
    pub more: bool,
}

impl BlastRadius {
    /// How many depend on it directly.
    pub fn direct(&self) -> usize {
        self.by_hop.first().copied().unwrap_or(0)
    }

    /// How many depend on it at all.
    pub fn total(&self) -> usize {
        self.by_hop.iter().sum()
    }
}

impl Graph {
    /// On whom `component` depends, directly and through others.
    pub fn depends_on(&self, component: &str, reach: Reach) -> Walk<'_> {
        self.walk(component, &self.below, reach)
    }

    /// Who depends on `component`, directly and through others.
    pub fn dependents(&self, component: &str, reach: Reach) -> Walk<'_> {
        self.walk(component, &self.above, reach)
    }

    /// How many a failure of `component` may affect, by distance.
    pub fn blast_radius(&self, component: &str, reach: Reach) -> BlastRadius {
        BlastRadius::from(&self.dependents(component, reach))
    }

    fn walk(&self, from: &str, along: &[Vec<usize>], reach: Reach) -> Walk<'_> {
        let Some(start) = self.number(from) else { return Walk::default() };
        let (mut reached, mut front) = (BTreeSet::from([start]), vec![start]);
        let mut walk = Walk::default();
        for hops in 1.. {
            let beyond = front.iter().filter_map(|number| along.get(*number)).flatten();
            let next: BTreeSet<usize> = beyond.copied().filter(|number| !reached.contains(number)).collect();
            if next.is_empty() {
                break;
            }
            let room = if hops > reach.hops { 0 } else { reach.results.saturating_sub(walk.found.len()) };
            walk.found.extend(next.iter().take(room).filter_map(|number| Some(Hop { component: self.names.get(*number)?, hops })));
            if next.len() > room {
                walk.more = true;
                break;
            }
            front = next.iter().copied().collect();
            reached.extend(next);
        }
        walk
    }
}

impl From<&Walk<'_>> for BlastRadius {
    fn from(dependents: &Walk<'_>) -> BlastRadius {
        let by_hop = dependents.found.chunk_by(|a, b| a.hops == b.hops).map(<[Hop<'_>]>::len).collect();
        BlastRadius { by_hop, more: dependents.more }
    }
}
