//! One series under one rule: its window, and where it stands between calm and firing.

use std::{
    collections::{BTreeMap, VecDeque},
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

use super::{config::Rule, window::Window};
use crate::{
    episodes::Moment,
    template::{DESCRIPTION_BYTES, TITLE_BYTES, Template},
};

/// While an alert fires, what is new about it is told this often.
const REPORT_EVERY: Duration = Duration::from_secs(30);
/// What a label takes besides its texts, about.
const LABEL_BYTES: usize = 64;
/// How many points are kept as evidence from each end.
const KEPT: usize = 25;

/// A rule made ready.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) rule: Rule,
    pub(crate) digest: u64,
    pub(crate) title: Option<Template>,
    pub(crate) description: Template,
}

impl Compiled {
    pub(crate) fn new(rule: Rule) -> Compiled {
        let what =
            (&rule.metric, &rule.labels, &rule.source, rule.agg, rule.window, rule.op, rule.value, rule.hold, rule.clear, rule.min_samples);
        let digest = crate::rules::digest(&what);
        // checked with the configuration; a template that cannot be read is as good as none
        let title = rule.title.as_deref().and_then(|text| Template::parse(text).ok());
        let description = Template::parse(&rule.description).unwrap_or_default();
        Compiled { rule, digest, title, description }
    }

    /// How long a series that does not fire is remembered without a sample.
    fn memory(&self) -> Duration {
        self.rule.resolve_after.0.max(self.rule.window.0).max(self.rule.hold.0)
    }
}

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
    metric: String,
    source: String,
    /// The sender's labels.
    labels: BTreeMap<String, String>,
    window: Window,
    /// The newest sample, and what the window gave then.
    last_seq: Seq,
    last_at: Timestamp,
    pub(crate) last_logged: Timestamp,
    value: Bits,
    phase: Phase,
    /// Samples beyond the limit since the previous record, when the newest of them was received, and
    /// some of them.
    count: u64,
    counted_at: Option<Timestamp>,
    points: Points,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Phase {
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
    /// An alert fires.
    Firing { alert: AlertId, recorded_at: Timestamp, title: String, severity: Severity },
}

/// A number by its bits, because decimal digits are not exact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "u64", from = "u64")]
struct Bits(f64);

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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Points {
    first: Vec<(Timestamp, Bits)>,
    last: VecDeque<(Timestamp, Bits)>,
}

impl Points {
    fn push(&mut self, point: Point) {
        let kept = (point.at, Bits(point.value));
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
            last_at: point.at,
            last_logged: point.logged_at,
            value: Bits(0.0),
            phase: Phase::Calm,
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

    /// When it is over without a further sample: the alert, or the memory of the series.
    pub(crate) fn ends_at(&self, compiled: &Compiled) -> Timestamp {
        let span = if self.is_firing() { compiled.rule.resolve_after.0 } else { compiled.memory() };
        self.last_logged.after(span)
    }

    /// When time alone makes it fire or ends its alert.
    pub(crate) fn timer(&self, compiled: &Compiled) -> Option<Timestamp> {
        match self.phase {
            Phase::Calm => None,
            Phase::Held { since, .. } => Some(since.after(compiled.rule.hold.0)),
            Phase::Firing { .. } => Some(self.ends_at(compiled)),
        }
    }

    /// Takes a sample in; false if it is too late for the window and was left out.
    pub(crate) fn observe(&mut self, fingerprint: Fingerprint, compiled: &Compiled, point: Point, out: &mut Vec<AlertRecord>) -> bool {
        let rule = &compiled.rule;
        // a sender whose clock is ahead must not push everybody else's samples out of the window
        let at = point.at.min(point.logged_at);
        if !self.window.push(at, point.value, rule.window.0) {
            return false;
        }
        let now = point.logged_at;
        (self.last_seq, self.last_at, self.last_logged) = (point.seq, point.at, now);
        let enough = self.window.count() >= u64::from(rule.min_samples);
        let value = self.window.aggregate(rule.agg).filter(|_| enough);
        self.value = value.map_or(self.value, Bits);
        let beyond = value.is_some_and(|value| rule.op.holds(value, rule.value));
        if beyond {
            self.count = self.count.saturating_add(1);
            self.counted_at = Some(now);
            self.points.push(point);
        }
        let moment = Moment { seq: point.seq, at: now };
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
            Phase::Firing { recorded_at, .. } => {
                *recorded_at = (*recorded_at).min(now);
                let due = now.since(*recorded_at) >= REPORT_EVERY;
                if value.is_some_and(|value| !rule.op.holds(value, rule.clear.unwrap_or(rule.value))) {
                    self.resolve(fingerprint, compiled, ResolvedBy::Clear, None, moment, out);
                } else if due && self.count > 0 {
                    self.report(fingerprint, compiled, moment, out);
                }
            }
        }
        true
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
        self.phase = Phase::Firing { alert, recorded_at: moment.at, title: self.title(compiled), severity: compiled.rule.severity };
        self.say(fingerprint, compiled, Transition::Firing, moment, out);
    }

    fn report(&mut self, fingerprint: Fingerprint, compiled: &Compiled, moment: Moment, out: &mut Vec<AlertRecord>) {
        let fresh = self.title(compiled);
        if let Phase::Firing { recorded_at, title, .. } = &mut self.phase {
            (*recorded_at, *title) = (moment.at, fresh);
        }
        self.say(fingerprint, compiled, Transition::Repeat, Moment { seq: self.last_seq, ..moment }, out);
    }

    /// Ends the alert, if one fires; what was counted and not yet said is said first.
    pub(crate) fn resolve(
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

    /// It was rebuilt from stored samples for a rule that holds from `seq` on: nothing was said about it yet, and what is
    /// said has its own name, whatever the rule meant before.
    pub(crate) fn recalled(&mut self, compiled: &Compiled, seq: Seq) {
        let (since, since_at) = match self.phase {
            Phase::Calm => return,
            Phase::Held { since, since_at, .. } => (since, since_at),
            Phase::Firing { .. } => (self.last_logged.before(compiled.rule.hold.0), None),
        };
        self.phase = Phase::Held { since, since_at, first: seq };
    }

    /// A wait is over: fires, unless the series has been silent for so long that nobody knows.
    pub(crate) fn wait_is_over(&mut self, fingerprint: Fingerprint, compiled: &Compiled, moment: Moment, out: &mut Vec<AlertRecord>) {
        if moment.at.since(self.last_logged) <= compiled.rule.window.0 {
            self.fire_if_held(fingerprint, compiled, moment, None, out);
        }
    }

    fn say(&mut self, fingerprint: Fingerprint, compiled: &Compiled, transition: Transition, moment: Moment, out: &mut Vec<AlertRecord>) {
        let mut record = self.record(fingerprint, compiled, transition, moment);
        if transition == Transition::Repeat {
            // whoever resolved the incident since then has seen all that this counts
            record.logged_at = self.counted_at.unwrap_or(moment.at);
        }
        record.count = std::mem::take(&mut self.count);
        let points = std::mem::take(&mut self.points);
        record.evidence = points
            .first
            .into_iter()
            .chain(points.last)
            .map(|(at, Bits(value))| Observation::Metric {
                at,
                source: self.source.clone(),
                name: self.metric.clone(),
                value,
                expected: None,
            })
            .collect();
        out.push(record);
    }

    fn record(&self, fingerprint: Fingerprint, compiled: &Compiled, transition: Transition, moment: Moment) -> AlertRecord {
        let (alert, title, severity) = match &self.phase {
            Phase::Firing { alert, title, severity, .. } => (alert.clone(), title.clone(), *severity),
            // never said of a series that does not fire
            Phase::Calm | Phase::Held { .. } => (AlertId::derived(&[]), String::new(), compiled.rule.severity),
        };
        let mut labels = self.labels.clone();
        for (name, value) in [("alertname", &self.rule), ("metric", &self.metric), ("source", &self.source)] {
            labels.insert(name.to_owned(), value.clone());
        }
        AlertRecord {
            alert,
            detected_by: super::ID.to_owned(),
            rule: self.rule.clone(),
            fingerprint,
            transition,
            resolved_by: None,
            at: self.last_at,
            logged_at: moment.at,
            signal_seq: moment.seq,
            count: 0,
            source: self.source.clone(),
            title,
            description: self.rendered(&compiled.description, compiled, DESCRIPTION_BYTES),
            severity,
            labels,
            supports: false,
            evidence: Vec::new(),
        }
    }

    fn title(&self, compiled: &Compiled) -> String {
        if let Some(template) = &compiled.title {
            return self.rendered(template, compiled, TITLE_BYTES);
        }
        let rule = &compiled.rule;
        let mut title = rule.metric.clone();
        if !self.labels.is_empty() {
            let labels: Vec<String> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            title.push_str(&format!("{{{}}}", crate::evidence::cut(&labels.join(","), TITLE_BYTES / 4)));
        }
        if rule.agg != super::config::Aggregation::Last {
            title.push_str(&format!(" {}", rule.agg.as_str()));
        }
        title.push_str(&format!(" {} {} {}", short(self.value.0), rule.op, short(rule.value)));
        if !rule.hold.0.is_zero() {
            title.push_str(&format!(" for {}", rule.hold));
        }
        title.push_str(&format!(" on {}", self.source));
        crate::evidence::cut(&title, TITLE_BYTES * 2).to_owned()
    }

    fn rendered(&self, template: &Template, compiled: &Compiled, limit: usize) -> String {
        template.render(limit, |name, out| match name {
            "value" => out.push_str(&short(self.value.0)),
            "metric" => out.push_str(&compiled.rule.metric),
            "source" => out.push_str(&self.source),
            other => {
                let label = other.strip_prefix("labels.").and_then(|label| self.labels.get(label));
                out.push_str(label.map_or("", String::as_str));
            }
        })
    }
}

/// The state of a rule that is gone: resolved with what is known of it.
pub(crate) fn abandoned(mut series: Series) -> Option<(Series, Compiled)> {
    if !series.is_firing() {
        return None;
    }
    let mut rule = Rule::new(&series.rule, &series.metric, super::config::Comparison::Gt, 0.0);
    rule.description = "the rule was changed or removed".to_owned();
    series.count = 0;
    Some((series, Compiled::new(rule)))
}

/// A number as people write it: at most two decimals, more only for small ones.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    let text = if size >= 1e15 || (size > 0.0 && size < 1e-4) {
        return format!("{value:e}");
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.4}")
    };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
