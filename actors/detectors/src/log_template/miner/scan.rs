//! A line in words, masked and hashed in one pass.
//!
//! Words end at white space, and behind the `=` of `key=value`, so that a key stays what it is whatever its value. A
//! number takes the unit behind it along (`3 KB` and `87 B` are one shape), and a repetition of it in other words in
//! parentheses (`2048 bytes (2 KB)`). A list of words of one shape counts as one of them, however long it is.

use serde::{Deserialize, Serialize};

use super::mask::{self, ALNUM, DIGIT, EQUALS, Mask, SLASH, SPACE, Sink, class};

/// What is done with a word when shapes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Kind {
    /// As it stands in the line.
    Constant,
    /// A word with a number behind it, such as `node17`: two such words that differ differ like constants.
    Numbered,
    /// Data, for the most part.
    Data,
}

/// One word of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    pub(super) hash: u64,
    pub(super) kind: Kind,
    /// Whether white space stands before it.
    pub(super) spaced: bool,
    /// Whether more words of its shape follow.
    pub(super) repeated: bool,
    start: usize,
    end: usize,
    /// What follows the unit that was taken along.
    tail: (usize, usize),
    number_last: bool,
}

impl Word {
    /// Writes the word as it is in a template.
    pub(super) fn write(&self, line: &[u8], most: usize, out: &mut String) {
        let from = out.len();
        let mut text = Text(out);
        match self.kind {
            Kind::Data if self.hash == DATE => text.0.push_str("<DATE>"),
            Kind::Constant => text.literal(line.get(self.start..self.end).unwrap_or_default()),
            Kind::Numbered | Kind::Data => {
                mask::mask(line.get(self.start..self.end).unwrap_or_default(), &mut text);
                text.literal(line.get(self.tail.0..self.tail.1).unwrap_or_default());
            }
        }
        if out.len() - from > most {
            let end = (from..=from + most).rev().find(|end| out.is_char_boundary(*end)).unwrap_or(from);
            out.truncate(end);
            out.push('…');
        }
    }

    /// The word as it stands in the line, with its unit.
    pub(super) fn raw<'a>(&self, line: &'a str) -> &'a str {
        line.get(self.start..self.end.max(self.tail.1)).unwrap_or_default()
    }
}

struct Text<'a>(&'a mut String);

impl Sink for Text<'_> {
    fn literal(&mut self, bytes: &[u8]) {
        self.0.push_str(&String::from_utf8_lossy(bytes));
    }

    fn mask(&mut self, mask: Mask) {
        self.0.push_str(mask.name());
    }
}

/// How lines are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scanner {
    bytes: usize,
    words: usize,
    /// The hashes of a bare number, and of one in parentheses.
    number: u64,
    restated: u64,
}

impl Scanner {
    /// Looks at so many bytes and words of a line.
    pub(super) fn new(bytes: usize, words: usize) -> Scanner {
        let of = |word: &[u8]| {
            let mut sink = Hash(SEED);
            mask::mask(word, &mut sink);
            sink.0
        };
        Scanner { bytes, words, number: of(b"1"), restated: of(b"(1)") }
    }

    /// The words of `line`, and the hash of them all. What is beyond the bounds is left out; that it was is part of the
    /// hash.
    #[inline]
    pub(super) fn scan(&self, line: &str, words: &mut Vec<Word>) -> Shape {
        words.clear();
        let line = line.as_bytes();
        let mut cut = line.len() > self.bytes;
        let line = line.get(..self.bytes).unwrap_or(line);
        let mut open = Open { scanner: self, words, hash: SEED, unsettled: false };
        let (mut at, mut spaced) = (0, true);
        while let Some(&byte) = line.get(at) {
            if class(byte) & SPACE != 0 {
                at += 1;
                spaced = true;
                continue;
            }
            if open.words.len() >= self.words {
                cut = true;
                break;
            }
            let start = at;
            let (mut any, mut before) = (0, 0);
            while let Some(kind) = line.get(at).map(|byte| class(*byte)).filter(|kind| kind & SPACE == 0) {
                any |= kind;
                at += 1;
                if kind & EQUALS != 0 && before & ALNUM != 0 && line.get(at).is_some_and(|next| class(*next) & (SPACE | EQUALS) == 0) {
                    break;
                }
                before = kind;
            }
            open.take(line, start, at, any, spaced);
            spaced = false;
        }
        open.settle();
        Shape { hash: fold(open.hash ^ u64::from(cut), SEED), cut }
    }
}

/// What a line comes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) hash: u64,
    /// Whether the line is longer than what was looked at.
    pub(super) cut: bool,
}

struct Open<'a> {
    scanner: &'a Scanner,
    words: &'a mut Vec<Word>,
    hash: u64,
    /// Whether something may still be added to the last word.
    unsettled: bool,
}

impl Open<'_> {
    #[inline]
    fn take(&mut self, line: &[u8], start: usize, end: usize, any: u8, spaced: bool) {
        let bytes = line.get(start..end).unwrap_or_default();
        if self.unsettled && spaced && any & DIGIT == 0 && bytes.len() <= 10 && self.takes_unit(bytes, start) {
            return;
        }
        self.settle();
        let mut word = Word { hash: 0, kind: Kind::Constant, spaced, repeated: false, start, end, tail: (end, end), number_last: false };
        if any & DIGIT == 0 {
            if bytes.len() <= 4 && mask::is_date_word(bytes) {
                word.hash = DATE;
                word.kind = Kind::Data;
            } else {
                word.hash = hash(bytes, SEED);
            }
        } else {
            let mut sink = Hash(SEED);
            let seen = mask::mask(bytes, &mut sink);
            word.hash = sink.0;
            word.number_last = seen.number_last;
            word.kind = match seen.masks {
                0 => Kind::Constant,
                1 if seen.number_last && !seen.leads => Kind::Numbered,
                _ => Kind::Data,
            };
        }
        if any & SLASH != 0 && bytes.iter().filter(|byte| **byte == b'/').nth(1).is_some() {
            word.kind = Kind::Data;
        }
        self.words.push(word);
        self.unsettled = true;
    }

    /// Adds the unit that `bytes` begins with, if it does, to the number before it.
    fn takes_unit(&mut self, bytes: &[u8], start: usize) -> bool {
        let Some(last) = self.words.last_mut().filter(|last| last.number_last) else { return false };
        let end = bytes.iter().position(|byte| class(*byte) & ALNUM == 0 && *byte != b'%').unwrap_or(bytes.len());
        let (Some(unit), Some(rest)) = (bytes.get(..end), bytes.get(end..)) else { return false };
        if !mask::is_unit_word(unit) {
            return false;
        }
        last.tail = (start + end, start + bytes.len());
        last.number_last = false;
        if !rest.is_empty() {
            last.hash = hash(rest, last.hash);
        }
        true
    }

    /// Settles the last word: nothing can be added to it any more.
    #[inline]
    fn settle(&mut self) {
        if !std::mem::take(&mut self.unsettled) {
            return;
        }
        if let [.., before, last] = self.words.as_mut_slice()
            && last.kind != Kind::Constant
            && last.spaced
        {
            let listed = before.hash == last.hash;
            if listed || (before.hash == self.scanner.number && last.hash == self.scanner.restated) {
                if listed && !before.repeated {
                    before.repeated = true;
                }
                self.words.pop();
                return;
            }
        }
        if let Some(last) = self.words.last() {
            self.hash = fold(self.hash ^ last.hash, FOLD);
        }
    }
}

/// Hashes a word piece by piece.
struct Hash(u64);

impl Sink for Hash {
    #[inline]
    fn literal(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes, self.0);
    }

    #[inline]
    fn mask(&mut self, mask: Mask) {
        self.0 = fold(self.0 ^ mask.code(), FOLD);
    }
}

/// Stands for the name of a month or a day.
const DATE: u64 = 0x5DA7_E5DA_7E5D_A7E5;
const SEED: u64 = 0x9E37_79B9_7F4A_7C15;
const FOLD: u64 = 0xD6E8_FEB8_6659_FD93;

/// Mixes by a folded multiplication: the high half of the product on the low half (the idea of wyhash).
#[inline]
#[allow(clippy::as_conversions, reason = "the two halves are what is wanted")]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

/// The hash of `bytes`, with all that `seed` stands for before them.
#[inline]
fn hash(bytes: &[u8], seed: u64) -> u64 {
    let mut sum = seed ^ u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let (whole, rest) = bytes.as_chunks::<8>();
    for chunk in whole {
        sum = fold(sum ^ u64::from_le_bytes(*chunk), FOLD);
    }
    if rest.is_empty() {
        return sum;
    }
    let tail = rest.iter().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
    fold(sum ^ tail, FOLD)
}
