//! A file system for SQLite that fails on demand, remembers what was synced, and can lie about it.
//!
//! [`FaultVfs::register`] puts it before the system's own under a name of its own; open a database with `?vfs=name`.
//! It lives as long as the process. Tests only: no shipped crate may depend on it.
#![allow(unsafe_code, reason = "SQLite's file system interface is made of C callbacks and raw pointers")]

mod image;
mod shim;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use libsqlite3_sys as ffi;
use parking_lot::Mutex;

use image::{Content, Pending};
pub use image::{Dice, Recording};

/// What can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Bytes are written.
    Write,
    /// Bytes are forced to the device.
    Sync,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No space (`SQLITE_FULL`).
    Full,
    /// An I/O error (`SQLITE_IOERR_WRITE` or `SQLITE_IOERR_FSYNC`, as the operation is).
    Io,
    /// The file system became read-only (`SQLITE_READONLY`).
    ReadOnly,
}

/// One fault: the `nth` operation of its kind from now (the first is 1), and, if it lasts, every later one.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// What fails.
    pub op: Op,
    /// Which one.
    pub nth: u64,
    /// How.
    pub failure: Failure,
    /// Whether it goes on failing until [`FaultVfs::heal`].
    pub lasting: bool,
}

impl Failure {
    fn code(self, op: Op) -> i32 {
        match (self, op) {
            (Failure::Full, _) => ffi::SQLITE_FULL,
            (Failure::ReadOnly, _) => ffi::SQLITE_READONLY,
            (Failure::Io, Op::Write) => ffi::SQLITE_IOERR_WRITE,
            (Failure::Io, Op::Sync) => ffi::SQLITE_IOERR_FSYNC,
        }
    }
}

/// Asked at the moment of a capture; see [`FaultVfs::capture`].
pub type Probe = Box<dyn Fn() -> u64 + Send>;

struct Capture {
    every: u64,
    left: usize,
    seen: u64,
    probe: Probe,
    taken: Vec<(u64, Recording)>,
}

#[derive(Default)]
struct Plan {
    fault: Option<Fault>,
    seen: u64,
    /// Bytes by which files may still grow.
    space: Option<u64>,
    recording: Option<Recording>,
    capture: Option<Capture>,
}

/// The state of one registered file system.
#[derive(Default)]
pub(crate) struct Shared {
    plan: Mutex<Plan>,
    lies: AtomicBool,
    fired: AtomicU64,
    lied: AtomicU64,
    failed_syncs: AtomicU64,
    writes: AtomicU64,
    syncs: AtomicU64,
}

/// A registered file system.
#[derive(Clone)]
pub struct FaultVfs {
    shared: Arc<Shared>,
    name: String,
}

impl std::fmt::Debug for FaultVfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultVfs").field("name", &self.name).field("fired", &self.fired()).finish_non_exhaustive()
    }
}

impl FaultVfs {
    /// Registers a file system that behaves like the system's own until it is told otherwise. `name` must be new.
    pub fn register(name: &str) -> Result<FaultVfs, String> {
        let shared = Arc::new(Shared::default());
        shim::register(name, Arc::clone(&shared))?;
        Ok(FaultVfs { shared, name: name.to_owned() })
    }

    /// The name to open databases with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes an operation fail. Replaces an earlier fault.
    pub fn arm(&self, fault: Fault) {
        let mut plan = self.shared.plan.lock();
        plan.fault = Some(fault);
        plan.seen = 0;
    }

    /// Lets files grow by so many bytes more, all together; then the disk is full.
    pub fn limit_space(&self, bytes: u64) {
        self.shared.plan.lock().space = Some(bytes);
    }

    /// How many bytes files may still grow; everything if that is not limited.
    pub fn space_left(&self) -> u64 {
        self.shared.plan.lock().space.unwrap_or(u64::MAX)
    }

    /// Everything works again.
    pub fn heal(&self) {
        let mut plan = self.shared.plan.lock();
        plan.fault = None;
        plan.space = None;
    }

    /// From now on a sync says that it was done, and does nothing.
    pub fn lie_on_sync(&self) {
        self.shared.lies.store(true, Ordering::SeqCst);
    }

    /// How many operations were made to fail.
    pub fn fired(&self) -> u64 {
        self.shared.fired.load(Ordering::SeqCst)
    }

    /// How many syncs were made to fail: on Linux every descriptor opened before is told of a failed sync, so that a
    /// ledger can ask one of its own; here it must ask this.
    pub fn failed_syncs(&self) -> u64 {
        self.shared.failed_syncs.load(Ordering::SeqCst)
    }

    /// How many syncs were only pretended.
    pub fn lied(&self) -> u64 {
        self.shared.lied.load(Ordering::SeqCst)
    }

    /// How many writes and syncs there were.
    pub fn counts(&self) -> (u64, u64) {
        (self.shared.writes.load(Ordering::SeqCst), self.shared.syncs.load(Ordering::SeqCst))
    }

    /// Remembers from now on what was written and what was synced. Files opened from now on are taken to be safe as
    /// they are; those open already are not known.
    pub fn record(&self) {
        self.shared.plan.lock().recording = Some(Recording::default());
    }

    /// The files as they are at this moment.
    pub fn recording(&self) -> Recording {
        self.shared.plan.lock().recording.clone().unwrap_or_default()
    }

    /// After every `every`th operation keeps what [`FaultVfs::recording`] would say, `limit` times, and what `probe`
    /// says just then: whatever was acknowledged by that moment must survive.
    pub fn capture(&self, every: u64, limit: usize, probe: Probe) {
        self.shared.plan.lock().capture = Some(Capture { every: every.max(1), left: limit, seen: 0, probe, taken: Vec::new() });
    }

    /// What was captured.
    pub fn captured(&self) -> Vec<(u64, Recording)> {
        self.shared.plan.lock().capture.take().map(|capture| capture.taken).unwrap_or_default()
    }
}

impl Plan {
    fn captured(&mut self) {
        let (Some(capture), Some(recording)) = (&mut self.capture, &self.recording) else { return };
        capture.seen += 1;
        if capture.left > 0 && capture.seen % capture.every == 0 {
            capture.left -= 1;
            // First what was promised, then what there is: a promise made in between would not be due yet.
            let promised = (capture.probe)();
            capture.taken.push((promised, recording.clone()));
        }
    }

    fn fails(&mut self, op: Op) -> Option<i32> {
        let fault = self.fault.filter(|fault| fault.op == op)?;
        self.seen += 1;
        let hit = self.seen == fault.nth || (fault.lasting && self.seen > fault.nth);
        hit.then(|| fault.failure.code(op))
    }
}

/// What a write may do.
pub(crate) enum Verdict {
    /// All of it.
    Go,
    /// So many bytes of it, then fail.
    Part(usize, i32),
}

impl Shared {
    pub(crate) fn opened(&self, path: &Path) {
        let mut plan = self.plan.lock();
        if let Some(recording) = &mut plan.recording {
            let content = || Content { synced: std::fs::read(path).unwrap_or_default(), pending: Vec::new() };
            recording.files.entry(path.to_owned()).or_insert_with(content);
        }
    }

    pub(crate) fn deleted(&self, path: &Path) {
        let mut plan = self.plan.lock();
        if let Some(recording) = &mut plan.recording {
            recording.files.remove(path);
        }
        plan.captured();
    }

    /// Before a write of `len` bytes at `at` to a file of `size` bytes.
    pub(crate) fn may_write(&self, at: u64, len: usize, size: u64) -> Verdict {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let mut plan = self.plan.lock();
        if let Some(code) = plan.fails(Op::Write) {
            self.fired.fetch_add(1, Ordering::SeqCst);
            return Verdict::Part(0, code);
        }
        let end = at.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
        let growth = end.saturating_sub(size);
        if let Some(space) = &mut plan.space {
            if growth > *space {
                let fits = end.saturating_sub(growth - *space).saturating_sub(at);
                *space = 0;
                self.fired.fetch_add(1, Ordering::SeqCst);
                return Verdict::Part(usize::try_from(fits).unwrap_or(0).min(len), ffi::SQLITE_FULL);
            }
            *space -= growth;
        }
        Verdict::Go
    }

    pub(crate) fn written(&self, path: &Path, at: u64, data: &[u8]) {
        let mut plan = self.plan.lock();
        if let Some(content) = plan.recording.as_mut().and_then(|recording| recording.files.get_mut(path)) {
            content.pending.push(Pending::Write(usize::try_from(at).unwrap_or(0), data.to_vec()));
        }
        plan.captured();
    }

    pub(crate) fn truncated(&self, path: &Path, len: u64) {
        let mut plan = self.plan.lock();
        if let Some(content) = plan.recording.as_mut().and_then(|recording| recording.files.get_mut(path)) {
            content.pending.push(Pending::Truncate(usize::try_from(len).unwrap_or(0)));
        }
        plan.captured();
    }

    /// Before a sync: the code to fail with, or whether to do it at all.
    pub(crate) fn may_sync(&self) -> Result<bool, i32> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if let Some(code) = self.plan.lock().fails(Op::Sync) {
            self.failed_syncs.fetch_add(1, Ordering::SeqCst);
            self.fired.fetch_add(1, Ordering::SeqCst);
            return Err(code);
        }
        let lies = self.lies.load(Ordering::SeqCst);
        self.lied.fetch_add(u64::from(lies), Ordering::SeqCst);
        Ok(!lies)
    }

    pub(crate) fn synced(&self, path: &Path) {
        let mut plan = self.plan.lock();
        if let Some(content) = plan.recording.as_mut().and_then(|recording| recording.files.get_mut(path)) {
            content.settle();
        }
        plan.captured();
    }
}
