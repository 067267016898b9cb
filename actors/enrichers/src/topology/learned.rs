//! What signals showed, within bounds: which edges, and when each was first and last seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use opspilot_kernel::{
    time::Timestamp,
    topology::{ComponentName, Seen},
};

use super::evidence::Pair;

/// How much may be learned beside what people said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) components: usize,
    pub(super) edges: usize,
}

impl Room {
    /// None at all.
    pub(super) const NONE: Room = Room { components: 0, edges: 0 };
}

/// What a look at an edge changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It was new.
    New,
    /// It was known, and is fresher now.
    Fresher,
    /// Nothing that would be worth writing.
    Nothing,
}

/// The edges, and in which order they go.
#[derive(Debug, Default)]
pub(super) struct Learned {
    edges: BTreeMap<Pair, Seen>,
    /// The least recently seen first.
    by_age: BTreeSet<(Timestamp, Pair)>,
    /// How many edges name each component.
    named: BTreeMap<ComponentName, usize>,
}

impl Learned {
    pub(super) fn edges(&self) -> &BTreeMap<Pair, Seen> {
        &self.edges
    }

    /// When the edge was seen; none if it is not known.
    pub(super) fn seen(&self, pair: &Pair) -> Option<Seen> {
        self.edges.get(pair).copied()
    }

    /// An edge was seen `at`; a time that is not `grain` later than the last is as good as that.
    pub(super) fn see(&mut self, pair: &Pair, at: Timestamp, grain: Duration) -> Look {
        match self.edges.get(pair).copied() {
            None => {
                self.put(pair.clone(), Seen { first: at, last: at });
                Look::New
            }
            Some(seen) if at >= seen.last.after(grain) => {
                self.put(pair.clone(), Seen { last: at, ..seen });
                Look::Fresher
            }
            Some(_) => Look::Nothing,
        }
    }

    /// Puts an edge there as it was stored, or in place of what was known of it.
    pub(super) fn put(&mut self, pair: Pair, seen: Seen) {
        match self.edges.insert(pair.clone(), seen) {
            Some(before) => drop(self.by_age.remove(&(before.last, pair.clone()))),
            None => [&pair.0, &pair.1].into_iter().for_each(|name| *self.named.entry(name.clone()).or_default() += 1),
        }
        self.by_age.insert((seen.last, pair));
    }

    /// When the edge was last seen that goes first.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.by_age.first().map(|(last, _)| *last)
    }

    /// Takes out an edge that was last seen at `until` or before.
    pub(super) fn expire(&mut self, until: Timestamp) -> Option<Pair> {
        self.oldest().filter(|last| *last <= until)?;
        self.drop_oldest()
    }

    /// Takes out the least recently seen edge if there are more than there is room for.
    pub(super) fn evict(&mut self, room: Room) -> Option<Pair> {
        let fits = self.edges.len() <= room.edges && self.named.len() <= room.components;
        if fits { None } else { self.drop_oldest() }
    }

    fn drop_oldest(&mut self) -> Option<Pair> {
        let (_, pair) = self.by_age.pop_first()?;
        self.edges.remove(&pair);
        for name in [&pair.0, &pair.1] {
            if let Some(count) = self.named.get_mut(name) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.named.remove(name);
                }
            }
        }
        Some(pair)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(from: usize, to: usize) -> Pair {
        let name = |number: usize| ComponentName::new(&format!("c{number}")).unwrap();
        (name(from), name(to))
    }

    proptest! {
        #[test]
        fn it_stays_within_its_room_and_keeps_what_was_seen_last(
            looks in proptest::collection::vec((0..6_usize, 0..6_usize, 0..50_i64), 1..60),
            components in 0..8_usize, edges in 0..8_usize,
        ) {
            let room = Room { components, edges };
            let mut learned = Learned::default();
            let mut now = 0;
            for (from, to, pause) in looks {
                now += pause;
                let at = Timestamp::from_millis(now);
                let before = learned.seen(&pair(from, to));
                let look = learned.see(&pair(from, to), at, Duration::from_millis(10));
                prop_assert_eq!(look == Look::New, before.is_none());
                let mut gone: Option<Timestamp> = None;
                while let Some(pair) = learned.evict(room) {
                    prop_assert!(learned.seen(&pair).is_none());
                    gone = Some(at);
                }
                prop_assert!(learned.edges().len() <= edges);
                let named: BTreeSet<&ComponentName> = learned.edges().keys().flat_map(|(from, to)| [from, to]).collect();
                prop_assert!(named.len() <= components);
                prop_assert_eq!(named.len(), learned.named.len());
                prop_assert_eq!(learned.by_age.len(), learned.edges().len());
                let oldest = learned.edges().values().map(|seen| seen.last).min();
                prop_assert_eq!(oldest, learned.oldest());
                // nobody goes who was seen later than one that stays
                prop_assert!(gone.is_none() || oldest.is_none_or(|oldest| oldest <= at));
            }
            while learned.expire(Timestamp::from_millis(now)).is_some() {}
            prop_assert!(learned.edges().is_empty() && learned.named.is_empty());
        }
    }

    #[test]
    fn the_least_recently_seen_goes_first_and_a_look_within_the_grain_changes_nothing() {
        let at = |second: i64| Timestamp::from_millis(second * 1000);
        let minute = Duration::from_secs(60);
        let mut learned = Learned::default();
        assert_eq!(learned.see(&pair(1, 2), at(0), minute), Look::New);
        assert_eq!(learned.see(&pair(3, 4), at(10), minute), Look::New);
        assert_eq!(learned.see(&pair(1, 2), at(59), minute), Look::Nothing);
        assert_eq!(learned.see(&pair(1, 2), at(60), minute), Look::Fresher);
        assert_eq!(learned.seen(&pair(1, 2)), Some(Seen { first: at(0), last: at(60) }));
        assert_eq!(learned.evict(Room { components: 3, edges: 9 }), Some(pair(3, 4)));
        assert_eq!(learned.evict(Room { components: 3, edges: 9 }), None);
        assert_eq!(learned.expire(at(59)), None);
        assert_eq!(learned.expire(at(60)), Some(pair(1, 2)));
    }
}
