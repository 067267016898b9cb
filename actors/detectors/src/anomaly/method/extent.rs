//! The least and the greatest value there was.

use super::{
    Band,
    wire::{Reader, Writer},
};

/// Both, of all values that were learned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    least: f64,
    greatest: f64,
}

impl Extent {
    /// Of no value.
    pub(super) const NONE: Extent = Extent { least: f64::INFINITY, greatest: f64::NEG_INFINITY };

    pub(super) fn learn(&mut self, value: f64) {
        self.least = self.least.min(value);
        self.greatest = self.greatest.max(value);
    }

    pub(super) fn band(self) -> Option<Band> {
        (self.least <= self.greatest).then_some(Band { low: self.least, high: self.greatest })
    }

    /// What is left of a band of expected values. Where nothing was ever below zero, nothing below it is
    /// expected: most metrics are counts, sizes and times.
    pub(super) fn possible(self, band: Band) -> Option<Band> {
        let low = if self.least >= 0.0 { band.low.max(0.0) } else { band.low };
        let high = if self.greatest <= 0.0 { band.high.min(0.0) } else { band.high };
        (low <= high).then_some(Band { low, high })
    }

    pub(super) fn encode(self, to: &mut Writer) {
        to.f64(self.least);
        to.f64(self.greatest);
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Extent, String> {
        Ok(Extent { least: from.f64()?, greatest: from.f64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_expected_beyond_zero_where_nothing_ever_was() {
        let possible = |values: &[f64], low, high| {
            let mut extent = Extent::NONE;
            values.iter().for_each(|value| extent.learn(*value));
            extent.possible(Band { low, high }).map(|band| (band.low, band.high))
        };
        assert_eq!(possible(&[3.0, 40.0], -37.0, 50.0), Some((0.0, 50.0)));
        assert_eq!(possible(&[3.0, -0.5], -37.0, 50.0), Some((-37.0, 50.0)));
        assert_eq!(possible(&[-3.0, -8.0], -37.0, 50.0), Some((-37.0, 0.0)));
        assert_eq!(possible(&[0.0], -1.0, 1.0), Some((0.0, 0.0)));
        assert_eq!(possible(&[3.0, 40.0], -37.0, -20.0), None);
        assert_eq!(Extent::NONE.band(), None);
    }
}
