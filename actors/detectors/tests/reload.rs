//! A reload of the configuration is an entry of the log: it holds from its place on, also for whoever reads it again.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "a test fails loudly")]

use std::{path::Path, sync::Arc, time::Duration};

use opspilot_detectors::MODULES;
use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy, Transition},
    clock::{ManualClock, SharedClock},
    signal::{LogEntry, SignalRef},
    time::Timestamp,
};
use opspilot_ledger::{AlertEntry, Ledger, Options, SignalBatchBuilder};
use opspilot_runtime::{Applied, Module, ModuleContext};
use serde_json::{Value, json};

const NOON: Timestamp = Timestamp::from_millis(1_795_348_800_000);
const THRESHOLD: &str = "detector.threshold";

struct Service {
    clock: Arc<ManualClock>,
    ledger: Ledger,
    ctx: ModuleContext,
}

impl Service {
    fn open(dir: &Path) -> Service {
        let clock = ManualClock::at(NOON);
        let shared: SharedClock = Arc::<ManualClock>::clone(&clock);
        let ledger = Ledger::open(Options::new(dir, Arc::clone(&shared))).unwrap();
        let ctx = ModuleContext::alone(ledger.clone(), shared, Arc::new(|exit| panic!("the service would end: {exit:?}"))).unwrap();
        Service { clock, ledger, ctx }
    }

    fn start(&self, config: Value) -> Box<dyn Module> {
        self.start_module(THRESHOLD, config)
    }

    fn start_module(&self, id: &str, config: Value) -> Box<dyn Module> {
        let entry = MODULES.iter().find(|entry| entry.id.as_str() == id).unwrap();
        (entry.start)(&self.ctx, config).unwrap()
    }

    async fn sample(&self, value: f64) {
        self.clock.advance(Duration::from_secs(1));
        self.append(|now| SignalRef::metric(now, "web-1", "load", value)).await;
    }

    /// Takes a line in, so many seconds after noon.
    async fn line(&self, at: u64, message: &str) {
        let wait = NOON.after(Duration::from_secs(at)).since(self.ctx.clock.now());
        self.clock.advance(wait);
        self.append(|now| SignalRef::log(now, "web-1", message)).await;
    }

    async fn append<'a>(&self, signal: impl FnOnce(Timestamp) -> SignalRef<'a>) {
        let now = self.ctx.clock.now();
        let mut batch = SignalBatchBuilder::new(now);
        batch.push(&signal(now));
        self.ledger.append(batch.seal()).await.unwrap();
    }

    /// Waits until so many records are committed.
    async fn until(&self, count: usize) -> Vec<AlertRecord> {
        let mut head = self.ledger.alerts().watch();
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                head.borrow_and_update();
                let entries = self.ledger.alerts().next(0, 100_000).unwrap();
                let said: Vec<AlertRecord> = entries
                    .into_iter()
                    .filter_map(|entry| match entry {
                        AlertEntry::Record { record, .. } => Some((*record).clone()),
                        AlertEntry::Tick { .. } => None,
                    })
                    .collect();
                if said.len() >= count {
                    return said;
                }
                head.changed().await.unwrap();
            }
        });
        waited.await.unwrap_or_else(|_| panic!("less was said than {count} records"))
    }

    fn reloads(&self) -> Vec<(u64, String)> {
        let entries = self.ledger.signals().next(0, 1 << 20).unwrap();
        let reload = |entry: LogEntry| match entry {
            LogEntry::Reload { seq, reload, .. } => {
                assert!(reload.digest.starts_with("sha256:") && reload.digest.len() == 71, "{}", reload.digest);
                Some((seq, reload.module.clone()))
            }
            LogEntry::Batch(_) | LogEntry::Tick { .. } => None,
        };
        entries.into_iter().filter_map(reload).collect()
    }

    async fn close(self) {
        self.ctx.supervisor.stop_all().await;
        self.ledger.shut_down().await.unwrap();
    }
}

fn in_system<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    actix::System::new().block_on(async { test().await })
}

/// More than `most` samples above 50 within a minute.
fn busy(most: u32) -> Value {
    json!({ "builtin_rules": false, "rules": [
        { "id": "busy", "metric": "load", "agg": "count", "op": "gt", "value": most },
        { "id": "peak", "metric": "load", "op": "gte", "value": 99 },
    ] })
}

#[test]
fn a_changed_rule_counts_the_samples_stored_before_the_reload_and_the_others_keep_what_they_know() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::open(dir.path());
        let module = service.start(busy(100));
        for value in [60.0, 99.0, 60.5] {
            service.sample(value).await;
        }
        // the peak came and went; nothing of the first rule yet
        service.until(2).await;
        assert_eq!(module.reconfigure(busy(3)).await.unwrap(), Applied::InPlace);
        assert_eq!(service.reloads(), [(4, THRESHOLD.to_owned())], "numbered among the signals");
        service.sample(61.0).await;
        let said = service.until(3).await;
        let said: Vec<_> = said.iter().map(|record| (record.rule.as_str(), record.transition, record.signal_seq)).collect();
        let expected = [("peak", Transition::Firing, 2), ("peak", Transition::Resolved, 3), ("busy", Transition::Firing, 5)];
        assert_eq!(said, expected, "the fourth sample, three of which are older than the rule");
        assert_eq!(module.reconfigure(busy(3)).await.unwrap(), Applied::InPlace);
        assert_eq!(service.reloads().len(), 1, "what is in force already is no reload");
        service.close().await;
    });
}

#[test]
fn a_changed_rule_ends_its_alert_and_says_at_once_what_it_finds_in_the_log() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::open(dir.path());
        let module = service.start(busy(1));
        for value in [60.0, 61.0, 62.0] {
            service.sample(value).await;
        }
        let first = service.until(1).await[0].alert.clone();
        module.reconfigure(busy(2)).await.unwrap();
        let said = service.until(3).await;
        let tail: Vec<_> = said[said.len() - 2..].iter().map(|record| (record.transition, record.resolved_by, record.signal_seq)).collect();
        assert_eq!(tail, [(Transition::Resolved, Some(ResolvedBy::RuleChanged), 4), (Transition::Firing, None, 4)]);
        assert_eq!(said[said.len() - 2].alert, first);
        assert_ne!(said[said.len() - 1].alert, first, "it is another alert");
        service.close().await;
    });
}

#[test]
fn a_configuration_changed_while_the_service_was_down_is_a_reload_too() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::open(dir.path());
        service.start(busy(100));
        for value in [60.0, 61.0] {
            service.sample(value).await;
        }
        service.close().await;
        let service = Service::open(dir.path());
        service.clock.advance(Duration::from_secs(2));
        service.start(busy(1));
        let said = service.until(1).await;
        assert_eq!((said[0].rule.as_str(), said[0].signal_seq), ("busy", 3));
        assert_eq!(service.reloads(), [(3, THRESHOLD.to_owned())]);
        service.close().await;
    });
}

/// Lines that say "down"; the alert is over when none was seen for so long.
fn down(resolve_after: &str) -> Value {
    json!({ "rules": [{ "id": "down", "pattern": "down", "resolve_after": resolve_after }] })
}

/// One line, a reload, and then others that do not match; what is said of it, and when, in seconds after noon.
async fn told(before: &str, after: &str, lines: &[u64], restarts: bool) -> Vec<(Transition, Option<ResolvedBy>, u64)> {
    const REGEX: &str = "detector.regex";
    let dir = tempfile::tempdir().unwrap();
    let mut service = Service::open(dir.path());
    let mut module = service.start_module(REGEX, down(before));
    service.line(1, "down").await;
    service.until(1).await;
    assert_eq!(module.reconfigure(down(after)).await.unwrap(), Applied::InPlace);
    for at in lines {
        if restarts {
            drop(module);
            service.close().await;
            service = Service::open(dir.path());
            module = service.start_module(REGEX, down(after));
        }
        service.line(*at, "all is well").await;
    }
    assert_eq!(service.reloads().len(), 1);
    service.line(10_000, "down").await;
    let is_again =
        |record: &AlertRecord| record.transition == Transition::Firing && record.logged_at == NOON.after(Duration::from_secs(10_000));
    let mut said = service.until(2).await;
    while !said.last().is_some_and(is_again) {
        said = service.until(said.len() + 1).await;
    }
    drop(module);
    service.close().await;
    said.iter().map(|record| (record.transition, record.resolved_by, record.logged_at.since(NOON).as_secs())).collect()
}

#[test]
fn an_open_alert_is_over_by_the_resolve_after_that_holds_now_also_for_whoever_reads_the_log_again() {
    use Transition::{Firing, Resolved};
    let quiet = Some(ResolvedBy::Quiet);
    in_system(|| async {
        for restarts in [false, true] {
            let shorter = told("1h", "60s", &[30, 60, 61, 90], restarts).await;
            assert_eq!(shorter, [(Firing, None, 1), (Resolved, quiet, 61), (Firing, None, 10_000)], "restarts: {restarts}");
            let longer = told("60s", "1h", &[61, 90, 3600, 3601], restarts).await;
            assert_eq!(longer, [(Firing, None, 1), (Resolved, quiet, 3601), (Firing, None, 10_000)], "restarts: {restarts}");
        }
    });
}
