//! Learns edges from the signal log.
//!
//! What it knows it gives as one snapshot for each edge, stored together with the cursor. When an edge was seen is kept
//! with a grain, so that an edge which is seen all the time is written once in a while.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use opspilot_kernel::{alert::AlertRecord, signal::LogEntry, time::Timestamp, topology::Seen};
use opspilot_ledger::Snapshot;
use opspilot_runtime::{Consumer, RestoreError};

use super::{
    config::Config,
    evidence::{Evidence, Pair},
    ground::Ground,
    learned::{Learned, Look},
    metrics::Forgotten,
};

/// What one call for snapshots may give.
const SNAPSHOT_BYTES: usize = 1 << 20;
/// What divides the parts of a key; no name has it.
const DIVIDER: char = '\t';
/// What the key of an edge begins with.
const EDGE: &str = "edge";

/// Reads signals and keeps what they show.
pub(super) struct Learner {
    ground: Arc<Ground>,
    log: slog::Logger,
    evidence: Evidence,
    forget_after: Duration,
    grain: Duration,
    learned: Learned,
    /// Edges that are not stored as they are now.
    unsaved: BTreeSet<Pair>,
    /// There are edges that the graph does not show, or shows and are gone.
    changed: bool,
    /// The latest time that the log showed, and at which of them the graph was shown last.
    now: Timestamp,
    shown: Timestamp,
}

fn key(pair: &Pair) -> String {
    format!("{EDGE}{DIVIDER}{}{DIVIDER}{}", pair.0, pair.1)
}

fn body(seen: Seen) -> Vec<u8> {
    [seen.first, seen.last].into_iter().flat_map(|time| time.millis().to_le_bytes()).collect()
}

/// A stored edge; none if it is not one.
pub(super) fn stored(snapshot: &Snapshot) -> Option<(Pair, Seen)> {
    let mut parts = snapshot.key.split(DIVIDER);
    let (EDGE, from, to, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else { return None };
    let pair = (from.parse().ok()?, to.parse().ok()?);
    let (first, last) = snapshot.blob.split_first_chunk::<8>()?;
    let time = |bytes: [u8; 8]| Timestamp::from_millis(i64::from_le_bytes(bytes));
    Some((pair, Seen { first: time(*first), last: time(last.try_into().ok()?) }))
}

impl Learner {
    pub(super) fn new(ground: Arc<Ground>, log: slog::Logger) -> Learner {
        let config: Arc<Config> = ground.config();
        Learner {
            evidence: Evidence::new(&config),
            forget_after: config.forget_after.0,
            grain: config.grain(),
            ground,
            log,
            learned: Learned::default(),
            unsaved: BTreeSet::new(),
            changed: false,
            now: Timestamp::ZERO,
            shown: Timestamp::ZERO,
        }
    }

    fn saw(&mut self, pair: Pair) {
        match self.learned.see(&pair, self.now, self.grain) {
            Look::New => {
                self.ground.metrics.learned();
                self.changed = true;
            }
            Look::Fresher => {}
            Look::Nothing => return,
        }
        self.unsaved.insert(pair);
    }

    /// Forgets what was not seen for long enough, and what there is no room for.
    fn forget(&mut self) {
        let (until, room) = (self.now.before(self.forget_after), self.ground.room());
        loop {
            let (pair, why) = match self.learned.expire(until) {
                Some(pair) => (pair, Forgotten::Age),
                None => match self.learned.evict(room) {
                    Some(pair) => (pair, Forgotten::Bound),
                    None => return,
                },
            };
            self.ground.metrics.forgotten(why);
            self.changed = true;
            self.unsaved.insert(pair);
        }
    }

    /// Shows the graph with what was learned: at once if there are other edges, with the grain if they are only fresher.
    fn show(&mut self) {
        if self.changed || self.now >= self.shown.after(self.grain) {
            self.ground.learn(self.learned.edges().clone());
            (self.changed, self.shown) = (false, self.now);
        }
    }
}

impl Consumer for Learner {
    type Entry = LogEntry;
    /// It claims nothing.
    type Output = AlertRecord;

    fn restore(&mut self, snapshots: Vec<Snapshot>) -> Result<(), RestoreError> {
        for snapshot in snapshots {
            match stored(&snapshot) {
                Some((pair, seen)) => self.learned.put(pair, seen),
                // one edge less is better than no graph; if it is still there, signals will show it again
                None => slog::warn!(self.log, "an edge that was stored cannot be read and is left out"; "key" => snapshot.key),
            }
        }
        self.ground.learn(self.learned.edges().clone());
        Ok(())
    }

    fn consume(&mut self, entry: &LogEntry, _: &mut Vec<AlertRecord>) {
        let at = match entry {
            LogEntry::Tick { at, .. } | LogEntry::Reload { at, .. } => *at,
            LogEntry::Batch(block) => block.received_at,
        };
        self.now = self.now.max(at);
        // before anything is looked at: what is too old by now begins anew if it is seen, wherever a batch was cut
        self.forget();
        let LogEntry::Batch(block) = entry else { return };
        let mut seen = Vec::new();
        for (_, record) in block.iter() {
            // what is damaged is the detectors' to tell of
            if let Ok(signal) = record.decode() {
                self.evidence.of(&signal, |pair| seen.push(pair));
            }
            for pair in seen.drain(..) {
                self.saw(pair);
                self.forget();
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        // a little later than the oldest is due, so that those of one time go together
        self.learned.oldest().map(|last| last.after(self.forget_after).after(self.grain))
    }

    fn changed(&mut self) -> Vec<Snapshot> {
        self.show();
        let (mut part, mut bytes) = (Vec::new(), 0_usize);
        while let Some(pair) = self.unsaved.pop_first() {
            let blob = self.learned.seen(&pair).map(body).unwrap_or_default();
            let snapshot = Snapshot { key: key(&pair), blob };
            bytes = bytes.saturating_add(snapshot.key.len()).saturating_add(snapshot.blob.len());
            part.push(snapshot);
            if bytes >= SNAPSHOT_BYTES / 2 {
                break;
            }
        }
        part
    }
}
