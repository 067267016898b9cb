//! Modules: the parts a user can enable, disable, configure and see the health of.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

use crate::time::Timestamp;

/// A module's permanent name, `category.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleId(&'static str);

impl ModuleId {
    /// The id `name`. Modules name themselves with this in a constant.
    pub const fn new(name: &'static str) -> ModuleId {
        ModuleId(name)
    }

    /// `category.name`.
    pub const fn as_str(self) -> &'static str {
        self.0
    }

    /// What stands before the dot.
    pub fn category(self) -> &'static str {
        self.0.split_once('.').map_or(self.0, |(category, _)| category)
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Serialize for ModuleId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0)
    }
}

/// How a module is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash)]
#[serde(rename_all = "lowercase")]
pub enum ModuleStatus {
    /// Working.
    Healthy,
    /// Working with a loss that a person should know of.
    Degraded,
    /// Failed a moment ago; waits out its backoff.
    Restarting,
    /// Failed too often and was given up.
    Failed,
    /// Switched off by configuration or by an admin.
    Disabled,
}

impl ModuleStatus {
    /// The status as the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ModuleStatus::Healthy => "healthy",
            ModuleStatus::Degraded => "degraded",
            ModuleStatus::Restarting => "restarting",
            ModuleStatus::Failed => "failed",
            ModuleStatus::Disabled => "disabled",
        }
    }
}

/// One line of the health report.
#[derive(Debug, Clone, Serialize)]
pub struct ModuleHealth {
    /// Which module.
    pub id: ModuleId,
    /// What stands before the dot of the id.
    pub category: &'static str,
    /// How it is doing.
    pub status: ModuleStatus,
    /// Since when.
    pub since: Timestamp,
    /// Restarts since the process started.
    pub restarts: u64,
    /// What a person should know; empty when all is well.
    pub detail: String,
    /// Messages waiting.
    pub queue: usize,
}
