//! Detectors, driven over a recording.
//!
//! Time is the recording's. Before each entry a tick is given for every timer that is due by then, never two within 250 ms,
//! as the service's own ticker does. Ticks take no number of their own: signals are numbered by the recording alone, so that
//! two configurations, whose timers differ, see the same signals under the same numbers.

use std::time::Duration;

use opspilot_detectors::offline;
use opspilot_kernel::{alert::AlertRecord, ids::Seq, module::ModuleId, signal::LogEntry, time::Timestamp};
use opspilot_runtime::Offline;

use crate::config::Config;

/// As `core.ticker` has it.
const AT_MOST_EVERY: Duration = Duration::from_millis(250);
/// Ticks between two entries; behind so many, time is passed over.
const MOST_TICKS: u32 = 1_000_000;

/// Whoever hears what detectors say.
pub(crate) trait Hears {
    /// A record of the alert log.
    fn record(&mut self, record: AlertRecord);
    /// Time passed.
    fn tick(&mut self, _at: Timestamp) {}
    /// When it needs to be told of time.
    fn next_due(&self) -> Option<Timestamp> {
        None
    }
}

struct Driven {
    id: ModuleId,
    detector: Box<dyn Offline>,
    due: Option<Timestamp>,
}

/// Detectors and the time they are at.
pub(crate) struct Drive<H> {
    detectors: Vec<Driven>,
    /// Who hears them.
    pub(crate) hears: H,
    now: Timestamp,
    ticked: Option<Timestamp>,
    seq: Seq,
    out: Vec<AlertRecord>,
    /// How late a timer may be served: a recorded log has ticks of its own, a little behind their time.
    grace: Duration,
    /// Whether time was passed over because there were too many timers.
    pub(crate) hurried: bool,
}

impl<H: Hears> Drive<H> {
    /// Drives these detectors.
    pub(crate) fn new(detectors: Vec<(ModuleId, Box<dyn Offline>)>, hears: H, grace: Duration) -> Drive<H> {
        let detectors = detectors.into_iter().map(|(id, detector)| Driven { id, detector, due: None }).collect();
        let (now, ticked) = (Timestamp::ZERO, None);
        Drive { detectors, hears, now, ticked, seq: 0, out: Vec::new(), grace, hurried: false }
    }

    /// Gives the next entry, which was received at `at`.
    pub(crate) fn feed(&mut self, entry: &LogEntry, at: Timestamp) {
        self.pass(at);
        self.now = self.now.max(at);
        self.seq = entry.last_seq();
        self.give(entry);
        if let LogEntry::Tick { at, .. } = entry {
            self.ticked = Some(*at);
            self.hears.tick(*at);
        }
    }

    fn give(&mut self, entry: &LogEntry) {
        for driven in &mut self.detectors {
            driven.detector.consume(entry, &mut self.out);
            driven.due = driven.detector.next_due();
            for record in self.out.drain(..) {
                self.hears.record(record);
            }
        }
    }

    /// Serves every timer that is due before `until`.
    pub(crate) fn pass(&mut self, until: Timestamp) {
        for _ in 0..MOST_TICKS {
            let detectors = self.detectors.iter().filter_map(|driven| driven.due);
            let Some(due) = detectors.chain(self.hears.next_due()).min() else { return };
            let least = self.ticked.map_or(self.now, |ticked| ticked.after(AT_MOST_EVERY).max(self.now));
            let at = due.max(least);
            if at.after(self.grace) >= until {
                return;
            }
            self.now = at;
            self.ticked = Some(at);
            self.give(&LogEntry::Tick { seq: self.seq, at });
            self.hears.tick(at);
        }
        self.hurried = true;
    }

    /// What each detector counted that a person should know of.
    pub(crate) fn counted(&self) -> Vec<(&'static str, Vec<(&'static str, u64)>)> {
        self.detectors.iter().map(|driven| (driven.id.as_str(), driven.detector.counted())).collect()
    }
}

/// A detector and its name.
pub(crate) type Named = (ModuleId, Box<dyn Offline>);

/// The detectors that a configuration has switched on.
pub(crate) fn detectors(config: &Config) -> Result<Vec<Named>, String> {
    let mut made = Vec::new();
    for entry in opspilot_detectors::MODULES.iter().filter(|entry| entry.offline.is_some()) {
        let Some(settings) = config.modules.get(&entry.id).filter(|settings| settings.enabled) else { continue };
        let detector = offline(entry.id.as_str(), settings.config.clone()).map_err(|error| format!("{}: {error}", entry.id))?;
        made.push((entry.id, detector));
    }
    Ok(made)
}
