//! Takes a range apart that the consumer failed at three times, until the one signal is found that it cannot take.
//!
//! A range is tried on the state it began with; if it fails it is halved. What goes well is committed at once, so
//! every signal is processed exactly once and in order; a single signal that fails is set aside. A failure here is
//! caught, and is no failure of the actor. If an earlier run of the process died of the range, every try is counted
//! in the ledger first, and three tries that ended the process count as a failure.

use std::panic::{AssertUnwindSafe, catch_unwind};

use actix::prelude::*;
use opspilot_kernel::ids::{DeadLetterId, Seq};
use opspilot_ledger::{DeadLetter, LedgerError, Priority};
use tokio::sync::oneshot;

use super::{
    Follower, Make, RequeueError,
    state::{Commit, Dead},
};
use crate::{Attempt, AttemptBook, Consumer, Entries, panics};

/// A range that is being taken apart.
pub(super) struct Isolation {
    /// What is still to be tried; the next is the last.
    ranges: Vec<(Seq, Seq)>,
    deadly: bool,
    set_aside: usize,
}

impl<C: Consumer> Follower<C> {
    pub(super) fn begin_isolation(&mut self, ctx: &mut Context<Self>, open: Attempt) {
        slog::warn!(self.deps.log, "a range failed three times and is taken apart";
            "actor" => self.deps.module, "first" => open.first, "last" => open.last);
        self.isolation = Some(Isolation { ranges: vec![(open.first, open.last)], deadly: open.deadly, set_aside: 0 });
        let Some(state) = self.state.as_mut() else { return };
        // so that every further try begins with a state that is stored
        let commit = state.exact(Vec::new());
        self.commit(ctx, commit, 0, |follower, ctx| follower.proceed(ctx));
    }

    /// Tries the next range.
    pub(super) fn isolate(&mut self, ctx: &mut Context<Self>) {
        let Some(isolation) = self.isolation.as_ref() else { return };
        let Some((first, last)) = isolation.ranges.last().copied() else {
            self.isolation = None;
            self.lease.forgive();
            return self.proceed(ctx);
        };
        if !isolation.deadly {
            return self.try_range(ctx, first, last);
        }
        self.busy = true;
        let module = self.deps.module;
        let counted = self.deps.ledger.write(Priority::Bulk, move |tx| tx.count_attempt(module, first, last));
        ctx.spawn(counted.into_actor(self).map(move |counted, follower, ctx| {
            follower.busy = false;
            match counted {
                Ok(count) if count > AttemptBook::LIMIT => {
                    follower.range_failed(ctx, first, last, "it ended the process".to_owned());
                }
                Ok(_) => follower.try_range(ctx, first, last),
                Err(error) => follower.retry(ctx, &error),
            }
        }));
    }

    /// Everything within the range, from the log.
    fn read_range(&self, first: Seq, last: Seq) -> Result<Vec<C::Entry>, LedgerError> {
        let mut entries = Vec::new();
        let mut after = first.saturating_sub(1);
        while after < last {
            let more = C::Entry::next(&self.deps.ledger, after, self.deps.options.chunk_bytes)?;
            let Some(reached) = more.last().map(Entries::last_seq) else { break };
            entries.extend(more.into_iter().filter_map(|entry| entry.within(first, last)));
            after = reached;
        }
        Ok(entries)
    }

    fn try_range(&mut self, ctx: &mut Context<Self>, first: Seq, last: Seq) {
        let entries = match self.read_range(first, last) {
            Ok(entries) => entries,
            Err(error) => return self.retry(ctx, &error),
        };
        let module = self.deps.module;
        let Some(state) = self.state.as_mut() else { return };
        match caught(module, || state.consume(entries)) {
            Ok(outputs) => {
                state.position = state.position.max(last);
                let mut commit = state.exact(outputs);
                commit.clear_upto = self.isolation.as_ref().filter(|isolation| isolation.deadly).map(|_| last);
                let count = last.saturating_sub(first).saturating_add(1);
                self.deps.tally.received(count);
                self.commit(ctx, commit, count, move |follower, ctx| follower.range_done(ctx, last));
            }
            Err(text) => self.range_failed(ctx, first, last, text),
        }
    }

    fn range_done(&mut self, ctx: &mut Context<Self>, last: Seq) {
        if let Some(isolation) = self.isolation.as_mut() {
            isolation.ranges.pop();
        }
        self.deps.attempts.done(self.deps.module, last);
        self.proceed(ctx);
    }

    fn range_failed(&mut self, ctx: &mut Context<Self>, first: Seq, last: Seq, error: String) {
        let Some(isolation) = self.isolation.as_mut() else { return };
        if first < last {
            let middle = first.midpoint(last);
            isolation.ranges.pop();
            isolation.ranges.push((middle.saturating_add(1), last));
            isolation.ranges.push((first, middle));
            // the consumer is broken; what is stored stands just before the range
            self.state = None;
            return self.proceed(ctx);
        }
        isolation.set_aside = isolation.set_aside.saturating_add(1);
        if isolation.set_aside > self.deps.options.most_dead_letters {
            self.lease.explain(format!("it fails at too much for it to be the signals: {error}"));
            return ctx.stop();
        }
        let payload = self.read_range(first, last).map(|entries| entries.iter().flat_map(Entries::payload).collect());
        let payload: Vec<u8> = match payload {
            Ok(payload) => payload,
            Err(error) => return self.retry(ctx, &error),
        };
        slog::error!(self.deps.log, "a signal cannot be processed and is set aside";
            "actor" => self.deps.module, "seq" => first, "error" => &error);
        let dead = Dead { first, last, payload, error, attempts: AttemptBook::LIMIT };
        let done = self.state.as_ref().map_or(last, |state| state.done.max(last));
        let clear_upto = self.isolation.as_ref().filter(|isolation| isolation.deadly).map(|_| last);
        let commit = Commit {
            outputs: Vec::new(),
            cursor: last,
            done,
            snapshots: Vec::new(),
            shelved: Vec::new(),
            dead: Some(dead),
            revived: None,
            clear_upto,
        };
        self.deps.tally.received(1);
        self.commit(ctx, commit, 0, move |follower, ctx| {
            follower.deps.tally.dead_lettered(1);
            follower.state = None;
            follower.range_done(ctx, last);
        });
    }

    /// Feeds one dead letter again; what follows from it is committed with everything the consumer then knows.
    pub(super) fn try_letter(&mut self, ctx: &mut Context<Self>, id: DeadLetterId, done: oneshot::Sender<Result<(), RequeueError>>) {
        self.busy = true;
        let (module, ledger) = (self.deps.module, self.deps.ledger.clone());
        let wanted = id.clone();
        let letter = async move {
            let letters = ledger.read(move |reader| reader.requeued(module)).await?;
            Ok(letters.into_iter().find(|letter| letter.id == wanted))
        };
        ctx.spawn(letter.into_actor(self).map(move |letter: Result<Option<DeadLetter>, LedgerError>, follower, ctx| {
            follower.busy = false;
            match letter {
                Ok(Some(letter)) => follower.feed_letter(ctx, letter, done),
                Ok(None) => {
                    answer(done, Err(RequeueError::Unknown));
                    follower.proceed(ctx);
                }
                Err(error) => {
                    answer(done, Err(RequeueError::Unavailable));
                    follower.retry(ctx, &error);
                }
            }
        }));
    }

    fn feed_letter(&mut self, ctx: &mut Context<Self>, letter: DeadLetter, done: oneshot::Sender<Result<(), RequeueError>>) {
        let (first, last) = (letter.first_seq, letter.last_seq);
        let stored = self.read_range(first, last).unwrap_or_default();
        let entries = if stored.is_empty() { C::Entry::revive(&letter).into_iter().collect() } else { stored };
        let module = self.deps.module;
        let Some(state) = self.state.as_mut() else { return };
        let mut outputs = Vec::new();
        let fed = caught(module, || entries.iter().for_each(|entry| state.consumer.consume(entry, &mut outputs)));
        match fed {
            Ok(()) => {
                let mut commit = state.exact(outputs);
                commit.revived = Some(letter.id);
                self.commit(ctx, commit, 0, |follower, ctx| {
                    answer(done, Ok(()));
                    follower.proceed(ctx);
                });
            }
            Err(text) => {
                let attempts = letter.attempts.saturating_add(1);
                let dead = Dead { first, last, payload: letter.payload, error: text.clone(), attempts };
                let mut commit = state.quick(Vec::new());
                // the broken consumer is thrown away, so only what was stored before counts
                commit.done = state.done;
                commit.dead = Some(dead);
                self.commit(ctx, commit, 0, move |follower, ctx| {
                    answer(done, Err(RequeueError::FailsAgain(text)));
                    follower.state = None;
                    follower.proceed(ctx);
                });
            }
        }
    }

    /// Puts another consumer in the place of this one, at a committed point.
    pub(super) fn change_consumer(&mut self, ctx: &mut Context<Self>, make: Make<C>, done: oneshot::Sender<()>) {
        let Some(state) = self.state.as_mut() else { return };
        let commit = state.exact(Vec::new());
        self.commit(ctx, commit, 0, move |follower, ctx| {
            *follower.deps.make.lock() = make;
            follower.state = None;
            answer(done, ());
            follower.proceed(ctx);
        });
    }

    /// Stores what is known and reads no further.
    pub(super) fn finish(&mut self, ctx: &mut Context<Self>) {
        let Some(state) = self.state.as_mut() else { return };
        self.draining = true;
        let drains = std::mem::take(&mut self.drains);
        let commit = state.exact(Vec::new());
        self.commit(ctx, commit, 0, move |_, _| drains.into_iter().for_each(|drain| answer(drain, ())));
    }
}

/// Answers, if anybody still waits for it.
fn answer<T>(waiting: oneshot::Sender<T>, value: T) {
    drop(waiting.send(value));
}

/// Runs the consumer's code; a panic becomes its message.
fn caught<T>(module: &'static str, work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(|| panics::in_actor(module, work))).map_err(|payload| panics::message(&*payload))
}
