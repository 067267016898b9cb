//! Fans committed events out to whoever listens.
//!
//! | Consumes   | the event log, by cursor, woken by its watch                                       |
//! | Emits      | [`Deliver`] to the lanes that want the event                                       |
//! | Keeps      | nothing: lanes and cursor are kept by the [`EventRouterHandle`], outside of it      |
//! | On restart | goes on behind the cursor; what a lane already has is not delivered to it again     |

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use actix::prelude::*;
use opspilot_kernel::{
    event::{Envelope, EventKind},
    ids::Seq,
    lifecycle::{Drain, Heartbeat, Pulse},
};
use opspilot_ledger::{EventEntry, Ledger};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Inlet, TellError};

/// Events handed out in one go before others get the thread.
const AT_ONCE: usize = 256;

/// An event for a lane.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Deliver(pub Arc<Envelope>);

/// A set of event kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventKinds(u32);

impl EventKinds {
    /// Every kind.
    pub const ALL: EventKinds = EventKinds(u32::MAX);
    /// No kind.
    pub const NONE: EventKinds = EventKinds(0);

    /// These kinds.
    pub fn of(kinds: impl IntoIterator<Item = EventKind>) -> EventKinds {
        EventKinds(kinds.into_iter().fold(0, |set, kind| set | EventKinds::bit(kind)))
    }

    /// Adds a kind.
    pub fn insert(&mut self, kind: EventKind) {
        self.0 |= EventKinds::bit(kind);
    }

    /// Whether all of the others are among them.
    pub fn covers(self, others: EventKinds) -> bool {
        others.0 & !self.0 == 0
    }

    fn bit(kind: EventKind) -> u32 {
        const { assert!(EventKind::ALL.len() <= 32, "each kind has a bit of its own") };
        let place = EventKind::ALL.iter().position(|other| *other == kind).and_then(|place| u32::try_from(place).ok());
        place.and_then(|place| 1_u32.checked_shl(place)).unwrap_or(0)
    }

    /// Whether the kind is among them.
    pub fn contains(self, kind: EventKind) -> bool {
        self.0 & EventKinds::bit(kind) != 0
    }
}

/// What happens to an event for a lane that is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The lane does not get it; it is counted. For live views.
    DropNewest,
    /// The lane is marked as lagging and gets nothing more until it has read on from the ledger by its own cursor
    /// and says so ([`LaneGuard::resume`]). For those that must miss nothing.
    MarkLagging,
}

/// Where events go.
pub struct Lane {
    /// Its name in metrics and logs.
    pub name: &'static str,
    /// What it wants.
    pub wants: EventKinds,
    /// What happens when it is full.
    pub overflow: Overflow,
    /// Where to put them.
    pub inlet: Box<dyn Inlet<Deliver>>,
}

/// How a lane has fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LaneCounts {
    /// Events it was given.
    pub delivered: u64,
    /// Events it was not given because it was full.
    pub dropped: u64,
    /// Times it was marked as lagging.
    pub lagged: u64,
}

struct Registered {
    number: u64,
    lane: Lane,
    /// The last event it was given, or that it must not be given again.
    upto: Seq,
    counts: LaneCounts,
    lagging: watch::Sender<Option<Seq>>,
}

#[derive(Debug, Clone)]
struct RouterMetrics {
    delivered: prometheus::IntCounterVec,
    dropped: prometheus::IntCounterVec,
    lagged: prometheus::IntCounterVec,
}

impl RouterMetrics {
    fn register(registry: &prometheus::Registry) -> Result<RouterMetrics, prometheus::Error> {
        let counters = |name: &str, help: &str| {
            let counters = prometheus::IntCounterVec::new(prometheus::Opts::new(name, help), &["lane"])?;
            registry.register(Box::new(counters.clone()))?;
            Ok::<_, prometheus::Error>(counters)
        };
        Ok(RouterMetrics {
            delivered: counters("opspilot_lane_delivered_total", "Events given to the lane")?,
            dropped: counters("opspilot_lane_dropped_total", "Events not given to the lane because it was full")?,
            lagged: counters("opspilot_lane_lagged_total", "Times the lane was full and had to read on from the ledger")?,
        })
    }
}

struct Shared {
    ledger: Ledger,
    metrics: RouterMetrics,
    /// Every event up to this one has been handed out.
    cursor: AtomicU64,
    lanes: Mutex<Vec<Registered>>,
    registered: AtomicU64,
    /// Why events cannot be read at present.
    trouble: Mutex<Option<String>>,
    log: slog::Logger,
}

/// The router's lanes. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct EventRouterHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for EventRouterHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventRouterHandle").field("cursor", &self.cursor()).finish_non_exhaustive()
    }
}

impl EventRouterHandle {
    /// Lanes for the events that are committed from now on.
    pub fn new(ledger: Ledger, registry: &prometheus::Registry, log: slog::Logger) -> Result<EventRouterHandle, prometheus::Error> {
        let metrics = RouterMetrics::register(registry)?;
        let cursor = AtomicU64::new(ledger.events().head());
        let (lanes, registered) = (Mutex::default(), AtomicU64::new(0));
        let trouble = Mutex::default();
        Ok(EventRouterHandle { shared: Arc::new(Shared { ledger, metrics, cursor, lanes, registered, trouble, log }) })
    }

    /// The actor that serves the lanes; what the supervisor's factory returns.
    pub fn actor(&self) -> EventRouter {
        EventRouter { router: self.clone(), scheduled: false }
    }

    /// Adds a lane: it gets the events behind the one the guard names. Dropping the guard takes it away.
    pub fn register(&self, lane: Lane) -> LaneGuard {
        let number = self.shared.registered.fetch_add(1, Ordering::SeqCst);
        let lagging = watch::Sender::new(None);
        let lag = lagging.subscribe();
        // under the lock, in which events are handed out too: none can fall between
        let mut lanes = self.shared.lanes.lock();
        let upto = self.cursor();
        lanes.push(Registered { number, lane, upto, counts: LaneCounts::default(), lagging });
        LaneGuard { router: self.clone(), number, from: upto, lag }
    }

    /// Every event up to this one has been handed out.
    pub fn cursor(&self) -> Seq {
        self.shared.cursor.load(Ordering::SeqCst)
    }

    /// Hands out what is new; true if there may be more. Blocks only when the router is far behind. An error is in its
    /// health until events can be read again.
    fn hand_out(&self) -> Result<bool, opspilot_ledger::LedgerError> {
        let entries = self.shared.ledger.events().next(self.cursor(), AT_ONCE);
        let why = entries.as_ref().err().map(|error| format!("the events cannot be read: {error}"));
        let had = std::mem::replace(&mut *self.shared.trouble.lock(), why.clone());
        match (had, why) {
            (None, Some(why)) => {
                slog::error!(self.shared.log, "events do not reach those who listen"; "cause" => why, "behind" => self.cursor())
            }
            (Some(_), None) => slog::info!(self.shared.log, "events reach those who listen again"),
            _ => {}
        }
        let entries = entries?;
        let more = !entries.is_empty();
        for entry in entries {
            let mut lanes = self.shared.lanes.lock();
            match entry {
                EventEntry::Event(envelope) => {
                    lanes.iter_mut().for_each(|lane| lane.offer(&envelope, &self.shared.metrics));
                    self.shared.cursor.store(envelope.seq, Ordering::SeqCst);
                }
                EventEntry::Gap { oldest } => {
                    // nobody can be given what is no longer kept; lanes that must miss nothing are told
                    let before = oldest.saturating_sub(1);
                    lanes.iter_mut().for_each(|lane| lane.lag(oldest, &self.shared.metrics));
                    self.shared.cursor.fetch_max(before, Ordering::SeqCst);
                }
            }
        }
        Ok(more)
    }
}

impl Registered {
    fn offer(&mut self, envelope: &Arc<Envelope>, metrics: &RouterMetrics) {
        if envelope.seq <= self.upto || self.lagging.borrow().is_some() || !self.lane.wants.contains(envelope.event.kind()) {
            return;
        }
        match self.lane.inlet.offer(Deliver(Arc::clone(envelope))) {
            Ok(()) => {
                self.counts.delivered = self.counts.delivered.saturating_add(1);
                metrics.delivered.with_label_values(&[self.lane.name]).inc();
            }
            Err(TellError::Full | TellError::Closed) => match self.lane.overflow {
                Overflow::DropNewest => {
                    self.counts.dropped = self.counts.dropped.saturating_add(1);
                    metrics.dropped.with_label_values(&[self.lane.name]).inc();
                }
                Overflow::MarkLagging => {
                    self.lag(envelope.seq, metrics);
                    return;
                }
            },
        }
        self.upto = envelope.seq;
    }

    /// The lane misses `first` and what follows.
    fn lag(&mut self, first: Seq, metrics: &RouterMetrics) {
        if self.lane.overflow == Overflow::MarkLagging && self.lagging.borrow().is_none() {
            self.lagging.send_replace(Some(first));
            self.counts.lagged = self.counts.lagged.saturating_add(1);
            metrics.lagged.with_label_values(&[self.lane.name]).inc();
        }
    }
}

/// A lane's registration; dropping it ends it.
#[derive(Debug)]
pub struct LaneGuard {
    router: EventRouterHandle,
    number: u64,
    /// The lane is given the events behind this one.
    pub from: Seq,
    lag: watch::Receiver<Option<Seq>>,
}

impl Drop for LaneGuard {
    fn drop(&mut self) {
        self.router.shared.lanes.lock().retain(|lane| lane.number != self.number);
    }
}

impl LaneGuard {
    fn with<T>(&self, work: impl FnOnce(&mut Registered) -> T) -> Option<T> {
        self.router.shared.lanes.lock().iter_mut().find(|lane| lane.number == self.number).map(work)
    }

    /// Changes what the lane wants.
    pub fn want(&self, wants: EventKinds) {
        self.with(|lane| lane.lane.wants = wants);
    }

    /// The first event the lane missed, if it is lagging.
    pub fn lagging(&self) -> Option<Seq> {
        *self.lag.borrow()
    }

    /// Tells when the lane begins or ceases to lag. A lane that must miss nothing waits on this: it may be marked
    /// after it has dealt with the last event it was given.
    pub fn watch_lag(&self) -> watch::Receiver<Option<Seq>> {
        self.lag.clone()
    }

    /// The lane has read everything up to `upto` from the ledger. If that is all that was handed out meanwhile, it
    /// gets events again; else it must read on up to the number returned.
    pub fn resume(&self, upto: Seq) -> Result<(), Seq> {
        self.with(|lane| {
            let handed_out = self.router.cursor();
            if upto < handed_out {
                return Err(handed_out);
            }
            lane.upto = upto;
            lane.lagging.send_replace(None);
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    /// How the lane has fared.
    pub fn counts(&self) -> LaneCounts {
        self.with(|lane| lane.counts).unwrap_or_default()
    }
}

/// The actor behind an [`EventRouterHandle`].
pub struct EventRouter {
    router: EventRouterHandle,
    /// Whether a look at the log is already on its way.
    scheduled: bool,
}

impl EventRouter {
    fn look(&mut self, ctx: &mut Context<Self>) {
        self.scheduled = false;
        let router = &self.router;
        match router.hand_out() {
            Ok(true) => self.schedule(ctx, tokio::task::yield_now()),
            Ok(false) => {
                let mut head = router.shared.ledger.events().watch();
                let cursor = router.cursor();
                self.schedule(ctx, async move {
                    if head.wait_for(|head| *head > cursor).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                });
            }
            Err(_) => self.schedule(ctx, tokio::time::sleep(std::time::Duration::from_secs(1))),
        }
    }

    fn schedule(&mut self, ctx: &mut Context<Self>, when: impl Future<Output = ()> + 'static) {
        if !std::mem::replace(&mut self.scheduled, true) {
            ctx.spawn(when.into_actor(self).map(|(), router, ctx| router.look(ctx)));
        }
    }
}

impl Actor for EventRouter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.schedule(ctx, std::future::ready(()));
    }
}

impl Supervised for EventRouter {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.scheduled = false;
    }
}

impl Handler<Heartbeat> for EventRouter {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        let behind = self.router.shared.ledger.events().head().saturating_sub(self.router.cursor());
        let trouble = self.router.shared.trouble.lock().clone();
        MessageResult(Pulse { queue: usize::try_from(behind).unwrap_or(usize::MAX), trouble })
    }
}

impl Handler<Drain> for EventRouter {
    type Result = ();

    /// Hands out what is committed, so that those who listen see the end of the story.
    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {
        while let Ok(true) = self.router.hand_out() {}
    }
}
