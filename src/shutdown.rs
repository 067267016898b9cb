//! How the process ends: one owner of the signals, one order, one deadline.
//!
//! The first SIGTERM or SIGINT begins an ordered stop; a second one ends the process at once. A part that
//! gives up, or storage that cannot be trusted, begins the same stop with exit code 70. Whatever hangs on
//! the way, the process is gone [`DEADLINE`] after the stop began.

use std::{
    process,
    sync::{Arc, mpsc},
    time::Duration,
};

use opspilot_ledger::{FatalHook, StorageFailure};
use opspilot_runtime::{Exit, ExitHook, ExitReason};
use slog::{Logger, error, info, warn};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// From the first sign of a stop to the end of the process, whatever happens.
pub const DEADLINE: Duration = Duration::from_millis(9_500);
/// What tells the service manager that the stop itself went wrong.
const FORCED: u8 = 70;

/// The parts of the service, in the order in which they stop: whoever sends before whoever receives, the ledger last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    LiveFeed,
    Http,
    Connectors,
    Detectors,
    Pipeline,
    Notifiers,
    Core,
    Ledger,
}

impl Part {
    /// Every part. What is not listed does not stop, so the compiler calls it never constructed.
    pub(crate) const IN_ORDER: [Part; 8] =
        [Part::LiveFeed, Part::Http, Part::Connectors, Part::Detectors, Part::Pipeline, Part::Notifiers, Part::Core, Part::Ledger];

    /// The most that it may take. Together the parts stay below [`DEADLINE`]: if everything before it hangs, the ledger
    /// still has its whole share to close in.
    pub(crate) const fn share(self) -> Duration {
        Duration::from_millis(match self {
            Part::LiveFeed => 1000,
            Part::Http => 3150,
            Part::Connectors => 850,
            Part::Detectors | Part::Pipeline => 500,
            Part::Notifiers => 400,
            Part::Core => 350,
            Part::Ledger => 2500,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Part::LiveFeed => "live feed",
            Part::Http => "http",
            Part::Connectors => "connectors",
            Part::Detectors => "detectors",
            Part::Pipeline => "pipeline",
            Part::Notifiers => "notifiers",
            Part::Core => "core",
            Part::Ledger => "ledger",
        }
    }
}

/// Why the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Somebody said so; with the signal's name.
    Signal(&'static str),
    /// What it was started for is done.
    Done,
    /// A part that it cannot do without was given up.
    GaveUp(Exit),
    /// Storage cannot be trusted any more.
    Storage(StorageFailure),
    /// The server ended by itself.
    Server(String),
}

impl Reason {
    /// The exit code that tells the service manager.
    pub fn code(&self) -> u8 {
        match self {
            Reason::Signal(_) | Reason::Done => 0,
            Reason::GaveUp(exit) => u8::try_from(exit.code).unwrap_or(70),
            Reason::Storage(_) | Reason::Server(_) => 70,
        }
    }
}

/// Begins the stop, from anywhere; every clone is the same.
#[derive(Clone)]
pub struct Stopper {
    reason: Arc<watch::Sender<Option<Reason>>>,
    log: Logger,
}

impl std::fmt::Debug for Stopper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stopper").field(&*self.reason.borrow()).finish()
    }
}

impl Stopper {
    /// A process that goes on.
    pub fn new(log: Logger) -> Stopper {
        Stopper { reason: Arc::new(watch::Sender::new(None)), log }
    }

    /// Begins the stop. Only the first reason counts.
    pub fn stop(&self, reason: Reason) {
        let code = reason.code();
        let blocked = matches!(&reason, Reason::GaveUp(exit) if exit.reason == ExitReason::LoopBlocked);
        let first = self.reason.send_if_modified(|now| {
            let first = now.is_none();
            if first {
                *now = Some(reason.clone());
            }
            first
        });
        if !first {
            return;
        }
        match &reason {
            Reason::Signal(name) => info!(self.log, "stopping"; "signal" => *name),
            Reason::Done => info!(self.log, "stopping"),
            Reason::GaveUp(exit) => {
                error!(self.log, "stopping: a part that is needed cannot be kept running"; "actor" => exit.actor, "reason" => ?exit.reason)
            }
            Reason::Storage(failure) => error!(self.log, "stopping: storage cannot be trusted"; "failure" => %failure),
            Reason::Server(why) => error!(self.log, "stopping: the HTTP server ended"; "reason" => why.as_str()),
        }
        // the loop that would do the ordered stop does not turn
        let patience = if blocked { Duration::from_millis(500) } else { DEADLINE };
        self.arm(patience, code);
    }

    /// Ends the process after `patience` if nothing else did.
    fn arm(&self, patience: Duration, code: u8) {
        let log = self.log.clone();
        let guard = move || {
            // nobody ever sends: this is a sleep that needs no clock
            let (_keep, nothing) = mpsc::channel::<()>();
            if nothing.recv_timeout(patience).is_ok() {
                return;
            }
            error!(log, "the ordered stop took too long; ending now");
            process::exit(i32::from(forced(code)));
        };
        if let Err(failure) = std::thread::Builder::new().name("stop-deadline".to_owned()).spawn(guard) {
            warn!(self.log, "no deadline for the stop"; "error" => %failure);
        }
    }

    /// Whether and why the process is to end.
    pub fn reason(&self) -> Option<Reason> {
        self.reason.borrow().clone()
    }

    /// Waits for the first reason.
    pub async fn wait(&self) -> Reason {
        let mut reason = self.reason.subscribe();
        match reason.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or(Reason::Done),
            Err(_) => Reason::Done,
        }
    }

    /// What supervision calls when it cannot go on.
    pub fn exit_hook(&self) -> ExitHook {
        let stopper = self.clone();
        Arc::new(move |exit| stopper.stop(Reason::GaveUp(exit)))
    }

    /// What the ledger calls when storage cannot be trusted.
    pub fn fatal_hook(&self) -> FatalHook {
        let stopper = self.clone();
        Arc::new(move |failure: &StorageFailure| stopper.stop(Reason::Storage(failure.clone())))
    }

    /// Takes the signals over. `reload` is called for every SIGHUP.
    pub fn own_signals(&self, reload: impl AsyncFn() + 'static) -> std::io::Result<()> {
        let (term, int, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?);
        actix_web::rt::spawn(self.clone().heed("SIGTERM", term));
        actix_web::rt::spawn(self.clone().heed("SIGINT", int));
        actix_web::rt::spawn(async move {
            while hang_up.recv().await.is_some() {
                reload().await;
            }
        });
        Ok(())
    }

    async fn heed(self, name: &'static str, mut signal: Signal) {
        while signal.recv().await.is_some() {
            if self.reason().is_some() {
                warn!(self.log, "second signal: ending at once"; "signal" => name);
                process::exit(130);
            }
            self.stop(Reason::Signal(name));
        }
    }
}

/// The exit code of a stop that had to be cut off: never success.
pub(crate) fn forced(code: u8) -> u8 {
    if code == 0 { FORCED } else { code }
}

/// Stops one part after the other by calling `stop`. A part that takes longer than its share of the [`DEADLINE`] is
/// logged and left behind: the answer is whether the last one, the ledger, ended.
pub(crate) async fn in_order(log: &Logger, mut stop: impl AsyncFnMut(Part)) -> bool {
    let mut ended = true;
    for part in Part::IN_ORDER {
        let begun = tokio::time::Instant::now();
        ended = tokio::time::timeout(part.share(), stop(part)).await.is_ok();
        if ended {
            slog::debug!(log, "stopped"; "part" => part.name(), "millis" => begun.elapsed().as_millis());
        } else {
            warn!(log, "a part did not stop in time and is left behind"; "part" => part.name());
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_a_clean_stop_from_a_failure() {
        let gave_up = Exit { code: 70, actor: "core.ledger", reason: ExitReason::GaveUp("panic".to_owned()) };
        assert_eq!(Reason::Signal("SIGTERM").code(), 0);
        assert_eq!(Reason::GaveUp(gave_up).code(), 70);
        assert_eq!(Reason::Server("gone".to_owned()).code(), 70);
    }

    #[test]
    fn a_stop_that_is_cut_off_is_no_success() {
        assert_eq!((forced(0), forced(70), forced(64)), (70, 70, 64));
    }

    #[tokio::test(start_paused = true)]
    async fn the_ledger_has_its_time_even_if_every_part_before_it_hangs() {
        let log = Logger::root(slog::Discard, slog::o!());
        let begun = tokio::time::Instant::now();
        let mut reached = Vec::new();
        let ended = in_order(&log, async |part| {
            reached.push((part, begun.elapsed()));
            std::future::pending().await
        });
        assert!(!ended.await);
        let (last, before) = *reached.last().unwrap();
        assert_eq!((last, reached.len()), (Part::Ledger, Part::IN_ORDER.len()));
        assert_eq!(begun.elapsed() - before, Duration::from_millis(2500), "the ledger's own time");
        assert!(begun.elapsed() + Duration::from_millis(200) < DEADLINE, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_hangs_does_not_hold_up_the_stop_and_only_the_ledger_decides_its_outcome() {
        let log = Logger::root(slog::Discard, slog::o!());
        let begun = tokio::time::Instant::now();
        let ended = in_order(&log, async |part| {
            if part == Part::Connectors {
                std::future::pending().await
            }
        });
        assert!(ended.await);
        assert_eq!(begun.elapsed(), Part::Connectors.share());
    }

    #[tokio::test]
    async fn only_the_first_reason_counts() {
        let stopper = Stopper::new(Logger::root(slog::Discard, slog::o!()));
        stopper.reason.send_replace(Some(Reason::Signal("SIGTERM")));
        stopper.stop(Reason::Done);
        assert_eq!(stopper.wait().await, Reason::Signal("SIGTERM"));
    }
}
