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
//! # When nobody listens
//!
//! A ping that comes while the service is away is lost, and its heartbeat is not to blame. While there
//! are heartbeats the detector asks for a tick every 20 s, so that a hole in the log of more than a
//! minute means that nobody listened. If a ping may have been due in that hole (it reaches beyond the
//! period, less the grace) the next one is expected a period and a grace after its end, and a run that
//! was open has its whole time again. Otherwise the hole changes nothing. Shorter holes are covered by
//! the grace.

mod beat;
mod config;
mod detector;
mod ping;
#[cfg(test)]
mod tests;
mod words;

pub use self::{
    beat::Standing,
    config::{Config, Heartbeat},
    detector::Detector,
    ping::{Ping, What},
};

/// The module's name.
pub const ID: opspilot_kernel::module::ModuleId = opspilot_kernel::module::ModuleId::new(NAME);
const NAME: &str = "detector.heartbeat";
/// The registry's entry.
pub(crate) const ENTRY: opspilot_runtime::Entry = crate::module::entry::<Detector>();
