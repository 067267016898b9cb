//! Configuration: one YAML file, environment variables over it, flags over those.
//!
//! Everything has a safe default, so that the service starts without a file. What is wrong is found
//! before anything starts, all of it at once, each with its line and a suggestion:
//!
//! 1. [`tree`] reads the YAML; every value keeps its place;
//! 2. [`overlay`] lays environment variables and flags over it;
//! 3. [`schema`] puts the schemas of the sections and of every module together; `walk` holds the tree against it;
//! 4. [`secrets`] puts a secret in the place of what names it, and keeps it out of everything that is said;
//! 5. [`load()`] lets the types and the modules judge what no schema can say.

mod load;
mod overlay;
mod report;
mod schema;
mod secrets;
mod sections;
mod shape;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

use std::{collections::BTreeMap, fmt};

use opspilot_kernel::{config::Secret, module::ModuleId};

pub use load::{Flags, Sources, load};
pub use opspilot_kernel::net::{Network, NotANetwork};
pub use report::{Finding, FindingView, Place, Report};
pub use schema::{Catalogue, document};
pub use sections::{
    Ledger, Limits, Log, LogFile, LogFormat, LogLevel, Outbound, RequestLimits, Retention, RoleLimit, RoleLimits, Server, Session, Tls,
};

/// A configuration that holds: every key known, every value in range, every module content.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where the service listens, and whom it believes.
    pub server: Server,
    /// Where and for how long things are kept.
    pub ledger: Ledger,
    /// Calls to the outside.
    pub outbound: Outbound,
    /// Who must agree to actions, and how long they have.
    pub policy: opspilot_safety::Policy,
    /// What is logged, how, and where.
    pub log: Log,
    /// How much one client may do.
    pub limits: Limits,
    /// Every module there is.
    pub modules: BTreeMap<ModuleId, ModuleSettings>,
}

/// What the configuration says of one module.
#[derive(Clone, PartialEq)]
pub struct ModuleSettings {
    /// Whether it runs.
    pub enabled: bool,
    /// Its own keys, as its start function takes them: secrets too.
    pub config: serde_json::Value,
    /// Where in `config` secrets are, as JSON pointers.
    secrets: Vec<String>,
}

impl fmt::Debug for ModuleSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.config.clone();
        for pointer in &self.secrets {
            if let Some(secret) = shown.pointer_mut(pointer) {
                *secret = Secret::SHOWN.into();
            }
        }
        f.debug_struct("ModuleSettings").field("enabled", &self.enabled).field("config", &shown).finish()
    }
}
