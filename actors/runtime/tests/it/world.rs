//! An actor that can fail in every way, and the small world it lives in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use actix::prelude::*;
use opspilot_kernel::{
    clock::{SharedClock, SystemClock, VirtualClock},
    lifecycle::{Drain, Heartbeat, Pulse},
    module::{ModuleId, ModuleStatus},
    time::Timestamp,
};
use opspilot_runtime::{ChildSpec, Exit, Handle, Health, HealthMetrics, Supervisor, SupervisorOptions};
use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts, Registry};

pub const SICK: &str = "detector.sick";

/// Runs a test in an actix system, on virtual time.
pub fn on_virtual_time<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    System::new().block_on(async {
        tokio::time::pause();
        test().await
    })
}

/// Runs a test in an actix system, on the machine's time.
pub fn on_real_time<F: Future>(test: impl FnOnce() -> F) -> F::Output {
    System::new().block_on(async { test().await })
}

pub struct World {
    pub supervisor: Supervisor,
    pub health: Health,
    pub registry: Registry,
    pub exits: Arc<Mutex<Vec<Exit>>>,
}

pub fn health(clock: SharedClock, registry: &Registry) -> Health {
    let queue = IntGaugeVec::new(Opts::new("opspilot_queue_depth", "Work that waits."), &["queue"]).unwrap();
    registry.register(Box::new(queue.clone())).unwrap();
    Health::new(clock, HealthMetrics::register(registry, queue).unwrap())
}

/// Keeps the panics that are the point of these tests out of their output.
fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !info.to_string().contains("told to fail") {
                loud(info);
            }
        }));
    });
}

pub fn quiet() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

impl World {
    pub fn virtual_time() -> World {
        World::with(VirtualClock::starting_at(Timestamp::from_millis(1_000_000)))
    }

    pub fn real_time() -> World {
        World::with(SystemClock::shared())
    }

    fn with(clock: SharedClock) -> World {
        hush();
        let registry = Registry::new();
        let health = health(Arc::clone(&clock), &registry);
        let exits = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&exits);
        let options = SupervisorOptions {
            clock: Arc::clone(&clock),
            log: quiet(),
            health: health.clone(),
            exit: Arc::new(move |exit| seen.lock().push(exit)),
            seed: 7,
        };
        World { supervisor: Supervisor::new(options), health, registry, exits }
    }

    pub fn start(&self, spec: ChildSpec, knobs: &Arc<Knobs>) -> Handle<Sick> {
        let knobs = Arc::clone(knobs);
        self.supervisor.start(spec, move || Sick::new(Arc::clone(&knobs)))
    }

    pub fn status(&self) -> ModuleStatus {
        self.health.status(ModuleId::new(SICK)).unwrap()
    }

    /// Restarts counted for a cause.
    pub fn restarts(&self, cause: &str) -> u64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == "opspilot_module_restarts_total");
        let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
        let of_cause = |metric: &&prometheus::proto::Metric| metric.get_label().iter().any(|label| label.value() == cause);
        #[allow(clippy::as_conversions, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        metrics.iter().filter(of_cause).map(|metric| metric.get_counter().get_value() as u64).sum()
    }
}

/// What the actor shall do, and what it did: survives the actor.
#[derive(Default)]
pub struct Knobs {
    /// So many starts still panic.
    pub fail_starts: AtomicU32,
    /// The message that kills.
    pub poison: AtomicU32,
    /// `stopped` panics.
    pub fail_stopped: AtomicU32,
    pub made: AtomicU32,
    pub starts: Mutex<Vec<tokio::time::Instant>>,
    pub handled: Mutex<Vec<u32>>,
    pub ticks: AtomicU32,
}

impl Knobs {
    pub fn new() -> Arc<Knobs> {
        Arc::new(Knobs::default())
    }

    pub fn starts(&self) -> usize {
        self.starts.lock().len()
    }

    /// Takes one off a counter; true while there was one.
    pub fn take(counter: &AtomicU32) -> bool {
        counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

pub struct Sick {
    knobs: Arc<Knobs>,
    /// Messages handled since the state was made.
    state: u32,
    timer: Option<SpawnHandle>,
}

impl Sick {
    pub fn new(knobs: Arc<Knobs>) -> Sick {
        knobs.made.fetch_add(1, Ordering::SeqCst);
        Sick { knobs, state: 0, timer: None }
    }
}

impl Actor for Sick {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.knobs.starts.lock().push(tokio::time::Instant::now());
        assert!(!Knobs::take(&self.knobs.fail_starts), "told to fail in started");
        self.timer = Some(ctx.run_interval(Duration::from_secs(1), |sick, _| {
            sick.knobs.ticks.fetch_add(1, Ordering::SeqCst);
        }));
    }

    fn stopped(&mut self, _: &mut Context<Self>) {
        assert!(!Knobs::take(&self.knobs.fail_stopped), "told to fail in stopped");
    }
}

impl Supervised for Sick {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.state = 0;
    }
}

impl Handler<Heartbeat> for Sick {
    type Result = MessageResult<Heartbeat>;
    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> Self::Result {
        MessageResult(Pulse::default())
    }
}

impl Handler<Drain> for Sick {
    type Result = ();
    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {}
}

/// "Handle this": answers how many this state has handled.
#[derive(Message)]
#[rtype(result = "u32")]
pub struct Do(pub u32);

impl Handler<Do> for Sick {
    type Result = u32;
    fn handle(&mut self, Do(number): Do, _: &mut Context<Self>) -> u32 {
        assert_ne!(number, self.knobs.poison.load(Ordering::SeqCst).wrapping_sub(1), "told to fail at this message");
        self.knobs.handled.lock().push(number);
        self.state += 1;
        self.state
    }
}

/// "Fail like this."
#[derive(Debug, Clone, Copy, Message, PartialEq, Eq)]
#[rtype(result = "()")]
pub enum Ail {
    Panic,
    PanicInFuture,
    PanicInTimer,
    PanicInInterval,
    CancelAndPanic,
    Stop,
    Terminate,
    WaitForever,
    Block(Duration),
}

impl Handler<Ail> for Sick {
    type Result = ResponseActFuture<Self, ()>;
    fn handle(&mut self, how: Ail, ctx: &mut Context<Self>) -> Self::Result {
        let done = || Box::pin(actix::fut::ready(()));
        match how {
            Ail::Panic => panic!("told to fail"),
            Ail::PanicInFuture => {
                let future = async {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    panic!("told to fail");
                };
                Box::pin(future.into_actor(self))
            }
            Ail::PanicInTimer => {
                ctx.run_later(Duration::from_millis(10), |_, _| panic!("told to fail"));
                done()
            }
            Ail::PanicInInterval => {
                ctx.run_interval(Duration::from_millis(10), |_, _| panic!("told to fail"));
                done()
            }
            Ail::CancelAndPanic => {
                ctx.cancel_future(self.timer.take().unwrap());
                panic!("told to fail");
            }
            Ail::Stop => {
                ctx.stop();
                done()
            }
            Ail::Terminate => {
                ctx.terminate();
                done()
            }
            Ail::WaitForever => {
                ctx.wait(std::future::pending::<()>().into_actor(self));
                done()
            }
            Ail::Block(time) => {
                #[allow(clippy::disallowed_methods, reason = "to block the thread is what is tested")]
                std::thread::sleep(time);
                done()
            }
        }
    }
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(3600);
    let real = SystemClock::shared();
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline && real.elapsed() < Duration::from_secs(60), "it never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
