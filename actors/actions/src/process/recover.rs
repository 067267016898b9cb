//! What became of a run that was cut off: by evidence, never by running anything again.
//!
//! | evidence              | and                              | what is said                    |
//! |---|---|---|
//! | none                  | nobody can begin it any more     | not started                     |
//! | refused               |                                  | not started, with the reason    |
//! | exited                | by itself                        | how it ended                    |
//! | exited                | because the service went away    | unknown                         |
//! | spawned               | it is ended if it still runs     | unknown                         |
//! | damaged               | it is ended if it still runs     | unknown                         |

use std::time::Duration;

use opspilot_kernel::{
    clock::SystemClock,
    execution::{ExecutionEnd, ExecutionStatus},
    ids::ExecutionId,
};
use opspilot_safety::Recovered;
use rustix::process::{Pid, Signal};

use super::{
    CONTAINMENT, Inner, attempt, environment,
    evidence::{Ended, Evidence, Exit},
    judged, pause,
    proc::{self, ProcessName},
};

/// How long a helper that is still there may take to write its last word.
const LAST_WORD: Duration = Duration::from_secs(2);
/// Evidence of runs whose end is on record is kept for so long.
const KEEP: Duration = Duration::from_secs(7 * 86_400);

impl Inner {
    /// Finds out what became of a run, and ends what is left of it.
    pub(super) fn recovered(&self, id: &ExecutionId) -> Recovered {
        let found = match self.runs.read(id) {
            // whoever would still begin it finds that it may not
            Ok(None) => match self.runs.claim(id, &Evidence::NotStarted) {
                Ok(true) => Ok(Evidence::NotStarted),
                Ok(false) => self.runs.read(id).map(|found| found.unwrap_or(Evidence::NotStarted)),
                Err(error) => Err(error),
            },
            Ok(Some(found)) => Ok(found),
            Err(error) => Err(error),
        };
        let recovered = match found {
            Ok(Evidence::Spawned { program, helper }) => self.cut_off(id, &program, &helper),
            Ok(found) => told(&found),
            Err(error) => {
                end_marked(id);
                unknown(&format!("interrupted: its evidence cannot be read: {error}"))
            }
        };
        slog::info!(self.log, "a run that was cut off was looked after"; "execution" => %id, "found" => ?recovered);
        recovered
    }

    fn cut_off(&self, id: &ExecutionId, program: &ProcessName, helper: &ProcessName) -> Recovered {
        let runs_still = program.is_alive();
        if runs_still && let Some(group) = Pid::from_raw(program.pid) {
            attempt(rustix::process::kill_process_group(group, Signal::KILL));
        }
        // the helper may just be writing down how it ended
        let clock = SystemClock::shared();
        let over = clock.elapsed() + LAST_WORD;
        while helper.is_alive() && clock.elapsed() < over {
            pause(Duration::from_millis(10));
        }
        end_marked(id);
        match self.runs.read(id) {
            // the helper took our signal for its end
            Ok(Some(Evidence::Exited(Exit { code: None, .. }))) if runs_still => unknown("interrupted"),
            Ok(Some(found)) => told(&found),
            _ => unknown("interrupted"),
        }
    }

    /// Removes evidence that nobody needs any more.
    pub(super) fn prune(&self, unfinished: &[(ExecutionId, Recovered)]) {
        let now = SystemClock::shared().now();
        for id in self.runs.list().unwrap_or_default() {
            let is_old = self.runs.written(&id).is_some_and(|written| now.since(written) > KEEP);
            if is_old && unfinished.iter().all(|(open, _)| *open != id) {
                // what is left is looked at again next time
                drop(self.runs.forget(&id));
            }
        }
    }
}

fn told(evidence: &Evidence) -> Recovered {
    match evidence {
        Evidence::NotStarted => Recovered::NotStarted,
        Evidence::Refused { reason } => Recovered::Finished(ExecutionEnd::bare(ExecutionStatus::Failed, format!("not_started: {reason}"))),
        Evidence::Spawned { .. } | Evidence::Exited(Exit { ended: Some(Ended::Interrupted), .. }) => unknown("interrupted"),
        Evidence::Exited(exit) => {
            let (status, reason) = judged(exit);
            let reason = reason.map_or_else(|| "recovered".to_owned(), |reason| format!("{reason}, recovered"));
            let end =
                ExecutionEnd { exit_code: exit.code, containment: Some(CONTAINMENT.to_owned()), ..ExecutionEnd::bare(status, reason) };
            if status == ExecutionStatus::Unknown { Recovered::Unknown(end) } else { Recovered::Finished(end) }
        }
    }
}

fn unknown(reason: &str) -> Recovered {
    let end = ExecutionEnd::bare(ExecutionStatus::Unknown, reason);
    Recovered::Unknown(ExecutionEnd { containment: Some(CONTAINMENT.to_owned()), ..end })
}

/// Ends whatever bears the run's name, the helper too.
fn end_marked(id: &ExecutionId) {
    let mark = format!("{}={id}", environment::RUN_ID);
    let clock = SystemClock::shared();
    let over = clock.elapsed() + LAST_WORD;
    loop {
        let left = proc::marked(&mark);
        if left.is_empty() || clock.elapsed() > over {
            return;
        }
        for pid in left.into_iter().filter_map(Pid::from_raw) {
            attempt(rustix::process::kill_process(pid, Signal::KILL));
        }
        pause(Duration::from_millis(5));
    }
}
