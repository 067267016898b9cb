//! Finds the patterns that match a line without trying them all.
//!
//! Every match of a pattern contains one of its required literals. One pass of an Aho-Corasick
//! automaton over the line finds the literals of all patterns at once; only patterns whose literal
//! is there are tried, and compiled the first time that happens. The few without a telling literal
//! are tried together as a set. So a line that concerns no rule costs one pass, however many rules
//! there are, and a rule that never comes near a match costs no more than its literal.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind, automaton::OverlappingState};
use regex_automata::util::captures::Captures;

use super::{
    engine::{Engines, Set},
    pattern::Pattern,
};

/// Up to so many bytes of literals the automaton is fully built: twice as fast, and some 8 MiB.
const DENSE_LITERALS: usize = 64 << 10;

/// A set of patterns, numbered in the order given.
pub(crate) struct Gate {
    engines: Engines,
    literals: Option<AhoCorasick>,
    /// For each literal the patterns that require it.
    owners: Vec<Vec<usize>>,
    /// Patterns without a literal, and the same as a set.
    always: Vec<usize>,
    set: Set,
    overlapping: OverlappingState,
    candidates: Vec<usize>,
    matched: Vec<usize>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("patterns", &self.engines.len()).field("always", &self.always.len()).finish_non_exhaustive()
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
        let literals = automaton(&by_literal);
        if literals.is_none() {
            // too many literals for an automaton: then every pattern is tried, slowly but rightly
            always = (0..texts.len()).collect();
        }
        let engines = Engines::new(texts);
        Gate {
            set: engines.set(&always),
            engines,
            literals,
            owners: by_literal.into_values().collect(),
            always,
            overlapping: OverlappingState::start(),
            candidates: Vec::new(),
            matched: Vec::new(),
        }
    }

    /// The numbers of the patterns that match the line, ascending.
    pub(crate) fn matches(&mut self, line: &str) -> &[usize] {
        self.matched.clear();
        let engines = &self.engines;
        if let Some(literals) = &self.literals
            && literals.is_match(line)
        {
            self.candidates.clear();
            self.overlapping = OverlappingState::start();
            let input = Input::new(line);
            while literals.try_find_overlapping(input.clone(), &mut self.overlapping).is_ok()
                && let Some(hit) = self.overlapping.get_match()
            {
                self.candidates.extend(self.owners.get(hit.pattern().as_usize()).into_iter().flatten());
            }
            self.candidates.sort_unstable();
            self.candidates.dedup();
            self.matched.extend(self.candidates.iter().filter(|number| engines.is_match(**number, line)));
        }
        match self.always.as_slice() {
            [] => return &self.matched,
            [one] => self.matched.extend(Some(*one).filter(|number| engines.is_match(*number, line))),
            several => {
                self.candidates.clear();
                self.set.matches(line, &mut self.candidates);
                self.matched.extend(self.candidates.iter().filter_map(|place| several.get(*place)));
            }
        }
        self.matched.sort_unstable();
        &self.matched
    }

    /// What a pattern captures in a line that it matches.
    pub(crate) fn captures(&self, number: usize, line: &str) -> Option<Captures> {
        self.engines.captures(number, line)
    }

    /// How many patterns have been compiled so far.
    pub(crate) fn compiled(&self) -> usize {
        self.engines.compiled()
    }
}

fn automaton(by_literal: &BTreeMap<Vec<u8>, Vec<usize>>) -> Option<AhoCorasick> {
    let dense = by_literal.keys().map(Vec::len).sum::<usize>() <= DENSE_LITERALS;
    AhoCorasick::builder()
        .match_kind(MatchKind::Standard)
        .ascii_case_insensitive(true)
        .kind(dense.then_some(AhoCorasickKind::DFA))
        .build(by_literal.keys())
        .ok()
}
