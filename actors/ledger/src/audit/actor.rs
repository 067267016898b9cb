//! `CheckpointActor`: signs the audit log as it grows.
//!
//! | Consumes   | how far the audit log has come, [`Ledger::checkpoint_soon`]; `Heartbeat`, `Drain`         |
//! | Emits      | `CHK01I` entries and signed notes, through the ledger; `CHK01E` when it refuses           |
//! | Keeps      | when it signed last; the key and what it refuses belong to the ledger's handle            |
//! | On restart | signs what was fixed, publishes what was signed, and goes on from the newest signed note  |

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use opspilot_kernel::lifecycle::{Drain, Heartbeat, Pulse};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::signer::CheckpointError;
use crate::ledger::{Ledger, Priority};

/// When a checkpoint is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointSchedule {
    /// So long after an entry that is not covered yet, at the latest.
    pub dirty_for: Duration,
    /// As soon as so many entries are not covered.
    pub records: u64,
    /// So long after the last, even if nothing happened.
    pub always_after: Duration,
    /// So long after one that failed.
    pub retry_after: Duration,
}

impl Default for CheckpointSchedule {
    fn default() -> CheckpointSchedule {
        CheckpointSchedule {
            dirty_for: Duration::from_secs(60),
            records: 256,
            always_after: Duration::from_secs(3600),
            retry_after: Duration::from_secs(5),
        }
    }
}

/// Signs checkpoints when they are due.
#[derive(Debug)]
pub struct CheckpointActor {
    ledger: Ledger,
    schedule: CheckpointSchedule,
    trouble: Arc<Mutex<Option<String>>>,
}

impl CheckpointActor {
    pub(crate) fn new(ledger: Ledger, schedule: CheckpointSchedule) -> CheckpointActor {
        CheckpointActor { ledger, schedule, trouble: Arc::default() }
    }
}

/// Waits until the log has so many entries.
async fn reaches(head: &mut watch::Receiver<u64>, size: u64) {
    let ended = head.wait_for(|now| *now >= size).await.is_err();
    if ended {
        std::future::pending::<()>().await;
    }
}

/// Waits until a checkpoint is due, and says why.
async fn due(ledger: &Ledger, schedule: &CheckpointSchedule, signed: u64, since: Instant) -> &'static str {
    let shared = ledger.shared();
    let mut head = shared.audit.subscribe();
    let grown = async {
        // the first entry that is not covered starts the clock
        reaches(&mut head, signed + 1).await;
        let at = Instant::now() + schedule.dirty_for;
        tokio::select! {
            () = sleep_until(at) => "interval",
            () = reaches(&mut head, signed.saturating_add(schedule.records)) => "records",
        }
    };
    let asked = async {
        loop {
            shared.checkpoint_wanted.notified().await;
            if *shared.audit.borrow() > signed {
                return "asked";
            }
        }
    };
    tokio::select! {
        why = grown => why,
        why = asked => why,
        () = sleep_until(since + schedule.always_after) => "hourly",
    }
}

pub(crate) async fn sign_along(ledger: Ledger, schedule: CheckpointSchedule, trouble: Arc<Mutex<Option<String>>>) {
    let log = ledger.shared().options.log.clone();
    let mut why = Some("start");
    let mut recovered = false;
    loop {
        let step = async {
            if !recovered {
                ledger.recover_checkpoints().await?;
            }
            let signed = ledger.signed_size().await?;
            match why {
                Some(why) if *ledger.shared().audit.borrow() > signed || why == "hourly" => {
                    Ok(ledger.checkpoint(why).await?.checkpoint().size)
                }
                _ => Ok(signed),
            }
        };
        match step.await {
            Ok(signed) => {
                recovered = true;
                *trouble.lock() = None;
                why = Some(due(&ledger, &schedule, signed, Instant::now()).await);
            }
            Err(error @ CheckpointError::Inconsistent(_)) => {
                slog::crit!(log, "the audit log cannot be trusted"; "error" => %error);
                *trouble.lock() = Some(error.to_string());
                let said = error.to_string();
                if let Err(error) = ledger.write(Priority::Control, move |tx| tx.checkpoint_refused(&said)).await {
                    slog::warn!(log, "the refusal could not be put on record"; "error" => %error);
                }
                return;
            }
            Err(error) => {
                let before = trouble.lock().replace(error.to_string());
                if before != Some(error.to_string()) {
                    slog::warn!(log, "no checkpoint was signed; it is tried again"; "error" => %error);
                }
                // what was fixed or signed before it failed is made good first
                recovered = false;
                sleep(schedule.retry_after).await;
            }
        }
    }
}

impl Actor for CheckpointActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let work = sign_along(self.ledger.clone(), self.schedule, Arc::clone(&self.trouble));
        ctx.spawn(work.into_actor(self));
    }
}

impl Supervised for CheckpointActor {
    fn restarting(&mut self, _: &mut Context<Self>) {
        self.trouble = Arc::default();
    }
}

impl Handler<Heartbeat> for CheckpointActor {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        MessageResult(Pulse { queue: 0, trouble: self.trouble.lock().clone() })
    }
}

impl Handler<Drain> for CheckpointActor {
    type Result = ();

    /// The last checkpoint is the writer's, behind the last entry.
    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {}
}

impl Ledger {
    /// The actor that signs checkpoints, once [`Ledger::open_audit_key`] has opened the key.
    pub fn checkpoint_actor(&self, schedule: CheckpointSchedule) -> CheckpointActor {
        CheckpointActor::new(self.clone(), schedule)
    }
}
