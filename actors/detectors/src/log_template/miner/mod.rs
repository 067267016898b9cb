//! Streaming template mining: which lines were written by the same statement.
//!
//! ```
//! use opspilot_detectors::log_template::miner::{Miner, Settings};
//!
//! let mut miner = Miner::new(&Settings::default());
//! let first = miner.learn("connection from 10.0.0.7:5123 closed after 3 s");
//! let again = miner.learn("connection from 10.9.1.2:80 closed after 250 ms");
//! assert!(first.is_new && !again.is_new && first.template == again.template);
//! assert_eq!(miner.template(first.template), Some("connection from <IP> closed after <NUM>"));
//! ```
//!
//! A line is cut into words, and data in them is masked, in one pass over its bytes ([`scan`], [`mask`]). The hash of what
//! is left finds the template at once if such a line was seen before; that takes no allocation. Only another line is
//! compared, with the templates that have wildcards, and founds a template if it fits none.
//!
//! A new template is then compared with those of its length that differ in few words. Where such a *family* has at least
//! four different words in one place, the place is data: its members become one template with a wildcard `<*>`
//! there, which keeps the id of the oldest. Where there are fewer, they are constants, and what differs in them stays
//! apart. So `by LOGIN(uid=0)` and `by (uid=0)` are two templates, and a hundred user names are one.
//!
//! Two are enough where each is masked for the most part or a path; in lines of less than five words it takes sixteen others.
//! A template keeps at least one word that is no data.
//!
//! What a line belongs to may therefore change later, by merging only: [`Miner::current`] says what became of a template.

mod family;
mod mask;
mod scan;
mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::state::Change;

use self::{
    scan::{Scanner, Shape, Word},
    store::{Store, Template},
};

/// How much a miner keeps and looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Templates kept. When one more comes, those that were not seen for longest go, a sixteenth at a time: first of those
    /// seen less than three times, so that a flood of nonsense does not drive out what is known.
    pub max_templates: usize,
    /// Bytes of templates kept; beyond this they go in the same way.
    pub max_bytes: usize,
    /// Of a line, so many words are looked at,
    pub line_words: usize,
    /// and so many bytes. What follows is left out; that there is more is part of the template.
    pub line_bytes: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { max_templates: 10_000, max_bytes: 32 << 20, line_words: 128, line_bytes: 4096 }
    }
}

/// Names a template: the hash of the shape that founded it. The same lines give the same ids, in whatever process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TemplateId(pub u64);

impl fmt::Display for TemplateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a line came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// The line's template, as things are now.
    pub template: TemplateId,
    /// Whether this line founded it. A line that completes a family founds none.
    pub is_new: bool,
}

/// What became of a template besides being seen, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is part of another one now.
    Merged {
        /// The one that is no more.
        from: TemplateId,
        /// The one that its lines belong to.
        into: TemplateId,
    },
    /// It had to go, because there were too many.
    Evicted(TemplateId),
}

/// Groups lines by their templates; see the module.
#[derive(Debug)]
pub struct Miner {
    scanner: Scanner,
    store: Store,
    words: Vec<Word>,
    memo: Vec<Memo>,
    /// What merged templates are part of, and the order to forget it in.
    aliases: HashMap<u64, u64>,
    merged: VecDeque<u64>,
    /// What happened since it was asked for; not kept unless somebody does.
    fates: Option<Vec<Fate>>,
    dirty: BTreeSet<u64>,
    /// Restored before the template that it is about.
    early: HashMap<u64, (u64, u64)>,
}

/// A line that matched a template with wildcards, so that the next one like it does not have to be compared.
#[derive(Debug, Clone, Copy, Default)]
struct Memo {
    hash: u64,
    slot: usize,
    /// The templates with wildcards were these.
    generation: u64,
}

/// Lines remembered for what they matched; a power of two. It only saves time: what a line matches does not depend on it.
const MEMOS: usize = 1 << 14;

impl Miner {
    /// A miner that knows nothing.
    pub fn new(settings: &Settings) -> Miner {
        Miner {
            scanner: Scanner::new(settings.line_bytes, settings.line_words),
            store: Store::new(*settings),
            words: Vec::new(),
            memo: vec![Memo::default(); MEMOS],
            aliases: HashMap::new(),
            merged: VecDeque::new(),
            fates: None,
            dirty: BTreeSet::new(),
            early: HashMap::new(),
        }
    }

    /// Takes in a line and says which template it belongs to.
    pub fn learn(&mut self, line: &str) -> Learned {
        let shape = self.scanner.scan(line, &mut self.words);
        if let Some(slot) = self.store.exact(shape.hash) {
            return Learned { template: self.store.saw(slot), is_new: false };
        }
        let place = usize::try_from(shape.hash >> 40).unwrap_or(0) % MEMOS;
        if let Some(memo) = self.memo.get(place)
            && memo.hash == shape.hash
            && memo.generation == self.store.generation()
        {
            return Learned { template: self.store.saw(memo.slot), is_new: false };
        }
        if let Some(slot) = self.store.find(&self.words) {
            if let Some(memo) = self.memo.get_mut(place) {
                *memo = Memo { hash: shape.hash, slot, generation: self.store.generation() };
            }
            return Learned { template: self.store.saw(slot), is_new: false };
        }
        self.found(line, shape)
    }

    /// Founds a template, and merges it with its family if that makes one.
    #[cold]
    fn found(&mut self, line: &str, shape: Shape) -> Learned {
        for id in self.store.make_room() {
            self.note(id, None);
        }
        let founded = self.store.add(Template::of(line, &self.words, shape));
        let mut slot = founded;
        while let Some(merger) = self.store.merge_family(slot) {
            slot = merger.slot;
            for id in merger.gone {
                self.note(id, Some(merger.into));
            }
        }
        let template = self.store.saw(slot);
        if self.fates.is_some() {
            self.dirty.insert(template.0);
        }
        Learned { template, is_new: template.0 == shape.hash }
    }

    fn note(&mut self, id: u64, into: Option<u64>) {
        if let Some(into) = into {
            if self.aliases.insert(id, into).is_none() {
                self.merged.push_back(id);
            }
            while self.merged.len() > 4 * self.store.max_templates() {
                self.merged.pop_front().and_then(|oldest| self.aliases.remove(&oldest));
            }
        }
        if let Some(fates) = &mut self.fates {
            self.dirty.insert(id);
            let id = TemplateId(id);
            fates.push(into.map_or(Fate::Evicted(id), |into| Fate::Merged { from: id, into: TemplateId(into) }));
        }
    }

    /// Has it keep what becomes of templates for [`Miner::take_fates`].
    pub fn track(&mut self) {
        self.fates.get_or_insert_default();
    }

    /// What became of templates since the last call; nothing unless [`Miner::track`] was called before.
    pub fn take_fates(&mut self) -> Vec<Fate> {
        self.fates.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The places of a template where lines differ: the word there, with the key or the word before it, and what stands
    /// there in `line`, a line of this template. Empty if the line is of another.
    pub fn values<'a>(&mut self, id: TemplateId, line: &'a str) -> Vec<(String, &'a str)> {
        let shape = self.scanner.scan(line, &mut self.words);
        let Some(template) = self.store.by_id(self.current(id).0).filter(|template| template.fits(&self.words, shape)) else {
            return Vec::new();
        };
        let places = self.words.iter().enumerate().filter_map(|(at, word)| Some((template.place(at)?, word.raw(line))));
        places.collect()
    }

    /// What changed since the last call, as it is stored: pieces by name, nothing for what is gone. `touched` are the
    /// templates that lines were learned of. Complete only if [`Miner::track`] was called before the first line.
    pub(crate) fn changed(&mut self, touched: &BTreeSet<TemplateId>) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        let mut changes: Vec<Change> = dirty.iter().map(|id| Change::of(format!("template/{id:016x}"), self.store.by_id(*id))).collect();
        let seen = dirty.iter().copied().chain(touched.iter().map(|id| id.0)).collect::<BTreeSet<u64>>();
        changes.extend(seen.into_iter().map(|id| {
            let seen = self.store.by_id(id).map(|template| (template.seen, template.last));
            Change::of(format!("seen/{id:016x}"), seen.as_ref())
        }));
        if !changes.is_empty() {
            changes.push(Change::of("lines".to_owned(), Some(&self.store.clock())));
        }
        changes
    }

    /// Has everything given by the next [`Miner::changed`].
    pub(crate) fn touch(&mut self) {
        self.dirty = self.store.all_ids().collect();
    }

    /// Takes a piece back; false if it is none of a miner's. Pieces may come in any order.
    pub(crate) fn restore(&mut self, key: &str, body: &[u8]) -> Result<bool, String> {
        let read = |error: serde_json::Error| error.to_string();
        if key == "lines" {
            self.store.set_clock(serde_json::from_slice(body).map_err(read)?);
        } else if key.starts_with("template/") {
            let mut template: Template = serde_json::from_slice(body).map_err(read)?;
            template.write();
            (template.seen, template.last) = self.early.remove(&template.id).unwrap_or_default();
            self.store.put(template);
        } else if let Some(id) = key.strip_prefix("seen/") {
            let id = u64::from_str_radix(id, 16).map_err(|error| error.to_string())?;
            let seen = serde_json::from_slice(body).map_err(read)?;
            match self.store.by_id_mut(id) {
                Some(template) => (template.seen, template.last) = seen,
                None => drop(self.early.insert(id, seen)),
            }
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// What has become of a template: the one it was merged into, or itself. Merged ids are remembered four times as many
    /// as there may be templates.
    pub fn current(&self, id: TemplateId) -> TemplateId {
        let mut at = id.0;
        while let Some(into) = self.aliases.get(&at) {
            at = *into;
        }
        TemplateId(at)
    }

    /// The text of a template: constants as they are, masks such as `<NUM>`, wildcards as `<*>`, and `…` for more words
    /// of the shape before it. None if it is not (or no longer) known; merged ones are known by their old ids.
    pub fn template(&self, id: TemplateId) -> Option<&str> {
        self.store.text(self.current(id).0)
    }

    /// How many templates there are.
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Roughly what the templates take in memory.
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// How many templates had to go because there were too many.
    pub fn evicted(&self) -> u64 {
        self.store.evicted()
    }
}
