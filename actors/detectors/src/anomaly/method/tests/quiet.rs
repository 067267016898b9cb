//! Series in which nothing happens, and how often that is taken for something.

use super::*;

const WEEK: i64 = 604_800;

/// Random numbers that are the same everywhere (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        let mut random = Random(0x1234_5678_9abc_def1 ^ (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        for _ in 0..10 {
            random.even();
        }
        random
    }

    fn even(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.even().ln()).sqrt() * (std::f64::consts::TAU * self.even()).cos()
    }

    /// Student's t with three degrees of freedom.
    fn heavy(&mut self) -> f64 {
        let squares: f64 = (0..3).map(|_| self.normal().powi(2)).sum();
        self.normal() / (squares / 3.0).sqrt()
    }
}

type Next = fn(&mut Random, &mut f64, i64) -> f64;

fn turn(seconds: i64, period: i64) -> f64 {
    std::f64::consts::TAU * (seconds % period) as f64 / period as f64
}

/// The next value at a time, of what was remembered.
const KINDS: [(&str, Next); 14] = [
    ("constant", |_, _, _| 42.0),
    ("normal noise", |random, _, _| random.normal()),
    ("heavy-tailed noise", |random, _, _| random.heavy()),
    ("log-normal noise", |random, _, _| (0.8 * random.normal()).exp()),
    ("slow noise", |random, last, _| {
        *last = 0.9 * *last + random.normal();
        *last
    }),
    ("whole numbers", |random, _, _| (5.0 + 1.5 * random.normal()).round().max(0.0)),
    ("daily", |random, _, at| 50.0 + 20.0 * turn(at, 86_400).sin() + random.normal()),
    ("daily without noise", |_, _, at| 50.0 + 20.0 * turn(at, 86_400).sin()),
    ("weekly", |random, _, at| {
        let size = if at % WEEK < 5 * 86_400 { 1.0 } else { 0.4 };
        50.0 + 20.0 * turn(at, 86_400).sin() * size + 2.0 * random.normal()
    }),
    ("a batch every night", |random, _, at| 10.0 + random.normal() + if at % 86_400 / 3600 == 3 { 30.0 } else { 0.0 }),
    ("rising", |random, _, at| 10.0 * (at - 1_700_000_000) as f64 / WEEK as f64 + 0.1 * random.normal()),
    ("rising slowly", |random, _, at| 2.0 * (at - 1_700_000_000) as f64 / WEEK as f64 + random.normal()),
    ("a counter that starts again", |random, last, _| {
        *last = if random.even() < 1.0 / 2000.0 { 0.0 } else { *last + 100.0 + 10.0 * random.normal() };
        *last
    }),
    ("sparse", |random, _, _| if random.even() < 0.02 { 1.0 } else { 0.0 }),
];

/// Alarms for each series and week.
fn false_alarms(method: &Method, next: Next, every: i64, weeks: i64, seeds: u64) -> f64 {
    let mut alarms = 0;
    for seed in 0..seeds {
        let (mut random, mut last) = (Random::new(seed), 0.0);
        let mut judge = Judge::new(method);
        for number in 0..weeks * WEEK / every {
            let at = 1_700_000_000 + number * every;
            let value = next(&mut random, &mut last, at);
            alarms += u32::from(judge.step(Timestamp::from_millis(at * 1000), value).alarm.is_some());
        }
    }
    f64::from(alarms) / (weeks as f64 * seeds as f64)
}

fn quiet(method: &Method, every: i64, weeks: i64, seeds: u64, skipped: &[&str]) {
    let mut sum = 0.0;
    for (kind, next) in KINDS.into_iter().filter(|(kind, _)| !skipped.contains(kind)) {
        let alarms = false_alarms(method, next, every, weeks, seeds);
        eprintln!("{} every {every} s, {kind}: {alarms:.2} a week", method.name());
        assert!(alarms < 1.0, "{} every {every} s, {kind}: {alarms:.2} a week", method.name());
        sum += alarms;
    }
    eprintln!("{} every {every} s: {:.2} a week", method.name(), sum / KINDS.len() as f64);
}

#[test]
fn auto_is_quiet_every_five_minutes() {
    quiet(&Method::default(), 300, 12, 2, &[]);
}

#[test]
fn auto_is_quiet_every_minute() {
    quiet(&Method::default(), 60, 2, 2, &[]);
}

/// The classic methods know neither hours nor trends; at their defaults they are quiet on what is
/// stationary and no heavier than normal.
#[test]
fn the_classic_methods_are_quiet_on_plain_noise_by_default() {
    let beyond_them = KINDS.map(|(kind, _)| kind).into_iter().filter(|kind| !["constant", "normal noise", "whole numbers"].contains(kind));
    let beyond_them: Vec<&str> = beyond_them.collect();
    for name in ["zscore", "mad", "iqr", "ewma"] {
        let method = Method::named(name).unwrap();
        quiet(&method, 300, 4, 2, &beyond_them);
        quiet(&method, 60, 1, 2, &beyond_them);
    }
}
