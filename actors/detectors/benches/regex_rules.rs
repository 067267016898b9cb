//! How many log lines a second the regex detector takes on one core, by the number of rules.
//!
//! The rules and the lines are of the kind a shop's services log: most rules begin with words, a
//! tenth ignore case; one line in a thousand matches one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, missing_docs, reason = "a bench fails loudly")]

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use opspilot_detectors::{
    Detect,
    regex::{Config, Detector, Rule},
};
use opspilot_kernel::{
    codec::{Labels, PieceBuilder},
    signal::{LogEntry, SignalBlock, SignalRef},
    time::Timestamp,
};

const WHAT: [&str; 40] = [
    "payment",
    "order",
    "checkout",
    "refund",
    "invoice",
    "inventory",
    "shipping",
    "login",
    "session",
    "token",
    "database",
    "replica",
    "primary",
    "cache",
    "redis",
    "kafka",
    "queue",
    "consumer",
    "worker",
    "scheduler",
    "backup",
    "snapshot",
    "volume",
    "disk",
    "filesystem",
    "certificate",
    "tls handshake",
    "dns lookup",
    "proxy",
    "gateway",
    "upstream",
    "node",
    "pod",
    "container",
    "kubelet",
    "etcd",
    "webhook",
    "email",
    "sms",
    "search index",
];
const FAILED: [&str; 25] = [
    r"failed for order (\d+)",
    r"timed out after (\d+)ms",
    r"refused connection from (\S+)",
    r"lost quorum in zone (\w+)",
    r"rejected with code (\d{3})",
    r"exhausted retries \((\d+)\)",
    r"crashed with signal (\d+)",
    r"corrupted at offset (\d+)",
    r"expired at (\d{4}-\d{2}-\d{2})",
    r"lag exceeds (\d+) messages",
    r"full at (\d+)%",
    r"unreachable from (\S+)",
    r"restarted (\d+) times",
    r"denied for user (\w+)",
    r"deadlock detected on (\w+)",
    r"evicted by (\w+)",
    r"out of memory at (\d+) bytes",
    r"checksum mismatch in block (\d+)",
    r"quota exceeded by (\d+)",
    r"aborted by peer (\S+)",
    r"stalled for (\d+) seconds",
    r"missing required key (\w+)",
    r"throttled at (\d+) rps",
    r"rolled back to (v[\d.]+)",
    r"panicked at (\S+):(\d+)",
];

/// The rules of a shop; past the first thousand they name a region, too.
fn patterns(count: usize) -> Vec<String> {
    let fixed =
        [r"payment failed for order (\d+)", r"OOM killed process \d+", r"(?i)segfault at [0-9a-f]+", r"(?i)no space left on device"];
    let round = |region: &'static str| FAILED.iter().flat_map(move |failed| WHAT.iter().map(move |what| (region, failed, what)));
    let made = ["", " eu", " us", " ap", " sa", " af"].into_iter().flat_map(round).enumerate();
    let made =
        made.map(|(number, (region, failed, what))| format!("{}{what}{region} {failed}", if number % 10 == 9 { "(?i)" } else { "" }));
    fixed.into_iter().map(str::to_owned).chain(made).take(count).collect()
}

/// The same without regard to case.
fn folded(count: usize) -> Vec<String> {
    patterns(count).into_iter().map(|pattern| format!("(?i){}", pattern.trim_start_matches("(?i)"))).collect()
}

/// The same, a tenth of them without a literal that tells anything.
fn bare(count: usize) -> Vec<String> {
    let bare = |number: usize, pattern: String| match (number % 10, number / 10 % 4) {
        (3, 0) => format!(r"\d{{3}} ms x{}", number % 7),
        (3, 1) => format!(r"[A-Z]{{4,}}\d{{{}}}", 2 + number % 9),
        (3, 2) => format!(r"^\w+ \d+ [a-f]{{{}}}$", 1 + number % 20),
        (3, _) => format!(r"[xyz]{{{}}}-\d+", 2 + number % 15),
        _ => pattern,
    };
    patterns(count).into_iter().enumerate().map(|(number, pattern)| bare(number, pattern)).collect()
}

/// All with one and the same literal, which an eighth of the lines have.
fn crowded(count: usize) -> Vec<String> {
    (0..count).map(|number| format!(r"payment [a-z]+ \d{{{}}}x{}", 1 + number % 9, number % 97)).collect()
}

fn rules(patterns: Vec<String>) -> Vec<Rule> {
    patterns.into_iter().enumerate().map(|(number, pattern)| Rule::new(format!("rule-{number}"), pattern)).collect()
}

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

fn message(r: &mut Rng, matching: bool) -> String {
    if matching && r.below(1000) == 0 {
        return match r.below(3) {
            0 => format!("payment failed for order {} gateway=stripe attempt={}", r.below(10_000_000), r.below(5)),
            1 => format!("OOM killed process {} (java) total-vm:{}kB", r.below(65_000), r.below(9_000_000)),
            _ => format!("Segfault at {:x} ip {:016x} in libc.so", r.below(1 << 40), r.next()),
        };
    }
    match r.below(8) {
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
        _ => format!("job {:016x} finished state=done items={} duration={}ms", r.next(), r.below(10_000), r.below(60_000)),
    }
}

const LINES: u32 = 10_000;

fn block(matching: bool) -> LogEntry {
    const SOURCES: [&str; 12] =
        ["checkout", "cart", "auth", "payments", "search", "inventory", "shipping", "gateway", "billing", "catalog", "email", "scheduler"];
    let mut rng = Rng(0x9E37_79B9_7F4A_7C15);
    let received_at = Timestamp::from_millis(1_795_348_800_000);
    let mut piece = PieceBuilder::default();
    for _ in 0..LINES {
        let text = message(&mut rng, matching);
        let source = SOURCES[usize::try_from(rng.below(12)).unwrap()];
        let (host, pod) = (format!("h{}", rng.below(40)), format!("p-{}", rng.below(1000)));
        let labels = [("host", host.as_str()), ("pod", pod.as_str())];
        piece.push(&SignalRef { labels: Labels::Pairs(&labels), ..SignalRef::log(received_at, source, &text) });
    }
    let kinds = piece.kinds();
    let pieces = vec![piece.into_bytes()];
    LogEntry::Batch(Arc::new(SignalBlock { first_seq: 1, last_seq: u64::from(LINES), received_at, kinds, pieces }))
}

fn lines_per_second(criterion: &mut Criterion) {
    for (name, matching) in [("one line in a thousand matches", true), ("no line matches", false)] {
        let entry = block(matching);
        let mut group = criterion.benchmark_group(format!("regex rules, {name}"));
        group.throughput(Throughput::Elements(u64::from(LINES))).sample_size(20).measurement_time(Duration::from_secs(2));
        group.warm_up_time(Duration::from_millis(500));
        for count in [1, 10, 50, 100, 1000, 5000] {
            let mut detector = Detector::new(Config { rules: rules(patterns(count)), ..Config::default() });
            let mut out = Vec::new();
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    detector.consume(black_box(&entry), &mut out);
                    out.clear();
                });
            });
        }
        group.finish();
    }
}

fn by_kind_of_rule(criterion: &mut Criterion) {
    let entry = block(false);
    type Make = fn(usize) -> Vec<String>;
    let kinds: [(&str, Make); 3] = [("no regard to case", folded), ("a tenth without literals", bare), ("one literal for all", crowded)];
    for (name, make) in kinds {
        let mut group = criterion.benchmark_group(format!("regex rules, no line matches, {name}"));
        group.throughput(Throughput::Elements(u64::from(LINES))).sample_size(20).measurement_time(Duration::from_secs(2));
        group.warm_up_time(Duration::from_millis(500));
        for count in [10, 1000, 5000] {
            let mut detector = Detector::new(Config { rules: rules(make(count)), ..Config::default() });
            let mut out = Vec::new();
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    detector.consume(black_box(&entry), &mut out);
                    out.clear();
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, lines_per_second, by_kind_of_rule);
criterion_main!(benches);
