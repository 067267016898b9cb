//! The two bounded queues in front of the writer: control before bulk.
//!
//! One lock for both, so that a group is cut in one step and a bound holds exactly. Bulk is bounded by
//! count and by memory, since one job may hold eight megabytes.

use std::{collections::VecDeque, time::Duration};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::{ledger::Priority, options::Limits};

/// A job and what it holds in memory.
#[derive(Debug)]
struct Queued<J> {
    job: J,
    bytes: usize,
}

#[derive(Debug)]
struct State<J> {
    control: VecDeque<Queued<J>>,
    bulk: VecDeque<Queued<J>>,
    bulk_bytes: usize,
    closed: bool,
}

/// The queues.
#[derive(Debug)]
pub(crate) struct Queue<J> {
    state: Mutex<State<J>>,
    filled: Condvar,
    room: Notify,
    control_len: usize,
    bulk_len: usize,
    bulk_bytes: usize,
    flush_bytes: usize,
    flush_jobs: usize,
}

/// Why a job was not taken; it comes back.
#[derive(Debug)]
pub(crate) enum Refused<J> {
    Full(J),
    Closed(J),
}

/// What the writer finds.
#[derive(Debug)]
pub(crate) enum Taken<J> {
    /// Work, control first.
    Group(Vec<J>),
    /// Nothing came in time.
    Idle,
    /// Nothing is left and nothing will come.
    Closed,
}

impl<J> Queue<J> {
    pub(crate) fn new(limits: &Limits) -> Queue<J> {
        Queue {
            state: Mutex::new(State { control: VecDeque::new(), bulk: VecDeque::new(), bulk_bytes: 0, closed: false }),
            filled: Condvar::new(),
            room: Notify::new(),
            control_len: limits.control_queue,
            bulk_len: limits.bulk_queue,
            bulk_bytes: limits.bulk_queue_bytes,
            flush_bytes: limits.flush_bytes,
            flush_jobs: limits.flush_jobs,
        }
    }

    /// Takes a job, or gives it back at once.
    pub(crate) fn push(&self, priority: Priority, job: J, bytes: usize) -> Result<(), Refused<J>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed(job));
        }
        match priority {
            Priority::Control if state.control.len() < self.control_len => state.control.push_back(Queued { job, bytes }),
            // a single job larger than the bound must still get through an empty queue
            Priority::Bulk
                if state.bulk.is_empty()
                    || (state.bulk.len() < self.bulk_len && state.bulk_bytes.saturating_add(bytes) <= self.bulk_bytes) =>
            {
                state.bulk_bytes = state.bulk_bytes.saturating_add(bytes);
                state.bulk.push_back(Queued { job, bytes });
            }
            Priority::Control | Priority::Bulk => return Err(Refused::Full(job)),
        }
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// The same, but waits for room.
    pub(crate) async fn push_waiting(&self, priority: Priority, job: J, bytes: usize) -> Result<(), J> {
        let mut job = job;
        loop {
            // registered before the attempt, so that room made in between is not missed
            let room = self.room.notified();
            let mut room = std::pin::pin!(room);
            room.as_mut().enable();
            match self.push(priority, job, bytes) {
                Ok(()) => return Ok(()),
                Err(Refused::Closed(back)) => return Err(back),
                Err(Refused::Full(back)) => job = back,
            }
            room.await;
        }
    }

    /// Waits for work: all control jobs, and bulk jobs up to the size of a flush.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Taken<J> {
        let mut state = self.state.lock();
        while state.control.is_empty() && state.bulk.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            match patience {
                None => self.filled.wait(&mut state),
                Some(patience) => {
                    if self.filled.wait_for(&mut state, patience).timed_out() && state.control.is_empty() && state.bulk.is_empty() {
                        return if state.closed { Taken::Closed } else { Taken::Idle };
                    }
                }
            }
        }
        let mut group: Vec<J> = state.control.drain(..).map(|queued| queued.job).collect();
        let mut bytes = 0_usize;
        while let Some(next) = state.bulk.front() {
            let total = bytes.saturating_add(next.bytes);
            if bytes > 0 && (total > self.flush_bytes || group.len() >= self.flush_jobs) {
                break;
            }
            bytes = total;
            if let Some(queued) = state.bulk.pop_front() {
                group.push(queued.job);
            }
        }
        state.bulk_bytes = state.bulk_bytes.saturating_sub(bytes);
        drop(state);
        self.room.notify_waiters();
        Taken::Group(group)
    }

    /// Everything that waits, at once: for when none of it can be done.
    pub(crate) fn take_all(&self) -> Vec<J> {
        let mut state = self.state.lock();
        state.bulk_bytes = 0;
        let mut all: Vec<J> = state.control.drain(..).map(|queued| queued.job).collect();
        all.extend(state.bulk.drain(..).map(|queued| queued.job));
        drop(state);
        self.room.notify_waiters();
        all
    }

    /// Takes nothing more; what is queued is still done.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
        self.room.notify_waiters();
    }

    /// How many jobs wait: control, bulk.
    pub(crate) fn lengths(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.control.len(), state.bulk.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue<&'static str> {
        Queue::new(&Limits { control_queue: 2, bulk_queue: 3, bulk_queue_bytes: 100, flush_bytes: 50, ..Limits::default() })
    }

    fn group(queue: &Queue<&'static str>) -> Vec<&'static str> {
        match queue.take(Some(Duration::ZERO)) {
            Taken::Group(group) => group,
            Taken::Idle | Taken::Closed => Vec::new(),
        }
    }

    #[test]
    fn control_goes_before_bulk_that_came_earlier() {
        let queue = queue();
        for (priority, name) in [(Priority::Bulk, "b1"), (Priority::Control, "c1"), (Priority::Bulk, "b2"), (Priority::Control, "c2")] {
            queue.push(priority, name, 1).unwrap();
        }
        assert_eq!(group(&queue), ["c1", "c2", "b1", "b2"]);
    }

    #[test]
    fn each_bound_refuses_what_goes_over_it() {
        let queue = queue();
        queue.push(Priority::Bulk, "large", 90).unwrap();
        assert!(matches!(queue.push(Priority::Bulk, "too many bytes", 11), Err(Refused::Full(_))));
        queue.push(Priority::Bulk, "small", 1).unwrap();
        queue.push(Priority::Bulk, "small", 1).unwrap();
        assert!(matches!(queue.push(Priority::Bulk, "too many", 1), Err(Refused::Full(_))));
        queue.push(Priority::Control, "c", 1).unwrap();
        queue.push(Priority::Control, "c", 1).unwrap();
        assert!(matches!(queue.push(Priority::Control, "too many", 1), Err(Refused::Full(_))));
        assert_eq!(queue.lengths(), (2, 3));
    }

    #[test]
    fn a_flush_ends_before_its_size_is_passed() {
        let queue = queue();
        for name in ["a", "b", "c"] {
            queue.push(Priority::Bulk, name, 30).unwrap();
        }
        assert_eq!(group(&queue), ["a"]);
        assert_eq!(group(&queue), ["b"]);
        queue.close();
        assert_eq!(group(&queue), ["c"], "what is queued is done after closing");
        assert!(matches!(queue.take(None), Taken::Closed));
        assert!(matches!(queue.push(Priority::Bulk, "late", 1), Err(Refused::Closed(_))));
    }

    #[tokio::test]
    async fn a_waiting_push_gets_the_room_that_a_take_makes() {
        let queue = std::sync::Arc::new(queue());
        queue.push(Priority::Bulk, "first", 100).unwrap();
        let other = queue.clone();
        let waiting = tokio::spawn(async move { other.push_waiting(Priority::Bulk, "second", 100).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        assert_eq!(group(&queue), ["first"]);
        waiting.await.unwrap().unwrap();
        assert_eq!(group(&queue), ["second"]);
    }
}
