//! The dependency graph: which component depends on which, and what follows from that.
//!
//! A [`Graph`] is made whole and never changed, so that whoever asks it twice gets the same answer. Every operation
//! ends on a graph with cycles, and every list has one order.

mod condense;
mod name;
mod shared;
#[cfg(test)]
mod tests;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use condense::Condensed;

pub use self::{
    name::{BadName, ComponentLabels, ComponentName, MAX_NAME},
    shared::CommonDependency,
    walk::{BlastRadius, Hop, Reach, Walk},
};
use crate::time::Timestamp;

/// What people said about a component.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// What it is called where there is room.
    pub title: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
}

/// When signals showed an edge, by receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// For the first time.
    pub first: Timestamp,
    /// For the last time.
    pub last: Timestamp,
}

/// Where an edge is known from: one place at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    /// The configuration names it.
    pub configured: bool,
    /// A person put it there through the API.
    pub by_api: bool,
    /// Signals show it.
    pub seen: Option<Seen>,
}

impl Known {
    /// Whether it goes when signals no longer show it. What people said stays until they take it back.
    pub fn ages_out(&self) -> bool {
        !self.configured && !self.by_api
    }
}

/// One edge: `from` depends on `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge<'a> {
    /// Who depends.
    pub from: &'a ComponentName,
    /// On whom.
    pub to: &'a ComponentName,
    /// Where that is known from.
    pub known: &'a Known,
}

/// The edges as a graph is made of them: the first of a pair depends on the second.
pub type Edges = BTreeMap<(ComponentName, ComponentName), Known>;

/// Who depends on whom.
///
/// Components are numbered in the order of their names: the order of numbers is the order of every list.
#[derive(Debug, Default)]
pub struct Graph {
    names: Vec<ComponentName>,
    about: BTreeMap<ComponentName, About>,
    edges: Edges,
    labels: Arc<ComponentLabels>,
    /// On whom each depends.
    below: Vec<Vec<usize>>,
    /// Who depends on each.
    above: Vec<Vec<usize>>,
    condensed: Condensed,
    /// How many depend on each, over however many hops; counted when it is first asked for.
    dependents: OnceLock<Vec<usize>>,
}

impl Graph {
    /// The graph of these components and edges, and of what the edges name besides. An edge of a component to itself says
    /// nothing and is left out. Whoever calls this bounds the number of both.
    pub fn new(about: BTreeMap<ComponentName, About>, mut edges: Edges, labels: Arc<ComponentLabels>) -> Graph {
        edges.retain(|(from, to), _| from != to);
        let named: BTreeSet<&ComponentName> = about.keys().chain(edges.keys().flat_map(|(from, to)| [from, to])).collect();
        let names: Vec<ComponentName> = named.into_iter().cloned().collect();
        let (mut below, mut above) = (vec![Vec::new(); names.len()], vec![Vec::new(); names.len()]);
        for (from, to) in edges.keys() {
            if let (Ok(from), Ok(to)) = (names.binary_search(from), names.binary_search(to)) {
                // in the order of the edges' names, so both lists ascend
                below.get_mut(from).into_iter().for_each(|list: &mut Vec<usize>| list.push(to));
                above.get_mut(to).into_iter().for_each(|list: &mut Vec<usize>| list.push(from));
            }
        }
        let condensed = Condensed::of(&below);
        Graph { names, about, edges, labels, below, above, condensed, dependents: OnceLock::new() }
    }

    /// How many components there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How many edges there are.
    pub fn edge_count(&self) -> usize {
        self.edges.len()
    }

    /// The components in the order of their names.
    pub fn components(&self) -> impl Iterator<Item = &ComponentName> {
        self.names.iter()
    }

    /// The edges in the order of their names.
    pub fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        self.edges.iter().map(|((from, to), known)| Edge { from, to, known })
    }

    /// The edges that begin or end at a component, in the order of their names.
    pub fn edges_of(&self, name: &str) -> impl Iterator<Item = Edge<'_>> {
        let number = self.number(name);
        let (below, above) = (number.and_then(|n| self.below.get(n)), number.and_then(|n| self.above.get(n)));
        let out = below.into_iter().flatten().filter_map(move |to| Some((number?, *to)));
        let into = above.into_iter().flatten().filter_map(move |from| Some((*from, number?)));
        let pairs: BTreeSet<(usize, usize)> = out.chain(into).collect();
        pairs.into_iter().filter_map(|(from, to)| {
            let pair = (self.names.get(from)?.clone(), self.names.get(to)?.clone());
            self.edges.get_key_value(&pair).map(|((from, to), known)| Edge { from, to, known })
        })
    }

    /// What people said about a component.
    pub fn about(&self, name: &str) -> Option<&About> {
        self.about.get(name)
    }

    /// The component as the graph writes it.
    pub fn component(&self, name: &str) -> Option<&ComponentName> {
        self.names.get(self.number(name)?)
    }

    /// Whether the graph knows a component of this name.
    pub fn is_component(&self, name: &str) -> bool {
        self.number(name).is_some()
    }

    /// The component that something with these labels is about: the value of the first label, in the configured order,
    /// that is there and can be a name; without one the source, if the graph knows it.
    pub fn component_of<'a>(&self, label: impl Fn(&str) -> Option<&'a str>, source: &str) -> Option<ComponentName> {
        let of_label = self.labels.of(label);
        of_label.or_else(|| self.component(source).cloned())
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.names.binary_search_by(|known| known.as_str().cmp(name)).ok()
    }
}
