//! Checkpoints as signed notes: the text formats of <https://c2sp.org/tlog-checkpoint> and
//! <https://c2sp.org/signed-note>.
//!
//! ```text
//! opspilot.local/3f0c…/audit
//! 1234
//! 2KYTF9+aKqNIuHgyKqcj0+yTQIPUhGQO2ahYKcgFr50=
//!
//! — opspilot.local/3f0c…/audit XgHV0y5h…
//! ```
//!
//! The text that is signed ends with the newline before the empty line. A signature line names the key, and holds in
//! base64 the first four bytes of `SHA-256(name ‖ "\n" ‖ 0x01 ‖ public key)` followed by the signature. Lines of keys that
//! nobody asked for (witnesses) are left alone.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use sha2::{Digest as _, Sha256};

use super::tree::Hash;
use crate::keyfile::{KeyFile, kid_of};

/// No note of ours comes near this; longer ones are not looked at.
pub(crate) const MAX_NOTE: usize = 16 << 10;
const ED25519: u8 = 0x01;

/// The text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) &'static str);

/// The name of the audit log of an instance, in checkpoints and as the name of its keys.
pub fn origin_of(instance: &str) -> String {
    format!("opspilot.local/{instance}/audit")
}

/// How many entries a log has, and the root over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// How many entries.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
}

impl fmt::Display for Checkpoint {
    /// The text that is signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.size, STANDARD.encode(self.root))
    }
}

impl Checkpoint {
    fn parse(text: &str) -> Result<Checkpoint, Malformed> {
        let text = text.strip_suffix('\n').ok_or(Malformed("the text does not end with a newline"))?;
        let lines: Vec<&str> = text.split('\n').collect();
        let [origin, size, root] = lines.as_slice() else { return Err(Malformed("a checkpoint has three lines: origin, size, root")) };
        if origin.is_empty() {
            return Err(Malformed("the origin is empty"));
        }
        let decimal = size.bytes().all(|byte| byte.is_ascii_digit()) && (*size == "0" || !size.starts_with('0'));
        let size = if decimal { size.parse().ok() } else { None };
        let size = size.ok_or(Malformed("the size is no number"))?;
        let root = STANDARD.decode(root).ok().and_then(|root| root.try_into().ok());
        let root = root.ok_or(Malformed("the root is not 32 bytes in base64"))?;
        Ok(Checkpoint { origin: (*origin).to_owned(), size, root })
    }

    /// Signs it with a key that bears the log's own name. The same checkpoint gives the same note each time.
    pub fn sign(&self, key: &KeyFile) -> SignedNote {
        let public = PublicKey::of(&self.origin, key);
        let text = self.to_string();
        let mut signature = public.hash().to_vec();
        signature.extend_from_slice(&key.signing().sign(text.as_bytes()).to_bytes());
        let text = format!("{text}\n\u{2014} {} {}\n", self.origin, STANDARD.encode(&signature));
        SignedNote { text, checkpoint: self.clone(), signatures: vec![Line { name: self.origin.clone(), signature }] }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    name: String,
    /// Four bytes that name the key, and the signature.
    signature: Vec<u8>,
}

/// A checkpoint with its signatures, as it was read. Nothing is verified by that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    text: String,
    checkpoint: Checkpoint,
    signatures: Vec<Line>,
}

impl SignedNote {
    /// Reads a note. Whatever it does not take is malformed by the specification or has nothing to do with this log.
    pub fn parse(bytes: &[u8]) -> Result<SignedNote, Malformed> {
        if bytes.len() > MAX_NOTE {
            return Err(Malformed("the note is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed("the note is not UTF-8"))?;
        if text.chars().any(|c| c < ' ' && c != '\n') {
            return Err(Malformed("the note holds a control character"));
        }
        let cut = text.rfind("\n\n").ok_or(Malformed("no empty line before the signatures"))?;
        let (Some(body), Some(lines)) = (text.get(..=cut), text.get(cut + 2..)) else { return Err(Malformed("cut inside a character")) };
        let lines = lines.strip_suffix('\n').ok_or(Malformed("the last signature does not end with a newline"))?;
        let signatures = lines.split('\n').map(line).collect::<Result<Vec<_>, _>>()?;
        Ok(SignedNote { checkpoint: Checkpoint::parse(body)?, text: text.to_owned(), signatures })
    }

    /// What it says.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note as it is stored and handed on.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether `key` signed it; nothing if there is no signature by a key of that name and hash.
    pub fn signed_by(&self, key: &PublicKey) -> Option<bool> {
        let (hash, text) = (key.hash(), self.checkpoint.to_string());
        let mut ours =
            self.signatures.iter().filter(|line| line.name == key.name).filter_map(|line| line.signature.split_first_chunk::<4>());
        let (_, signature) = ours.find(|(named, _)| **named == hash)?;
        let signature = <[u8; 64]>::try_from(signature).ok();
        Some(signature.is_some_and(|bytes| key.key.verify_strict(text.as_bytes(), &Signature::from_bytes(&bytes)).is_ok()))
    }
}

fn line(line: &str) -> Result<Line, Malformed> {
    let rest = line.strip_prefix("\u{2014} ").ok_or(Malformed("a signature line begins with an em dash and a space"))?;
    let (name, signature) = rest.split_once(' ').ok_or(Malformed("a signature line lacks its signature"))?;
    if !is_name(name) {
        return Err(Malformed("the name of a key is empty or holds a space or a plus"));
    }
    let signature = STANDARD.decode(signature).map_err(|_| Malformed("a signature is not base64"))?;
    if signature.len() <= 4 {
        return Err(Malformed("a signature is too short"));
    }
    Ok(Line { name: name.to_owned(), signature })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c == '+')
}

/// What signatures are checked with, under the name that the signatures bear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    key: VerifyingKey,
}

impl PublicKey {
    /// The public part of a key, for the log `origin`.
    pub fn of(origin: &str, key: &KeyFile) -> PublicKey {
        PublicKey { name: origin.to_owned(), key: key.signing().verifying_key() }
    }

    /// A key from its bytes; nothing if they are no point of the curve.
    pub fn from_bytes(origin: &str, bytes: &[u8; 32]) -> Option<PublicKey> {
        Some(PublicKey { name: origin.to_owned(), key: VerifyingKey::from_bytes(bytes).ok()? })
    }

    /// Reads a verifier key: `<name>+<hash in hex>+<base64 of 0x01 and the key>`.
    pub fn parse(text: &str) -> Result<PublicKey, Malformed> {
        let parts: Vec<&str> = text.splitn(3, '+').collect();
        let [name, hash, key] = parts.as_slice() else { return Err(Malformed("a public key is written name+hash+key")) };
        let bytes = STANDARD.decode(key).map_err(|_| Malformed("the public key is not base64"))?;
        let Some((&ED25519, bytes)) = bytes.split_first() else { return Err(Malformed("not an Ed25519 key")) };
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| Malformed("the public key is not 32 bytes"))?;
        let public = PublicKey::from_bytes(name, &bytes).ok_or(Malformed("the public key is no point of the curve"))?;
        if !is_name(name) || hex::encode(public.hash()) != *hash {
            return Err(Malformed("name, hash and key do not belong together"));
        }
        Ok(public)
    }

    /// The name that its signatures bear: the origin of the log.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the key itself.
    pub fn kid(&self) -> String {
        kid_of(self.key.as_bytes())
    }

    /// Its 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        self.key.as_bytes()
    }

    fn hash(&self) -> [u8; 4] {
        let mut hash = Sha256::new();
        hash.update(self.name.as_bytes());
        hash.update([b'\n', ED25519]);
        hash.update(self.key.as_bytes());
        hash.finalize().first_chunk::<4>().copied().unwrap_or_default()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Vec<u8> = std::iter::once(ED25519).chain(self.key.to_bytes()).collect();
        write!(f, "{}+{}+{}", self.name, hex::encode(self.hash()), STANDARD.encode(key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keyfile::KeyPurpose;

    fn signed(size: u64) -> (SignedNote, PublicKey) {
        let key = KeyFile::random(KeyPurpose::Audit);
        let checkpoint = Checkpoint { origin: origin_of("0123"), size, root: [7; 32] };
        (checkpoint.sign(&key), PublicKey::of("opspilot.local/0123/audit", &key))
    }

    /// The example of the library that the format comes from.
    #[test]
    fn the_published_key_is_read_and_written_as_published() {
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = PublicKey::parse(text).unwrap();
        assert_eq!((key.name(), key.to_string().as_str()), ("PeterNeumann", text));
        let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let published = line(&format!("\u{2014} PeterNeumann {signature}")).unwrap();
        let said = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let (hash, bytes) = published.signature.split_first_chunk::<4>().unwrap();
        assert_eq!(*hash, key.hash());
        key.key.verify_strict(said.as_bytes(), &Signature::from_slice(bytes).unwrap()).unwrap();
    }

    #[test]
    fn a_note_is_read_back_and_verifies_under_its_own_key_only() {
        for size in [0, 1, 1 << 63, u64::MAX] {
            let (note, key) = signed(size);
            let read = SignedNote::parse(note.text().as_bytes()).unwrap();
            assert_eq!(read, note);
            assert_eq!(read.checkpoint().size, size);
            assert_eq!(read.signed_by(&key), Some(true));
            assert_eq!(PublicKey::parse(&key.to_string()).unwrap(), key);
            let (_, other) = signed(size);
            assert_eq!(read.signed_by(&other), None);
        }
    }

    #[test]
    fn signatures_of_others_are_left_alone() {
        let (note, key) = signed(9);
        let (other, stranger) = signed(9);
        let both = format!("{}{}", note.text(), other.text().split_once("\n\n").unwrap().1);
        let both = SignedNote::parse(both.as_bytes()).unwrap();
        assert_eq!((both.signed_by(&key), both.signed_by(&stranger)), (Some(true), Some(true)));
    }

    #[test]
    fn f12_what_is_no_checkpoint_is_refused() {
        let (note, _) = signed(12);
        let text = note.text();
        for broken in [
            text.replace("\n12\n", "\n012\n"),
            text.replace("\n12\n", "\n+12\n"),
            text.replace("\n12\n", "\n-1\n"),
            text.replace("\n12\n", "\n\n"),
            text.replace("\n12\n", "\n18446744073709551616\n"),
            text.replace("\n12\n", "\n12 \n"),
            text.replace("=\n\n", "=\nextension\n\n"),
            text.replace("=\n\n", "\n\n"),
            text.replace("\n\n", "\n"),
            text.replace('\u{2014}', "-"),
            text.replace('\n', "\r\n"),
            text.trim_end().to_owned(),
            format!("{text}\n"),
            format!("\n{text}"),
            String::new(),
            "\n\n".to_owned(),
            text.replace("\u{2014} opspilot.local/0123/audit ", "\u{2014} opspilot.local/0123/audit A"),
            text.replace("\u{2014} opspilot.local/0123/audit ", "\u{2014} opspilot.local/0123/audit"),
            text.repeat(200),
        ] {
            if let Ok(read) = SignedNote::parse(broken.as_bytes()) {
                panic!("taken: {read:?}\n{broken}");
            }
        }
        for broken in ["", "a", "a+b", "a+00000000+", "++", "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"] {
            assert!(PublicKey::parse(broken).is_err(), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn f12_no_note_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(SignedNote::parse(&bytes));
            drop(PublicKey::parse(&String::from_utf8_lossy(&bytes)));
        }

        #[test]
        fn f12_no_changed_note_verifies(at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<prop::sample::Index>()) {
            let (note, key) = signed(77);
            let mut bytes = note.text().as_bytes().to_vec();
            let place = at.index(bytes.len());
            bytes[place] ^= 1 << bit;
            prop_assert!(SignedNote::parse(&bytes).ok().and_then(|note| note.signed_by(&key)) != Some(true));
            let cut = &note.text().as_bytes()[..cut.index(note.text().len())];
            prop_assert!(SignedNote::parse(cut).ok().and_then(|note| note.signed_by(&key)) != Some(true));
        }
    }
}
