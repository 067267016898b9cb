//! What is said of a series: where it is, what it may take, and when it was heard of.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    time::Duration,
};

use opspilot_kernel::{ids::Seq, time::Timestamp};

use super::Pace;

pub(super) const HOUR: i64 = 3_600_000;

/// What can be kept.
pub(crate) trait Kept: Sized {
    /// Appends all of it.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads it back; nothing if the bytes are none.
    fn decode(bytes: &[u8]) -> Option<Self>;
    /// What it takes in memory.
    fn bytes(&self) -> usize;
}

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Series in memory.
    pub(crate) held: usize,
    /// What they take there.
    pub(crate) held_bytes: usize,
    /// Series in memory and on the shelf.
    pub(crate) known: usize,
    /// A series not heard of for so long is forgotten.
    pub(crate) forget_after: Duration,
    /// How fast bases are written.
    pub(crate) pace: Pace,
}

/// Where a signal stands and whose it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Touch {
    pub(crate) key: u64,
    /// Changes when its rule means something else: what was kept by another is void.
    pub(crate) digest: u64,
    pub(crate) seq: Seq,
    /// When the signal was received.
    pub(crate) at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Slot<T> {
    pub(super) key: u64,
    pub(super) digest: u64,
    pub(super) state: T,
    /// The newest signal in it.
    pub(super) seq: Seq,
    pub(super) hour: u32,
    /// The first signal that its base does not contain.
    pub(super) dirty: Option<Seq>,
    /// Under which hour its base lies on the shelf.
    pub(super) stored: Option<u32>,
    pub(super) bytes: usize,
}

/// A series that is not in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Away {
    /// Under which hour its base lies, if there is one.
    pub(super) stored: Option<u32>,
    pub(super) hour: u32,
    /// Where its life began, if its base may be of an earlier one.
    pub(super) born: Option<(Seq, u64)>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Held(u32),
    Away(Away),
}

/// A hasher for keys that are hashes.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Whole(u64);

impl Hasher for Whole {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        // senders choose what is hashed: their low bits need not be spread
        self.0 = (number ^ (number >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

pub(super) type ByKey<V> = HashMap<u64, V, BuildHasherDefault<Whole>>;

/// Numbers about what is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    pub(crate) held: usize,
    pub(crate) bytes: usize,
    pub(crate) shelved: usize,
    pub(crate) put_away: u64,
    pub(crate) taken_back: u64,
    pub(crate) forgotten: u64,
    pub(crate) unreadable: u64,
    pub(crate) written: u64,
}

pub(super) fn slot<T>(slots: &mut [Option<Slot<T>>], place: u32) -> Option<&mut Slot<T>> {
    slots.get_mut(usize::try_from(place).ok()?)?.as_mut()
}

pub(super) fn hour_of(at: Timestamp) -> u32 {
    u32::try_from(at.millis().div_euclid(HOUR).max(0)).unwrap_or(u32::MAX)
}
