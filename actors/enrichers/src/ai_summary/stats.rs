//! Statistics that a few odd values do not move.

/// The median of `values`; none of nothing.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 { Some(upper) } else { values.get(middle.checked_sub(1)?).map(|lower| lower.midpoint(upper)) }
}

/// What is usual: the median, the median absolute deviation scaled to a standard deviation, and the range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Usual {
    pub(super) median: f64,
    pub(super) spread: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

/// What makes the median absolute deviation of a normal distribution its standard deviation.
const SCALE: f64 = 1.4826;

impl Usual {
    pub(super) fn of(mut values: Vec<f64>) -> Option<Usual> {
        let median = median(&mut values)?;
        let (least, most) = (*values.first()?, *values.last()?);
        let mut away: Vec<f64> = values.into_iter().map(|value| (value - median).abs()).collect();
        let spread = SCALE * self::median(&mut away)?;
        Some(Usual { median, spread, least, most })
    }

    /// Whether `value` is beyond everything that was usual, by a margin.
    pub(super) fn is_beyond(&self, value: f64, spreads: f64, share: f64) -> bool {
        let margin = (spreads * self.spread).max(share * self.median.abs()).max(1e-9);
        value > self.most.max(self.median + margin) || value < self.least.min(self.median - margin)
    }
}

/// A count as a number to calculate with.
pub(super) fn real(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

/// Milliseconds as a number to calculate with.
pub(super) fn millis(span: std::time::Duration) -> f64 {
    real(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_values_do_not_move_what_is_usual() {
        let usual = Usual::of(vec![1.0, 2.0, 3.0, 2.0, 1000.0]).unwrap();
        assert_eq!((usual.median, usual.most), (2.0, 1000.0));
        assert!((usual.spread - SCALE).abs() < 1e-12);
        assert_eq!(Usual::of(vec![]), None);
        assert_eq!(median(&mut [4.0, 1.0]), Some(2.5));
        let flat = Usual::of(vec![5.0; 9]).unwrap();
        assert!(flat.is_beyond(5.2, 6.0, 0.03) && !flat.is_beyond(5.1, 6.0, 0.03));
    }
}
