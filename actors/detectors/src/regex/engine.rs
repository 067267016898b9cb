//! Patterns compiled when they are needed, in the form that is enough for the line at hand.
//!
//! `\w`, `\d` and `\S` mean thousands of characters, and a pattern that knows them all takes a
//! megabyte. But to a line of nothing but ASCII, as most are, only the ASCII ones matter: on such
//! lines a pattern without the others finds the same matches and takes a tenth of the memory. So that
//! form of a pattern is kept once it is compiled; of the whole forms only the newest few are.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::VecDeque,
    sync::Arc,
};

use regex_automata::{
    MatchKind, PatternSet,
    meta::{Config, Regex},
    nfa::thompson::WhichCaptures,
    util::captures::Captures,
};
use regex_syntax::hir::{Capture, Class, ClassBytes, ClassBytesRange, ClassUnicode, ClassUnicodeRange, Hir, HirKind, Look, Repetition};

use super::pattern::SIZE_LIMIT;

/// What the lazily built automaton of one pattern may take at run time.
const CACHE_LIMIT: usize = 128 << 10;
/// So many patterns are kept in the form for any line.
const WHOLE_FORMS: usize = 96;
/// What a set of patterns may take; a larger one is built as two.
const SET_LIMIT: usize = 4 << 20;
/// So many patterns go together: with more, a state of the lazily built automaton is so large that few fit into its memory, and
/// it is built over and over.
const TOGETHER: usize = 512;

/// Compiled patterns, by number.
pub(crate) struct Engines {
    texts: Vec<String>,
    ascii: Vec<OnceCell<Option<Arc<Regex>>>>,
    whole: RefCell<VecDeque<(usize, Arc<Regex>)>>,
    compiled: Cell<usize>,
    bytes: Cell<usize>,
}

impl std::fmt::Debug for Engines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engines").field("patterns", &self.texts.len()).field("compiled", &self.compiled.get()).finish_non_exhaustive()
    }
}

impl Engines {
    /// Nothing compiled yet.
    pub(crate) fn new(texts: Vec<String>) -> Engines {
        let ascii = texts.iter().map(|_| OnceCell::new()).collect();
        Engines { texts, ascii, whole: RefCell::default(), compiled: Cell::new(0), bytes: Cell::new(0) }
    }

    /// How many patterns there are.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// How many patterns have been compiled so far.
    pub(crate) fn compiled(&self) -> usize {
        self.compiled.get()
    }

    /// What the compiled ones take, the memory they work in apart: that is at most 128 KiB each.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// Whether the pattern matches the line.
    pub(crate) fn is_match(&self, number: usize, line: &str) -> bool {
        self.fit_for(number, line).is_some_and(|regex| regex.is_match(line))
    }

    /// What the pattern captures in the line, if it matches.
    pub(crate) fn captures(&self, number: usize, line: &str) -> Option<Captures> {
        let regex = self.fit_for(number, line)?;
        let mut captures = regex.create_captures();
        regex.captures(line, &mut captures);
        captures.is_match().then_some(captures)
    }

    fn fit_for(&self, number: usize, line: &str) -> Option<Arc<Regex>> {
        if line.is_ascii()
            && let Some(regex) = self.ascii.get(number)?.get_or_init(|| self.compile(number, ascii_only))
        {
            return Some(Arc::clone(regex));
        }
        let mut whole = self.whole.borrow_mut();
        if let Some((_, regex)) = whole.iter().find(|(other, _)| *other == number) {
            return Some(Arc::clone(regex));
        }
        let regex = self.compile(number, |hir| hir)?;
        if whole.len() >= WHOLE_FORMS {
            let former = whole.pop_front().map_or(0, |(_, regex)| regex.memory_usage());
            self.bytes.set(self.bytes.get().saturating_sub(former));
        }
        whole.push_back((number, Arc::clone(&regex)));
        Some(regex)
    }

    fn compile(&self, number: usize, form: fn(Hir) -> Hir) -> Option<Arc<Regex>> {
        self.compiled.set(self.compiled.get().saturating_add(1));
        let hir = form(regex_syntax::parse(self.texts.get(number)?).ok()?);
        let regex = Regex::builder().configure(config(SIZE_LIMIT * 4)).build_from_hir(&hir).ok()?;
        self.bytes.set(self.bytes.get().saturating_add(regex.memory_usage()));
        Some(Arc::new(regex))
    }

    /// These patterns as a set.
    pub(crate) fn set(&self, numbers: &[usize]) -> Set {
        let texts = numbers.iter().filter_map(|number| self.texts.get(*number)).cloned().collect();
        Set { texts, ascii: OnceCell::new(), whole: OnceCell::new(), hits: PatternSet::new(numbers.len()) }
    }
}

fn config(nfa_limit: usize) -> Config {
    Regex::config().nfa_size_limit(Some(nfa_limit)).hybrid_cache_capacity(CACHE_LIMIT).onepass_size_limit(Some(CACHE_LIMIT))
}

/// Patterns that are looked for all at once, in as few parts as there can be.
pub(crate) struct Set {
    texts: Vec<String>,
    ascii: OnceCell<Vec<Part>>,
    whole: OnceCell<Vec<Part>>,
    hits: PatternSet,
}

/// Some of a set's patterns, from this place on.
struct Part {
    first: usize,
    regex: Regex,
}

impl Set {
    /// What it takes once it is compiled, the memory it works in apart: that is at most 1 MiB for each of its parts.
    pub(crate) fn bytes(&self) -> usize {
        let compiled = self.ascii.get().into_iter().chain(self.whole.get()).flatten();
        compiled.map(|part| part.regex.memory_usage()).sum()
    }

    /// Appends the places in the set of those that match, ascending.
    pub(crate) fn matches(&mut self, line: &str, places: &mut Vec<usize>) {
        let (form, parts): (fn(Hir) -> Hir, _) = if line.is_ascii() { (ascii_only, &self.ascii) } else { (|hir| hir, &self.whole) };
        let texts = &self.texts;
        let parts = parts.get_or_init(|| {
            let mut parts = Vec::new();
            // checked with the configuration: every one of them can be parsed
            let hirs: Vec<Hir> = texts.iter().map(|text| regex_syntax::parse(text).map_or_else(|_| Hir::fail(), form)).collect();
            build_parts(0, &hirs, &mut parts);
            parts
        });
        for part in parts {
            // most lines match none, and to find that out takes a third of the time of finding which
            if !part.regex.is_match(line) {
                continue;
            }
            self.hits.clear();
            part.regex.which_overlapping_matches(&line.into(), &mut self.hits);
            places.extend(self.hits.iter().map(|pattern| part.first.saturating_add(pattern.as_usize())));
        }
    }
}

fn build_parts(first: usize, hirs: &[Hir], parts: &mut Vec<Part>) {
    if hirs.is_empty() {
        return;
    }
    if hirs.len() > TOGETHER {
        let (left, right) = hirs.split_at(TOGETHER);
        build_parts(first, left, parts);
        return build_parts(first.saturating_add(TOGETHER), right, parts);
    }
    let config = config(SET_LIMIT).match_kind(MatchKind::All).which_captures(WhichCaptures::None).hybrid_cache_capacity(SET_LIMIT / 4);
    match Regex::builder().configure(config).build_many_from_hir(hirs) {
        Ok(regex) => parts.push(Part { first, regex }),
        Err(_) => {
            let (left, right) = hirs.split_at(hirs.len() / 2);
            // a single pattern that does not fit is refused when it is checked
            if !left.is_empty() {
                build_parts(first, left, parts);
                build_parts(first.saturating_add(left.len()), right, parts);
            }
        }
    }
}

/// The pattern that matches the same in a text of nothing but ASCII.
fn ascii_only(hir: Hir) -> Hir {
    let all = |parts: Vec<Hir>| parts.into_iter().map(ascii_only).collect();
    match hir.into_kind() {
        HirKind::Empty => Hir::empty(),
        HirKind::Literal(literal) if literal.0.is_ascii() => Hir::literal(literal.0),
        HirKind::Literal(_) => Hir::fail(),
        HirKind::Class(Class::Unicode(mut class)) => {
            class.intersect(&ClassUnicode::new([ClassUnicodeRange::new('\0', '\x7f')]));
            Hir::class(Class::Unicode(class))
        }
        HirKind::Class(Class::Bytes(mut class)) => {
            class.intersect(&ClassBytes::new([ClassBytesRange::new(0, 0x7f)]));
            Hir::class(Class::Bytes(class))
        }
        HirKind::Look(look) => Hir::look(match look {
            Look::WordUnicode => Look::WordAscii,
            Look::WordUnicodeNegate => Look::WordAsciiNegate,
            Look::WordStartUnicode => Look::WordStartAscii,
            Look::WordEndUnicode => Look::WordEndAscii,
            Look::WordStartHalfUnicode => Look::WordStartHalfAscii,
            Look::WordEndHalfUnicode => Look::WordEndHalfAscii,
            other => other,
        }),
        HirKind::Repetition(repetition) => Hir::repetition(Repetition { sub: Box::new(ascii_only(*repetition.sub)), ..repetition }),
        HirKind::Capture(capture) => Hir::capture(Capture { sub: Box::new(ascii_only(*capture.sub)), ..capture }),
        HirKind::Concat(parts) => Hir::concat(all(parts)),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
    }
}
