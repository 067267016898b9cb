//! What the dependency graph comes to.

use opspilot_kernel::topology::Graph;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, core::Collector};

/// Why an edge that signals showed was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forgotten {
    /// It was not seen for long enough.
    Age,
    /// There was no room for it.
    Bound,
}

impl Forgotten {
    const fn as_str(self) -> &'static str {
        match self {
            Forgotten::Age => "age",
            Forgotten::Bound => "bound",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Metrics {
    components: IntGauge,
    edges: IntGaugeVec,
    learned: IntCounter,
    forgotten: IntCounterVec,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let edges = Opts::new("opspilot_topology_edges", "Edges of the dependency graph, by where they are known from.");
        let forgotten = Opts::new("opspilot_topology_edges_forgotten_total", "Edges shown by signals that were forgotten, by why.");
        let metrics = Metrics {
            components: IntGauge::new("opspilot_topology_components", "Components of the dependency graph.")?,
            edges: IntGaugeVec::new(edges, &["origin"])?,
            learned: IntCounter::new("opspilot_topology_edges_learned_total", "Edges that signals showed first.")?,
            forgotten: IntCounterVec::new(forgotten, &["reason"])?,
        };
        let all = || -> [Box<dyn Collector>; 4] {
            let Metrics { components, edges, learned, forgotten } = metrics.clone();
            [Box::new(components), Box::new(edges), Box::new(learned), Box::new(forgotten)]
        };
        // those of an earlier start of the module go; there may be none
        all().into_iter().for_each(|collector| drop(registry.unregister(collector)));
        all().into_iter().try_for_each(|collector| registry.register(collector))?;
        for reason in [Forgotten::Age, Forgotten::Bound] {
            metrics.forgotten.with_label_values(&[reason.as_str()]).inc_by(0);
        }
        Ok(metrics)
    }

    pub(super) fn show(&self, graph: &Graph) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let (mut configured, mut by_api, mut seen) = (0_usize, 0_usize, 0_usize);
        for edge in graph.edges() {
            configured += usize::from(edge.known.configured);
            by_api += usize::from(edge.known.by_api);
            seen += usize::from(edge.known.seen.is_some());
        }
        self.components.set(number(graph.len()));
        for (origin, count) in [("configuration", configured), ("api", by_api), ("signals", seen)] {
            self.edges.with_label_values(&[origin]).set(number(count));
        }
    }

    pub(super) fn learned(&self) {
        self.learned.inc();
    }

    pub(super) fn forgotten(&self, why: Forgotten) {
        self.forgotten.with_label_values(&[why.as_str()]).inc();
    }
}
