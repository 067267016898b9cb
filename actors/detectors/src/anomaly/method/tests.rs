//! What holds for every method.

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
