//! What the tests share: a ledger in a directory of its own, a clock set by hand, and signals.

use std::{sync::Arc, time::Duration};

use opspilot_kernel::{
    clock::ManualClock,
    ids::Seq,
    signal::{LogEntry, SignalRef},
    time::Timestamp,
};
use opspilot_ledger::{Ledger, LedgerError, Limits, Options, SignalBatch, SignalBatchBuilder};
use tempfile::TempDir;

pub(crate) const NOON: i64 = 1_795_348_800_000;

pub(crate) fn noon() -> Timestamp {
    Timestamp::from_millis(NOON)
}

pub(crate) struct Rig {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        Rig { dir: tempfile::tempdir().unwrap(), clock: ManualClock::at(noon()) }
    }

    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(self.dir.path().join("data"), self.clock.clone());
        options.limits = Limits {
            idle_after: Duration::from_millis(5),
            probe_every: Duration::from_millis(10),
            reserve_bytes: 1 << 16,
            headroom_bytes: 1 << 16,
            heal_after: Duration::ZERO,
            ..Limits::default()
        };
        options
    }

    pub(crate) fn open(&self) -> Ledger {
        Ledger::open(self.options()).unwrap()
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }
}

pub(crate) fn batch_of<'a>(signals: impl IntoIterator<Item = SignalRef<'a>>) -> SignalBatch {
    let mut builder = SignalBatchBuilder::new(noon());
    signals.into_iter().for_each(|signal| builder.push(&signal));
    builder.seal()
}

pub(crate) fn lines(source: &str, from: u32, count: u32) -> SignalBatch {
    let texts: Vec<String> = (from..from + count).map(|n| format!("line {n} of the story, request_{n} took {} ms", n % 97)).collect();
    batch_of(texts.iter().map(|text| SignalRef::log(noon(), source, text)))
}

/// Every signal of the log in order: number and text.
pub(crate) fn messages(ledger: &Ledger) -> Vec<(Seq, String)> {
    let mut all = Vec::new();
    let mut after = 0;
    loop {
        let entries = ledger.signals().next(after, 1 << 20).unwrap();
        let Some(last) = entries.last() else { return all };
        after = last.last_seq();
        for entry in entries {
            if let LogEntry::Batch(block) = entry {
                all.extend(block.iter().map(|(seq, record)| (seq, record.decode().unwrap().message.to_owned())));
            }
        }
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Holds the writer up inside a job until the returned sender is used or dropped.
pub(crate) fn hold_writer(ledger: &Ledger) -> std::sync::mpsc::Sender<()> {
    let (let_go, held) = std::sync::mpsc::channel::<()>();
    let (entered, inside) = std::sync::mpsc::channel::<()>();
    drop(ledger.write(opspilot_ledger::Priority::Control, move |_| {
        entered.send(()).unwrap();
        // an error means that the sender was dropped: let go as well
        assert!(held.recv().is_ok() || held.try_recv().is_err());
        Ok::<(), LedgerError>(())
    }));
    inside.recv().unwrap();
    let_go
}
