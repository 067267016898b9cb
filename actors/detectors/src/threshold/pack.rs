//! Numbers as bytes, for state that is written every second: times as differences, values by their bits.

use opspilot_kernel::time::Timestamp;

/// The bytes end early or are none that were written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the numbers behind the description are cut off")]
pub(crate) struct Cut;

/// Appends numbers to a piece of state.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    bytes: Vec<u8>,
    at: i64,
}

impl Packer {
    pub(crate) fn behind(bytes: Vec<u8>) -> Packer {
        Packer { bytes, at: 0 }
    }

    pub(crate) fn count(&mut self, mut count: u64) {
        loop {
            let low = count.to_le_bytes()[0] & 0x7f;
            count >>= 7;
            if count == 0 {
                return self.bytes.push(low);
            }
            self.bytes.push(low | 0x80);
        }
    }

    pub(crate) fn len(&mut self, len: usize) {
        self.count(u64::try_from(len).unwrap_or(u64::MAX));
    }

    /// A time, as its distance from the one before.
    pub(crate) fn time(&mut self, at: Timestamp) {
        let step = at.millis().wrapping_sub(self.at);
        self.at = at.millis();
        self.count(((step << 1) ^ (step >> 63)).cast_unsigned());
    }

    pub(crate) fn value(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes them back in the same order.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    rest: &'a [u8],
    at: i64,
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(rest: &'a [u8]) -> Unpacker<'a> {
        Unpacker { rest, at: 0 }
    }

    pub(crate) fn count(&mut self) -> Result<u64, Cut> {
        let mut count = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(Cut)?;
            self.rest = rest;
            count |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(count);
            }
        }
        Err(Cut)
    }

    /// How many items follow, each of which takes at least `least` bytes.
    pub(crate) fn len(&mut self, least: usize) -> Result<usize, Cut> {
        let len = usize::try_from(self.count()?).map_err(|_| Cut)?;
        if len > self.rest.len().checked_div(least).unwrap_or(0) { Err(Cut) } else { Ok(len) }
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, Cut> {
        let step = self.count()?;
        let step = (step >> 1).cast_signed() ^ -(step & 1).cast_signed();
        self.at = self.at.wrapping_add(step);
        Ok(Timestamp::from_millis(self.at))
    }

    pub(crate) fn value(&mut self) -> Result<f64, Cut> {
        let (bits, rest) = self.rest.split_first_chunk::<8>().ok_or(Cut)?;
        self.rest = rest;
        Ok(f64::from_bits(u64::from_le_bytes(*bits)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked_and_what_is_cut_off_is_an_error(
            items in proptest::collection::vec((0..253_402_300_799_999_i64, any::<u64>(), any::<f64>()), 0..20), cut in 0..100_usize,
        ) {
            let mut packer = Packer::default();
            packer.len(items.len());
            for (at, count, value) in &items {
                packer.time(Timestamp::from_millis(*at));
                packer.count(*count);
                packer.value(*value);
            }
            let bytes = packer.bytes();
            let read = |bytes: &[u8]| -> Result<Vec<(i64, u64, u64)>, Cut> {
                let mut unpacker = Unpacker::new(bytes);
                (0..unpacker.len(10)?).map(|_| Ok((unpacker.time()?.millis(), unpacker.count()?, unpacker.value()?.to_bits()))).collect()
            };
            let expected: Vec<_> = items.iter().map(|(at, count, value)| (*at, *count, value.to_bits())).collect();
            prop_assert_eq!(read(&bytes), Ok(expected));
            let short = bytes.len() * cut / 100;
            prop_assert!(items.is_empty() || read(&bytes[..short]).is_err());
        }
    }
}
