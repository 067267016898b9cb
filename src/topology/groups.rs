//! The groups of the supervision tree, and to which of them a module belongs.

use opspilot_kernel::module::ModuleId;
use opspilot_runtime::{GroupSpec, Supervisor};

/// Every group under the root.
pub(super) struct Groups {
    pub(super) storage: Supervisor,
    pub(super) pipeline: Supervisor,
    pub(super) actions: Supervisor,
    pub(super) edge: Supervisor,
}

impl Groups {
    pub(super) fn under(root: &Supervisor) -> Groups {
        Groups {
            storage: root.group(GroupSpec::STORAGE),
            pipeline: root.group(GroupSpec::PIPELINE),
            actions: root.group(GroupSpec::ACTIONS),
            edge: root.group(GroupSpec::EDGE),
        }
    }

    /// Where a module's actors are started: its category says. What the core is made of is named in the wiring.
    pub(super) fn of(&self, module: ModuleId) -> &Supervisor {
        match module.category() {
            "detector" | "enricher" => &self.pipeline,
            "action" => &self.actions,
            // connectors, notifiers, tools and whatever listens
            _ => &self.edge,
        }
    }
}
