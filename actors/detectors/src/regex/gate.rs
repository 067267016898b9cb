//! Finds the patterns that match a line without trying them all.
//!
//! Every match of a pattern contains one of its required literals. One pass of an Aho-Corasick
//! automaton over the line finds the literals of all patterns at once; only patterns whose literal
//! is there are tried, and compiled the first time that happens. Where a pattern has several literals
//! to choose from, one is taken that few others share; those that share one all the same are tried
//! together, as a set, and so are the few without a telling literal. So a line that concerns no rule
//! costs one pass, however many rules there are, and a rule that never comes near a match costs no
//! more than its literal.

use std::collections::{BTreeMap, HashMap};

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind, automaton::OverlappingState};
use regex_automata::util::captures::Captures;

use super::{
    engine::{Engines, Set},
    pattern::Pattern,
};

/// Up to so many bytes of literals the automaton is fully built: twice as fast, and some 8 MiB.
const DENSE_LITERALS: usize = 64 << 10;
/// If there are more, the literals are cut to this many bytes, one after the other, until they fit.
const SHORTER: [usize; 4] = [32, 24, 16, 12];
/// Patterns that share a literal are tried one by one up to so many, and beyond that together.
const CROWD: usize = 16;

/// From this length on a literal is rare enough to be preferred to a longer one that more patterns share.
const TELLING: usize = 6;

/// A set of patterns, numbered in the order given.
pub(crate) struct Gate {
    engines: Engines,
    literals: Option<AhoCorasick>,
    /// For each literal the patterns that require it.
    owners: Vec<Owners>,
    crowds: Vec<Crowd>,
    /// Patterns without a literal.
    always: Crowd,
    overlapping: OverlappingState,
    candidates: Vec<usize>,
    called: Vec<usize>,
    matched: Vec<usize>,
}

/// Who requires a literal.
enum Owners {
    Few(Vec<usize>),
    /// A crowd, by number.
    Many(usize),
}

/// Patterns that are tried together.
struct Crowd {
    numbers: Vec<usize>,
    set: Set,
}

impl Crowd {
    fn new(numbers: Vec<usize>, engines: &Engines) -> Crowd {
        Crowd { set: engines.set(&numbers), numbers }
    }

    /// Appends those that match.
    fn matches(&mut self, line: &str, places: &mut Vec<usize>, matched: &mut Vec<usize>) {
        places.clear();
        self.set.matches(line, places);
        matched.extend(places.iter().filter_map(|place| self.numbers.get(*place)));
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("patterns", &self.engines.len())
            .field("crowds", &self.crowds.len())
            .field("always", &self.always.numbers.len())
            .finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate for patterns that have been checked.
    pub(crate) fn new(texts: Vec<String>) -> Gate {
        let chosen = choose(texts.iter().map(|text| Pattern::choices_of(text)).collect());
        let mut by_literal = gathered(&chosen, usize::MAX);
        for limit in SHORTER {
            if by_literal.keys().map(Vec::len).sum::<usize>() > DENSE_LITERALS {
                by_literal = gathered(&chosen, limit);
            }
        }
        let literals = automaton(&by_literal);
        let all = 0..texts.len();
        let always = match literals {
            Some(_) => all.filter(|number| chosen.get(*number).is_none_or(Vec::is_empty)).collect(),
            // too many literals for an automaton: then every pattern is tried, slowly but rightly
            None => all.collect(),
        };
        let engines = Engines::new(texts);
        let mut crowds: Vec<Crowd> = Vec::new();
        let owners = by_literal.into_values().map(|owners| {
            if owners.len() <= CROWD {
                return Owners::Few(owners);
            }
            // of literals that stand for the same patterns, as the branches of an alternation do, one crowd is enough
            let known = crowds.iter().position(|crowd| crowd.numbers == owners);
            Owners::Many(known.unwrap_or_else(|| {
                crowds.push(Crowd::new(owners, &engines));
                crowds.len() - 1
            }))
        });
        Gate {
            owners: owners.collect(),
            crowds,
            always: Crowd::new(always, &engines),
            engines,
            literals,
            overlapping: OverlappingState::start(),
            candidates: Vec::new(),
            called: Vec::new(),
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
            self.called.clear();
            self.overlapping = OverlappingState::start();
            let input = Input::new(line);
            while literals.try_find_overlapping(input.clone(), &mut self.overlapping).is_ok()
                && let Some(hit) = self.overlapping.get_match()
            {
                match self.owners.get(hit.pattern().as_usize()) {
                    Some(Owners::Few(numbers)) => self.candidates.extend(numbers),
                    Some(Owners::Many(crowd)) => self.called.push(*crowd),
                    None => {}
                }
            }
            self.candidates.sort_unstable();
            self.candidates.dedup();
            self.matched.extend(self.candidates.iter().filter(|number| engines.is_match(**number, line)));
            self.called.sort_unstable();
            self.called.dedup();
            for called in &self.called {
                if let Some(crowd) = self.crowds.get_mut(*called) {
                    crowd.matches(line, &mut self.candidates, &mut self.matched);
                }
            }
        }
        match self.always.numbers.as_slice() {
            [] => {}
            [one] => self.matched.extend(Some(*one).filter(|number| engines.is_match(*number, line))),
            _ => self.always.matches(line, &mut self.candidates, &mut self.matched),
        }
        self.matched.sort_unstable();
        self.matched.dedup();
        &self.matched
    }

    /// What a pattern captures in a line that it matches.
    pub(crate) fn captures(&self, number: usize, line: &str) -> Option<Captures> {
        self.engines.captures(number, line)
    }

    /// What literals and compiled patterns take.
    pub(crate) fn bytes(&self) -> usize {
        let sets: usize = self.crowds.iter().chain([&self.always]).map(|crowd| crowd.set.bytes()).sum();
        let literals = self.literals.as_ref().map_or(0, AhoCorasick::memory_usage);
        sets.saturating_add(literals).saturating_add(self.engines.bytes())
    }

    /// How many patterns have been compiled so far.
    pub(crate) fn compiled(&self) -> usize {
        self.engines.compiled()
    }
}

/// For each pattern the set of literals that stands for it: the most telling one of those that few other patterns share.
fn choose(choices: Vec<Vec<Vec<Vec<u8>>>>) -> Vec<Vec<Vec<u8>>> {
    let mut shared: HashMap<&[u8], usize> = HashMap::new();
    for literal in choices.iter().flatten().flatten() {
        *shared.entry(literal).or_default() += 1;
    }
    let company = |set: &Vec<Vec<u8>>| set.iter().filter_map(|literal| shared.get(literal.as_slice())).max().copied().unwrap_or(0);
    let best = |sets: &Vec<Vec<Vec<u8>>>| {
        // the first is the most telling; a short one is in too many lines to be worth its being shared by few
        let long = |set: &&Vec<Vec<u8>>| set.iter().all(|literal| literal.len() >= TELLING);
        let apart = sets.iter().filter(long).find(|set| company(set) <= CROWD);
        apart.or(sets.first()).cloned().unwrap_or_default()
    };
    choices.iter().map(best).collect()
}

/// The patterns by literal, of each of which `limit` bytes count.
fn gathered(chosen: &[Vec<Vec<u8>>], limit: usize) -> BTreeMap<Vec<u8>, Vec<usize>> {
    let mut by_literal: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for (number, literals) in chosen.iter().enumerate() {
        for literal in literals {
            let owners = by_literal.entry(literal.iter().copied().take(limit).collect()).or_default();
            if owners.last() != Some(&number) {
                owners.push(number);
            }
        }
    }
    by_literal
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
