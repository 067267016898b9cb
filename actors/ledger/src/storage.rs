//! Whether storage takes writes, for everybody to see.

use std::collections::BTreeMap;

use opspilot_kernel::time::Timestamp;
use parking_lot::Mutex;
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
        /// What a person should know although writes work: a check that could not be made, a gap. It stays until the
        /// process ends; a failure in between hides it and takes nothing of it away.
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
    /// What was noted, the newest of each kind.
    notices: Mutex<BTreeMap<&'static str, String>>,
}

impl Storage {
    pub(crate) fn new() -> Storage {
        Storage { health: watch::Sender::new(StorageHealth::Healthy { notice: None }), notices: Mutex::new(BTreeMap::new()) }
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
        // held over the change, so that a notice of this moment is not lost between the two
        let notices = self.notices.lock();
        self.health.send_if_modified(|health| match health {
            StorageHealth::Failed { failure, .. } if !failure.reason.is_fatal() => {
                *health = StorageHealth::Healthy { notice: joined(&notices) };
                true
            }
            _ => false,
        });
    }

    /// Something a person should know although writes work. It takes the place of the one before of its kind.
    pub(crate) fn notice(&self, kind: &'static str, text: String) {
        let mut notices = self.notices.lock();
        notices.insert(kind, text);
        self.health.send_modify(|health| {
            if let StorageHealth::Healthy { notice } = health {
                *notice = joined(&notices);
            }
        });
    }
}

/// All that was noted, in one line.
fn joined(notices: &BTreeMap<&'static str, String>) -> Option<String> {
    (!notices.is_empty()).then(|| notices.values().map(String::as_str).collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_stays_in_health_through_a_failure_and_beside_what_else_is_noted() {
        let storage = Storage::new();
        storage.notice("signals", "signals up to 5 are gone".to_owned());
        storage.notice("check", "the check could not be made".to_owned());
        storage.fail(StorageFailure::new(FailureReason::Full, "no space left"), Timestamp::from_millis(1));
        storage.notice("signals", "signals up to 9 are gone".to_owned());
        assert!(!storage.health().is_healthy());
        storage.heal();
        let notice = Some("the check could not be made; signals up to 9 are gone".to_owned());
        assert_eq!(storage.health(), StorageHealth::Healthy { notice });
    }
}
