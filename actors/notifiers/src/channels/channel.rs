//! One channel: reads events into the outbox, and delivers what is there.
//!
//! | Consumes   | the event log by a cursor of its own; the outbox's rows of the channel; `Heartbeat`, `Drain`            |
//! | Emits      | outbox rows, in one transaction with the cursor; messages; `notification.failed` when one is given up   |
//! | Keeps      | nothing that counts: cursor, rows, attempts and leases are the ledger's                                 |
//! | On restart | frees what it had leased, reads on from its cursor; what was sent and not marked is sent again          |

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use futures_util::future::{join, join_all};
use opspilot_kernel::{
    event::Envelope,
    ids::Seq,
    lifecycle::{Drain, Heartbeat, Pulse},
};
use opspilot_ledger::{EventEntry, Leased, LedgerError, NewDelivery, Priority};
use tokio::sync::{Notify, watch};

use super::{
    ID, Shared,
    carry::{Carry, Message, NotCarried},
    config::Channel as Config,
    message,
};
use crate::failpoint::failpoint;

/// Events read at a time.
const EVENTS_AT_ONCE: usize = 256;
/// The cursor is stored after so many events in which there was nothing to tell …
const SAVE_EVERY: u64 = 4096;
/// … or after so long.
const SAVE_AFTER: Duration = Duration::from_secs(1);
/// Messages under way at a time. While the other side takes nothing, one is enough to find out.
const AT_ONCE: i64 = 16;
/// How long a lease lasts beyond the time that an attempt may take.
const LEASE_BEYOND: Duration = Duration::from_secs(30);
/// How long the other side is left alone when its breaker is open.
const LEFT_ALONE: Duration = Duration::from_secs(5);

/// What every instance is given.
pub(super) struct Deps {
    pub(super) shared: Arc<Shared>,
    pub(super) config: Config,
    pub(super) carry: Arc<dyn Carry>,
    /// The module has been opened in the ledger.
    pub(super) opened: watch::Receiver<bool>,
    /// There is something new in the outbox.
    pub(super) news: Notify,
    /// Room was made in the outbox.
    pub(super) room: Notify,
}

/// The actor: a shell around one future.
pub(super) struct Channel {
    deps: Arc<Deps>,
    draining: watch::Sender<bool>,
    finished: watch::Sender<bool>,
}

impl Channel {
    pub(super) fn new(deps: Arc<Deps>) -> Channel {
        Channel { deps, draining: watch::Sender::new(false), finished: watch::Sender::new(false) }
    }
}

impl Actor for Channel {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let running = run(Arc::clone(&self.deps), self.draining.subscribe());
        ctx.spawn(running.into_actor(self).map(|(), channel, _| {
            channel.finished.send_replace(true);
        }));
    }
}

impl Supervised for Channel {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.finished = watch::Sender::new(false);
    }
}

impl Handler<Heartbeat> for Channel {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        let standing = self.deps.shared.standing(&self.deps.config.id);
        // that the other side takes nothing is told by the desk, for all channels together
        MessageResult(Pulse { queue: usize::try_from(standing.waiting).unwrap_or(usize::MAX), trouble: standing.ledger })
    }
}

impl Handler<Drain> for Channel {
    type Result = ResponseFuture<()>;

    /// Answered when what is under way has ended. The rest waits in the ledger.
    fn handle(&mut self, _: Drain, _: &mut Context<Self>) -> ResponseFuture<()> {
        self.draining.send_replace(true);
        let mut finished = self.finished.subscribe();
        Box::pin(async move {
            // an error means that the actor is being restarted or ended: then nothing is under way either
            drop(finished.wait_for(|finished| *finished).await);
        })
    }
}

async fn run(deps: Arc<Deps>, draining: watch::Receiver<bool>) {
    let mut opened = deps.opened.clone();
    let mut stop = draining.clone();
    tokio::select! {
        _ = opened.wait_for(|opened| *opened) => {}
        _ = stop.wait_for(|draining| *draining) => return,
    }
    let channel = deps.config.id.clone();
    deps.until_done(|| {
        let channel = channel.clone();
        deps.shared.ledger.write(Priority::Bulk, move |tx| tx.outbox_release(&channel))
    })
    .await;
    join(read_on(&deps, draining.clone()), deliver_on(&deps, draining)).await;
}

impl Deps {
    /// Tries until the ledger takes it; meanwhile the channel is in trouble.
    async fn until_done<T, F: Future<Output = Result<T, LedgerError>>>(&self, mut work: impl FnMut() -> F) -> T {
        loop {
            match work().await {
                Ok(done) => {
                    self.shared.set(&self.config.id, |standing| standing.ledger = None);
                    return done;
                }
                Err(error) => {
                    let wait = if matches!(error, LedgerError::Busy) { 50 } else { 1000 };
                    self.shared.set(&self.config.id, |standing| standing.ledger = Some(format!("the ledger does not answer: {error}")));
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
            }
        }
    }

    /// The message that follows from an event, if one does.
    async fn told(&self, envelope: &Arc<Envelope>) -> Option<NewDelivery> {
        let occasions = message::occasions(&self.config, &envelope.event);
        if occasions.is_empty() {
            return None;
        }
        let incident = match (envelope.event.incident(), message::named_only(&envelope.event)) {
            (Some(incident), _) => incident.clone(),
            (None, Some(id)) => {
                let read = || {
                    let id = id.clone();
                    async {
                        match self.shared.ledger.read(move |reader| reader.incident(&id)).await {
                            Ok(detail) => Ok(Some(detail.incident)),
                            Err(LedgerError::NotFound(_)) => Ok(None),
                            Err(error) => Err(error),
                        }
                    }
                };
                self.until_done(read).await?
            }
            (None, None) => return None,
        };
        if incident.severity < self.config.min_severity {
            return None;
        }
        message::delivery(&self.config, envelope, &occasions, &incident)
    }

    async fn store(&self, news: Vec<NewDelivery>, cursor: Seq) {
        let news = Arc::new(news);
        self.until_done(|| {
            let (channel, news) = (self.config.id.clone(), Arc::clone(&news));
            self.shared.ledger.write(Priority::Bulk, move |tx| {
                for new in news.iter() {
                    tx.outbox_put(new, message::merged)?;
                }
                tx.outbox_cursor(ID.as_str(), &channel, cursor)
            })
        })
        .await;
    }

    /// Looks at what waits, and shows it.
    async fn look(&self) -> opspilot_ledger::Waiting {
        let waiting = self
            .until_done(|| {
                let channel = self.config.id.clone();
                self.shared.ledger.read(move |reader| reader.outbox_waiting(&channel))
            })
            .await;
        self.shared.waits(&self.config.id, &waiting);
        waiting
    }
}

/// Reads events into the outbox.
async fn read_on(deps: &Deps, mut draining: watch::Receiver<bool>) {
    let name = format!("{ID}/{}", deps.config.id);
    let mut cursor = deps
        .until_done(|| {
            let name = name.clone();
            deps.shared.ledger.read(move |reader| reader.cursor(&name))
        })
        .await;
    let mut saved = cursor;
    let mut head = deps.shared.ledger.events().watch();
    while !*draining.borrow() {
        let entries = deps.until_done(async || deps.shared.ledger.events().next(cursor, EVENTS_AT_ONCE)).await;
        if entries.is_empty() {
            tokio::select! {
                _ = head.wait_for(|head| *head > cursor) => {}
                _ = draining.wait_for(|draining| *draining) => break,
                () = tokio::time::sleep(SAVE_AFTER), if cursor > saved => {
                    deps.store(Vec::new(), cursor).await;
                    saved = cursor;
                }
            }
            continue;
        }
        let mut news = Vec::new();
        for entry in entries {
            match entry {
                EventEntry::Event(envelope) => {
                    news.extend(deps.told(&envelope).await);
                    cursor = envelope.seq;
                }
                EventEntry::Gap { oldest } => {
                    slog::warn!(deps.shared.log, "events were removed before the channel had read them"; "channel" => &deps.config.id, "oldest" => oldest);
                    deps.shared.meters.missed.with_label_values(&[&deps.config.id]).inc();
                    cursor = cursor.max(oldest.saturating_sub(1));
                }
            }
        }
        if !news.is_empty() {
            // the log is the buffer: what has no room here waits there
            while deps.look().await.count >= deps.config.backlog && !*draining.borrow() {
                tokio::select! {
                    () = deps.room.notified() => {}
                    _ = draining.wait_for(|draining| *draining) => {}
                }
            }
            if *draining.borrow() {
                return;
            }
        }
        if !news.is_empty() || cursor.saturating_sub(saved) >= SAVE_EVERY {
            deps.store(news, cursor).await;
            saved = cursor;
            deps.news.notify_one();
        }
        tokio::task::yield_now().await;
    }
    if cursor > saved {
        deps.store(Vec::new(), cursor).await;
    }
}

/// Delivers what is in the outbox, as it becomes due.
async fn deliver_on(deps: &Deps, mut draining: watch::Receiver<bool>) {
    let mut is_failing = false;
    while !*draining.borrow() {
        let lease = deps.config.timeout.0 + LEASE_BEYOND;
        let most = if is_failing { 1 } else { AT_ONCE };
        let leased = deps
            .until_done(|| {
                let channel = deps.config.id.clone();
                deps.shared.ledger.write(Priority::Bulk, move |tx| tx.outbox_lease(&channel, most, lease))
            })
            .await;
        if leased.is_empty() {
            let waiting = deps.look().await;
            let wait = waiting.next_at.map(|next| next.since(deps.shared.clock.now()).max(Duration::from_millis(5)));
            tokio::select! {
                () = deps.news.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                _ = draining.wait_for(|draining| *draining) => {}
            }
            continue;
        }
        let attempts = leased.into_iter().map(|leased| async {
            let message = Message { dedup: leased.dedup.clone(), subject: leased.subject.clone(), body: leased.body.clone() };
            let outcome = deps.carry.carry(message).await;
            (leased, outcome)
        });
        let outcomes = join_all(attempts).await;
        failpoint!("outbox_after_publish_before_mark");
        let is_left_alone = outcomes.iter().any(|(_, outcome)| matches!(outcome, Err(NotCarried::LeftAlone(_))));
        let worked = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
        let failure = outcomes.iter().find_map(|(_, outcome)| outcome.as_ref().err()).map(|error| match error {
            NotCarried::Failed(why) | NotCarried::LeftAlone(why) => why.clone(),
        });
        mark(deps, outcomes, is_failing && worked).await;
        is_failing = failure.is_some() && !worked;
        deps.shared.fares(&deps.config.id, if worked { None } else { failure });
        deps.room.notify_one();
        if is_left_alone && !worked {
            tokio::select! {
                () = tokio::time::sleep(LEFT_ALONE) => {}
                _ = draining.wait_for(|draining| *draining) => {}
            }
        }
    }
}

/// Puts on record what became of the attempts. Tried for as long as it takes: the leases hold meanwhile.
async fn mark(deps: &Deps, outcomes: Vec<(Leased, Result<(), NotCarried>)>, is_back: bool) {
    let channel = &deps.config.id;
    for (_, outcome) in &outcomes {
        deps.shared.meters.attempt(
            channel,
            match outcome {
                Ok(()) => "delivered",
                Err(NotCarried::Failed(_)) => "failed",
                Err(NotCarried::LeftAlone(_)) => "left_alone",
            },
        );
    }
    let outcomes = Arc::new(outcomes);
    let given_up = deps
        .until_done(|| {
            let (channel, outcomes, retry) = (channel.clone(), Arc::clone(&outcomes), deps.shared.retry);
            deps.shared.ledger.write(Priority::Bulk, move |tx| {
                let mut given_up = 0_u64;
                for (leased, outcome) in outcomes.iter() {
                    let letter = match outcome {
                        Ok(()) => {
                            tx.outbox_delivered(leased)?;
                            None
                        }
                        Err(NotCarried::Failed(why)) => {
                            tx.outbox_failed(ID.as_str(), leased, why, retry.wait(leased.attempt), retry.patience())?
                        }
                        Err(NotCarried::LeftAlone(why)) => tx.outbox_put_off(ID.as_str(), leased, why, LEFT_ALONE, retry.patience())?,
                    };
                    given_up += u64::from(letter.is_some());
                }
                if is_back {
                    tx.outbox_hurry(&channel)?;
                }
                Ok(given_up)
            })
        })
        .await;
    if given_up > 0 {
        slog::error!(deps.shared.log, "notifications were given up; they are dead letters"; "channel" => channel, "count" => given_up);
        for _ in 0..given_up {
            deps.shared.meters.attempt(channel, "given_up");
        }
    }
}
