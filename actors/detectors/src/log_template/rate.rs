//! How often a template comes, what is a burst, and what is silence.
//!
//! *Bursts.* Lines are counted by the minute of their receipt. Mean and variance of these counts, empty minutes included,
//! are exponentially weighted (West, "Updating mean and variance estimates", 1979; the last two hours count for most). A
//! count `c` is a burst if a negative binomial count with that mean `m` and variance `v` would reach it less than once in
//! a billion minutes, by Chernoff's bound: with `r = m²/(v−m)`,
//! `ln P(X ≥ c) ≤ −[c ln(c/m) − (c+r) ln((c+r)/(m+r))]`, which for `v ≤ m` becomes Poisson's `−[c ln(c/m) − (c−m)]`. It must
//! also be beyond one and a half times the highest minute so far, which is forgotten by half a day: so neither what comes in
//! heaps every hour nor the rush of every morning is a burst. Minutes of a burst teach nothing until it has lasted for an hour; then it is what is usual.
//!
//! *Silence.* Of the pauses between lines (of a second or more) the mean and the longest are kept. Silence is reached after 21 mean pauses (were
//! they independent, one in a billion would be longer, `e^−21`), three times the longest, and five minutes, whichever is
//! longest, of a template with fifty pauses or more.

use std::time::Duration;

use opspilot_kernel::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// −ln of how rarely chance alone may look like a burst or a silence.
const SURPRISE: f64 = 20.7;
/// The weight of a minute is not less than one in so many.
const MINUTES: f64 = 120.0;
/// A minute of a burst is so many times the highest minute before.
const ABOVE_PEAK: f64 = 1.5;
/// What is left of the highest minute after another one: half after half a day.
const PEAK_KEPT: f64 = 0.999_037_732;
/// Empty minutes are counted one by one up to so many; after that nothing is left of what was before.
const GAP: i64 = 1440;
/// A burst that lasted for so many minutes is what is usual.
const USUAL_AFTER: u32 = 60;
/// What never comes is taken for so many lines a minute.
const LEAST: f64 = 0.02;
const PAUSES: u32 = 50;
const LEAST_SILENCE: Duration = Duration::from_secs(300);

/// A number that is stored bit by bit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Exact(pub(super) f64);

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0.to_bits())
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Exact, D::Error> {
        let number = f64::from_bits(u64::deserialize(deserializer)?);
        Ok(Exact(if number.is_finite() { number } else { 0.0 }))
    }
}

/// What counts as a burst.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) lines: u32,
    pub(super) factor: u32,
    pub(super) baseline: Duration,
}

/// Lines by the minute.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rate {
    minute: i64,
    count: u32,
    /// From how many lines on this minute is a burst; worked out when it may be one.
    limit: u32,
    /// Minutes that were learned from, and those of a burst that were not.
    learned: u32,
    above: u32,
    mean: Exact,
    variance: Exact,
    peak: Exact,
}

impl Rate {
    pub(super) fn new(now: Timestamp) -> Rate {
        Rate { minute: minute(now), ..Rate::default() }
    }

    /// Counts a line; true if this minute is a burst.
    pub(super) fn count(&mut self, now: Timestamp, terms: Terms) -> bool {
        self.roll(minute(now));
        self.count = self.count.saturating_add(1);
        if self.limit == 0 && self.count.saturating_mul(2) >= terms.lines && self.knows(terms.baseline) {
            self.limit = self.limit_for(terms);
        }
        self.limit > 0 && self.count >= self.limit
    }

    /// Whether this minute may become a burst.
    pub(super) fn nears(&self) -> bool {
        self.limit > 0 && self.count.saturating_mul(2) >= self.limit
    }

    /// Whether a line now begins another minute.
    pub(super) fn turns(&self, now: Timestamp) -> bool {
        minute(now) > self.minute
    }

    /// Lines in this minute, and the usual number with its standard deviation.
    pub(super) fn now(&self) -> (u32, f64, f64) {
        (self.count, self.mean.0, self.variance.0.max(0.0).sqrt())
    }

    fn knows(&self, baseline: Duration) -> bool {
        u64::from(self.learned).saturating_mul(60) >= baseline.as_secs()
    }

    /// Ends the current minute and begins another; a clock that was set back stays in the minute it is in.
    fn roll(&mut self, minute: i64) {
        let passed = minute.saturating_sub(self.minute);
        if passed <= 0 {
            return;
        }
        let count = f64::from(self.count);
        if self.limit > 0 && self.count >= self.limit && self.above < USUAL_AFTER {
            self.above += 1;
        } else {
            self.learn(count);
            self.peak = Exact(self.peak.0.max(count));
            self.above = if self.limit > 0 && self.count >= self.limit { self.above } else { 0 };
        }
        let empty = (passed - 1).min(GAP);
        for _ in 0..empty {
            self.learn(0.0);
        }
        let passed = i32::try_from(passed).unwrap_or(i32::MAX);
        self.peak = Exact(self.peak.0 * PEAK_KEPT.powi(passed));
        (self.minute, self.count, self.limit) = (minute, 0, 0);
    }

    fn learn(&mut self, count: f64) {
        self.learned = self.learned.saturating_add(1);
        let weight = (1.0 / f64::from(self.learned)).max(1.0 / MINUTES);
        let off = count - self.mean.0;
        self.mean = Exact(self.mean.0 + weight * off);
        self.variance = Exact((1.0 - weight) * (self.variance.0 + weight * off * off));
    }

    fn limit_for(&self, terms: Terms) -> u32 {
        let floor = f64::from(terms.lines).max(f64::from(terms.factor) * self.mean.0).max(ABOVE_PEAK * self.peak.0).ceil();
        let mut count = floor;
        while self.surprise(count) < SURPRISE && count < 1e9 {
            count = (count * 1.05).ceil().max(count + 1.0);
        }
        whole(count)
    }

    /// −ln of a bound of how often chance alone gives so many lines in a minute.
    fn surprise(&self, count: f64) -> f64 {
        let mean = self.mean.0.max(LEAST);
        let beyond = self.variance.0 - mean;
        if count <= mean {
            return 0.0;
        }
        let own = count * (count / mean).ln();
        if beyond <= mean * 1e-6 {
            return own - (count - mean);
        }
        let shape = mean * mean / beyond;
        own - (count + shape) * ((count + shape) / (mean + shape)).ln()
    }

    /// Takes in what another one counted of the same minutes.
    pub(super) fn join(&mut self, mut other: Rate) {
        let minute = self.minute.max(other.minute);
        self.roll(minute);
        other.roll(minute);
        self.count = self.count.saturating_add(other.count);
        self.limit = 0;
        self.mean = Exact(self.mean.0 + other.mean.0);
        self.variance = Exact(self.variance.0 + other.variance.0);
        self.peak = Exact(self.peak.0 + other.peak.0);
        self.learned = self.learned.max(other.learned);
    }
}

fn minute(at: Timestamp) -> i64 {
    at.millis().div_euclid(60_000)
}

#[allow(clippy::as_conversions, reason = "a float becomes the nearest whole number within bounds")]
fn whole(number: f64) -> u32 {
    number as u32
}

/// Pauses between lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pauses {
    count: u32,
    /// In seconds.
    mean: Exact,
    longest: Exact,
}

impl Pauses {
    pub(super) fn push(&mut self, pause: Duration) {
        let seconds = pause.as_secs_f64();
        if seconds < 1.0 {
            return;
        }
        self.count = self.count.saturating_add(1);
        let weight = (1.0 / f64::from(self.count)).max(1.0 / 64.0);
        self.mean = Exact(self.mean.0 + weight * (seconds - self.mean.0));
        self.longest = Exact((self.longest.0 * 0.999).max(seconds));
    }

    /// After how long without a line it has stopped; never, unless it came regularly.
    pub(super) fn silence(&self) -> Option<Duration> {
        let seconds = (SURPRISE * self.mean.0).max(3.0 * self.longest.0);
        (self.count >= PAUSES).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).max(LEAST_SILENCE))
    }

    pub(super) fn mean(&self) -> f64 {
        self.mean.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { lines: 20, factor: 4, baseline: Duration::from_secs(3600) };

    /// The minutes in which a burst is seen.
    fn bursts(counts: impl Iterator<Item = u32>) -> Vec<usize> {
        let mut rate = Rate::new(Timestamp::ZERO);
        let mut found = Vec::new();
        for (minute, count) in counts.enumerate() {
            let at = Timestamp::from_millis(i64::try_from(minute).unwrap() * 60_000);
            if (0..count).any(|_| rate.count(at, TERMS)) {
                found.push(minute);
            }
        }
        found
    }

    #[test]
    fn a_minute_far_beyond_what_is_usual_is_a_burst_and_an_hour_of_it_is_usual() {
        assert_eq!(bursts((0..300).map(|n| if n == 200 { 60 } else { 3 + n % 3 })), [200]);
        let lasting = bursts((0..500).map(|n| if n >= 200 { 60 } else { 3 + n % 3 }));
        assert_eq!((lasting.first(), lasting.last()), (Some(&200), Some(&261)), "{lasting:?}");
    }

    #[test]
    fn what_is_seldom_bursts_with_the_least_number_of_lines() {
        assert_eq!(bursts((0..300).map(|n| if n == 200 { 20 } else { u32::from(n == 0) })), [200]);
        assert_eq!(bursts((0..300).map(|n| if n == 200 { 19 } else { u32::from(n == 0) })), [0_usize; 0]);
    }

    #[test]
    fn nothing_bursts_before_there_is_a_baseline() {
        assert_eq!(bursts((0..59).map(|n| if n == 50 { 1000 } else { 1 })), [0_usize; 0]);
    }

    #[test]
    fn neither_heaps_every_hour_nor_the_rush_of_every_day_is_a_burst() {
        assert_eq!(bursts((0..6000).map(|n| if n % 60 == 0 { 400 + n % 7 } else { 0 })), [0_usize; 0]);
        let day = |minute: u32| {
            let phase = f64::from(minute % 1440) / 1440.0 * std::f64::consts::TAU;
            whole(60.0 - 55.0 * phase.cos()) + minute % 5
        };
        assert_eq!(bursts((0..10_000).map(day)), [0_usize; 0]);
    }

    #[test]
    fn silence_is_far_beyond_every_pause() {
        let mut pauses = Pauses::default();
        (0..49).for_each(|_| pauses.push(Duration::from_secs(10)));
        assert_eq!(pauses.silence(), None);
        pauses.push(Duration::from_secs(200));
        assert_eq!(pauses.silence(), Some(Duration::from_secs(600)));
    }
}
