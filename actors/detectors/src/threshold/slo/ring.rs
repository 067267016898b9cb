//! Events by the time at which they happened, in a fixed number of buckets.
//!
//! A bucket ends with the moment that bears its number and begins just behind the one before it, so that what a counter
//! shows on the minute belongs to the minute that is over. Buckets are stored in chunks, and only chunks that changed.

use std::collections::BTreeSet;

use opspilot_kernel::time::Timestamp;

use crate::threshold::pack::{Cut, Packer, Unpacker};

/// Two numbers that are added up side by side: what is said about errors, and all events.
pub(super) type Pair = [f64; 2];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ring {
    /// What a bucket covers, in milliseconds.
    width: i64,
    /// Buckets in a chunk.
    chunk: i64,
    /// The newest bucket there is; nothing before the first event.
    newest: Option<i64>,
    buckets: Vec<Pair>,
    dirty: BTreeSet<i64>,
}

impl Ring {
    /// A ring that remembers at least `count` buckets.
    pub(super) fn new(width: i64, chunk: i64, count: i64) -> Ring {
        // the chunk in which the newest bucket lies is cleared as a whole
        let chunks = count.div_euclid(chunk).saturating_add(2);
        let len = usize::try_from(chunks.saturating_mul(chunk)).unwrap_or_default();
        Ring { width, chunk, newest: None, buckets: vec![[0.0; 2]; len], dirty: BTreeSet::new() }
    }

    fn len(&self) -> i64 {
        i64::try_from(self.buckets.len()).unwrap_or(i64::MAX).max(1)
    }

    /// The bucket in which a moment lies.
    pub(super) fn bucket(&self, at: Timestamp) -> i64 {
        at.millis().saturating_sub(1).div_euclid(self.width)
    }

    /// The first bucket that is remembered for sure.
    fn oldest(&self, newest: i64) -> i64 {
        (newest.div_euclid(self.chunk) + 1) * self.chunk - self.len()
    }

    fn slot(&mut self, bucket: i64) -> Option<&mut Pair> {
        let place = usize::try_from(bucket.rem_euclid(self.len())).ok()?;
        self.buckets.get_mut(place)
    }

    /// Makes room up to `bucket`.
    fn reach(&mut self, bucket: i64) {
        let chunk = bucket.div_euclid(self.chunk);
        let known = self.newest.map_or(i64::MIN, |newest| newest.div_euclid(self.chunk));
        if self.newest.is_some_and(|newest| newest >= bucket) {
            return;
        }
        self.newest = Some(bucket);
        let first = known.saturating_add(1).max(chunk.saturating_add(1).saturating_sub(self.len().div_euclid(self.chunk)));
        for fresh in first..=chunk {
            for bucket in fresh * self.chunk..(fresh + 1) * self.chunk {
                if let Some(slot) = self.slot(bucket) {
                    *slot = [0.0; 2];
                }
            }
        }
    }

    /// Adds events to one bucket; false if that is forgotten already.
    pub(super) fn add(&mut self, bucket: i64, pair: Pair) -> bool {
        self.reach(bucket);
        if self.newest.is_some_and(|newest| bucket < self.oldest(newest)) {
            return false;
        }
        self.dirty.insert(bucket.div_euclid(self.chunk));
        if let Some([part, total]) = self.slot(bucket) {
            *part += pair[0];
            *total += pair[1];
        }
        true
    }

    /// Adds events that happened at any time behind `from` and up to `to`: to each bucket as many as its share of that time.
    pub(super) fn spread(&mut self, from: Timestamp, to: Timestamp, pair: Pair) {
        let whole = to.since(from).as_secs_f64();
        // the last one first: it decides which are remembered
        let last = self.bucket(to);
        self.reach(last);
        let first = self.bucket(from.after(std::time::Duration::from_millis(1)));
        if whole <= 0.0 || first >= last {
            self.add(last, pair);
            return;
        }
        for bucket in first.max(self.newest.map_or(first, |newest| self.oldest(newest)))..=last {
            let start = Timestamp::from_millis(bucket.saturating_mul(self.width)).max(from);
            let end = Timestamp::from_millis(bucket.saturating_add(1).saturating_mul(self.width)).min(to);
            let share = end.since(start).as_secs_f64() / whole;
            self.add(bucket, pair.map(|number| number * share));
        }
    }

    /// What happened in the `count` buckets up to `last`, that one included.
    pub(super) fn sum(&self, last: i64, count: i64) -> Pair {
        let Some(newest) = self.newest else { return [0.0; 2] };
        let first = last.saturating_sub(count).saturating_add(1).max(self.oldest(newest));
        let len = self.len();
        let mut sum = [0.0; 2];
        for bucket in first..=last.min(newest) {
            let slot = usize::try_from(bucket.rem_euclid(len)).ok().and_then(|place| self.buckets.get(place));
            if let Some([part, total]) = slot {
                sum[0] += part;
                sum[1] += total;
            }
        }
        sum
    }

    /// Has every chunk given by the next [`Ring::changed`].
    pub(super) fn touch(&mut self) {
        let Some(newest) = self.newest else { return };
        let first = self.oldest(newest).div_euclid(self.chunk);
        self.dirty.extend(first..=newest.div_euclid(self.chunk));
    }

    /// The chunks that changed since the last call, each under its place in the ring.
    pub(super) fn changed(&mut self) -> Vec<(i64, Vec<u8>)> {
        let Some(newest) = self.newest else { return Vec::new() };
        let first = self.oldest(newest).div_euclid(self.chunk);
        let places = self.len().div_euclid(self.chunk);
        let dirty = std::mem::take(&mut self.dirty);
        let stored = dirty.range(first..).map(|chunk| (chunk.rem_euclid(places), self.packed(*chunk)));
        stored.collect()
    }

    fn packed(&self, chunk: i64) -> Vec<u8> {
        let mut packer = Packer::default();
        packer.count(chunk.cast_unsigned());
        // how far it was reached, though there may be nothing in it
        let newest = self.newest.unwrap_or_default().min((chunk + 1) * self.chunk - 1);
        packer.count((newest - chunk * self.chunk).cast_unsigned());
        for bucket in chunk * self.chunk..(chunk + 1) * self.chunk {
            let pair = self.sum(bucket, 1);
            // most are empty where little happens
            if pair == [0.0; 2] {
                packer.count(0);
            } else {
                packer.count(1);
                pair.into_iter().for_each(|number| packer.value(number));
            }
        }
        packer.bytes()
    }

    /// Takes a stored chunk back.
    pub(super) fn restore(&mut self, body: &[u8]) -> Result<(), Cut> {
        let mut unpacker = Unpacker::new(body);
        let chunk = unpacker.count()?.cast_signed();
        // far beyond any time there is
        if chunk.saturating_mul(self.chunk).saturating_mul(self.width) > 1 << 50 || chunk < -1 {
            return Err(Cut);
        }
        let reached = unpacker.count()?.cast_signed().clamp(0, self.chunk - 1);
        self.reach(chunk * self.chunk + reached);
        for bucket in chunk * self.chunk..(chunk + 1) * self.chunk {
            if unpacker.count()? > 0 {
                let pair = [unpacker.value()?, unpacker.value()?];
                self.add(bucket, pair);
            }
        }
        self.dirty.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: i64 = 60_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_795_348_800_000 + millis)
    }

    #[test]
    fn a_bucket_ends_with_its_minute_and_what_lies_between_two_is_shared() {
        let mut ring = Ring::new(MINUTE, 60, 360);
        let noon = ring.bucket(at(0));
        assert_eq!((ring.bucket(at(1)), ring.bucket(at(MINUTE)), ring.bucket(at(MINUTE + 1))), (noon + 1, noon + 1, noon + 2));
        ring.spread(at(-30_000), at(90_000), [12.0, 24.0]);
        let each: Vec<Pair> = (0..3).map(|n| ring.sum(noon + n, 1)).collect();
        assert_eq!(each, [[3.0, 6.0], [6.0, 12.0], [3.0, 6.0]]);
        assert_eq!(ring.sum(noon + 2, 2), [9.0, 18.0]);
        ring.spread(at(90_000), at(90_000), [1.0, 1.0]);
        assert_eq!(ring.sum(noon + 2, 1), [4.0, 7.0]);
    }

    #[test]
    fn what_is_older_than_the_ring_is_forgotten_and_a_jump_clears_it() {
        let mut ring = Ring::new(MINUTE, 60, 360);
        assert!(ring.add(1000, [1.0, 1.0]));
        assert!(ring.add(641, [1.0, 1.0]), "360 buckets, this one included");
        assert!(!ring.add(400, [1.0, 1.0]));
        assert_eq!(ring.sum(1000, 360), [2.0, 2.0]);
        assert!(ring.add(i64::from(u32::MAX), [5.0, 5.0]));
        assert_eq!(ring.sum(i64::from(u32::MAX), 360), [5.0, 5.0]);
    }

    proptest! {
        #[test]
        fn it_remembers_its_time_exactly_and_is_stored_and_restored(moves in proptest::collection::vec((-100..300_i64, 1..9_u8, any::<bool>()), 1..60)) {
            let mut ring = Ring::new(MINUTE, 60, 360);
            let mut all: Vec<(i64, f64)> = Vec::new();
            let mut stored = std::collections::BTreeMap::new();
            let mut newest = 29_000_000;
            for (step, weight, store) in moves {
                let bucket = newest + step;
                newest = newest.max(bucket);
                let weight = f64::from(weight);
                ring.add(bucket, [weight, 1.0]);
                all.push((bucket, weight));
                if store {
                    stored.extend(ring.changed());
                    let mut again = Ring::new(MINUTE, 60, 360);
                    for body in stored.values() {
                        again.restore(body).unwrap();
                    }
                    ring = again;
                }
                for count in [1, 5, 60, 360] {
                    let inside = || all.iter().filter(|(bucket, _)| (newest - count + 1..=newest).contains(bucket));
                    let expected = [inside().map(|(_, weight)| weight).sum::<f64>(), inside().map(|_| 1.0).sum::<f64>()];
                    prop_assert_eq!(ring.sum(newest, count), expected);
                }
            }
        }
    }
}
