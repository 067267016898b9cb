//! The samples of one series within a window of event time.
//!
//! Exact up to [`EXACT`] samples. When there are more, those that fall into the same sixty-fourth of
//! the window are joined, so that memory is bounded at any rate and the window's far edge blurs by a
//! sixty-fourth at most. Nothing is carried along from sample to sample that could drift: every
//! figure is computed from what is in the window.

use std::{collections::VecDeque, time::Duration};

use opspilot_kernel::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::Aggregation;

/// So many samples are kept one by one.
const EXACT: usize = 128;
/// Into so many parts the window is divided when there are more.
const PARTS: i64 = 64;

/// A window and what is in it, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    cells: VecDeque<Cell>,
}

/// One sample, or several that were joined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "Stored", from = "Stored")]
struct Cell {
    /// Event time of the newest sample in it.
    at: Timestamp,
    count: u64,
    sum: f64,
    min: f64,
    max: f64,
    last: f64,
}

/// A cell as it is stored: numbers by their bits, because decimal digits are not exact.
type Stored = (i64, u64, u64, u64, u64, u64);

impl From<Cell> for Stored {
    fn from(cell: Cell) -> Stored {
        (cell.at.millis(), cell.count, cell.sum.to_bits(), cell.min.to_bits(), cell.max.to_bits(), cell.last.to_bits())
    }
}

impl From<Stored> for Cell {
    fn from((at, count, sum, min, max, last): Stored) -> Cell {
        let [sum, min, max, last] = [sum, min, max, last].map(f64::from_bits);
        Cell { at: Timestamp::from_millis(at), count, sum, min, max, last }
    }
}

impl Cell {
    fn join(&mut self, newer: Cell) {
        self.at = newer.at;
        self.count = self.count.saturating_add(newer.count);
        self.sum += newer.sum;
        self.min = self.min.min(newer.min);
        self.max = self.max.max(newer.max);
        self.last = newer.last;
    }
}

impl Window {
    /// Takes a sample in, whatever its order; false if it is too late for the window.
    pub(crate) fn push(&mut self, at: Timestamp, value: f64, span: Duration) -> bool {
        let newest = self.cells.back().map_or(at, |cell| cell.at.max(at));
        if newest.since(at) >= span {
            return false;
        }
        let place = self.cells.partition_point(|cell| cell.at <= at);
        self.cells.insert(place, Cell { at, count: 1, sum: value, min: value, max: value, last: value });
        while self.cells.front().is_some_and(|cell| newest.since(cell.at) >= span) {
            self.cells.pop_front();
        }
        if self.cells.len() > EXACT {
            self.coalesce(span);
        }
        true
    }

    fn coalesce(&mut self, span: Duration) {
        let part = i64::try_from(span.as_millis()).unwrap_or(i64::MAX).div_euclid(PARTS).max(1);
        let mut joined: VecDeque<Cell> = VecDeque::with_capacity(EXACT);
        for cell in self.cells.drain(..) {
            match joined.back_mut() {
                Some(before) if before.at.millis().div_euclid(part) == cell.at.millis().div_euclid(part) => before.join(cell),
                _ => joined.push_back(cell),
            }
        }
        self.cells = joined;
    }

    /// How many samples are in it.
    pub(crate) fn count(&self) -> u64 {
        self.cells.iter().map(|cell| cell.count).sum()
    }

    /// One number for them all; nothing if there is none, or if it is too large to be a number.
    pub(crate) fn aggregate(&self, aggregation: Aggregation) -> Option<f64> {
        let newest = self.cells.back()?;
        let sum = || self.cells.iter().map(|cell| cell.sum).sum::<f64>();
        let value = match aggregation {
            Aggregation::Last => newest.last,
            Aggregation::Min => self.cells.iter().map(|cell| cell.min).fold(f64::INFINITY, f64::min),
            Aggregation::Max => self.cells.iter().map(|cell| cell.max).fold(f64::NEG_INFINITY, f64::max),
            Aggregation::Sum => sum(),
            Aggregation::Avg => sum() / float(self.count()),
            Aggregation::Count => float(self.count()),
        };
        value.is_finite().then_some(value)
    }

    #[cfg(test)]
    pub(crate) fn cells(&self) -> usize {
        self.cells.len()
    }
}

/// A count as a number; exact up to 2^53, far above what a window can hold.
fn float(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000 + millis)
    }

    fn naive(samples: &[(i64, f64)], aggregation: Aggregation) -> Option<f64> {
        // stable by time: of two samples of the same moment the one that came later is the last
        let newest = samples.iter().map(|sample| sample.0).max()?;
        let mut inside: Vec<(i64, f64)> = samples.iter().copied().filter(|sample| newest - sample.0 < 60_000).collect();
        inside.sort_by_key(|sample| sample.0);
        let values = inside.iter().map(|sample| sample.1);
        let count = f64::from(u32::try_from(inside.len()).unwrap());
        Some(match aggregation {
            Aggregation::Last => inside.last()?.1,
            Aggregation::Min => values.fold(f64::INFINITY, f64::min),
            Aggregation::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Aggregation::Sum => values.sum(),
            Aggregation::Avg => values.sum::<f64>() / count,
            Aggregation::Count => count,
        })
    }

    proptest! {
        #[test]
        fn every_aggregation_agrees_with_a_naive_one_in_any_order(samples in proptest::collection::vec((0..200_000_i64, -100..100_i32), 1..100)) {
            let samples: Vec<(i64, f64)> = samples.into_iter().map(|(time, value)| (time, f64::from(value))).collect();
            let mut window = Window::default();
            let mut taken: Vec<(i64, f64)> = Vec::new();
            for (time, value) in &samples {
                let newest = taken.iter().map(|sample| sample.0).max().unwrap_or(*time);
                prop_assert_eq!(window.push(at(*time), *value, MINUTE), newest - time < 60_000);
                taken.push((*time, *value));
                let stored = serde_json::to_string(&window).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Window>(&stored).unwrap(), &window);
                for aggregation in Aggregation::ALL {
                    prop_assert_eq!(window.aggregate(aggregation), naive(&taken, aggregation));
                }
            }
        }
    }

    #[test]
    fn a_window_is_bounded_at_any_rate_and_hardly_loses_anything() {
        let mut window = Window::default();
        for n in 0..200_000_i64 {
            window.push(at(n), 1.0, MINUTE);
            assert!(window.cells() <= EXACT);
        }
        let count = window.aggregate(Aggregation::Count).unwrap();
        assert!((59_000.0..=61_000.0).contains(&count), "{count}");
    }

    #[test]
    fn sums_that_are_no_number_are_none() {
        let mut window = Window::default();
        window.push(at(0), f64::MAX, MINUTE);
        window.push(at(1), f64::MAX, MINUTE);
        assert_eq!(window.aggregate(Aggregation::Sum), None);
        assert_eq!(window.aggregate(Aggregation::Max), Some(f64::MAX));
        assert_eq!(Window::default().aggregate(Aggregation::Count), None);
    }
}
