//! `connector.metrics`: measures the host the service runs on.
//!
//! | Consumes   | `/proc` and the mounted file systems, every `interval`                     |
//! | Emits      | metric signals: CPU, memory, load, disk, network                           |
//! | Keeps      | the last reading, from which rates are made                                |
//! | On restart | takes a first reading; rates come with the second                          |
//!
//! What cannot be read is named in health; the rest is told. A sample that the ledger does not take is left out and
//! counted: a later one says more.

mod config;
mod reading;

use std::{path::PathBuf, sync::Arc};

use actix::prelude::*;
use opspilot_kernel::{
    clock::SharedClock,
    codec::Labels,
    lifecycle::{Drain, Heartbeat, Pulse},
    module::ModuleId,
    signal::SignalRef,
};
use opspilot_ledger::{Ledger, LedgerError, SignalBatchBuilder};
use opspilot_runtime::{ChildSpec, Entry, Module, ModuleContext, ModuleSpec, StartError};
use prometheus::IntCounter;
use tokio::sync::watch;

pub use config::Config;
use reading::Reading;

use crate::{meters::show, running::Running};

/// The module's permanent name.
pub const ID: &str = "connector.metrics";

/// The registry's line.
pub(crate) const ENTRY: Entry = Entry::of::<Spec>();

struct Spec;

impl ModuleSpec for Spec {
    const ID: ModuleId = ModuleId::new(ID);
    const SUMMARY: &'static str = "measures CPU, memory, load, disks and network of this host";
    const ENABLED: bool = true;
    type Config = Config;

    fn start(ctx: &ModuleContext, config: Config) -> Result<Box<dyn Module>, StartError> {
        let counter = |name: &str, help: &str| {
            let shown = show(&ctx.registry, IntCounter::new(format!("opspilot_host_metrics_{name}"), help));
            shown.map_err(|error| StartError::Failed(format!("its metrics cannot be registered: {error}")))
        };
        let deps = Deps {
            source: config.source.clone().unwrap_or_else(host_name),
            config,
            proc: PathBuf::from("/proc"),
            ledger: ctx.ledger.clone(),
            clock: Arc::clone(&ctx.clock),
            log: ctx.log.clone(),
            samples: counter("samples_total", "Samples stored.")?,
            skipped: counter("skipped_samples_total", "Samples left out because the ledger did not take them.")?,
        };
        let deps = Arc::new(deps);
        // Looking at a disk may block.
        let spec = ChildSpec::module(ID).on_own_arbiter();
        let handle = ctx.supervisor.start(spec, move || HostMetrics {
            deps: Arc::clone(&deps),
            trouble: None,
            draining: watch::Sender::new(false),
            finished: watch::Sender::new(false),
        });
        Ok(Box::new(Running::new(Self::ID, &ctx.supervisor, handle)))
    }
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// What every instance is given.
struct Deps {
    config: Config,
    source: String,
    proc: PathBuf,
    ledger: Ledger,
    clock: SharedClock,
    log: slog::Logger,
    samples: IntCounter,
    skipped: IntCounter,
}

/// The actor: a shell around one future that measures, stores and sleeps in turn.
struct HostMetrics {
    deps: Arc<Deps>,
    /// What could not be read or stored the last time.
    trouble: Option<String>,
    /// Told to finish.
    draining: watch::Sender<bool>,
    /// Says when it has finished; made anew with every start.
    finished: watch::Sender<bool>,
}

/// Tells the actor how the last sample went.
#[derive(Message)]
#[rtype(result = "()")]
struct Sampled(Option<String>);

impl Actor for HostMetrics {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let sampling = sample(Arc::clone(&self.deps), ctx.address().recipient(), self.draining.subscribe());
        ctx.spawn(sampling.into_actor(self).map(|(), actor, _| {
            actor.finished.send_replace(true);
        }));
    }
}

impl Supervised for HostMetrics {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.trouble = None;
        self.finished = watch::Sender::new(false);
    }
}

/// Measures until told to stop.
async fn sample(deps: Arc<Deps>, actor: Recipient<Sampled>, mut draining: watch::Receiver<bool>) {
    let mut before: Option<Reading> = None;
    let mut complained = None;
    while !*draining.borrow() {
        let now = Reading::take(&deps.proc, &deps.config, deps.clock.elapsed());
        let mut troubles = now.missing.clone();
        if let Err(error) = store(&deps, &now, before.as_ref()).await {
            deps.skipped.inc();
            troubles.push(format!("the last sample is not stored: {error}"));
        }
        let trouble = (!troubles.is_empty()).then(|| troubles.join("; "));
        if trouble != complained {
            if let Some(trouble) = &trouble {
                slog::warn!(deps.log, "the host cannot be measured in full"; "reason" => trouble);
            }
            complained.clone_from(&trouble);
        }
        // A full mailbox only means that health is shown a little later.
        drop(actor.try_send(Sampled(trouble)));
        before = Some(now);
        tokio::select! {
            () = tokio::time::sleep(deps.config.interval.0) => {}
            // An error means that the actor is gone, and this future with it.
            _ = draining.wait_for(|draining| *draining) => {}
        }
    }
}

async fn store(deps: &Deps, now: &Reading, before: Option<&Reading>) -> Result<(), LedgerError> {
    let at = deps.clock.now();
    let mut batch = SignalBatchBuilder::new(at);
    for point in now.points(before) {
        let label = point.label.as_ref().map(|(name, value)| [(*name, value.as_str())]);
        let labels = label.as_ref().map_or(&[][..], |pair| &pair[..]);
        batch.push(&SignalRef {
            unit: point.unit,
            labels: Labels::Pairs(labels),
            ..SignalRef::metric(at, &deps.source, point.name, point.value)
        });
    }
    if !batch.is_empty() {
        deps.ledger.append_waiting(batch.seal()).await?;
        deps.samples.inc();
    }
    Ok(())
}

impl Handler<Sampled> for HostMetrics {
    type Result = ();

    fn handle(&mut self, Sampled(trouble): Sampled, _: &mut Context<Self>) {
        self.trouble = trouble;
    }
}

impl Handler<Heartbeat> for HostMetrics {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        MessageResult(Pulse { queue: 0, trouble: self.trouble.clone() })
    }
}

impl Handler<Drain> for HostMetrics {
    type Result = ResponseFuture<()>;

    /// Answered when the sample under way is stored.
    fn handle(&mut self, _: Drain, _: &mut Context<Self>) -> ResponseFuture<()> {
        self.draining.send_replace(true);
        let mut finished = self.finished.subscribe();
        Box::pin(async move {
            // An error means that the actor is being restarted or ended: then nothing is under way either.
            drop(finished.wait_for(|finished| *finished).await);
        })
    }
}
