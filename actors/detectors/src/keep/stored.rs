//! What is written of it and when, and how it is taken up again.

use std::collections::{HashMap, hash_map};

use opspilot_kernel::{ids::Seq, time::Timestamp};

use super::{
    Keep, Kept, MARKER, Shelf,
    journal::{self, Entry},
    piece::{self, Piece},
    place::{Away, HOUR, Place, Touch, slot},
};
use crate::state::Change;

/// When bases of so many bytes wait to leave memory, they must be written soon.
const URGENT_BYTES: usize = 16 << 20;

impl<T: Kept> Keep<T> {
    /// The log was read up to here.
    pub(crate) fn read_to(&mut self, seq: Seq) {
        self.position = self.position.max(seq);
    }

    /// What is stored contains everything up to here, and may lack what is behind; nothing if nothing is stored.
    pub(crate) fn behind(&self) -> Option<Seq> {
        self.marked
    }

    /// Whether much waits to be written.
    pub(crate) fn is_urgent(&self) -> bool {
        self.leaving_bytes > URGENT_BYTES
    }

    /// The small exact things: to be committed with the cursor. What [`Keep::shelve`] gave before is on the shelf by now.
    pub(crate) fn changed(&mut self, changes: &mut Vec<Change>) {
        if self.learning {
            return;
        }
        while let Some((key, since)) = self.waiting.front().copied()
            && !self.waits(key, since)
        {
            self.waiting.pop_front();
        }
        let first = self.waiting.front().map(|(_, since)| *since).into_iter().chain(self.due_since).min();
        let marked = first.map_or(self.position, |first| first.saturating_sub(1));
        self.journal.changed(marked, changes);
        if self.marked != Some(marked) && (self.marked.is_some() || !self.places.is_empty()) {
            self.marked = Some(marked);
            changes.push(Change { key: MARKER.to_owned(), body: Some(marked.to_le_bytes().to_vec()) });
        }
    }

    fn waits(&mut self, key: u64, since: Seq) -> bool {
        match self.places.get(&key) {
            Some(Place::Held(place)) => slot(&mut self.slots, *place).is_some_and(|slot| slot.dirty == Some(since)),
            Some(Place::Away(_)) => self.leaving.get(&key).is_some_and(|piece| piece.since == since),
            None => false,
        }
    }

    /// What goes on the shelf after the commit: what left memory, and in turn as many bases as the pace allows.
    pub(crate) fn shelve(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.learning {
            return changes;
        }
        changes.extend(self.removals.drain(..).map(|(key, hour)| Change::gone(piece::name(key, hour))));
        self.due_since = None;
        let mut leaving: Vec<(u64, Piece)> = self.leaving.drain().collect();
        leaving.sort_unstable_by_key(|(key, _)| *key);
        self.leaving_bytes = 0;
        for (key, piece) in leaving {
            let Some(Place::Away(away)) = self.places.get_mut(&key) else { continue };
            let former = away.stored.replace(away.hour);
            away.born = None;
            put(key, away.hour, former, &piece, &mut changes);
            self.counts.written = self.counts.written.saturating_add(1);
        }
        let (seq, at) = std::mem::replace(&mut self.paced, (self.position, self.now));
        let time = if at == Timestamp::ZERO { std::time::Duration::ZERO } else { self.now.since(at) };
        let mut budget = self.limits.pace.budget(self.counts.bytes, self.position.saturating_sub(seq), time);
        while budget > 0
            && let Some((key, since)) = self.waiting.pop_front()
        {
            let Some(Place::Held(place)) = self.places.get(&key) else { continue };
            let Some(slot) = slot(&mut self.slots, *place).filter(|slot| slot.dirty == Some(since)) else { continue };
            let piece = Piece::of(slot.digest, slot.seq, since, &slot.state);
            slot.dirty = None;
            let former = slot.stored.replace(slot.hour);
            budget = budget.saturating_sub(piece.body.len());
            put(key, slot.hour, former, &piece, &mut changes);
            self.counts.written = self.counts.written.saturating_add(1);
        }
        changes
    }

    /// Whether this key is one of what [`Keep::changed`] gives.
    pub(crate) fn is_own(key: &str) -> bool {
        key == MARKER || key.starts_with(journal::PREFIX)
    }

    /// Takes a stored piece back.
    pub(crate) fn restore(&mut self, key: &str, body: &[u8]) -> Result<(), String> {
        if key == MARKER {
            let marked = body.try_into().map_err(|_| "the marker has another size".to_owned())?;
            self.marked = Some(Seq::from_le_bytes(marked));
            return Ok(());
        }
        self.restored.extend(self.journal.restore(key, body)?);
        Ok(())
    }

    /// Everything is restored: looks through the shelf. If something is stored, signals are to be read again from
    /// [`Keep::behind`] on, until [`Keep::relearned`].
    pub(crate) fn begin_with(&mut self, shelf: Box<dyn Shelf>) -> Result<(), String> {
        let mut rows: HashMap<u64, u32> = HashMap::new();
        // by hour: of two bases of a series the later is the newer
        for (key, hour) in shelf.keys()?.iter().filter_map(|name| piece::parse(name)) {
            if let Some(older) = rows.insert(key, hour) {
                self.removals.push((key, older));
            }
        }
        self.shelf = Some(shelf);
        let mut said: HashMap<u64, Entry> = std::mem::take(&mut self.restored).into_iter().map(|entry| (entry.key, entry)).collect();
        for (key, hour) in rows {
            let born = match said.remove(&key) {
                Some(Entry { born: None, .. }) => {
                    self.removals.push((key, hour));
                    continue;
                }
                Some(Entry { born: Some(digest), seq, .. }) => Some((seq, digest)),
                None => None,
            };
            self.find(key, Away { stored: Some(hour), hour, born });
        }
        for entry in said.into_values() {
            if let Some(digest) = entry.born {
                self.find(entry.key, Away { stored: None, hour: 0, born: Some((entry.seq, digest)) });
            }
        }
        self.learning = self.marked.is_some();
        Ok(())
    }

    fn find(&mut self, key: u64, away: Away) {
        if let hash_map::Entry::Vacant(place) = self.places.entry(key) {
            place.insert(Place::Away(away));
            self.order.insert((away.hour, key));
        }
    }

    /// All that is to be read again was read, up to `seq`. What began and was not met again, because its rule means something
    /// else or its signals are gone, is still there and begins anew when it is heard of.
    pub(crate) fn relearned(&mut self, seq: Seq) {
        self.learning = false;
        self.position = self.position.max(seq);
        self.paced = (self.position, self.now);
        let born: Vec<(u64, Away)> = self
            .places
            .iter()
            .filter_map(|(key, place)| match place {
                Place::Away(away) if away.born.is_some() && !self.leaving.contains_key(key) => Some((*key, *away)),
                _ => None,
            })
            .collect();
        for (key, away) in born {
            let Some((born, digest)) = away.born else { continue };
            let is_this_life =
                away.stored.is_some() && self.stored(key, away).is_some_and(|piece| piece.seq >= born && piece.digest == digest);
            if !is_this_life {
                self.leaving.insert(key, Piece { digest, seq: born, since: born, body: Vec::new() });
                self.due_since = Some(self.due_since.map_or(born, |since| since.min(born)));
            }
            self.places.insert(key, Place::Away(Away { born: None, ..away }));
        }
    }
}

impl<T: Kept> Keep<T> {
    /// Takes over what `other` learned of series from signals before this one: they begin with the first signal it met.
    pub(crate) fn adopt(&mut self, other: Keep<T>, is_open: impl Fn(u64) -> bool) {
        for learned in other.slots.into_iter().flatten() {
            let Some(since) = learned.dirty else { continue };
            let key = learned.key;
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
                None if self.places.len() >= self.limits.known => continue,
                None => None,
            };
            self.note(Entry { key, seq: since, born: Some(learned.digest) });
            let at = Timestamp::from_millis(i64::from(learned.hour).saturating_mul(HOUR));
            let touch = Touch { key, digest: learned.digest, seq: since, at };
            let place = self.hold(touch, learned.state, Some(since), stored, &is_open);
            if let Some(slot) = slot(&mut self.slots, place) {
                slot.seq = learned.seq;
            }
            self.waiting.push_back((key, since));
        }
        // they are older than what waits already
        self.waiting.make_contiguous().sort_unstable_by_key(|(_, since)| *since);
    }
}

/// Puts a base under its hour, and takes the one under another hour away afterwards.
fn put(key: u64, hour: u32, former: Option<u32>, piece: &Piece, changes: &mut Vec<Change>) {
    changes.push(Change { key: piece::name(key, hour), body: Some(piece.bytes()) });
    if let Some(former) = former.filter(|former| *former != hour) {
        changes.push(Change::gone(piece::name(key, former)));
    }
}
