//! The newest entries of a log, in memory: a follower that keeps up never touches the database.

use std::collections::VecDeque;

use opspilot_kernel::ids::Seq;
use parking_lot::RwLock;

#[derive(Debug)]
struct Held<T> {
    first: Seq,
    last: Seq,
    bytes: usize,
    entry: T,
}

#[derive(Debug)]
struct State<T> {
    held: VecDeque<Held<T>>,
    bytes: usize,
}

/// A bounded run of entries without a gap, the newest last. The oldest are forgotten at the bound.
#[derive(Debug)]
pub(crate) struct Ring<T> {
    state: RwLock<State<T>>,
    bound: usize,
}

impl<T: Clone> Ring<T> {
    pub(crate) fn new(bound: usize) -> Ring<T> {
        Ring { state: RwLock::new(State { held: VecDeque::new(), bytes: 0 }), bound }
    }

    /// Adds an entry that covers `first..=last`, and forgets what the bound does not allow.
    pub(crate) fn push(&self, first: Seq, last: Seq, bytes: usize, entry: T) {
        let mut state = self.state.write();
        if state.held.back().is_some_and(|newest| newest.last + 1 != first) {
            // never happens while the writer is the only one that pushes; a gap would hide entries
            state.held.clear();
            state.bytes = 0;
        }
        state.bytes = state.bytes.saturating_add(bytes);
        state.held.push_back(Held { first, last, bytes, entry });
        while state.bytes > self.bound
            && let Some(oldest) = state.held.pop_front()
        {
            state.bytes = state.bytes.saturating_sub(oldest.bytes);
        }
    }

    /// Entries behind `after`, at least one if there are any, up to the bounds. `None` if the ring does
    /// not reach back far enough: then the database must be asked.
    pub(crate) fn after(&self, after: Seq, max_bytes: usize, max_entries: usize) -> Option<Vec<T>> {
        let state = self.state.read();
        if state.held.front().is_none_or(|oldest| oldest.first > after.saturating_add(1)) {
            return None;
        }
        let from = state.held.partition_point(|held| held.last <= after);
        let mut bytes = 0_usize;
        let mut found = Vec::new();
        for held in state.held.range(from..) {
            bytes = bytes.saturating_add(held.bytes);
            if !found.is_empty() && (bytes > max_bytes || found.len() >= max_entries) {
                break;
            }
            found.push(held.entry.clone());
        }
        Some(found)
    }

    /// How much memory the entries hold.
    pub(crate) fn bytes(&self) -> usize {
        self.state.read().bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_gets_what_is_behind_its_cursor_in_order() {
        let ring = Ring::new(100);
        assert_eq!(ring.after(0, 100, 10), None, "an empty ring knows nothing");
        for n in 1..=4_u64 {
            ring.push(n * 10 + 1, n * 10 + 10, 20, n);
        }
        assert_eq!(ring.after(10, 1000, 10), Some(vec![1, 2, 3, 4]));
        assert_eq!(ring.after(25, 1000, 10), Some(vec![2, 3, 4]), "an entry that reaches past the cursor");
        assert_eq!(ring.after(20, 40, 10), Some(vec![2, 3]));
        assert_eq!(ring.after(20, 1, 10), Some(vec![2]), "at least one");
        assert_eq!(ring.after(20, 1000, 1), Some(vec![2]));
        assert_eq!(ring.after(50, 1000, 10), Some(vec![]), "nothing new");
        assert_eq!(ring.after(9, 1000, 10), None, "older than the ring");
    }

    #[test]
    fn the_oldest_are_forgotten_at_the_bound() {
        let ring = Ring::new(50);
        (1..=5_u64).for_each(|n| ring.push(n, n, 20, n));
        assert_eq!(ring.bytes(), 40);
        assert_eq!(ring.after(2, 1000, 10), None);
        assert_eq!(ring.after(3, 1000, 10), Some(vec![4, 5]));
        ring.push(6, 6, 80, 6);
        assert_eq!((ring.bytes(), ring.after(5, 1000, 10)), (0, None), "an entry larger than the ring is not kept");
    }
}
