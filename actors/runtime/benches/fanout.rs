//! How many committed events a second the router hands out, by the number of lanes.
//!
//! ```text
//! cargo bench -p opspilot-runtime --bench fanout
//! ```
//!
//! What is timed: one router, from its start to the moment the last lane holds the last of [`EVENTS`] events, read from
//! the ledger's ring. A lane is a bounded queue with room, so every event is cloned into every lane and counted there;
//! nobody reads the queues meanwhile. An event is handed to all lanes before the next one.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench measures with the machine's clock, prints and fails loudly"
)]

use std::time::{Duration, Instant};

use actix::Actor as _;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use opspilot_kernel::{clock::SystemClock, module::ModuleStatus};
use opspilot_ledger::{Ledger, Options, Priority};
use opspilot_runtime::{Deliver, EventKinds, EventRouterHandle, Inlet, Lane, LaneGuard, Overflow, TellError};
use tokio::sync::mpsc;

/// Events in one round, committed in one transaction before the clock starts.
const EVENTS: usize = 1024;
const LANES: [usize; 3] = [1, 100, 1000];

struct Queue(mpsc::Sender<Deliver>);

impl Inlet<Deliver> for Queue {
    fn offer(&self, event: Deliver) -> Result<(), TellError> {
        self.0.try_send(event).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => TellError::Full,
            mpsc::error::TrySendError::Closed(_) => TellError::Closed,
        })
    }
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpu.lines().find_map(|line| line.strip_prefix("model name")).map_or("unknown", |name| name.trim_start_matches(['\t', ':', ' ']));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let build = if cfg!(debug_assertions) { "unoptimised" } else { "optimised" };
    format!("{model}, {cores} cores, {} {}, {build} build", std::env::consts::OS, std::env::consts::ARCH)
}

async fn commit(ledger: &Ledger) {
    let write = |tx: &mut opspilot_ledger::Tx<'_>| {
        (0..EVENTS).try_for_each(|number| {
            let detail = number.to_string();
            tx.module_health_changed("detector.x", ModuleStatus::Healthy, ModuleStatus::Degraded, &detail)
        })
    };
    ledger.write(Priority::Control, write).await.unwrap();
}

/// One round over `lanes` lanes; how long it took.
async fn round(ledger: &Ledger, lanes: usize) -> Duration {
    let router =
        EventRouterHandle::new(ledger.clone(), &prometheus::Registry::new(), slog::Logger::root(slog::Discard, slog::o!())).unwrap();
    let lane = |_| -> (LaneGuard, mpsc::Receiver<Deliver>) {
        let (inlet, queue) = mpsc::channel(EVENTS);
        let lane = Lane { name: "bench", wants: EventKinds::ALL, overflow: Overflow::MarkLagging, inlet: Box::new(Queue(inlet)) };
        (router.register(lane), queue)
    };
    let mut lanes: Vec<_> = (0..lanes).map(lane).collect();
    commit(ledger).await;
    let head = ledger.events().head();
    let begun = Instant::now();
    let actor = router.actor().start();
    while router.cursor() < head {
        tokio::task::yield_now().await;
    }
    let took = begun.elapsed();
    drop(actor);
    for (guard, queue) in &mut lanes {
        let mut taken = 0;
        while queue.try_recv().is_ok() {
            taken += 1;
        }
        assert_eq!((taken, guard.lagging()), (EVENTS, None), "every lane has every event");
    }
    took
}

fn fanout(criterion: &mut Criterion) {
    println!("measured on: {}", machine());
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(Options::new(dir.path(), SystemClock::shared())).unwrap();
    let mut group = criterion.benchmark_group("router_fanout_events");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(u64::try_from(EVENTS).unwrap()));
    for lanes in LANES {
        group.bench_with_input(BenchmarkId::new("lanes", lanes), &lanes, |bench, lanes| {
            bench.iter_custom(|rounds| {
                actix::System::new().block_on(async {
                    let mut took = Duration::ZERO;
                    for _ in 0..rounds {
                        took += round(&ledger, *lanes).await;
                    }
                    took
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, fanout);
criterion_main!(benches);
