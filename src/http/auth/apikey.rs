//! API keys as text: `opk_`, 22 random characters, 6 that check them.
//!
//! The checksum lets us (and secret scanners) tell a key from any other text
//! without asking the database. Only the SHA-256 of a key is stored: with 131
//! random bits there is nothing to guess.

use sha2::{Digest as _, Sha256};

const PREFIX: &str = "opk_";
const RANDOM: usize = 22;
const CHECK: usize = 6;
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

fn letters(bytes: impl IntoIterator<Item = u8>, count: usize) -> String {
    // 248 is the largest multiple of 62 below 256: what lies above is skipped, so that no letter is likelier
    bytes
        .into_iter()
        .filter(|byte| *byte < 248)
        .filter_map(|byte| LETTERS.get(usize::from(byte % 62)))
        .take(count)
        .map(|letter| char::from(*letter))
        .collect()
}

/// An endless stream of bytes that follows from a seed.
fn stream(seed: &[u8]) -> impl Iterator<Item = u8> {
    let seed = seed.to_vec();
    (0_u32..).flat_map(move |counter| {
        let mut hash = Sha256::new();
        hash.update(&seed);
        hash.update(counter.to_le_bytes());
        hash.finalize()
    })
}

fn check(random: &str) -> String {
    letters(stream(random.as_bytes()), CHECK)
}

/// The key that follows from 256 secret bits.
pub fn from_secret(secret: &[u8; 32]) -> String {
    let random = letters(stream(secret), RANDOM);
    let check = check(&random);
    format!("{PREFIX}{random}{check}")
}

/// Whether the text can be a key at all.
pub fn is_well_formed(text: &str) -> bool {
    let Some((random, own)) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_at_checked(RANDOM)) else {
        return false;
    };
    random.bytes().all(|byte| byte.is_ascii_alphanumeric()) && own == check(random)
}

/// What is stored of a key.
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_opk_and_28_characters_that_check_themselves() {
        let key = from_secret(&[7; 32]);
        assert_eq!((key.len(), &key[..4]), (32, "opk_"));
        assert!(is_well_formed(&key));
        assert_eq!(key, from_secret(&[7; 32]));
        assert_ne!(key, from_secret(&[8; 32]));
        for at in 4..32 {
            let mut typo = key.clone().into_bytes();
            typo[at] = if typo[at] == b'x' { b'y' } else { b'x' };
            assert!(!is_well_formed(&String::from_utf8(typo).unwrap()), "typo at {at}");
        }
        for bad in ["", "opk_", "opk_short", "opk_ééééééééééééééééééé", &key[..31], &format!("{key}0")] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }
}
