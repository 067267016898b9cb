//! What is usual at this hour of the day and of the week.

use super::{
    super::wire::{Reader, Writer},
    middle::median,
    narrow,
};

const WEEK: usize = 168;
const DAYS: usize = 7;
/// After so many points in a row of hours gone by, the clock is taken to have been set back.
const SET_BACK: u32 = 12;

/// The mean of every hour of a week, in which an hour a week ago weighs half. Hours are counted by
/// the values' own times, in UTC, at whatever rate they come.
#[derive(Debug, Clone, Default)]
pub(super) struct Hours {
    /// Empty before the first hour is over. What is no number was not seen yet.
    slots: Vec<f32>,
    /// The hour that is not over, and the sum and number of its values.
    hour: i64,
    sum: f64,
    count: u32,
    late: u32,
    /// For which hour the usual was looked up last.
    known: Option<i64>,
    usual: Usual,
}

/// What is usual at an hour.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usual {
    /// The median of this hour on the last seven days.
    pub(super) day: Option<f32>,
    /// The mean of this hour on this weekday.
    pub(super) week: Option<f32>,
}

fn place(hour: i64) -> usize {
    usize::try_from(hour.rem_euclid(168)).unwrap_or(0)
}

impl Hours {
    pub(super) fn usual(&self, hour: i64) -> Usual {
        if self.known == Some(hour) {
            return self.usual;
        }
        let slot = |hour: i64| self.slots.get(place(hour)).copied().filter(|value| value.is_finite());
        let mut days = [0.0; DAYS];
        let mut count = 0;
        for (value, free) in (0..7).filter_map(|day| slot(hour + day * 24)).zip(&mut days) {
            *free = value;
            count += 1;
        }
        let day = days.get_mut(..count).filter(|days| !days.is_empty()).map(median);
        Usual { day, week: slot(hour) }
    }

    /// The same, remembered until the hour is over.
    pub(super) fn look_up(&mut self, hour: i64) -> Usual {
        self.usual = self.usual(hour);
        self.known = Some(hour);
        self.usual
    }

    pub(super) fn learn(&mut self, hour: i64, value: f32) {
        if hour < self.hour {
            self.late += 1;
            if self.late < SET_BACK {
                return;
            }
            (self.hour, self.sum, self.count) = (hour, 0.0, 0);
        }
        self.late = 0;
        if hour != self.hour {
            self.close();
            (self.hour, self.sum, self.count) = (hour, 0.0, 0);
        }
        self.sum += f64::from(value);
        self.count = self.count.saturating_add(1);
    }

    fn close(&mut self) {
        if self.count == 0 {
            return;
        }
        if self.slots.is_empty() {
            self.slots = vec![f32::NAN; WEEK];
        }
        let mean = narrow(self.sum / f64::from(self.count));
        if let Some(slot) = self.slots.get_mut(place(self.hour)) {
            *slot = if slot.is_finite() { *slot + (mean - *slot) * 0.5 } else { mean };
        }
        self.known = None;
    }

    pub(super) fn heap(&self) -> usize {
        self.slots.capacity() * size_of::<f32>()
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        to.u32(u32::try_from(self.slots.len()).unwrap_or(0));
        self.slots.iter().for_each(|slot| to.u32(slot.to_bits()));
        to.i64(self.hour);
        to.f64(self.sum);
        to.u32(self.count);
        to.u32(self.late);
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Hours, String> {
        let mut slots = Vec::new();
        match from.u32()? {
            0 => {}
            168 => slots = (0..WEEK).map(|_| from.u32().map(f32::from_bits)).collect::<Result<_, _>>()?,
            other => return Err(format!("the state has {other} hours in a week")),
        }
        let (hour, sum, count, late) = (from.i64()?, from.f64()?, from.u32()?, from.u32()?.min(SET_BACK));
        Ok(Hours { slots, hour, sum, count, late, ..Hours::default() })
    }
}
