//! The signals of a data directory, or of a copy of its database, read by somebody who must leave no trace there.

use std::path::{Path, PathBuf};

use diesel::prelude::*;
use opspilot_kernel::{
    clock::{SharedClock, SystemClock},
    ids::Seq,
    signal::LogEntry,
};

use crate::{
    audit::data::connect,
    error::LedgerError,
    open::{DATABASE, url_of},
    read::Reader,
    tables,
};

/// Recorded signals, up to the last that there was when they were opened.
pub struct Recorded {
    conn: SqliteConnection,
    clock: SharedClock,
    head: Seq,
    after: Seq,
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded").field("head", &self.head).field("after", &self.after).finish_non_exhaustive()
    }
}

impl Recorded {
    /// Opens a data directory or the file of a backup, for reading alone. Works beside a running service: nothing is held
    /// up for longer than one read takes, and nothing but SQLite's own index of who reads (`-shm`) is touched. Where no
    /// service runs and the last one stopped in order, nothing at all is.
    pub fn open(path: &Path) -> Result<Recorded, LedgerError> {
        let file: PathBuf = if path.is_dir() { path.join(DATABASE) } else { path.to_owned() };
        if !file.is_file() {
            return Err(LedgerError::NotFound(format!("the database {}", file.display())));
        }
        let mut wal = file.clone().into_os_string();
        wal.push("-wal");
        // without a write-ahead log nobody writes, and no file needs to be made beside the database
        let quiet = std::fs::metadata(&wal).map_or(0, |meta| meta.len()) == 0;
        let mut conn = connect(&format!("{}?{}", url_of(&file, None), if quiet { "immutable=1" } else { "mode=ro" }))?;
        let head = tables::signals::head(&mut conn)?;
        Ok(Recorded { conn, clock: SystemClock::shared(), head, after: 0 })
    }

    /// The number of the last signal.
    pub fn head(&self) -> Seq {
        self.head
    }

    /// The entries that follow, about `max_bytes` of them; none at the end.
    pub fn next(&mut self, max_bytes: usize) -> Result<Vec<LogEntry>, LedgerError> {
        let (after, clock) = (self.after, &self.clock);
        if after >= self.head {
            return Ok(Vec::new());
        }
        let mut entries = self.conn.transaction(|conn| Reader { conn, clock }.signal_entries(after, max_bytes))?;
        entries.retain(|entry| entry.first_seq() <= self.head);
        self.after = entries.last().map_or(self.head, LogEntry::last_seq);
        Ok(entries)
    }
}
