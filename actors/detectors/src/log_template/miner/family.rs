//! Families: new templates that differ in few words become one, where it is data that differs.

use super::{
    scan::Kind,
    store::{Slot, Store, Template},
};

/// So many different words in one place are data; fewer are constants.
const FAMILY: usize = 4;
/// So many in a line of so few words that one is more than those may be that differ.
const SHORT_FAMILY: usize = 16;
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

/// How many of so many words may differ in a family.
const fn may_differ(words: usize) -> usize {
    words * (100 - ALIKE) / 100
}

fn alike(one: &Template, other: &Template) -> bool {
    let mut left = may_differ(one.words.len()).max(1);
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
fn is_data(words: &[(u64, Kind)], enough: usize) -> bool {
    words.len() >= enough || (words.len() >= DATA_FAMILY && words.iter().all(|(_, kind)| *kind == Kind::Data))
}

/// The places where the newest template's family differs, and what stands there; nothing if it has none.
fn family(newest: &Template, near: Vec<&Template>) -> Option<Vec<(usize, Kind)>> {
    let mut members = near;
    let is_short = may_differ(newest.words.len()) == 0;
    let enough = if is_short { SHORT_FAMILY } else { FAMILY };
    loop {
        let mut places = Vec::new();
        let mut is_more = false;
        // constants first: what differs in them is another statement, and its data says nothing here
        let mut fixed: [Vec<(usize, &Slot)>; 2] = [Vec::new(), Vec::new()];
        for (at, own) in newest.words.iter().enumerate() {
            let mut values: Vec<(u64, Kind)> = Vec::new();
            let (mut any, mut data) = (false, false);
            for word in members.iter().filter_map(|member| member.words.get(at)) {
                any |= word.wild && word.kind != Kind::Data;
                data |= word.wild && word.kind == Kind::Data;
                if !word.wild && values.len() < enough && !values.contains(&(word.hash, word.kind)) {
                    values.push((word.hash, word.kind));
                }
            }
            let all_data = values.iter().all(|(_, kind)| *kind == Kind::Data);
            if is_data(&values, enough) {
                is_more = true;
                // in a line of few words there is too little else to tell a word by that is no data
                places.push((at, if all_data && !any && is_short { Kind::Data } else { Kind::Constant }));
            } else if any || (data && all_data) {
                places.push((at, if any { Kind::Constant } else { Kind::Data }));
            } else if values.len() > 1 || data {
                let [constants, others] = &mut fixed;
                if values.iter().all(|(_, kind)| *kind == Kind::Constant) { constants } else { others }.push((at, own));
            }
        }
        let before = members.len();
        let [constants, others] = fixed;
        let fixed = if constants.is_empty() { others } else { constants };
        members.retain(|member| fixed.iter().all(|(at, own)| member.words.get(*at).is_some_and(|word| word.is_same(own))));
        if members.len() == before {
            return (members.len() > 1 && is_more).then_some(places);
        }
    }
}

impl Store {
    /// Merges the template at `slot` with its family, if it has one.
    pub(super) fn merge_family(&mut self, slot: usize) -> Option<Merger> {
        let newest = self.get(slot)?;
        let bucket = self.bucket(slot);
        let recent = bucket.get(bucket.len().saturating_sub(NEIGHBOURS)..).unwrap_or(bucket);
        let near: Vec<&Template> = recent.iter().filter_map(|slot| self.get(*slot)).filter(|other| alike(newest, other)).collect();
        let places = family(newest, near)?;
        let mut merged = newest.clone();
        for (place, kind) in places {
            if let Some(word) = merged.words.get_mut(place) {
                (word.wild, word.kind) = (true, kind);
            }
        }
        // what is nothing but data would take in whatever is as long
        if merged.words.iter().all(|word| word.wild || word.kind == Kind::Data) {
            return None;
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
