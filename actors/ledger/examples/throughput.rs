//! Prints how fast signals become durable on this machine: `throughput [signals per batch] [seconds] [clients]`.
//!
//! A steering aid, not a benchmark: senders and writer share the cores, and nothing is parsed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "an example that measures"
)]

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use opspilot_kernel::{
    clock::SystemClock,
    codec::Labels,
    signal::{Severity, SignalRef},
};
use opspilot_ledger::{Ledger, Options, SignalBatchBuilder};

struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn message(r: &mut Dice) -> String {
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
            "payment authorised order={} amount={}.{:02} EUR ref={:08x}",
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

fn main() {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|text| text.parse().expect("a number")).collect();
    let (size, seconds, clients) = (*arguments.first().unwrap_or(&1000), *arguments.get(1).unwrap_or(&5), *arguments.get(2).unwrap_or(&16));
    let dir = std::env::var_os("DIR").map_or_else(|| std::path::PathBuf::from("throughput-data"), Into::into);
    let clock = SystemClock::shared();
    let ledger = Ledger::open(Options::new(&dir, clock.clone())).expect("a ledger");
    let stored = AtomicU64::new(0);
    let built = AtomicU64::new(0);
    let started = Instant::now();
    let slowest: Vec<Duration> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..2_u64)
            .map(|worker| {
                let (ledger, clock, stored, built) = (ledger.clone(), clock.clone(), &stored, &built);
                scope.spawn(move || {
                    let mut dice = Dice(0x9e37_79b9 + worker);
                    let texts: Vec<String> = (0..32_000).map(|_| message(&mut dice)).collect();
                    let sources = ["checkout", "cart", "auth", "payments", "search", "inventory", "shipping", "gateway"];
                    let labels: Vec<[String; 2]> = (0..1000).map(|n| [format!("h{}", n % 40), format!("p-{n}")]).collect();
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                    let local = tokio::task::LocalSet::new();
                    local.block_on(&runtime, async {
                        let tasks: Vec<_> = (0..clients / 2)
                            .map(|client| {
                                let (ledger, clock, texts, labels) = (ledger.clone(), clock.clone(), texts.clone(), labels.clone());
                                let (stored, built) =
                                    (std::rc::Rc::new(std::cell::Cell::new(0_u64)), std::rc::Rc::new(std::cell::Cell::new(0_u64)));
                                let counters = (stored.clone(), built.clone());
                                let task = tokio::task::spawn_local(async move {
                                    let mut waits = Vec::new();
                                    let mut n = usize::try_from(client).unwrap_or(0) * 997;
                                    while started.elapsed() < Duration::from_secs(seconds) {
                                        let begin = Instant::now();
                                        let now = clock.now();
                                        let mut batch = SignalBatchBuilder::new(now);
                                        for _ in 0..size {
                                            n += 1;
                                            let own = &labels[n % labels.len()];
                                            let pairs = [("host", own[0].as_str()), ("pod", own[1].as_str())];
                                            batch.push(&SignalRef {
                                                severity: Severity::Info,
                                                labels: Labels::Pairs(&pairs),
                                                ..SignalRef::log(now, sources[n % sources.len()], &texts[n % texts.len()])
                                            });
                                        }
                                        let batch = batch.seal();
                                        built.set(built.get() + begin.elapsed().as_nanos() as u64);
                                        let appended = ledger.append(batch).await.expect("stored");
                                        waits.push(begin.elapsed());
                                        stored.set(stored.get() + u64::from(appended.accepted));
                                    }
                                    waits
                                });
                                (task, counters)
                            })
                            .collect();
                        let mut waits = Vec::new();
                        for (task, (own_stored, own_built)) in tasks {
                            waits.extend(task.await.expect("a client"));
                            stored.fetch_add(own_stored.get(), Relaxed);
                            built.fetch_add(own_built.get(), Relaxed);
                        }
                        waits
                    })
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    });
    let took = started.elapsed();
    let mut waits = slowest;
    waits.sort();
    let signals = stored.load(Relaxed);
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    println!(
        "{size} per batch, {clients} clients: {:.0} signals/s durable, {} batches, p50 {:.2} ms, p99 {:.2} ms; building and compressing {:.0} ns/signal",
        signals as f64 / took.as_secs_f64(),
        waits.len(),
        at(0.5),
        at(0.99),
        built.load(Relaxed) as f64 / signals as f64,
    );
    drop(ledger);
    let bytes = std::fs::metadata(dir.join(opspilot_ledger::DATABASE)).map_or(0, |meta| meta.len());
    println!("{:.1} bytes on disk for each signal ({} MiB)", bytes as f64 / signals as f64, bytes >> 20);
}
