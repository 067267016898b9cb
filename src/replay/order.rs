//! One order over all recordings, and a time of receipt for each signal.
//!
//! A signal is taken for received when it happened. Receipt never goes back: what is older than the signal before it in its
//! file is taken for late, as a service would take it, and counted. With a window to sort in, signals are put in the order of
//! their own times first; what is out of order by more than the window is still late. A signal that is more than a day ahead
//! of the one before it *and* of the one behind it has a wrong clock: it is taken for
//! having happened when it was received, and counted too.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use opspilot_kernel::time::Timestamp;
use serde::Serialize;

use super::{Run, input::Recording};

/// Nobody is silent for so long between two signals and then goes back.
const LEAP: Duration = Duration::from_secs(86_400);

/// What was out of order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Disorder {
    /// Signals older than the one before them.
    pub(crate) late: u64,
    /// By how much, at most, in milliseconds.
    pub(crate) latest_ms: u64,
    /// Signals a day or more ahead of their neighbours.
    pub(crate) ahead: u64,
}

/// Runs of one recording, in order as far as the window reaches.
struct Sorted {
    recording: Recording,
    window: usize,
    /// By time, and of one time in the order of the file.
    held: BinaryHeap<Reverse<(Timestamp, u64)>>,
    runs: std::collections::HashMap<u64, Run>,
    number: u64,
}

impl Iterator for Sorted {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        if self.window == 0 {
            return self.recording.next();
        }
        while self.held.len() < self.window
            && let Some(run) = self.recording.next()
        {
            self.number += 1;
            self.held.push(Reverse((run.at, self.number)));
            self.runs.insert(self.number, run);
        }
        let Reverse((_, number)) = self.held.pop()?;
        self.runs.remove(&number)
    }
}

/// Runs of one recording with the time of their receipt.
struct Steady {
    runs: Sorted,
    ahead: Option<Run>,
    clock: Option<Timestamp>,
    disorder: Disorder,
}

impl Steady {
    fn new(recording: Recording, window: usize) -> Steady {
        let held = BinaryHeap::new();
        let mut runs = Sorted { recording, window, held, runs: std::collections::HashMap::new(), number: 0 };
        let ahead = runs.next();
        Steady { runs, ahead, clock: None, disorder: Disorder::default() }
    }
}

impl Iterator for Steady {
    type Item = (Timestamp, Run);

    fn next(&mut self) -> Option<(Timestamp, Run)> {
        let mut run = self.ahead.take()?;
        self.ahead = self.runs.next();
        let next = self.ahead.as_ref().map(|next| next.at);
        let leaps = next.is_some_and(|next| run.at.since(next) > LEAP) && self.clock.is_none_or(|clock| run.at.since(clock) > LEAP);
        let received = if leaps {
            self.disorder.ahead += u64::from(run.count);
            // as the service does with what claims to be from the future
            let at = self.clock.or(next).unwrap_or(run.at);
            run = run.moved(at);
            at
        } else {
            self.clock.map_or(run.at, |clock| clock.max(run.at))
        };
        if received > run.at {
            self.disorder.late += u64::from(run.count);
            let by = u64::try_from(received.since(run.at).as_millis()).unwrap_or(u64::MAX);
            self.disorder.latest_ms = self.disorder.latest_ms.max(by);
        }
        self.clock = Some(received);
        Some((received, run))
    }
}

/// All recordings, merged by the time of receipt; of one time, in the order in which they were named.
pub(crate) struct Merged {
    recordings: Vec<Steady>,
    heads: BinaryHeap<Reverse<(Timestamp, usize)>>,
    waiting: Vec<Option<Run>>,
}

impl Merged {
    /// Puts them in order. Each is sorted within a window of so many signals first; 0 leaves it as it is.
    pub(crate) fn new(recordings: Vec<Recording>, window: usize) -> Merged {
        let recordings: Vec<Steady> = recordings.into_iter().map(|recording| Steady::new(recording, window)).collect();
        let mut merged = Merged { waiting: recordings.iter().map(|_| None).collect(), recordings, heads: BinaryHeap::new() };
        (0..merged.recordings.len()).for_each(|index| merged.refill(index));
        merged
    }

    fn refill(&mut self, index: usize) {
        let next = self.recordings.get_mut(index).and_then(Iterator::next);
        if let (Some((received, run)), Some(place)) = (next, self.waiting.get_mut(index)) {
            *place = Some(run);
            self.heads.push(Reverse((received, index)));
        }
    }

    /// What was out of order so far.
    pub(crate) fn disorder(&self) -> Disorder {
        self.recordings.iter().map(|recording| recording.disorder).fold(Disorder::default(), |sum, one| Disorder {
            late: sum.late + one.late,
            latest_ms: sum.latest_ms.max(one.latest_ms),
            ahead: sum.ahead + one.ahead,
        })
    }
}

impl Iterator for Merged {
    type Item = (Timestamp, Run);

    fn next(&mut self) -> Option<(Timestamp, Run)> {
        let Reverse((received, index)) = self.heads.pop()?;
        let run = self.waiting.get_mut(index).and_then(Option::take)?;
        self.refill(index);
        Some((received, run))
    }
}
