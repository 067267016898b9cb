//! Ends what is due, finds what was cut off, and keeps the gauge right: at once when something changes, when the next
//! deadline comes, and every few seconds.

use std::{sync::Arc, time::Duration};

use opspilot_ledger::{LedgerError, Priority};

use super::{SWEEP_EVERY, Shared, messages, run};

/// Sweeps are never closer together than this.
const AT_MOST_EVERY: Duration = Duration::from_millis(50);

pub(super) async fn forever(shared: Arc<Shared>) {
    let mut is_key_known = false;
    loop {
        let changed = shared.changed.notified();
        if !is_key_known {
            let kid = shared.tokens.kid().to_owned();
            is_key_known = shared.ledger.write(Priority::Control, move |tx| tx.approval_key_in_use(&kid)).await.is_ok();
        }
        let wait = match sweep(&shared).await {
            Ok(wait) => wait,
            Err(LedgerError::Unavailable(failure)) if failure.reason == opspilot_ledger::FailureReason::Stopped => return,
            Err(error) => {
                slog::warn!(shared.log, "approvals could not be looked through"; "error" => %error);
                SWEEP_EVERY
            }
        };
        tokio::time::sleep(AT_MOST_EVERY).await;
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(wait.min(SWEEP_EVERY)) => {}
        }
    }
}

/// Says how long until something is due.
async fn sweep(shared: &Arc<Shared>) -> Result<Duration, LedgerError> {
    let now = shared.clock.now();
    let (due, pending, stale) = shared
        .ledger
        .read(|reader| Ok((reader.next_approval_deadline()?, reader.approvals_pending()?, reader.has_stale_tokens()?)))
        .await?;
    shared.metrics.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
    if due.is_some_and(|due| due <= now) || stale {
        while shared.ledger.write(Priority::Control, |tx| tx.approvals_sweep()).await? > 0 {}
        return Ok(Duration::ZERO);
    }
    if !run::cut_off(shared).await?.is_empty() {
        // an executor that is not there yet is waited for; what fails here is tried again
        drop(run::recover(Arc::clone(shared), messages::Recover).await);
    }
    Ok(due.map_or(SWEEP_EVERY, |due| due.since(now)))
}
