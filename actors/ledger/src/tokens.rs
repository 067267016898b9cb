//! Words of signals, hashed once, and the small filter over them that lets a search skip a row.
//!
//! A word is a run of two or more ASCII letters, digits or underscores, lower-cased. The hash is 32 bits:
//! the filter needs no more, and what it lets through is checked against the text.

use std::cell::RefCell;

/// Bits of a filter for each word. With two bits set for a word, about one row in six that lacks a word is
/// read in vain, and the filter costs two to three bytes for an ordinary log line.
const BITS_PER_TOKEN: usize = 4;
/// The largest filter of a row, in bits: 128 KiB.
const MAX_BITS: usize = 1 << 20;
const MIN_BITS: usize = 64;

/// Lower-cased byte of a word, or 0 for a byte that ends one.
const CLASS: [u8; 256] = class_table();

const fn class_table() -> [u8; 256] {
    let mut table = [0_u8; 256];
    let mut byte = 0_u8;
    loop {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            // a const block cannot use `get_mut` with `?`; the index is a u8 and the table has 256 entries
            #[allow(clippy::indexing_slicing, clippy::as_conversions, reason = "evaluated by the compiler, a u8 cannot miss 256 entries")]
            {
                table[byte as usize] = byte.to_ascii_lowercase();
            }
        }
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

/// Class of a byte; the table has an entry for every one.
#[inline]
fn class(byte: u8) -> u8 {
    CLASS.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Spreads the running sum of a word over 32 bits.
#[inline]
fn finish(sum: u64, len: u32) -> u32 {
    let mixed = (sum ^ u64::from(len)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u32::try_from(mixed >> 32).unwrap_or(0)
}

/// Calls `found` with the hash of every word of `text`.
#[inline]
pub(crate) fn each_token(text: &str, mut found: impl FnMut(u32)) {
    let mut sum = 0_u64;
    let mut len = 0_u32;
    for byte in text.bytes() {
        let class = class(byte);
        if class == 0 {
            if len > 1 {
                found(finish(sum, len));
            }
            (sum, len) = (0, 0);
        } else {
            sum = (sum.rotate_left(7)) ^ u64::from(class);
            // a rotation alone repeats after 64 bytes; the multiplication breaks long words up
            len += 1;
            if len & 7 == 0 {
                sum = sum.wrapping_mul(0xff51_afd7_ed55_8ccd);
            }
        }
    }
    if len > 1 {
        found(finish(sum, len));
    }
}

/// The hash under which a source stands that the row does not name.
pub(crate) fn source_token(source: &str) -> u32 {
    let sum = source.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    finish(sum, 0)
}

/// How many hashes the memory of recent words holds.
const RECENT: usize = 4096;

thread_local! {
    /// Words seen lately in this batch: keeps repeated words out of the list. Never wrongly drops one.
    static SEEN: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Collects the distinct words of one batch; a few repeats may remain.
#[derive(Debug, Default)]
pub(crate) struct TokenCollector {
    recent: Vec<u32>,
    tokens: Vec<u32>,
}

impl TokenCollector {
    pub(crate) fn new() -> TokenCollector {
        let mut recent = SEEN.with_borrow_mut(std::mem::take);
        recent.clear();
        recent.resize(RECENT, 0);
        TokenCollector { recent, tokens: Vec::new() }
    }

    #[inline]
    pub(crate) fn text(&mut self, text: &str) {
        each_token(text, |token| self.token(token));
    }

    #[inline]
    pub(crate) fn token(&mut self, token: u32) {
        let place = usize::try_from(token).unwrap_or(0) & (RECENT - 1);
        if let Some(slot) = self.recent.get_mut(place) {
            if *slot == token {
                return;
            }
            *slot = token;
        }
        self.tokens.push(token);
    }

    /// The words, and the scratch memory back to the thread.
    pub(crate) fn finish(self) -> Vec<u32> {
        SEEN.set(self.recent);
        self.tokens
    }
}

/// A Bloom filter over word hashes: a power of two of bits, two of them set for each word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenFilter {
    bytes: Vec<u8>,
}

impl TokenFilter {
    /// The filter of so many words, given as lists.
    pub(crate) fn build<'a>(lists: impl Iterator<Item = &'a [u32]> + Clone) -> TokenFilter {
        let count: usize = lists.clone().map(<[u32]>::len).sum();
        if count == 0 {
            return TokenFilter { bytes: Vec::new() };
        }
        // the power of two nearest to the wish, so that the cost stays between 3 and 6 bits
        let wish = count.saturating_mul(BITS_PER_TOKEN);
        let bits = (wish.saturating_mul(2) / 3).next_power_of_two().clamp(MIN_BITS, MAX_BITS);
        let mut filter = TokenFilter { bytes: vec![0; bits / 8] };
        lists.flatten().for_each(|token| filter.insert(*token));
        filter
    }

    fn places(&self, token: u32) -> [(usize, u8); 2] {
        let mask = self.bytes.len().saturating_mul(8).wrapping_sub(1);
        let second = token.wrapping_mul(0x85eb_ca6b).rotate_left(15);
        [token, second].map(|hash| {
            let bit = usize::try_from(hash).unwrap_or(0) & mask;
            (bit / 8, 1_u8 << (bit % 8))
        })
    }

    fn insert(&mut self, token: u32) {
        for (at, bit) in self.places(token) {
            if let Some(byte) = self.bytes.get_mut(at) {
                *byte |= bit;
            }
        }
    }

    /// Whether the word may be there. Never wrongly says no.
    pub(crate) fn may_contain(&self, token: u32) -> bool {
        self.places(token).iter().all(|(at, bit)| self.bytes.get(*at).is_some_and(|byte| byte & bit != 0))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The filter as it was stored.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> TokenFilter {
        TokenFilter { bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokens(text: &str) -> Vec<u32> {
        let mut found = Vec::new();
        each_token(text, |token| found.push(token));
        found
    }

    #[test]
    fn words_are_lower_cased_runs_of_at_least_two_ascii_word_bytes() {
        assert_eq!(tokens("Order-81 a FAILED"), tokens("order 81 failed"));
        assert!(tokens("x y z").is_empty());
        assert_eq!(tokens("a_b"), tokens("A_B"));
        assert_eq!(tokens("größe"), tokens("gr"), "bytes outside ASCII end a word");
        assert_ne!(tokens("abcdefgh"), tokens("abcdefgi"));
        assert_ne!(tokens("ab"), tokens("ba"));
    }

    proptest! {
        #[test]
        fn a_filter_never_denies_a_word_it_holds(texts in proptest::collection::vec("[a-zA-Z0-9_ .-]{0,80}", 1..30)) {
            let mut collector = TokenCollector::new();
            texts.iter().for_each(|text| collector.text(text));
            let list = collector.finish();
            let filter = TokenFilter::build(std::iter::once(list.as_slice()));
            for token in texts.iter().flat_map(|text| tokens(text)) {
                prop_assert!(filter.may_contain(token));
            }
        }
    }

    #[test]
    fn a_filter_denies_most_words_it_does_not_hold() {
        let held: Vec<u32> = (0..5000).flat_map(|n| tokens(&format!("word{n}"))).collect();
        let filter = TokenFilter::build(std::iter::once(held.as_slice()));
        assert!(filter.bytes().len() * 8 <= held.len() * 6, "{} bytes", filter.bytes().len());
        let wrong = (0..5000).flat_map(|n| tokens(&format!("other{n}"))).filter(|token| filter.may_contain(*token)).count();
        assert!(wrong < 5000 / 4, "{wrong} of 5000 words got through");
    }
}
