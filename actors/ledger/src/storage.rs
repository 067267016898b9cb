//! Whether storage takes writes, for everybody to see.

use opspilot_kernel::time::Timestamp;
use tokio::sync::watch;

use crate::{
    error::{FailureReason, LedgerError, StorageFailure},
    ledger::Priority,
};

/// How storage is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageHealth {
    /// It takes writes.
    Healthy {
        /// Something a person should know although writes work: a check that found damage, a gap.
        notice: Option<String>,
    },
    /// It refuses writes; reads go on. Tried again by itself, unless the reason is fatal.
    Failed {
        /// Why.
        failure: StorageFailure,
        /// Since when.
        since: Timestamp,
    },
}

impl StorageHealth {
    /// Whether it takes writes.
    pub fn is_healthy(&self) -> bool {
        matches!(self, StorageHealth::Healthy { .. })
    }
}

/// The health, shared.
#[derive(Debug)]
pub(crate) struct Storage {
    health: watch::Sender<StorageHealth>,
}

impl Storage {
    pub(crate) fn new() -> Storage {
        Storage { health: watch::Sender::new(StorageHealth::Healthy { notice: None }) }
    }

    pub(crate) fn health(&self) -> StorageHealth {
        self.health.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<StorageHealth> {
        self.health.subscribe()
    }

    /// Whether a job of this priority may be tried now. On a full disk control work still may: the
    /// reserve was given up for it.
    pub(crate) fn check(&self, priority: Priority) -> Result<(), LedgerError> {
        match &*self.health.borrow() {
            StorageHealth::Healthy { .. } => Ok(()),
            StorageHealth::Failed { failure, .. } if failure.reason == FailureReason::Full && priority == Priority::Control => Ok(()),
            StorageHealth::Failed { failure, .. } => Err(failure.clone().into()),
        }
    }

    pub(crate) fn failure(&self) -> Option<StorageFailure> {
        match &*self.health.borrow() {
            StorageHealth::Healthy { .. } => None,
            StorageHealth::Failed { failure, .. } => Some(failure.clone()),
        }
    }

    /// Whether nothing may be written any more by this process.
    pub(crate) fn is_fatal(&self) -> bool {
        matches!(&*self.health.borrow(), StorageHealth::Failed { failure, .. } if failure.reason.is_fatal())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.failure().is_some_and(|failure| failure.reason == FailureReason::Stopped)
    }

    /// Records a failure; `since` stays that of the first. A fatal failure is never replaced.
    pub(crate) fn fail(&self, failure: StorageFailure, now: Timestamp) {
        self.health.send_modify(|health| match health {
            StorageHealth::Failed { failure: known, .. } if known.reason.is_fatal() => {}
            StorageHealth::Failed { failure: known, .. } => *known = failure,
            StorageHealth::Healthy { .. } => *health = StorageHealth::Failed { failure, since: now },
        });
    }

    pub(crate) fn heal(&self) {
        self.health.send_if_modified(|health| match health {
            StorageHealth::Failed { failure, .. } if !failure.reason.is_fatal() => {
                *health = StorageHealth::Healthy { notice: None };
                true
            }
            _ => false,
        });
    }

    /// Something a person should know although writes work.
    pub(crate) fn notice(&self, text: String) {
        self.health.send_modify(|health| {
            if let StorageHealth::Healthy { notice } = health {
                *notice = Some(text);
            }
        });
    }
}
