//! Measures the release binary from outside, over real sockets, on one machine that client and service share.
//!
//! ```text
//! cargo build --release && cargo bench --bench load -- [ingest] [latency] [fanout] [history]
//! ```
//!
//! Nothing named means everything. `SECONDS_PER_RUN=5`, `OPSPILOT_BIN=target/release/opspilot`, `SIGNALS=1000000`,
//! `INCIDENTS=100000`, `SUBSCRIBERS=1000` change what is measured. Quote figures beside those of a bare
//! parse-compress-commit loop measured in the same session of the machine; both move with it.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::as_conversions,
    clippy::disallowed_methods,
    reason = "a program for a person at a terminal: it measures with the machine's clock and stops with a message"
)]

mod bodies;
mod feed;
mod history;
mod http;
mod ingest;
mod service;

use std::time::Duration;

/// A setting from the environment.
fn setting<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How long each rate is measured.
fn seconds() -> Duration {
    Duration::from_secs_f64(setting("SECONDS_PER_RUN", 5.0))
}

/// Times in microseconds, for percentiles.
#[derive(Default)]
struct Times(Vec<u64>);

impl Times {
    fn add(&mut self, span: Duration) {
        self.0.push(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    }

    /// The time that this share of all took at most, in milliseconds.
    fn at(&mut self, share: f64) -> f64 {
        if self.0.is_empty() {
            return f64::NAN;
        }
        self.0.sort_unstable();
        self.0[((self.0.len() - 1) as f64 * share) as usize] as f64 / 1000.0
    }
}

/// A number with its thousands apart.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("{} × {cores}, Linux {}, load {}", name.unwrap_or_default(), kernel.trim(), load.split(' ').next().unwrap_or("?"))
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    // `cargo test --benches` must not start a load
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|one| one == name);
    println!("machine: {}", machine());
    println!("binary:  {}", service::binary().display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        if wants("ingest") {
            ingest::run().await;
        }
        if wants("latency") {
            feed::latency().await;
        }
        if wants("fanout") {
            feed::fanout().await;
        }
        if wants("history") {
            history::run().await;
        }
    });
}
