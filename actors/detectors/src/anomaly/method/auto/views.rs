//! The ways a point is looked at.

use super::{
    super::wire::{Reader, Writer},
    hours::Usual,
    middle::Middle,
};

const KEPT: usize = 96;
const LAST: usize = KEPT - 1;

/// How many views there are.
pub(super) const VIEWS: usize = 8;
/// From the middle of the past.
pub(super) const LEVEL: usize = 0;
/// From the value before.
pub(super) const CHANGE: usize = 1;
/// The mean of the last 6, from the middle of such means.
pub(super) const SHORT: usize = 2;
/// The mean of the last 24, from the middle of such means.
pub(super) const LONG: usize = 3;
/// The mean of the last 96, from the middle of means of 24.
pub(super) const LONGER: usize = 4;
/// From what is usual at this hour of the day.
pub(super) const DAY: usize = 5;
/// The mean of the last 6 distances from what is usual at this hour of the week.
pub(super) const WEEK: usize = 6;
/// How far the last 24 are from their mean, on average.
pub(super) const ROUGH: usize = 7;

/// Distances with their sign, but for the last, which has none; not a number where one is not known.
pub(super) type Views = [f32; VIEWS];

/// The last values, newest last.
#[derive(Debug, Clone)]
pub(super) struct Recent {
    values: [f32; KEPT],
    /// Distances from what is usual at their hour of the week.
    unusual: [f32; 5],
}

impl Recent {
    /// As if `value` had been there for long.
    pub(super) fn at(value: f32) -> Recent {
        Recent { values: [value; KEPT], unusual: [0.0; 5] }
    }

    /// How `value` would look if it came next.
    pub(super) fn views(&self, value: f32, middles: &[Middle; 3], usual: Usual, after_gap: bool) -> Views {
        let [level, short, long] = middles.each_ref().map(Middle::center);
        let last_5 = sum(&self.values[KEPT - 5..]);
        let last_23 = sum(&self.values[KEPT - 23..]);
        let last_95 = sum(&self.values[KEPT - 95..KEPT - 23]) + last_23;
        let mean_24 = (last_23 + value) / 24.0;
        let unknown = f32::NAN;
        let around = sum_by(&self.values[KEPT - 23..], |other| (other - mean_24).abs()) + (value - mean_24).abs();
        // with a trend the hours of past days lie elsewhere
        let day = usual.day.filter(|_| !middles[0].has_trend());
        [
            value - level,
            if after_gap { unknown } else { value - self.values[LAST] },
            (last_5 + value) / 6.0 - short,
            mean_24 - long,
            (last_95 + value) / 96.0 - long,
            day.map_or(unknown, |day| value - day),
            (self.unusual.iter().sum::<f32>() + unusual(value, middles, usual)) / 6.0,
            around / 24.0,
        ]
    }

    pub(super) fn learn(&mut self, value: f32, middles: &mut [Middle; 3], usual: Usual) {
        let unusual = unusual(value, middles, usual);
        self.unusual.copy_within(1.., 0);
        self.unusual[4] = unusual;
        self.values.copy_within(1.., 0);
        self.values[LAST] = value;
        let [level, short, long] = middles;
        level.learn(value);
        short.learn(sum(&self.values[KEPT - 6..]) / 6.0);
        long.learn(sum(&self.values[KEPT - 24..]) / 24.0);
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        self.values.iter().chain(&self.unusual).for_each(|value| to.f32(*value));
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Recent, String> {
        let mut recent = Recent::at(0.0);
        for value in recent.values.iter_mut().chain(&mut recent.unusual) {
            *value = from.f32()?;
        }
        Ok(recent)
    }
}

/// How far `value` is from what is usual at its hour of the week, or else of the day, or else always.
fn unusual(value: f32, middles: &[Middle; 3], usual: Usual) -> f32 {
    let always = middles[0].center();
    value - if middles[0].has_trend() { always } else { usual.week.or(usual.day).unwrap_or(always) }
}

fn sum(values: &[f32]) -> f32 {
    sum_by(values, |value| value)
}

/// In eight lanes, which is faster; always the same ones, so that the sum is.
fn sum_by(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let (eights, rest) = values.as_chunks::<8>();
    for eight in eights {
        for (lane, value) in lanes.iter_mut().zip(eight) {
            *lane += of(*value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane += of(*value);
    }
    lanes.iter().sum()
}
