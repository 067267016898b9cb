//! Signals on their way to the ledger: everything that costs time per signal is done here, in the
//! caller's thread, so that the writer handles finished bytes.

use std::time::Duration;

use opspilot_kernel::{
    codec::PieceBuilder,
    signal::{KindSet, SignalRef},
    time::Timestamp,
};
use sha2::{Digest, Sha256};

use crate::{frames, tokens::TokenCollector, tokens::source_token};

/// From this size on a batch is compressed on its own, by its caller. Smaller ones are joined first:
/// a frame of its own would cost them a third more.
pub(crate) const OWN_FRAME_BYTES: usize = 16 << 10;
/// How many sources a row names; of the others it says only that there are some.
pub(crate) const NAMED_SOURCES: usize = 32;
/// How far event time may be ahead of receipt.
const AHEAD: Duration = Duration::from_secs(300);

/// Identity of an observation for deduplication: 128 bits of SHA-256 over source and id.
pub(crate) type ClaimKey = u128;

/// A claim of a (source, id) pair by one signal of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) index: u32,
    pub(crate) key: ClaimKey,
}

/// Signals ready to be stored.
#[derive(Debug, Clone)]
pub struct SignalBatch {
    pub(crate) piece: Vec<u8>,
    pub(crate) frame: Option<Vec<u8>>,
    pub(crate) count: u32,
    pub(crate) kinds: KindSet,
    pub(crate) event_time: (Timestamp, Timestamp),
    pub(crate) received_at: Timestamp,
    pub(crate) sources: Sources,
    pub(crate) tokens: Vec<u32>,
    pub(crate) claims: Vec<Claim>,
    pub(crate) clamped: u32,
}

impl SignalBatch {
    /// How many signals it holds.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many of them claimed to lie in the future and were set back to the time of receipt.
    pub fn clamped(&self) -> u32 {
        self.clamped
    }

    /// How much memory it takes, roughly; the bulk queue is bounded by it.
    pub fn bytes(&self) -> usize {
        self.piece.len() + self.frame.as_ref().map_or(0, Vec::len) + self.tokens.len() * 4 + self.claims.len() * 32 + 256
    }
}

/// Up to [`NAMED_SOURCES`] names, and whether there are more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    pub(crate) named: Vec<String>,
    pub(crate) more: bool,
}

impl Sources {
    /// Adds a name; `false` if it could not be named.
    pub(crate) fn add(&mut self, source: &str) -> bool {
        if self.named.iter().rev().any(|known| known == source) {
            return true;
        }
        if self.named.len() < NAMED_SOURCES {
            self.named.push(source.to_owned());
            return true;
        }
        self.more = true;
        false
    }
}

/// Builds a [`SignalBatch`], one signal at a time, without an allocation per signal.
#[derive(Debug)]
pub struct SignalBatchBuilder {
    piece: PieceBuilder,
    received_at: Timestamp,
    latest: Timestamp,
    sources: Sources,
    tokens: TokenCollector,
    claims: Vec<Claim>,
    clamped: u32,
}

impl SignalBatchBuilder {
    /// An empty batch of signals received at `received_at`.
    pub fn new(received_at: Timestamp) -> SignalBatchBuilder {
        SignalBatchBuilder::with_capacity(received_at, 0)
    }

    /// The same, with room for so many bytes.
    pub fn with_capacity(received_at: Timestamp, bytes: usize) -> SignalBatchBuilder {
        SignalBatchBuilder {
            piece: PieceBuilder::with_capacity(bytes),
            received_at,
            latest: received_at.after(AHEAD),
            sources: Sources::default(),
            tokens: TokenCollector::new(),
            claims: Vec::new(),
            clamped: 0,
        }
    }

    /// Adds a signal. An event time more than five minutes ahead of receipt becomes the receipt time.
    pub fn push(&mut self, signal: &SignalRef<'_>) {
        if !signal.id.is_empty() {
            self.claims.push(Claim { index: self.piece.count(), key: claim_key(signal.source, signal.id) });
        }
        if !self.sources.add(signal.source) {
            self.tokens.token(source_token(signal.source));
        }
        for text in searched_texts(signal) {
            self.tokens.text(text);
        }
        for (_, value) in signal.labels.iter() {
            self.tokens.text(value);
        }
        if signal.at > self.latest {
            self.clamped = self.clamped.saturating_add(1);
            self.piece.push(&SignalRef { at: self.received_at, ..signal.clone() });
        } else {
            self.piece.push(signal);
        }
    }

    /// How many signals it holds so far.
    pub fn count(&self) -> u32 {
        self.piece.count()
    }

    /// How many bytes they take so far.
    pub fn len(&self) -> usize {
        self.piece.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.piece.is_empty()
    }

    /// The batch, compressed if it is large enough to stand alone.
    pub fn seal(self) -> SignalBatch {
        let (count, kinds) = (self.piece.count(), self.piece.kinds());
        let event_time = self.piece.range().unwrap_or((self.received_at, self.received_at));
        let piece = self.piece.into_bytes();
        let frame = (piece.len() >= OWN_FRAME_BYTES).then(|| frames::compress(&piece)).flatten();
        SignalBatch {
            frame,
            piece,
            count,
            kinds,
            event_time,
            received_at: self.received_at,
            sources: self.sources,
            tokens: self.tokens.finish(),
            claims: self.claims,
            clamped: self.clamped,
        }
    }
}

/// The texts of a signal that a search looks into, besides the label values.
pub(crate) fn searched_texts<'a>(signal: &SignalRef<'a>) -> [&'a str; 4] {
    [signal.message, signal.name, signal.title, signal.description]
}

fn claim_key(source: &str, id: &str) -> ClaimKey {
    let mut hash = Sha256::new();
    hash.update(u64::try_from(source.len()).unwrap_or(u64::MAX).to_le_bytes());
    hash.update(source.as_bytes());
    hash.update(id.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    digest.first_chunk::<16>().map_or(0, |bytes| u128::from_le_bytes(*bytes))
}
