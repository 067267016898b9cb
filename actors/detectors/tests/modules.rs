//! The detectors as modules: over a real ledger, under supervision, across restarts.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs, reason = "a test fails loudly")]

use std::{path::Path, sync::Arc, time::Duration};

use opspilot_detectors::MODULES;
use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy, Transition},
    clock::{Clock as _, ManualClock, SharedClock, SteadyClock, SystemClock},
    codec::Labels,
    signal::{AlertState, SignalKind, SignalRef},
    time::Timestamp,
};
use opspilot_ledger::{AlertEntry, Ledger, Options, Priority, SignalBatchBuilder, Snapshot};
use opspilot_runtime::{Applied, ChildSpec, Health, Module, ModuleContext, TickerActor};
use serde_json::{Value, json};

const NOON: Timestamp = Timestamp::from_millis(1_700_000_000_000);

struct Service {
    ledger: Ledger,
    ctx: ModuleContext,
}

impl Service {
    fn open(dir: &Path) -> Service {
        Service::open_by(dir, SystemClock::shared())
    }

    fn open_by(dir: &Path, clock: SharedClock) -> Service {
        let ledger = Ledger::open(Options::new(dir, Arc::clone(&clock))).unwrap();
        let ctx = ModuleContext::alone(ledger.clone(), clock, Arc::new(|exit| panic!("the service would end: {exit:?}"))).unwrap();
        let (ticker, ticked, clock, log) = (ctx.ticker.clone(), ledger.clone(), Arc::clone(&ctx.clock), ctx.log.clone());
        let ticking = move || TickerActor::new(ticker.clone(), ticked.clone(), Arc::clone(&clock), log.clone());
        ctx.supervisor.start(ChildSpec::core("runtime.ticker"), ticking);
        Service { ledger, ctx }
    }

    fn start(&self, id: &str, config: Value) -> Box<dyn Module> {
        let entry = MODULES.iter().find(|entry| entry.id.as_str() == id).unwrap();
        (entry.start)(&self.ctx, config).unwrap()
    }

    async fn append(&self, signals: &[SignalRef<'_>]) {
        let mut batch = SignalBatchBuilder::new(self.ctx.clock.now());
        for signal in signals {
            batch.push(&SignalRef { at: self.ctx.clock.now(), ..signal.clone() });
        }
        self.ledger.append(batch.seal()).await.unwrap();
    }

    fn said(&self) -> Vec<AlertRecord> {
        let entries = self.ledger.alerts().next(0, 100_000).unwrap();
        let record = |entry| match entry {
            AlertEntry::Record { record, .. } => Some((*record).clone()),
            AlertEntry::Tick { .. } => None,
        };
        entries.into_iter().filter_map(record).collect()
    }

    /// Waits until so many records are committed.
    async fn until(&self, count: usize) -> Vec<AlertRecord> {
        let mut head = self.ledger.alerts().watch();
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                head.borrow_and_update();
                let said = self.said();
                if said.len() >= count {
                    return said;
                }
                head.changed().await.unwrap();
            }
        });
        waited.await.unwrap_or_else(|_| panic!("not said in time: {:?}", self.said()))
    }

    fn metric(&self, name: &str) -> Option<f64> {
        let families = self.ctx.registry.gather();
        let metric = families.iter().find(|family| family.name() == name)?.get_metric().first()?;
        Some(metric.get_counter().get_value() + metric.get_gauge().get_value())
    }

    async fn close(self) {
        self.ctx.supervisor.stop_all().await;
        self.ledger.shut_down().await.unwrap();
    }
}

fn in_system<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    actix::System::new().block_on(async { test().await })
}

fn line(text: &str) -> SignalRef<'_> {
    SignalRef::log(Default::default(), "checkout", text)
}

fn outline(records: &[AlertRecord]) -> Vec<(Transition, u64)> {
    records.iter().map(|record| (record.transition, record.count)).collect()
}

#[test]
fn a_piece_of_state_that_cannot_be_read_costs_itself_and_not_the_detector() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let rules = || json!({ "builtin_rules": false, "rules": [{ "id": "cpu", "metric": "cpu", "op": "gt", "value": 90, "resolve_after": "15m" }] });
        let sample = |source| SignalRef {
            name: "cpu",
            value: Some(95.0),
            ..SignalRef { kind: SignalKind::Metric, ..SignalRef::log(Default::default(), source, "") }
        };
        let service = Service::open(dir.path());
        service.start("detector.threshold", rules());
        service.append(&[sample("a"), sample("b")]).await;
        service.until(2).await;
        service.close().await;

        // one series is cut off, and something nobody knows is there too
        let service = Service::open(dir.path());
        let id = "detector.threshold";
        let (cursor, stored) = service.ledger.read_blocking(|reader| Ok((reader.cursor(id)?, reader.snapshots(id)?))).unwrap();
        let series = stored.iter().find(|part| part.key.starts_with("series/")).unwrap().clone();
        let broken = Snapshot { blob: series.blob[..series.blob.len() / 2].to_vec(), ..series.clone() };
        let strange = Snapshot { key: "strange".to_owned(), blob: b"?".to_vec() };
        let left = service.ledger.write(Priority::Bulk, move |tx| tx.save_cursor(id, cursor, vec![broken, strange]));
        left.await.unwrap();
        service.start(id, rules());
        service.append(&[sample("c")]).await;
        let said = service.until(3).await;
        assert_eq!(outline(&said).len(), 3);
        assert_eq!(service.metric("opspilot_detector_threshold_state_unreadable_total"), Some(2.0));
        assert_eq!(service.metric("opspilot_detector_threshold_followed"), Some(2.0), "the other series is still there");
        let says = |health: &Health| {
            let starts = "2 pieces of what it knew could not be read";
            health.report().iter().any(|line| line.id.as_str() == id && line.detail.starts_with(starts))
        };
        let said = tokio::time::timeout(Duration::from_secs(60), service.ctx.health.until(says)).await;
        assert!(said.is_ok(), "{:?}", service.ctx.health.report());
        service.close().await;

        let service = Service::open(dir.path());
        service.start(id, rules());
        service.append(&[sample("d")]).await;
        service.until(4).await;
        assert_eq!(service.metric("opspilot_detector_threshold_state_unreadable_total"), Some(0.0), "it is gone");
        service.close().await;
    });
}

#[test]
fn a1_an_episode_goes_on_over_a_restart_and_ends_with_nothing_but_time() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let rule = |resolve_after| json!({ "rules": [{ "id": "pay", "pattern": "payment failed", "resolve_after": resolve_after }] });
        let service = Service::open(dir.path());
        service.start("detector.regex", rule("15m"));
        service.append(&[line("all is well"), line("payment failed for order 7")]).await;
        let first = service.until(1).await;
        service.close().await;

        let service = Service::open(dir.path());
        let mut head = service.ledger.signals().watch();
        let before = *head.borrow_and_update();
        service.start("detector.regex", rule("2s"));
        // the change is on record among the signals, and holds from there on
        head.wait_for(|head| *head > before).await.unwrap();
        service.append(&[line("payment failed"), line("payment failed")]).await;
        let said = service.until(3).await;
        let counted: u64 = said.iter().map(|record| record.count).sum();
        assert_eq!(counted, 3, "{said:?}");
        assert_eq!(said.last().map(|record| record.resolved_by), Some(Some(ResolvedBy::Quiet)));
        assert!(said.iter().all(|record| record.alert == first[0].alert));
        assert_eq!(said[0], first[0], "what was said is not said again");
        assert_eq!(service.metric("opspilot_detector_regex_observations_total"), Some(2.0));
        assert_eq!(service.metric("opspilot_detector_regex_followed"), Some(0.0));
        service.close().await;
    });
}

#[test]
fn a_changed_configuration_is_in_force_at_once_and_ends_the_alerts_of_a_removed_rule() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::open(dir.path());
        let module = service.start("detector.regex", json!({ "rules": [{ "id": "old", "pattern": "boom" }] }));
        service.append(&[line("boom")]).await;
        service.until(1).await;
        assert!(module.reconfigure(json!({ "rules": [{ "id": "bad", "pattern": "x(" }] })).await.is_err());
        let applied = module.reconfigure(json!({ "rules": [{ "id": "new", "pattern": "boom" }] })).await.unwrap();
        assert_eq!(applied, Applied::InPlace);
        let said = service.until(2).await;
        assert_eq!(said[1].resolved_by, Some(ResolvedBy::RuleChanged));
        service.append(&[line("boom")]).await;
        assert_eq!(service.until(3).await[2].rule, "new");
        service.close().await;
    });
}

#[test]
fn a11_a_condition_that_must_last_a_minute_fires_after_a_minute_wherever_the_clock_jumps() {
    let jumps = [("none", 0), ("back an hour", -3_600_000), ("back a day", -86_400_000), ("ahead 20 seconds", 20_000)];
    for (jump, by) in jumps {
        in_system(|| async move {
            let dir = tempfile::tempdir().unwrap();
            let raw = ManualClock::at(NOON);
            let shared: SharedClock = raw.clone();
            let service = Service::open_by(dir.path(), SteadyClock::over(shared));
            let rule = json!({ "rules": [{ "id": "cpu", "metric": "cpu_percent", "op": "gt", "value": 90, "for": "60s", "clear": 80 }] });
            service.start("detector.threshold", rule);
            let due = NOON.after(Duration::from_secs(60));
            let mut earliest = service.ctx.ticker.watch();
            service.append(&[SignalRef::metric(Default::default(), "host-7", "cpu_percent", 95.0)]).await;
            earliest.wait_for(|earliest| *earliest == Some(due)).await.unwrap();
            raw.advance(Duration::from_secs(10));
            raw.set(Timestamp::from_millis(raw.now().millis() + by));
            // a jump ahead brings the end of the minute nearer by itself, and by no more
            let left = due.since(service.ctx.clock.now());
            assert_eq!(left, Duration::from_secs(if by > 0 { 30 } else { 50 }), "{jump}");
            raw.advance(left - Duration::from_millis(1));
            let look = |never: i64| service.ctx.ticker.publish("detector.other", Some(Timestamp::from_millis(never)));
            look(i64::MAX);
            let early = tokio::time::timeout(Duration::from_millis(300), service.until(1)).await;
            assert!(early.is_err(), "early fires with the clock set {jump}: 0");
            raw.advance(Duration::from_millis(1));
            look(i64::MAX / 1_000_000);
            let said = service.until(1).await;
            assert_eq!((said.len(), said[0].logged_at), (1, due), "late fires with the clock set {jump}: 0");
            service.close().await;
        });
    }
}

#[test]
fn metrics_and_outside_alerts_become_alerts_too() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let service = Service::open(dir.path());
        let rules = json!({ "rules": [{ "id": "cpu", "metric": "cpu_percent", "op": "gt", "value": 90, "for": "1s", "clear": 80 }] });
        let threshold = service.start("detector.threshold", rules);
        let cpu = |value| SignalRef::metric(Default::default(), "host-7", "cpu_percent", value);
        service.append(&[cpu(95.0)]).await;
        let said = service.until(1).await;
        assert_eq!(said[0].title, "cpu_percent 95 > 90 for 1s on host-7");
        service.append(&[cpu(85.0)]).await;
        service.append(&[cpu(79.5)]).await;
        let said = service.until(2).await;
        assert_eq!(outline(&said), [(Transition::Firing, 1), (Transition::Resolved, 0)]);
        threshold.stop().await;

        service.start("detector.alert", json!({}));
        let labels = [("host", "db-1")];
        let down =
            SignalRef { name: "Down", labels: Labels::Pairs(&labels), ..SignalRef::bare(SignalKind::Alert, Default::default(), "am") };
        service.append(std::slice::from_ref(&down)).await;
        service.append(&[SignalRef { state: AlertState::Resolved, ..down }]).await;
        let said = service.until(4).await;
        assert_eq!(outline(&said[2..]), [(Transition::Firing, 1), (Transition::Resolved, 0)]);
        assert_eq!(said[3].resolved_by, Some(ResolvedBy::Source));
        service.close().await;
    });
}

#[test]
fn a1_what_was_learned_of_series_is_read_from_the_shelf_and_the_log_after_a_restart() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let id = "detector.anomaly";
        let config = || {
            json!({ "builtin_rules": false, "max_series": 2, "rules": [
                { "id": "latency", "metric": "latency", "method": { "mad": { "window": 200, "min_samples": 30, "rest": 0 } }, "resolve_after": "1h" },
            ] })
        };
        let sources = ["a", "b", "c", "d"];
        let sample = |source, value| SignalRef {
            name: "latency",
            value: Some(value),
            ..SignalRef { kind: SignalKind::Metric, ..SignalRef::log(Default::default(), source, "") }
        };
        let metric = |service: &Service, name: &str| service.metric(&format!("opspilot_detector_anomaly_{name}")).unwrap();
        let service = Service::open(dir.path());
        service.start(id, config());
        for round in 0..40_u32 {
            let signals: Vec<SignalRef<'_>> = sources.iter().map(|source| sample(source, 40.0 + f64::from(round % 5))).collect();
            service.append(&signals).await;
        }
        service.append(&[sample("a", 400.0)]).await;
        let first = service.until(1).await;
        assert_eq!(first[0].source, "a");
        assert!(first[0].supports && first[0].description.ends_with("saw 400"), "{}", first[0].description);
        assert_eq!((metric(&service, "followed"), metric(&service, "shelved")), (2.0, 2.0));
        assert!(metric(&service, "taken_back_total") >= 150.0, "with room for two of four, each comes back again and again");
        service.close().await;

        let service = Service::open(dir.path());
        service.start(id, config());
        service.append(&[sample("b", 40.0), sample("c", 400.0), sample("d", 400.0)]).await;
        let said = service.until(3).await;
        assert_eq!(said.iter().map(|record| record.source.as_str()).collect::<Vec<_>>(), ["a", "c", "d"]);
        assert!(said[2].description.contains("40 values"), "not one is lost or doubled: {}", said[2].description);
        assert!(metric(&service, "read_again_total") > 0.0, "bases lag behind");
        assert_eq!((metric(&service, "read_again_lost_total"), metric(&service, "state_unreadable_total")), (0.0, 0.0));
        let (keys, plain) = service.ledger.read_blocking(|reader| Ok((reader.shelf_keys(id)?, reader.snapshots(id)?))).unwrap();
        assert!(!keys.is_empty() && plain.iter().all(|part| !part.key.starts_with('~')));
        service.close().await;
    });
}

#[test]
fn what_retention_removed_before_it_was_stored_is_told_and_learning_goes_on() {
    in_system(|| async {
        let dir = tempfile::tempdir().unwrap();
        let id = "detector.anomaly";
        let rule = json!({ "id": "latency", "metric": "latency", "method": { "mad": { "window": 200, "min_samples": 30, "rest": 0 } } });
        let config = json!({ "builtin_rules": false, "rules": [rule] });
        let clock = ManualClock::at(NOON);
        // more series than there is time to store each after every value
        let sources: Vec<String> = (0..60).map(|number| format!("db-{number}")).collect();
        let calm_and_a_leap = async |service: &Service| {
            for round in 0..40_u32 {
                clock.advance(Duration::from_secs(1));
                let of = |source| SignalRef::metric(Default::default(), source, "latency", 40.0 + f64::from(round % 5));
                service.append(&sources.iter().map(|source| of(source.as_str())).collect::<Vec<_>>()).await;
            }
            service.append(&[SignalRef::metric(Default::default(), "db-0", "latency", 400.0)]).await;
        };
        let service = Service::open_by(dir.path(), clock.clone());
        service.start(id, config.clone());
        calm_and_a_leap(&service).await;
        assert_eq!(outline(&service.until(1).await), [(Transition::Firing, 1)]);
        let read = service.ledger.signals().head();
        service.close().await;

        // longer than signals are kept; retention comes along with whatever is written, once a minute
        clock.advance(Duration::from_secs(8 * 86_400));
        let service = Service::open_by(dir.path(), clock.clone());
        let is_removed = || service.ledger.signals().next(0, 1).unwrap().first().is_none_or(|entry| entry.first_seq() > read / 2);
        for _ in 0..100 {
            if is_removed() {
                break;
            }
            clock.advance(Duration::from_secs(61));
            service.ledger.write(Priority::Control, |_| Ok(())).await.unwrap();
        }
        assert!(is_removed(), "{:?}", service.ledger.signals().next(0, 1));
        service.start(id, config);
        calm_and_a_leap(&service).await;
        // the alert of the week before falls silent, and what came since suffices to find the same again
        let said = outline(&service.until(3).await);
        assert_eq!(said[1..], [(Transition::Resolved, 0), (Transition::Firing, 1)]);
        assert!(service.metric("opspilot_detector_anomaly_read_again_lost_total").unwrap() > 0.0);
        let says = |health: &Health| {
            let is_told = |detail: &str| detail.contains("entries of the log that it had not stored yet had been removed");
            health.report().iter().any(|line| line.id.as_str() == id && is_told(&line.detail))
        };
        let told = tokio::time::timeout(Duration::from_secs(60), service.ctx.health.until(says)).await;
        assert!(told.is_ok(), "{:?}", service.ctx.health.report());
        service.close().await;
    });
}
