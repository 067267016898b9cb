//! Who signed each checkpoint, and who vouches for the keys.

use std::collections::BTreeMap;

use super::{
    note::PublicKey,
    verify::{KeyIs, Verifier},
};

impl Verifier {
    /// Each checkpoint must be signed by a key that is trusted: one that was given, or one that an entry names which a
    /// checkpoint by a trusted key covers. So a key vouches for the next one, and for those before it.
    pub(super) fn check_signatures(&mut self) {
        if self.trusted.is_empty() {
            self.unverifiable.push("there is no public key to check signatures with".to_owned());
            return;
        }
        let mut open: Vec<u64> = self.notes.keys().copied().collect();
        let mut signed: BTreeMap<u64, [u8; 32]> = BTreeMap::new();
        loop {
            let (notes, trusted) = (&self.notes, &self.trusted);
            open.retain(|size| {
                let by = notes.get(size).and_then(|note| trusted.iter().find(|key| note.signed_by(key) == Some(true)));
                signed.extend(by.map(|key| (*size, *key.bytes())));
                by.is_none()
            });
            let covered = signed.keys().next_back().copied().unwrap_or(0);
            let vouched = self
                .keys
                .iter()
                .filter(|(seq, key, is)| *is == KeyIs::InUse && *seq <= covered && !trusted.iter().any(|known| known.bytes() == key));
            let vouched: Vec<PublicKey> = vouched.filter_map(|(_, key, _)| PublicKey::from_bytes(&self.origin, key)).collect();
            if vouched.is_empty() {
                break;
            }
            let before = self.trusted.len();
            for key in vouched {
                if !self.trusted.contains(&key) {
                    self.trusted.push(key);
                }
            }
            if self.trusted.len() == before {
                break;
            }
        }
        for size in open {
            let from = self.notes.range(..size).next_back().map_or(1, |(before, _)| before + 1);
            self.wrong(from, format!("the checkpoint over {size} entries is not signed by a key that is trusted"));
        }
        for (seq, key, is) in self.keys.clone() {
            let ended = match is {
                KeyIs::InUse => continue,
                KeyIs::Retired => "retired",
                KeyIs::Revoked => "revoked",
            };
            if let Some((size, _)) = signed.range(seq..).find(|(_, by)| **by == key) {
                self.wrong(seq, format!("the checkpoint over {size} entries is signed by a key that was {ended} at entry {seq}"));
            }
        }
        let held: Vec<u64> = self
            .held
            .iter()
            .filter(|held| !self.trusted.iter().any(|key| held.note.signed_by(key) == Some(true)))
            .map(|held| held.note.checkpoint().size)
            .collect();
        for size in held {
            self.unverifiable.push(format!("the earlier note over {size} entries is not signed by a key that is trusted"));
        }
    }
}
