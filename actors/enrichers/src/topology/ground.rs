//! Where the parts of the graph come together: what is configured, what people said through the API, what signals showed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use opspilot_kernel::topology::{ComponentLabels, ComponentName, Graph, Known, Seen};
use opspilot_ledger::StatedTopology;
use opspilot_runtime::TopologyView;
use parking_lot::Mutex;

use super::{config::Config, evidence::Pair, learned::Room, metrics::Metrics};

/// The parts, and where the graph of them is shown. Outlives the actor that learns.
pub(super) struct Ground {
    view: TopologyView,
    pub(super) metrics: Metrics,
    parts: Mutex<Parts>,
}

struct Parts {
    config: Arc<Config>,
    stated: StatedTopology,
    learned: BTreeMap<Pair, Seen>,
    /// How much may be learned beside what people said.
    room: Room,
}

impl Ground {
    pub(super) fn new(view: TopologyView, metrics: Metrics, config: Config) -> Ground {
        let (config, stated) = (Arc::new(config), StatedTopology::default());
        let room = room(&config, &stated).unwrap_or(Room::NONE);
        Ground { view, metrics, parts: Mutex::new(Parts { config, stated, learned: BTreeMap::new(), room }) }
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.parts.lock().config)
    }

    pub(super) fn graph(&self) -> Arc<Graph> {
        self.view.graph()
    }

    /// The revision of what people said through the API.
    pub(super) fn revision(&self) -> u64 {
        self.parts.lock().stated.revision
    }

    /// Goes by another configuration from now on; gives the one before.
    pub(super) fn configure(&self, config: Config) -> Arc<Config> {
        let mut parts = self.parts.lock();
        let before = std::mem::replace(&mut parts.config, Arc::new(config));
        parts.room = room(&parts.config, &parts.stated).unwrap_or(Room::NONE);
        self.publish(&parts);
        before
    }

    /// Takes everything that is stored.
    pub(super) fn begin(&self, stated: StatedTopology, learned: BTreeMap<Pair, Seen>) {
        self.parts.lock().learned = learned;
        self.state(stated);
    }

    /// Takes what is stored of what people said. Of two that come out of order the later one stays.
    pub(super) fn state(&self, stated: StatedTopology) {
        let mut parts = self.parts.lock();
        if stated.revision >= parts.stated.revision {
            parts.stated = stated;
            parts.room = room(&parts.config, &parts.stated).unwrap_or(Room::NONE);
            self.publish(&parts);
        }
    }

    /// Takes what signals showed.
    pub(super) fn learn(&self, learned: BTreeMap<Pair, Seen>) {
        let mut parts = self.parts.lock();
        parts.learned = learned;
        self.publish(&parts);
    }

    /// Shows nothing any more.
    pub(super) fn withdraw(&self) {
        self.view.publish(Graph::default());
        self.metrics.show(&Graph::default());
    }

    /// How much may be learned beside what people said.
    pub(super) fn room(&self) -> Room {
        self.parts.lock().room
    }

    /// Whether there is room for what people want to say; if not, why.
    pub(super) fn fits(&self, stated: &StatedTopology) -> Result<(), String> {
        room(&self.config(), stated).map(|_| ())
    }

    fn publish(&self, parts: &Parts) {
        let mut edges = parts.config.known();
        for pair in &parts.stated.edges {
            edges.entry(pair.clone()).or_default().by_api = true;
        }
        for (pair, seen) in &parts.learned {
            let known: &mut Known = edges.entry(pair.clone()).or_default();
            known.seen = Some(*seen);
        }
        let mut about: BTreeMap<_, _> = parts.config.about().collect();
        for (name, said) in &parts.stated.components {
            // who said it last in person is believed; what was left out stays as configured
            let merged = about.entry(name.clone()).or_default();
            merged.title = said.title.clone().or_else(|| merged.title.take());
            merged.owner = said.owner.clone().or_else(|| merged.owner.take());
        }
        let labels = ComponentLabels::new(parts.config.component_labels.clone());
        let graph = Graph::new(about, edges, Arc::new(labels));
        self.metrics.show(&graph);
        self.view.publish(graph);
    }
}

/// What the bounds leave for what is learned; why not, if what people said is too much by itself.
fn room(config: &Config, stated: &StatedTopology) -> Result<Room, String> {
    let configured = config.known();
    let edges: BTreeSet<&Pair> = configured.keys().chain(&stated.edges).collect();
    let of_edges = edges.iter().flat_map(|(from, to)| [from, to]);
    let components: BTreeSet<&ComponentName> = of_edges.chain(config.components.keys()).chain(stated.components.keys()).collect();
    let left = |what: &str, count: usize, most: u32| {
        let left = usize::try_from(most).unwrap_or(usize::MAX).checked_sub(count);
        left.ok_or_else(|| format!("with what is configured that makes {count} {what}, and max_{what} is {most}"))
    };
    Ok(Room {
        components: left("components", components.len(), config.max_components)?,
        edges: left("edges", edges.len(), config.max_edges)?,
    })
}
