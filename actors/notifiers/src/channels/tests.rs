//! The module over a real ledger, with carriers that do what the test wants.

use std::{path::Path, time::Duration};

use futures_util::FutureExt;
use opspilot_kernel::{
    clock::{ManualClock, SystemClock},
    event::Event,
    fingerprint::Fingerprint,
    ids::IncidentId,
    incident::{IncidentStatus, TimelineEntry, TimelineKind},
    module::ModuleStatus,
    time::Timestamp,
};
use opspilot_ledger::{
    Options, Page,
    pipeline::{Commit, IncidentChange},
};
use serde_json::Value;

use super::*;

/// Takes messages, or does not.
#[derive(Default)]
struct Stub {
    taken: Mutex<Vec<Message>>,
    tried: Mutex<Vec<(Timestamp, String)>>,
    is_down: std::sync::atomic::AtomicBool,
    hangs: bool,
    changed: Notify,
    clock: Mutex<Option<Arc<ManualClock>>>,
}

impl Stub {
    fn down() -> Arc<Stub> {
        let stub = Stub::default();
        stub.set_down(true);
        Arc::new(stub)
    }

    fn set_down(&self, down: bool) {
        self.is_down.store(down, std::sync::atomic::Ordering::SeqCst);
    }

    fn tried(&self) -> usize {
        self.tried.lock().len()
    }

    async fn until(&self, what: &str, enough: impl Fn(&Stub) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let changed = self.changed.notified();
                if enough(self) {
                    return;
                }
                changed.await;
            }
        });
        assert!(waited.await.is_ok(), "{what}: {} tried, {:?} taken", self.tried(), self.taken.lock().len());
    }
}

/// Longer than anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(30);

struct Carrier(Arc<Stub>);

impl Carry for Carrier {
    fn carry(&self, message: Message) -> BoxFuture<'static, Result<(), NotCarried>> {
        let stub = Arc::clone(&self.0);
        async move {
            let now = stub.clock.lock().as_ref().map_or(Timestamp::ZERO, |clock| opspilot_kernel::clock::Clock::now(&**clock));
            stub.tried.lock().push((now, message.dedup.clone()));
            stub.changed.notify_one();
            let outcome = if stub.hangs {
                std::future::pending().await
            } else if stub.is_down.load(std::sync::atomic::Ordering::SeqCst) {
                Err(NotCarried::Failed("nobody is there".to_owned()))
            } else {
                stub.taken.lock().push(message);
                Ok(())
            };
            stub.changed.notify_waiters();
            stub.changed.notify_one();
            outcome
        }
        .boxed()
    }
}

struct World {
    ctx: ModuleContext,
}

impl World {
    fn open(dir: &Path, clock: SharedClock) -> World {
        let ledger = Ledger::open(Options::new(dir, Arc::clone(&clock))).unwrap();
        let ctx = ModuleContext::alone(ledger, clock, Arc::new(|exit| panic!("the service would end: {exit:?}"))).unwrap();
        World { ctx }
    }

    fn start(&self, config: Value, stubs: &[&Arc<Stub>]) -> Channels {
        let config: Config = serde_json::from_value(config).unwrap();
        let carry = |stub: &&Arc<Stub>| -> Arc<dyn Carry> { Arc::new(Carrier(Arc::clone(stub))) };
        let carriers = stubs.iter().map(carry).collect();
        Channels::start(&self.ctx, config, carriers).unwrap()
    }

    /// Starts, and waits until the channels stand at the end of the events.
    async fn started(&self, config: Value, stubs: &[&Arc<Stub>]) -> Channels {
        let channels = self.start(config, stubs);
        for running in &channels.running {
            let mut opened = running.deps.opened.clone();
            opened.wait_for(|opened| *opened).await.unwrap();
        }
        channels
    }

    /// Opens an incident of this name.
    async fn tell(&self, name: &str) {
        let incident = message::tests::incident(name);
        let line = TimelineEntry { at: incident.opened_at, actor: Actor::System, kind: TimelineKind::Opened, text: String::new() };
        let mut change = IncidentChange::founding(incident);
        (change.fingerprints, change.timeline) = (vec![Fingerprint::from_u64(rand::random())], vec![line]);
        change.state.timeline_count = 1;
        let commit = Commit { module: "test", incidents: vec![change], ..Commit::default() };
        self.ctx.ledger.write(Priority::Control, move |tx| tx.apply_decisions(commit)).await.unwrap();
    }

    /// A person does the next thing there is to do with it: takes it, says that it is over, or that it is not.
    async fn work_on(&self, name: &str) {
        let id = IncidentId::derived(&[name]);
        let work = self.ctx.ledger.write(Priority::Control, move |tx| {
            let ada = Actor::User { id: "ada".to_owned(), via: "session".to_owned() };
            match tx.incident(&id)?.incident.status {
                IncidentStatus::Open => tx.incident_acknowledge(&id, &ada, "").map(drop),
                IncidentStatus::Acknowledged => tx.incident_resolve(&id, &ada, "over").map(drop),
                IncidentStatus::Resolved => tx.incident_reopen(&id, &ada).map(drop),
            }
        });
        work.await.unwrap();
    }

    async fn waiting(&self, channel: &str) -> Waiting {
        let channel = channel.to_owned();
        self.ctx.ledger.read(move |reader| reader.outbox_waiting(&channel)).await.unwrap()
    }

    async fn until_waiting(&self, channels: &Channels, channel: &str, count: u64) {
        let mut looked = channels.shared.standings.subscribe();
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.waiting(channel).await.count != count {
                looked.changed().await.unwrap();
            }
        });
        assert!(waited.await.is_ok(), "{:?}", self.waiting(channel).await);
    }

    async fn close(self, channels: Channels) {
        channels.stop().await;
        self.ctx.supervisor.stop_all().await;
        self.ctx.ledger.shut_down().await.unwrap();
    }
}

fn in_system<F: Future>(test: F) -> F::Output {
    actix::System::new().block_on(test)
}

fn channel(id: &str) -> Value {
    json!({ "id": id, "type": "console" })
}

fn quickly(channels: &[&str]) -> Value {
    let channels: Vec<Value> = channels.iter().map(|id| channel(id)).collect();
    json!({ "channels": channels, "retry": { "first": "10ms", "factor": 1, "longest": "10ms", "attempts": 100 } })
}

const NOON: Timestamp = Timestamp::from_millis(1_700_000_000_000);

#[test]
fn s13_a_target_that_is_down_for_an_hour_gets_everything_once_and_in_order() {
    in_system(async {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(NOON);
        let world = World::open(dir.path(), clock.clone());
        let stub = Stub::down();
        *stub.clock.lock() = Some(Arc::clone(&clock));
        let channels = world.started(json!({ "channels": [channel("hook")] }), &[&stub]).await;
        for name in ["a", "b", "c"] {
            world.tell(name).await;
        }
        let wake = || channels.running[0].deps.news.notify_one();
        let mut looked = channels.shared.standings.subscribe();
        let mut told = 0;
        // an hour, by the minute; what happens meanwhile joins what waits
        for minute in 0..60_u64 {
            if minute % 10 == 5 {
                world.work_on("a").await;
                told += 1;
            }
            clock.advance(Duration::from_secs(60));
            // until what is due was tried
            while world.waiting("hook").await.next_at.is_none_or(|next| next <= clock.now_of()) {
                wake();
                looked.changed().await.unwrap();
            }
        }
        let attempts = stub.tried();
        assert!((5..=24).contains(&attempts), "{attempts} attempts in an hour");
        stub.set_down(false);
        // the next attempt gets through, and what waits for later is hurried
        while stub.taken.lock().len() < 4 {
            clock.advance(Duration::from_secs(600));
            wake();
            looked.changed().await.unwrap();
            assert!(clock.now_of().since(NOON) < Duration::from_secs(24 * 3600));
        }
        world.until_waiting(&channels, "hook", 0).await;
        let taken = stub.taken.lock().clone();
        let mut keys: Vec<&str> = taken.iter().map(|message| message.dedup.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((keys.len(), taken.len()), (4, 4), "delivered 4, duplicates 0, omitted 0");
        let of_a: Vec<&Message> = taken.iter().filter(|message| message.body["incident"]["title"] == "a").collect();
        assert_eq!(of_a[0].body["event"], "incident.created");
        assert_eq!(of_a[1].body["transitions"].as_array().unwrap().len(), told, "no transition is lost");
        assert!(world.letters().await.is_empty());
        world.close(channels).await;
    });
}

trait NowOf {
    fn now_of(&self) -> Timestamp;
}

impl NowOf for ManualClock {
    fn now_of(&self) -> Timestamp {
        opspilot_kernel::clock::Clock::now(self)
    }
}

impl World {
    async fn letters(&self) -> Vec<opspilot_ledger::DeadLetter> {
        self.ctx.ledger.read(|reader| reader.dead_letters(&Page { limit: 100, cursor: None })).await.unwrap().items
    }
}

#[test]
fn p18_what_is_given_up_is_a_dead_letter_an_event_and_can_be_delivered_after_all() {
    in_system(async {
        let dir = tempfile::tempdir().unwrap();
        let world = World::open(dir.path(), SystemClock::shared());
        let stub = Stub::down();
        let mut config = quickly(&["hook"]);
        config["retry"]["attempts"] = json!(8);
        let channels = world.started(config, &[&stub]).await;
        world.tell("a").await;
        stub.until("eight attempts", |stub| stub.tried() == 8).await;
        world.until_waiting(&channels, "hook", 0).await;
        let letters = world.letters().await;
        assert_eq!((letters.len(), letters[0].module.as_str(), letters[0].attempts), (1, ID.as_str(), 8));
        assert_eq!(letters[0].error, "nobody is there");
        let events = world.ctx.ledger.events().next(0, 100).unwrap();
        let failed = |entry: &opspilot_ledger::EventEntry| {
            matches!(entry, opspilot_ledger::EventEntry::Event(envelope)
            if matches!(&envelope.event, Event::NotificationFailed { channel, attempts: 8, .. } if channel == "hook"))
        };
        assert_eq!(events.iter().filter(|entry| failed(entry)).count(), 1);
        let dedup = stub.tried.lock()[0].1.clone();
        stub.set_down(false);
        channels.requeue(letters[0].id.clone()).await.unwrap();
        stub.until("it arrives", |stub| stub.taken.lock().len() == 1).await;
        assert_eq!(stub.taken.lock()[0].dedup, dedup, "the receiver knows it by the same key");
        assert!(world.letters().await.is_empty());
        assert!(matches!(channels.requeue(letters[0].id.clone()).await, Err(ModuleError::Failed(_))));
        world.close(channels).await;
    });
}

#[test]
fn p16_a_channel_that_hangs_delays_neither_another_nor_whoever_makes_events() {
    in_system(async {
        let dir = tempfile::tempdir().unwrap();
        let world = World::open(dir.path(), SystemClock::shared());
        let (hanging, other) = (Arc::new(Stub { hangs: true, ..Stub::default() }), Arc::new(Stub::default()));
        let channels = world.started(quickly(&["hanging", "other"]), &[&hanging, &other]).await;
        for n in 0..100 {
            world.tell(&format!("incident {n}")).await;
        }
        other.until("the other has all", |stub| stub.taken.lock().len() == 100).await;
        world.until_waiting(&channels, "other", 0).await;
        world.until_waiting(&channels, "hanging", 100).await;
        assert!(hanging.tried() <= 16);
        world.ctx.ledger.shut_down().await.unwrap();
    });
}

#[test]
fn a_channel_with_no_room_leaves_events_in_the_log_and_takes_them_up_later() {
    in_system(async {
        let dir = tempfile::tempdir().unwrap();
        let world = World::open(dir.path(), SystemClock::shared());
        let stub = Stub::down();
        let mut config = quickly(&["hook"]);
        config["channels"][0]["backlog"] = json!(1);
        config["retry"]["first"] = json!("50ms");
        config["retry"]["longest"] = json!("50ms");
        config["retry"]["attempts"] = json!(100);
        let channels = world.started(config, &[&stub]).await;
        world.tell("first").await;
        stub.until("it is tried", |stub| stub.tried() > 0).await;
        for n in 0..50 {
            world.tell(&format!("incident {n}")).await;
        }
        assert_eq!(world.waiting("hook").await.count, 1);
        stub.set_down(false);
        stub.until("all arrive", |stub| stub.taken.lock().len() == 51).await;
        world.close(channels).await;
    });
}

#[test]
fn a2_what_was_sent_and_not_marked_is_sent_again_under_the_same_key_and_nothing_is_omitted() {
    let dir = tempfile::tempdir().unwrap();
    let hanging = Arc::new(Stub { hangs: true, ..Stub::default() });
    in_system(async {
        let world = World::open(dir.path(), SystemClock::shared());
        let channels = world.started(quickly(&["hook"]), &[&hanging]).await;
        for n in 0..10 {
            world.tell(&format!("incident {n}")).await;
        }
        hanging.until("some are under way", |hanging| hanging.tried() > 0).await;
        // whoever would hear the news hangs, so that they are left for us
        while world.waiting("hook").await.count < 10 {
            channels.running[0].deps.news.notified().await;
        }
        // the end of the process, with messages under way and their leases still on
        world.ctx.ledger.shut_down().await.unwrap();
    });
    in_system(async {
        let world = World::open(dir.path(), SystemClock::shared());
        let stub = Arc::new(Stub::default());
        let channels = world.started(quickly(&["hook"]), &[&stub]).await;
        stub.until("all arrive", |stub| stub.taken.lock().len() >= 10).await;
        let taken: Vec<String> = stub.taken.lock().iter().map(|message| message.dedup.clone()).collect();
        assert_eq!(taken.len(), 10);
        assert!(hanging.tried.lock().iter().all(|(_, dedup)| taken.contains(dedup)), "the key is the same");
        world.close(channels).await;
    });
}

#[test]
fn what_happened_before_a_channel_was_there_or_while_it_was_off_is_not_told() {
    in_system(async {
        let dir = tempfile::tempdir().unwrap();
        let world = World::open(dir.path(), SystemClock::shared());
        world.tell("before").await;
        let stub = Arc::new(Stub::default());
        let channels = world.started(quickly(&["hook"]), &[&stub]).await;
        world.tell("one").await;
        stub.until("one", |stub| stub.taken.lock().len() == 1).await;
        channels.stop().await;
        world.tell("while it was down").await;
        let channels = world.started(quickly(&["hook", "new"]), &[&stub, &Arc::new(Stub::default())]).await;
        stub.until("what happened while it was only down is told", |stub| stub.taken.lock().len() == 2).await;
        channels.stop().await;
        // switched off, and on again
        world.ctx.ledger.write(Priority::Bulk, |tx| tx.unfollow(ID.as_str())).await.unwrap();
        world.tell("while it was off").await;
        let channels = world.started(quickly(&["hook"]), &[&stub]).await;
        world.tell("two").await;
        stub.until("two", |stub| stub.taken.lock().len() == 3).await;
        let titles: Vec<Value> = stub.taken.lock().iter().map(|message| message.body["incident"]["title"].clone()).collect();
        assert_eq!(titles, ["one", "while it was down", "two"]);
        world.close(channels).await;
    });
}

#[test]
fn what_waits_for_a_channel_that_is_no_more_is_given_up_visibly() {
    in_system(async {
        let dir = tempfile::tempdir().unwrap();
        let world = World::open(dir.path(), SystemClock::shared());
        let stub = Stub::down();
        let mut config = quickly(&["old"]);
        config["retry"]["first"] = json!("1h");
        config["retry"]["longest"] = json!("1h");
        let channels = world.started(config, &[&stub]).await;
        world.tell("a").await;
        stub.until("it is tried", |stub| stub.tried() == 1).await;
        channels.stop().await;
        let channels = world.started(quickly(&["new"]), &[&Arc::new(Stub::default())]).await;
        let letters = world.letters().await;
        assert_eq!((letters.len(), letters[0].log.as_str()), (1, "outbox/old"));
        let error = channels.requeue(letters[0].id.clone()).await.unwrap_err().to_string();
        assert!(error.contains("no channel \"old\""), "{error}");
        world.close(channels).await;
    });
}

#[test]
fn a_failing_channel_is_named_in_health_and_the_module_goes_on() {
    in_system(async {
        let dir = tempfile::tempdir().unwrap();
        let world = World::open(dir.path(), SystemClock::shared());
        let (down, up) = (Stub::down(), Arc::new(Stub::default()));
        let channels = world.started(quickly(&["down", "up"]), &[&down, &up]).await;
        world.tell("a").await;
        down.until("tried", |stub| stub.tried() > 1).await;
        up.until("taken", |stub| stub.taken.lock().len() == 1).await;
        let trouble = channels.shared.trouble().unwrap();
        assert!(trouble.starts_with("down: nobody is there"), "{trouble}");
        let said = world.ctx.health.report().into_iter().find(|line| line.id == ID).map(|line| line.status);
        assert!(matches!(said, Some(ModuleStatus::Healthy | ModuleStatus::Degraded)), "{said:?}");
        assert_eq!(channels.test("down", Actor::System).unwrap().await.unwrap(), Err("nobody is there".to_owned()));
        assert_eq!(channels.test("up", Actor::System).unwrap().await.unwrap(), Ok(()));
        assert!(channels.test("none", Actor::System).is_none());
        let recorded = world.ctx.ledger.read(|reader| {
            let filter = opspilot_ledger::AuditFilter { action: Some("NOT01I".to_owned()), ..Default::default() };
            reader.audit(&filter, &Page { limit: 10, cursor: None })
        });
        assert_eq!(recorded.await.unwrap().items.len(), 2);
        world.close(channels).await;
    });
}

#[test]
fn every_module_has_defaults_that_pass_and_refuses_unknown_keys() {
    let ids: Vec<&str> = crate::MODULES.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids, ["notifier.channels"]);
    for entry in crate::MODULES {
        assert_eq!((entry.check)((entry.defaults)()), [], "{:?}", entry.id);
        let mut config = (entry.defaults)();
        config["no_such_key"] = json!(1);
        assert!(!(entry.check)(config).is_empty());
    }
}
