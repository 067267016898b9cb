//! The ledger: the database seen as the one source of truth, and all SQL there is.
//!
//! *The database is the truth, a mailbox is a hint, memory is a cache.* Whatever is acknowledged has been
//! committed and forced to the device; whatever is told was committed before. There is one writer, a
//! thread with one connection, fed by two bounded queues; a *group commit* takes what is queued, runs each
//! job in a savepoint of its own, joins all signals into one compressed row, and answers after the commit.
//!
//! * [`Ledger`] is the handle: append signals, write, read, follow.
//! * [`Tx`] is the only thing that can write. It has only typed operations, and those that change audited
//!   state take the actor and write the audit entry themselves: an unaudited change cannot be expressed.
//! * [`Reader`] is the only thing that reads.
//! * [`SignalLog`], [`AlertLog`] and [`EventLog`] are what followers follow, by cursor.

mod actor;
pub mod audit;
mod backup;
mod batch;
mod error;
mod failpoint;
mod frames;
mod keyfile;
mod ledger;
mod lock;
mod logs;
mod marker;
mod metrics;
mod open;
mod options;
mod read;
mod recorded;
mod schema;
mod search;
mod storage;
/// What the alert pipeline reads before it decides, and what it commits.
pub mod pipeline {
    pub use crate::tables::{incidents_state::*, suppression_state::*};
}
pub mod tables;
#[cfg(test)]
mod tests;
mod tokens;
mod tx;
mod writer;

pub use self::{
    actor::AuditActor,
    backup::{BackupReport, RestoreError, RestoreReport, backup, restore, verify},
    batch::{SignalBatch, SignalBatchBuilder},
    error::{FailureReason, LedgerError, OpenError, StorageFailure},
    keyfile::{KeyError, KeyFile, KeyPurpose, kid_of},
    ledger::{Appended, Ledger, Priority},
    lock::{DirLock, LOCK_FILE},
    logs::{AlertEntry, AlertLog, EventEntry, EventLog, SignalLog},
    open::DATABASE,
    options::{FatalHook, Limits, Options, Retention},
    read::{Listed, Page, Reader},
    recorded::Recorded,
    search::{Around, Found, Looked, SearchBudget, SignalFilter, StoredSignal},
    storage::StorageHealth,
    tables::{
        alerts::AlertFilter,
        approvals::{ApprovalFilter, Ballot, Grant, Minted, NewApproval, ProposalLimits, Reissue, Ruled, StoredPlan},
        audit::{AuditFilter, AuditRecord},
        cursors::{CursorRow, DONE, Snapshot},
        dead_letters::DeadLetter,
        decisions::StoredDecision,
        executions::{Consumption, Started, Unfinished},
        explanations::{NewExplanation, StoredExplanation, Unexplained},
        idempotency::{Idempotent, StoredAnswer},
        incidents_list::{Evidence, IncidentDetail, IncidentFilter},
        incidents_record::{ActionRecord, IncidentRecord, Milestones, Vote},
        incidents_stats::{IncidentStats, Tally, Took},
        keys::{KeyOwner, KeyRecord, NewKey, may_have_key},
        kill_switch::KillSwitch,
        outbox::{Leased, MAX_DELIVERY, NewDelivery, Patience, Waiting},
        reloads::CONFIG,
        sessions::SessionRecord,
        shelf::SHELF,
        silences::{ListedSilence, SilenceFilter, SilenceLimits},
        topology::StatedTopology,
        users::{Credentials, NewUser, UserChange, UserRecord},
    },
    tx::Tx,
};
