//! The configuration of `enricher.topology`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use opspilot_kernel::{
    config::{ModuleConfig, Problem, Span},
    topology::{About, ComponentLabels, ComponentName, Edges, Graph, Known, MAX_NAME},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most names of labels in a list.
const LABELS: usize = 100;
/// The characters of the longest name of a label.
const LABEL: usize = 128;

/// `enricher.topology`: which component depends on which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What depends on what, as far as you know it.
    pub edges: Vec<Dependent>,
    /// What is called how and who answers for it, by the component's name.
    pub components: BTreeMap<ComponentName, Details>,
    /// Labels whose value names a component that the signal's own depends on.
    pub peers: Vec<String>,
    /// Pairs of labels of a signal about a call: the component that `from` names depends on the one that `to` names. The
    /// first pair that a signal has counts, and then none of its `peers`.
    pub calls: Vec<LabelPair>,
    /// Pairs of labels that tell what something belongs to or runs on: what `from` names depends on what `to` names.
    pub owners: Vec<LabelPair>,
    /// Labels whose value names the component that a signal or an alert is about, the most telling first.
    pub component_labels: Vec<String>,
    /// How long an edge is kept that signals showed and no longer show.
    pub forget_after: Span,
    /// At most so many components. At the bound the edge that signals showed least recently goes, and what it alone named.
    pub max_components: u32,
    /// At most so many edges. At the bound the one that signals showed least recently goes.
    pub max_edges: u32,
}

/// A component, and on what it depends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dependent {
    /// Who depends.
    pub from: ComponentName,
    /// On whom.
    pub to: Vec<ComponentName>,
}

/// What people should know of a component.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Details {
    /// What it is called where there is room.
    pub title: Option<String>,
    /// Who answers for it.
    pub owner: Option<String>,
}

/// Two labels of one signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LabelPair {
    /// The label that names who depends.
    pub from: String,
    /// The label that names on whom.
    pub to: String,
}

fn pairs(names: &[(&str, &str)]) -> Vec<LabelPair> {
    names.iter().map(|(from, to)| LabelPair { from: (*from).to_owned(), to: (*to).to_owned() }).collect()
}

impl Default for Config {
    fn default() -> Config {
        let peers = [
            "peer_service",
            "peer.service",
            "upstream",
            "dependency",
            "depends_on",
            "target_service",
            "destination_service",
            "db",
            "server_address",
            "server.address",
            "net_peer_name",
            "net.peer.name",
        ];
        Config {
            edges: Vec::new(),
            components: BTreeMap::new(),
            peers: peers.map(str::to_owned).into(),
            calls: pairs(&[
                ("caller", "callee"),
                ("client", "server"),
                ("source_service", "destination_service"),
                ("source_app", "destination_app"),
                ("source_workload", "destination_workload"),
                ("source", "destination"),
            ]),
            owners: pairs(&[
                ("pod", "replicaset"),
                ("pod", "deployment"),
                ("pod", "statefulset"),
                ("pod", "daemonset"),
                ("pod", "owner_name"),
                ("pod", "node"),
                ("replicaset", "deployment"),
                ("replicaset", "owner_name"),
            ]),
            component_labels: ComponentLabels::DEFAULT.map(str::to_owned).into(),
            forget_after: Span::seconds(86_400),
            max_components: 10_000,
            max_edges: 50_000,
        }
    }
}

impl Config {
    /// The graph as it is configured, before anybody says or shows more.
    pub fn graph(&self) -> Graph {
        Graph::new(self.about().collect(), self.known(), Arc::new(ComponentLabels::new(self.component_labels.clone())))
    }

    /// What is said about components.
    pub(super) fn about(&self) -> impl Iterator<Item = (ComponentName, About)> {
        let about = |details: &Details| About { title: details.title.clone(), owner: details.owner.clone() };
        self.components.iter().map(move |(name, details)| (name.clone(), about(details)))
    }

    /// The configured edges.
    pub(super) fn known(&self) -> Edges {
        let known = Known { configured: true, ..Known::default() };
        let all = self.edges.iter().flat_map(|edge| edge.to.iter().map(|to| (edge.from.clone(), to.clone())));
        all.map(|pair| (pair, known)).collect()
    }

    /// How exactly it is kept when an edge was last seen: finer than anybody needs would be written all the time.
    pub(super) fn grain(&self) -> Duration {
        (self.forget_after.0 / 100).clamp(Duration::from_millis(1), Duration::from_secs(60))
    }

    fn check_edges(&self, problems: &mut Vec<Problem>) {
        let mut seen = BTreeSet::new();
        for (place, edge) in self.edges.iter().enumerate() {
            if edge.to.is_empty() {
                problems.push(Problem::at(format!("/edges/{place}/to"), "must name at least one component"));
            }
            for (nth, to) in edge.to.iter().enumerate() {
                let at = format!("/edges/{place}/to/{nth}");
                if *to == edge.from {
                    problems.push(Problem::at(at, "a component does not depend on itself"));
                } else if !seen.insert((&edge.from, to)) {
                    problems.push(Problem::at(at, format!("that {} depends on {to} was said before", edge.from)));
                }
            }
        }
        let most = usize::try_from(self.max_edges).unwrap_or(usize::MAX);
        if seen.len() > most {
            problems.push(Problem::at("/edges", format!("more edges than max_edges, which is {most}")));
        }
        let named: BTreeSet<&ComponentName> = seen.into_iter().flat_map(|(from, to)| [from, to]).chain(self.components.keys()).collect();
        let most = usize::try_from(self.max_components).unwrap_or(usize::MAX);
        if named.len() > most {
            problems.push(Problem::at("/components", format!("more components than max_components, which is {most}")));
        }
    }

    fn check_labels(&self, problems: &mut Vec<Problem>) {
        let mut check = |at: String, name: &str| {
            if name.is_empty() || name.chars().count() > LABEL {
                problems.push(Problem::at(at, format!("a label's name has 1 to {LABEL} characters")));
            }
        };
        for (field, names) in [("peers", &self.peers), ("component_labels", &self.component_labels)] {
            names.iter().enumerate().for_each(|(place, name)| check(format!("/{field}/{place}"), name));
        }
        for (field, pairs) in [("calls", &self.calls), ("owners", &self.owners)] {
            for (place, pair) in pairs.iter().enumerate() {
                check(format!("/{field}/{place}/from"), &pair.from);
                check(format!("/{field}/{place}/to"), &pair.to);
            }
        }
        for (field, names) in [("peers", &self.peers), ("component_labels", &self.component_labels)] {
            for (place, name) in names.iter().enumerate().filter(|(place, name)| names.iter().take(*place).any(|other| other == *name)) {
                problems.push(Problem::at(format!("/{field}/{place}"), format!("{name:?} stands there twice")));
            }
        }
        for (field, pairs) in [("calls", &self.calls), ("owners", &self.owners)] {
            for (place, pair) in pairs.iter().enumerate() {
                if pair.from == pair.to {
                    problems.push(Problem::at(format!("/{field}/{place}/to"), "must be another label than from"));
                } else if pairs.iter().take(place).any(|other| other == pair) {
                    problems.push(Problem::at(format!("/{field}/{place}"), "this pair stands there twice"));
                }
            }
        }
        let lists = [
            ("peers", self.peers.len()),
            ("calls", self.calls.len()),
            ("owners", self.owners.len()),
            ("component_labels", self.component_labels.len()),
        ];
        for (field, _) in lists.iter().filter(|(_, count)| *count > LABELS) {
            problems.push(Problem::at(format!("/{field}"), format!("at most {LABELS}")));
        }
    }
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check_edges(&mut problems);
        self.check_labels(&mut problems);
        for (name, details) in &self.components {
            for (field, text) in [("title", &details.title), ("owner", &details.owner)] {
                if text.as_ref().is_some_and(|text| text.trim().is_empty() || text.chars().count() > MAX_NAME) {
                    let key = name.as_str().replace('~', "~0").replace('/', "~1");
                    problems.push(Problem::at(format!("/components/{key}/{field}"), format!("must have 1 to {MAX_NAME} characters")));
                }
            }
        }
        let (least, most) = (Span::seconds(60), Span::seconds(90 * 86_400));
        if !(least..=most).contains(&self.forget_after) {
            problems.push(Problem::at("/forget_after", format!("must be between {least} and {most}")).suggest("24h"));
        }
        if !(1..=50_000).contains(&self.max_components) {
            problems.push(Problem::at("/max_components", "must be between 1 and 50000").suggest("10000"));
        }
        if !(1..=250_000).contains(&self.max_edges) {
            problems.push(Problem::at("/max_edges", "must be between 1 and 250000").suggest("50000"));
        }
        problems
    }
}
