//! `connector.fileTail`: follows log files.
//!
//! | Consumes   | lines of the files its configuration names                                              |
//! | Emits      | log signals, appended to the ledger together with the checkpoints that cover them        |
//! | Keeps      | open files and unfinished records (cache; the files and the checkpoints are the truth)   |
//! | On restart | waits until what it had handed over is stored, and reads on from the checkpoints         |
//!
//! A file is known by device and inode, and by how it begins. Renamed, it is read to its end; truncated, it is begun
//! again, after what its copy holds beyond the place reached; deleted, it is read to its end if it was open. When the
//! ledger cannot take more, reading stops: the files are the buffer, and nothing is dropped.

mod config;
mod engine;
mod follow;
mod hints;
pub(crate) mod interpret;
mod lines;
mod meters;
mod open;
mod pattern;
mod reading;
mod survey;
mod tail;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use actix::prelude::*;
use opspilot_kernel::{
    lifecycle::{Drain, Heartbeat, Pulse},
    module::ModuleId,
};
use opspilot_runtime::{ChildSpec, Entry, Lease, Module, ModuleContext, ModuleSpec, StartError};
use tokio::sync::watch;

pub use config::{Config, FileConfig, Multiline, StartAt};
use follow::{Deps, Status};

use crate::running::Running;

/// The module's permanent name.
pub const ID: &str = "connector.fileTail";

/// The registry's line.
pub(crate) const ENTRY: Entry = Entry::of::<Spec>();

struct Spec;

impl ModuleSpec for Spec {
    const ID: ModuleId = ModuleId::new(ID);
    const SUMMARY: &'static str = "follows log files through every kind of rotation";
    const ENABLED: bool = true;
    type Config = Config;

    fn start(ctx: &ModuleContext, config: Config) -> Result<Box<dyn Module>, StartError> {
        let meters =
            meters::Meters::new(&ctx.registry).map_err(|error| StartError::Failed(format!("its metrics cannot be registered: {error}")))?;
        let deps = Deps { config, ledger: ctx.ledger.clone(), clock: ctx.clock.clone(), log: ctx.log.clone(), meters };
        let deps = Arc::new(deps);
        // Reading files blocks.
        let spec = ChildSpec::module(ID).on_own_arbiter();
        let handle = ctx.supervisor.start_leased(spec, move |lease| FileTail::new(Arc::clone(&deps), lease.clone()));
        Ok(Box::new(Running::new(Self::ID, &ctx.supervisor, handle)))
    }
}

/// The actor: a shell around one future that reads, stores and waits in turn.
struct FileTail {
    deps: Arc<Deps>,
    lease: Lease,
    status: Status,
    /// Told to finish.
    draining: watch::Sender<bool>,
    /// Says when it has finished; made anew with every start.
    finished: watch::Sender<bool>,
}

impl FileTail {
    fn new(deps: Arc<Deps>, lease: Lease) -> FileTail {
        FileTail { deps, lease, status: Status::default(), draining: watch::Sender::new(false), finished: watch::Sender::new(false) }
    }
}

impl Actor for FileTail {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let following = follow::follow(Arc::clone(&self.deps), self.lease.clone(), self.status.clone(), self.draining.subscribe());
        ctx.spawn(following.into_actor(self).map(|outcome, tail, ctx| match outcome {
            Ok(()) => {
                tail.finished.send_replace(true);
            }
            Err(error) => {
                slog::error!(tail.deps.log, "files cannot be followed"; "error" => %error);
                ctx.stop();
            }
        }));
    }
}

impl Supervised for FileTail {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.status = Status::default();
        self.finished = watch::Sender::new(false);
    }
}

impl Handler<Heartbeat> for FileTail {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        let (queue, trouble) = self.status.read();
        MessageResult(Pulse { queue, trouble })
    }
}

impl Handler<Drain> for FileTail {
    type Result = ResponseFuture<()>;

    /// Answered when what was read is stored. Nothing more is read; it waits in the files.
    fn handle(&mut self, _: Drain, _: &mut Context<Self>) -> ResponseFuture<()> {
        self.draining.send_replace(true);
        let mut finished = self.finished.subscribe();
        Box::pin(async move {
            // An error means that the actor is being restarted or ended: then nothing is under way either.
            drop(finished.wait_for(|finished| *finished).await);
        })
    }
}
