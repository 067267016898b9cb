//! One objective: its events by time, how fast they spend the budget, and the alerts about it.
//!
//! Looked at whenever a minute of event time is over, on what is stored: as soon as every counter that spoke in the last ten
//! minutes has spoken for it, and a minute later at the latest, so that no half of a minute is judged. Time for which nothing is known counts as free of
//! errors: with ten minutes of history a window of three days is not judged by ten minutes, and a total outage still fires
//! as early as it would with all of them.

use std::{collections::BTreeMap, time::Duration};

use opspilot_kernel::{
    alert::{AlertRecord, Observation, ResolvedBy},
    config::Span,
    fingerprint::Fingerprint,
    ids::Seq,
    signal::Severity,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

use super::{
    config::{BUCKET, Slo},
    ring::{Pair, Ring},
};
use crate::{
    episodes::Moment,
    threshold::{
        ID,
        say::{Claim, Face},
    },
};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 3_600_000;
/// A counter that was silent for so many minutes is not waited for.
const AWAITED: i64 = 10;
/// While an alert fires, what is new about it is told this often.
const REPORT_EVERY: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(in crate::threshold) struct Objective {
    pub(super) slo: Slo,
    /// Names it and what it means.
    pub(super) key: u64,
    /// The same as text.
    pub(super) name: String,
    pub(super) minutes: Ring,
    pub(super) hours: Ring,
    pub(super) head: Head,
    /// How many counters have spoken up to which minute; only those that are awaited. Follows from the counters.
    spoken: BTreeMap<i64, u32>,
    pub(super) dirty: bool,
}

/// Where it stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Since when its events are known, and up to when.
    known_from: Option<Timestamp>,
    known_to: Timestamp,
    /// The newest minute that was looked at.
    seen: Option<i64>,
    last_seq: Seq,
    last_logged: Timestamp,
    burning: Vec<Burning>,
}

/// An alert that fires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Burning {
    claim: Claim,
    face: Face,
    severity: Severity,
    /// The windows that fired.
    by: Vec<usize>,
    recorded_at: Timestamp,
    /// Minutes since the previous record.
    count: u64,
}

/// How fast the budget is spent over one pair of windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Burn {
    pub(super) window: usize,
    pub(super) long: f64,
    pub(super) short: f64,
    /// The share of errors within the long window, and how many events there were.
    pub(super) ratio: f64,
    pub(super) events: f64,
    exceeded: bool,
    goes_on: bool,
}

impl Objective {
    pub(super) fn new(slo: Slo) -> Objective {
        let told = (&slo.good, &slo.errors, &slo.total, &slo.ratio, &slo.matchers);
        let judged = (slo.objective, slo.period, &slo.windows, slo.min_events);
        let digest = crate::rules::digest(&(told, judged)).to_string();
        let key = Fingerprint::of_pairs([("slo", slo.id.as_str()), ("digest", digest.as_str())]).as_u64();
        let longest = slo.windows.iter().map(|window| buckets(window.long, MINUTE)).max().unwrap_or(1);
        let minutes = Ring::new(MINUTE, 60, longest);
        let hours = Ring::new(HOUR, 24, buckets(slo.period, HOUR));
        let name = format!("{key:016x}");
        Objective { slo, key, name, minutes, hours, head: Head::default(), spoken: BTreeMap::new(), dirty: false }
    }

    /// How far its windows look back.
    pub(super) fn looks_back(&self) -> Duration {
        self.slo.windows.iter().map(|window| window.long.0).max().unwrap_or_default()
    }

    /// Events between two moments.
    pub(super) fn add(&mut self, from: Timestamp, to: Timestamp, pair: Pair) {
        self.minutes.spread(from, to, pair);
        self.hours.spread(from, to, pair);
    }

    /// Events at one moment; false if that is forgotten already.
    pub(super) fn add_at(&mut self, at: Timestamp, pair: Pair) -> bool {
        let (minute, hour) = (self.minutes.bucket(at), self.hours.bucket(at));
        self.minutes.add(minute, pair) && self.hours.add(hour, pair)
    }

    /// A series told something about the time from `from` to `to`.
    pub(super) fn heard(&mut self, from: Timestamp, to: Timestamp, moment: Moment, out: &mut Vec<AlertRecord>) {
        self.dirty = true;
        let head = &mut self.head;
        (head.last_seq, head.last_logged) = (moment.seq, moment.at);
        let forgotten = to.since(head.known_to) > self.slo.period.0;
        if head.known_from.is_none() || forgotten {
            head.known_from = Some(from);
        }
        head.known_to = head.known_to.max(to);
        // the newest minute that is over
        let over = head.known_to.millis().div_euclid(MINUTE) - 1;
        let awaited = self.spoken.range(over - AWAITED + 2..=over).any(|(_, counters)| *counters > 0);
        let minute = if awaited { over - 1 } else { over };
        if self.head.seen.is_none_or(|seen| seen < minute) {
            self.head.seen = Some(minute);
            self.look(minute, moment, out);
        }
    }

    /// A counter that had spoken up to `from` has spoken up to `to`; before its first value and after its last there is none.
    pub(super) fn spoke(&mut self, from: Option<Timestamp>, to: Option<Timestamp>) {
        let minute = |at: Timestamp| at.millis().div_euclid(MINUTE);
        if let Some(counters) = from.and_then(|from| self.spoken.get_mut(&minute(from))) {
            *counters = counters.saturating_sub(1);
        }
        if let Some(to) = to {
            let counters = self.spoken.entry(minute(to)).or_insert(0);
            *counters = counters.saturating_add(1);
        }
        while self.spoken.len() > usize::try_from(2 * AWAITED).unwrap_or(20) {
            self.spoken.pop_first();
        }
    }

    /// The share of errors in `pair`.
    fn ratio(&self, pair: Pair) -> f64 {
        // what a sender means by numbers near the end of the range nobody knows; a sum beyond it has no share
        let [part, total] = pair.map(|sum| sum.clamp(f64::MIN, f64::MAX));
        let bad = if self.slo.good.is_some() { total - part } else { part };
        if total > 0.0 { (bad / total).clamp(0.0, 1.0) } else { 0.0 }
    }

    /// How many times as fast as it may the budget is spent over `span` up to `end`: the share of errors by the share that
    /// is admitted.
    fn burn(&self, pair: Pair, span: Duration, end: Timestamp) -> f64 {
        let known = self.head.known_from.map_or(Duration::ZERO, |from| end.since(from));
        let covered = (known.as_secs_f64() / span.as_secs_f64()).min(1.0);
        let burn = self.ratio(pair) / self.slo.budget() * covered;
        // what is exact in decimals stays so: 0.1 % of errors at an objective of 99.9 % burn at 1, not a trace above
        (burn * 1e9).round() / 1e9
    }

    fn burns(&self, minute: i64) -> Vec<Burn> {
        let end = Timestamp::from_millis((minute + 1) * MINUTE);
        let of = |(window, pair): (usize, &super::BurnWindow)| {
            let sum = |span: Span| self.minutes.sum(minute, buckets(span, MINUTE));
            let (wide, narrow) = (sum(pair.long), sum(pair.short));
            let (long, short) = (self.burn(wide, pair.long.0, end), self.burn(narrow, pair.short.0, end));
            let goes_on = short > pair.burn;
            let enough = wide[1] >= self.slo.least_events();
            Burn { window, long, short, ratio: self.ratio(wide), events: wide[1], exceeded: enough && goes_on && long > pair.burn, goes_on }
        };
        self.slo.windows.iter().enumerate().map(of).collect()
    }

    /// Which share of the period's budget is spent.
    pub(super) fn spent(&self, end: Timestamp) -> f64 {
        let pair = self.hours.sum(self.hours.bucket(end), buckets(self.slo.period, HOUR));
        self.burn(pair, self.slo.period.0, end)
    }

    fn look(&mut self, minute: i64, moment: Moment, out: &mut Vec<AlertRecord>) {
        let burns = self.burns(minute);
        let end = Timestamp::from_millis((minute + 1) * MINUTE);
        let mut burning = std::mem::take(&mut self.head.burning);
        let mut severities: Vec<Severity> = self.slo.windows.iter().map(|window| window.severity).collect();
        severities.sort_unstable();
        severities.dedup();
        for severity in severities.into_iter().rev() {
            let of_it = |burn: &&Burn| self.slo.windows.get(burn.window).is_some_and(|window| window.severity == severity);
            let exceeded: Vec<&Burn> = burns.iter().filter(of_it).filter(|burn| burn.exceeded).collect();
            let place = burning.iter().position(|alert| alert.severity == severity);
            match place {
                None if exceeded.is_empty() => {}
                None => burning.push(self.fire(severity, &exceeded, minute, moment, out)),
                Some(place) => {
                    let Some(alert) = burning.get_mut(place) else { continue };
                    alert.by.extend(exceeded.iter().map(|burn| burn.window));
                    alert.by.sort_unstable();
                    alert.by.dedup();
                    let goes_on: Vec<&Burn> = burns.iter().filter(|burn| burn.goes_on && alert.by.contains(&burn.window)).collect();
                    if goes_on.is_empty() {
                        let alert = burning.swap_remove(place);
                        let why = self.clear_words(&alert.by, &burns);
                        out.push(alert.claim.over(&alert.face, ResolvedBy::Clear, end, &why, moment));
                    } else {
                        self.go_on(alert, &goes_on, end, moment, out);
                    }
                }
            }
        }
        self.head.burning = burning;
    }

    fn fire(&self, severity: Severity, exceeded: &[&Burn], minute: i64, moment: Moment, out: &mut Vec<AlertRecord>) -> Burning {
        let end = Timestamp::from_millis((minute + 1) * MINUTE);
        let face = self.face(severity);
        let (title, description) = self.words(exceeded, end);
        let claim = Claim::new(&face, title, severity, &format!("{} {minute}", self.name));
        let record = claim.begun(&face, end, description, moment);
        out.push(AlertRecord { evidence: self.evidence(exceeded, end), ..record });
        Burning { claim, face, severity, by: exceeded.iter().map(|burn| burn.window).collect(), recorded_at: moment.at, count: 0 }
    }

    fn go_on(&self, alert: &mut Burning, burns: &[&Burn], end: Timestamp, moment: Moment, out: &mut Vec<AlertRecord>) {
        alert.count = alert.count.saturating_add(1);
        // a clock that was set back must not silence it
        alert.recorded_at = alert.recorded_at.min(moment.at);
        if moment.at.since(alert.recorded_at) < REPORT_EVERY {
            return;
        }
        alert.recorded_at = moment.at;
        let count = std::mem::take(&mut alert.count);
        let record = alert.claim.again(&alert.face, end, self.words(burns, end), count, moment);
        out.push(AlertRecord { evidence: self.evidence(burns, end), ..record });
    }

    fn evidence(&self, burns: &[&Burn], end: Timestamp) -> Vec<Observation> {
        let of = |burn: &&Burn| {
            let window = self.slo.windows.get(burn.window)?;
            let observed = |span: Span, value: f64| Observation::Metric {
                at: end,
                source: ID.to_owned(),
                name: format!("{}:burn_rate_{span}", self.slo.id),
                value,
                expected: None,
            };
            Some([observed(window.long, burn.long), observed(window.short, burn.short)])
        };
        burns.iter().filter_map(of).flatten().collect()
    }

    fn face(&self, severity: Severity) -> Face {
        let windows = self.slo.windows.iter().filter(|window| window.severity == severity);
        let windows: Vec<String> = windows.map(|window| format!("{}/{}", window.long, window.short)).collect();
        let fingerprint =
            Fingerprint::of_pairs([("alertname", self.slo.id.as_str()), ("severity", severity.as_str()), ("slo", "burn rate")]);
        let labels = [("alertname", self.slo.id.clone()), ("slo", self.slo.id.clone()), ("windows", windows.join(","))];
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Face { rule: self.slo.id.clone(), source: ID.to_owned(), labels, fingerprint }
    }

    /// When time alone ends an alert.
    pub(super) fn timer(&self) -> Option<Timestamp> {
        (!self.head.burning.is_empty()).then(|| self.head.last_logged.after(self.slo.resolve_after.0))
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, moment: Moment, out: &mut Vec<AlertRecord>) {
        if self.timer().is_some_and(|due| due <= moment.at) {
            self.dirty = true;
            self.head.end(ResolvedBy::Quiet, "no counter was heard of for so long that nobody knows", moment, out);
        }
    }

    /// It was rebuilt from stored counters: nothing was said about it yet.
    pub(super) fn recalled(&mut self) {
        self.head.burning.clear();
        // its counters are entered anew
        self.spoken.clear();
        self.touch();
    }

    pub(super) fn touch(&mut self) {
        self.dirty = true;
        self.minutes.touch();
        self.hours.touch();
    }
}

impl Head {
    pub(super) fn end(&mut self, by: ResolvedBy, why: &str, moment: Moment, out: &mut Vec<AlertRecord>) {
        for alert in self.burning.drain(..) {
            out.push(alert.claim.over(&alert.face, by, moment.at, why, moment));
        }
    }
}

/// How many buckets a span covers.
fn buckets(span: Span, width: i64) -> i64 {
    let millis = i64::try_from(span.max(BUCKET).0.as_millis()).unwrap_or(i64::MAX);
    millis.saturating_add(width - 1).div_euclid(width)
}
