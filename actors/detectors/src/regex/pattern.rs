//! One pattern: what is wrong with it, what it captures, and which literals a match must contain.

use std::collections::BTreeSet;

use regex_automata::nfa::thompson::{self, NFA};
use regex_syntax::hir::{Class, Hir, HirKind};

/// A compiled pattern may take this much; a bigger one is refused.
pub(crate) const SIZE_LIMIT: usize = 1 << 20;
/// A longer pattern is refused before it is even parsed.
const TEXT_LIMIT: usize = 16 << 10;
/// Literals shorter than this are in nearly every line and tell nothing.
const SHORTEST_LITERAL: usize = 3;
/// Of a longer literal the beginning does as well.
const LONGEST_LITERAL: usize = 64;
/// At most this many literals stand for one pattern.
const MOST_LITERALS: usize = 32;

/// A pattern that is known to compile.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    /// Its named captures, and how many there are in all.
    pub(crate) names: BTreeSet<String>,
    pub(crate) groups: u32,
    /// Of each of these sets one literal is in every match, whatever the case of its ASCII letters; the most telling
    /// set comes first.
    pub(crate) choices: Vec<Vec<Vec<u8>>>,
}

impl Pattern {
    /// Reads a pattern and checks everything that can be wrong with it; the error says what and where.
    pub(crate) fn read(text: &str) -> Result<Pattern, String> {
        let (pattern, hir) = Pattern::parse(text)?;
        let config = thompson::Config::new().nfa_size_limit(Some(SIZE_LIMIT)).utf8(true);
        NFA::compiler().configure(config).build_from_hir(&hir).map_err(|error| match error.size_limit() {
            Some(_) => format!("compiles to more than {} KiB; use smaller counted repetitions or (?-u)", SIZE_LIMIT >> 10),
            None => error.to_string(),
        })?;
        Ok(pattern)
    }

    fn parse(text: &str) -> Result<(Pattern, Hir), String> {
        if text.len() > TEXT_LIMIT {
            return Err(format!("is longer than {} KiB", TEXT_LIMIT >> 10));
        }
        let hir = regex_syntax::parse(text).map_err(|error| explain(&error))?;
        if hir.properties().minimum_len() == Some(0) {
            return Err("it matches the empty text, and so every line; make it require something".to_owned());
        }
        let mut names = BTreeSet::new();
        let mut groups = 0;
        captures(&hir, &mut names, &mut groups);
        let mut choices = choices(&hir);
        choices.retain(|set| shortest(set) >= SHORTEST_LITERAL);
        choices.sort_by_key(|set| std::cmp::Reverse(telling(set)));
        Ok((Pattern { names, groups, choices }, hir))
    }

    /// The choices alone, for a pattern that has been checked.
    pub(crate) fn choices_of(text: &str) -> Vec<Vec<Vec<u8>>> {
        Pattern::parse(text).map(|(pattern, _)| pattern.choices).unwrap_or_default()
    }
}

/// The parser's own words with a column, on one line.
fn explain(error: &regex_syntax::Error) -> String {
    let (what, span) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), Some(error.span())),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), Some(error.span())),
        other => (other.to_string(), None),
    };
    match span {
        Some(span) if span.start.line > 1 => format!("{what}, at line {} column {}", span.start.line, span.start.column),
        Some(span) => format!("{what}, at column {}", span.start.column),
        None => what,
    }
}

fn captures(hir: &Hir, names: &mut BTreeSet<String>, groups: &mut u32) {
    match hir.kind() {
        HirKind::Capture(capture) => {
            *groups = (*groups).max(capture.index);
            names.extend(capture.name.as_deref().map(str::to_owned));
            captures(&capture.sub, names, groups);
        }
        HirKind::Repetition(repetition) => captures(&repetition.sub, names, groups),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().for_each(|part| captures(part, names, groups)),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => {}
    }
}

/// The most telling set of literals one of which is in every match.
fn required(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    let better = |best: Vec<Vec<u8>>, set: Vec<Vec<u8>>| if telling(&set) > telling(&best) { set } else { best };
    choices(hir).into_iter().reduce(better)
}

/// Sets of literals, in lower case: of each of them one is in every match.
fn choices(hir: &Hir) -> Vec<Vec<Vec<u8>>> {
    if let Some(whole) = exact(hir) {
        return vec![vec![shorten(whole)]];
    }
    match hir.kind() {
        HirKind::Capture(capture) => choices(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => choices(&repetition.sub),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                let Some(literals) = required(branch) else { return Vec::new() };
                all.extend(literals);
            }
            all.sort_unstable();
            all.dedup();
            if all.len() <= MOST_LITERALS { vec![all] } else { Vec::new() }
        }
        HirKind::Concat(parts) => {
            let mut sets = Vec::new();
            let mut run = Vec::new();
            for part in parts {
                if let Some(bytes) = exact(part) {
                    run.extend(bytes);
                    continue;
                }
                if !run.is_empty() {
                    sets.push(vec![shorten(std::mem::take(&mut run))]);
                }
                sets.extend(choices(part));
            }
            if !run.is_empty() {
                sets.push(vec![shorten(run)]);
            }
            sets
        }
        _ => Vec::new(),
    }
}

/// The one text this matches, but for the case of ASCII letters.
fn exact(hir: &Hir) -> Option<Vec<u8>> {
    match hir.kind() {
        HirKind::Literal(literal) => Some(literal.0.to_ascii_lowercase()),
        HirKind::Class(class) => folded_letter(class).map(|letter| vec![letter]),
        HirKind::Capture(capture) => exact(&capture.sub),
        HirKind::Concat(parts) => {
            let mut whole = Vec::new();
            for part in parts {
                whole.extend(exact(part)?);
            }
            Some(whole)
        }
        _ => None,
    }
}

/// The letter of a class that is nothing but that letter in both cases. `[Ss]` is; `(?i)s` is not,
/// because it matches ſ as well.
fn folded_letter(class: &Class) -> Option<u8> {
    let (upper, lower) = match class {
        Class::Unicode(class) => match class.ranges() {
            [a, b] if a.start() == a.end() && b.start() == b.end() => (u8::try_from(a.start()).ok()?, u8::try_from(b.start()).ok()?),
            _ => return None,
        },
        Class::Bytes(class) => match class.ranges() {
            [a, b] if a.start() == a.end() && b.start() == b.end() => (a.start(), b.start()),
            _ => return None,
        },
    };
    (upper.is_ascii_uppercase() && upper.to_ascii_lowercase() == lower).then_some(lower)
}

fn shorten(mut literal: Vec<u8>) -> Vec<u8> {
    literal.truncate(LONGEST_LITERAL);
    literal
}

fn shortest(set: &[Vec<u8>]) -> usize {
    set.iter().map(Vec::len).min().unwrap_or(0)
}

/// Orders sets: longer literals first, then fewer of them.
fn telling(set: &[Vec<u8>]) -> (usize, std::cmp::Reverse<usize>) {
    (shortest(set), std::cmp::Reverse(set.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_pattern_is_said_with_its_place() {
        for (text, expected) in [
            ("payment (failed", "unclosed group, at column 9"),
            ("a\nb[", "unclosed character class, at line 2 column 2"),
            ("a**(", "unclosed group, at column 4"),
            (r"\p{Nope}", "Unicode property not found, at column 1"),
            ("a*", "it matches the empty text, and so every line; make it require something"),
            ("^", "it matches the empty text, and so every line; make it require something"),
            ("", "it matches the empty text, and so every line; make it require something"),
            (r"\w{5000}", "compiles to more than 1024 KiB; use smaller counted repetitions or (?-u)"),
        ] {
            assert_eq!(Pattern::read(text).err().as_deref(), Some(expected), "{text}");
        }
        assert!(Pattern::read(&"x".repeat(TEXT_LIMIT + 1)).is_err());
        assert!(Pattern::read(r"payment failed for order (?P<order>\d+)").is_ok());
    }

    #[test]
    fn captures_are_known_by_name_and_number() {
        let pattern = Pattern::read(r"(?P<user>\w+) from (\d+)(?:x)(?<zone>z(y))").unwrap();
        assert_eq!(pattern.names, BTreeSet::from(["user".to_owned(), "zone".to_owned()]));
        assert_eq!(pattern.groups, 4);
    }

    #[test]
    fn the_most_telling_literal_is_found() {
        for (text, expected) in [
            (r"payment failed for order (\d+)", vec!["payment failed for order "]),
            (r"\d+ (?i:PANICKED) at", vec![" panic"]),
            (r"(?i)no space left on device", vec!["pace left on device"]),
            (r"^(error|fatal): \w+", vec!["error: "]),
            (r"(error|fatal)\d", vec!["error", "fatal"]),
            (r"(timeout|\d+)", vec![]),
            (r"(?:abc)+d?", vec!["abc"]),
            (r"x?yz\d", vec![]),
            (r"[A-Z]{4,}\d{2}", vec![]),
            (r"(Connection) reset", vec!["connection reset"]),
        ] {
            let literals: Vec<String> = Pattern::read(text)
                .unwrap()
                .choices
                .into_iter()
                .next()
                .unwrap_or_default()
                .into_iter()
                .map(|literal| String::from_utf8(literal).unwrap())
                .collect();
            let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            if text.starts_with("^(error") {
                // whichever part is chosen, a set with at least five bytes each
                assert!(literals.iter().all(|literal| literal.len() >= 5), "{literals:?}");
                continue;
            }
            assert_eq!(literals, expected, "{text}");
        }
    }
}
