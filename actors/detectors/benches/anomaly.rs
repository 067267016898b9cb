//! How many values a second each method judges on one core, and what it remembers of a series.
//!
//! The series has a daily wave, noise, and now and then an outlier, every five minutes. For
//! comparison: the detector that `auto` grew from judged 107,000 values a second as a script and
//! 228,000 compiled.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::as_conversions, missing_docs, reason = "a bench fails loudly")]

use std::{hint::black_box, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use opspilot_detectors::anomaly::method::{Judge, Method};
use opspilot_kernel::time::Timestamp;

const LENGTH: usize = 20_000;

fn series() -> Vec<(Timestamp, f64)> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut even = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..LENGTH as i64)
        .map(|number| {
            let at = Timestamp::from_millis(1_700_000_000_000 + number * 300_000);
            let day = (number % 288) as f64 / 288.0 * std::f64::consts::TAU;
            let noise = (0..6).map(|_| even()).sum::<f64>() - 3.0;
            let outlier = if even() < 0.001 { 40.0 } else { 0.0 };
            (at, 50.0 + 20.0 * day.sin() + 3.0 * noise + outlier)
        })
        .collect()
}

fn judge(criterion: &mut Criterion) {
    let series = series();
    let mut group = criterion.benchmark_group("anomaly");
    group.throughput(Throughput::Elements(LENGTH as u64)).sample_size(20).measurement_time(Duration::from_secs(3));
    for name in Method::NAMES {
        let method = Method::named(name).unwrap();
        let mut known = Judge::new(&method);
        for (at, value) in &series {
            known.step(*at, *value);
        }
        println!("{name}: {} bytes a series after {LENGTH} values, {} stored", known.bytes(), known.encode().len());
        group.bench_with_input(BenchmarkId::from_parameter(name), &series, |bencher, series| {
            // one that knows the series already, so that the window is full
            bencher.iter_batched_ref(
                || known.clone(),
                |judge| {
                    for (at, value) in series {
                        black_box(judge.step(*at, *value));
                    }
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, judge);
criterion_main!(benches);
