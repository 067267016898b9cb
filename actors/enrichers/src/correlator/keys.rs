//! What one alert may share with others.

use std::collections::BTreeSet;

use opspilot_kernel::{
    alert::AlertRecord,
    topology::{Graph, Reach},
};

use super::{config::Config, words};
use crate::stage::{Bond, Key};

/// How far the graph is followed from an alert's component: over so many edges, to so many components.
const REACH: Reach = Reach { hops: 4, results: 16 };
/// Labels, and words, of one alert that others may share.
const LABELS: usize = 16;
const WORDS: usize = 8;
/// The longest value that is compared, in bytes: what is longer is a text and no name.
const LONGEST: usize = 128;

/// The keys of an alert that begins, the strongest first.
pub(super) fn keys(config: &Config, graph: &Graph, record: &AlertRecord) -> Vec<Key> {
    let mut keys = Keys { list: Vec::new(), seen: BTreeSet::new(), holds: !record.supports };
    let label = |name: &str| record.labels.get(name).map(String::as_str).filter(|value| value.len() <= LONGEST);
    let component = graph.component_of(label, &record.source);
    let component = component.as_ref().map(|component| component.as_str());
    if let Some(component) = component {
        keys.add("component", component, Use::JOINS_AND_HOLDS, Bond::Likeness, format!("both are about {component}"));
        let why = format!("it is about {component}, and what that is about depends on it");
        keys.add("dep", component, Use::JOINS, Bond::DependsOnThis, why);
    }
    let peers: Vec<(&str, &str)> = config.peer_labels.iter().filter_map(|name| Some((name.as_str(), label(name)?))).collect();
    for (name, peer) in peers.iter().filter(|(_, peer)| Some(*peer) != component && !peer.is_empty()) {
        keys.add("component", peer, Use::JOINS, Bond::ThisDependsOn, format!("its label {name} names {peer}, which that is about"));
        keys.add("dep", peer, Use::ALL, Bond::Likeness, format!("both depend on {peer}"));
    }
    if let Some(component) = component {
        for below in graph.depends_on(component, REACH).found {
            let below = below.component.as_str();
            let why = format!("it is about {component}, which depends on {below}");
            keys.add("component", below, Use::JOINS, Bond::ThisDependsOn, why);
            keys.add("dep", below, Use::COUNTS, Bond::Likeness, format!("both depend on {below}"));
        }
    }
    keys.add("name", &record.rule, Use::COUNTS, Bond::Likeness, format!("both are called {}", record.rule));
    let telling = record.labels.iter().filter(|(name, value)| {
        let known = config.ignore_labels.contains(*name) || config.peer_labels.contains(*name);
        !known && !value.is_empty() && value.len() <= LONGEST && Some(value.as_str()) != component && **value != record.rule
    });
    for (name, value) in telling.take(LABELS) {
        keys.add("label", &format!("{name}={value}"), Use::COUNTS, Bond::Likeness, format!("both have the label {name}={value}"));
    }
    let about_itself = |word: &&str| Some(*word) == component || *word == record.source || *word == record.rule;
    let words: BTreeSet<&str> =
        words::names(&record.title).chain(words::names(&record.description)).filter(|word| !about_itself(word)).collect();
    for word in words.into_iter().take(WORDS) {
        keys.add("component", word, Use::JOINS, Bond::ThisDependsOn, format!("it speaks of {word}, which that is about"));
        keys.add("entity", word, Use::COUNTS, Bond::Likeness, format!("both speak of {word}"));
    }
    keys.list
}

/// What a key is good for.
#[derive(Clone, Copy)]
struct Use {
    seeks: bool,
    holds: bool,
    counts: bool,
}

impl Use {
    const JOINS: Use = Use { seeks: true, holds: false, counts: false };
    const JOINS_AND_HOLDS: Use = Use { seeks: true, holds: true, counts: false };
    const COUNTS: Use = Use { seeks: false, holds: true, counts: true };
    const ALL: Use = Use { seeks: true, holds: true, counts: true };
}

struct Keys {
    list: Vec<Key>,
    seen: BTreeSet<String>,
    /// What only supports others is found by nobody.
    holds: bool,
}

impl Keys {
    /// The first use of a key is the strongest.
    fn add(&mut self, kind: &str, value: &str, what: Use, bond: Bond, why: String) {
        let name = format!("{kind}:{value}");
        if value.is_empty() || !self.seen.insert(name.clone()) {
            return;
        }
        let holds = what.holds && self.holds;
        self.list.push(Key { name, seeks: what.seeks, holds, counts: what.counts && holds, bond, why });
    }
}
