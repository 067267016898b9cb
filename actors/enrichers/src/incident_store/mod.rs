//! `enricher.incidentStore` opens, joins, counts, resolves and reopens incidents.
//!
//! Its actor is the one of every stage, [`StageActor`](crate::stage_actor::StageActor).
//!
//! | Consumes   | judged entries of the alert log, from the pipeline                            |
//! | Emits      | what changes about alerts and incidents, with its derivation                  |
//! | Keeps      | nothing: the incidents a batch can touch are read with every batch            |
//! | On restart | is ready at once                                                              |

pub(crate) mod config;
pub(crate) mod decide;
pub(crate) mod desk;
mod held;
#[cfg(test)]
pub(crate) mod tests;
mod together;

use std::time::Duration;

use opspilot_kernel::module::ModuleId;
use opspilot_ledger::pipeline::Board;
use opspilot_runtime::{Entry, Module, ModuleContext, ModuleSpec, StartError};

pub use self::config::Config;
use crate::{
    stage::Item,
    stage_actor::{Answer, Decider, StageModule},
};

/// `enricher.incidentStore`.
pub const ID: ModuleId = ModuleId::new("enricher.incidentStore");

/// The registry's entry.
pub(crate) const ENTRY: Entry = Entry::of::<IncidentStore>();

/// What the store decides by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Whether there are incidents at all; without, alerts are kept and nothing else.
    pub(crate) enabled: bool,
    /// How long all alerts must have been over before an incident is resolved.
    pub(crate) quiet_period: Duration,
    /// Observations that an incident keeps.
    pub(crate) evidence_limit: u64,
    /// Timeline entries that an incident gets from the service.
    pub(crate) timeline_limit: u64,
}

impl Rules {
    /// What holds while the store is switched off.
    pub(crate) const OFF: Rules = Rules { enabled: false, quiet_period: Duration::ZERO, evidence_limit: 0, timeline_limit: 0 };
}

/// The stage's logic.
pub(crate) struct IncidentStore {
    rules: Rules,
}

impl From<&Config> for IncidentStore {
    fn from(config: &Config) -> IncidentStore {
        IncidentStore { rules: Rules::from(config) }
    }
}

impl Decider for IncidentStore {
    const ID: ModuleId = ID;

    fn decide(&self, board: &Board, items: Vec<Item>) -> Answer {
        let (effects, decisions) = decide::decide(&self.rules, board, &items);
        Answer { items, effects: Some(effects), decisions, ..Answer::default() }
    }
}

impl ModuleSpec for IncidentStore {
    const ID: ModuleId = ID;
    const SUMMARY: &'static str = "turns alerts into incidents: opens, joins, counts, resolves and reopens them";
    const ENABLED: bool = true;
    type Config = Config;

    fn start(ctx: &ModuleContext, config: Config) -> Result<Box<dyn Module>, StartError> {
        let read = |section| serde_json::from_value::<Config>(section).map(|config| IncidentStore::from(&config));
        Ok(Box::new(StageModule::start(ctx, IncidentStore::from(&config), read)))
    }
}
