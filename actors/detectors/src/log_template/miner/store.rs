//! The templates there are, found by their hash or by comparison.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{
    Settings, TemplateId,
    scan::{Kind, Shape, Word},
};

/// Templates seen so often are not the first to go.
const ESTABLISHED: u64 = 3;
/// So much of a word is kept.
const WORD_BYTES: usize = 64;

/// A word of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slot {
    pub(super) hash: u64,
    pub(super) kind: Kind,
    /// Any word at all, or, if the kind is data, any that is masked for the most part.
    pub(super) wild: bool,
    pub(super) spaced: bool,
    pub(super) text: Box<str>,
}

impl Slot {
    fn takes(&self, hash: u64, kind: Kind) -> bool {
        if self.wild { self.kind != Kind::Data || kind == Kind::Data } else { self.hash == hash }
    }

    /// Whether both take the same words.
    pub(super) fn is_same(&self, other: &Slot) -> bool {
        self.wild == other.wild && if self.wild { self.kind == other.kind } else { self.hash == other.hash }
    }
}

/// A template.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Template {
    pub(super) id: u64,
    /// Its place in the order of founding.
    pub(super) born: u64,
    /// How many lines, and the newest of them; they change with every line and are stored apart.
    #[serde(skip)]
    pub(super) seen: u64,
    #[serde(skip)]
    pub(super) last: u64,
    pub(super) cut: bool,
    pub(super) words: Vec<Slot>,
    #[serde(skip)]
    pub(super) text: String,
}

impl Template {
    pub(super) fn of(line: &str, words: &[Word], shape: Shape) -> Template {
        let words = words
            .iter()
            .map(|word| {
                let mut text = String::new();
                word.write(line.as_bytes(), WORD_BYTES, &mut text);
                if word.repeated {
                    text.push_str(" …");
                }
                Slot { hash: word.hash, kind: word.kind, wild: false, spaced: word.spaced, text: text.into_boxed_str() }
            })
            .collect();
        let mut template = Template { id: shape.hash, born: 0, seen: 0, last: 0, cut: shape.cut, words, text: String::new() };
        template.write();
        template
    }

    /// Writes its text anew.
    pub(super) fn write(&mut self) {
        self.text.clear();
        for (at, word) in self.words.iter().enumerate() {
            if at > 0 && word.spaced {
                self.text.push(' ');
            }
            self.text.push_str(if word.wild { "<*>" } else { &word.text });
        }
        if self.cut {
            self.text.push_str(" …");
        }
    }

    pub(super) fn is_wild(&self) -> bool {
        self.words.iter().any(|word| word.wild)
    }

    fn wildcards(&self) -> usize {
        self.words.iter().filter(|word| word.wild).count()
    }

    fn bytes(&self) -> usize {
        let words: usize = self.words.iter().map(|word| word.text.len()).sum();
        256 + self.words.len() * size_of::<Slot>() + words + self.text.len()
    }

    /// Whether every line of `other` is one of this template.
    pub(super) fn covers(&self, other: &Template) -> bool {
        self.words.len() == other.words.len()
            && self.words.iter().zip(&other.words).all(|(own, other)| (own.wild || !other.wild) && own.takes(other.hash, other.kind))
    }

    /// Whether a line of these words is one of this template.
    pub(super) fn fits(&self, words: &[Word], shape: Shape) -> bool {
        self.cut == shape.cut && self.matches(words)
    }

    /// How a place where lines differ is called; nothing for a constant.
    pub(super) fn place(&self, at: usize) -> Option<String> {
        let word = self.words.get(at)?;
        if !word.wild && word.kind == Kind::Constant {
            return None;
        }
        let own = if word.wild { "<*>" } else { &word.text };
        let before = at.checked_sub(1).and_then(|at| self.words.get(at)).filter(|before| !before.wild && before.kind == Kind::Constant);
        Some(before.map_or_else(|| own.to_owned(), |before| format!("{}{}{own}", before.text, if word.spaced { " " } else { "" })))
    }

    fn matches(&self, words: &[Word]) -> bool {
        self.words.len() == words.len() && self.words.iter().zip(words).all(|(own, word)| own.takes(word.hash, word.kind))
    }
}

/// Templates that are compared with each other: as many words, and the same one first.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// By founding, oldest first.
    pub(super) all: Vec<usize>,
    wild: Vec<usize>,
}

fn key(len: usize, first: Option<(u64, Kind)>) -> (usize, u64) {
    (len, first.filter(|(_, kind)| *kind == Kind::Constant).map_or(0, |(hash, _)| hash))
}

fn key_of(template: &Template) -> (usize, u64) {
    key(template.words.len(), template.words.first().filter(|word| !word.wild).map(|word| (word.hash, word.kind)))
}

#[derive(Debug)]
pub(super) struct Store {
    settings: Settings,
    templates: Vec<Option<Template>>,
    free: Vec<usize>,
    /// By the hash of the whole line; those without wildcards.
    exact: HashMap<u64, usize, Hashed>,
    /// By id.
    ids: HashMap<u64, usize, Hashed>,
    buckets: HashMap<(usize, u64), Bucket>,
    lines: u64,
    born: u64,
    bytes: usize,
    evicted: u64,
    generation: u64,
}

/// What is looked up is a hash already.
pub(super) type Hashed = std::hash::BuildHasherDefault<AsItIs>;

/// Takes a number for its own hash.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct AsItIs(u64);

impl std::hash::Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl Store {
    pub(super) fn new(settings: Settings) -> Store {
        Store {
            settings,
            templates: Vec::new(),
            free: Vec::new(),
            exact: HashMap::default(),
            ids: HashMap::default(),
            buckets: HashMap::new(),
            lines: 0,
            born: 0,
            bytes: 0,
            evicted: 0,
            generation: 1,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn max_templates(&self) -> usize {
        self.settings.max_templates
    }

    pub(super) fn text(&self, id: u64) -> Option<&str> {
        self.get(*self.ids.get(&id)?).map(|template| template.text.as_str())
    }

    /// What is stored of a template: how often and when it was seen, and what it is.
    pub(super) fn by_id(&self, id: u64) -> Option<&Template> {
        self.get(*self.ids.get(&id)?)
    }

    pub(super) fn by_id_mut(&mut self, id: u64) -> Option<&mut Template> {
        self.templates.get_mut(*self.ids.get(&id)?)?.as_mut()
    }

    /// Lines and templates so far.
    pub(super) fn clock(&self) -> (u64, u64) {
        (self.lines, self.born)
    }

    pub(super) fn set_clock(&mut self, (lines, born): (u64, u64)) {
        (self.lines, self.born) = (lines, born);
    }

    pub(super) fn all_ids(&self) -> impl Iterator<Item = u64> {
        self.ids.keys().copied()
    }

    #[cfg(test)]
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.templates.iter().flatten().map(|template| template.text.as_str())
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Template> {
        self.templates.get(slot)?.as_ref()
    }

    #[inline]
    pub(super) fn exact(&self, hash: u64) -> Option<usize> {
        self.exact.get(&hash).copied()
    }

    /// Counts a line of the template.
    #[inline]
    pub(super) fn saw(&mut self, slot: usize) -> TemplateId {
        self.lines += 1;
        match self.templates.get_mut(slot) {
            Some(Some(template)) => {
                template.seen += 1;
                template.last = self.lines;
                TemplateId(template.id)
            }
            // a slot is only ever taken from the indexes, which name filled ones
            _ => TemplateId(0),
        }
    }

    /// The template with wildcards that matches: the one with the fewest, and of these the oldest.
    pub(super) fn find(&self, words: &[Word]) -> Option<usize> {
        let first = words.first().map(|word| (word.hash, word.kind));
        let (own, any) = (key(words.len(), first), key(words.len(), None));
        let keys = [Some(own), Some(any).filter(|any| *any != own)];
        let wild = keys.into_iter().flatten().filter_map(|key| self.buckets.get(&key)).flat_map(|bucket| &bucket.wild);
        let matching = wild.filter_map(|slot| self.get(*slot).filter(|template| template.matches(words)).map(|template| (slot, template)));
        matching.min_by_key(|(_, template)| (template.wildcards(), template.born)).map(|(slot, _)| *slot)
    }

    pub(super) fn add(&mut self, mut template: Template) -> usize {
        self.born += 1;
        template.born = self.born;
        self.put(template)
    }

    /// Enters a template in every index.
    pub(super) fn put(&mut self, template: Template) -> usize {
        let slot = self.free.pop().unwrap_or(self.templates.len());
        if slot == self.templates.len() {
            self.templates.push(None);
        }
        self.bytes += template.bytes();
        let (id, born, wild) = (template.id, template.born, template.is_wild());
        let key = key_of(&template);
        if wild {
            self.generation += 1;
        } else {
            self.exact.insert(id, slot);
        }
        self.ids.insert(id, slot);
        if let Some(place) = self.templates.get_mut(slot) {
            *place = Some(template);
        }
        let bucket = self.buckets.entry(key).or_default();
        let templates = &self.templates;
        let at = bucket.all.partition_point(|other| templates.get(*other).and_then(Option::as_ref).is_some_and(|other| other.born < born));
        bucket.all.insert(at, slot);
        if wild {
            bucket.wild.push(slot);
        }
        slot
    }

    /// Takes a template out of every index.
    pub(super) fn take(&mut self, slot: usize) -> Option<Template> {
        let template = self.templates.get_mut(slot)?.take()?;
        self.free.push(slot);
        self.bytes = self.bytes.saturating_sub(template.bytes());
        if template.is_wild() {
            self.generation += 1;
        } else {
            self.exact.remove(&template.id);
        }
        self.ids.remove(&template.id);
        let key = key_of(&template);
        if let Some(bucket) = self.buckets.get_mut(&key) {
            bucket.all.retain(|other| *other != slot);
            bucket.wild.retain(|other| *other != slot);
            if bucket.all.is_empty() {
                self.buckets.remove(&key);
            }
        }
        Some(template)
    }

    /// The templates that one at `slot` is compared with, newest last; it is one of them.
    pub(super) fn bucket(&self, slot: usize) -> &[usize] {
        self.get(slot).and_then(|template| self.buckets.get(&key_of(template))).map_or(&[], |bucket| &bucket.all)
    }

    /// Lets templates go if there is no room for one more; their ids.
    pub(super) fn make_room(&mut self) -> Vec<u64> {
        if self.len() < self.settings.max_templates.max(1) && self.bytes < self.settings.max_bytes {
            return Vec::new();
        }
        let mut order: BTreeMap<(bool, u64), usize> = BTreeMap::new();
        for (slot, template) in self.templates.iter().enumerate() {
            if let Some(template) = template {
                order.insert((template.seen >= ESTABLISHED, template.last), slot);
            }
        }
        let count = (order.len() / 16).max(1);
        let gone: Vec<u64> = order.into_values().take(count).filter_map(|slot| self.take(slot)).map(|template| template.id).collect();
        self.evicted += u64::try_from(gone.len()).unwrap_or(u64::MAX);
        gone
    }
}
