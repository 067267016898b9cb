use proptest::prelude::*;

use super::*;
use crate::testing::number;

const MINUTE: Duration = Duration::from_secs(60);
const ALL: [&str; 13] = ["last", "avg", "min", "max", "sum", "count", "rate", "increase", "delta", "p0", "p50", "p95", "p100"];

fn shape(aggregation: &str, keep: usize) -> Shape {
    Shape { aggregation: aggregation.parse().unwrap(), span: MINUTE, keep }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_000_000_000 + millis)
}

/// Everything that came so far, looked at afresh.
fn naive(taken: &[(i64, f64)], aggregation: Aggregation) -> Option<f64> {
    let newest = taken.iter().map(|sample| sample.0).max()?;
    let mut inside: Vec<(i64, f64)> = Vec::new();
    for (time, value) in taken.iter().copied().filter(|sample| newest - sample.0 < 60_000) {
        inside.retain(|sample| sample.0 != time);
        inside.push((time, value));
    }
    inside.sort_by_key(|sample| sample.0);
    let values: Vec<f64> = inside.iter().map(|sample| sample.1).collect();
    let count = f64::from(u32::try_from(inside.len()).unwrap());
    let mut sorted = values.clone();
    sorted.sort_by(f64::total_cmp);
    let extrapolated = |change: f64, counter: bool| {
        let (first, last) = (inside[0], *inside.last()?);
        let between = number(last.0 - first.0) / 1000.0;
        if inside.len() < 2 {
            return None;
        }
        let usual = between / (count - 1.0);
        let mut before = 60.0 - between;
        if before >= usual * 1.1 {
            before = usual / 2.0;
        }
        if counter && change > 0.0 && first.1 >= 0.0 {
            before = before.min(between * (first.1 / change));
        }
        Some(change * ((between + before) / between))
    };
    let grown = values.windows(2).map(|pair| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] }).sum::<f64>();
    match aggregation {
        Aggregation::Last => values.last().copied(),
        Aggregation::Min => sorted.first().copied(),
        Aggregation::Max => sorted.last().copied(),
        Aggregation::Sum => Some(values.iter().sum()),
        Aggregation::Avg => Some(values.iter().sum::<f64>() / count),
        Aggregation::Count => Some(count),
        Aggregation::Increase => extrapolated(grown, true),
        Aggregation::Rate => extrapolated(grown, true).map(|grown| grown / 60.0),
        Aggregation::Delta => extrapolated(values.last()? - values[0], false),
        Aggregation::Percentile(percent) => percent.of(&sorted),
    }
}

fn stored(window: &Window, shape: Shape) -> Window {
    let mut packer = Packer::default();
    window.pack(&mut packer);
    Window::unpack(&mut Unpacker::new(&packer.bytes()), shape).unwrap()
}

proptest! {
    #[test]
    fn every_aggregation_agrees_with_a_naive_one_in_any_order(samples in proptest::collection::vec((0..200_i64, 0..100_u32), 1..100)) {
        // few different times, so that many are equal
        let samples: Vec<(i64, f64)> = samples.into_iter().map(|(time, value)| (time * 500, f64::from(value))).collect();
        for text in ALL {
            let shape = shape(text, if text == "last" { 1 } else { 1000 });
            let mut window = Window::default();
            let mut taken: Vec<(i64, f64)> = Vec::new();
            for (time, value) in &samples {
                let newest = taken.iter().map(|sample| sample.0).max().unwrap_or(*time);
                prop_assert_eq!(window.push(at(*time), *value, shape) == Pushed::Late, newest - time >= 60_000);
                taken.push((*time, *value));
                window = stored(&window, shape);
                let expected = naive(&taken, shape.aggregation);
                let close = match (window.aggregate(shape), expected) {
                    (Some(value), Some(expected)) => (value - expected).abs() <= 1e-9 * expected.abs().max(1.0),
                    (value, expected) => value == expected,
                };
                prop_assert!(close, "{} of {:?}: {:?}, not {:?}", text, taken, window.aggregate(shape), expected);
            }
        }
    }

    #[test]
    fn h6_any_numbers_and_times_leave_it_bounded_and_whatever_comes_out_is_a_number(
        samples in proptest::collection::vec((0..253_402_300_799_999_i64, any::<f64>()), 1..200), times in 0..3_u8,
    ) {
        for text in ALL {
            let shape = shape(text, 16);
            let mut window = Window::default();
            for (time, value) in samples.iter().filter(|sample| sample.1.is_finite()) {
                let time = match times { 0 => *time, 1 => time % 100_000, _ => time % 3 * 2_147_483_647_000 };
                window.push(Timestamp::from_millis(time), *value, shape);
                prop_assert!(window.held() <= 16 * 2 + 66, "{}", window.held());
                prop_assert!(window.aggregate(shape).is_none_or(f64::is_finite));
                prop_assert_eq!(&stored(&window, shape), &window);
            }
        }
    }
}

#[test]
fn a_window_is_bounded_at_any_rate_and_hardly_loses_anything() {
    let aggregations = ["count", "sum", "avg", "min", "max", "rate", "increase", "delta"];
    let mut windows = aggregations.map(|_| Window::default());
    for n in 0..200_000_i64 {
        for (text, window) in aggregations.iter().zip(&mut windows) {
            window.push(at(n), number(n), shape(text, 128));
            assert!(window.held() <= 128 + 66);
        }
    }
    // the far edge may lie a sixty-fourth further back: 60,000 values, or up to 60,938
    let of = |text: &str| {
        let place = aggregations.iter().position(|known| *known == text).unwrap();
        windows[place].aggregate(shape(text, 128)).unwrap()
    };
    assert!((60_000.0..=60_938.0).contains(&of("count")), "{}", of("count"));
    assert_eq!(of("max"), 199_999.0);
    assert!((139_062.0..=140_000.0).contains(&of("min")), "{}", of("min"));
    assert!((169_530.0..=170_000.0).contains(&of("avg")), "{}", of("avg"));
    for (text, exact) in [("rate", 1000.0), ("increase", 60_000.0), ("delta", 60_000.0)] {
        assert!((exact..=exact * 1.016).contains(&of(text)), "{text}: {}", of(text));
    }
}

#[test]
fn a_counter_that_began_anew_among_values_that_were_joined_has_lost_nothing() {
    let mut window = Window::default();
    let shape = shape("increase", 16);
    // up by one every 10 ms, anew every 100 values: 6,000 steps in a minute; a step to 0 shows no growth
    for n in 0..20_000_i64 {
        window.push(at(n * 10), number(n % 100), shape);
    }
    let grown = window.aggregate(shape).unwrap();
    assert!((5_900.0..=6_000.0 * 1.017).contains(&grown), "{grown}");
}

#[test]
fn percentiles_are_exact_over_the_newest_values_where_more_come_than_are_kept() {
    let shape = shape("p50", 100);
    let mut window = Window::default();
    let pushed: Vec<Pushed> = (0..1000_i64).map(|n| window.push(at(n), number(n % 250), shape)).collect();
    // the newest hundred are 150 to 249: the middle of them lies between 199 and 200
    assert_eq!(window.aggregate(shape), Some(199.5));
    assert_eq!(pushed.iter().filter(|pushed| **pushed == Pushed::Crowded).count(), 900);
}

#[test]
fn what_comes_late_counts_also_among_values_that_were_joined_but_for_rates() {
    for (text, expected) in [("sum", 201.0), ("rate", 0.0)] {
        let shape = shape(text, 16);
        let mut window = Window::default();
        assert!((0..200_i64).all(|n| window.push(at(n * 100), 1.0, shape) != Pushed::Late));
        let late = window.push(at(250), 1.0, shape);
        assert_eq!(late, if text == "sum" { Pushed::Taken } else { Pushed::Late });
        assert_eq!(window.aggregate(shape), Some(expected));
    }
}

#[test]
fn sums_that_are_no_number_are_none_and_means_are() {
    let of = |text: &str| {
        let mut window = Window::default();
        assert!((0..3).all(|n| window.push(at(n), f64::MAX, shape(text, 10)) == Pushed::Taken));
        window.aggregate(shape(text, 10))
    };
    assert_eq!((of("sum"), of("max"), of("p99")), (None, Some(f64::MAX), Some(f64::MAX)));
    assert!(of("avg").is_some_and(|mean| mean > f64::MAX * 0.999));
    assert_eq!(Window::default().aggregate(shape("count", 10)), None);
}
