//! The engine over real files: every way in which a log can be rotated, and a reader killed.

mod files;
mod kills;
mod lines;
mod rotation;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use opspilot_kernel::{clock::ManualClock, signal::Severity, time::Timestamp};

use super::{
    config::{Config, FileConfig},
    engine::{Engine, Saving},
};

/// What a consumer sees of a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) source: String,
    pub(super) file: String,
    pub(super) severity: Severity,
    pub(super) at: Timestamp,
}

/// A ledger reduced to what matters here: lines and checkpoints that are stored together or not at all.
pub(super) struct Rig {
    pub(super) dir: tempfile::TempDir,
    pub(super) clock: Arc<ManualClock>,
    pub(super) config: Config,
    pub(super) engine: Engine,
    pub(super) stored: BTreeMap<String, Vec<u8>>,
    pub(super) lines: Vec<Line>,
}

pub(super) const NOW: i64 = 1_795_348_800_000;

impl Rig {
    pub(super) fn new(pattern: &str, adjust: impl FnOnce(&mut Config)) -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(pattern).display().to_string();
        let mut config = Config { files: vec![FileConfig::of(path)], ..Config::default() };
        adjust(&mut config);
        let clock = ManualClock::at(Timestamp::from_millis(NOW));
        let engine = Engine::new(config.clone(), Vec::new(), clock.clone());
        Rig { dir, clock, config, engine, stored: BTreeMap::new(), lines: Vec::new() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes.as_ref()).unwrap();
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// One step, stored; or lost, as if the process had been killed before the commit.
    pub(super) fn step(&mut self, survives: bool) -> bool {
        let mut lines = Vec::new();
        let step = self.engine.step(&mut |signal| {
            lines.push(Line {
                text: signal.message.to_owned(),
                source: signal.source.to_owned(),
                file: signal.labels.get("file").unwrap().to_owned(),
                severity: signal.severity,
                at: signal.at,
            });
        });
        if survives {
            self.lines.extend(lines);
            for (key, blob) in step.savings {
                if blob.is_empty() {
                    self.stored.remove(&key)
                } else {
                    self.stored.insert(key, blob)
                };
            }
        } else {
            self.restart();
        }
        step.more
    }

    /// Reads all there is.
    pub(super) fn read(&mut self) -> Vec<String> {
        let before = self.lines.len();
        let mut steps = 0;
        while self.step(true) {
            steps += 1;
            assert!(steps < 10_000, "never comes to an end");
        }
        self.lines[before..].iter().map(|line| line.text.clone()).collect()
    }

    pub(super) fn after(&mut self, span: Duration) -> Vec<String> {
        self.clock.advance(span);
        self.read()
    }

    pub(super) fn restart(&mut self) {
        let stored: Vec<Saving> = self.stored.clone().into_iter().collect();
        self.engine = Engine::new(self.config.clone(), stored, self.clock.clone());
    }

    pub(super) fn texts(&self) -> Vec<&str> {
        self.lines.iter().map(|line| line.text.as_str()).collect()
    }
}

pub(super) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A line long enough that a copy of a file is recognised by it.
pub(super) fn long(number: usize) -> String {
    format!("{number:04} the quick brown fox jumps over the lazy dog and back again, forty times\n")
}
