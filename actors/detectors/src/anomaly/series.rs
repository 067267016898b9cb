//! What is kept of one series under one rule.

use opspilot_kernel::time::Timestamp;

use super::method::{Judge, Judged, Method};
use crate::keep::Kept;

/// How often what it takes is looked at again, in values.
const WEIGHED_EVERY: u32 = 64;

/// A series: its judge, and the time of its newest value.
#[derive(Debug)]
pub(super) struct Series {
    judge: State,
    newest: Timestamp,
    steps: u32,
}

/// A judge is read when it is first asked something, because only then its method is known.
#[derive(Debug)]
enum State {
    Stored(Vec<u8>),
    Awake(Judge),
}

/// What became of a value.
pub(super) struct Stepped {
    pub(super) judged: Judged,
    /// It is older than one before it, or of the same time.
    pub(super) order: Order,
    /// What was stored of the series could not be read, and it began anew.
    pub(super) unreadable: bool,
    /// What it takes may have changed.
    pub(super) to_weigh: bool,
}

/// How a value's time stands to those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Later,
    Same,
    Earlier,
}

impl Series {
    pub(super) fn new(method: &Method) -> Series {
        Series { judge: State::Awake(Judge::new(method)), newest: Timestamp::ZERO, steps: 0 }
    }

    /// Judges a value and learns it.
    pub(super) fn step(&mut self, method: &Method, at: Timestamp, value: f64) -> Stepped {
        let mut unreadable = false;
        if let State::Stored(bytes) = &self.judge {
            let judge = Judge::decode(method, bytes).unwrap_or_else(|_| {
                unreadable = true;
                Judge::new(method)
            });
            self.judge = State::Awake(judge);
            self.steps = 0;
        }
        let order = match at.cmp(&self.newest) {
            std::cmp::Ordering::Greater => Order::Later,
            std::cmp::Ordering::Equal => Order::Same,
            std::cmp::Ordering::Less => Order::Earlier,
        };
        self.newest = self.newest.max(at);
        self.steps = self.steps.wrapping_add(1);
        let to_weigh = self.steps % WEIGHED_EVERY == 1;
        let judged = match &mut self.judge {
            State::Awake(judge) => judge.step(at, value),
            // it was read a moment ago
            State::Stored(_) => Judge::new(method).step(at, value),
        };
        Stepped { judged, order, unreadable, to_weigh }
    }
}

impl Kept for Series {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.newest.millis().to_le_bytes());
        match &self.judge {
            State::Stored(bytes) => out.extend_from_slice(bytes),
            State::Awake(judge) => out.extend(judge.encode()),
        }
    }

    fn decode(bytes: &[u8]) -> Option<Series> {
        let (newest, judge) = bytes.split_first_chunk::<8>()?;
        Some(Series { judge: State::Stored(judge.to_vec()), newest: Timestamp::from_millis(i64::from_le_bytes(*newest)), steps: 0 })
    }

    fn bytes(&self) -> usize {
        size_of::<Series>()
            + match &self.judge {
                State::Stored(bytes) => bytes.capacity(),
                State::Awake(judge) => judge.bytes(),
            }
    }
}
