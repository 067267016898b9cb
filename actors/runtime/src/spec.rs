//! How one actor is to be supervised.

use std::time::Duration;

/// What is done when an actor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// It is restarted however it ended.
    Permanent,
    /// It is restarted unless it stopped by itself.
    Transient,
    /// It is never restarted.
    Temporary,
}

/// How long to wait before a restart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    /// Before the first restart.
    pub first: Duration,
    /// By how much it grows with every further failure.
    pub factor: u32,
    /// It never grows beyond this.
    pub max: Duration,
    /// The share by which it is made longer or shorter at random, so that children do not restart in step.
    pub jitter: f64,
    /// After so long without a failure the next wait is the first one again.
    pub reset: Duration,
}

impl Backoff {
    /// 100 ms, doubled up to 30 s, ±20 %, reset after a healthy minute.
    pub const DEFAULT: Backoff =
        Backoff { first: Duration::from_millis(100), factor: 2, max: Duration::from_secs(30), jitter: 0.2, reset: Duration::from_secs(60) };

    /// The wait before restart number `attempt` (the first is 0), without jitter.
    pub fn nominal(&self, attempt: u32) -> Duration {
        let grown = self.factor.checked_pow(attempt).and_then(|factor| self.first.checked_mul(factor));
        grown.unwrap_or(self.max).min(self.max)
    }
}

/// How many restarts within how long are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intensity {
    /// So many restarts are allowed …
    pub restarts: u32,
    /// … within this time; one more escalates.
    pub within: Duration,
}

impl Intensity {
    /// 5 in 30 s: for every module's actor and every group unless it says otherwise.
    pub const DEFAULT: Intensity = Intensity { restarts: 5, within: Duration::from_secs(30) };
    /// 3 in 300 s: for the root, which restarts whole groups.
    pub const PROCESS: Intensity = Intensity { restarts: 3, within: Duration::from_secs(300) };
}

/// When an actor that does not answer counts as hung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatPolicy {
    /// How often it is asked.
    pub every: Duration,
    /// Without an answer for so long it is shown as degraded.
    pub degraded: Duration,
    /// Without an answer for so long it is treated as failed.
    pub failure: Duration,
}

impl HeartbeatPolicy {
    /// Asked every 5 s, degraded after 30 s, failed after 120 s.
    pub const DEFAULT: HeartbeatPolicy =
        HeartbeatPolicy { every: Duration::from_secs(5), degraded: Duration::from_secs(30), failure: Duration::from_secs(120) };
}

/// Where an actor runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// With its supervisor: for light work that never blocks.
    Shared,
    /// On a thread of its own: for work that computes long or blocks.
    OwnArbiter,
}

/// Whose matter an actor's failures are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escalation {
    /// Its own: above its intensity it is given up and shown as failed; everybody else goes on.
    Fail,
    /// Its group's, which restarts it, and others with it; when no group can go on, the process ends in order.
    Group,
}

/// How one actor is to be supervised.
#[derive(Debug, Clone, PartialEq)]
pub struct ChildSpec {
    /// Its name in health, metrics and logs. A module's actor bears the module's id; further actors of a module
    /// add a slash and a name of their own.
    pub id: &'static str,
    /// What is done when it ends.
    pub restart: Restart,
    /// How long to wait before a restart.
    pub backoff: Backoff,
    /// How many restarts are too many. For a core actor its group counts, not it.
    pub intensity: Intensity,
    /// How long it may take to drain at shutdown; after that it is skipped.
    pub shutdown: Duration,
    /// When it counts as hung.
    pub heartbeat: HeartbeatPolicy,
    /// How many messages may wait; one more is answered `Busy`. At least 1.
    pub mailbox: usize,
    /// Where it runs.
    pub placement: Placement,
    /// Whose matter its failures are.
    pub escalation: Escalation,
}

impl ChildSpec {
    /// A module's actor: permanent, shared arbiter, 128 messages, given up on its own.
    pub const fn module(id: &'static str) -> ChildSpec {
        ChildSpec {
            id,
            restart: Restart::Permanent,
            backoff: Backoff::DEFAULT,
            intensity: Intensity::DEFAULT,
            shutdown: Duration::from_secs(5),
            heartbeat: HeartbeatPolicy::DEFAULT,
            mailbox: 128,
            placement: Placement::Shared,
            escalation: Escalation::Fail,
        }
    }

    /// An actor the service cannot do without: its failures are its group's.
    pub const fn core(id: &'static str) -> ChildSpec {
        ChildSpec { escalation: Escalation::Group, ..ChildSpec::module(id) }
    }

    /// The same, on a thread of its own.
    #[must_use]
    pub const fn on_own_arbiter(mut self) -> ChildSpec {
        self.placement = Placement::OwnArbiter;
        self
    }

    /// The same, with room for `mailbox` messages.
    #[must_use]
    pub const fn with_mailbox(mut self, mailbox: usize) -> ChildSpec {
        self.mailbox = mailbox;
        self
    }

    /// The module it belongs to: what stands before the slash.
    pub fn module_id(&self) -> &'static str {
        module_of(self.id)
    }
}

/// The module a child belongs to.
pub(crate) fn module_of(child: &'static str) -> &'static str {
    child.split_once('/').map_or(child, |(module, _)| module)
}
