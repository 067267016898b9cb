//! The dependency graph as it is now, for whoever asks it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use opspilot_kernel::topology::Graph;

/// Where the dependency graph is found. Every copy shows the same: one module publishes, everybody may read.
///
/// Empty until something is published.
#[derive(Debug, Clone, Default)]
pub struct TopologyView(Arc<ArcSwap<Graph>>);

impl TopologyView {
    /// The graph. It does not change; whoever decides several things together asks for it once.
    pub fn graph(&self) -> Arc<Graph> {
        self.0.load_full()
    }

    /// Puts another graph in its place.
    pub fn publish(&self, graph: Graph) {
        self.0.store(Arc::new(graph));
    }
}
