//! What the tests share: a ledger with an incident and people, a gate, a catalogue, and an executor that keeps a journal.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opspilot_kernel::{
    approval::{Approval, ApprovalStatus, Proposer},
    clock::{ManualClock, SharedClock, SteadyClock},
    execution::Execution,
    fingerprint::Fingerprint,
    ids::{ApprovalId, IncidentId},
    incident::{Incident, IncidentStatus, TimelineEntry, TimelineKind},
    plan::{Executor, Risk},
    principal::{Actor, Role},
    signal::Severity,
    time::Timestamp,
};
use opspilot_ledger::{
    AuditFilter, Ledger, LedgerError, NewUser, Options, Page, Priority, UserChange,
    pipeline::{Commit, IncidentChange},
};
use opspilot_runtime::{GroupSpec, Health, HealthMetrics, Supervisor, SupervisorOptions};
use opspilot_safety::{
    ActionTemplate, Approver, Catalogue, Decision, Gate, GateError, GateOptions, IssuedToken, ParamSpec, ParamType, Policy, Proposal,
    Refusal, Voter,
};
use serde_json::{Value, json};

use crate::journal::{Fake, Journal};

pub(crate) const NOON: i64 = 1_795_348_800_000;

pub(crate) fn noon() -> Timestamp {
    Timestamp::from_millis(NOON)
}

pub(crate) fn template(id: &str, risk: Risk) -> ActionTemplate {
    let argv = json!(["/usr/bin/systemctl", "restart", "{service}"]);
    serde_json::from_value(json!({
        "id": id, "title": "Restart {service}", "risk": risk, "argv": argv, "env": ["CHECKOUT_KEY"], "params": { "service": { "type": "unit_name" } },
    }))
    .unwrap()
}

pub(crate) fn catalogue() -> Catalogue {
    Catalogue::new(vec![
        template("restart", Risk::Disruptive),
        template("wipe", Risk::Destructive),
        template("look", Risk::Read),
        ActionTemplate {
            params: BTreeMap::from([("n".to_owned(), ParamSpec { min: Some(0), max: Some(1_000_000), ..ParamSpec::of(ParamType::Int) })]),
            argv: vec!["/bin/echo".to_owned(), "{n}".to_owned()],
            title: "Say {n}".to_owned(),
            targets: Some(vec!["number-{n}".to_owned()]),
            ..template("say", Risk::Reversible)
        },
    ])
    .unwrap()
}

/// One run of the service over a directory.
pub(crate) struct World {
    pub(crate) dir: Arc<tempfile::TempDir>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) ledger: Ledger,
    pub(crate) gate: Gate,
    pub(crate) journal: Arc<Journal>,
    pub(crate) incident: IncidentId,
    pub(crate) registry: prometheus::Registry,
    supervisor: Supervisor,
}

static CURSOR: AtomicU64 = AtomicU64::new(0);

impl World {
    pub(crate) async fn new() -> World {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let world = World::over(dir, ManualClock::at(noon()), Policy::default()).await;
        for (name, role, groups) in [
            ("ada", Role::Operator, vec![]),
            ("bob", Role::Operator, vec![]),
            ("cleo", Role::Operator, vec!["sre"]),
            ("dora", Role::Viewer, vec!["sre"]),
            ("vera", Role::Viewer, vec![]),
            ("root", Role::Admin, vec![]),
            ("zoe", Role::Admin, vec![]),
        ] {
            world.user(name, role, &groups).await;
        }
        world.found("first").await;
        world
    }

    /// The same directory after a crash or a stop, by a new process.
    pub(crate) async fn over(dir: Arc<tempfile::TempDir>, clock: Arc<ManualClock>, policy: Policy) -> World {
        World::bare(dir, clock, policy).offering().await
    }

    /// The same, by a process that reads the clock as the service does: what it reads never goes back.
    pub(crate) async fn steady(dir: Arc<tempfile::TempDir>, clock: Arc<ManualClock>) -> World {
        let steady = SteadyClock::over(clock.clone());
        World::reading(dir, clock, steady, Policy::default()).offering().await
    }

    async fn offering(self) -> World {
        let world = self;
        world.gate.set_catalogue(Some(Arc::new(catalogue()))).await.unwrap();
        world.gate.register(Executor::Process, Arc::new(Fake(Arc::clone(&world.journal)))).await.unwrap();
        world
    }

    /// The same, before anybody offers a catalogue.
    pub(crate) fn bare(dir: Arc<tempfile::TempDir>, clock: Arc<ManualClock>, policy: Policy) -> World {
        World::reading(dir, clock.clone(), clock, policy)
    }

    fn reading(dir: Arc<tempfile::TempDir>, by_hand: Arc<ManualClock>, clock: SharedClock, policy: Policy) -> World {
        let registry = prometheus::Registry::new();
        let data = dir.path().join("data");
        let mut options = Options::new(&data, clock.clone());
        options.registry = registry.clone();
        let ledger = Ledger::open(options).unwrap();
        let log = slog::Logger::root(slog::Discard, slog::o!());
        let health = HealthMetrics::register(&registry, ledger.queue_gauge().clone()).unwrap();
        let supervisor = Supervisor::new(SupervisorOptions {
            clock: clock.clone(),
            log: log.clone(),
            health: Health::new(clock.clone(), health),
            exit: Arc::new(|_| {}),
            seed: 7,
        });
        let gate = Gate::open(GateOptions {
            dir: data,
            ledger: ledger.clone(),
            clock: clock.clone(),
            log,
            registry: registry.clone(),
            supervisor: supervisor.group(GroupSpec::ACTIONS),
            policy,
        })
        .unwrap();
        let journal = Journal::new(dir.path());
        World { incident: IncidentId::derived(&["first"]), dir, clock: by_hand, ledger, gate, journal, registry, supervisor }
    }

    /// Ends this run as a crash would: whatever is under way is dropped, and a new one starts over the same directory.
    pub(crate) async fn crash(self) -> World {
        let (dir, clock) = self.stop().await;
        World::over(dir, clock, Policy::default()).await
    }

    pub(crate) async fn stop(self) -> (Arc<tempfile::TempDir>, Arc<ManualClock>) {
        let World { dir, clock, ledger, gate, supervisor, journal, registry, .. } = self;
        ledger.shut_down().await.unwrap();
        // what runs ends now, and nobody is there to put it on record: as if it had been cut off
        journal.let_go();
        let running = || {
            registry.gather().iter().find(|family| family.name() == "opspilot_executions_running").unwrap().get_metric()[0]
                .get_gauge()
                .get_value()
        };
        while running() > 0.0 {
            tokio::task::yield_now().await;
        }
        supervisor.stop_all().await;
        drop(gate);
        drop(ledger);
        // what was about to read holds a handle until it has seen that there is nothing any more
        while opspilot_ledger::DirLock::take(&dir.path().join("data")).is_err() {
            tokio::task::yield_now().await;
        }
        (dir, clock)
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut opspilot_ledger::Tx<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> T {
        self.ledger.write(Priority::Control, job).await.unwrap()
    }

    pub(crate) async fn user(&self, name: &str, role: Role, groups: &[&str]) {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let user = NewUser { name: name.to_owned(), role, groups, password_hash: "x".to_owned() };
        self.write(move |tx| tx.user_create(&Actor::System, user)).await;
    }

    pub(crate) async fn change(&self, name: &str, change: UserChange) {
        let name = name.to_owned();
        self.write(move |tx| tx.user_change(&Actor::System, &name, change)).await;
    }

    /// Opens an incident.
    pub(crate) async fn found(&self, name: &str) -> IncidentId {
        let id = IncidentId::derived(&[name]);
        let incident = Incident {
            id: id.clone(),
            title: "payments fail".to_owned(),
            description: String::new(),
            severity: Severity::Critical,
            status: IncidentStatus::Open,
            detected_by: "detector.regex".to_owned(),
            rule: "payment-failed".to_owned(),
            source: "shop".to_owned(),
            labels: BTreeMap::new(),
            occurrences: 1,
            opened_at: self.clock.as_ref().now_(),
            last_seen_at: self.clock.as_ref().now_(),
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
        let line = TimelineEntry {
            at: incident.opened_at,
            actor: Actor::Module { id: "enricher.incidentStore".to_owned() },
            kind: TimelineKind::Opened,
            text: String::new(),
        };
        let mut change = IncidentChange::founding(incident);
        (change.fingerprints, change.timeline) = (vec![Fingerprint::from_u64(CURSOR.fetch_add(1, Ordering::SeqCst))], vec![line]);
        change.state.timeline_count = 1;
        let commit = Commit { module: "test", incidents: vec![change], ..Commit::default() };
        self.write(move |tx| tx.apply_decisions(commit)).await;
        id
    }

    pub(crate) async fn propose_as(&self, by: Proposer, action: &str, params: Value) -> Result<Approval, GateError> {
        let owner = match &by {
            Proposer::User(name) => Some(name.clone()),
            Proposer::Rule(_) | Proposer::Ai(_) => None,
        };
        let actor = match &by {
            Proposer::User(name) => Actor::User { id: name.clone(), via: "session".to_owned() },
            Proposer::Rule(_) | Proposer::Ai(_) => Actor::Module { id: "action.safe".to_owned() },
        };
        let params = serde_json::from_value(params).unwrap();
        let proposal = Proposal {
            id: None,
            incident: self.incident.clone(),
            action: action.to_owned(),
            params,
            reasoning: "it fails".to_owned(),
            by,
            actor,
            owner,
        };
        self.gate.propose(proposal).await
    }

    /// A proposal of ada's.
    pub(crate) async fn propose(&self, action: &str) -> Approval {
        self.propose_as(Proposer::User("ada".to_owned()), action, json!({ "service": "checkout" })).await.unwrap()
    }

    /// A proposal of ada's on a target of its own.
    pub(crate) async fn propose_n(&self, n: u32) -> Approval {
        self.propose_as(Proposer::User("ada".to_owned()), "say", json!({ "n": n })).await.unwrap()
    }

    pub(crate) async fn approve_as(&self, who: Approver, approval: &Approval) -> Result<Decision, GateError> {
        self.gate.approve(&approval.id, who, approval.plan_digest, "yes".to_owned(), true).await
    }

    /// Approved by bob.
    pub(crate) async fn approved(&self, approval: &Approval) -> IssuedToken {
        match self.approve_as(bob(), approval).await.unwrap() {
            Decision::Approved(_, token) => token,
            Decision::Pending(approval) => panic!("still pending: {approval:?}"),
        }
    }

    pub(crate) async fn execute(&self, approval: &Approval, token: &IssuedToken) -> Result<Execution, GateError> {
        self.gate.execute(&approval.id, &token.token, bob()).await
    }

    pub(crate) async fn get(&self, id: &ApprovalId) -> Approval {
        let id = id.clone();
        self.ledger.read(move |reader| reader.approval(&id)).await.unwrap()
    }

    /// Waits until the approval stands so.
    pub(crate) async fn until(&self, id: &ApprovalId, status: ApprovalStatus) -> Approval {
        for _ in 0..2000 {
            let approval = self.get(id).await;
            if approval.status == status {
                return approval;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it is {:?}, not {status:?}", self.get(id).await.status);
    }

    /// The codes of the audit log, oldest first.
    pub(crate) fn audited(&self) -> Vec<String> {
        let all = self.ledger.read_blocking(|reader| reader.audit(&AuditFilter::default(), &Page::first(500))).unwrap().items;
        all.iter().rev().map(|record| record.leaf["code"].as_str().unwrap().to_owned()).collect()
    }

    pub(crate) fn count(&self, code: &str) -> usize {
        self.audited().iter().filter(|audited| *audited == code).count()
    }

    pub(crate) fn timeline(&self) -> Vec<TimelineKind> {
        let id = self.incident.clone();
        let lines = self.ledger.read_blocking(move |reader| reader.timeline(&id, &Page::first(500))).unwrap();
        lines.items.into_iter().map(|line| line.kind).collect()
    }
}

/// The time of a manual clock without naming its trait everywhere.
pub(crate) trait Now {
    fn now_(&self) -> Timestamp;
}

impl Now for ManualClock {
    fn now_(&self) -> Timestamp {
        opspilot_kernel::clock::Clock::now(self)
    }
}

pub(crate) fn who(name: &str, role: Role, groups: &[&str]) -> Approver {
    Approver {
        person: Voter { user: name.to_owned(), role, groups: groups.iter().map(|group| (*group).to_owned()).collect() },
        by_key: false,
        actor: Actor::User { id: name.to_owned(), via: "session".to_owned() },
    }
}

pub(crate) fn ada() -> Approver {
    who("ada", Role::Operator, &[])
}

pub(crate) fn bob() -> Approver {
    who("bob", Role::Operator, &[])
}

pub(crate) fn cleo() -> Approver {
    who("cleo", Role::Operator, &["sre"])
}

pub(crate) fn root() -> Approver {
    who("root", Role::Admin, &[])
}

/// The same person, by an API key.
pub(crate) fn by_key(mut who: Approver) -> Approver {
    who.by_key = true;
    who
}

#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(outcome: Result<T, GateError>) -> Refusal {
    match outcome {
        Err(GateError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}
