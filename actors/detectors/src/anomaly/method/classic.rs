//! The four methods that compare a value with a window of the values before it.
//!
//! * `zscore`: |x - mean| in standard deviations (Grubbs, "Procedures for Detecting Outlying
//!   Observations in Samples", 1969, over a moving window).
//! * `mad`: |x - median| in 1.4826 median absolute deviations, which are standard deviations where
//!   values are normally distributed (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993).
//! * `iqr`: how far x lies beyond the quartiles, in interquartile ranges (Tukey, "Exploratory Data
//!   Analysis", 1977: fences at 1.5 and at 3).
//! * `ewma`: |z - mean| in standard deviations of z, where z is the average in which the newest value
//!   weighs w and the one before it 1 - w; after i values its deviation is that of the values times
//!   sqrt(w / (2 - w) * (1 - (1 - w)^(2i))) (Roberts, "Control Chart Tests Based on Geometric Moving
//!   Averages", 1959). After an alarm z begins anew at the mean.

use opspilot_kernel::time::Timestamp;

use super::{
    Alarm, Band, Extent, HIGHEST_SCORE, Judged, Sign,
    moments::Moments,
    reach::Reach,
    real, sane,
    settings::{Direction, Ewma, Method, Side, Window},
    sorted::Sorted,
    wire::{Reader, Writer},
};

/// A median absolute deviation of normally distributed values times this is their standard
/// deviation: 1 / Φ⁻¹(3/4).
const MAD_TO_SIGMA: f64 = 1.4826;
/// A share of the values' size that is lost to rounding anyway.
const ROUNDING: f64 = 1e-12;
/// The long run, in windows.
const LONG_RUN: f64 = 10.0;

/// What is remembered of one series, and how it is judged.
#[derive(Debug, Clone)]
pub(super) struct Classic {
    settings: Ewma,
    past: Past,
    /// How far values were from the middle of their window, on average in the long run.
    usual: f64,
    resting: u32,
    extent: Extent,
    reach: Reach,
}

#[derive(Debug, Clone)]
enum Past {
    ZScore(Moments),
    Mad(Sorted),
    Iqr(Sorted),
    Ewma(Moments, Average),
}

/// The moving average of a control chart.
#[derive(Debug, Clone, Default)]
struct Average {
    value: f64,
    /// (1 - w)^(2i), 1 before the first value.
    fading: f64,
}

/// What is expected of the next value.
struct Expectation {
    middle: f64,
    /// Distances are measured from these.
    low: f64,
    high: f64,
    scale: f64,
}

impl Past {
    fn number(&self) -> u8 {
        match self {
            Past::ZScore(_) => 1,
            Past::Mad(_) => 2,
            Past::Iqr(_) => 3,
            Past::Ewma(..) => 4,
        }
    }

    fn values(&self) -> &[f64] {
        match self {
            Past::ZScore(moments) | Past::Ewma(moments, _) => moments.ring().values(),
            Past::Mad(sorted) | Past::Iqr(sorted) => sorted.ring().values(),
        }
    }

    fn expectation(&self) -> Expectation {
        let around = |middle: f64, scale: f64| Expectation { middle, low: middle, high: middle, scale };
        match self {
            Past::ZScore(moments) | Past::Ewma(moments, _) => around(moments.mean(), moments.deviation()),
            Past::Mad(sorted) => {
                let median = sorted.median();
                around(median, MAD_TO_SIGMA * sorted.median_distance(median))
            }
            Past::Iqr(sorted) => {
                let (low, high) = sorted.quartiles();
                Expectation { middle: sorted.median(), low, high, scale: high - low }
            }
        }
    }

    fn push(&mut self, value: f64) {
        match self {
            Past::ZScore(moments) | Past::Ewma(moments, _) => moments.push(value),
            Past::Mad(sorted) | Past::Iqr(sorted) => sorted.push(value),
        }
    }
}

impl Expectation {
    /// How far away `value` is, above zero, and below zero if it is too low.
    fn distance(&self, value: f64) -> f64 {
        if value > self.high {
            value - self.high
        } else if value < self.low {
            value - self.low
        } else {
            0.0
        }
    }
}

/// The settings of any of the four, and its number.
fn common(method: &Method) -> (Ewma, usize) {
    let settings = match method {
        Method::Ewma(ewma) => ewma.clone(),
        Method::ZScore(window) | Method::Mad(window) | Method::Iqr(window) => {
            let Window { direction, window, min_samples, sensitivity: _, floor, rest } = *window;
            Ewma { direction, window, min_samples, weight: 1.0, sensitivity: method.sensitivity(), floor, rest }
        }
        Method::Auto(_) => Ewma { direction: Direction::Both, ..Ewma::default() },
    };
    let window = usize::try_from(settings.window).unwrap_or(usize::MAX).max(2);
    (settings, window)
}

impl Classic {
    pub(super) fn new(method: &Method) -> Classic {
        let (settings, window) = common(method);
        let past = match method {
            Method::Mad(_) => Past::Mad(Sorted::new(window)),
            Method::Iqr(_) => Past::Iqr(Sorted::new(window)),
            Method::Ewma(_) => Past::Ewma(Moments::new(window), Average::default()),
            Method::ZScore(_) | Method::Auto(_) => Past::ZScore(Moments::new(window)),
        };
        Classic { settings, past, usual: 0.0, resting: 0, extent: Extent::NONE, reach: Reach::new() }
    }

    pub(super) fn step(&mut self, at: Timestamp, value: f64) -> Judged {
        let window = self.settings.window;
        let seen = self.reach.seen();
        let since = self.reach.since(window, at);
        let extent = self.extent.band();
        let mut judged = Judged { alarm: None, expected: None, rank: None, seen, since, extent, rose_from: None };
        let Some(value) = sane(value) else { return judged };
        let count = self.past.values().len();
        let mut expectation = self.past.expectation();
        let least = (self.settings.floor * self.usual).max(ROUNDING * expectation.middle.abs());
        expectation.scale = expectation.scale.max(least);
        if count >= usize::try_from(self.settings.min_samples).unwrap_or(usize::MAX).max(2) {
            self.judge(value, &expectation, &mut judged);
        }
        if count > 0 {
            let weight = 1.0 / real(count).max((real(usize::try_from(seen).unwrap_or(usize::MAX))).min(LONG_RUN * f64::from(window)));
            self.usual += ((value - expectation.middle).abs() - self.usual) * weight;
        }
        self.past.push(value);
        self.extent.learn(value);
        self.reach.count(window, at);
        judged
    }

    fn judge(&mut self, value: f64, expectation: &Expectation, judged: &mut Judged) {
        let Ewma { weight, sensitivity, direction, rest, .. } = self.settings;
        let (distance, scale, band) = if let Past::Ewma(_, average) = &mut self.past {
            if average.fading == 0.0 {
                *average = Average { value: expectation.middle, fading: 1.0 };
            }
            let carried = (1.0 - weight) * average.value;
            // never quite zero, which would say that there is no average yet
            average.fading = (average.fading * (1.0 - weight) * (1.0 - weight)).max(f64::MIN_POSITIVE);
            average.value = weight * value + carried;
            let scale = expectation.scale * (weight / (2.0 - weight) * (1.0 - average.fading)).sqrt();
            let edge = |limit: f64| (expectation.middle + limit * scale - carried) / weight;
            let band = Band { low: edge(-sensitivity), high: edge(sensitivity) };
            (average.value - expectation.middle, scale, band)
        } else {
            let away = sensitivity * expectation.scale;
            let band = Band { low: expectation.low - away, high: expectation.high + away };
            (expectation.distance(value), expectation.scale, band)
        };
        judged.expected = self.extent.possible(band);
        let side = if distance < 0.0 { Side::Low } else { Side::High };
        // over a scale of zero any distance is the highest score, and none is none
        let score = if distance == 0.0 { 0.0 } else { (distance.abs() / scale).min(HIGHEST_SCORE) };
        if self.resting > 0 {
            self.resting -= 1;
        } else if score > sensitivity && direction.wants(side) {
            self.resting = rest;
            let sign = if matches!(self.past, Past::Ewma(..)) { Sign::Average } else { Sign::Value };
            judged.alarm = Some(Alarm { side, score, sign });
            if let Past::Ewma(_, average) = &mut self.past {
                *average = Average::default();
            } else {
                let values = self.past.values();
                let less = values.iter().filter(|other| expectation.distance(**other).abs() < distance.abs()).count();
                judged.rank = Some(real(less) / real(values.len()));
            }
        }
    }

    pub(super) fn heap(&self) -> usize {
        match &self.past {
            Past::ZScore(moments) | Past::Ewma(moments, _) => moments.ring().heap(),
            Past::Mad(sorted) | Past::Iqr(sorted) => sorted.heap(),
        }
    }

    pub(super) fn encode(&self, to: &mut Writer) {
        to.byte(self.past.number());
        to.u32(self.settings.window);
        to.f64(self.usual);
        to.u32(self.resting);
        self.extent.encode(to);
        self.reach.encode(to);
        match &self.past {
            Past::ZScore(moments) => moments.encode(to),
            Past::Mad(sorted) | Past::Iqr(sorted) => sorted.encode(to),
            Past::Ewma(moments, average) => {
                moments.encode(to);
                to.f64(average.value);
                to.f64(average.fading);
            }
        }
    }

    pub(super) fn decode(method: &Method, from: &mut Reader<'_>) -> Result<Classic, String> {
        let mut classic = Classic::new(method);
        let (_, window) = common(method);
        if from.byte()? != classic.past.number() {
            return Err("the state is of another method".to_owned());
        }
        if from.u32()? != classic.settings.window {
            return Err("the state is of another window".to_owned());
        }
        classic.usual = from.f64()?;
        classic.resting = from.u32()?.min(classic.settings.rest);
        classic.extent = Extent::decode(from)?;
        classic.reach = Reach::decode(from)?;
        match &mut classic.past {
            Past::ZScore(moments) => *moments = Moments::decode(window, from)?,
            Past::Mad(sorted) | Past::Iqr(sorted) => *sorted = Sorted::decode(window, from)?,
            Past::Ewma(moments, average) => {
                *moments = Moments::decode(window, from)?;
                *average = Average { value: from.f64()?, fading: from.f64()? };
            }
        }
        Ok(classic)
    }
}
