//! The samples of one series within a window of event time.
//!
//! The window ends with the newest sample, that one included, and begins just behind the moment its span before it, as in
//! Prometheus. A sample that comes late lands where it belongs while that lies within the window. Of two with the same
//! time the one that came last counts.
//!
//! So many samples as [`Shape::keep`] says are kept one by one, and every figure is computed from what is in the window, so
//! nothing drifts. When there are more, the oldest quarter is joined to cells of a sixty-fourth of the window each, and the
//! window's far edge blurs by one cell; for percentiles, which cannot be computed from cells, the oldest leave early.

use std::{collections::VecDeque, time::Duration};

use opspilot_kernel::time::Timestamp;

use super::{
    aggregation::Aggregation,
    pack::{Cut, Packer, Unpacker},
    rate::Run,
};

/// Into so many parts the window is divided when there are more samples than are kept one by one.
const PARTS: i64 = 64;

/// What a rule asks of its windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) aggregation: Aggregation,
    pub(crate) span: Duration,
    /// So many samples are kept one by one.
    pub(crate) keep: usize,
}

impl Shape {
    /// Only the newest sample and their number up to `keep` are asked for.
    fn is_of_newest(self) -> bool {
        self.aggregation == Aggregation::Last
    }

    fn is_sorted(self) -> bool {
        matches!(self.aggregation, Aggregation::Percentile(_))
    }

    /// Whether what is asked for depends on the order of the samples.
    fn is_of_order(self) -> bool {
        matches!(self.aggregation, Aggregation::Rate | Aggregation::Increase | Aggregation::Delta)
    }

    fn part(self) -> i64 {
        i64::try_from(self.span.as_millis()).unwrap_or(i64::MAX).div_euclid(PARTS).max(1)
    }
}

/// What became of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It counts.
    Taken,
    /// It counts, and others had to be joined or to leave early for it.
    Crowded,
    /// It was too late and is left out.
    Late,
}

/// A window and what is in it, oldest first: what was joined, then what is kept one by one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Window {
    joined: VecDeque<Cell>,
    samples: VecDeque<(Timestamp, f64)>,
    /// The values of `samples` by size, for percentiles; never stored.
    sorted: Vec<f64>,
}

/// Several samples that were joined.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cell {
    run: Run,
    sum: f64,
    min: f64,
    max: f64,
}

impl Cell {
    fn of(at: Timestamp, value: f64) -> Cell {
        Cell { run: Run::of(at, value), sum: value, min: value, max: value }
    }

    fn measure(&mut self, value: f64) {
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }
}

impl Window {
    /// Takes a sample in, whatever its order.
    pub(crate) fn push(&mut self, at: Timestamp, value: f64, shape: Shape) -> Pushed {
        let newest = self.newest().map_or(at, |newest| newest.max(at));
        if newest.since(at) >= shape.span {
            return Pushed::Late;
        }
        if self.joined.back().is_some_and(|cell| at <= cell.run.last_at) {
            return self.push_joined(at, value, shape);
        }
        // nearly always the newest
        let place = match self.samples.back() {
            Some((last, _)) if *last >= at => self.samples.partition_point(|(time, _)| *time < at),
            _ => self.samples.len(),
        };
        match self.samples.get_mut(place) {
            Some((time, former)) if *time == at => {
                let former = std::mem::replace(former, value);
                self.unsort(former, shape);
            }
            _ => self.samples.insert(place, (at, value)),
        }
        if shape.is_sorted() {
            let place = self.sorted.partition_point(|sorted| sorted.total_cmp(&value).is_lt());
            self.sorted.insert(place, value);
        }
        self.expire(newest, shape);
        if self.samples.len() <= shape.keep.max(1) {
            return Pushed::Taken;
        }
        if !shape.is_of_newest() && !shape.is_sorted() {
            self.join(shape);
            return Pushed::Crowded;
        }
        while self.samples.len() > shape.keep.max(1) {
            self.drop_oldest(shape);
        }
        if shape.is_of_newest() { Pushed::Taken } else { Pushed::Crowded }
    }

    /// A sample among those that were joined: it can be added to them where their order does not matter.
    fn push_joined(&mut self, at: Timestamp, value: f64, shape: Shape) -> Pushed {
        if shape.is_of_order() {
            return Pushed::Late;
        }
        let place = self.joined.partition_point(|cell| cell.run.last_at < at);
        let Some(cell) = self.joined.get_mut(place) else { return Pushed::Late };
        cell.measure(value);
        cell.run.count = cell.run.count.saturating_add(1);
        Pushed::Taken
    }

    fn expire(&mut self, newest: Timestamp, shape: Shape) {
        while self.joined.front().is_some_and(|cell| newest.since(cell.run.last_at) >= shape.span) {
            self.joined.pop_front();
        }
        while self.samples.front().is_some_and(|(at, _)| newest.since(*at) >= shape.span) {
            self.drop_oldest(shape);
        }
    }

    fn drop_oldest(&mut self, shape: Shape) {
        if let Some((_, value)) = self.samples.pop_front() {
            self.unsort(value, shape);
        }
    }

    fn unsort(&mut self, value: f64, shape: Shape) {
        if shape.is_sorted() {
            let place = self.sorted.partition_point(|sorted| sorted.total_cmp(&value).is_lt());
            if place < self.sorted.len() {
                self.sorted.remove(place);
            }
        }
    }

    fn join(&mut self, shape: Shape) {
        let part = shape.part();
        let count = self.samples.len().div_ceil(4);
        for (at, value) in self.samples.drain(..count) {
            match self.joined.back_mut() {
                Some(cell) if cell.run.last_at.millis().div_euclid(part) == at.millis().div_euclid(part) => {
                    cell.run.append(&Run::of(at, value));
                    cell.measure(value);
                }
                _ => self.joined.push_back(Cell::of(at, value)),
            }
        }
    }

    fn newest(&self) -> Option<Timestamp> {
        self.samples.back().map(|(at, _)| *at).or_else(|| self.joined.back().map(|cell| cell.run.last_at))
    }

    /// How many samples are in it.
    pub(crate) fn count(&self) -> u64 {
        let joined: u64 = self.joined.iter().map(|cell| cell.run.count).sum();
        joined.saturating_add(u64::try_from(self.samples.len()).unwrap_or(u64::MAX))
    }

    fn fold(&self, start: f64, cell: impl Fn(&Cell) -> f64, with: impl Fn(f64, f64) -> f64) -> f64 {
        let joined = self.joined.iter().map(cell).fold(start, &with);
        self.samples.iter().map(|(_, value)| *value).fold(joined, with)
    }

    fn run(&self) -> Option<Run> {
        let mut runs = self.joined.iter().map(|cell| cell.run).chain(self.samples.iter().map(|(at, value)| Run::of(*at, *value)));
        let mut whole = runs.next()?;
        runs.for_each(|run| whole.append(&run));
        Some(whole)
    }

    /// The least and the greatest value in it.
    pub(crate) fn extremes(&self) -> (f64, f64) {
        (self.fold(f64::INFINITY, |cell| cell.min, f64::min), self.fold(f64::NEG_INFINITY, |cell| cell.max, f64::max))
    }

    /// One number for them all; nothing if there are too few, or if it is too large to be a number.
    pub(crate) fn aggregate(&self, shape: Shape) -> Option<f64> {
        self.newest()?;
        let sum = || self.fold(0.0, |cell| cell.sum, |sum, value| sum + value);
        let value = match shape.aggregation {
            Aggregation::Last => self.samples.back()?.1,
            Aggregation::Min => self.extremes().0,
            Aggregation::Max => self.extremes().1,
            Aggregation::Sum => sum(),
            Aggregation::Avg => self.mean(sum()),
            Aggregation::Count => float(self.count()),
            Aggregation::Rate => self.run()?.increase(shape.span)? / shape.span.as_secs_f64(),
            Aggregation::Increase => self.run()?.increase(shape.span)?,
            Aggregation::Delta => self.run()?.delta(shape.span)?,
            Aggregation::Percentile(percent) => percent.of(&self.sorted)?,
        };
        value.is_finite().then_some(value)
    }

    /// The mean is a number even where the sum is none any more.
    fn mean(&self, sum: f64) -> f64 {
        let count = float(self.count());
        if sum.is_finite() {
            return sum / count;
        }
        let joined: f64 = self.joined.iter().map(|cell| cell.sum / count).sum();
        let mean = self.samples.iter().fold(joined, |mean, (_, value)| mean + value / count);
        // rounding may carry it past the greatest number there is
        let (least, greatest) = self.extremes();
        mean.max(least).min(greatest)
    }

    pub(crate) fn pack(&self, packer: &mut Packer) {
        packer.len(self.joined.len());
        for Cell { run, sum, min, max } in &self.joined {
            packer.time(run.first_at);
            packer.time(run.last_at);
            packer.count(run.count);
            [run.first, run.last, run.lost, *sum, *min, *max].into_iter().for_each(|value| packer.value(value));
        }
        packer.len(self.samples.len());
        for (at, value) in &self.samples {
            packer.time(*at);
            packer.value(*value);
        }
    }

    pub(crate) fn unpack(unpacker: &mut Unpacker<'_>, shape: Shape) -> Result<Window, Cut> {
        let mut window = Window::default();
        for _ in 0..unpacker.len(51)? {
            let (first_at, last_at, count) = (unpacker.time()?, unpacker.time()?, unpacker.count()?);
            let (first, last, lost) = (unpacker.value()?, unpacker.value()?, unpacker.value()?);
            let (sum, min, max) = (unpacker.value()?, unpacker.value()?, unpacker.value()?);
            window.joined.push_back(Cell { run: Run { count, first_at, first, last_at, last, lost }, sum, min, max });
        }
        for _ in 0..unpacker.len(9)? {
            window.samples.push_back((unpacker.time()?, unpacker.value()?));
        }
        if shape.is_sorted() {
            window.sorted = window.samples.iter().map(|(_, value)| *value).collect();
            window.sorted.sort_unstable_by(f64::total_cmp);
        }
        Ok(window)
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.joined.len() + self.samples.len() + self.sorted.len()
    }
}

/// A count as a number; exact up to 2^53, far above what a window can hold.
pub(crate) fn float(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
