//! How long it takes from a token's arrival to the start of its run, and how much of that is the fsync.
//!
//! ```text
//! cargo bench -p opspilot-safety --bench start
//! ```
//!
//! What is timed: `Gate::execute` to the first line of the executor's `run`. The token is checked, used up and put on
//! record, the run is on record and forced to the disk before the executor is called. Beside it, for comparison: the
//! smallest audited write that the ledger takes. Printed are the median and the 99th of a hundred.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a bench measures with the machine's clock, prints and fails loudly"
)]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::future::BoxFuture;
use opspilot_kernel::{
    approval::Proposer,
    clock::SystemClock,
    execution::{ExecutionEnd, ExecutionStatus},
    ids::{ExecutionId, IncidentId},
    incident::{Incident, IncidentStatus},
    plan::Executor,
    principal::{Actor, Role},
    signal::Severity,
};
use opspilot_ledger::{
    Ledger, NewUser, Options, Priority,
    pipeline::{Commit, IncidentChange},
};
use opspilot_runtime::{GroupSpec, Health, HealthMetrics, Supervisor, SupervisorOptions};
use opspilot_safety::{
    Approver, Catalogue, Decision, Execute, ExecutionPermit, Facts, Gate, GateOptions, Needs, Policy, Proposal, Recovered, Voter,
};
use serde_json::json;
use tokio::sync::mpsc;

struct Tells(mpsc::UnboundedSender<Instant>);

impl Execute for Tells {
    fn facts(&self, needs: &Needs, _: &dyn Fn(&str, &[u8]) -> String) -> Facts {
        Facts { files: needs.files.iter().map(|path| (path.clone(), Ok("0".repeat(64)))).collect(), ..Facts::default() }
    }

    fn run(&self, permit: ExecutionPermit) -> BoxFuture<'static, ExecutionEnd> {
        let told = self.0.clone();
        Box::pin(async move {
            told.send(Instant::now()).unwrap();
            drop(permit);
            ExecutionEnd::bare(ExecutionStatus::Succeeded, "")
        })
    }

    fn recover(&self, _: &[ExecutionId]) -> BoxFuture<'static, Vec<(ExecutionId, Recovered)>> {
        Box::pin(async { Vec::new() })
    }
}

struct World {
    ledger: Ledger,
    gate: Gate,
    started: mpsc::UnboundedReceiver<Instant>,
    _supervisor: Supervisor,
    n: u32,
}

fn incident() -> IncidentChange {
    let at = SystemClock::shared().now();
    let incident = Incident {
        id: IncidentId::derived(&["bench"]),
        title: "payments fail".to_owned(),
        description: String::new(),
        severity: Severity::Critical,
        status: IncidentStatus::Open,
        detected_by: "detector.regex".to_owned(),
        rule: "payment-failed".to_owned(),
        source: "shop".to_owned(),
        labels: BTreeMap::new(),
        occurrences: 1,
        opened_at: at,
        last_seen_at: at,
        acknowledged_at: None,
        acknowledged_by: None,
        assignee: None,
        snoozed_until: None,
        resolved_at: None,
        resolution: None,
        merged_into: None,
        alert_count: 0,
        evidence_count: 0,
    };
    IncidentChange::founding(incident)
}

async fn world(dir: &std::path::Path) -> World {
    let registry = prometheus::Registry::new();
    let clock = SystemClock::shared();
    let ledger = Ledger::open(Options { registry: registry.clone(), ..Options::new(dir, clock.clone()) }).unwrap();
    let log = slog::Logger::root(slog::Discard, slog::o!());
    let health = Health::new(clock.clone(), HealthMetrics::register(&registry, ledger.queue_gauge().clone()).unwrap());
    let supervisor = Supervisor::new(SupervisorOptions { clock: clock.clone(), log: log.clone(), health, exit: Arc::new(|_| {}), seed: 7 });
    let gate = Gate::open(GateOptions {
        dir: dir.to_owned(),
        ledger: ledger.clone(),
        clock,
        log,
        registry,
        supervisor: supervisor.group(GroupSpec::ACTIONS),
        policy: Policy::default(),
    })
    .unwrap();
    let template = json!([{
        "id": "say", "title": "Say {n}", "risk": "read", "argv": ["/bin/echo", "{n}"], "targets": ["number-{n}"],
        "params": { "n": { "type": "int", "min": 0, "max": 1_000_000_000 } },
    }]);
    let catalogue = Catalogue::new(serde_json::from_value(template).unwrap()).unwrap();
    gate.set_catalogue(Some(Arc::new(catalogue))).await.unwrap();
    let (told, started) = mpsc::unbounded_channel();
    gate.register(Executor::Process, Arc::new(Tells(told))).await.unwrap();
    let commit = Commit { module: "bench", incidents: vec![incident()], ..Commit::default() };
    ledger.write(Priority::Control, move |tx| tx.apply_decisions(commit)).await.unwrap();
    for name in ["ada", "bob"] {
        let user = NewUser { name: name.to_owned(), role: Role::Operator, groups: Vec::new(), password_hash: "x".to_owned() };
        ledger.write(Priority::Control, move |tx| tx.user_create(&Actor::System, user)).await.unwrap();
    }
    World { ledger, gate, started, _supervisor: supervisor, n: 0 }
}

fn bob() -> Approver {
    Approver {
        person: Voter { user: "bob".to_owned(), role: Role::Operator, groups: Vec::new() },
        by_key: false,
        actor: Actor::User { id: "bob".to_owned(), via: "session".to_owned() },
    }
}

impl World {
    /// One action from its proposal to its start; how long the last step took.
    async fn start(&mut self) -> Duration {
        self.n += 1;
        let proposal = Proposal {
            id: None,
            incident: IncidentId::derived(&["bench"]),
            action: "say".to_owned(),
            params: BTreeMap::from([("n".to_owned(), json!(self.n))]),
            reasoning: String::new(),
            by: Proposer::User("ada".to_owned()),
            actor: Actor::User { id: "ada".to_owned(), via: "session".to_owned() },
            owner: Some("ada".to_owned()),
        };
        let approval = self.gate.propose(proposal).await.unwrap();
        let decision = self.gate.approve(&approval.id, bob(), approval.plan_digest, String::new(), false).await.unwrap();
        let Decision::Approved(_, token) = decision else { panic!("one is enough") };
        let began = Instant::now();
        self.gate.execute(&approval.id, &token.token, bob()).await.unwrap();
        self.started.recv().await.unwrap() - began
    }

    /// The smallest audited write.
    async fn write(&self) -> Duration {
        let began = Instant::now();
        self.ledger.write(Priority::Control, |tx| tx.module_switched(&Actor::System, "bench", true)).await.unwrap();
        began.elapsed()
    }
}

fn told(what: &str, mut taken: Vec<Duration>) {
    taken.sort_unstable();
    let at = |percent: usize| taken[(taken.len() - 1) * percent / 100];
    println!("{what}: p50 {:?}, p99 {:?}, of {}", at(50), at(99), taken.len());
}

fn start(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let system = actix::System::new();
    let mut world = system.block_on(world(dir.path()));
    let (mut starts, mut writes) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        starts.push(system.block_on(world.start()));
        writes.push(system.block_on(world.write()));
    }
    told("approve to start", starts);
    told("one audited write", writes);
    let mut group = criterion.benchmark_group("gate");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    group.bench_function("execute", |bencher| {
        bencher.iter_custom(|rounds| (0..rounds).map(|_| system.block_on(world.start())).sum());
    });
    group.finish();
}

criterion_group!(benches, start);
criterion_main!(benches);
