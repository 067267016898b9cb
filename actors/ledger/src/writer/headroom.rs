//! After a full disk: whether there is room again, and has been for long enough.
//!
//! What was given up to let people work must not count as room: taking it back would fill the disk again, and storage
//! would go on failing and healing in turn.

use std::time::Duration;

use crate::{
    error::{FailureReason, StorageFailure},
    ledger::Shared,
};

/// Since when there is room, while storage is failed.
#[derive(Debug, Default)]
pub(super) struct Headroom {
    since: Option<Duration>,
}

impl Headroom {
    /// Storage failed again.
    pub(super) fn lost(&mut self) {
        self.since = None;
    }

    /// Whether what failed for `reason` may be healed now; if so, the reserve is there again. The disk must have had room
    /// for the reserve and a margin at every look for as long as the limits say.
    pub(super) fn is_regained(&mut self, shared: &Shared, reason: FailureReason) -> bool {
        if reason != FailureReason::Full {
            return true;
        }
        let limits = &shared.options.limits;
        let now = shared.options.clock.elapsed();
        if free_bytes(shared).is_none_or(|free| free < needed(shared)) {
            self.lost();
            return false;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) < limits.heal_after {
            return false;
        }
        let regained = shared.files.make_reserve(limits.headroom_bytes).is_ok();
        if !regained {
            self.lost();
        }
        regained
    }
}

/// How much must be free before signals are taken again.
fn needed(shared: &Shared) -> u64 {
    shared.files.reserve_bytes.saturating_add(shared.options.limits.headroom_bytes)
}

/// What the file system says is free; nothing if it does not say.
fn free_bytes(shared: &Shared) -> Option<u64> {
    let told = shared.options.space_left.as_ref().map(|space_left| space_left());
    let stat = rustix::fs::statvfs(&shared.files.dir).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    Some(told.map_or(free, |told| told.min(free)))
}

/// Says with the failure what has to happen before it ends.
pub(super) fn explained(shared: &Shared, failure: StorageFailure) -> StorageFailure {
    if failure.reason != FailureReason::Full {
        return failure;
    }
    let detail = format!("{}; signals are taken again once {} bytes are free", failure.detail, needed(shared));
    StorageFailure { detail, ..failure }
}
