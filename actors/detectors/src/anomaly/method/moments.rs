//! Mean and standard deviation of a window of values, kept up to date.

use super::{
    real,
    wire::{Reader, Writer},
};

/// The last values, oldest first from `next` on once it is full.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    values: Vec<f64>,
    next: usize,
    full: usize,
}

impl Ring {
    pub(super) fn new(full: usize) -> Ring {
        Ring { values: Vec::new(), next: 0, full }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn values(&self) -> &[f64] {
        &self.values
    }

    pub(super) fn heap(&self) -> usize {
        self.values.capacity() * size_of::<f64>()
    }

    /// Adds `value`; what it displaced, if the ring was full.
    pub(super) fn push(&mut self, value: f64) -> Option<f64> {
        if self.values.len() < self.full {
            if self.values.len() == self.values.capacity() {
                // by a half instead of double, and never more than it will hold
                let more = (self.values.len() / 2).max(16).min(self.full - self.values.len());
                self.values.reserve_exact(more);
            }
            self.values.push(value);
            return None;
        }
        let displaced = self.values.get_mut(self.next).map(|place| std::mem::replace(place, value));
        self.next = if self.next + 1 == self.full { 0 } else { self.next + 1 };
        displaced
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        to.f64s(self.values.iter());
        to.u32(u32::try_from(self.next).unwrap_or(0));
    }

    pub(super) fn decode(full: usize, from: &mut Reader<'_>) -> Result<Ring, String> {
        let values = from.f64s(full)?;
        let next = usize::try_from(from.u32()?).unwrap_or(usize::MAX);
        if next >= full || (values.len() < full && next != 0) {
            return Err("the state's window begins outside itself".to_owned());
        }
        Ok(Ring { values, next, full })
    }
}

/// Sums over the window, as distances from an origin that is near the values, so that little is lost
/// to rounding (Chan, Golub and LeVeque 1983, "shifted data"). They are summed anew when the window
/// was passed once, and when what is left of the squares is a millionth of what they were: an outlier
/// that left takes its rounding with it.
#[derive(Debug, Clone)]
pub(super) struct Moments {
    ring: Ring,
    origin: f64,
    sum: f64,
    squares: f64,
    most: f64,
    age: u32,
}

const WORN: f64 = 1e-6;

impl Moments {
    pub(super) fn new(window: usize) -> Moments {
        Moments { ring: Ring::new(window), origin: 0.0, sum: 0.0, squares: 0.0, most: 0.0, age: 0 }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(super) fn mean(&self) -> f64 {
        if self.ring.len() == 0 { 0.0 } else { self.origin + self.sum / real(self.ring.len()) }
    }

    /// The standard deviation of a sample (with n - 1).
    pub(super) fn deviation(&self) -> f64 {
        let count = real(self.ring.len());
        if count < 2.0 {
            return 0.0;
        }
        (self.central() / (count - 1.0)).max(0.0).sqrt()
    }

    /// The sum of the squared distances from the mean.
    fn central(&self) -> f64 {
        self.squares - self.sum * self.sum / real(self.ring.len())
    }

    pub(super) fn push(&mut self, value: f64) {
        if self.ring.len() == 0 {
            self.origin = value;
        }
        let away = value - self.origin;
        self.sum += away;
        self.squares += away * away;
        self.most = self.most.max(self.squares);
        if let Some(gone) = self.ring.push(value) {
            let away = gone - self.origin;
            self.sum -= away;
            self.squares -= away * away;
        }
        self.age += 1;
        let passed = usize::try_from(self.age).is_ok_and(|age| age >= self.ring.full);
        if passed || self.central() < self.most * WORN {
            self.sum_anew();
        }
    }

    fn sum_anew(&mut self) {
        let count = real(self.ring.len());
        let first = self.ring.values.first().copied().unwrap_or(0.0);
        self.origin = first + self.ring.values.iter().map(|value| (value - first) / count).sum::<f64>();
        let away = self.ring.values.iter().map(|value| value - self.origin);
        (self.sum, self.squares) = away.fold((0.0, 0.0), |(sum, squares), away| (sum + away, squares + away * away));
        self.most = self.squares;
        self.age = 0;
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        self.ring.encode(to);
        [self.origin, self.sum, self.squares, self.most].into_iter().for_each(|number| to.f64(number));
        to.u32(self.age);
    }

    pub(super) fn decode(window: usize, from: &mut Reader<'_>) -> Result<Moments, String> {
        let ring = Ring::decode(window, from)?;
        let [origin, sum, squares, most] = [from.f64()?, from.f64()?, from.f64()?, from.f64()?];
        Ok(Moments { ring, origin, sum, squares, most, age: from.u32()? })
    }
}

#[cfg(test)]
#[allow(clippy::as_conversions, reason = "the numbers are small")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn mean_and_deviation_are_those_of_the_window(
            window in 2_usize..40,
            values in prop::collection::vec(prop_oneof![
                -1e3..1e3_f64, Just(7.25), 1e9..1.000_001e9_f64, prop::sample::select(vec![1e100, -1e12, 0.0]),
            ], 1..300),
        ) {
            let mut moments = Moments::new(window);
            for end in 1..=values.len() {
                moments.push(values[end - 1]);
                let past = &values[end.saturating_sub(window)..end];
                // compensated by the same origin: the naive two passes
                let origin = past[0];
                let count = past.len() as f64;
                let mean = origin + past.iter().map(|value| (value - origin) / count).sum::<f64>();
                let squares = past.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
                let deviation = if past.len() < 2 { 0.0 } else { (squares / (count - 1.0)).sqrt() };
                let size = past.iter().fold(0.0_f64, |most, value| most.max((value - mean).abs()));
                prop_assert!((moments.mean() - mean).abs() <= 1e-6 * size + 1e-9 * mean.abs(), "{} {mean}", moments.mean());
                prop_assert!((moments.deviation() - deviation).abs() <= 1e-4 * size + 1e-9 * mean.abs(), "{} {deviation}", moments.deviation());
            }
        }
    }
}
