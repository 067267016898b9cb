//! A base as it is stored.

use opspilot_kernel::ids::Seq;
use opspilot_ledger::SHELF;

use super::Kept;

const VERSION: u8 = 1;

/// A base: whose rule it is by, how far it goes, and the state; an empty state is one that must begin anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) digest: u64,
    pub(super) seq: Seq,
    /// The first signal that the one before it does not contain; not stored.
    pub(super) since: Seq,
    pub(super) body: Vec<u8>,
}

impl Piece {
    pub(super) fn of(digest: u64, seq: Seq, since: Seq, state: &impl Kept) -> Piece {
        let mut body = Vec::new();
        state.encode(&mut body);
        Piece { digest, seq, since, body }
    }

    /// The piece in bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.body.len().saturating_add(17));
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.digest.to_le_bytes());
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Piece> {
        let (version, rest) = bytes.split_first()?;
        let (digest, rest) = rest.split_first_chunk::<8>()?;
        let (seq, body) = rest.split_first_chunk::<8>()?;
        (*version == VERSION).then(|| Piece {
            digest: u64::from_le_bytes(*digest),
            seq: Seq::from_le_bytes(*seq),
            since: 0,
            body: body.to_vec(),
        })
    }
}

/// What the base of a series is stored under: the hour it was last heard of, then its key.
pub(super) fn name(key: u64, hour: u32) -> String {
    format!("{SHELF}{hour:08x}{key:016x}")
}

pub(super) fn parse(name: &str) -> Option<(u64, u32)> {
    let (hour, key) = name.strip_prefix(SHELF)?.split_at_checked(8)?;
    Some((u64::from_str_radix(key, 16).ok()?, u32::from_str_radix(hour, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bytes_are_read_back() {
        assert_eq!(parse(&name(u64::MAX, 7)), Some((u64::MAX, 7)));
        assert_eq!(parse("~x"), None);
        let piece = Piece { digest: 3, seq: 9, since: 0, body: vec![1, 2] };
        assert_eq!(Piece::read(&piece.bytes()), Some(piece));
        assert_eq!(Piece::read(&[VERSION; 16]), None);
    }
}
