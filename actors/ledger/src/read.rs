//! Reading: pooled connections that cannot write, used for short transactions.

use std::sync::{Arc, OnceLock, Weak};

use diesel::{
    connection::SimpleConnection,
    prelude::*,
    r2d2::{ConnectionManager, CustomizeConnection, Pool},
};
use opspilot_kernel::clock::SharedClock;
use tokio::sync::Semaphore;

use crate::{
    error::{FailureReason, LedgerError, StorageFailure},
    ledger::Shared,
    options::Limits,
};

/// Which part of a list is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// At most so many items; the caller has checked the bound of the API.
    pub limit: usize,
    /// What the previous page gave as `next_cursor`.
    pub cursor: Option<String>,
}

impl Page {
    /// The first `limit` items.
    pub fn first(limit: usize) -> Page {
        Page { limit, cursor: None }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next part begins; `None` at the end.
    pub next_cursor: Option<String>,
}

/// A connection that cannot write, in one read transaction: all queries see the same state.
pub struct Reader<'a> {
    pub(crate) conn: &'a mut SqliteConnection,
    pub(crate) clock: &'a SharedClock,
}

impl std::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Prepare {
    busy_ms: u128,
}

impl CustomizeConnection<SqliteConnection, diesel::r2d2::Error> for Prepare {
    fn on_acquire(&self, conn: &mut SqliteConnection) -> Result<(), diesel::r2d2::Error> {
        let settings = format!(
            "PRAGMA busy_timeout={}; PRAGMA query_only=1; PRAGMA trusted_schema=0; PRAGMA mmap_size=0; PRAGMA foreign_keys=1;",
            self.busy_ms
        );
        conn.batch_execute(&settings).map_err(diesel::r2d2::Error::QueryError)
    }
}

/// The pool of reading connections.
#[derive(Clone)]
pub(crate) struct ReadPool {
    pool: Pool<ConnectionManager<SqliteConnection>>,
    permits: Arc<Semaphore>,
    clock: SharedClock,
    wait: std::time::Duration,
    /// Who must know when a reader meets damage.
    owner: Arc<OnceLock<Weak<Shared>>>,
}

impl std::fmt::Debug for ReadPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadPool").field("state", &self.pool.state()).finish_non_exhaustive()
    }
}

impl ReadPool {
    /// A pool over `url`. No connection is opened yet.
    pub(crate) fn new(url: &str, limits: &Limits, clock: SharedClock) -> ReadPool {
        let readers = limits.readers.max(1);
        let pool = Pool::builder()
            .max_size(readers)
            .min_idle(Some(0))
            .idle_timeout(Some(std::time::Duration::from_secs(60)))
            .max_lifetime(None)
            .test_on_check_out(false)
            .connection_timeout(limits.read_wait)
            .error_handler(Box::new(diesel::r2d2::NopErrorHandler))
            .connection_customizer(Box::new(Prepare { busy_ms: limits.busy_timeout.as_millis() }))
            .build_unchecked(ConnectionManager::new(url));
        let permits = Arc::new(Semaphore::new(usize::try_from(readers).unwrap_or(1)));
        ReadPool { pool, permits, clock, wait: limits.read_wait, owner: Arc::default() }
    }

    /// From now on damage that a reader meets is storage's failure.
    pub(crate) fn tell_damage_to(&self, owner: &Arc<Shared>) {
        // set once, when the ledger is opened
        drop(self.owner.set(Arc::downgrade(owner)));
    }

    /// SQLite contradicts itself: that concerns everybody, and not only who asked.
    fn met(&self, error: &LedgerError) {
        if let Some(failure) = error.storage().filter(|failure| failure.reason == FailureReason::Damaged)
            && let Some(owner) = self.owner.get().and_then(Weak::upgrade)
        {
            owner.fail(failure);
        }
    }

    /// Runs a query in the caller's thread.
    pub(crate) fn read_blocking<T>(&self, query: impl FnOnce(&mut Reader<'_>) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let mut conn = self.pool.get().map_err(|error| match self.pool.state() {
            state if state.connections >= self.pool.max_size() && state.idle_connections == 0 => LedgerError::Busy,
            _ => StorageFailure::new(FailureReason::Io, error.to_string()).into(),
        })?;
        let clock = &self.clock;
        let answer = conn.transaction(|conn| query(&mut Reader { conn, clock }));
        answer.inspect_err(|error| self.met(error))
    }

    /// Runs a query on a blocking thread; at most as many at once as there are connections.
    pub(crate) async fn read<T: Send + 'static>(
        self,
        query: impl FnOnce(&mut Reader<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let permit = tokio::time::timeout(self.wait, self.permits.clone().acquire_owned()).await;
        let permit = permit.map_err(|_| LedgerError::Busy)?.map_err(|_| LedgerError::stopped())?;
        let answer = tokio::task::spawn_blocking(move || {
            let answer = self.read_blocking(query);
            drop(permit);
            answer
        });
        answer.await.map_err(|error| if error.is_panic() { LedgerError::Panicked } else { LedgerError::stopped() })?
    }
}
