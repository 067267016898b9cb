//! How signals lie in memory and, compressed, in the ledger.
//!
//! A *record* is `length:varint body`; a *piece* is records one after another. A body is
//!
//! ```text
//! tag:u8        bits 0-1 kind, bits 2-4 severity, bit 5 resolved, bit 6 has a value, bit 7 has extras
//! at:varint     event time, milliseconds since 1970
//! source:str  message:str  name:str      (str = length:varint, UTF-8 bytes)
//! value:f64le   if bit 6
//! unit fingerprint title description id : 5 × str, if bit 7
//! labels        until the end: name:str value:str …
//! ```
//!
//! A reader that wants only time, source and message touches nothing behind them.

use crate::{
    signal::{AlertState, KindSet, Severity, SignalKind, SignalRef},
    time::Timestamp,
};

/// The bytes are not a record. Only damage can cause it: what is stored was written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stored signals are damaged")]
pub struct Damaged;

/// Labels: given as pairs by whoever makes a signal, or lying in a record.
#[derive(Debug, Clone, Copy)]
pub enum Labels<'a> {
    /// Name and value, in order.
    Pairs(&'a [(&'a str, &'a str)]),
    /// The tail of a record.
    Encoded(&'a [u8]),
}

impl PartialEq for Labels<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a> Labels<'a> {
    /// The pairs, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let (pairs, mut encoded): (&'a [(&'a str, &'a str)], &'a [u8]) = match self {
            Labels::Pairs(pairs) => (pairs, &[]),
            Labels::Encoded(bytes) => (&[], bytes),
        };
        pairs.iter().copied().chain(std::iter::from_fn(move || {
            let name = take_str(&mut encoded).ok()?;
            let value = take_str(&mut encoded).ok()?;
            Some((name, value))
        }))
    }

    /// The value of the label `name`.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// A record in a piece. Nothing is decoded before it is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a>(&'a [u8]);

impl<'a> Record<'a> {
    /// What it is, from the first byte alone.
    pub fn kind(self) -> Result<SignalKind, Damaged> {
        kind_of(*self.0.first().ok_or(Damaged)?)
    }

    /// The whole signal.
    pub fn decode(self) -> Result<SignalRef<'a>, Damaged> {
        let mut rest = self.0;
        let tag = take_byte(&mut rest)?;
        let kind = kind_of(tag)?;
        let severity = *Severity::ALL.get(usize::from(tag >> 2 & 0b111)).ok_or(Damaged)?;
        let state = if tag & RESOLVED == 0 { AlertState::Firing } else { AlertState::Resolved };
        let at = Timestamp::from_millis(i64::try_from(take_varint(&mut rest)?).map_err(|_| Damaged)?);
        let source = take_str(&mut rest)?;
        let message = take_str(&mut rest)?;
        let name = take_str(&mut rest)?;
        let value = if tag & VALUE == 0 {
            None
        } else {
            let (bytes, behind) = rest.split_first_chunk::<8>().ok_or(Damaged)?;
            rest = behind;
            Some(f64::from_le_bytes(*bytes))
        };
        let mut signal = SignalRef { kind, severity, state, at, source, message, name, value, ..SignalRef::bare(kind, at, source) };
        if tag & EXTRAS != 0 {
            signal.unit = take_str(&mut rest)?;
            signal.fingerprint = take_str(&mut rest)?;
            signal.title = take_str(&mut rest)?;
            signal.description = take_str(&mut rest)?;
            signal.id = take_str(&mut rest)?;
        }
        signal.labels = Labels::Encoded(rest);
        Ok(signal)
    }

    /// The record's bytes, to be copied into another piece with [`push_record`].
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }
}

const RESOLVED: u8 = 1 << 5;
const VALUE: u8 = 1 << 6;
const EXTRAS: u8 = 1 << 7;

fn kind_of(tag: u8) -> Result<SignalKind, Damaged> {
    match tag & 0b11 {
        0 => Ok(SignalKind::Log),
        1 => Ok(SignalKind::Metric),
        2 => Ok(SignalKind::Alert),
        _ => Err(Damaged),
    }
}

fn tag_of(signal: &SignalRef<'_>, extras: bool) -> u8 {
    let kind = match signal.kind {
        SignalKind::Log => 0,
        SignalKind::Metric => 1,
        SignalKind::Alert => 2,
    };
    let severity = match signal.severity {
        Severity::Debug => 0,
        Severity::Info => 1,
        Severity::Warning => 2,
        Severity::Error => 3,
        Severity::Critical => 4,
    };
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    kind | severity << 2 | flag(signal.state == AlertState::Resolved, RESOLVED) | flag(signal.value.is_some(), VALUE) | flag(extras, EXTRAS)
}

fn take_byte(rest: &mut &[u8]) -> Result<u8, Damaged> {
    let (byte, behind) = rest.split_first().ok_or(Damaged)?;
    *rest = behind;
    Ok(*byte)
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, Damaged> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(rest)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Damaged)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Damaged> {
    let len = usize::try_from(take_varint(rest)?).map_err(|_| Damaged)?;
    let (bytes, behind) = rest.split_at_checked(len).ok_or(Damaged)?;
    *rest = behind;
    Ok(bytes)
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Damaged> {
    std::str::from_utf8(take_bytes(rest)?).map_err(|_| Damaged)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varint(out, u64::try_from(len).unwrap_or(u64::MAX));
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// The records of a piece, in order. Damage ends the sequence.
pub fn records(piece: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = piece;
    std::iter::from_fn(move || if rest.is_empty() { None } else { take_bytes(&mut rest).ok().map(Record) })
}

/// Appends a record that was read from another piece.
pub fn push_record(piece: &mut Vec<u8>, record: Record<'_>) {
    put_len(piece, record.0.len());
    piece.extend_from_slice(record.0);
}

/// Appends a label to `encoded`, which [`Labels::Encoded`] then reads: for a parser that
/// meets labels one by one and wants no list of them.
pub fn push_label(encoded: &mut Vec<u8>, name: &str, value: &str) {
    put_str(encoded, name);
    put_str(encoded, value);
}

/// Builds a piece, keeping count and ranges as it goes.
#[derive(Debug, Default)]
pub struct PieceBuilder {
    bytes: Vec<u8>,
    body: Vec<u8>,
    count: u32,
    kinds: KindSet,
    range: Option<(Timestamp, Timestamp)>,
}

impl PieceBuilder {
    /// An empty piece with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> PieceBuilder {
        PieceBuilder { bytes: Vec::with_capacity(capacity), ..PieceBuilder::default() }
    }

    /// Appends a signal.
    pub fn push(&mut self, signal: &SignalRef<'_>) {
        let extras = [signal.unit, signal.fingerprint, signal.title, signal.description, signal.id];
        let has_extras = extras.iter().any(|text| !text.is_empty());
        let body = &mut self.body;
        body.clear();
        body.push(tag_of(signal, has_extras));
        put_varint(body, u64::try_from(signal.at.millis()).unwrap_or(0));
        put_str(body, signal.source);
        put_str(body, signal.message);
        put_str(body, signal.name);
        if let Some(value) = signal.value {
            body.extend_from_slice(&value.to_le_bytes());
        }
        if has_extras {
            extras.iter().for_each(|text| put_str(body, text));
        }
        match signal.labels {
            Labels::Encoded(bytes) => body.extend_from_slice(bytes),
            Labels::Pairs(pairs) => pairs.iter().for_each(|(name, value)| {
                put_str(body, name);
                put_str(body, value);
            }),
        }
        put_len(&mut self.bytes, self.body.len());
        self.bytes.extend_from_slice(&self.body);
        self.count = self.count.saturating_add(1);
        self.kinds.insert(signal.kind);
        self.range = Some(match self.range {
            None => (signal.at, signal.at),
            Some((low, high)) => (low.min(signal.at), high.max(signal.at)),
        });
    }

    /// How many signals it holds.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What kinds it holds.
    pub fn kinds(&self) -> KindSet {
        self.kinds
    }

    /// Earliest and latest event time.
    pub fn range(&self) -> Option<(Timestamp, Timestamp)> {
        self.range
    }

    /// The piece.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), ".{0,40}", "x{100,300}"]
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_decoded(
            kind in 0..3_usize, severity in 0..5_usize, resolved: bool, at in 0..253_402_300_799_999_i64,
            texts in proptest::array::uniform8(text()), value in proptest::option::of(-1e300..1e300_f64),
            labels in proptest::collection::vec((text(), text()), 0..5), copies in 1..4_usize,
        ) {
            let pairs: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let [source, message, name, unit, fingerprint, title, description, id] = &texts;
            let signal = SignalRef {
                kind: [SignalKind::Log, SignalKind::Metric, SignalKind::Alert][kind],
                severity: Severity::ALL[severity],
                state: if resolved { AlertState::Resolved } else { AlertState::Firing },
                at: Timestamp::from_millis(at),
                source, message, name, value, unit, fingerprint, title, description, id,
                labels: Labels::Pairs(&pairs),
            };
            let mut piece = PieceBuilder::default();
            (0..copies).for_each(|_| piece.push(&signal));
            prop_assert_eq!(usize::try_from(piece.count()).unwrap(), copies);
            prop_assert!(piece.kinds().contains(signal.kind));
            let bytes = piece.into_bytes();
            let back: Vec<SignalRef<'_>> = records(&bytes).map(|record| record.decode().unwrap()).collect();
            prop_assert_eq!(back, vec![signal; copies]);
        }

        #[test]
        fn damage_is_an_error_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for record in records(&bytes) {
                if let Ok(signal) = record.decode() {
                    prop_assert!(signal.labels.iter().count() <= bytes.len());
                }
            }
        }
    }
}
