//! What a search looks for: words, beginnings of words, phrases.

use opspilot_kernel::signal::SignalRef;

use crate::{batch::searched_texts, error::LedgerError, tokens::each_token};

/// The longest query, in bytes.
const MAX_LEN: usize = 1024;
/// The most terms.
const MAX_TERMS: usize = 16;

/// One term.
#[derive(Debug)]
struct Term {
    /// Finds the term anywhere, in bytes that need not be text: to pass over most signals cheaply.
    bytes: regex::bytes::Regex,
    /// The same in text.
    text: regex::Regex,
    /// A word must begin, or end, where the term does.
    begins_word: bool,
    ends_word: bool,
    /// Words that a row must have for the term to occur in it.
    tokens: Vec<u32>,
}

/// All terms; every one must occur.
#[derive(Debug)]
pub(crate) struct Query {
    terms: Vec<Term>,
}

/// Whether a character is part of a word. Beyond ASCII this is wider than the token filter's idea of a
/// word, which only ever lets more rows through.
fn in_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// A pattern for exactly this text, ASCII letters in either case. Other letters too, but for the two
/// that fold to ASCII: the token filter does not know them.
fn pattern(literal: &str) -> String {
    literal
        .chars()
        .map(|c| match c {
            c if c.is_ascii() => format!("(?i-u:{})", regex::escape(c.encode_utf8(&mut [0; 4]))),
            'ſ' | '\u{212a}' => c.to_string(),
            c => format!("(?i:{c})"),
        })
        .collect()
}

impl Term {
    fn new(literal: &str, prefix: bool) -> Result<Term, LedgerError> {
        let pattern = pattern(literal);
        let invalid = |error: regex::Error| LedgerError::Invalid(format!("cannot search for {literal:?}: {error}"));
        let mut tokens = Vec::new();
        if !prefix {
            each_token(literal, |token| tokens.push(token));
        }
        Ok(Term {
            bytes: regex::bytes::Regex::new(&pattern).map_err(invalid)?,
            text: regex::Regex::new(&pattern).map_err(invalid)?,
            begins_word: literal.chars().next().is_some_and(in_word),
            ends_word: !prefix && literal.chars().next_back().is_some_and(in_word),
            tokens,
        })
    }

    fn occurs_in(&self, text: &str) -> bool {
        let mut from = 0;
        while let Some(hit) = self.text.find_at(text, from) {
            let before = text.get(..hit.start()).and_then(|before| before.chars().next_back());
            let behind = text.get(hit.end()..).and_then(|behind| behind.chars().next());
            let inside = (self.begins_word && before.is_some_and(in_word)) || (self.ends_word && behind.is_some_and(in_word));
            if !inside {
                return true;
            }
            // occurrences may overlap: go on behind the first character of this one
            from = hit.start() + hit.as_str().chars().next().map_or(1, char::len_utf8);
        }
        false
    }
}

impl Query {
    /// Reads `q`. Nothing in it matches everything.
    pub(crate) fn parse(q: &str) -> Result<Query, LedgerError> {
        if q.len() > MAX_LEN {
            return Err(LedgerError::Invalid(format!("the query is longer than {MAX_LEN} bytes")));
        }
        let mut terms = Vec::new();
        let mut rest = q.trim_start();
        while let Some(first) = rest.chars().next() {
            let (literal, prefix, behind) = if first == '"' {
                let inside = rest.get(1..).unwrap_or("");
                let (phrase, behind) = inside.split_once('"').unwrap_or((inside, ""));
                (phrase.trim(), false, behind)
            } else {
                let (word, behind) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                match word.strip_suffix('*') {
                    Some(start) => (start, true, behind),
                    None => (word, false, behind),
                }
            };
            rest = behind.trim_start();
            if !literal.is_empty() {
                terms.push(Term::new(literal, prefix)?);
            }
        }
        if terms.len() > MAX_TERMS {
            return Err(LedgerError::Invalid(format!("the query has more than {MAX_TERMS} terms")));
        }
        Ok(Query { terms })
    }

    /// Words that a row must have.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = u32> {
        self.terms.iter().flat_map(|term| term.tokens.iter().copied())
    }

    /// Whether the bytes of a signal, or of many, may hold a match.
    pub(crate) fn may_match(&self, bytes: &[u8]) -> bool {
        self.terms.iter().all(|term| term.bytes.is_match(bytes))
    }

    /// Whether every term occurs in one of the signal's texts.
    pub(crate) fn matches(&self, signal: &SignalRef<'_>) -> bool {
        self.terms.iter().all(|term| {
            searched_texts(signal).into_iter().any(|text| term.occurs_in(text))
                || signal.labels.iter().any(|(_, value)| term.occurs_in(value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::{TokenCollector, TokenFilter};
    use opspilot_kernel::{codec::Labels, time::Timestamp};
    use proptest::prelude::*;

    fn hits(q: &str, text: &str) -> bool {
        Query::parse(q).unwrap().matches(&SignalRef::log(Timestamp::ZERO, "s", text))
    }

    #[test]
    fn words_beginnings_phrases_and_punctuation() {
        for (q, text, expected) in [
            ("", "anything", true),
            ("failed", "Order FAILED again", true),
            ("fail", "order failed", false),
            ("fail*", "order failed", true),
            ("ailed*", "order failed", false),
            ("order failed", "failed: the order", true),
            ("\"order failed\"", "failed: the order", false),
            ("\"order failed\"", "the order failed twice", true),
            ("\"order fail\"", "the order failed twice", false),
            ("order-81", "order-81 failed", true),
            ("order-81", "order 81 failed", false),
            ("order-81", "order-811 failed", false),
            ("order-81", "reorder-81 order-812 order-81.", true),
            ("order-8*", "order-81 failed", true),
            ("aa-aa", "baa-aa-aa", true),
            ("größe", "Die GRÖßE zählt", true),
            ("gr", "größe", false),
            ("x", "a x b", true),
            ("100%", "at 100% now", true),
            ("a.c", "abc", false),
            ("* \"\"", "anything", true),
            ("\"open end", "an open end", true),
        ] {
            assert_eq!(hits(q, text), expected, "{q:?} in {text:?}");
        }
    }

    #[test]
    fn label_values_and_titles_are_searched_but_not_across_each_other() {
        let labels = [("region", "eu-central")];
        let signal = SignalRef {
            title: "Checkout down",
            labels: Labels::Pairs(&labels),
            ..SignalRef::bare(opspilot_kernel::signal::SignalKind::Alert, Timestamp::ZERO, "s")
        };
        let hits = |q| Query::parse(q).unwrap().matches(&signal);
        assert!(hits("checkout eu-central") && !hits("region") && !hits("\"down eu\""));
    }

    #[test]
    fn a_query_has_bounds() {
        assert!(Query::parse(&"x".repeat(MAX_LEN + 1)).is_err());
        assert!(Query::parse(&"x ".repeat(MAX_TERMS + 1)).is_err());
    }

    proptest! {
        #[test]
        fn the_token_filter_never_hides_a_match(
            text in "[aAbBſKkß_0-9 .-]{0,24}", from in 0..24_usize, len in 1..8_usize, quoted: bool,
        ) {
            let literal: String = text.chars().skip(from).take(len).collect();
            let q = if quoted { format!("\"{literal}\"") } else { literal };
            let query = Query::parse(&q).unwrap();
            let signal = SignalRef::log(Timestamp::ZERO, "s", &text);
            if query.matches(&signal) {
                let mut words = TokenCollector::new();
                words.text(&text);
                let words = words.finish();
                let filter = TokenFilter::build(std::iter::once(words.as_slice()));
                for token in query.tokens() {
                    prop_assert!(filter.may_contain(token), "{q:?} in {text:?}");
                }
                prop_assert!(query.may_match(text.as_bytes()));
            }
        }
    }
}
