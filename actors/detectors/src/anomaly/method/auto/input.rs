//! What is judged of the values as they come in.

use super::{
    super::{
        Timestamp,
        wire::{Reader, Writer},
    },
    narrow,
};

/// Distances from the first value are told apart up to this multiple of the first one there was.
const FARTHEST: f64 = 1e15;
/// A gap is long from so many usual intervals on.
const LONG: f64 = 24.0;
/// So many changes say whether it is a counter.
const CHANGES: u32 = 100;
/// So many changes are remembered; then each counts half.
const REMEMBERED: u32 = 20_000;

/// Distances from the first value, so that nothing depends on the level of the series or the unit it
/// is measured in. Of a counter, which only ever rises until it starts again, what it rose by in a
/// usual interval; when it starts again, that is nothing unusual.
#[derive(Debug, Clone, Default)]
pub(super) struct Input {
    started: bool,
    origin: f64,
    /// A power of two by which distances become numbers of a usual size; zero before the first.
    unit: f64,
    last: f64,
    last_at: Timestamp,
    /// The usual time between two values, in milliseconds; zero before it is known.
    interval: f64,
    intervals: u32,
    rises: u32,
    falls: u32,
    counter: bool,
}

/// One value, taken in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    /// What is judged; `None` when a counter starts again.
    pub(super) value: Option<f32>,
    /// The same in the unit of the series: its value, or what it rose by in a usual interval.
    pub(super) plain: f64,
    /// All that was learned is of no use any more: it turned out to be a counter, or not to be one.
    pub(super) anew: bool,
    /// The value before it is too long ago to be compared with.
    pub(super) after_gap: bool,
}

impl Input {
    /// The usual time between two values, in seconds; zero before it is known.
    pub(super) fn interval(&self) -> f64 {
        self.interval / 1000.0
    }

    pub(super) fn take(&mut self, at: Timestamp, raw: f64) -> Taken {
        let gap = narrow_gap(self.last_at, at);
        let change = raw - self.last;
        let first = !self.started;
        (self.last, self.last_at, self.started) = (raw, at, true);
        if first {
            self.origin = raw;
            return Taken { value: Some(0.0), plain: raw, anew: false, after_gap: true };
        }
        let after_gap = self.interval > 0.0 && gap > LONG * self.interval;
        self.learn_interval(gap);
        let anew = self.learn_change(change);
        let mut value = raw;
        if self.counter {
            if change < 0.0 {
                return Taken { value: None, plain: 0.0, anew, after_gap };
            }
            value = if gap > 0.0 { change * (self.interval / gap) } else { change };
        }
        if anew {
            (self.origin, self.unit) = (value, 0.0);
        }
        let away = value - self.origin;
        if self.unit == 0.0 && away != 0.0 {
            self.unit = away.abs().log2().floor().clamp(-1000.0, 1000.0).exp2().recip();
        }
        Taken { value: Some(narrow((away * self.unit).clamp(-FARTHEST, FARTHEST))), plain: value, anew, after_gap }
    }

    /// The value before the next one, from which a counter rises.
    pub(super) fn rises_from(&self) -> Option<f64> {
        self.counter.then_some(self.last)
    }

    /// What a value would have had to be, `at` that time, to be judged as `taken`.
    pub(super) fn give_back(&self, before: &Input, at: Timestamp, taken: f32) -> f64 {
        let value = self.origin + if self.unit > 0.0 { f64::from(taken) / self.unit } else { 0.0 };
        if !self.counter {
            return value;
        }
        let gap = narrow_gap(before.last_at, at);
        before.last + value.max(0.0) * if gap > 0.0 && self.interval > 0.0 { gap / self.interval } else { 1.0 }
    }

    fn learn_interval(&mut self, gap: f64) {
        if gap <= 0.0 {
            return;
        }
        self.intervals = (self.intervals + 1).min(64);
        let gap = if self.interval > 0.0 { gap.min(4.0 * self.interval) } else { gap };
        self.interval += (gap - self.interval) / f64::from(self.intervals);
    }

    /// Whether it turned out to be a counter, or not to be one any more.
    fn learn_change(&mut self, change: f64) -> bool {
        if change > 0.0 {
            self.rises += 1;
        } else if change < 0.0 {
            self.falls += 1;
        }
        let was = self.counter;
        if self.counter {
            self.counter = self.falls <= self.rises / 50;
        } else {
            self.counter = self.rises >= CHANGES && self.falls <= self.rises / 200;
        }
        if was && !self.counter {
            (self.rises, self.falls) = (0, 0);
        }
        if self.rises.max(self.falls) >= REMEMBERED {
            self.rises /= 2;
            self.falls /= 2;
        }
        was != self.counter
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        to.byte(u8::from(self.started));
        to.byte(u8::from(self.counter));
        [self.origin, self.unit, self.last, self.interval].into_iter().for_each(|number| to.f64(number));
        to.i64(self.last_at.millis());
        [self.intervals, self.rises, self.falls].into_iter().for_each(|number| to.u32(number));
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Input, String> {
        let (started, counter) = (from.byte()? == 1, from.byte()? == 1);
        let [origin, unit, last, interval] = [from.f64()?, from.f64()?, from.f64()?, from.f64()?];
        let last_at = Timestamp::from_millis(from.i64()?);
        let [intervals, rises, falls] = [from.u32()?, from.u32()?, from.u32()?].map(|number| number.min(REMEMBERED));
        Ok(Input { started, origin, unit, last, last_at, interval, intervals: intervals.min(64), rises, falls, counter })
    }
}

/// Milliseconds from one time to another, below zero if that is earlier; exact for 285,000 years.
fn narrow_gap(from: Timestamp, to: Timestamp) -> f64 {
    let (seconds, millis) = {
        let gap = to.millis() - from.millis();
        (gap / 1000, gap % 1000)
    };
    // both fit: there are 3e11 seconds up to the last time there is, counted here in two parts
    let part = |number: i64| f64::from(i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX }));
    part(seconds / 1000) * 1_000_000.0 + part(seconds % 1000) * 1000.0 + part(millis)
}
