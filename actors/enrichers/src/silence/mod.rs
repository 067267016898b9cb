//! `enricher.silence` says which alerts are held back from people: by a silence, a maintenance window, or another alert.
//!
//! An alert that is held back is kept and counted, and opens no incident. What holds it back is looked at again with each of
//! its records, and on a tick whenever something begins or ends that holds alerts back: then the alerts that fire are gone
//! through, some at each tick, and those that nothing holds back any more are told of as if they began now.
//!
//! Its actor is the one of every stage, [`StageActor`](crate::stage_actor::StageActor).
//!
//! | Consumes   | entries of the alert log, from the pipeline, with every silence that is not over       |
//! | Emits      | what holds each alert back                                                             |
//! | Keeps      | nothing: how far alerts were looked at is stored with what came of it                  |
//! | On restart | is ready at once                                                                       |

mod config;
pub(crate) mod decide;
mod inhibit;
pub(crate) mod judge;
#[cfg(test)]
mod tests;
pub mod window;

use opspilot_kernel::module::ModuleId;
use opspilot_ledger::pipeline::Board;
use opspilot_runtime::{Entry, Module, ModuleContext, ModuleSpec, StartError};

pub use self::config::Config;
use self::judge::Rules;
use crate::{
    stage::Item,
    stage_actor::{Answer, Decider, StageModule},
};

/// `enricher.silence`.
pub const ID: ModuleId = ModuleId::new("enricher.silence");

/// The registry's entry.
pub(crate) const ENTRY: Entry = Entry::of::<Silence>();

/// The stage's logic.
pub(crate) struct Silence {
    rules: Rules,
}

impl From<&Config> for Silence {
    fn from(config: &Config) -> Silence {
        Silence { rules: Rules::from(config) }
    }
}

impl Decider for Silence {
    const ID: ModuleId = ID;

    fn decide(&self, board: &Board, mut items: Vec<Item>) -> Answer {
        let sweep = decide::decide(&self.rules, board, &mut items);
        Answer { items, sweep, ..Answer::default() }
    }

    fn holds_back(&self) -> Option<&Rules> {
        Some(&self.rules)
    }
}

impl ModuleSpec for Silence {
    const ID: ModuleId = ID;
    const SUMMARY: &'static str = "holds alerts back: silences, maintenance windows, inhibition";
    const ENABLED: bool = true;
    type Config = Config;

    fn start(ctx: &ModuleContext, config: Config) -> Result<Box<dyn Module>, StartError> {
        let read = |section| serde_json::from_value::<Config>(section).map(|config| Silence::from(&config));
        Ok(Box::new(StageModule::start(ctx, Silence::from(&config), read)))
    }
}
