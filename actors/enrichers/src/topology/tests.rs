//! The module in a running service, on a clock that the test moves; and the learner alone, cut and restarted anywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use actix::System;
use opspilot_kernel::{
    clock::{Clock as _, ManualClock},
    codec::{Labels, PieceBuilder},
    config::ModuleConfig as _,
    principal::Actor,
    signal::{LogEntry, SignalBlock, SignalRef},
    time::Timestamp,
    topology::{About, ComponentName, Graph, Known},
};
use opspilot_ledger::{Ledger, Options, SignalBatchBuilder, Snapshot};
use opspilot_runtime::{Applied, Consumer as _, Module, ModuleContext, TopologyView};
use proptest::prelude::*;
use serde_json::json;

use super::{Config, ENTRY, ID, ReplaceError, Topology, ground::Ground, learn::Learner, metrics::Metrics};
use crate::testkit::at;

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    ledger: Ledger,
    ctx: ModuleContext,
    module: Box<dyn Module>,
    config: serde_json::Value,
}

/// Every edge of a graph, and what is known of it.
fn told(graph: &Graph) -> BTreeMap<String, Known> {
    graph.edges().map(|edge| (format!("{} > {}", edge.from, edge.to), *edge.known)).collect()
}

impl World {
    fn new(config: serde_json::Value) -> World {
        World::open(tempfile::tempdir().unwrap(), ManualClock::at(at(0)), config)
    }

    fn open(dir: tempfile::TempDir, clock: Arc<ManualClock>, config: serde_json::Value) -> World {
        let ledger = Ledger::open(Options::new(dir.path(), clock.clone())).unwrap();
        let ctx = ModuleContext::alone(ledger.clone(), clock.clone(), Arc::new(|_| {})).unwrap();
        let module = (ENTRY.start)(&ctx, config.clone()).unwrap();
        World { dir, clock, ledger, ctx, module, config }
    }

    /// The same data in a new process, as it were.
    async fn reopened(self) -> World {
        let World { dir, clock, ledger, ctx, module, config } = self;
        module.stop().await;
        assert!(ctx.topology.graph().is_empty(), "a graph that nobody keeps up is shown to nobody");
        ctx.supervisor.stop_all().await;
        ledger.shut_down().await.unwrap();
        drop((ledger, ctx, module));
        World::open(dir, clock, config)
    }

    fn graph(&self) -> Arc<Graph> {
        self.ctx.topology.graph()
    }

    fn topology(&self) -> &Topology {
        self.module.as_any().downcast_ref().unwrap()
    }

    /// A log line of `source` with labels.
    async fn log(&self, source: &str, labels: &[(&str, &str)]) {
        let mut batch = SignalBatchBuilder::new(self.clock.now());
        batch.push(&SignalRef { labels: Labels::Pairs(labels), ..SignalRef::log(self.clock.now(), source, "hello") });
        self.ledger.append(batch.seal()).await.unwrap();
    }

    /// Time passes, and the log tells of it.
    async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        self.ledger.tick(self.clock.now()).await.unwrap();
    }

    async fn until<T>(&self, what: &str, look: impl Fn(&Graph) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = look(&self.graph()) {
                    return found;
                }
                // what is known is stored when a second has passed since the last time, whenever that was over
                self.clock.advance(Duration::from_secs(1));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("waited in vain for {what}: {:?}", told(&self.graph())))
    }

    async fn until_edge(&self, edge: &str) {
        self.until(edge, |graph| told(graph).contains_key(edge).then_some(())).await;
    }

    async fn end(self) {
        self.module.stop().await;
        self.ctx.supervisor.stop_all().await;
        self.ledger.shut_down().await.unwrap();
    }
}

fn name(text: &str) -> ComponentName {
    ComponentName::new(text).unwrap()
}

#[test]
fn the_graph_comes_together_from_all_who_know_of_it_and_is_the_same_after_a_restart() {
    System::new().block_on(async {
        let world = World::new(json!({
            "edges": [{ "from": "web", "to": ["api"] }],
            "components": { "db": { "title": "Orders", "owner": "storage team" } },
        }));
        assert_eq!(told(&world.graph()).keys().collect::<Vec<_>>(), ["web > api"], "what is configured is there at once");
        assert!(world.graph().is_component("db"));
        world.log("api", &[("peer.service", "db")]).await;
        world.until_edge("api > db").await;
        let edges = BTreeSet::from([(name("web"), name("api")), (name("jobs"), name("db"))]);
        let about = BTreeMap::from([(name("db"), About { title: None, owner: Some("ada".to_owned()) })]);
        assert_eq!(world.topology().desk().replace(about, edges, None, Actor::System).await.unwrap(), 1);
        let graph = world.graph();
        let known = told(&graph);
        assert!(known["web > api"].configured && known["web > api"].by_api && !known["web > api"].ages_out());
        assert!(known["jobs > db"].by_api && known["api > db"].ages_out());
        let db = graph.about("db").unwrap();
        assert_eq!((db.title.as_deref(), db.owner.as_deref()), (Some("Orders"), Some("ada")));
        let world = world.reopened().await;
        assert_eq!(told(&world.graph()), known, "it is there as soon as the module is");
        assert_eq!(world.topology().desk().revision(), 1);
        // and it goes on from there
        world.log("web", &[("caller", "web"), ("callee", "cart")]).await;
        world.until_edge("web > cart").await;
        assert!(told(&world.graph()).contains_key("api > db"));
        world.end().await;
    });
}

#[test]
fn an_edge_that_signals_no_longer_show_is_forgotten_and_what_people_said_stays() {
    System::new().block_on(async {
        let world = World::new(json!({ "edges": [{ "from": "web", "to": ["api"] }], "forget_after": "24h" }));
        world.log("web", &[("peer.service", "api")]).await;
        world.log("api", &[("peer.service", "db")]).await;
        world.until_edge("api > db").await;
        let first = told(&world.graph())["api > db"].seen.unwrap();
        world.clock.advance(20 * HOUR);
        world.log("api", &[("peer.service", "db")]).await;
        world.until("a fresher edge", |graph| told(graph)["api > db"].seen.filter(|seen| seen.last > first.last)).await;
        assert_eq!(told(&world.graph())["api > db"].seen.unwrap().first, first.first);
        let due = world.ctx.ticker.earliest().expect("time is asked for");
        assert!(due > world.clock.now() && due <= world.clock.now().after(5 * HOUR), "{due}");
        world.pass(5 * HOUR).await;
        world.until("the older edge to be forgotten", |graph| told(graph)["web > api"].seen.is_none().then_some(())).await;
        assert!(told(&world.graph()).contains_key("api > db"));
        world.pass(20 * HOUR).await;
        world.until("the other to follow", |graph| (!graph.is_component("db")).then_some(())).await;
        assert_eq!(told(&world.graph()).keys().collect::<Vec<_>>(), ["web > api"]);
        let world = world.reopened().await;
        assert_eq!(told(&world.graph()).keys().collect::<Vec<_>>(), ["web > api"]);
        world.end().await;
    });
}

#[test]
fn another_configuration_holds_at_once_and_bounds_hold_for_people_too() {
    System::new().block_on(async {
        let world = World::new(json!({}));
        world.log("web", &[("peer.service", "api")]).await;
        world.until_edge("web > api").await;
        let wanted = json!({ "edges": [{ "from": "a", "to": ["b"] }], "peers": ["backend"], "max_edges": 2, "max_components": 4 });
        assert!(matches!(world.module.reconfigure(wanted).await, Ok(Applied::InPlace)));
        world.until_edge("a > b").await;
        assert!(told(&world.graph()).contains_key("web > api"), "what was learned stays");
        world.log("web", &[("backend", "cart")]).await;
        world.until_edge("web > cart").await;
        assert_eq!(told(&world.graph()).keys().collect::<Vec<_>>(), ["a > b", "web > cart"], "the least recently seen goes");
        let much = BTreeSet::from([(name("a"), name("c")), (name("a"), name("d"))]);
        let refused = world.topology().desk().replace(BTreeMap::new(), much, None, Actor::System).await;
        assert!(matches!(refused, Err(ReplaceError::TooMuch(why)) if why.contains("max_edges is 2")));
        let metrics = world.ctx.registry.gather();
        let forgotten = metrics.iter().find(|family| family.name() == "opspilot_topology_edges_forgotten_total").unwrap();
        let bound = forgotten.get_metric().iter().find(|metric| metric.get_label()[0].value() == "bound").unwrap();
        assert_eq!(bound.get_counter().get_value(), 1.0);
        world.end().await;
    });
}

#[test]
fn a_configuration_is_refused_with_the_place_of_every_fault() {
    let config: Config = serde_json::from_value(json!({
        "edges": [{ "from": "web", "to": ["api", "web", "api"] }, { "from": "lonely", "to": [] }],
        "components": { "a/b": { "owner": "" } },
        "peers": ["db", "db", ""],
        "calls": [{ "from": "x", "to": "x" }],
        "forget_after": "1s",
        "max_edges": 0,
    }))
    .unwrap();
    let places: Vec<String> = config.validate().into_iter().map(|problem| problem.pointer).collect();
    let expected = [
        "/edges/0/to/1",
        "/edges/0/to/2",
        "/edges/1/to",
        "/edges",
        "/peers/2",
        "/peers/1",
        "/calls/0/to",
        "/components/a~1b/owner",
        "/forget_after",
        "/max_edges",
    ];
    assert_eq!(places, expected);
    assert_eq!(Config::default().validate(), []);
    for wrong in [json!({ "edges": [{ "from": "", "to": ["a"] }] }), json!({ "edge": [] }), json!({ "components": { "": {} } })] {
        assert!(!(ENTRY.check)(wrong.clone()).is_empty(), "{wrong}");
    }
    assert_eq!(ENTRY.id, ID);
}

fn learner(config: &serde_json::Value) -> (Learner, TopologyView) {
    let view = TopologyView::default();
    let metrics = Metrics::register(&prometheus::Registry::new()).unwrap();
    let config = serde_json::from_value(config.clone()).unwrap();
    let ground = Arc::new(Ground::new(view.clone(), metrics, config));
    (Learner::new(ground, slog::Logger::root(slog::Discard, slog::o!())), view)
}

/// What a process that ends leaves of a learner.
fn saved(learner: &mut Learner, stored: &mut BTreeMap<String, Vec<u8>>) {
    loop {
        let part = learner.changed();
        if part.is_empty() {
            return;
        }
        for Snapshot { key, blob } in part {
            if blob.is_empty() { drop(stored.remove(&key)) } else { drop(stored.insert(key, blob)) }
        }
    }
}

fn entry(seq: u64, at: Timestamp, edges: &[(u8, u8)]) -> LogEntry {
    let mut piece = PieceBuilder::default();
    for (from, to) in edges {
        let (from, to) = (format!("c{from}"), format!("c{to}"));
        let labels = [("caller", from.as_str()), ("callee", to.as_str())];
        piece.push(&SignalRef { labels: Labels::Pairs(&labels), ..SignalRef::log(at, "mesh", "call") });
    }
    let last_seq = seq + u64::try_from(edges.len()).unwrap() - 1;
    let block = SignalBlock { first_seq: seq, last_seq, received_at: at, kinds: piece.kinds(), pieces: vec![piece.into_bytes()] };
    LogEntry::Batch(Arc::new(block))
}

proptest! {
    #[test]
    fn a_restart_anywhere_and_a_cut_anywhere_change_nothing(
        batches in proptest::collection::vec((0..7200_i64, proptest::collection::vec((0..5_u8, 0..5_u8), 1..6)), 1..20),
        cut in 0..20_usize, split in 0..6_usize, edges in 1..10_u32, components in 2..8_u32,
    ) {
        let config = json!({ "forget_after": "1h", "max_edges": edges, "max_components": components });
        let (mut seq, mut now) = (1, 0);
        let entries: Vec<LogEntry> = batches.iter().map(|(pause, edges)| {
            now += pause;
            let entry = entry(seq, at(now), edges);
            seq = entry.last_seq() + 1;
            entry
        }).collect();
        let (mut whole, shown) = learner(&config);
        let mut out = Vec::new();
        entries.iter().for_each(|entry| whole.consume(entry, &mut out));
        let mut stored = BTreeMap::new();
        saved(&mut whole, &mut stored);

        let (mut first, _) = learner(&config);
        let (mut second, again) = learner(&config);
        let mut kept = BTreeMap::new();
        let cut = cut % entries.len();
        entries[..cut].iter().for_each(|entry| first.consume(entry, &mut out));
        saved(&mut first, &mut kept);
        second.restore(kept.iter().map(|(key, blob)| Snapshot { key: key.clone(), blob: blob.clone() }).collect()).unwrap();
        for entry in &entries[cut..] {
            use opspilot_runtime::Entries as _;
            let (from, to) = (entry.first_seq(), entry.last_seq());
            let middle = (from + u64::try_from(split).unwrap()).min(to);
            for part in [(from, middle), (middle + 1, to)] {
                if let Some(part) = entry.clone().within(part.0, part.1) {
                    second.consume(&part, &mut out);
                }
            }
        }
        saved(&mut second, &mut kept);
        prop_assert_eq!(&kept, &stored);
        prop_assert_eq!(told(&again.graph()), told(&shown.graph()));
        prop_assert!(shown.graph().edge_count() <= usize::try_from(edges).unwrap());
        prop_assert!(shown.graph().len() <= usize::try_from(components).unwrap());
        prop_assert!(out.is_empty());
    }
}
