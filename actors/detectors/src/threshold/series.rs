//! One series under one rule: its window, and where it stands between calm and firing.

use std::collections::{BTreeMap, VecDeque};

use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy, Transition},
    fingerprint::Fingerprint,
    ids::{AlertId, Seq},
    signal::Severity,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{
    compiled::Compiled,
    say::Claim,
    window::{Pushed, Window},
};
use crate::episodes::Moment;

/// While an alert fires, what is new about it is told this often.
const REPORT_EVERY: std::time::Duration = std::time::Duration::from_secs(30);
/// What a label takes besides its texts, about.
const LABEL_BYTES: usize = 64;
/// How many points are kept as evidence from each end.
pub(super) const KEPT: usize = 25;

/// A sample as it comes in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    pub(crate) seq: Seq,
    pub(crate) at: Timestamp,
    pub(crate) logged_at: Timestamp,
    pub(crate) value: f64,
}

/// A series as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) rule: String,
    pub(crate) digest: u64,
    pub(super) metric: String,
    pub(super) source: String,
    /// The sender's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(skip)]
    pub(super) window: Window,
    /// The newest sample, and what the window gave then.
    pub(super) last_seq: Seq,
    pub(super) last_at: Timestamp,
    pub(crate) last_logged: Timestamp,
    pub(super) value: Bits,
    pub(super) phase: Phase,
    /// The alert that says it is silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) gone: Option<Claim>,
    /// Samples beyond the limit since the previous record, when the newest of them was received, and
    /// some of them.
    pub(super) count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) counted_at: Option<Timestamp>,
    #[serde(skip)]
    pub(super) points: Points,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// Within the limit, or not known.
    Calm,
    /// Beyond it, not for long enough yet.
    Held {
        since: Timestamp,
        /// The first such sample's own time: samples that come late, many at once, show by theirs how
        /// long it lasted.
        since_at: Option<Timestamp>,
        first: Seq,
    },
    /// An alert fires; once it would be over, since when, by the clock and by the samples' own time.
    Firing { alert: AlertId, recorded_at: Timestamp, title: String, severity: Severity, over: Option<(Timestamp, Timestamp)> },
}

/// A number by its bits, because decimal digits are not exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "u64", from = "u64")]
pub(super) struct Bits(pub(super) f64);

impl From<Bits> for u64 {
    fn from(bits: Bits) -> u64 {
        bits.0.to_bits()
    }
}

impl From<u64> for Bits {
    fn from(bits: u64) -> Bits {
        Bits(f64::from_bits(bits))
    }
}

/// The first points and the last ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Points {
    pub(super) first: Vec<(Timestamp, f64)>,
    pub(super) last: VecDeque<(Timestamp, f64)>,
}

impl Points {
    pub(super) fn push(&mut self, kept: (Timestamp, f64)) {
        if self.first.len() < KEPT {
            self.first.push(kept);
            return;
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(kept);
    }
}

impl Series {
    pub(crate) fn new(compiled: &Compiled, source: &str, labels: BTreeMap<String, String>, point: Point) -> Series {
        Series {
            rule: compiled.rule.id.clone(),
            digest: compiled.digest,
            metric: compiled.rule.metric.clone(),
            source: source.to_owned(),
            labels,
            window: Window::default(),
            last_seq: point.seq,
            last_at: point.at.min(point.logged_at),
            last_logged: point.logged_at,
            value: Bits(0.0),
            phase: Phase::Calm,
            gone: None,
            count: 0,
            counted_at: None,
            points: Points::default(),
        }
    }

    /// What its names and labels take, besides what every series takes.
    pub(crate) fn bytes(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(name, value)| name.len() + value.len() + LABEL_BYTES).sum();
        labels + self.rule.len() + self.metric.len() + self.source.len()
    }

    pub(crate) fn is_firing(&self) -> bool {
        matches!(self.phase, Phase::Firing { .. })
    }

    /// When it is forgotten without a further sample.
    pub(crate) fn ends_at(&self, compiled: &Compiled) -> Timestamp {
        self.last_logged.after(compiled.memory())
    }

    /// When time alone makes it fire or ends an alert.
    pub(crate) fn timer(&self, compiled: &Compiled) -> Option<Timestamp> {
        let rule = &compiled.rule;
        let phase = match self.phase {
            Phase::Calm => None,
            Phase::Held { since, .. } => Some(since.after(rule.hold.0)),
            Phase::Firing { over, .. } => {
                let quiet = self.last_logged.after(rule.resolve_after.0);
                Some(over.map_or(quiet, |(since, _)| since.after(rule.keep_firing_for.0).min(quiet)))
            }
        };
        // one that is missed ends when it is forgotten, which needs a tick as well
        let silence =
            rule.absent_after.map(|after| if self.gone.is_none() { self.last_logged.after(after.0) } else { self.ends_at(compiled) });
        phase.into_iter().chain(silence).min()
    }

    /// Takes a sample in.
    pub(crate) fn observe(&mut self, fingerprint: Fingerprint, compiled: &Compiled, point: Point, out: &mut Vec<AlertRecord>) -> Pushed {
        let rule = &compiled.rule;
        let now = point.logged_at;
        // a sender whose clock is ahead must not push everybody else's samples out of the window
        let at = point.at.min(now);
        let limit = rule.limit();
        let pushed = if limit.is_some() { self.window.push(at, point.value, compiled.shape) } else { Pushed::Taken };
        if pushed == Pushed::Late {
            return pushed;
        }
        let moment = Moment { seq: point.seq, at: now };
        self.is_back(at, moment, out);
        (self.last_seq, self.last_at, self.last_logged) = (point.seq, at, now);
        let Some((op, limit)) = limit else { return pushed };
        let enough = rule.min_samples <= 1 || self.window.count() >= u64::from(rule.min_samples);
        let value = if enough { self.window.aggregate(compiled.shape) } else { None };
        self.value = value.map_or(self.value, Bits);
        let beyond = value.is_some_and(|value| op.holds(value, limit));
        if beyond {
            self.count = self.count.saturating_add(1);
            self.counted_at = Some(now);
            self.points.push((at, point.value));
        }
        match &mut self.phase {
            Phase::Calm if beyond => {
                self.phase = Phase::Held { since: now, since_at: Some(at), first: point.seq };
                self.fire_if_held(fingerprint, compiled, moment, Some(at), out);
            }
            Phase::Calm => {}
            Phase::Held { since, .. } if beyond => {
                // a clock that was set back must not stretch the wait
                *since = (*since).min(now);
                self.fire_if_held(fingerprint, compiled, moment, Some(at), out);
            }
            Phase::Held { .. } => {
                self.phase = Phase::Calm;
                (self.count, self.points) = (0, Points::default());
            }
            Phase::Firing { .. } => {
                let over = value.map(|value| !op.holds(value, rule.clear.unwrap_or(limit)));
                self.go_on(fingerprint, compiled, over, at, moment, out);
            }
        }
        pushed
    }

    /// A sample came while an alert fires; `over` says whether it would be over by that.
    fn go_on(
        &mut self,
        fingerprint: Fingerprint,
        compiled: &Compiled,
        is_over: Option<bool>,
        at: Timestamp,
        moment: Moment,
        out: &mut Vec<AlertRecord>,
    ) {
        let keep = compiled.rule.keep_firing_for.0;
        let Phase::Firing { recorded_at, over, .. } = &mut self.phase else { return };
        *recorded_at = (*recorded_at).min(moment.at);
        let due = moment.at.since(*recorded_at) >= REPORT_EVERY;
        let kept = match is_over {
            Some(true) => {
                let (since, since_at) = over.get_or_insert((moment.at, at));
                // a clock that was set back must not stretch the wait
                *since = (*since).min(moment.at);
                moment.at.since(*since) < keep && at.since(*since_at) < keep
            }
            Some(false) => {
                *over = None;
                true
            }
            None => true,
        };
        if !kept {
            self.resolve(fingerprint, compiled, ResolvedBy::Clear, None, moment, out);
        } else if due && self.count > 0 {
            self.report(fingerprint, compiled, moment, out);
        }
    }

    /// Fires if the limit has been passed for long enough: by the log's time, or by the samples' own,
    /// of which `at` is the newest.
    fn fire_if_held(
        &mut self,
        fingerprint: Fingerprint,
        compiled: &Compiled,
        moment: Moment,
        at: Option<Timestamp>,
        out: &mut Vec<AlertRecord>,
    ) {
        let Phase::Held { since, since_at, first } = self.phase else { return };
        let hold = compiled.rule.hold.0;
        let held_by_samples = at.zip(since_at).is_some_and(|(at, since_at)| at.since(since_at) >= hold);
        if moment.at.since(since) < hold && !held_by_samples {
            return;
        }
        let alert = AlertId::derived(&[&self.rule, &fingerprint.to_string(), &first.to_string()]);
        let (title, severity) = (self.title(compiled), compiled.rule.severity);
        self.phase = Phase::Firing { alert, recorded_at: moment.at, title, severity, over: None };
        self.say(fingerprint, compiled, Transition::Firing, moment, out);
    }

    fn report(&mut self, fingerprint: Fingerprint, compiled: &Compiled, moment: Moment, out: &mut Vec<AlertRecord>) {
        let fresh = self.title(compiled);
        if let Phase::Firing { recorded_at, title, .. } = &mut self.phase {
            (*recorded_at, *title) = (moment.at, fresh);
        }
        self.say(fingerprint, compiled, Transition::Repeat, Moment { seq: self.last_seq, ..moment }, out);
    }

    /// Ends the alert about the limit, if one fires; what was counted and not yet said is said first.
    pub(super) fn resolve(
        &mut self,
        fingerprint: Fingerprint,
        compiled: &Compiled,
        by: ResolvedBy,
        why: Option<&str>,
        moment: Moment,
        out: &mut Vec<AlertRecord>,
    ) {
        if !self.is_firing() {
            return;
        }
        if self.count > 0 {
            self.say(fingerprint, compiled, Transition::Repeat, Moment { seq: self.last_seq, ..moment }, out);
        }
        let mut record = self.record(fingerprint, compiled, Transition::Resolved, moment);
        record.resolved_by = Some(by);
        record.at = if by == ResolvedBy::Clear { self.last_at } else { moment.at };
        if let Some(why) = why {
            record.description = why.to_owned();
        }
        out.push(record);
        self.phase = Phase::Calm;
    }

    /// Nothing more is said of it: whatever fires is over.
    pub(crate) fn end(
        &mut self,
        fingerprint: Fingerprint,
        compiled: &Compiled,
        by: ResolvedBy,
        why: Option<&str>,
        moment: Moment,
        out: &mut Vec<AlertRecord>,
    ) {
        self.resolve(fingerprint, compiled, by, why, moment, out);
        if let Some(gone) = self.gone.take() {
            let why = why.unwrap_or("it was silent for so long that it is not expected any more");
            out.push(gone.over(&self.face(), by, moment.at, why, moment));
        }
    }

    /// It was rebuilt from stored samples for a rule that holds from `seq` on: nothing was said about it yet, and what is
    /// said has its own name, whatever the rule meant before.
    pub(crate) fn recalled(&mut self, compiled: &Compiled, seq: Seq) {
        self.gone = None;
        let (since, since_at) = match self.phase {
            Phase::Calm => return,
            Phase::Held { since, since_at, .. } => (since, since_at),
            Phase::Firing { .. } => (self.last_logged.before(compiled.rule.hold.0), None),
        };
        self.phase = Phase::Held { since, since_at, first: seq };
    }

    /// Time has passed; true if that changed anything.
    pub(crate) fn wait(&mut self, fingerprint: Fingerprint, compiled: &Compiled, moment: Moment, out: &mut Vec<AlertRecord>) -> bool {
        let rule = &compiled.rule;
        let said = out.len();
        match &self.phase {
            Phase::Calm => {}
            // one that has been silent for so long may be anything by now
            Phase::Held { .. } if moment.at.since(self.last_logged) > rule.window.0 => {}
            Phase::Held { .. } => self.fire_if_held(fingerprint, compiled, moment, None, out),
            Phase::Firing { over: Some((since, _)), .. } if moment.at >= since.after(rule.keep_firing_for.0) => {
                self.resolve(fingerprint, compiled, ResolvedBy::Clear, None, moment, out);
            }
            Phase::Firing { .. } if moment.at >= self.last_logged.after(rule.resolve_after.0) => {
                self.resolve(fingerprint, compiled, ResolvedBy::Quiet, None, moment, out);
            }
            Phase::Firing { .. } => {}
        }
        if let Some(after) = rule.absent_after
            && self.gone.is_none()
            && moment.at >= self.last_logged.after(after.0)
        {
            self.is_gone(compiled, after, moment, out);
        }
        out.len() > said
    }
}
