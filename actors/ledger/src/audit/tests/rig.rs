//! A ledger on disk whose log is signed.

use std::path::{Path, PathBuf};

use diesel::{connection::SimpleConnection, prelude::*};
use opspilot_kernel::{clock::ManualClock, principal::Actor, time::Timestamp};
use tempfile::TempDir;

use crate::{
    DATABASE, Ledger, LedgerError, Options, Priority, Tx,
    audit::{
        AuditData, CheckpointError, Report,
        note::{PublicKey, SignedNote},
    },
};

pub(super) struct Rig {
    pub(super) dir: TempDir,
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A job that puts `count` entries on record.
fn entries(count: u32) -> impl FnOnce(&mut Tx<'_>) -> Result<(), LedgerError> + Send + 'static {
    move |tx| (0..count).try_for_each(|n| tx.module_switched(&Actor::System, &format!("m{n}"), true))
}

pub(super) fn write(ledger: &Ledger, count: u32) {
    ledger.write_blocking(Priority::Control, entries(count)).unwrap();
}

pub(super) fn queue(ledger: &Ledger, count: u32) {
    drop(ledger.write(Priority::Control, entries(count)));
}

pub(super) fn checkpoint(ledger: &Ledger) -> Result<SignedNote, CheckpointError> {
    runtime().block_on(ledger.checkpoint("test"))
}

impl Rig {
    pub(super) fn new() -> Rig {
        Rig { dir: tempfile::tempdir().unwrap() }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(super) fn options(&self) -> Options {
        Options::new(self.data(), ManualClock::at(Timestamp::from_millis(1_795_348_800_000)))
    }

    /// A ledger whose log is signed.
    pub(super) fn open(&self) -> Ledger {
        let ledger = Ledger::open(self.options()).unwrap();
        runtime().block_on(ledger.open_audit_key()).unwrap();
        runtime().block_on(ledger.recover_checkpoints()).unwrap();
        ledger
    }

    pub(super) fn audit_data(&self) -> AuditData {
        AuditData::open(&self.data(), self.options().clock).unwrap()
    }

    pub(super) fn own_key(&self) -> Vec<PublicKey> {
        self.audit_data().own_key().into_iter().collect()
    }

    pub(super) fn verify(&self) -> Report {
        let keys = self.own_key();
        self.audit_data().verify(keys, Vec::new(), |_, _| {}).unwrap()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.data().join(name)
    }

    pub(super) fn sql(&self) -> SqliteConnection {
        let mut conn = SqliteConnection::establish(self.file(DATABASE).to_str().unwrap()).unwrap();
        let triggers: Vec<String> =
            diesel::dsl::sql::<diesel::sql_types::Text>("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'audit%'")
                .load(&mut conn)
                .unwrap();
        assert!(triggers.len() >= 8, "{triggers:?}");
        for name in triggers {
            conn.batch_execute(&format!("DROP TRIGGER {name}")).unwrap();
        }
        conn
    }

    pub(super) fn export(&self) -> Vec<u8> {
        let mut data = self.audit_data();
        let key = data.own_key();
        let (mut bytes, mut cursor) = data.read(|reader| reader.audit_export_begin(key.as_ref())).unwrap();
        while let Some((part, next)) = data.read(|reader| reader.audit_export_part(&cursor)).unwrap() {
            bytes.extend(part);
            cursor = next;
        }
        bytes
    }
}

/// Copies the files of a data directory.
pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(file.file_name());
        if file.path().is_dir() { copy(&file.path(), &target) } else { assert!(std::fs::copy(file.path(), target).is_ok()) }
    }
}
