//! The middle of a long past, from a sample of it.

use super::{
    super::wire::{Reader, Writer},
    narrow,
};

/// So many values are kept,
const KEPT: usize = 125;
/// of which every so many points one is taken, so that they span 2,000 points; at first every one.
const EVERY: u32 = 16;
const AT_FIRST: usize = 32;
/// A trend is looked for each time so many were taken.
const LOOK: u32 = 8;

/// The median of a sample of the last 2,000 points. Where the medians of its four quarters go up, or
/// down, by steps of about the same size, the series has a trend, and the middle is where that has
/// led by now.
#[derive(Debug, Clone, Default)]
pub(super) struct Middle {
    ring: Vec<f32>,
    sorted: Vec<f32>,
    next: usize,
    skip: u32,
    look: u32,
    /// How far the trend leads from the median.
    lead: Option<f32>,
}

impl Middle {
    pub(super) fn center(&self) -> f32 {
        self.sorted.get(self.sorted.len() / 2).copied().unwrap_or(0.0) + self.lead.unwrap_or(0.0)
    }

    pub(super) fn has_trend(&self) -> bool {
        self.lead.is_some()
    }

    pub(super) fn learn(&mut self, value: f32) {
        if self.skip > 0 && self.ring.len() >= AT_FIRST {
            self.skip -= 1;
            return;
        }
        self.skip = EVERY - 1;
        if self.ring.len() < KEPT {
            if self.ring.len() == self.ring.capacity() {
                let more = (self.ring.len() / 2).max(AT_FIRST).min(KEPT - self.ring.len());
                self.ring.reserve_exact(more);
                self.sorted.reserve_exact(more);
            }
            self.ring.push(value);
        } else if let Some(place) = self.ring.get_mut(self.next) {
            let gone = std::mem::replace(place, value);
            self.next = (self.next + 1) % KEPT;
            let place = self.sorted.partition_point(|other| other.total_cmp(&gone).is_lt());
            if place < self.sorted.len() {
                self.sorted.remove(place);
            }
        }
        let place = self.sorted.partition_point(|other| other.total_cmp(&value).is_lt());
        self.sorted.insert(place, value);
        self.look += 1;
        if self.look >= LOOK && self.ring.len() >= AT_FIRST {
            self.look = 0;
            self.lead = self.trend();
        }
    }

    /// How far from the median the trend leads, if there is one.
    fn trend(&self) -> Option<f32> {
        let (newer, older) = self.ring.split_at_checked(self.next)?;
        let mut values = [0.0; KEPT];
        let count = self.ring.len();
        for (place, value) in values.iter_mut().zip(older.iter().chain(newer)) {
            *place = *value;
        }
        let mut quarters = values.get_mut(..count)?.chunks_mut(count.div_ceil(4)).map(median);
        let (first, second, third, last) = (quarters.next()?, quarters.next()?, quarters.next()?, quarters.next()?);
        let sign = if last > first { 1.0 } else { -1.0 };
        let steps = [second - first, third - second, last - third].map(|step| step * sign);
        let least = steps.iter().copied().fold(f32::MAX, f32::min);
        let most = steps.iter().copied().fold(f32::MIN, f32::max);
        if least <= 0.5 * most {
            return None;
        }
        // the last quarter's middle is half a step ago
        let now = last + (last - first) / 6.0;
        Some(now - self.sorted.get(count / 2)?)
    }

    pub(super) fn heap(&self) -> usize {
        (self.ring.capacity() + self.sorted.capacity()) * size_of::<f32>()
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        to.f32s(self.ring.iter());
        [u32::try_from(self.next).unwrap_or(0), self.skip, self.look].into_iter().for_each(|number| to.u32(number));
        to.byte(u8::from(self.lead.is_some()));
        to.f32(self.lead.unwrap_or(0.0));
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Middle, String> {
        let ring = from.f32s(KEPT)?;
        let next = usize::try_from(from.u32()?).unwrap_or(0) % KEPT;
        let next = if ring.len() < KEPT { 0 } else { next };
        let (skip, look) = (from.u32()?.min(EVERY), from.u32()?.min(LOOK));
        let has_lead = from.byte()? == 1;
        let lead = Some(from.f32()?).filter(|_| has_lead);
        let mut sorted = ring.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        Ok(Middle { ring, sorted, next, skip, look, lead })
    }
}

/// The median of some values, which it brings out of order; the mean of both where there are two.
pub(super) fn median(values: &mut [f32]) -> f32 {
    let count = values.len();
    if count == 0 {
        return 0.0;
    }
    let (below, middle, _) = values.select_nth_unstable_by(count / 2, f32::total_cmp);
    let middle = *middle;
    if count % 2 == 1 {
        return middle;
    }
    let other = below.iter().copied().fold(f32::MIN, f32::max);
    narrow(f64::midpoint(f64::from(other), f64::from(middle)))
}
