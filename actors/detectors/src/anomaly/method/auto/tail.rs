//! How rare a distance is, by the greatest distances there were.

use super::{
    super::wire::{Reader, Writer},
    narrow,
};

/// So many of the greatest are kept at least, and before there are so many nothing is rare.
const LEAST: usize = 10;
/// So many are kept at most.
const MOST: usize = 128;
/// One in so many is kept, between the two.
const SHARE: usize = 100;
/// When so many were seen, each counts half from then on and every second one is let go of, so that
/// what was long ago is forgotten.
pub(super) const MEMORY: u32 = 32_768;
/// The heaviest tail that is believed in.
const HEAVIEST: f64 = 0.45;
/// What a value is beyond, in powers of ten, that differs where none ever did.
const UNHEARD_OF: f64 = 6.0;

/// The greatest values, greatest first, of all that were learned.
///
/// Beyond the least of them a generalised Pareto distribution is fitted by its first two moments
/// (Pickands, "Statistical Inference Using Extreme Order Statistics", 1975; Hosking and Wallis,
/// "Parameter and Quantile Estimation for the Generalized Pareto Distribution", 1987).
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    top: Vec<f32>,
    seen: u32,
    /// The mean excess over the edge, and the shape, of what is kept.
    mean: f64,
    shape: f64,
}

impl Tail {
    fn kept(&self) -> usize {
        (usize::try_from(self.seen).unwrap_or(usize::MAX) / SHARE).clamp(LEAST, MOST)
    }

    /// What is exceeded by the values that are kept; not there as long as there are too few.
    pub(super) fn edge(&self) -> Option<f32> {
        if self.top.len() < LEAST { None } else { self.top.last().copied() }
    }

    /// How rare values as great as this one are, as powers of ten: 3 is one in a thousand. Zero up to
    /// the edge.
    pub(super) fn rarity(&self, value: f32) -> f32 {
        let Some(edge) = self.edge() else { return 0.0 };
        if value <= edge {
            return 0.0;
        }
        let (edge, value, count) = (f64::from(edge), f64::from(value), super::super::real(self.top.len()));
        let at_edge = (f64::from(self.seen) / count).log10();
        if self.mean <= 0.0 {
            return narrow(at_edge + if value > edge * (1.0 + 1e-6) { UNHEARD_OF } else { 0.0 });
        }
        let beyond = (value - edge) / (self.mean * (1.0 - self.shape));
        let more = if self.shape < 1e-6 { beyond } else { (self.shape * beyond).ln_1p() / self.shape } * std::f64::consts::LOG10_E;
        narrow(at_edge + more)
    }

    fn fit(&mut self) {
        let (edge, count) = (self.top.last().copied().map_or(0.0, f64::from), super::super::real(self.top.len()));
        let excess = self.top.iter().map(|kept| f64::from(*kept) - edge);
        let (sum, squares) = excess.fold((0.0, 0.0), |(sum, squares), excess| (sum + excess, squares + excess * excess));
        self.mean = sum / count.max(1.0);
        let square = self.mean * self.mean;
        let variance = (squares / count.max(1.0) - square).max(square * 1e-9);
        self.shape = if variance > 0.0 { (0.5 * (1.0 - square / variance)).clamp(0.0, HEAVIEST) } else { 0.0 };
    }

    /// The share of what was learned that is less than `value`; where `value` is below the edge, the
    /// share that is below the edge.
    pub(super) fn rank(&self, value: f32) -> f64 {
        let as_great = self.top.partition_point(|kept| *kept >= value);
        1.0 - super::super::real(as_great) / f64::from(self.seen.max(1))
    }

    pub(super) fn learn(&mut self, value: f32) {
        self.seen += 1;
        if self.seen >= MEMORY {
            self.seen /= 2;
            let mut number = 0_u32;
            self.top.retain(|_| {
                number += 1;
                number.is_multiple_of(2)
            });
            self.fit();
        }
        let kept = self.kept();
        // where every second one was let go of, only what is beyond the edge takes its place
        let is_full = self.top.len() >= kept || kept == MOST && self.top.len() >= LEAST;
        if is_full && self.top.last().is_some_and(|least| value <= *least) {
            return;
        }
        self.top.truncate(kept - 1);
        if self.top.len() == self.top.capacity() {
            self.top.reserve_exact((self.top.len() / 2).max(LEAST).min(MOST - self.top.len()));
        }
        let place = self.top.partition_point(|other| *other >= value);
        self.top.insert(place, value);
        self.fit();
    }

    pub(super) fn heap(&self) -> usize {
        self.top.capacity() * size_of::<f32>()
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        to.u32(self.seen);
        to.f32s(self.top.iter());
    }

    pub(super) fn decode(from: &mut Reader<'_>) -> Result<Tail, String> {
        let seen = from.u32()?.min(MEMORY - 1);
        let mut top = from.f32s(MOST)?;
        // stored in order; sorted again, so that damage cannot break what relies on it
        top.sort_by(|one, other| other.total_cmp(one));
        let mut tail = Tail { top, seen, ..Tail::default() };
        tail.fit();
        Ok(tail)
    }
}
