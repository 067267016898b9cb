//! Episodes: from a condition's first observation to its end, and what is said in between.
//!
//! * The first observation fires at once.
//! * Those within the cooldown are counted and reported as repeats, at most one a second. A repeat
//!   bears the receipt time of its newest observation, however late it is told, so that whoever
//!   reads it can tell what came after a person resolved the incident from what came before.
//! * One after the cooldown fires again, in the same episode. One that is worse than everything
//!   before fires at once.
//! * The end is said by whoever observes it, or comes when nothing was observed for long enough.
//!
//! All times are the log's own (receipt of the block, or the tick), never the machine's clock, and
//! nothing depends on where the log was cut into blocks.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use opspilot_kernel::{
    alert::{AlertRecord, Observation, ResolvedBy, Transition},
    fingerprint::Fingerprint,
    ids::{AlertId, Seq},
    signal::Severity,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::{deadlines::Deadlines, evidence::Sample, state::Change};

/// Records about one fingerprint that only count are at least this far apart.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Evidence that waits for its record; beyond this, further observations are only counted.
const SAMPLE_BYTES: usize = 8 << 20;
/// Titles, descriptions and labels of open episodes; beyond this, one has to go for each that comes.
const FACE_BYTES: usize = 64 << 20;

/// What people are told about a condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Face {
    pub(crate) rule: String,
    pub(crate) source: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) severity: Severity,
    pub(crate) labels: BTreeMap<String, String>,
    /// Alone it opens no incident.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) supports: bool,
}

impl Face {
    fn bytes(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        256 + self.rule.len() + self.source.len() + self.title.len() + self.description.len() + labels
    }
}

/// How a rule's episodes behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// How long after firing an observation only counts.
    pub(crate) cooldown: Duration,
    /// How long without an observation ends the episode; not looked at where episodes do not expire.
    pub(crate) resolve_after: Duration,
    /// Changes when the rule means something else.
    pub(crate) digest: u64,
}

/// One observation of a condition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) at: Timestamp,
    pub(crate) logged_at: Timestamp,
    pub(crate) seq: Seq,
    pub(crate) severity: Severity,
}

/// A place in the log and the time there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Episode {
    alert: AlertId,
    digest: u64,
    face: Face,
    worst: Severity,
    last: Last,
    /// Log time of the previous record, and of the previous firing one.
    recorded_at: Timestamp,
    fired_at: Timestamp,
    /// Log time at which silence ends it; where episodes do not expire, only an order to evict by.
    quiet_at: Timestamp,
    /// Observations since the previous record, and a sample of them.
    pending: u64,
    sample: Sample,
    #[serde(skip)]
    entered: Entered,
}

/// The newest observation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Last {
    seq: Seq,
    at: Timestamp,
    /// When it was received; what is said of it later bears this time, so that nobody takes it for newer.
    #[serde(default)]
    logged_at: Timestamp,
}

impl Episode {
    /// Silence ends it by these terms. They may be others than when it was last observed, and then hold for it, too.
    fn wait_by(&mut self, terms: Terms) {
        // state stored before receipt times were kept has none, and keeps its deadline
        if self.last.logged_at > Timestamp::ZERO {
            self.quiet_at = self.last.logged_at.after(terms.resolve_after);
        }
    }
}

/// Where the episode stands in the indexes; not part of its state.
#[derive(Debug, Clone, Default)]
struct Entered {
    report: Option<Timestamp>,
    quiet: Option<Timestamp>,
}

impl PartialEq for Entered {
    fn eq(&self, _: &Entered) -> bool {
        true
    }
}

/// What became of an observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Started,
    FiredAgain,
    Counted,
}

/// The open episodes of one module.
#[derive(Debug)]
pub(crate) struct Episodes {
    detected_by: &'static str,
    /// How many may be open; when one more starts, the one that would end first is ended.
    max: usize,
    /// Whether silence ends an episode.
    expires: bool,
    open: HashMap<u64, Episode>,
    report: Deadlines,
    quiet: Deadlines,
    sample_bytes: usize,
    face_bytes: usize,
    evicted: u64,
    /// Restored episodes whose rule is gone or means something else; ended with the next entry.
    orphans: BTreeMap<u64, Episode>,
    dirty: HashSet<u64>,
}

impl Episodes {
    pub(crate) fn new(detected_by: &'static str, max: usize, expires: bool) -> Episodes {
        Episodes {
            detected_by,
            max: max.max(1),
            expires,
            open: HashMap::new(),
            report: Deadlines::default(),
            quiet: Deadlines::default(),
            sample_bytes: 0,
            face_bytes: 0,
            evicted: 0,
            orphans: BTreeMap::new(),
            dirty: HashSet::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// What the faces of open episodes take.
    pub(crate) fn bytes(&self) -> usize {
        self.face_bytes
    }

    pub(crate) fn is_full(&self) -> bool {
        self.open.len() >= self.max
    }

    /// How many were ended early because there were too many.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(crate) fn is_open(&self, fingerprint: Fingerprint) -> bool {
        self.open.contains_key(&fingerprint.as_u64())
    }

    /// Who observed the open episode.
    pub(crate) fn source_of(&self, fingerprint: Fingerprint) -> Option<&str> {
        self.open.get(&fingerprint.as_u64()).map(|episode| episode.face.source.as_str())
    }

    /// Counts an observation and says what is to be said; `face` is asked only when something fires.
    pub(crate) fn observe(
        &mut self,
        seen: Seen,
        terms: Terms,
        observation: impl FnOnce() -> Option<Observation>,
        face: impl FnOnce() -> Face,
        out: &mut Vec<AlertRecord>,
    ) -> Outcome {
        let key = seen.fingerprint.as_u64();
        self.dirty.insert(key);
        let now = seen.logged_at;
        let Some(episode) = self.open.get_mut(&key) else {
            self.start(seen, terms, observation(), face(), out);
            return Outcome::Started;
        };
        // a clock that was set back must not leave the episode waiting for a time long gone
        episode.recorded_at = episode.recorded_at.min(now);
        episode.fired_at = episode.fired_at.min(now);
        episode.last = Last { seq: seen.seq, at: seen.at, logged_at: now };
        episode.pending = episode.pending.saturating_add(1);
        episode.digest = terms.digest;
        if self.sample_bytes < SAMPLE_BYTES
            && let Some(observation) = observation()
        {
            let before = episode.sample.bytes();
            episode.sample.push(observation);
            self.sample_bytes = self.sample_bytes.saturating_add(episode.sample.bytes()).saturating_sub(before);
        }
        episode.wait_by(terms);
        self.quiet.set(key, &mut episode.entered.quiet, episode.quiet_at);

        let cooled = now > episode.fired_at && now.since(episode.fired_at) >= terms.cooldown;
        if cooled || seen.severity > episode.worst {
            self.face_bytes = self.face_bytes.saturating_sub(episode.face.bytes());
            episode.face = face();
            self.face_bytes = self.face_bytes.saturating_add(episode.face.bytes());
            episode.worst = episode.worst.max(seen.severity);
            episode.fired_at = now;
            self.say(key, Transition::Firing, now, out);
            return Outcome::FiredAgain;
        }
        if now.since(episode.recorded_at) >= REPORT_EVERY {
            self.say(key, Transition::Repeat, now, out);
        } else {
            let due = episode.recorded_at.after(REPORT_EVERY);
            self.report.set(key, &mut episode.entered.report, due);
        }
        Outcome::Counted
    }

    fn start(&mut self, seen: Seen, terms: Terms, observation: Option<Observation>, face: Face, out: &mut Vec<AlertRecord>) {
        let key = seen.fingerprint.as_u64();
        let now = seen.logged_at;
        let incoming = face.bytes();
        while self.open.len() >= self.max || (self.face_bytes.saturating_add(incoming) > FACE_BYTES && !self.open.is_empty()) {
            self.evict(Moment { seq: seen.seq, at: now }, out);
        }
        let alert = AlertId::derived(&[&face.rule, &seen.fingerprint.to_string(), &seen.seq.to_string()]);
        let mut episode = Episode {
            alert,
            digest: terms.digest,
            worst: seen.severity,
            last: Last { seq: seen.seq, at: seen.at, logged_at: now },
            recorded_at: now,
            fired_at: now,
            quiet_at: now.after(terms.resolve_after),
            pending: 1,
            sample: Sample::default(),
            entered: Entered::default(),
            face,
        };
        if let Some(observation) = observation {
            episode.sample.push(observation);
        }
        self.admit(key, episode);
        self.say(key, Transition::Firing, now, out);
    }

    /// Puts an episode among the open ones, with its deadlines.
    fn admit(&mut self, key: u64, mut episode: Episode) {
        self.quiet.set(key, &mut episode.entered.quiet, episode.quiet_at);
        if episode.pending > 0 {
            self.report.set(key, &mut episode.entered.report, episode.recorded_at.after(REPORT_EVERY));
        }
        self.face_bytes = self.face_bytes.saturating_add(episode.face.bytes());
        self.sample_bytes = self.sample_bytes.saturating_add(episode.sample.bytes());
        self.open.insert(key, episode);
    }

    /// Says what has been observed since the previous record.
    fn say(&mut self, key: u64, transition: Transition, now: Timestamp, out: &mut Vec<AlertRecord>) {
        let Some(episode) = self.open.get_mut(&key) else { return };
        self.report.clear(key, &mut episode.entered.report);
        self.sample_bytes = self.sample_bytes.saturating_sub(episode.sample.bytes());
        // state stored before receipt times were kept has none; it is never before the previous record
        let recorded_at = std::mem::replace(&mut episode.recorded_at, now);
        let count = std::mem::take(&mut episode.pending);
        let evidence = episode.sample.take();
        let Last { seq, at, logged_at } = episode.last;
        let logged_at = logged_at.max(recorded_at);
        let spoken = Spoken { transition, resolved_by: None, at, logged_at, seq, count, evidence };
        out.push(record(self.detected_by, key, episode, spoken));
    }

    /// Ends an episode; what was counted and not yet said is said first. False if there is none.
    pub(crate) fn resolve(
        &mut self,
        fingerprint: Fingerprint,
        by: ResolvedBy,
        at: Timestamp,
        moment: Moment,
        out: &mut Vec<AlertRecord>,
    ) -> bool {
        self.end(fingerprint.as_u64(), by, None, at, moment, out)
    }

    /// The same, saying why in place of the description.
    pub(crate) fn resolve_because(
        &mut self,
        fingerprint: Fingerprint,
        by: ResolvedBy,
        why: &str,
        at: Timestamp,
        moment: Moment,
        out: &mut Vec<AlertRecord>,
    ) -> bool {
        self.end(fingerprint.as_u64(), by, Some(why), at, moment, out)
    }

    fn end(&mut self, key: u64, by: ResolvedBy, why: Option<&str>, at: Timestamp, moment: Moment, out: &mut Vec<AlertRecord>) -> bool {
        if self.open.get(&key).is_some_and(|episode| episode.pending > 0) {
            self.say(key, Transition::Repeat, moment.at, out);
        }
        let Some(mut episode) = self.open.remove(&key) else { return false };
        self.dirty.insert(key);
        self.report.clear(key, &mut episode.entered.report);
        self.quiet.clear(key, &mut episode.entered.quiet);
        self.face_bytes = self.face_bytes.saturating_sub(episode.face.bytes());
        if let Some(why) = why {
            episode.face.description = why.to_owned();
        }
        out.push(record(self.detected_by, key, &episode, Spoken::resolved(by, at, moment)));
        true
    }

    fn evict(&mut self, moment: Moment, out: &mut Vec<AlertRecord>) {
        while let Some((due, key)) = self.quiet.first() {
            if self.is_stale(key, due) {
                continue;
            }
            self.evicted = self.evicted.saturating_add(1);
            let why = format!("ended early to make room: at most {} alerts of this module are followed at a time", self.max);
            self.end(key, ResolvedBy::Quiet, Some(&why), moment.at, moment, out);
            return;
        }
        // unreachable while every open episode is entered; without it a lost entry would loop for ever
        self.open.clear();
        self.face_bytes = 0;
    }

    /// Whether the first entry of `quiet` is not the truth; then it is put right.
    fn is_stale(&mut self, key: u64, due: Timestamp) -> bool {
        let mut stale = Some(due);
        match self.open.get_mut(&key) {
            Some(episode) if episode.quiet_at > due => {
                self.quiet.clear(key, &mut stale);
                episode.entered.quiet = None;
                self.quiet.set(key, &mut episode.entered.quiet, episode.quiet_at);
                true
            }
            Some(_) => false,
            None => {
                self.quiet.clear(key, &mut stale);
                true
            }
        }
    }

    /// Lets time pass: says what waited long enough and ends what was quiet long enough.
    pub(crate) fn advance(&mut self, moment: Moment, out: &mut Vec<AlertRecord>) {
        for (key, episode) in std::mem::take(&mut self.orphans) {
            self.dirty.insert(key);
            out.push(record(self.detected_by, key, &episode, Spoken::resolved(ResolvedBy::RuleChanged, moment.at, moment)));
        }
        while let Some((due, key)) = self.report.first()
            && due <= moment.at
        {
            self.dirty.insert(key);
            self.say(key, Transition::Repeat, moment.at, out);
        }
        while self.expires
            && let Some((due, key)) = self.quiet.first()
            && due <= moment.at
        {
            if !self.is_stale(key, due) {
                self.end(key, ResolvedBy::Quiet, None, moment.at, moment, out);
            }
        }
    }

    /// When time alone will change something; never later than that, sometimes earlier.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        if let Some(orphan) = self.orphans.values().next() {
            return Some(orphan.recorded_at);
        }
        let quiet = self.quiet.first().filter(|_| self.expires);
        [self.report.first(), quiet].into_iter().flatten().map(|(due, _)| due).min()
    }

    /// Has every episode given by the next `changed`.
    pub(crate) fn touch(&mut self) {
        self.dirty.extend(self.open.keys());
    }

    /// What changed since the last call.
    pub(crate) fn changed(&mut self, changes: &mut Vec<Change>) {
        let mut keys: Vec<u64> = self.dirty.drain().collect();
        keys.sort_unstable();
        changes.extend(keys.into_iter().map(|key| Change::of(key_of(key), self.open.get(&key))));
    }

    /// Takes a stored episode back; `terms` are those of its rule now, if there still is one.
    pub(crate) fn restore(&mut self, fingerprint: Fingerprint, body: &[u8], terms: impl Fn(&str) -> Option<Terms>) -> Result<(), String> {
        let mut episode: Episode = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let key = fingerprint.as_u64();
        match terms(&episode.face.rule).filter(|terms| terms.digest == episode.digest) {
            Some(terms) => {
                episode.wait_by(terms);
                self.admit(key, episode);
            }
            None => {
                self.orphans.insert(key, episode);
            }
        }
        Ok(())
    }
}

/// What an episode is stored under.
pub(crate) const PREFIX: &str = "alert/";

fn key_of(key: u64) -> String {
    format!("{PREFIX}{}", Fingerprint::from_u64(key))
}

struct Spoken {
    transition: Transition,
    resolved_by: Option<ResolvedBy>,
    at: Timestamp,
    logged_at: Timestamp,
    seq: Seq,
    count: u64,
    evidence: Vec<Observation>,
}

impl Spoken {
    fn resolved(by: ResolvedBy, at: Timestamp, moment: Moment) -> Spoken {
        Spoken {
            transition: Transition::Resolved,
            resolved_by: Some(by),
            at,
            logged_at: moment.at,
            seq: moment.seq,
            count: 0,
            evidence: Vec::new(),
        }
    }
}

fn record(detected_by: &str, key: u64, episode: &Episode, spoken: Spoken) -> AlertRecord {
    let face = episode.face.clone();
    AlertRecord {
        alert: episode.alert.clone(),
        detected_by: detected_by.to_owned(),
        rule: face.rule,
        fingerprint: Fingerprint::from_u64(key),
        transition: spoken.transition,
        resolved_by: spoken.resolved_by,
        at: spoken.at,
        logged_at: spoken.logged_at,
        signal_seq: spoken.seq,
        count: spoken.count,
        source: face.source,
        title: face.title,
        description: face.description,
        severity: face.severity,
        labels: face.labels,
        supports: face.supports,
        evidence: spoken.evidence,
    }
}
