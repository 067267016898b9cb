//! An alarm in words and numbers.

use std::{borrow::Cow, time::Duration};

use opspilot_kernel::time::Timestamp;

use super::method::{Band, Judged, Side, Sign};
use crate::evidence::cut;

/// A unit is cut at this many bytes.
const UNIT_BYTES: usize = 16;
/// With fewer values before, the words say how few there were.
const FEW: u64 = 1000;

/// A value and what is said of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alarmed<'a> {
    at: Timestamp,
    /// The value, or what a counter rose by.
    value: f64,
    /// The band is about that, too,
    judged: Judged,
    /// and this one about the values as they came.
    pub(super) expected: Option<Band>,
    side: Side,
    metric: &'a str,
    unit: &'a str,
}

/// The band of expected values without what cannot be: a percentage that was never above 100 is not expected to be.
pub(super) fn possible(judged: &Judged, metric: &str, unit: &str) -> Option<Band> {
    let Band { low, high } = judged.expected?;
    let is_share = told(unit, metric) == "%" && judged.extent.is_some_and(|extent| extent.low >= 0.0 && extent.high <= 100.0);
    let high = if is_share { high.min(100.0) } else { high };
    (low <= high).then_some(Band { low, high })
}

impl<'a> Alarmed<'a> {
    pub(super) fn new(at: Timestamp, value: f64, judged: Judged, side: Side, metric: &'a str, unit: &'a str) -> Alarmed<'a> {
        let from = judged.rose_from.unwrap_or(0.0);
        let expected = judged.expected.map(|band| Band { low: band.low - from, high: band.high - from });
        Alarmed { at, value: value - from, expected: judged.expected, judged: Judged { expected, ..judged }, side, metric, unit }
    }

    /// "unusually high: 97 (expected 41–58)".
    pub(super) fn title(&self) -> String {
        let expected = self.expected().filter(|_| !self.is_within()).map_or_else(String::new, |expected| format!(" (expected {expected})"));
        match self.judged.rose_from {
            None => format!("unusually {}: {}{expected}", self.how(), self.saw()),
            Some(_) => format!("rose unusually {}: by {}{expected}", self.how(), self.saw()),
        }
    }

    /// "higher than 99.97 % of the last 14 days; expected 41–58, saw 97".
    ///
    /// That a value is higher or lower than others is said where that was compared; where it is unusual for another
    /// reason, that is said, and how much of the past was less so.
    pub(super) fn unusual(&self) -> String {
        let past = past(self.at.since(self.judged.since), self.judged.seen);
        let share = |rank: f64| if rank >= 1.0 { format!("everything in {past}") } else { format!("{} % of {past}", share(rank)) };
        let side = match self.side {
            Side::High => "higher",
            Side::Low => "lower",
        };
        let how = match (self.judged.alarm.map(|alarm| alarm.sign), self.judged.rank) {
            (Some(_), _) if self.is_record() => format!("{side} than everything in {past}"),
            (Some(Sign::Value), Some(rank)) => format!("{side} than {}", share(rank)),
            (Some(Sign::Average), _) => format!("on the whole {side} than in {past}"),
            (Some(_), Some(rank)) => format!("unusually {}, more so than {}", self.how(), share(rank)),
            (Some(_), None) => format!("unusually {}", self.how()),
            (None, _) => format!("still {side} than expected"),
        };
        let saw = if self.judged.rose_from.is_some() { format!("rose by {}", self.saw()) } else { format!("saw {}", self.saw()) };
        match self.expected() {
            Some(expected) if self.is_within() => format!("{how}; each by itself, values of {expected} are usual, {saw}"),
            Some(expected) => format!("{how}; expected {expected}, {saw}"),
            None => format!("{how}; {saw}"),
        }
    }

    /// What is unusual about it; goes on from "unusually".
    fn how(&self) -> String {
        let of = match (self.side, self.judged.rose_from) {
            (Side::High, None) => "high",
            (Side::Low, None) => "low",
            (Side::High, Some(_)) => "fast",
            (Side::Low, Some(_)) => "slowly",
        };
        match (self.judged.alarm.map(|alarm| alarm.sign), self.judged.rose_from) {
            (Some(Sign::Leap), None) if self.side == Side::High => "steep upwards".to_owned(),
            (Some(Sign::Leap), None) => "steep downwards".to_owned(),
            (Some(Sign::Mean(count)), _) => format!("{of} over its last {count} values"),
            (Some(Sign::Hour), _) => format!("{of} for this hour"),
            (Some(Sign::Restless(count)), None) => format!("restless over its last {count} values"),
            (Some(Sign::Restless(count)), Some(_)) => format!("unevenly over its last {count} values"),
            (Some(Sign::Course(count)), None) => format!("shaped over its last {count} values"),
            (Some(Sign::Course(count)), Some(_)) => format!("unevenly over its last {count} values"),
            (Some(Sign::Value | Sign::Level | Sign::Average | Sign::Leap) | None, _) => of.to_owned(),
        }
    }

    /// Whether there was no such value before. Of a counter it is not known, as its rises are compared by the time they took.
    fn is_record(&self) -> bool {
        let beyond = |extent: Band| match self.side {
            Side::High => self.value > extent.high,
            Side::Low => self.value < extent.low,
        };
        self.judged.rose_from.is_none() && self.judged.extent.is_some_and(beyond)
    }

    /// Whether the value by itself would be nothing special.
    fn is_within(&self) -> bool {
        self.judged.expected.is_some_and(|band| (band.low..=band.high).contains(&self.value))
    }

    /// The value with its unit; of a counter, what it rose by.
    pub(super) fn saw(&self) -> String {
        let (factor, unit) = unit(self.unit, self.metric, self.largest());
        format!("{}{unit}", number(self.value / factor, self.step() / factor))
    }

    /// The range that was expected, with its unit.
    pub(super) fn expected(&self) -> Option<String> {
        let Band { low, high } = self.judged.expected?;
        let (factor, unit) = unit(self.unit, self.metric, self.largest());
        let step = self.step() / factor;
        let [low, high] = [low, high].map(|bound| bound.is_finite().then(|| number(bound / factor, step)));
        match (low, high) {
            (Some(low), Some(high)) if low == high => Some(format!("{low}{unit}")),
            // a dash before a minus sign is hard to read
            (Some(low), Some(high)) if high.starts_with('-') || low.starts_with('-') => Some(format!("{low} to {high}{unit}")),
            (Some(low), Some(high)) => Some(format!("{low}–{high}{unit}")),
            (Some(low), None) => Some(format!("{low}{unit} or more")),
            (None, Some(high)) => Some(format!("{high}{unit} or less")),
            (None, None) => None,
        }
    }

    /// What a difference of interest is: the width of what is expected, or how far beyond it the value is if that is less.
    fn step(&self) -> f64 {
        let Some(Band { low, high }) = self.judged.expected else { return 0.0 };
        let off = (self.value - high).max(low - self.value);
        let width = high - low;
        let step = match width > 0.0 && width.is_finite() {
            true if off > 0.0 => width.min(off.max(width / 100.0)),
            true => width,
            false => off,
        };
        if step.is_finite() { step.abs() } else { 0.0 }
    }

    fn largest(&self) -> f64 {
        let bounds = self.judged.expected.map_or([0.0; 2], |band| [band.low, band.high]);
        bounds.into_iter().filter(|bound| bound.is_finite()).fold(self.value.abs(), |largest, bound| largest.max(bound.abs()))
    }
}

/// "the last 14 days", or how few values that is.
fn past(span: Duration, seen: u64) -> String {
    let values = format!("{} {}", grouped(&seen.to_string()), if seen == 1 { "value" } else { "values" });
    if span < Duration::from_secs(1) {
        return format!("the {values} before");
    }
    let span = long(span);
    if seen < FEW { format!("the last {span} (no more than {values} so far)") } else { format!("the last {span}") }
}

/// A length of time in the largest unit of which it has two.
fn long(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = [(86_400, "days"), (3600, "hours"), (60, "minutes")]
        .into_iter()
        .find(|(unit, _)| seconds >= unit * 2)
        .map_or((seconds, "seconds"), |(unit, name)| (seconds / unit, name));
    if count == 1 { "second".to_owned() } else { format!("{count} {unit}") }
}

/// A share in percent, never rounded up: with more decimals the nearer it is to all.
fn share(rank: f64) -> String {
    let decimals: u32 = if rank > 0.999 { 3 } else { u32::from(rank > 0.9) + u32::from(rank > 0.99) };
    let scale = 10_f64.powi(i32::try_from(decimals).unwrap_or(0));
    let text = format!("{:.*}", usize::try_from(decimals).unwrap_or(0), (rank.clamp(0.0, 1.0) * 100.0 * scale + 1e-6).floor() / scale);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A number as precise as differences of `step` ask for: two digits of it.
pub(super) fn number(value: f64, step: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e15).contains(&size) {
        return format!("{value:.3e}");
    }
    let of = if step > 0.0 { step } else { size };
    let decimals = if of > 0.0 { (1.0 - of.log10().floor()).clamp(0.0, 8.0) } else { 0.0 };
    let decimals = (0..=8_u8).find(|count| f64::from(*count) >= decimals).map_or(8, usize::from);
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text.as_str() };
    grouped(if text == "-0" { "0" } else { text })
}

/// With a comma before every third digit from 10,000 on.
fn grouped(text: &str) -> String {
    let (sign, rest) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = rest.split_once('.').map_or((rest, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut out = sign.to_owned();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && whole.len() > 4 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// What a metric is measured in. Where nothing is said, the endings that Prometheus recommends for names tell.
fn told<'a>(unit: &'a str, metric: &str) -> &'a str {
    match unit {
        "" | "1" if metric.ends_with("_bytes") => "bytes",
        "" | "1" if metric.ends_with("_seconds") => "s",
        "" | "1" if metric.ends_with("_ms") || metric.ends_with("_milliseconds") => "ms",
        "" | "1" if metric.ends_with("_percent") => "%",
        "percent" => "%",
        told => told,
    }
}

/// What to divide by and what to write behind, for numbers as large as `largest`.
fn unit<'a>(unit: &'a str, metric: &str, largest: f64) -> (f64, Cow<'a, str>) {
    match told(unit, metric) {
        "" | "1" => (1.0, "".into()),
        "bytes" | "byte" | "By" | "B" => scale(&BYTES, largest),
        "s" | "seconds" | "sec" => scale(&SECONDS, largest),
        "ms" | "milliseconds" => scale(&MILLISECONDS, largest),
        "%" => (1.0, " %".into()),
        other => (1.0, format!(" {}", cut(other, UNIT_BYTES)).into()),
    }
}

/// From how much on, what to divide by, and what it is called then.
type Scale = (f64, f64, &'static str);

const BYTES: [Scale; 5] = [
    (1_099_511_627_776.0, 1_099_511_627_776.0, " TiB"),
    (1_073_741_824.0, 1_073_741_824.0, " GiB"),
    (1_048_576.0, 1_048_576.0, " MiB"),
    (1024.0, 1024.0, " KiB"),
    (0.0, 1.0, " B"),
];
const SECONDS: [Scale; 5] =
    [(7200.0, 3600.0, " h"), (120.0, 60.0, " min"), (1.0, 1.0, " s"), (0.001, 0.001, " ms"), (0.0, 0.000_001, " µs")];
const MILLISECONDS: [Scale; 2] = [(1000.0, 1000.0, " s"), (0.0, 1.0, " ms")];

fn scale<'a>(scales: &[Scale], largest: f64) -> (f64, Cow<'a, str>) {
    scales.iter().find(|(from, ..)| largest >= *from).map_or((1.0, "".into()), |(_, factor, unit)| (*factor, (*unit).into()))
}

#[cfg(test)]
mod tests {
    use super::{super::method::Alarm, *};

    const AT: i64 = 1_795_348_800_000;

    fn judged(band: Option<(f64, f64)>, sign: Option<Sign>, rank: Option<f64>, days: i64, seen: u64) -> Judged {
        let expected = band.map(|(low, high)| Band { low, high });
        let alarm = sign.map(|sign| Alarm { side: Side::High, score: 2.0, sign });
        let since = Timestamp::from_millis(AT - days * 86_400_000);
        Judged { alarm, expected, rank, seen, since, extent: None, rose_from: None }
    }

    fn alarmed(value: f64, judged: Judged) -> Alarmed<'static> {
        let side = if judged.expected.is_some_and(|band| value < band.low) { Side::Low } else { Side::High };
        Alarmed::new(Timestamp::from_millis(AT), value, judged, side, "latency", "")
    }

    #[test]
    fn it_says_how_unusual_a_value_is_and_how_short_the_past_is() {
        let band = Some((41.2, 57.9));
        let said = |value, band, sign, rank, days, seen| alarmed(value, judged(band, Some(sign), rank, days, seen)).unusual();
        assert_eq!(
            said(97.0, band, Sign::Value, Some(0.9997), 14, 20_000),
            "higher than 99.97 % of the last 14 days; expected 41–58, saw 97"
        );
        assert_eq!(said(0.5, band, Sign::Value, Some(0.95), 14, 20_000), "lower than 95 % of the last 14 days; expected 41–58, saw 0");
        assert_eq!(
            said(97.0, band, Sign::Value, Some(1.0), 1, 120),
            "higher than everything in the last 24 hours (no more than 120 values so far); expected 41–58, saw 97"
        );
        assert_eq!(
            said(-3.0, Some((-1.0, 1.0)), Sign::Average, None, 0, 12_000),
            "on the whole lower than in the 12,000 values before; expected -1 to 1, saw -3"
        );
        assert_eq!(said(97.0, None, Sign::Value, Some(0.5), 3, 5000), "higher than 50 % of the last 3 days; saw 97");
        assert_eq!(alarmed(97.0, judged(band, None, None, 3, 5000)).unusual(), "still higher than expected; expected 41–58, saw 97");
    }

    #[test]
    fn what_is_unusual_for_another_reason_than_its_size_is_not_said_to_be_higher_than_everything() {
        let said = |value: f64, sign, rank, extent: Option<(f64, f64)>| {
            let extent = extent.map(|(low, high)| Band { low, high });
            let alarmed = alarmed(value, Judged { extent, ..judged(Some((41.2, 57.9)), Some(sign), Some(rank), 14, 20_000) });
            format!("{} | {}", alarmed.title(), alarmed.unusual())
        };
        assert_eq!(
            said(97.0, Sign::Hour, 0.9997, Some((3.0, 100.0))),
            "unusually high for this hour: 97 (expected 41–58) | unusually high for this hour, more so than 99.97 % of the last 14 days; expected 41–58, saw 97"
        );
        assert_eq!(
            said(50.0, Sign::Mean(24), 1.0, Some((3.0, 100.0))),
            "unusually high over its last 24 values: 50 | unusually high over its last 24 values, more so than everything in the last 14 days; each by itself, values of 41–58 are usual, saw 50"
        );
        assert_eq!(
            said(97.0, Sign::Leap, 1.0, Some((3.0, 96.0))),
            "unusually steep upwards: 97 (expected 41–58) | higher than everything in the last 14 days; expected 41–58, saw 97"
        );
        for (sign, how) in [(Sign::Restless(24), "restless over its last 24 values"), (Sign::Course(96), "shaped over its last 96 values")]
        {
            assert!(
                said(50.0, sign, 1.0, None).starts_with(&format!("unusually {how}: 50 | unusually {how}, more so than everything in "))
            );
        }
    }

    #[test]
    fn of_a_counter_it_is_said_what_it_rose_by() {
        let judged = judged(Some((1010.0, 1050.0)), Some(Sign::Level), Some(1.0), 14, 20_000);
        let extent = Some(Band { low: 0.0, high: 60.0 });
        let alarmed = alarmed(1467.0, Judged { rose_from: Some(1000.0), extent, ..judged });
        assert_eq!(alarmed.title(), "rose unusually fast: by 467 (expected 10–50)");
        assert_eq!(alarmed.unusual(), "unusually fast, more so than everything in the last 14 days; expected 10–50, rose by 467");
    }

    #[test]
    fn a_percentage_that_was_never_above_100_is_not_expected_to_be() {
        let band = |unit: &str, high| {
            let extent = Some(Band { low: 2.0, high });
            let judged = Judged { extent, ..judged(Some((60.0, 117.0)), Some(Sign::Level), None, 14, 20_000) };
            possible(&judged, "disk", unit).map(|band| band.high)
        };
        assert_eq!(band("%", 98.0), Some(100.0));
        assert_eq!(band("percent", 250.0), Some(117.0), "of several processors");
        assert_eq!(band("ms", 98.0), Some(117.0));
    }

    #[test]
    fn nothing_is_rounded_up_to_all() {
        for (rank, expected) in [(0.5, "50"), (0.999_999, "99.999"), (0.9997, "99.97"), (0.987, "98.7"), (0.29, "29"), (0.0, "0")] {
            assert_eq!(share(rank), expected, "{rank}");
        }
    }

    #[test]
    fn numbers_are_as_precise_as_what_is_told_apart() {
        for (value, step, expected) in [
            (97.2345, 17.0, "97"),
            (97.2345, 0.5, "97.23"),
            (0.012_345, 0.001, "0.0123"),
            (1_234_567.8, 10_000.0, "1,234,568"),
            (1234.0, 100.0, "1234"),
            (-0.2, 50.0, "0"),
            (5.0, 0.0, "5"),
            (1e20, 1.0, "1.000e20"),
            (0.0, 0.0, "0"),
            (f64::MAX, f64::MAX, "1.798e308"),
        ] {
            assert_eq!(number(value, step), expected, "{value} {step}");
        }
    }

    #[test]
    fn units_are_told_or_follow_from_the_name() {
        let said = |unit, metric, value, band| {
            let alarmed = Alarmed { unit, metric, ..alarmed(value, judged(Some(band), None, None, 1, 5000)) };
            format!("{} {}", alarmed.expected().unwrap(), alarmed.saw())
        };
        assert_eq!(said("", "heap_bytes", 3_221_225_472.0, (1_073_741_824.0, 1_610_612_736.0)), "1–1.5 GiB 3 GiB");
        assert_eq!(said("s", "x", 0.9, (0.1, 0.2)), "100–200 ms 900 ms");
        assert_eq!(said("", "x_seconds", 9000.0, (600.0, 1200.0)), "0.17–0.33 h 2.5 h");
        assert_eq!(said("ms", "x", 12.0, (3.0, 4.0)), "3–4 ms 12 ms");
        assert_eq!(said("%", "x", 97.0, (41.0, 58.0)), "41–58 % 97 %");
        assert_eq!(said("widgets of a very long name", "x", 9.0, (1.0, 2.0)), "1–2 widgets of a ver 9 widgets of a ver");
        assert_eq!(said("", "x", 9.0, (f64::NEG_INFINITY, 2.0)), "2 or less 9");
        assert_eq!(said("", "x", 9.0, (2.0, 2.0)), "2 9");
    }

    proptest::proptest! {
        #[test]
        fn h6_whatever_the_numbers_are_something_short_is_said(
            value in proptest::num::f64::NORMAL, low in proptest::num::f64::ANY, high in proptest::num::f64::ANY, rank in proptest::num::f64::ANY, days in -40_000..40_000_i64,
            from in proptest::option::of(proptest::num::f64::NORMAL),
        ) {
            let judged = Judged { rose_from: from, ..judged(Some((low, high)), Some(Sign::Value), Some(rank), days, 3) };
            let said = alarmed(value, judged).unusual();
            proptest::prop_assert!(said.len() < 400, "{}", said);
        }
    }
}
