//! The values of a window in their order: exact quantiles and an exact median absolute deviation.

use super::{
    moments::Ring,
    wire::{Reader, Writer},
};

/// A window, by arrival and by size.
#[derive(Debug, Clone)]
pub(super) struct Sorted {
    ring: Ring,
    sorted: Vec<f64>,
}

impl Sorted {
    pub(super) fn new(window: usize) -> Sorted {
        Sorted { ring: Ring::new(window), sorted: Vec::new() }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(super) fn heap(&self) -> usize {
        self.ring.heap() + self.sorted.capacity() * size_of::<f64>()
    }

    /// Adds `value` and lets go of the oldest. What lies between the two moves by one place.
    pub(super) fn push(&mut self, value: f64) {
        let to = self.sorted.partition_point(|other| other.total_cmp(&value).is_lt());
        let Some(gone) = self.ring.push(value) else {
            if self.sorted.len() == self.sorted.capacity() {
                self.sorted.reserve_exact((self.sorted.len() / 2).max(16));
            }
            self.sorted.insert(to, value);
            return;
        };
        let from = self.sorted.partition_point(|other| other.total_cmp(&gone).is_lt());
        if from < to {
            self.sorted.copy_within(from + 1..to, from);
            self.set(to - 1, value);
        } else {
            self.sorted.copy_within(to..from, to + 1);
            self.set(to, value);
        }
    }

    fn set(&mut self, place: usize, value: f64) {
        if let Some(slot) = self.sorted.get_mut(place) {
            *slot = value;
        }
    }

    fn at(&self, place: usize) -> f64 {
        self.sorted.get(place).copied().unwrap_or(0.0)
    }

    pub(super) fn median(&self) -> f64 {
        let count = self.sorted.len();
        match count {
            0 => 0.0,
            _ if count % 2 == 1 => self.at(count / 2),
            _ => midpoint(self.at(count / 2 - 1), self.at(count / 2)),
        }
    }

    /// The quartile below and above, between two values in proportion: definition 7 of Hyndman and
    /// Fan, "Sample Quantiles in Statistical Packages", 1996.
    pub(super) fn quartiles(&self) -> (f64, f64) {
        let quarter = |quarters: usize| {
            let (place, rest) = (self.sorted.len().saturating_sub(1) * quarters / 4, self.sorted.len().saturating_sub(1) * quarters % 4);
            let low = self.at(place);
            if rest == 0 { low } else { low + (self.at(place + 1) - low) * super::real(rest) / 4.0 }
        };
        (quarter(1), quarter(3))
    }

    /// The median of the distances from `median`.
    ///
    /// Below and above the median the distances are sorted as the values are; the middle of both
    /// together is found by bisection.
    pub(super) fn median_distance(&self, median: f64) -> f64 {
        let count = self.sorted.len();
        if count == 0 {
            return 0.0;
        }
        let (lower, upper) = (count / 2, count - count / 2);
        let below = |i: usize| if i < lower { median - self.at(lower - 1 - i) } else { f64::INFINITY };
        let above = |i: usize| if i < upper { self.at(lower + i) - median } else { f64::INFINITY };
        // how many of the `take` least distances lie below
        let take = (count - 1) / 2 + 1;
        let (mut least, mut most) = (take.saturating_sub(upper), take.min(lower));
        while least < most {
            let middle = least.midpoint(most);
            if above(take - middle - 1) <= below(middle) {
                most = middle;
            } else {
                least = middle + 1;
            }
        }
        let from_below = if least > 0 { below(least - 1) } else { 0.0 };
        let from_above = if take > least { above(take - least - 1) } else { 0.0 };
        let this = from_below.max(from_above);
        if count % 2 == 1 { this } else { midpoint(this, below(least).min(above(take - least))) }
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        self.ring.encode(to);
    }

    pub(super) fn decode(window: usize, from: &mut Reader<'_>) -> Result<Sorted, String> {
        let ring = Ring::decode(window, from)?;
        let mut sorted = ring.values().to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Ok(Sorted { ring, sorted })
    }
}

fn midpoint(low: f64, high: f64) -> f64 {
    low + (high - low) / 2.0
}

#[cfg(test)]
#[allow(clippy::as_conversions, reason = "the numbers are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn median(values: &[f64]) -> f64 {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        if count % 2 == 1 { values[count / 2] } else { midpoint(values[count / 2 - 1], values[count / 2]) }
    }

    fn quantile(values: &[f64], share: f64) -> f64 {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let place = (values.len() - 1) as f64 * share;
        let low = values[place as usize];
        low + (values.get(place as usize + 1).unwrap_or(&low) - low) * place.fract()
    }

    proptest! {
        #[test]
        fn quantiles_and_distances_are_those_of_the_window(
            window in 1_usize..40,
            values in prop::collection::vec(prop_oneof![
                -1e3..1e3_f64, (-3_i32..3).prop_map(f64::from), Just(-0.0), prop::sample::select(vec![1e150, -1e150]),
            ], 1..200),
        ) {
            let mut sorted = Sorted::new(window);
            for end in 1..=values.len() {
                sorted.push(values[end - 1]);
                let past = &values[end.saturating_sub(window)..end];
                let middle = median(past);
                let distances: Vec<f64> = past.iter().map(|value| (value - middle).abs()).collect();
                prop_assert_eq!(sorted.median(), middle);
                prop_assert_eq!(sorted.median_distance(middle), median(&distances));
                prop_assert_eq!(sorted.quartiles(), (quantile(past, 0.25), quantile(past, 0.75)));
            }
        }
    }
}
