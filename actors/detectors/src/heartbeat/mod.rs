//! Raises an alert when an expected ping does not come.
//!
//! | Consumes   | batches and ticks of the signal log; of the signals, pings, and whatever else feeds a heartbeat |
//! | Emits      | `AlertRecord`s: firing, repeat, resolved |
//! | Keeps      | each heartbeat's last ping, open run and standing; the open episodes (cache; snapshots and the log are the truth) |
//! | On restart | restores its snapshots and goes on at its cursor; the same records come out |
//!
//! A ping is a signal like any other: see [`Ping`] for its form. So it can be searched, retained and
//! replayed, and whoever may send signals may send one without knowing the heartbeat's key.
//!
//! # Runs
//!
//! A run is announced by `start` and ends with the next ping. Runs that overlap bear an id each (Healthchecks' `rid`): a ping
//! with an id ends that run alone, one without ends all. By a schedule, a run that has begun is the sign of life that was
//! expected, and has `max_run` to end.
//!
//! # When nobody listens
//!
//! A ping that comes while the service is away is lost, and its heartbeat is not to blame. While there
//! are heartbeats the detector asks for a tick every 20 s, so that a hole in the log of more than a
//! minute means that nobody listened. If a ping may have been due in that hole (it reaches beyond the
//! time at which it is expected, less the grace) the next one is expected as if one had come at its end, and a run that
//! was open has its whole time again. Otherwise the hole changes nothing. Shorter holes are covered by
//! the grace.

mod beat;
mod config;
mod detector;
mod ping;
mod schedule;
#[cfg(test)]
mod tests;

pub use self::{
    beat::Standing,
    config::{Config, Heartbeat},
    detector::{Detector, Stands},
    ping::{Ping, What},
    schedule::{Schedule, Zone},
};

/// The module's name.
pub const ID: opspilot_kernel::module::ModuleId = opspilot_kernel::module::ModuleId::new(NAME);
const NAME: &str = "detector.heartbeat";
/// The registry's entry.
pub(crate) const ENTRY: opspilot_runtime::Entry = crate::module::entry::<Detector>();
