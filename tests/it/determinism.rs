//! A1, P1: the same recorded signals give the same alerts and the same incidents, wherever they were cut into batches
//! and whenever the process died.
//!
//! The real ledger, supervisor, detectors and pipeline run in this process, on a clock set by hand. A kill is the data
//! directory as it stands at a moment inside the writer's own thread, in the middle of a transaction or between two:
//! what `kill -9` leaves. The next life opens that copy; nothing of the former stack is told to stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use actix::System;
use futures_util::future::join_all;
use opspilot_kernel::{
    clock::{ManualClock, SharedClock},
    ids::{DeadLetterId, Seq},
    signal::{AlertState, Severity, SignalKind, SignalRef},
    time::Timestamp,
};
use opspilot_ledger::{AlertEntry, DONE, IncidentFilter, Ledger, Limits, Options, Page, Priority, SignalBatchBuilder};
use opspilot_runtime::{Applied, Module, ModuleContext};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

const START: i64 = 1_800_000_000_000;

/// One entry of the recorded log; its number is its place in the recording.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Entry {
    Line(u8, u8),
    Sample(u8, u8),
    Outside(u8, bool),
    Tick,
    /// The rules of this detector become those that they were not.
    Reload(usize),
}

impl Entry {
    fn is_signal(self) -> bool {
        !matches!(self, Entry::Tick | Entry::Reload(_))
    }
}

/// When it was received, in seconds after the start, and what.
type Recorded = (i64, Entry);

/// Seconds since the entry before, and the entry.
fn recording() -> impl Strategy<Value = Vec<Recorded>> {
    let entry = prop_oneof![
        4 => (0..6_u8, 0..3_u8).prop_map(|(line, host)| Entry::Line(line, host)),
        4 => (0..8_u8, 0..2_u8).prop_map(|(value, host)| Entry::Sample(value, host)),
        1 => (0..2_u8, any::<bool>()).prop_map(|(which, firing)| Entry::Outside(which, firing)),
        2 => Just(Entry::Tick),
        1 => (0..5_usize).prop_map(Entry::Reload),
    ];
    let gap = prop_oneof![5 => Just(0_i64), 3 => 1..4_i64, 1 => 5..30_i64];
    prop::collection::vec((gap, entry), 40..120).prop_map(|steps| {
        let mut now = 0;
        steps
            .into_iter()
            .map(|(gap, entry)| {
                // a tick is later than what came before it
                now += if entry == Entry::Tick { gap.max(1) } else { gap };
                (now, entry)
            })
            .collect()
    })
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(START + second * 1000)
}

fn push(batch: &mut SignalBatchBuilder, second: i64, entry: Entry) {
    let hosts = ["web-1", "web-2", "db"];
    match entry {
        Entry::Line(line, host) => {
            let lines =
                ["ERROR out of disk", "disk is fine again", "ERROR timeout", "request served", "PANIC at the disco", "ERROR out of disk"];
            batch.push(&SignalRef::log(at(second), hosts[usize::from(host)], lines[usize::from(line)]));
        }
        Entry::Sample(value, host) => {
            let value = 80.0 + 3.0 * f64::from(value);
            batch.push(&SignalRef::metric(at(second), hosts[usize::from(host)], "load", value));
        }
        Entry::Outside(which, firing) => {
            let state = if firing { AlertState::Firing } else { AlertState::Resolved };
            let name = ["backup late", "certificate old"][usize::from(which)];
            let bare = SignalRef::bare(SignalKind::Alert, at(second), "nagios");
            batch.push(&SignalRef { name, title: name, state, severity: Severity::Warning, ..bare });
        }
        Entry::Tick | Entry::Reload(_) => unreachable!("it is no signal"),
    }
}

/// The rules of `module`, before and after each reload.
fn rules(module: &str, reloads: usize) -> Value {
    let changed = reloads % 2 == 1;
    match module {
        "detector.regex" => json!({ "rules": [
            { "id": "disk", "pattern": "out of disk", "resolve_pattern": "fine again", "cooldown": "5s", "resolve_after": "20s" },
            { "id": "errors", "pattern": if changed { "ERROR" } else { "ERROR|PANIC" }, "severity": "warning", "cooldown": "3s",
              "resolve_after": "8s", "max_alerts_per_minute": 2 },
        ] }),
        "detector.threshold" => json!({ "builtin_rules": false, "rules": [
            { "id": "load", "metric": "load", "op": "gt", "value": if changed { 87 } else { 90 }, "clear": 86, "agg": "avg",
              "window": "10s", "for": "3s", "resolve_after": "15s" },
            { "id": "peak", "metric": "load", "op": "gte", "value": 100, "resolve_after": "5s" },
        ] }),
        "detector.alert" => json!({ "cooldown": "4s" }),
        // with room for one series of two, so that they are put away and taken back all the time
        "detector.anomaly" => json!({ "builtin_rules": false, "max_series": 1, "rules": [
            { "id": "odd", "metric": "load", "opens_incident": true, "cooldown": "4s", "resolve_after": "9s", "method":
              { "zscore": { "window": if changed { 9 } else { 12 }, "min_samples": 4, "sensitivity": 1.3, "rest": 1 } } },
            { "id": "slow", "metric": "load", "method": { "ewma": { "window": 20, "min_samples": 3, "sensitivity": 1.5, "rest": 2 } } },
        ] }),
        "detector.logTemplate" => json!({ "max_series": 16, "rules": [
            { "id": "news", "new": "all", "learning": "4s", "learning_lines": 3, "cooldown": "5s", "resolve_after": "8s",
              "severity": if changed { "error" } else { "warning" } },
        ] }),
        "detector.heartbeat" => json!({ "heartbeats": [
            { "id": "web", "period": "6s", "grace": if changed { "9s" } else { "4s" }, "on_signal": ["__message__=\"request served\""] },
            { "id": "nagios", "period": "8s", "on_alert": ["source=\"nagios\""] },
        ] }),
        "enricher.incidentStore" => json!({ "quiet_period": "6s" }),
        _ => json!({}),
    }
}

const DETECTORS: [&str; 6] =
    ["detector.regex", "detector.threshold", "detector.anomaly", "detector.logTemplate", "detector.heartbeat", "detector.alert"];

/// Everything that stands between signals and incidents.
struct Stack {
    ledger: Ledger,
    clock: Arc<ManualClock>,
    modules: BTreeMap<&'static str, Box<dyn Module>>,
}

impl Stack {
    /// Opens what is in `dir`, with the rules that are in force there.
    fn start(dir: &Path, recording: &[Recorded]) -> Stack {
        let clock = ManualClock::at(at(0));
        let shared: SharedClock = Arc::<ManualClock>::clone(&clock);
        let mut options = Options::new(dir, Arc::clone(&shared));
        options.limits = Limits { idle_after: Duration::from_millis(2), reserve_bytes: 1 << 12, readers: 4, ..Limits::default() };
        let ledger = Ledger::open(options).unwrap();
        let stored = usize::try_from(ledger.signals().head()).unwrap();
        // everything that starts finds the time at which the recording goes on
        let second = recording.get(stored).or(recording.last()).map_or(0, |(second, _)| *second);
        clock.advance(Duration::from_secs(u64::try_from(second).unwrap()));
        let ctx = ModuleContext::alone(ledger.clone(), shared, Arc::new(|_| {})).unwrap();
        let stages = opspilot_enrichers::Stages::in_order(&[opspilot_enrichers::DEDUP, opspilot_enrichers::INCIDENT_STORE]);
        let start = |entry: &opspilot_runtime::Entry| {
            let section = rules(entry.id.as_str(), reloads(&recording[..stored.min(recording.len())], entry.id.as_str()));
            (entry.start)(&ctx, section).unwrap()
        };
        let mut modules: BTreeMap<&'static str, Box<dyn Module>> = BTreeMap::new();
        // what explains an incident comes when it comes, and is no part of what is decided
        let decides = [opspilot_enrichers::DEDUP, opspilot_enrichers::INCIDENT_STORE];
        for entry in opspilot_enrichers::MODULES.iter().filter(|entry| decides.contains(&entry.id)) {
            let stage = start(entry);
            stages.plug(&*stage);
            modules.insert(entry.id.as_str(), stage);
        }
        opspilot_enrichers::pipeline::start(&ctx, stages).unwrap();
        for entry in opspilot_detectors::MODULES.iter().filter(|entry| DETECTORS.contains(&entry.id.as_str())) {
            modules.insert(entry.id.as_str(), start(entry));
        }
        Stack { ledger, clock, modules }
    }

    fn position(&self, module: &'static str) -> Seq {
        position(&self.ledger, module)
    }

    /// Waits until every detector follows and has committed what it makes of the log up to `seq`.
    async fn read_up_to(&self, seq: Seq) {
        let done = async {
            let follows = |id: &&str| self.ledger.read_blocking(|reader| reader.cursors()).unwrap().iter().any(|row| row.module == **id);
            while !DETECTORS.iter().all(|id| follows(id) && self.position(id) >= seq) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), done).await.expect("every detector follows");
    }

    /// Waits until every detector and the pipeline have committed what they make of everything.
    async fn settled(&self) {
        let done = async {
            self.read_up_to(self.ledger.signals().head()).await;
            // what they committed last is told before the next job is begun
            self.ledger.write(Priority::Control, |_| Ok(())).await.unwrap();
            while self.position("core.pipeline") < self.ledger.alerts().head() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), done).await.expect("everything is read at some time");
    }
}

/// How often `module` was given other rules.
fn reloads(recording: &[Recorded], module: &str) -> usize {
    recording.iter().filter(|(_, entry)| matches!(entry, Entry::Reload(which) if DETECTORS[*which] == module)).count()
}

/// How far what `module` makes of the log is committed.
fn position(ledger: &Ledger, module: &'static str) -> Seq {
    let (cursor, snapshots) = ledger.read_blocking(|reader| Ok((reader.cursor(module)?, reader.snapshots(module)?))).unwrap();
    let done = snapshots.into_iter().find(|snapshot| snapshot.key == DONE);
    cursor.max(done.map_or(0, |done| Seq::from_le_bytes(done.blob.try_into().unwrap())))
}

/// What came out, for comparison: every claim of a detector, and every incident with its story.
#[derive(Debug, PartialEq)]
struct Outcome {
    claims: Vec<String>,
    incidents: Vec<String>,
}

async fn outcome(stack: &Stack) -> Outcome {
    let mut claims = Vec::new();
    let mut after = 0;
    loop {
        let entries = stack.ledger.alerts().next(after, 1000).unwrap();
        let Some(last) = entries.last() else { break };
        after = last.seq();
        // the order among detectors is nobody's business
        claims.extend(entries.iter().filter_map(|entry| match entry {
            AlertEntry::Record { record, .. } => Some(serde_json::to_string(record).unwrap()),
            AlertEntry::Tick { .. } => None,
        }));
    }
    claims.sort();
    let listed = stack.ledger.read(|reader| reader.incidents(&IncidentFilter::default(), &Page::first(10_000))).await.unwrap();
    let mut incidents = Vec::new();
    for detail in listed.items {
        let id = detail.incident.id.clone();
        let story = stack.ledger.read(move |reader| reader.timeline(&id, &Page::first(10_000))).await.unwrap().items;
        incidents.push(format!("{}\n{}", serde_json::to_string(&detail).unwrap(), serde_json::to_string(&story).unwrap()));
    }
    incidents.sort();
    Outcome { claims, incidents }
}

/// What the kills hit.
#[derive(Debug, Default, Clone, Copy)]
struct Hits {
    kills: u32,
    /// Signals were under way and not stored.
    lost: u32,
    /// A detector had not stored what it knew.
    detector_behind: u32,
    /// The pipeline had not decided on what was claimed.
    pipeline_behind: u32,
}

/// Where and how the lives end.
struct Fate {
    dice: StdRng,
    kills_left: u32,
    hits: Hits,
}

enum Ended {
    Killed(PathBuf),
    Done(Outcome),
}

/// How a run is cut and killed: not at all, or as the dice fall.
fn play(recording: &[Recorded], fate: Option<(u64, u32)>) -> (Outcome, Hits) {
    let home = tempfile::tempdir().unwrap();
    let mut fate = fate.map(|(seed, kills_left)| Fate { dice: StdRng::seed_from_u64(seed), kills_left, hits: Hits::default() });
    let mut dir = home.path().join("life-0");
    for life in 1.. {
        let next = home.path().join(format!("life-{life}"));
        match System::new().block_on(live(&dir, &next, recording, fate.as_mut())) {
            Ended::Done(outcome) => return (outcome, fate.map_or_else(Hits::default, |fate| fate.hits)),
            Ended::Killed(image) => dir = image,
        }
    }
    unreachable!("the number of kills is limited")
}

async fn live(dir: &Path, next: &Path, recording: &[Recorded], mut fate: Option<&mut Fate>) -> Ended {
    let second_of = |position: usize| recording.get(position).or(recording.last()).map_or(0, |(second, _)| *second);
    let stack = Stack::start(dir, recording);
    let stored = |stack: &Stack| usize::try_from(stack.ledger.signals().head()).unwrap();
    // what was acknowledged is there, and what is there is not sent again
    let mut position = stored(&stack);
    let last_tick = |position: usize| {
        let before = recording[..position].iter().rposition(|(_, entry)| *entry == Entry::Tick);
        before.map_or(0, |index| u64::try_from(index + 1).unwrap())
    };
    if position == 0 {
        // what is wanted at the very first start holds from the beginning
        stack.read_up_to(0).await;
    }
    while let Some((second, entry)) = recording.get(position).copied() {
        let ahead = u64::try_from(at(second).since(opspilot_kernel::clock::Clock::now(&*stack.clock)).as_millis()).unwrap();
        stack.clock.advance(Duration::from_millis(ahead));
        if entry == Entry::Tick {
            // nobody is half a minute behind, by whose clock ever
            stack.read_up_to(last_tick(position)).await;
            stack.ledger.tick(at(second)).await.unwrap();
            position += 1;
            continue;
        }
        if let Entry::Reload(which) = entry {
            let module = DETECTORS[which];
            // one that is only just starting would put it on record itself, at the time at which it began to
            assert!(stack.modules[module].requeue(DeadLetterId::given("none")).await.is_err(), "answered once it has started");
            let section = rules(module, reloads(&recording[..=position], module));
            assert_eq!(stack.modules[module].reconfigure(section).await.unwrap(), Applied::InPlace);
            position += 1;
            assert_eq!(stored(&stack), position, "a reload is an entry of the log");
            continue;
        }
        let run: Vec<Recorded> =
            recording[position..].iter().take_while(|(other, entry)| *other == second && entry.is_signal()).copied().collect();
        position += run.len();
        let mut batches = vec![SignalBatchBuilder::new(at(second))];
        for (second, entry) in run {
            let last = batches.last_mut().unwrap();
            if !last.is_empty() && fate.as_mut().is_some_and(|fate| fate.dice.random_bool(0.4)) {
                batches.push(SignalBatchBuilder::new(at(second)));
            }
            push(batches.last_mut().unwrap(), second, entry);
        }
        let doomed = fate.as_mut().is_some_and(|fate| fate.kills_left > 0 && fate.dice.random_bool(0.1));
        let sent = batches.len();
        let appends = batches.into_iter().map(|batch| stack.ledger.append(batch.seal()));
        if let Some(fate) = fate.as_mut().filter(|_| doomed) {
            fate.kills_left -= 1;
            let promised = stack.ledger.signals().head();
            let survivors = fate.dice.random_range(0..=sent);
            let mut heads = (stack.ledger.alerts().watch(), stack.ledger.events().watch());
            let mut appends: Vec<_> = appends.map(Box::pin).collect();
            for append in appends.iter_mut().take(survivors) {
                // queued, not waited for
                assert!(futures_util::poll!(append).is_pending() || survivors > 0);
            }
            // at once, or just when a detector or the pipeline has committed something
            match fate.dice.random_range(0..3_u8) {
                0 => {}
                1 => drop(tokio::time::timeout(Duration::from_millis(20), heads.0.changed()).await),
                _ => drop(tokio::time::timeout(Duration::from_millis(20), heads.1.changed()).await),
            }
            let (from, to) = (dir.to_owned(), next.to_owned());
            let priority = if fate.dice.random_bool(0.5) { Priority::Control } else { Priority::Bulk };
            let kill = move |_: &mut opspilot_ledger::Tx<'_>| {
                copy(&from, &to);
                Ok(())
            };
            stack.ledger.write(priority, kill).await.unwrap();
            fate.hits.count(next, promised, second, position);
            return Ended::Killed(next.to_owned());
        }
        for appended in join_all(appends).await {
            appended.unwrap();
        }
    }
    // a tick has every detector say how far it is
    stack.read_up_to(last_tick(recording.len())).await;
    if stored(&stack) == recording.len() {
        stack.ledger.tick(at(second_of(recording.len()) + 2)).await.unwrap();
    }
    stack.settled().await;
    Ended::Done(outcome(&stack).await)
}

impl Hits {
    /// Looks into what a kill left: something acknowledged must be there, something under way must have been hit.
    fn count(&mut self, image: &Path, promised: Seq, second: i64, sent: usize) {
        let looked_at = image.with_extension("looked-at");
        copy(image, &looked_at);
        fs::remove_file(looked_at.join("lock")).ok();
        let ledger = Ledger::open(Options::new(&looked_at, ManualClock::at(at(second)))).unwrap();
        let signals = ledger.signals().head();
        assert!(signals >= promised, "{promised} were acknowledged, {signals} are there");
        self.kills += 1;
        self.lost += u32::from(usize::try_from(signals).unwrap() < sent);
        self.detector_behind += u32::from(DETECTORS.iter().any(|id| position(&ledger, id) < signals));
        self.pipeline_behind += u32::from(position(&ledger, "core.pipeline") < ledger.alerts().head());
    }

    fn add(&mut self, other: Hits) {
        self.kills += other.kills;
        self.lost += other.lost;
        self.detector_behind += other.detector_behind;
        self.pipeline_behind += other.pipeline_behind;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        if file.file_name() != "reserve" {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

#[test]
fn a1_p1_the_same_signals_give_the_same_alerts_and_incidents_however_they_are_cut_and_killed() {
    let long = std::env::var_os("OPSPILOT_LONG").is_some();
    let seed = std::env::var("OPSPILOT_TEST_SEED").ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(20_260_314);
    println!("seed {seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    // a life that was not told to stop keeps its files open: more cases than these run out of them
    let config = Config { cases: if long { 60 } else { 4 }, failure_persistence: None, max_shrink_iters: 16, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let total = std::cell::Cell::new((Hits::default(), 0));
    let spoke = std::cell::RefCell::new(BTreeSet::<&str>::new());
    runner
        .run(&(recording(), any::<u64>()), |(recording, dice)| {
            let (whole, _) = play(&recording, None);
            let (cut, hits) = play(&recording, Some((dice, 5)));
            prop_assert_eq!(cut.claims.join("\n"), whole.claims.join("\n"));
            prop_assert_eq!(cut.incidents.join("\n"), whole.incidents.join("\n"));
            let is_of = |id: &&&str| whole.claims.iter().any(|claim| claim.contains(&format!("\"{id}\"")));
            spoke.borrow_mut().extend(DETECTORS.iter().filter(is_of));
            let (mut sum, incidents) = total.get();
            sum.add(hits);
            total.set((sum, incidents + whole.incidents.len()));
            Ok(())
        })
        .unwrap();
    let (hits, incidents) = total.get();
    println!("{hits:?}, {incidents} incidents");
    assert!(hits.kills > 0 && hits.lost > 0 && hits.detector_behind > 0 && hits.pipeline_behind > 0, "no kill hit anything: {hits:?}");
    assert!(incidents > 0, "nothing came of the signals");
    assert_eq!(spoke.into_inner().len(), DETECTORS.len(), "every detector has something to say");
}
