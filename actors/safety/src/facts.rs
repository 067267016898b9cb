//! Facts: what a run depends on besides the definition of its action, looked up by whoever would carry it out. They are
//! rendered into the plan, so that a program that was swapped or a changed variable is another plan.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::plan::PlanLimits;

use crate::catalogue::Action;

/// What stands in a plan for a variable that is not set.
pub const UNSET: &str = "unset";

/// What has to be looked up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files by their absolute paths.
    pub files: BTreeSet<String>,
    /// Variables by their names.
    pub env: BTreeSet<String>,
}

impl Needs {
    /// All that these actions depend on.
    pub fn of<'a>(actions: impl IntoIterator<Item = &'a Action>) -> Needs {
        let mut needs = Needs::default();
        for action in actions {
            needs.files.extend(action.files.iter().cloned());
            needs.env.extend(action.template().env.iter().cloned());
        }
        needs
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// SHA-256 over each file in hex, or why it cannot be run.
    pub files: BTreeMap<String, Result<String, String>>,
    /// What stands in for the value of each variable that is set.
    pub env: BTreeMap<String, String>,
    /// The bounds in force.
    pub limits: Option<PlanLimits>,
}
