//! The reading itself, without actor or ledger: which files there are, and what to read next from which.
//!
//! A step reads a bounded amount, gives out its signals, and says which checkpoints cover them; the caller commits both
//! together before it asks for the next step. Whatever is thrown away in between is read again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use opspilot_kernel::{clock::SharedClock, signal::SignalRef};

use super::{
    config::{Config, FileConfig},
    lines::{Join, Rules},
    open::{FileId, Root},
    pattern::Pattern,
    tail::{CHUNK, Checkpoint, Tail, id_of, key_of},
};

/// One change of what the ledger keeps: empty bytes remove it.
pub(crate) type Saving = (String, Vec<u8>);

/// What a step did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// The checkpoints that cover what was given out.
    pub(crate) savings: Vec<Saving>,
    /// Whether there is more to read at once.
    pub(crate) more: bool,
}

/// Everything counted since the start; only ever grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) lossy: u64,
    pub(crate) cut: u64,
    pub(crate) split: u64,
    pub(crate) rotated: u64,
    pub(crate) truncated: u64,
    pub(crate) lost_bytes: u64,
    pub(crate) read_errors: u64,
}

/// One entry of the configuration, ready for use.
pub(super) struct Entry {
    pub(super) pattern: Pattern,
    pub(super) root: Root,
    pub(super) rules: Rules,
    pub(super) config: FileConfig,
    /// Nothing of it was ever read: what is there now may be skipped.
    pub(super) fresh: bool,
}

/// Follows files.
pub(crate) struct Engine {
    pub(super) config: Config,
    pub(super) entries: Vec<Entry>,
    pub(super) clock: SharedClock,
    pub(super) tails: BTreeMap<FileId, Tail>,
    /// Copies of followed files, made by a rotation that copies and truncates; read only once the original was truncated.
    pub(super) copies: BTreeMap<FileId, FileId>,
    /// Rotated files that a pattern still matches; not read.
    pub(super) compressed: BTreeSet<FileId>,
    /// Entries that cannot be used at all.
    unusable: BTreeMap<PathBuf, String>,
    /// Why files are not read, as the last look at the folders showed.
    pub(super) refused: BTreeMap<PathBuf, String>,
    /// Files that could not be opened or read at the last try.
    pub(super) failing: BTreeMap<PathBuf, String>,
    /// Files beyond `max_files`.
    pub(super) beyond: usize,
    /// The last loss, and when it happened.
    pub(super) loss: Option<(String, Duration)>,
    pub(super) savings: Vec<Saving>,
    /// When the folders were last looked through.
    pub(super) surveyed_at: Option<Duration>,
    /// Counts the steps.
    pub(super) turn: u64,
    pub(super) buffer: Vec<u8>,
    pub(super) more: bool,
    pub(crate) counts: Counts,
}

/// The key under which the ledger remembers that an entry was seen before.
pub(super) fn entry_key(path: &str) -> String {
    format!("entry/{path}")
}

/// How long a loss is shown in health.
const SHOW_LOSS: Duration = Duration::from_secs(3600);

impl Engine {
    /// Follows what `config` names, going on where `stored` says. The configuration has been checked; entries that
    /// cannot be used are left out and named in health.
    pub(crate) fn new(config: Config, stored: Vec<Saving>, clock: SharedClock) -> Engine {
        let mut unusable = BTreeMap::new();
        let mut entries = Vec::new();
        for file in &config.files {
            match (Pattern::parse(&file.path), rules_of(file)) {
                (Ok(pattern), Ok(rules)) => {
                    let root = Root::new(pattern.base());
                    entries.push(Entry { pattern, root, rules, config: file.clone(), fresh: true });
                }
                (Err(error), _) => drop(unusable.insert(PathBuf::from(&file.path), error.to_string())),
                (_, Err(error)) => drop(unusable.insert(PathBuf::from(&file.path), error.to_string())),
            }
        }
        let now = clock.elapsed();
        let mut tails = BTreeMap::new();
        for (key, blob) in &stored {
            if let Some(entry) = entries.iter_mut().find(|entry| entry_key(&entry.config.path) == *key) {
                entry.fresh = false;
            }
            let Some(id) = id_of(key) else { continue };
            let Ok(saved) = serde_json::from_slice::<Checkpoint>(blob) else { continue };
            if let Some(index) = entries.iter().position(|entry| entry.pattern.matches(&saved.path)) {
                if let Some(entry) = entries.get_mut(index) {
                    entry.fresh = false;
                }
                tails.insert(id, Tail::restored(index, saved, now));
            }
        }
        Engine {
            config,
            entries,
            clock,
            tails,
            copies: BTreeMap::new(),
            compressed: BTreeSet::new(),
            unusable,
            refused: BTreeMap::new(),
            failing: BTreeMap::new(),
            beyond: 0,
            loss: None,
            savings: Vec::new(),
            surveyed_at: None,
            turn: 0,
            buffer: vec![0; CHUNK],
            more: false,
            counts: Counts::default(),
        }
    }

    /// The folders to be watched for changes.
    pub(crate) fn folders(&self) -> BTreeSet<PathBuf> {
        let bases = self.entries.iter().map(|entry| entry.pattern.base().to_owned());
        let used = self.tails.values().filter_map(|tail| Some(self.entries.get(tail.entry)?.pattern.base().join(&tail.below)));
        bases.chain(used).collect()
    }

    /// Reads some, and gives out what it came to.
    pub(crate) fn step(&mut self, emit: &mut dyn FnMut(&SignalRef<'_>)) -> Step {
        let waited = self.surveyed_at.map(|at| self.clock.elapsed().saturating_sub(at));
        if !self.more || waited.is_none_or(|waited| waited >= self.config.poll.0) {
            self.survey();
        }
        self.more = false;
        self.turn += 1;
        let mut budget = self.config.batch.bytes();
        for id in self.order() {
            if budget == 0 {
                self.more = true;
                break;
            }
            budget = budget.saturating_sub(self.advance(id, budget, emit));
        }
        self.retire(emit);
        self.close_idle();
        for (id, tail) in &mut self.tails {
            let now = tail.checkpoint();
            if tail.saved.as_ref() != Some(&now) {
                self.savings.push((key_of(*id), serde_json::to_vec(&now).unwrap_or_default()));
                tail.saved = Some(now);
            }
        }
        Step { savings: std::mem::take(&mut self.savings), more: self.more }
    }

    /// When the next step is worth while even if nobody says that a file changed.
    pub(crate) fn next_due(&self) -> Duration {
        let now = self.clock.elapsed();
        let waits =
            self.tails.values().filter_map(|tail| self.flush_due(tail)).min().map_or(self.config.poll.0, |due| due.saturating_sub(now));
        waits.min(self.config.poll.0).max(Duration::from_millis(1))
    }

    /// How many bytes are known to wait.
    pub(crate) fn behind(&self) -> u64 {
        self.tails.values().map(Tail::behind).sum()
    }

    /// How many files are followed, and how many of them are open.
    pub(crate) fn files(&self) -> (usize, usize) {
        (self.tails.len(), self.tails.values().filter(|tail| tail.file.is_some()).count())
    }

    /// What a person should know, if anything.
    pub(crate) fn trouble(&self) -> Option<String> {
        let mut parts: Vec<String> = self
            .unusable
            .iter()
            .chain(&self.refused)
            .chain(self.failing.iter().filter(|(path, _)| !self.refused.contains_key(*path)))
            .map(|(path, why)| format!("{}: {why}", path.display()))
            .collect();
        if parts.len() > 3 {
            let others = parts.len() - 3;
            parts.truncate(3);
            parts.push(format!("and {others} more"));
        }
        if self.beyond > 0 {
            let (beyond, most) = (self.beyond, self.config.max_files);
            parts.push(format!("{beyond} files are not read, as more match than max_files ({most}) allows; raise it, or name fewer"));
        }
        if let Some((text, at)) = &self.loss
            && self.clock.elapsed().saturating_sub(*at) < SHOW_LOSS
        {
            parts.push(text.clone());
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Rotated files first, so that a source's lines come in order; then those with a past; new ones last.
    fn order(&self) -> Vec<FileId> {
        let mut order: Vec<(&FileId, &Tail)> =
            self.tails.iter().filter(|(_, tail)| tail.wants_reading() || self.flush_due(tail).is_some()).collect();
        order.sort_by_key(|(_, tail)| (!tail.rotated, tail.saved.is_none(), tail.turn, &tail.path));
        order.into_iter().map(|(id, _)| *id).collect()
    }

    /// When what a file left unfinished is taken as it is.
    pub(super) fn flush_due(&self, tail: &Tail) -> Option<Duration> {
        let entry = self.entries.get(tail.entry)?;
        let record = entry.config.multiline.as_ref().filter(|_| tail.lines.has_record()).map(|multiline| multiline.timeout.0);
        let partial = tail.lines.has_partial().then_some(entry.config.partial_after.0);
        // A record whose last line is unfinished waits for the line.
        let wait = partial.or(record)?;
        Some(tail.grew_at.saturating_add(wait))
    }

    /// Ends files that were rotated away and stayed quiet.
    fn retire(&mut self, emit: &mut dyn FnMut(&SignalRef<'_>)) {
        let now = self.clock.elapsed();
        let keep = self.config.keep_rotated.0;
        let quiet = |tail: &Tail| tail.rotated && !tail.wants_reading() && now >= tail.grew_at.saturating_add(keep);
        let done: Vec<FileId> = self.tails.iter().filter(|(_, tail)| quiet(tail)).map(|(id, _)| *id).collect();
        for id in done {
            self.with_voice(id, emit, |tail, rules, sink| tail.lines.flush_all(true, rules, sink));
            self.forget(id);
        }
    }

    /// Keeps the number of open files within its bound: closes those that were quiet longest.
    fn close_idle(&mut self) {
        let limit = usize::try_from(self.config.max_open_files).unwrap_or(usize::MAX);
        let mut open: Vec<(bool, Duration, FileId)> =
            self.tails.iter().filter(|(_, tail)| tail.file.is_some()).map(|(id, tail)| (tail.rotated, tail.grew_at, *id)).collect();
        open.sort();
        let surplus = open.len().saturating_sub(limit);
        for (_, _, id) in open.into_iter().take(surplus) {
            if let Some(tail) = self.tails.get_mut(&id) {
                tail.file = None;
            }
        }
    }
}

fn rules_of(file: &FileConfig) -> Result<Rules, regex::Error> {
    let join = file.multiline.as_ref().map(|multiline| {
        let start = regex::bytes::Regex::new(&multiline.start)?;
        Ok(Join { start, max_lines: multiline.max_lines, max_bytes: multiline.max_bytes.bytes() })
    });
    Ok(Rules { max_line: file.max_line.bytes(), join: join.transpose()? })
}
