//! The loop: read a step, store it with its checkpoints, wait for more.

use std::{sync::Arc, time::Duration};

use opspilot_kernel::clock::SharedClock;
use opspilot_ledger::{Ledger, LedgerError, Priority, SignalBatch, SignalBatchBuilder, Snapshot};
use opspilot_runtime::Lease;
use tokio::sync::watch;

use super::{
    ID,
    config::Config,
    engine::{Counts, Engine, Saving},
    hints::Hints,
    meters::Meters,
};

/// What every instance of the actor is given.
pub(crate) struct Deps {
    pub(crate) config: Config,
    pub(crate) ledger: Ledger,
    pub(crate) clock: SharedClock,
    pub(crate) log: slog::Logger,
    pub(crate) meters: Meters,
}

/// What the loop lets others see of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Status(Arc<std::sync::Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    behind: usize,
    files: Option<String>,
    ledger: Option<String>,
}

impl Status {
    /// Bytes that wait, and what a person should know.
    pub(crate) fn read(&self) -> (usize, Option<String>) {
        let seen = self.lock();
        let troubles: Vec<&str> = [&seen.ledger, &seen.files].into_iter().flatten().map(String::as_str).collect();
        (seen.behind, (!troubles.is_empty()).then(|| troubles.join("; ")))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// How long to wait before the ledger is tried again while storage fails.
const STORAGE_RETRY: Duration = Duration::from_millis(250);
/// The least time between two looks at the files: a line at a time is no batch.
const PAUSE: Duration = Duration::from_millis(5);

/// Follows the files until `draining` says to stop, or until another instance has taken over.
pub(crate) async fn follow(deps: Arc<Deps>, lease: Lease, status: Status, mut draining: watch::Receiver<bool>) -> Result<(), LedgerError> {
    let Some(stored) = restore(&deps, &status, &draining).await? else { return Ok(()) };
    let mut engine = Engine::new(deps.config.clone(), stored, Arc::clone(&deps.clock));
    let mut hints = Hints::new(&deps.log);
    let mut told = Counts::default();
    let mut complained = None;
    while !*draining.borrow() && lease.is_current() {
        let mut batch = SignalBatchBuilder::new(deps.clock.now());
        let step = engine.step(&mut |signal| batch.push(signal));
        deps.meters.tell(&mut told, &engine);
        let trouble = engine.trouble();
        {
            let mut seen = status.lock();
            seen.behind = usize::try_from(engine.behind()).unwrap_or(usize::MAX);
            seen.files.clone_from(&trouble);
        }
        if trouble != complained {
            if let Some(trouble) = &trouble {
                slog::warn!(deps.log, "some files are not read"; "reason" => trouble);
            }
            complained = trouble;
        }
        // An instance that was replaced while it hung in a read must not store what its successor reads again.
        if !lease.is_current() {
            return Ok(());
        }
        store(&deps, &status, &lease, batch, step.savings).await?;
        if step.more {
            // Lets heartbeats in.
            tokio::task::yield_now().await;
            continue;
        }
        if hints.update(engine.folders()) {
            continue;
        }
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            () = tokio::time::sleep(engine.next_due()) => {}
            () = hints.changed() => {}
            // An error means that the actor is gone, and this future with it.
            _ = draining.wait_for(|draining| *draining) => {}
        }
    }
    Ok(())
}

/// The checkpoints, once everything that a former instance handed over is stored or refused: an empty job behind it
/// all tells when. `None` if it was told to stop before.
async fn restore(deps: &Deps, status: &Status, draining: &watch::Receiver<bool>) -> Result<Option<Vec<Saving>>, LedgerError> {
    loop {
        let read = async {
            deps.ledger.write(Priority::Bulk, |_| Ok(())).await?;
            deps.ledger.read(|reader| reader.snapshots(ID)).await
        };
        match read.await {
            Ok(snapshots) => {
                status.lock().ledger = None;
                return Ok(Some(snapshots.into_iter().map(|snapshot| (snapshot.key, snapshot.blob)).collect()));
            }
            Err(error) => wait_out(deps, status, error).await?,
        }
        if *draining.borrow() {
            return Ok(None);
        }
    }
}

/// Stores a step; tries until it is stored, unless the error means that trying is no use.
async fn store(deps: &Deps, status: &Status, lease: &Lease, batch: SignalBatchBuilder, savings: Vec<Saving>) -> Result<(), LedgerError> {
    if batch.is_empty() && savings.is_empty() {
        return Ok(());
    }
    let snapshots: Vec<Snapshot> = savings.into_iter().map(|(key, blob)| Snapshot { key, blob }).collect();
    let batch: Option<SignalBatch> = (!batch.is_empty()).then(|| batch.seal());
    loop {
        let parts = snapshots.clone();
        let outcome = match &batch {
            Some(batch) => deps.ledger.append_with(batch.clone(), ID, parts).await.map(drop),
            None => deps.ledger.write(Priority::Bulk, move |tx| tx.save_cursor(ID, 0, parts)).await,
        };
        match outcome {
            Ok(()) => {
                status.lock().ledger = None;
                return Ok(());
            }
            Err(error) => wait_out(deps, status, error).await?,
        }
        if !lease.is_current() {
            return Ok(());
        }
    }
}

/// Waits a little if the error says that nothing was stored and that it may be later; otherwise gives it back.
async fn wait_out(deps: &Deps, status: &Status, error: LedgerError) -> Result<(), LedgerError> {
    match error {
        LedgerError::Busy | LedgerError::Unavailable(_) => {
            deps.meters.waited.inc();
            status.lock().ledger = Some(format!("reading waits until signals can be stored again: {error}"));
            tokio::time::sleep(STORAGE_RETRY).await;
            Ok(())
        }
        error => Err(error),
    }
}
