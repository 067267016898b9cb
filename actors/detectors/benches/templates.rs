//! How many log lines a second are grouped by template on one core, beside the reference.
//!
//! The lines are of the kind a shop's services log. Reference: drain3 0.9.11 in Python with one careful setting takes
//! 88,000 lines a second. Also: lines of which each founds a template, at the bound.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, reason = "a bench fails loudly")]
#![allow(clippy::print_stdout, reason = "it prints what it measured beside the reference")]

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use opspilot_detectors::{
    Detect,
    log_template::{
        Config, Detector,
        miner::{Miner, Settings},
    },
};
use opspilot_kernel::{
    codec::PieceBuilder,
    signal::{LogEntry, SignalBlock, SignalRef},
    time::Timestamp,
};

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn message(r: &mut Rng) -> String {
    const USERS: [&str; 12] = ["ada", "bob", "cyd", "dan", "eve", "fay", "gil", "hal", "ida", "joe", "kim", "lea"];
    match r.below(9) {
        0 => format!("GET /api/v1/orders/{} 200 in {} ms trace={:016x}", r.below(10_000_000), r.below(900), r.next()),
        1 => format!("POST /cart/{}/items sku={} qty={} user={}", r.below(1_000_000), r.below(99_999), r.below(9), r.below(5_000_000)),
        2 => format!(
            "user {} logged in from 10.{}.{}.{} session={:016x}",
            r.below(5_000_000),
            r.below(256),
            r.below(256),
            r.below(256),
            r.next()
        ),
        3 => format!(
            "cache hit ratio {}.{}% keys={} evicted={} shard={}",
            r.below(100),
            r.below(10),
            r.below(1_000_000),
            r.below(999),
            r.below(64)
        ),
        4 => format!(
            "payment authorised order={} amount={}.{:02} EUR provider=adyen ref={:08x}",
            r.below(10_000_000),
            r.below(900),
            r.below(100),
            r.below(1 << 32)
        ),
        5 => format!("consumer group=orders-{} committed offset {} on partition {}", r.below(20), r.below(1 << 34), r.below(48)),
        6 => {
            format!("query took {} ms rows={} table=order_items_{} plan={:08x}", r.below(300), r.below(5000), r.below(12), r.below(1 << 32))
        }
        7 => format!("session opened for user {} by the console (uid={})", USERS[usize::try_from(r.below(12)).unwrap()], r.below(1000)),
        _ => format!("job {:016x} finished state=done items={} duration={}ms", r.next(), r.below(10_000), r.below(60_000)),
    }
}

const LINES: usize = 10_000;

fn word(r: &mut Rng) -> String {
    (0..6).map(|_| char::from(b'g' + u8::try_from(r.below(20)).unwrap())).collect()
}

fn lines_per_second(criterion: &mut Criterion) {
    let mut r = Rng(0x9E37_79B9_7F4A_7C15);
    let known: Vec<String> = (0..LINES).map(|_| message(&mut r)).collect();
    let bytes: usize = known.iter().map(String::len).sum();
    println!("lines of {} bytes on average; reference: drain3 in Python, 88,000 lines/s", bytes / LINES);
    let mut group = criterion.benchmark_group("log templates");
    group.throughput(Throughput::Elements(u64::try_from(LINES).unwrap())).sample_size(20).measurement_time(Duration::from_secs(2));
    group.warm_up_time(Duration::from_millis(500));
    let mut miner = Miner::new(&Settings::default());
    group.bench_function(BenchmarkId::from_parameter("miner, known templates"), |bencher| {
        bencher.iter(|| {
            for line in &known {
                black_box(miner.learn(line));
            }
        });
    });
    println!("{} templates, {} bytes", miner.len(), miner.bytes());

    let at = Timestamp::from_millis(1_795_348_800_000);
    let mut piece = PieceBuilder::default();
    known.iter().for_each(|line| piece.push(&SignalRef::log(at, "checkout", line)));
    let kinds = piece.kinds();
    let block =
        SignalBlock { first_seq: 1, last_seq: u64::try_from(LINES).unwrap(), received_at: at, kinds, pieces: vec![piece.into_bytes()] };
    let entry = LogEntry::Batch(std::sync::Arc::new(block));
    let (mut detector, mut out) = (Detector::new(Config::default()), Vec::new());
    group.bench_function(BenchmarkId::from_parameter("detector, known templates"), |bencher| {
        bencher.iter(|| detector.consume(black_box(&entry), &mut out));
    });

    let mut miner = Miner::new(&Settings::default());
    let mut fresh =
        || (0..LINES).map(|_| format!("{} {} error {} of {}", word(&mut r), word(&mut r), word(&mut r), word(&mut r))).collect::<Vec<_>>();
    group.bench_function(BenchmarkId::from_parameter("miner, every line new"), |bencher| {
        let learn = |lines: Vec<String>| {
            for line in &lines {
                black_box(miner.learn(line));
            }
        };
        bencher.iter_batched(&mut fresh, learn, criterion::BatchSize::LargeInput);
    });
    println!("at the bound: {} templates, {} bytes, {} forgotten", miner.len(), miner.bytes(), miner.evicted());
    group.finish();
}

criterion_group!(benches, lines_per_second);
criterion_main!(benches);
