//! What every actor stands on.
//!
//! * [`Supervisor`] starts actors by a [`ChildSpec`], restarts them after a panic, a soft stop or a hang, and gives
//!   up by rule; a [`GroupSpec`] says who is restarted with a core actor, and when it is the end. [`Handle`] is how
//!   others reach them, whatever happens to them in between.
//! * [`Health`] knows how every module is doing, and tells.
//! * [`EventRouter`] fans committed events out to lanes; [`Follower`] feeds a log of the ledger to a pure
//!   [`Consumer`] and commits what it makes of it; [`Ticker`] lets time pass in the logs when a timer is due.
//! * [`TopologyView`] shows the dependency graph to whoever asks.
//! * [`Outbound`] is the one way out: every HTTP call that a module makes.
//! * [`Entry`], [`Module`] and [`ModuleContext`] are how a category crate offers its modules.
//!
//! An actor's author writes handlers, `Supervised::restarting` that resets the state, and `started` that rebuilds
//! it from the ledger. Everything else about failure is here.

mod accounting;
mod attempts;
mod cell;
mod config;
mod consumer;
mod failpoint;
mod follower;
mod group;
mod handle;
mod health;
mod module;
mod monitor;
mod offline;
pub mod outbound;
mod panics;
mod policy;
mod reporter;
mod router;
mod spec;
mod supervising;
mod supervisor;
mod ticker;
mod topology;

pub use accounting::{Tally, TallyCounts};
pub use attempts::{Attempt, AttemptBook};
pub use cell::{Cause, Lease, Phase};
pub use consumer::{Committed, Consumer, Entries, RestoreError};
pub use follower::{Follower, FollowerOptions, FollowerStatus, Reconfigure, Requeue, RequeueError, Status, follow, follow_configured};
pub use group::{GroupSpec, Strategy};
pub use handle::{AskError, Handle, Inlet, TellError};
pub use health::{Health, HealthMetrics, Overall, Report};
pub use module::{Applied, DriveAlone, Entry, Module, ModuleContext, ModuleError, ModuleSpec, Start, StartError};
pub use offline::{MakeOffline, Offline};
pub use outbound::Outbound;
pub use panics::install_panic_hook;
pub use policy::{Policy, Verdict};
pub use reporter::HealthReporter;
pub use router::{Deliver, EventKinds, EventRouter, EventRouterHandle, Lane, LaneCounts, LaneGuard, Overflow};
pub use spec::{Backoff, ChildSpec, Escalation, HeartbeatPolicy, Intensity, Placement, Restart};
pub use supervisor::{Exit, ExitHook, ExitReason, Stopped, Supervisable, Supervisor, SupervisorOptions};
pub use ticker::{Ticker, TickerActor};
pub use topology::TopologyView;
