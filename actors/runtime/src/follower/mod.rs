//! Feeds a log of the ledger to a [`Consumer`], and commits what it makes of it.
//!
//! | Consumes   | the signal log or the alert log, by cursor; [`Reconfigure`], [`Requeue`]                    |
//! | Emits      | the consumer's output, in one transaction with how far it read and what it then knew        |
//! | Keeps      | the consumer (cache; rebuilt from its snapshots and the log behind them)                    |
//! | On restart | restores the snapshots, reads on from there, passes over what is already committed          |
//!
//! Two numbers are stored. The *cursor* is where the stored snapshots stand; from there a restart reads on.
//! *Done* is how far output is committed; up to there it is not committed again. They part because output is
//! committed at once, but snapshots only every second or 65,536 signals.
//!
//! What the actor fails at is counted in the [`AttemptBook`], outside of it, by range. After the third failure the
//! range is taken apart (see `isolation`) until the one signal is found, which is set aside as a dead letter.

mod isolation;
mod messages;
mod state;

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use opspilot_kernel::{
    clock::SharedClock,
    ids::{DeadLetterId, Seq},
};
use opspilot_ledger::{Ledger, LedgerError};
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use self::messages::{FollowerStatus, Reconfigure, Requeue, RequeueError, Status};
use self::state::{Commit, State};
use crate::{Attempt, AttemptBook, ChildSpec, Consumer, Entries, Handle, Lease, ModuleContext, Supervisor, Tally, TallyCounts, Ticker};

/// Bounds of a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerOptions {
    /// Bytes read at a time.
    pub chunk_bytes: usize,
    /// What the consumer knows is stored at least so often while it changes. Zero: with every commit.
    pub save_every: Duration,
    /// … or after so many signals.
    pub save_signals: u64,
    /// Signals set aside in one go before the follower is restarted: far more mean that the consumer is broken.
    pub most_dead_letters: usize,
}

impl Default for FollowerOptions {
    fn default() -> FollowerOptions {
        FollowerOptions { chunk_bytes: 1 << 20, save_every: Duration::from_secs(1), save_signals: 65_536, most_dead_letters: 64 }
    }
}

type Make<C> = Box<dyn Fn() -> C + Send>;

/// What outlives the actor's failures.
struct Deps<C> {
    module: &'static str,
    ledger: Ledger,
    clock: SharedClock,
    log: slog::Logger,
    attempts: AttemptBook,
    ticker: Ticker,
    options: FollowerOptions,
    tally: Tally,
    make: Mutex<Make<C>>,
    /// The configuration that it is to go by, if that is to be on record in the log.
    config: Config,
}

type Config = Box<dyn Fn() -> Option<serde_json::Value> + Send + Sync>;

/// The actor.
pub struct Follower<C: Consumer> {
    deps: Arc<Deps<C>>,
    lease: Lease,
    state: Option<State<C>>,
    /// A commit or a read is under way: nothing else may happen to the state.
    busy: bool,
    /// The newest of the looks at the log that were scheduled; older ones are void.
    ticket: u64,
    trouble: Option<String>,
    isolation: Option<isolation::Isolation>,
    drains: Vec<oneshot::Sender<()>>,
    draining: bool,
    changes: Vec<Change<C>>,
}

/// Something to be done between two commits.
enum Change<C> {
    Consumer(Make<C>, oneshot::Sender<()>),
    Letter(DeadLetterId, oneshot::Sender<Result<(), RequeueError>>),
}

impl<C> Change<C> {
    fn is_letter(&self, id: &DeadLetterId) -> bool {
        matches!(self, Change::Letter(waiting, _) if waiting == id)
    }
}

/// Starts a follower for `module`; `make` makes a fresh consumer whenever one is needed.
pub fn follow<C: Consumer>(
    ctx: &ModuleContext,
    spec: ChildSpec,
    options: FollowerOptions,
    make: impl Fn() -> C + Send + 'static,
) -> Handle<Follower<C>> {
    follow_configured(ctx, spec, options, || None, make)
}

/// The same for a consumer that takes its configuration from the log: whenever the follower starts, it has the ledger put
/// on record, as a numbered entry, that it goes by `config` from there on, unless it is on record already.
pub fn follow_configured<C: Consumer>(
    ctx: &ModuleContext,
    spec: ChildSpec,
    options: FollowerOptions,
    config: impl Fn() -> Option<serde_json::Value> + Send + Sync + 'static,
    make: impl Fn() -> C + Send + 'static,
) -> Handle<Follower<C>> {
    let deps = Arc::new(Deps {
        module: spec.id,
        ledger: ctx.ledger.clone(),
        clock: Arc::clone(&ctx.clock),
        log: ctx.log.clone(),
        attempts: ctx.attempts.clone(),
        ticker: ctx.ticker.clone(),
        options,
        tally: Tally::default(),
        make: Mutex::new(Box::new(make)),
        config: Box::new(config),
    });
    start(&ctx.supervisor, spec, deps)
}

fn start<C: Consumer>(supervisor: &Supervisor, spec: ChildSpec, deps: Arc<Deps<C>>) -> Handle<Follower<C>> {
    supervisor.start_leased(spec, move |lease| Follower {
        deps: Arc::clone(&deps),
        lease: lease.clone(),
        state: None,
        busy: false,
        ticket: 0,
        trouble: None,
        isolation: None,
        drains: Vec::new(),
        draining: false,
        changes: Vec::new(),
    })
}

impl<C: Consumer> Actor for Follower<C> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // what a former instance had begun is begun again
        self.deps.tally.retried(self.deps.tally.counts().in_flight);
        self.load(ctx);
    }
}

impl<C: Consumer> Supervised for Follower<C> {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.state = None;
        self.busy = false;
        self.isolation = None;
        self.changes.clear();
        self.trouble = None;
    }
}

impl<C: Consumer> Follower<C> {
    /// Says which log is followed, restores the consumer, and goes on.
    fn load(&mut self, ctx: &mut Context<Self>) {
        self.busy = true;
        let deps = Arc::clone(&self.deps);
        let loaded = async move {
            let module = deps.module;
            let of = Arc::clone(&deps);
            let follow = deps.ledger.write(opspilot_ledger::Priority::Bulk, move |tx| {
                tx.follow(module, C::Entry::LOG)?;
                // asked here, in the order of all that is written: a reload just before must not be taken back
                (of.config)().map_or(Ok(None), |config| tx.configure(module, &config)).map(|_| ())
            });
            follow.await?;
            deps.ledger.read(move |reader| state::Stored::read(reader, module)).await
        };
        ctx.spawn(loaded.into_actor(self).map(|stored, follower, ctx| {
            follower.busy = false;
            let restored = stored.and_then(|stored| {
                let requeued = stored.requeued.clone();
                Ok((State::restore(&follower.deps, stored)?, requeued))
            });
            match restored {
                Ok((state, requeued)) => {
                    let waiting = |id: &DeadLetterId| follower.changes.iter().any(|change| change.is_letter(id));
                    let forgotten: Vec<_> = requeued.into_iter().filter(|id| !waiting(id)).collect();
                    follower.changes.extend(forgotten.into_iter().map(|id| Change::Letter(id, oneshot::channel().0)));
                    follower.state = Some(state);
                    follower.trouble = None;
                    follower.proceed(ctx);
                }
                Err(error) => follower.retry(ctx, &error),
            }
        }));
    }

    /// Storage does not answer: shown, and tried again.
    fn retry(&mut self, ctx: &mut Context<Self>, error: &LedgerError) {
        self.trouble = Some(format!("the ledger does not answer: {error}"));
        let wait = match error {
            LedgerError::Busy => Duration::from_millis(50),
            LedgerError::Unavailable(_) => Duration::from_secs(1),
            _ => {
                self.lease.explain(error.to_string());
                ctx.stop();
                return;
            }
        };
        self.schedule(ctx, tokio::time::sleep(wait));
    }

    fn schedule(&mut self, ctx: &mut Context<Self>, when: impl Future<Output = ()> + 'static) {
        self.ticket = self.ticket.wrapping_add(1);
        let ticket = self.ticket;
        ctx.spawn(when.into_actor(self).map(move |(), follower, ctx| {
            if follower.ticket == ticket {
                follower.proceed(ctx);
            }
        }));
    }

    /// Does the next thing there is to do, if nothing is under way.
    fn proceed(&mut self, ctx: &mut Context<Self>) {
        if self.busy {
            return;
        }
        if self.state.is_none() {
            return self.load(ctx);
        }
        if !self.drains.is_empty() {
            return self.finish(ctx);
        }
        if self.draining {
            return;
        }
        let Some(state) = self.state.as_mut() else { return };
        match state.consumer.catch_up() {
            Ok(false) => {}
            // a little at a time, so that it can be asked how it is
            Ok(true) => return self.schedule(ctx, tokio::task::yield_now()),
            Err(error) => return self.retry(ctx, &error),
        }
        if self.isolation.is_some() {
            return self.isolate(ctx);
        }
        if !self.changes.is_empty() {
            match self.changes.remove(0) {
                Change::Consumer(make, done) => return self.change_consumer(ctx, make, done),
                Change::Letter(id, done) => return self.try_letter(ctx, id, done),
            }
        }
        self.read_on(ctx);
    }

    /// Reads the next chunk and feeds it to the consumer.
    fn read_on(&mut self, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let Some(state) = self.state.as_mut() else { return };
        let mut entries = match C::Entry::next(&deps.ledger, state.position, deps.options.chunk_bytes) {
            Ok(entries) => entries,
            Err(error) => return self.retry(ctx, &error),
        };
        let Some(first) = entries.first().map(Entries::first_seq) else { return self.rest(ctx) };
        if let Some(open) = deps.attempts.open(deps.module, first.saturating_sub(1)) {
            if open.first == first && open.count >= AttemptBook::LIMIT {
                return self.begin_isolation(ctx, open);
            }
            // the same range as before, so that its failures add up; and what is before it on its own
            let upto = if open.first == first { open.last } else { open.first.saturating_sub(1) };
            entries = entries.into_iter().filter_map(|entry| entry.within(first, upto)).collect();
        }
        let Some(last) = entries.last().map(Entries::last_seq) else { return self.rest(ctx) };
        deps.attempts.begin(deps.module, first, last);
        if first <= state.suspect_upto {
            return self.count_then_feed(ctx, first, last, entries);
        }
        self.feed(ctx, entries, None);
    }

    /// Counts the attempt in the ledger before it is made: it may be the end of the process.
    fn count_then_feed(&mut self, ctx: &mut Context<Self>, first: Seq, last: Seq, entries: Vec<C::Entry>) {
        self.busy = true;
        let (module, ledger) = (self.deps.module, self.deps.ledger.clone());
        let counted = ledger.write(opspilot_ledger::Priority::Bulk, move |tx| tx.count_attempt(module, first, last));
        ctx.spawn(counted.into_actor(self).map(move |counted, follower, ctx| {
            follower.busy = false;
            match counted {
                Ok(count) if count > AttemptBook::LIMIT => {
                    follower.begin_isolation(ctx, Attempt { first, last, count, deadly: true });
                }
                Ok(_) => follower.feed(ctx, entries, Some(last)),
                Err(error) => {
                    follower.deps.attempts.take_back(follower.deps.module, first);
                    follower.retry(ctx, &error);
                }
            }
        }));
    }

    fn feed(&mut self, ctx: &mut Context<Self>, entries: Vec<C::Entry>, clear_upto: Option<Seq>) {
        let deps = Arc::clone(&self.deps);
        let Some(state) = self.state.as_mut() else { return };
        let before = state.position;
        let last = entries.last().map_or(before, Entries::last_seq);
        let count = last.saturating_sub(before);
        deps.tally.received(count);
        // the alert log waits to be told that everything before a tick was read
        let is_awaited = entries.iter().any(Entries::is_tick);
        let outputs = state.consume(entries);
        deps.attempts.done(deps.module, last);
        let saves = state.save_is_due(&deps) || clear_upto.is_some();
        if outputs.is_empty() && !saves && !is_awaited {
            deps.tally.ok(count);
            return self.schedule(ctx, tokio::task::yield_now());
        }
        let mut commit = if saves { state.exact(outputs) } else { state.quick(outputs) };
        commit.clear_upto = clear_upto;
        self.commit(ctx, commit, count, |follower, ctx| follower.proceed(ctx));
    }

    /// All is read: publishes the next timer and waits for news, or until what changed must be stored.
    fn rest(&mut self, ctx: &mut Context<Self>) {
        let deps = Arc::clone(&self.deps);
        let Some(state) = self.state.as_mut() else { return };
        deps.ticker.publish(deps.module, state.consumer.next_due());
        if state.save_is_due(&deps) {
            let commit = state.exact(Vec::new());
            return self.commit(ctx, commit, 0, |follower, ctx| follower.proceed(ctx));
        }
        let save_in = state.save_in(&deps);
        let position = state.position;
        let mut head = C::Entry::watch(&deps.ledger);
        self.schedule(ctx, async move {
            let news = head.wait_for(|head| *head > position);
            match save_in {
                Some(wait) => drop(tokio::time::timeout(wait, news).await),
                None => {
                    if news.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
            }
        });
    }

    /// Writes, and goes on when it is on the disk. Tried again for as long as storage does not answer.
    fn commit(
        &mut self,
        ctx: &mut Context<Self>,
        commit: Commit<C::Output>,
        count: u64,
        then: impl FnOnce(&mut Self, &mut Context<Self>) + 'static,
    ) {
        self.busy = true;
        let written = state::write(Arc::clone(&self.deps), self.lease.clone(), commit.clone());
        ctx.spawn(written.into_actor(self).map(move |written, follower, ctx| match written {
            Ok(()) => {
                follower.busy = false;
                follower.trouble = None;
                if let Some(state) = follower.state.as_mut() {
                    state.committed(&commit, follower.deps.clock.elapsed());
                }
                follower.deps.tally.ok(count);
                then(follower, ctx);
            }
            Err(error) => {
                follower.trouble = Some(format!("the ledger does not answer: {error}"));
                let wait = match &error {
                    LedgerError::Busy => Duration::from_millis(50),
                    LedgerError::Unavailable(_) => Duration::from_secs(1),
                    _ => {
                        follower.lease.explain(format!("it cannot commit: {error}"));
                        return ctx.stop();
                    }
                };
                ctx.spawn(tokio::time::sleep(wait).into_actor(follower).map(move |(), follower, ctx| {
                    follower.commit(ctx, commit, count, then);
                }));
            }
        }));
    }

    /// How far it has come and what became of what it read.
    fn status(&self) -> FollowerStatus {
        let head = C::Entry::head(&self.deps.ledger);
        let (position, cursor) = self.state.as_ref().map_or((0, 0), |state| (state.position, state.cursor));
        FollowerStatus { position, cursor, head, isolating: self.isolation.is_some(), tally: self.counts() }
    }

    fn counts(&self) -> TallyCounts {
        self.deps.tally.counts()
    }
}
