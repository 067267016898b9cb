//! `notifier.channels`: console, files and webhooks.
//!
//! Each channel is an actor of its own with a cursor of its own: whatever one of them waits for, no other waits with it,
//! and nothing that makes events waits at all. A message is delivered at least once; at every attempt it has the same
//! `id`, by which a receiver knows it again. Messages about one incident arrive in order. As long as a message was never
//! sent, later transitions of its incident join it; each of them is in its list.

mod carry;
mod channel;
mod config;
mod console;
mod desk;
mod file;
mod message;
mod sign;
#[cfg(test)]
mod tests;
mod webhook;

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use opspilot_kernel::{clock::SharedClock, ids::DeadLetterId, module::ModuleId, principal::Actor};
use opspilot_ledger::{Ledger, LedgerError, Priority, Waiting};
use opspilot_runtime::{
    ChildSpec, Entry, Handle, Module, ModuleContext, ModuleError, ModuleSpec, StartError, Supervisor,
    outbound::{Outbound, TargetPolicy},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, watch};

pub use self::config::{Channel, Config, Kind, Occasion, Retry};
use self::{
    carry::{Aside, Carry, Message, NotCarried},
    channel::Deps,
    desk::Desk,
};
use crate::meters::Meters;

/// The module's permanent name.
pub const ID: ModuleId = ModuleId::new("notifier.channels");

/// The registry's line.
pub(crate) const ENTRY: Entry = Entry::of::<Spec>();

struct Spec;

impl ModuleSpec for Spec {
    const ID: ModuleId = ID;
    const SUMMARY: &'static str = "tells people through the console, files and signed webhooks";
    const ENABLED: bool = true;
    type Config = Config;

    fn start(ctx: &ModuleContext, config: Config) -> Result<Box<dyn Module>, StartError> {
        let mut carriers = Vec::new();
        for channel in &config.channels {
            carriers.push(carrier(channel, &ctx.outbound, &ctx.clock).map_err(StartError::Failed)?);
        }
        Ok(Box::new(Channels::start(ctx, config, carriers)?))
    }
}

/// What carries a channel's messages.
fn carrier(channel: &Channel, outbound: &Outbound, clock: &SharedClock) -> Result<Arc<dyn Carry>, String> {
    let (timeout, aside) = (channel.timeout.0, Aside::default());
    Ok(match channel.kind {
        Kind::Console => Arc::new(console::Console { timeout, aside }),
        Kind::File => {
            let path = channel.path.clone().ok_or("a file channel needs a path")?;
            let lines = file::Lines { path, max_size: channel.max_size.0, keep: channel.keep };
            Arc::new(file::ToFile { lines, timeout, aside })
        }
        Kind::Webhook => {
            // the outbox repeats; a second loop inside of it would multiply the attempts
            let policy = TargetPolicy { deadline: timeout, max_body: 64 << 10, retries: 0 };
            Arc::new(webhook::Webhook {
                url: channel.url.clone().ok_or("a webhook needs a url")?,
                keys: [&channel.secret, &channel.old_secret].into_iter().flatten().filter_map(sign::key).collect(),
                headers: channel.headers.iter().filter_map(|(name, value)| webhook::header(name, value)).collect(),
                target: outbound.target(format!("{ID}/{}", channel.id), policy),
                clock: Arc::clone(clock),
            })
        }
    })
}

/// How one channel is doing.
#[derive(Debug, Clone, Default)]
struct Standing {
    /// So many messages wait.
    waiting: u64,
    /// The other side takes nothing, and why.
    failure: Option<String>,
    /// The ledger does not answer.
    ledger: Option<String>,
}

/// What all channels share.
struct Shared {
    ledger: Ledger,
    clock: SharedClock,
    log: slog::Logger,
    meters: Meters,
    retry: Retry,
    channels: Vec<String>,
    /// How each channel fares; told whenever it was looked at.
    standings: watch::Sender<BTreeMap<String, Standing>>,
}

impl Shared {
    fn standing(&self, channel: &str) -> Standing {
        self.standings.borrow().get(channel).cloned().unwrap_or_default()
    }

    fn set(&self, channel: &str, change: impl FnOnce(&mut Standing)) {
        self.standings.send_modify(|standings| change(standings.entry(channel.to_owned()).or_default()));
    }

    fn waits(&self, channel: &str, waiting: &Waiting) {
        self.set(channel, |standing| standing.waiting = waiting.count);
        let oldest = waiting.oldest.map_or(0, |oldest| self.clock.now().since(oldest).as_secs());
        self.meters.waiting.with_label_values(&[channel]).set(i64::try_from(waiting.count).unwrap_or(i64::MAX));
        self.meters.oldest.with_label_values(&[channel]).set(i64::try_from(oldest).unwrap_or(i64::MAX));
    }

    fn fares(&self, channel: &str, failure: Option<String>) {
        self.meters.up.with_label_values(&[channel]).set(i64::from(failure.is_none()));
        let before = self.standing(channel).failure;
        match (&before, &failure) {
            (None, Some(why)) => {
                slog::warn!(self.log, "a channel takes nothing; what is to be told waits"; "channel" => channel, "reason" => why)
            }
            (Some(_), None) => slog::info!(self.log, "the channel takes messages again"; "channel" => channel),
            _ => {}
        }
        self.set(channel, |standing| standing.failure = failure);
    }

    fn trouble(&self) -> Option<String> {
        let standings = self.standings.borrow();
        let failing: Vec<String> = standings
            .iter()
            .filter_map(|(channel, standing)| Some(format!("{channel}: {} ({} wait)", standing.failure.as_ref()?, standing.waiting)))
            .collect();
        (!failing.is_empty()).then(|| failing.join("; "))
    }
}

/// The module, as whoever started it holds it.
pub struct Channels {
    shared: Arc<Shared>,
    supervisor: Supervisor,
    desk: Handle<Desk>,
    running: Vec<Running>,
}

struct Running {
    actor: &'static str,
    deps: Arc<Deps>,
    /// Keeps the way to the actor open.
    _handle: Handle<channel::Channel>,
}

impl Channels {
    fn start(ctx: &ModuleContext, config: Config, carriers: Vec<Arc<dyn Carry>>) -> Result<Channels, StartError> {
        let meters =
            Meters::new(&ctx.registry).map_err(|error| StartError::Failed(format!("its metrics cannot be registered: {error}")))?;
        let shared = Arc::new(Shared {
            ledger: ctx.ledger.clone(),
            clock: Arc::clone(&ctx.clock),
            log: ctx.log.clone(),
            meters,
            retry: config.retry,
            channels: config.channels.iter().map(|channel| channel.id.clone()).collect(),
            standings: watch::Sender::default(),
        });
        let opened = watch::Sender::new(false);
        let (of, tell) = (Arc::clone(&shared), opened.clone());
        let desk = ctx.supervisor.start(ChildSpec::module(ID.as_str()), move || Desk::new(Arc::clone(&of), tell.clone()));
        let running = config.channels.into_iter().zip(carriers).map(|(config, carry)| {
            shared.meters.up.with_label_values(&[&config.id]).set(1);
            let actor = interned(format!("{ID}/{}", config.id));
            let (news, room) = (Notify::new(), Notify::new());
            let deps = Arc::new(Deps { shared: Arc::clone(&shared), config, carry, opened: opened.subscribe(), news, room });
            let of = Arc::clone(&deps);
            let handle = ctx.supervisor.start(ChildSpec::module(actor), move || channel::Channel::new(Arc::clone(&of)));
            Running { actor, deps, _handle: handle }
        });
        let running = running.collect();
        Ok(Channels { shared, supervisor: ctx.supervisor.clone(), desk, running })
    }

    /// Sends a test message through a channel, past the outbox, and says what became of it. `None` if there is no such
    /// channel.
    pub fn test(&self, channel: &str, by: Actor) -> Option<BoxFuture<'static, Result<Result<(), String>, LedgerError>>> {
        let running = self.running.iter().find(|running| running.deps.config.id == channel)?;
        let deps = Arc::clone(&running.deps);
        Some(Box::pin(async move {
            let dedup = format!("test:{:016x}", rand::random::<u64>());
            let subject = "[info] this is a test of the channel; nothing happened".to_owned();
            let body = json!({ "version": 1, "id": dedup, "event": "test", "subject": subject, "transitions": [], "incident": null });
            let outcome = deps.carry.carry(Message { dedup, subject, body }).await;
            let outcome = outcome.map_err(|error| match error {
                NotCarried::Failed(why) | NotCarried::LeftAlone(why) => why,
            });
            let (channel, failure) = (deps.config.id.clone(), outcome.clone().err());
            let record = deps.shared.ledger.write(Priority::Control, move |tx| tx.notification_tested(&by, &channel, failure.as_deref()));
            record.await.map(|()| outcome)
        }))
    }

    /// The channels there are.
    pub fn names(&self) -> &[String] {
        &self.shared.channels
    }
}

impl Module for Channels {
    fn stop(&self) -> BoxFuture<'static, ()> {
        let (supervisor, desk) = (self.supervisor.clone(), self.desk.clone());
        let actors: Vec<&'static str> = self.running.iter().map(|running| running.actor).collect();
        Box::pin(async move {
            let stops = actors.into_iter().map(|actor| supervisor.stop(actor));
            futures_util::future::join_all(stops).await;
            supervisor.stop(ID.as_str()).await;
            drop(desk);
        })
    }

    /// It is in the outbox again, and goes out like everything else there.
    fn requeue(&self, letter: DeadLetterId) -> BoxFuture<'static, Result<(), ModuleError>> {
        let shared = Arc::clone(&self.shared);
        let channels: Vec<Arc<Deps>> = self.running.iter().map(|running| Arc::clone(&running.deps)).collect();
        Box::pin(async move {
            let names = shared.channels.clone();
            let requeued = shared.ledger.write(Priority::Control, move |tx| tx.outbox_requeue(ID.as_str(), &letter, &names)).await;
            requeued.map_err(|error| match error {
                LedgerError::Busy | LedgerError::Unavailable(_) => ModuleError::Unavailable,
                error => ModuleError::Failed(error.to_string()),
            })?;
            channels.iter().for_each(|deps| deps.news.notify_one());
            Ok(())
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A name that lives as long as the process: there are no more than the configuration ever had channels.
fn interned(name: String) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock();
    if let Some(known) = names.get(name.as_str()) {
        return known;
    }
    let name: &'static str = Box::leak(name.into_boxed_str());
    names.insert(name);
    name
}
