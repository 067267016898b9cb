//! Families: new templates that differ in few words become one, where it is data that differs.

use super::{
    scan::Kind,
    store::{Slot, Store, Template},
};

/// So many different words in one place are data; fewer are constants.
const FAMILY: usize = 4;
/// So many, where each is masked for the most part.
const DATA_FAMILY: usize = 2;
/// At least so many of the words of a family agree, in percent.
const ALIKE: usize = 80;
/// A new template is compared with the newest of its kind, so many at most.
const NEIGHBOURS: usize = 512;

/// What a merger came to.
pub(super) struct Merger {
    /// Where the merged template is, and its id.
    pub(super) slot: usize,
    pub(super) into: u64,
    /// The ids that are no more.
    pub(super) gone: Vec<u64>,
}

/// How two words of templates relate.
fn differ(a: &Slot, b: &Slot) -> bool {
    !(a.wild || b.wild || a.hash == b.hash)
}

fn alike(one: &Template, other: &Template) -> bool {
    let mut left = one.words.len() * (100 - ALIKE) / 100;
    for (a, b) in one.words.iter().zip(&other.words) {
        if differ(a, b) && !(a.kind == Kind::Data && b.kind == Kind::Data) {
            if left == 0 {
                return false;
            }
            left -= 1;
        }
    }
    one.cut == other.cut
}

/// Whether a place where these words stand is data. `words` are different.
fn is_data(words: &[(u64, Kind)]) -> bool {
    words.len() >= FAMILY || (words.len() >= DATA_FAMILY && words.iter().all(|(_, kind)| *kind == Kind::Data))
}

/// The members of the newest template's family, and the places where they differ; nothing if it has none.
fn family<'a>(newest: &'a Template, near: Vec<(usize, &'a Template)>) -> Option<(Vec<usize>, Vec<usize>)> {
    let mut members = near;
    loop {
        let mut places = Vec::new();
        // constants first: what differs in them is another statement, and its data says nothing here
        let mut fixed: [Vec<(usize, &Slot)>; 2] = [Vec::new(), Vec::new()];
        for (at, own) in newest.words.iter().enumerate() {
            let mut values: Vec<(u64, Kind)> = Vec::new();
            let mut wild = false;
            for word in members.iter().filter_map(|(_, member)| member.words.get(at)) {
                wild |= word.wild;
                if !word.wild && values.len() < FAMILY && !values.contains(&(word.hash, word.kind)) {
                    values.push((word.hash, word.kind));
                }
            }
            if is_data(&values) {
                places.push(at);
            } else if values.len() > 1 && !wild {
                let [constants, others] = &mut fixed;
                if values.iter().all(|(_, kind)| *kind == Kind::Constant) { constants } else { others }.push((at, own));
            }
        }
        let before = members.len();
        let [constants, others] = fixed;
        let fixed = if constants.is_empty() { others } else { constants };
        members.retain(|(_, member)| {
            fixed.iter().all(|(at, own)| member.words.get(*at).is_some_and(|word| !own.wild && !word.wild && word.hash == own.hash))
        });
        if members.len() == before {
            let members: Vec<usize> = members.into_iter().map(|(slot, _)| slot).collect();
            return (members.len() > 1 && !places.is_empty()).then_some((members, places));
        }
    }
}

impl Store {
    /// Merges the template at `slot` with its family, if it has one.
    pub(super) fn merge_family(&mut self, slot: usize) -> Option<Merger> {
        let newest = self.get(slot)?;
        let bucket = self.bucket(slot);
        let recent = bucket.get(bucket.len().saturating_sub(NEIGHBOURS)..).unwrap_or(bucket);
        let near: Vec<(usize, &Template)> =
            recent.iter().filter_map(|slot| Some((*slot, self.get(*slot)?))).filter(|(_, other)| alike(newest, other)).collect();
        let (members, places) = family(newest, near)?;
        let mut merged = newest.clone();
        for member in members.iter().filter_map(|slot| self.get(*slot)) {
            for (own, other) in merged.words.iter_mut().zip(&member.words) {
                own.wild |= other.wild;
            }
        }
        for place in places {
            if let Some(word) = merged.words.get_mut(place) {
                word.wild = true;
            }
        }
        let covered: Vec<usize> = bucket.iter().copied().filter(|slot| self.get(*slot).is_some_and(|other| merged.covers(other))).collect();
        let taken: Vec<Template> = covered.into_iter().filter_map(|slot| self.take(slot)).collect();
        let oldest = taken.iter().min_by_key(|template| template.born)?;
        (merged.id, merged.born) = (oldest.id, oldest.born);
        merged.seen = taken.iter().map(|template| template.seen).sum();
        merged.last = taken.iter().map(|template| template.last).max().unwrap_or(0);
        merged.write();
        let into = merged.id;
        let gone = taken.iter().map(|template| template.id).filter(|id| *id != into).collect();
        Some(Merger { slot: self.put(merged), into, gone })
    }
}
