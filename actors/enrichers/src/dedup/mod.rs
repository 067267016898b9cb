//! `enricher.dedup` recognises alerts again: which episode a record belongs to, and what it means for it.
//!
//! Its actor is the one of every stage, [`StageActor`](crate::stage_actor::StageActor).
//!
//! | Consumes   | entries of the alert log, from the pipeline                          |
//! | Emits      | a verdict for each record, with its derivation                       |
//! | Keeps      | nothing: the alerts it compares with are read with every batch       |
//! | On restart | is ready at once                                                     |

pub(crate) mod config;
pub(crate) mod decide;

use std::time::Duration;

use opspilot_kernel::module::ModuleId;
use opspilot_ledger::pipeline::Board;
use opspilot_runtime::{Entry, Module, ModuleContext, ModuleSpec, StartError};

pub use self::config::Config;
use crate::{
    stage::Item,
    stage_actor::{Answer, Decider, StageModule},
};

/// `enricher.dedup`.
pub const ID: ModuleId = ModuleId::new("enricher.dedup");

/// The registry's entry.
pub(crate) const ENTRY: Entry = Entry::of::<Dedup>();

/// The stage's logic.
pub(crate) struct Dedup {
    reopen_window: Duration,
}

impl From<Config> for Dedup {
    fn from(config: Config) -> Dedup {
        Dedup { reopen_window: config.reopen_window.0 }
    }
}

impl Decider for Dedup {
    const ID: ModuleId = ID;

    fn decide(&self, board: &Board, mut items: Vec<Item>) -> Answer {
        let decisions = decide::decide(self.reopen_window, board, &mut items);
        Answer { items, decisions, ..Answer::default() }
    }
}

impl ModuleSpec for Dedup {
    const ID: ModuleId = ID;
    const SUMMARY: &'static str = "recognises alerts again: repeats count, what comes back soon reopens its incident";
    const ENABLED: bool = true;
    type Config = Config;

    fn start(ctx: &ModuleContext, config: Config) -> Result<Box<dyn Module>, StartError> {
        let read = |section| serde_json::from_value::<Config>(section).map(Dedup::from);
        Ok(Box::new(StageModule::start(ctx, Dedup::from(config), read)))
    }
}
