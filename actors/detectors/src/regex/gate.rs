//! Finds the patterns that match a line without trying them all.
//!
//! Every match of a pattern contains one of its required literals. One pass of an Aho-Corasick
//! automaton over the line finds the literals of all patterns at once; only patterns whose literal
//! is there are tried, and compiled the first time that happens. The few without a telling literal
//! are tried together as a set. So a line that concerns no rule costs one pass, however many rules
//! there are, and a rule that never comes near a match costs no more than its literal.

use std::{
    cell::{Cell, OnceCell},
    collections::BTreeMap,
};

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind, automaton::OverlappingState};
use regex::{Regex, RegexSet, RegexSetBuilder};

use super::pattern::{self, Pattern};

/// What all patterns without a literal may take together; beyond it they are tried one by one.
const SET_LIMIT: usize = 16 << 20;
/// Up to so many bytes of literals the automaton is fully built: twice as fast, and some 8 MiB.
const DENSE_LITERALS: usize = 64 << 10;

/// A set of patterns, numbered in the order given.
pub(crate) struct Gate {
    patterns: Vec<Lazy>,
    literals: Option<AhoCorasick>,
    /// For each literal the patterns that require it.
    owners: Vec<Vec<usize>>,
    /// Patterns without a literal, and the set of them if it could be built.
    always: Vec<usize>,
    set: Option<RegexSet>,
    overlapping: OverlappingState,
    candidates: Vec<usize>,
    matched: Vec<usize>,
    compiled: Cell<usize>,
}

struct Lazy {
    text: String,
    compiled: OnceCell<Option<Regex>>,
}

impl Lazy {
    fn regex(&self, count: &Cell<usize>) -> Option<&Regex> {
        let compile = || {
            count.set(count.get() + 1);
            pattern::compile(&self.text)
        };
        self.compiled.get_or_init(compile).as_ref()
    }

    fn is_match(&self, line: &str, count: &Cell<usize>) -> bool {
        self.regex(count).is_some_and(|regex| regex.is_match(line))
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("patterns", &self.patterns.len()).field("always", &self.always.len()).finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate for patterns that have been checked.
    pub(crate) fn new(texts: Vec<String>) -> Gate {
        let mut by_literal: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        let mut always = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            let literals = Pattern::literals_of(text);
            if literals.is_empty() {
                always.push(number);
            }
            for literal in literals {
                by_literal.entry(literal).or_default().push(number);
            }
        }
        let patterns: Vec<Lazy> = texts.into_iter().map(|text| Lazy { text, compiled: OnceCell::new() }).collect();
        let mut gate = Gate {
            patterns,
            literals: None,
            owners: Vec::new(),
            always,
            set: None,
            overlapping: OverlappingState::start(),
            candidates: Vec::new(),
            matched: Vec::new(),
            compiled: Cell::new(0),
        };
        gate.build(by_literal);
        gate
    }

    fn build(&mut self, by_literal: BTreeMap<Vec<u8>, Vec<usize>>) {
        if self.always.len() > 1 {
            let texts = self.always.iter().filter_map(|number| self.patterns.get(*number)).map(|lazy| &lazy.text);
            self.set = RegexSetBuilder::new(texts).size_limit(SET_LIMIT).dfa_size_limit(SET_LIMIT / 4).build().ok();
        }
        if by_literal.is_empty() {
            return;
        }
        let dense = by_literal.keys().map(Vec::len).sum::<usize>() <= DENSE_LITERALS;
        self.literals = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .kind(dense.then_some(AhoCorasickKind::DFA))
            .build(by_literal.keys())
            .ok();
        if self.literals.is_none() {
            // too many literals for an automaton: then every pattern is tried, slowly but rightly
            self.always = (0..self.patterns.len()).collect();
            self.set = None;
        }
        self.owners = by_literal.into_values().collect();
    }

    /// The numbers of the patterns that match the line, ascending.
    pub(crate) fn matches(&mut self, line: &str) -> &[usize] {
        self.matched.clear();
        if let Some(literals) = &self.literals
            && literals.is_match(line)
        {
            self.candidates.clear();
            self.overlapping = OverlappingState::start();
            let input = Input::new(line);
            loop {
                if literals.try_find_overlapping(input.clone(), &mut self.overlapping).is_err() {
                    break;
                }
                let Some(hit) = self.overlapping.get_match() else { break };
                self.candidates.extend(self.owners.get(hit.pattern().as_usize()).into_iter().flatten());
            }
            self.candidates.sort_unstable();
            self.candidates.dedup();
            let (patterns, compiled) = (&self.patterns, &self.compiled);
            let is_match = |number: &&usize| patterns.get(**number).is_some_and(|lazy| lazy.is_match(line, compiled));
            self.matched.extend(self.candidates.iter().filter(is_match));
        }
        if !self.always.is_empty() {
            match &self.set {
                Some(set) => self.matched.extend(set.matches(line).into_iter().filter_map(|place| self.always.get(place))),
                None => {
                    let (patterns, compiled) = (&self.patterns, &self.compiled);
                    let is_match = |number: &&usize| patterns.get(**number).is_some_and(|lazy| lazy.is_match(line, compiled));
                    self.matched.extend(self.always.iter().filter(is_match));
                }
            }
            self.matched.sort_unstable();
        }
        &self.matched
    }

    /// The compiled pattern, for its captures.
    pub(crate) fn regex(&self, number: usize) -> Option<&Regex> {
        self.patterns.get(number)?.regex(&self.compiled)
    }

    /// How many patterns have been compiled so far.
    pub(crate) fn compiled(&self) -> usize {
        self.compiled.get()
    }
}
