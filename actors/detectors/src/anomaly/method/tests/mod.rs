//! What holds for every method.

#![allow(clippy::as_conversions, reason = "the numbers are small")]

mod quiet;

use proptest::prelude::*;

use super::*;

fn methods() -> Vec<Method> {
    let window = || Window { window: 50, min_samples: 10, rest: 5, ..Window::default() };
    vec![
        Method::default(),
        Method::ZScore(window()),
        Method::Mad(window()),
        Method::Iqr(window()),
        Method::Ewma(Ewma { window: 50, min_samples: 10, rest: 5, ..Ewma::default() }),
    ]
}

/// Every five minutes.
fn time(number: usize) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + number as i64 * 300_000)
}

/// A value that repeats every `period` points with a little of its own each time.
fn wave(number: usize, period: usize) -> f64 {
    let turn = (number % period) as f64 / period as f64 * std::f64::consts::TAU;
    let own = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    100.0 + 10.0 * turn.sin() + own as f64 / (1 << 24) as f64
}

#[test]
fn a_leap_is_found_on_its_side_and_only_if_that_side_is_wanted() {
    for method in methods() {
        for (leap, side) in [(1000.0, Side::High), (-1000.0, Side::Low)] {
            let mut judge = Judge::new(&method);
            for number in 0..1000 {
                judge.step(time(number), wave(number, 40));
            }
            let judged = judge.step(time(1000), wave(1000, 40) + leap);
            let alarm = judged.alarm.unwrap_or_else(|| panic!("{} finds a leap", method.name()));
            assert_eq!(alarm.side, side, "{}", method.name());
            assert!(alarm.score >= method.sensitivity());
            let band = judged.expected.unwrap();
            assert!(band.low < 112.0 && band.high > 90.0 && band.high < 1000.0 && band.low > -800.0, "{band:?}");
            assert_eq!(judged.seen, 1000);
        }
    }
    let only_low = Method::Mad(Window { direction: Direction::Low, ..Window::default() });
    let mut judge = Judge::new(&only_low);
    for number in 0..1000 {
        judge.step(time(number), wave(number, 40));
    }
    assert!(judge.step(time(1000), 1000.0).alarm.is_none());
    assert!(judge.step(time(1001), -1000.0).alarm.is_some());
}

#[test]
fn what_is_no_number_is_neither_judged_nor_learned() {
    for method in methods() {
        let mut judge = Judge::new(&method);
        for number in 0..300 {
            judge.step(time(number), wave(number, 40));
        }
        let before = judge.encode();
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(judge.step(time(300), value).alarm, None);
        }
        assert_eq!(judge.encode(), before);
    }
}

#[test]
fn no_alarm_depends_on_what_comes_after_it() {
    // hourly, so that two days are few points
    let at = |number: usize| Timestamp::from_millis(1_700_000_000_000 + number as i64 * 3_600_000);
    let leaps = |number: usize, every: usize, by: f64| if number % every == every - 1 { by } else { 0.0 };
    let series: [&dyn Fn(usize) -> f64; 3] = [
        &|number| wave(number, 24) + leaps(number, 67, 60.0),
        &|number| wave(number, 7) * if number > 250 { 3.0 } else { 1.0 },
        &|number| number as f64 + wave(number, 24) - leaps(number, 111, 500.0),
    ];
    for method in methods() {
        let mut alarms = 0;
        for value in &series {
            let judge_all = |length: usize| {
                let mut judge = Judge::new(&method);
                (0..length).map(|number| judge.step(at(number), value(number))).collect::<Vec<_>>()
            };
            let whole = judge_all(320);
            alarms += whole.iter().filter(|judged| judged.alarm.is_some()).count();
            for length in 1..=320 {
                let (now, prefix) = (judge_all(length), &whole[..length]);
                assert!(now == prefix, "{} changes its mind about a prefix of {length}", method.name());
            }
        }
        assert!(alarms > 0, "{} finds something to compare", method.name());
    }
}

/// When there are alarms in a restless series of five minutes, with its values changed by `change`.
fn alarms(method: &Method, change: impl Fn(f64) -> f64) -> Vec<usize> {
    let mut judge = Judge::new(method);
    let value = |number: usize| wave(number, 288) + if number % 701 > 690 { 35.0 } else { 0.0 };
    (0..6000).filter(|number| judge.step(time(*number), change(value(*number))).alarm.is_some()).collect()
}

#[test]
fn neither_level_nor_unit_of_a_series_matters() {
    for method in methods() {
        let plain = alarms(&method, |value| value);
        assert!(!plain.is_empty(), "{}", method.name());
        for (shift, scale) in [(0.0, 1024.0), (0.0, 1.0 / 4096.0), (0.0, 3.7e6), (0.0, 1.3e-5), (250.0, 1.0), (-1e4, 12.5), (0.0, 1e60)] {
            assert_eq!(alarms(&method, |value| value * scale + shift), plain, "{} at {shift} {scale}", method.name());
        }
        // upside down
        assert_eq!(alarms(&method, |value| -value), plain, "{}", method.name());
    }
}

#[test]
fn repeats_gaps_and_late_points_are_points_like_any_other() {
    // the wave itself is the kind of small change that ewma looks for
    for method in methods().into_iter().filter(|method| method.name() != "ewma") {
        let mut judge = Judge::new(&method);
        let mut found = 0;
        for number in 0..3000_usize {
            // some times come twice, some an hour late, and once there is nothing for two days
            let late = if number % 50 == 7 { 12 } else { 0 };
            let place = number.saturating_sub(usize::from(number % 10 == 3) + late) + if number > 2000 { 576 } else { 0 };
            let judged = judge.step(time(place), wave(place, 288));
            found += usize::from(judged.alarm.is_some());
            assert_eq!(judged.seen, number as u64);
            assert!(judged.since <= time(place.max(number)));
        }
        assert!(found <= 1, "{} finds no more than the gap: {found}", method.name());
        let leap = judge.step(time(3576), 10_000.0);
        assert!(leap.alarm.is_some(), "{} still finds a leap", method.name());
    }
}

#[test]
fn the_first_and_the_last_times_there_are_do_no_harm() {
    let ends = [0, 1, 4_294_967_295_000, 253_402_300_799_999, 0, 4_294_967_295_000, 3];
    for method in methods() {
        let mut judge = Judge::new(&method);
        for round in 0..400 {
            for end in ends {
                judge.step(Timestamp::from_millis(end), wave(round, 40));
            }
        }
        // a clock that was once in 2106 does not stop the hours for good
        for number in 0..2000 {
            judge.step(time(number), wave(number, 288));
        }
        assert!(judge.bytes() < 24 * 1024);
        assert!(Judge::decode(&method, &judge.encode()).is_ok());
    }
}

#[test]
fn the_values_outside_of_what_was_expected_are_those_that_alarm() {
    for method in methods().into_iter().filter(|method| method.name() != "ewma") {
        let mut judge = Judge::new(&method);
        for number in 0..3000 {
            judge.step(time(number), wave(number, 288));
        }
        let band = judge.clone().step(time(3000), 1000.0).expected.unwrap();
        assert!(band.low < wave(3000, 288) && wave(3000, 288) < band.high, "{}: {band:?}", method.name());
        let width = band.high - band.low;
        for (value, alarms) in [
            (band.low - 0.01 * width, true),
            (band.low + 0.01 * width, false),
            (band.high - 0.01 * width, false),
            (band.high + 0.01 * width, true),
        ] {
            let judged = judge.clone().step(time(3000), value);
            assert_eq!(judged.alarm.is_some(), alarms, "{} of {value} in {band:?}", method.name());
        }
    }
}

#[test]
fn the_rank_is_the_share_of_the_past_that_was_less_extreme() {
    for method in methods().into_iter().filter(|method| method.name() != "ewma") {
        let mut judge = Judge::new(&method);
        for number in 0..3000 {
            judge.step(time(number), wave(number, 288) + if number % 997 == 900 { 80.0 } else { 0.0 });
        }
        let highest = judge.clone().step(time(3000), 5000.0);
        assert_eq!(highest.rank, Some(1.0), "{}", method.name());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_stored_state_goes_on_bit_for_bit(
        which in 0_usize..5,
        values in prop::collection::vec(prop_oneof![8 => -10.0..10.0_f64, 1 => Just(1e300), 1 => -1e6..1e6_f64, 1 => Just(0.0)], 1..400),
        cut in 0_usize..400,
    ) {
        let method = &methods()[which];
        let mut whole = Judge::new(method);
        let mut parted = Judge::new(method);
        for (number, value) in values.iter().enumerate() {
            if number == cut {
                parted = Judge::decode(method, &parted.encode()).unwrap();
            }
            prop_assert_eq!(whole.step(time(number), *value), parted.step(time(number), *value));
        }
        prop_assert_eq!(whole.encode(), parted.encode());
    }

    #[test]
    fn damaged_states_are_refused_or_harmless(which in 0_usize..5, cut in 0_usize..2000, place in 0_usize..2000, value in any::<u8>()) {
        let method = &methods()[which];
        let mut judge = Judge::new(method);
        for number in 0..120 {
            judge.step(time(number), wave(number, 40));
        }
        let mut bytes = judge.encode();
        if cut < bytes.len() {
            prop_assert!(Judge::decode(method, &bytes[..cut]).is_err());
        }
        if let Some(byte) = bytes.get_mut(place) {
            *byte = value;
        }
        if let Ok(mut judge) = Judge::decode(method, &bytes) {
            for number in 120..240 {
                judge.step(time(number), wave(number, 40));
            }
        }
    }
}
