//! State at scale: far more series than can be written at every commit, or held in memory.
//!
//! What is kept of a series lies in up to three places.
//! * In *memory*, while it is among the [`Limits::held`] (or the [`Limits::held_bytes`]) that were heard of last.
//! * Its *base* on the shelf: all that was kept of it up to a signal that the base names. Bases are written in turn, the one
//!   that has waited longest first, within a budget that goes by how much of the log was read ([`pace`]). Signals behind
//!   a base are in the log: after a restart they are read again from [`Keep::behind`] on, and each series passes over what
//!   its base already contains. So nothing is lost by a kill, and neither what is written nor the way back grows without bound.
//! * In the *journal*: which series began and which were forgotten since the bases were complete. It is stored with every
//!   commit, so that which series there are is exact at the cursor.
//!
//! Leaving memory loses nothing: the base is written first and read when the series returns. It can therefore happen at any
//! time, and differently after a restart, and not change what is said. Forgetting does lose something, and goes by the log
//! alone: a series is forgotten when it was not heard of for [`Limits::forget_after`], and the one that was silent for longest
//! (by the hour) when there are more than [`Limits::known`]. One about which an alert is open is not forgotten.

mod journal;
mod pace;
mod piece;
mod place;
mod recent;
mod shelf;
mod stored;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use opspilot_kernel::{ids::Seq, time::Timestamp};

pub use self::shelf::Shelf;
use self::{
    journal::{Entry, Journal},
    piece::Piece,
    place::{Away, ByKey, Place, Slot, hour_of, slot},
    recent::Recent,
};
pub(crate) use self::{
    pace::Pace,
    place::{Kept, Kinds, Limits, Touch},
};

/// What an index entry of a series takes beside its state, about.
const ENTRY_BYTES: usize = 160;

/// What is kept of each series.
#[derive(Debug)]
pub(crate) struct Keep<T> {
    limits: Limits,
    shelf: Option<Box<dyn Shelf>>,
    slots: Vec<Option<Slot<T>>>,
    free: Vec<u32>,
    recent: Recent,
    places: ByKey<Place>,
    /// All there are, by the hour they were last heard of.
    order: BTreeSet<(u32, u64)>,
    /// Who waits for a base, and the first signal it does not contain; by that signal.
    waiting: VecDeque<(u64, Seq)>,
    /// Bases of series that left memory and are not on the shelf yet.
    leaving: ByKey<Piece>,
    leaving_bytes: usize,
    /// To be taken from the shelf.
    removals: Vec<(u64, u32)>,
    /// The first signal since when the shelf is not what the journal says.
    due_since: Option<Seq>,
    /// What the journal said when it was restored.
    restored: Vec<Entry>,
    /// Signals are still to be read again: nothing may be stored before.
    learning: bool,
    journal: Journal,
    /// What is stored contains everything up to here.
    marked: Option<Seq>,
    position: Seq,
    now: Timestamp,
    /// Where and when bases were last written.
    paced: (Seq, Timestamp),
    counts: Kinds,
}

/// What the marker is stored under.
const MARKER: &str = "behind";

impl<T: Kept> Keep<T> {
    pub(crate) fn new(limits: Limits) -> Keep<T> {
        Keep {
            limits,
            shelf: None,
            slots: Vec::new(),
            free: Vec::new(),
            recent: Recent::default(),
            places: ByKey::default(),
            order: BTreeSet::new(),
            waiting: VecDeque::new(),
            leaving: ByKey::default(),
            leaving_bytes: 0,
            removals: Vec::new(),
            due_since: None,
            restored: Vec::new(),
            learning: false,
            journal: Journal::default(),
            marked: None,
            position: 0,
            now: Timestamp::ZERO,
            paced: (0, Timestamp::ZERO),
            counts: Kinds::default(),
        }
    }

    /// Goes by other bounds; what is too much goes with what comes next.
    pub(crate) fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    pub(crate) fn counts(&self) -> Kinds {
        let held = self.recent.len();
        Kinds { held, shelved: self.places.len().saturating_sub(held), ..self.counts }
    }

    /// Whether there are as many as may be known: one has to be forgotten for each that comes.
    pub(crate) fn is_full(&self) -> bool {
        self.places.len() >= self.limits.known
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// The series with this key where it lay last time, if that is still so and it is of this digest: costs no look-up.
    /// It has heard of the signal afterwards.
    #[inline]
    pub(crate) fn again(&mut self, place: u32, touch: Touch) -> Option<&mut T> {
        let slot = slot(&mut self.slots, place)?;
        if slot.key != touch.key || slot.digest != touch.digest {
            return None;
        }
        slot.seq = slot.seq.max(touch.seq);
        if slot.dirty.is_none() {
            slot.dirty = Some(touch.seq);
            self.waiting.push_back((touch.key, touch.seq));
        }
        let hour = hour_of(touch.at);
        if hour > slot.hour {
            self.order.remove(&(slot.hour, touch.key));
            self.order.insert((hour, touch.key));
            slot.hour = hour;
        }
        self.recent.refresh(place);
        Some(&mut slot.state)
    }

    /// Where the series lies after the signal was heard of: in memory already, taken back, or made anew. `is_open` says
    /// whether an alert about a series is open.
    pub(crate) fn touch(&mut self, touch: Touch, make: impl FnOnce() -> T, is_open: impl Fn(u64) -> bool) -> u32 {
        let found = match self.places.get(&touch.key) {
            Some(Place::Held(place)) => Some(*place),
            Some(Place::Away(away)) => {
                let away = *away;
                self.fetch(touch, away, &is_open)
            }
            None => None,
        };
        if let Some(place) = found
            && self.again(place, touch).is_some()
        {
            return place;
        }
        self.begin(touch, make(), &is_open)
    }

    /// The series for a signal that is read again: only if it is there and does not contain it. Nothing begins or ends here.
    pub(crate) fn relearn(&mut self, touch: Touch, make: impl FnOnce() -> T) -> Option<u32> {
        let nobody = |_| false;
        let place = match *self.places.get(&touch.key)? {
            Place::Held(place) => place,
            Place::Away(away) if away.born.is_some_and(|(born, _)| touch.seq < born) => return None,
            Place::Away(away) => {
                self.heard(touch, away);
                if away.born.is_some_and(|(_, digest)| digest != touch.digest) {
                    return None;
                }
                match self.fetch(touch, away, &nobody) {
                    Some(place) => place,
                    None if away.born.is_some() => self.hold(touch, make(), None, away.stored, &nobody),
                    None => return None,
                }
            }
        };
        let known = slot(&mut self.slots, place)?;
        // one that was just made has heard of nothing
        if known.digest != touch.digest || (touch.seq <= known.seq && known.seq > 0) {
            return None;
        }
        self.again(place, touch).is_some().then_some(place)
    }

    pub(crate) fn get(&mut self, place: u32) -> Option<&mut T> {
        slot(&mut self.slots, place).map(|slot| &mut slot.state)
    }

    /// Looks again at what the series takes.
    pub(crate) fn weigh(&mut self, place: u32) {
        let Some(slot) = slot(&mut self.slots, place) else { return };
        let bytes = slot.state.bytes().saturating_add(ENTRY_BYTES);
        self.counts.bytes = self.counts.bytes.saturating_sub(slot.bytes).saturating_add(bytes);
        slot.bytes = bytes;
    }

    /// The log was read up to here; forgets who was silent for too long.
    pub(crate) fn advance(&mut self, seq: Seq, at: Timestamp, is_open: impl Fn(u64) -> bool) {
        self.position = self.position.max(seq);
        self.now = self.now.max(at);
        let last = hour_of(at.before(self.limits.forget_after));
        let silent =
            |keep: &Keep<T>| keep.order.iter().take_while(|(hour, _)| *hour < last).map(|(_, key)| *key).find(|key| !is_open(*key));
        while let Some(key) = silent(self) {
            self.forget(key, seq);
        }
    }

    fn heard(&mut self, touch: Touch, away: Away) {
        let hour = hour_of(touch.at).max(away.hour);
        if hour != away.hour {
            self.order.remove(&(away.hour, touch.key));
            self.order.insert((hour, touch.key));
            self.places.insert(touch.key, Place::Away(Away { hour, ..away }));
        }
    }

    /// Takes a series back into memory; nothing if there is no base, or it is of another life.
    fn fetch(&mut self, touch: Touch, away: Away, is_open: &impl Fn(u64) -> bool) -> Option<u32> {
        let key = touch.key;
        let left = self.leaving.get(&key).filter(|piece| piece.digest == touch.digest).is_some();
        let (piece, unsaved) = match left.then(|| self.leaving.remove(&key)).flatten() {
            Some(piece) => {
                self.leaving_bytes = self.leaving_bytes.saturating_sub(piece.body.len());
                let since = piece.since;
                (piece, Some(since))
            }
            None if self.leaving.contains_key(&key) => return None,
            None => (self.stored(key, away)?, None),
        };
        if piece.digest != touch.digest || away.born.is_some_and(|(born, _)| piece.seq < born) {
            return None;
        }
        let Some(state) = T::decode(&piece.body) else {
            self.counts.unreadable = self.counts.unreadable.saturating_add(u64::from(!piece.body.is_empty()));
            return None;
        };
        self.counts.taken_back = self.counts.taken_back.saturating_add(1);
        let place = self.hold(touch, state, unsaved, away.stored, is_open);
        if let Some(slot) = slot(&mut self.slots, place) {
            slot.seq = piece.seq;
        }
        Some(place)
    }

    fn stored(&mut self, key: u64, away: Away) -> Option<Piece> {
        let name = piece::name(key, away.stored?);
        let read = self.shelf.as_ref().map(|shelf| shelf.read(&name))?;
        let piece = read.ok().flatten().and_then(|bytes| Piece::read(&bytes));
        self.counts.unreadable = self.counts.unreadable.saturating_add(u64::from(piece.is_none()));
        piece
    }

    /// A new life, whatever there was.
    fn begin(&mut self, touch: Touch, state: T, is_open: &impl Fn(u64) -> bool) -> u32 {
        let Touch { key, digest, seq, .. } = touch;
        let stored = match self.places.get(&key) {
            Some(Place::Held(place)) => {
                let place = *place;
                self.drop_slot(place)
            }
            Some(Place::Away(away)) => {
                let stored = away.stored;
                self.drop_leaving(key);
                stored
            }
            None => {
                while self.places.len() >= self.limits.known.max(1) && self.make_room(seq, is_open) {}
                // one that was forgotten a moment ago may still lie there
                None
            }
        };
        self.note(Entry { key, seq, born: Some(digest) });
        let place = self.hold(touch, state, None, stored, is_open);
        // this cannot fail: it is there and of this digest
        self.again(place, touch);
        place
    }

    /// Forgets the series that was silent for longest. False if all must stay.
    fn make_room(&mut self, seq: Seq, is_open: &impl Fn(u64) -> bool) -> bool {
        let Some(key) = self.order.iter().map(|(_, key)| *key).find(|key| !is_open(*key)) else { return false };
        self.forget(key, seq);
        true
    }

    fn forget(&mut self, key: u64, seq: Seq) {
        let Some(place) = self.places.remove(&key) else { return };
        let (stored, hour) = match place {
            Place::Held(place) => {
                let hour = slot(&mut self.slots, place).map_or(0, |slot| slot.hour);
                (self.drop_slot(place), hour)
            }
            Place::Away(away) => (away.stored, away.hour),
        };
        self.order.remove(&(hour, key));
        self.drop_leaving(key);
        self.note(Entry { key, seq, born: None });
        if let Some(hour) = stored {
            self.remove_later(key, hour, seq);
        }
        self.counts.forgotten = self.counts.forgotten.saturating_add(1);
    }

    fn note(&mut self, entry: Entry) {
        // driven alone, nothing is ever stored
        if self.shelf.is_some() {
            self.journal.add(entry);
        }
    }

    fn remove_later(&mut self, key: u64, hour: u32, seq: Seq) {
        self.removals.push((key, hour));
        self.due_since = Some(self.due_since.map_or(seq, |since| since.min(seq)));
    }

    fn drop_leaving(&mut self, key: u64) {
        if let Some(piece) = self.leaving.remove(&key) {
            self.leaving_bytes = self.leaving_bytes.saturating_sub(piece.body.len());
        }
    }

    /// Takes a slot away; says under which hour its base lies.
    fn drop_slot(&mut self, place: u32) -> Option<u32> {
        self.recent.remove(place);
        let taken = usize::try_from(place).ok().and_then(|place| self.slots.get_mut(place)).and_then(Option::take)?;
        self.free.push(place);
        self.counts.bytes = self.counts.bytes.saturating_sub(taken.bytes);
        self.order.remove(&(taken.hour, taken.key));
        taken.stored
    }

    /// Puts a state into memory; others leave it if they must.
    fn hold(&mut self, touch: Touch, state: T, dirty: Option<Seq>, stored: Option<u32>, is_open: &impl Fn(u64) -> bool) -> u32 {
        let Touch { key, digest, at, .. } = touch;
        let bytes = state.bytes().saturating_add(ENTRY_BYTES);
        let fits = |keep: &Keep<T>| {
            keep.recent.len() < keep.limits.held.max(1) && keep.counts.bytes.saturating_add(bytes) <= keep.limits.held_bytes
        };
        while !fits(self) && self.put_away(is_open) {}
        let hour = match self.places.get(&key) {
            Some(Place::Away(away)) => {
                let former = away.hour;
                self.order.remove(&(former, key));
                former.max(hour_of(at))
            }
            _ => hour_of(at),
        };
        self.order.insert((hour, key));
        self.counts.bytes = self.counts.bytes.saturating_add(bytes);
        let made = Slot { key, digest, state, seq: 0, hour, dirty, stored, bytes };
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len().saturating_sub(1)).unwrap_or(u32::MAX)
            }
        };
        if let Some(empty) = usize::try_from(place).ok().and_then(|place| self.slots.get_mut(place)) {
            *empty = Some(made);
        }
        self.recent.add(place);
        self.places.insert(key, Place::Held(place));
        place
    }

    /// Has the series that was silent for longest leave memory: one without an open alert, if there is one.
    fn put_away(&mut self, is_open: &impl Fn(u64) -> bool) -> bool {
        let mut tries = self.recent.len();
        let place = loop {
            let Some(oldest) = self.recent.oldest() else { return false };
            let key = slot(&mut self.slots, oldest).map_or(0, |slot| slot.key);
            tries = tries.saturating_sub(1);
            if tries == 0 || !is_open(key) {
                break oldest;
            }
            self.recent.refresh(oldest);
        };
        let Some(slot) = slot(&mut self.slots, place) else { return false };
        let away = Away { stored: slot.stored, hour: slot.hour, born: None };
        let (key, hour) = (slot.key, slot.hour);
        if let Some(since) = slot.dirty {
            let piece = Piece::of(slot.digest, slot.seq, since, &slot.state);
            self.leaving_bytes = self.leaving_bytes.saturating_add(piece.body.len());
            self.leaving.insert(key, piece);
        }
        self.drop_slot(place);
        self.order.insert((hour, key));
        self.places.insert(key, Place::Away(away));
        self.counts.put_away = self.counts.put_away.saturating_add(1);
        true
    }
}
