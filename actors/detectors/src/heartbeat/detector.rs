//! The detector itself: pure, fed with the log, asked for what it has to say.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use opspilot_kernel::{
    alert::{AlertRecord, Observation, ResolvedBy},
    fingerprint::Fingerprint,
    matcher::{Matcher, all_hold},
    signal::{AlertState, LogEntry, SignalBlock, SignalKind, SignalRef},
    time::Timestamp,
};

use super::{
    beat::{self, Beat, Down, Standing, Why},
    config::{Config, Heartbeat},
    ping::{Ping, What, body_of},
};
use crate::{
    counts::Counts,
    detect::Detect,
    episodes::{self, Episodes, Face, Moment, Seen, Terms},
    evidence::{LINE_BYTES, cut},
    state::Change,
    template::{DESCRIPTION_BYTES, TITLE_BYTES},
    words::spoken,
};

/// While there are heartbeats, the log has an entry at least this often.
const LISTEN: Duration = Duration::from_secs(20);
/// If there was none for so long, nobody listened.
const UNHEARD: Duration = Duration::from_secs(60);
/// Failures so close together are one alarm.
const COOLDOWN: Duration = Duration::from_secs(30);
/// What a heartbeat, and the time to which the log was followed, are stored under.
const PREFIX: &str = "beat/";
const MARK: &str = "mark";

/// Waits for pings.
#[derive(Debug)]
pub struct Detector {
    watched: Vec<Watched>,
    by_id: HashMap<String, usize>,
    /// Those that outside alerts feed, and those that metrics or log lines do.
    by_alert: Vec<usize>,
    by_signal: Vec<usize>,
    due: BTreeSet<(Timestamp, usize)>,
    /// Those that were configured, or configured otherwise, since the last entry.
    unsettled: BTreeSet<usize>,
    /// The time to which the log was followed, in steps of [`LISTEN`].
    mark: Option<Timestamp>,
    episodes: Episodes,
    dirty: BTreeSet<usize>,
    mark_dirty: bool,
    gone: Vec<String>,
    counts: Counts,
}

#[derive(Debug)]
struct Watched {
    heartbeat: Heartbeat,
    terms: Terms,
    fingerprint: Fingerprint,
    /// Nothing until the first entry of the log after it was configured.
    beat: Option<Beat>,
    entered: Option<Timestamp>,
}

/// How a heartbeat stands.
#[derive(Debug, Clone, Copy)]
pub struct Stands<'a> {
    /// Which one.
    pub heartbeat: &'a Heartbeat,
    /// How.
    pub standing: Standing,
    /// When its last ping came that was one of success or failure.
    pub last: Option<Timestamp>,
    /// When its next one is expected, if it is watched.
    pub expected: Option<Timestamp>,
}

impl Watched {
    fn new(heartbeat: Heartbeat) -> Watched {
        let terms = Terms { cooldown: COOLDOWN, resolve_after: Duration::ZERO, digest: beat::feeds(&heartbeat) };
        let fingerprint = Fingerprint::of_pairs([("alertname", heartbeat.id.as_str()), ("source", heartbeat.source())]);
        Watched { heartbeat, terms, fingerprint, beat: None, entered: None }
    }

    fn face(&self, title: &str, description: &str) -> Face {
        let mut labels = self.heartbeat.labels.clone();
        labels.insert("alertname".to_owned(), self.heartbeat.id.clone());
        labels.insert("source".to_owned(), self.heartbeat.source().to_owned());
        Face {
            rule: self.heartbeat.id.clone(),
            source: self.heartbeat.source().to_owned(),
            title: cut(title, TITLE_BYTES).to_owned(),
            description: cut(description, DESCRIPTION_BYTES).to_owned(),
            severity: self.heartbeat.severity,
            labels,
            supports: false,
        }
    }
}

impl Detector {
    /// A detector for a configuration that has been checked.
    pub fn new(config: Config) -> Detector {
        let watched: Vec<Watched> = config.heartbeats.into_iter().map(Watched::new).collect();
        let fed = |by: fn(&Heartbeat) -> &[Matcher]| -> Vec<usize> {
            (0..).zip(&watched).filter(|(_, one)| !by(&one.heartbeat).is_empty()).map(|(index, _)| index).collect()
        };
        Detector {
            by_id: (0..).zip(&watched).map(|(index, one)| (one.heartbeat.id.clone(), index)).collect(),
            by_alert: fed(|heartbeat| &heartbeat.on_alert),
            by_signal: fed(|heartbeat| &heartbeat.on_signal),
            due: BTreeSet::new(),
            unsettled: (0..watched.len()).collect(),
            mark: None,
            episodes: Episodes::new(super::NAME, watched.len(), false),
            watched,
            dirty: BTreeSet::new(),
            mark_dirty: false,
            gone: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// How every heartbeat stands at `now`.
    pub fn standings(&self, now: Timestamp) -> impl Iterator<Item = Stands<'_>> {
        self.watched.iter().map(move |watched| {
            let heartbeat = &watched.heartbeat;
            match &watched.beat {
                Some(beat) => Stands {
                    heartbeat,
                    standing: beat.standing(heartbeat, now),
                    last: beat.last,
                    expected: Some(beat.expected(heartbeat)).filter(|_| !beat.paused),
                },
                None if heartbeat.paused => Stands { heartbeat, standing: Standing::Paused, last: None, expected: None },
                None => Stands { heartbeat, standing: Standing::New, last: None, expected: None },
            }
        })
    }

    fn advance(&mut self, moment: Moment, out: &mut Vec<AlertRecord>) {
        self.episodes.advance(moment, out);
        if self.watched.is_empty() {
            return;
        }
        self.listen(moment.at);
        for index in std::mem::take(&mut self.unsettled) {
            self.settle(index, moment, out);
        }
        while let Some((due, index)) = self.due.first().copied()
            && due <= moment.at
        {
            self.fall(index, moment, out);
        }
    }

    /// Notes that the log was followed until `now`, and whether there is a hole before it.
    fn listen(&mut self, now: Timestamp) {
        let Some(mark) = self.mark else {
            (self.mark, self.mark_dirty) = (Some(now), true);
            return;
        };
        let back = now < mark;
        let unheard = now.since(mark) > UNHEARD;
        if back || unheard {
            for index in 0..self.watched.len() {
                self.change(index, |heartbeat, beat| if back { beat.set_back(now) } else { beat.unheard(heartbeat, now) });
            }
        }
        if back || now.since(mark) >= LISTEN {
            (self.mark, self.mark_dirty) = (Some(now), true);
        }
    }

    /// Changes what is known of a heartbeat, and with it when it is due.
    fn change<T>(&mut self, index: usize, change: impl FnOnce(&Heartbeat, &mut Beat) -> T) -> Option<T> {
        let watched = self.watched.get_mut(index)?;
        let beat = watched.beat.as_mut()?;
        let outcome = change(&watched.heartbeat, beat);
        let due = beat.due(&watched.heartbeat);
        if due != watched.entered {
            if let Some(entered) = watched.entered {
                self.due.remove(&(entered, index));
            }
            self.due.extend(due.map(|due| (due, index)));
            watched.entered = due;
        }
        self.dirty.insert(index);
        Some(outcome)
    }

    /// Goes by what is configured now.
    fn settle(&mut self, index: usize, moment: Moment, out: &mut Vec<AlertRecord>) {
        let Some(watched) = self.watched.get_mut(index) else { return };
        let fingerprint = watched.fingerprint;
        let fresh = watched.beat.is_none();
        watched.beat.get_or_insert_with(|| Beat::new(&watched.heartbeat, moment.at));
        let over = self.change(index, |heartbeat, beat| !fresh && beat.adapt(heartbeat, moment.at));
        if over == Some(true) {
            self.episodes.resolve(fingerprint, ResolvedBy::RuleChanged, moment.at, moment, out);
        }
    }

    /// A heartbeat is due.
    fn fall(&mut self, index: usize, moment: Moment, out: &mut Vec<AlertRecord>) {
        let said = self.change(index, |heartbeat, beat| {
            let why = beat.falls(heartbeat, moment.at);
            beat.told(heartbeat, why, moment.at)
        });
        let (Some((title, more)), Some(watched)) = (said, self.watched.get(index)) else { return };
        let seen = Seen {
            fingerprint: watched.fingerprint,
            at: moment.at,
            logged_at: moment.at,
            seq: moment.seq,
            severity: watched.heartbeat.severity,
        };
        let text = || format!("{title}; {more}");
        let observation = || {
            let text = cut(&text(), LINE_BYTES).to_owned();
            Some(Observation::Log { at: moment.at, source: watched.heartbeat.source().to_owned(), text })
        };
        self.episodes.observe(seen, watched.terms, observation, || watched.face(&title, &more), out);
    }

    fn signals(&mut self, block: &SignalBlock, out: &mut Vec<AlertRecord>) {
        for (seq, record) in block.iter() {
            let wanted = match record.kind() {
                Ok(SignalKind::Log) => true,
                Ok(SignalKind::Metric) => !self.by_signal.is_empty(),
                Ok(SignalKind::Alert) => !self.by_alert.is_empty(),
                Err(_) => {
                    self.counts.damaged += 1;
                    continue;
                }
            };
            if !wanted {
                continue;
            }
            let Ok(signal) = record.decode() else {
                self.counts.damaged += 1;
                continue;
            };
            let moment = Moment { seq, at: block.received_at };
            if let Some(ping) = Ping::of(&signal) {
                match self.by_id.get(ping.heartbeat) {
                    Some(index) => self.hear(*index, (ping.what, ping.run), &signal, moment, out),
                    None => self.counts.ignored += 1,
                }
            }
            self.feed(&signal, moment, out);
        }
    }

    /// Hands a signal to those that it feeds.
    fn feed(&mut self, signal: &SignalRef<'_>, moment: Moment, out: &mut Vec<AlertRecord>) {
        let is_alert = signal.kind == SignalKind::Alert;
        let fed: &[usize] = if is_alert { &self.by_alert } else { &self.by_signal };
        let value = |name: &str| match name {
            "source" => Some(signal.source),
            "__name__" if !is_alert => Some(signal.name),
            "__message__" if signal.kind == SignalKind::Log => Some(signal.message),
            "alertname" if is_alert => signal.labels.get(name).or(Some(signal.name)),
            _ => signal.labels.get(name),
        };
        let matches = |index: &&usize| {
            let heartbeat = self.watched.get(**index).map(|watched| &watched.heartbeat);
            heartbeat.is_some_and(|heartbeat| all_hold(if is_alert { &heartbeat.on_alert } else { &heartbeat.on_signal }, value))
        };
        let concerned: Vec<usize> = fed.iter().filter(matches).copied().collect();
        let what = if is_alert && signal.state == AlertState::Resolved { What::Fail(None) } else { What::Success };
        for index in concerned {
            self.hear(index, (what, None), signal, moment, out);
        }
    }

    /// A heartbeat gave sign of life.
    fn hear(
        &mut self,
        index: usize,
        (what, run): (What, Option<&str>),
        signal: &SignalRef<'_>,
        moment: Moment,
        out: &mut Vec<AlertRecord>,
    ) {
        self.counts.matched += 1;
        match what {
            What::Log => {}
            What::Start => drop(self.change(index, |_, beat| beat.begins(run, moment.at))),
            What::Success => self.succeed(index, run, signal.at, moment, out),
            What::Fail(code) => self.fail(index, (code, run), signal, moment, out),
        }
    }

    fn succeed(&mut self, index: usize, run: Option<&str>, at: Timestamp, moment: Moment, out: &mut Vec<AlertRecord>) {
        let now = moment.at;
        let before = self.change(index, |heartbeat, beat| {
            let (run, last) = (beat.ends(run), beat.last.replace(now));
            beat.counted_from = now;
            (run, beat.recovers(heartbeat, now), last)
        });
        let (Some((run, Some(down), last)), Some(watched)) = (before, self.watched.get(index)) else { return };
        let mut why = format!("a ping came at {now}");
        if let (Why::Silent, Some(last)) = (down.why, last) {
            why.push_str(&format!(", {} after the last one", spoken(now.since(last))));
        }
        if let Some(run) = run {
            why.push_str(&format!("; the run took {}", spoken(now.since(run.at))));
        }
        let fingerprint = watched.fingerprint;
        self.episodes.resolve_because(fingerprint, ResolvedBy::Clear, &why, at, moment, out);
    }

    fn fail(
        &mut self,
        index: usize,
        (code, run): (Option<u8>, Option<&str>),
        signal: &SignalRef<'_>,
        moment: Moment,
        out: &mut Vec<AlertRecord>,
    ) {
        let now = moment.at;
        let known = self.change(index, |_, beat| {
            let (run, last) = (beat.ends(run), beat.last.replace(now));
            beat.counted_from = now;
            if beat.paused {
                return None;
            }
            let since = beat.down.map_or(now, |down| down.since);
            beat.down = Some(Down { why: Why::Failed, since, again: None });
            Some((run, last))
        });
        let (Some(Some((run, last))), Some(watched)) = (known, self.watched.get(index)) else { return };
        let heartbeat = &watched.heartbeat;
        let what = match (signal.kind, code) {
            (SignalKind::Alert, _) => format!("{} fell silent: the alert that feeds it was resolved by {}", heartbeat.id, signal.source),
            (_, Some(code)) => format!("{} failed with exit code {code}", heartbeat.id),
            (_, None) => format!("{} failed", heartbeat.id),
        };
        let took = run.map(|run| spoken(now.since(run.at)));
        let title = match &took {
            Some(took) => format!("{what} after {took}"),
            None => what,
        };
        let mut more = match last {
            Some(last) => format!("The ping before this one came at {last}."),
            None => "There was no ping before this one.".to_owned(),
        };
        for part in [heartbeat.description.as_str(), body_of(signal)].into_iter().filter(|part| !part.is_empty()) {
            more.push('\n');
            more.push_str(part);
        }
        let seen = Seen { fingerprint: watched.fingerprint, at: signal.at, logged_at: now, seq: moment.seq, severity: heartbeat.severity };
        let observation = || {
            let text = if signal.message.is_empty() { &title } else { signal.message };
            Some(Observation::Log { at: signal.at, source: signal.source.to_owned(), text: cut(text, LINE_BYTES).to_owned() })
        };
        self.episodes.observe(seen, watched.terms, observation, || watched.face(&title, &more), out);
    }
}

impl Detect for Detector {
    const ID: &'static str = super::NAME;
    const SUMMARY: &'static str = "raises an alert when an expected ping does not come";
    type Config = Config;

    fn build(config: &Config) -> Detector {
        Detector::new(config.clone())
    }

    fn consume(&mut self, entry: &LogEntry, out: &mut Vec<AlertRecord>) {
        match entry {
            LogEntry::Reload { .. } => {}
            LogEntry::Tick { seq, at } => self.advance(Moment { seq: *seq, at: *at }, out),
            LogEntry::Batch(block) => {
                self.advance(Moment { seq: block.first_seq, at: block.received_at }, out);
                if !self.watched.is_empty() {
                    self.signals(block, out);
                }
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        let listen = match self.mark {
            _ if self.watched.is_empty() => None,
            Some(mark) if self.unsettled.is_empty() => Some(mark.after(LISTEN)),
            _ => Some(Timestamp::ZERO),
        };
        let due = self.due.first().map(|(due, _)| *due);
        [listen, due, self.episodes.next_due()].into_iter().flatten().min()
    }

    fn changed(&mut self) -> Vec<Change> {
        let mut changes: Vec<Change> = self.gone.drain(..).map(Change::gone).collect();
        for index in std::mem::take(&mut self.dirty) {
            if let Some(watched) = self.watched.get(index) {
                changes.push(Change::of(format!("{PREFIX}{}", watched.heartbeat.id), watched.beat.as_ref()));
            }
        }
        if std::mem::take(&mut self.mark_dirty) {
            changes.push(Change::of(MARK.to_owned(), self.mark.as_ref()));
        }
        self.episodes.changed(&mut changes);
        changes
    }

    fn restore(&mut self, key: &str, body: &[u8]) -> Result<(), String> {
        if key == MARK {
            self.mark = Some(serde_json::from_slice(body).map_err(|error| error.to_string())?);
            return Ok(());
        }
        if let Some(id) = key.strip_prefix(PREFIX) {
            let beat: Beat = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            let index = self.by_id.get(id).copied();
            let Some((index, watched)) = index.and_then(|index| Some((index, self.watched.get_mut(index)?))) else {
                self.gone.push(key.to_owned());
                return Ok(());
            };
            // one that something else feeds now begins anew
            if beat.feeds == watched.terms.digest {
                if !beat.differs(&watched.heartbeat) {
                    self.unsettled.remove(&index);
                }
                let due = beat.due(&watched.heartbeat);
                self.due.extend(due.map(|due| (due, index)));
                (watched.beat, watched.entered) = (Some(beat), due);
            }
            return Ok(());
        }
        let fingerprint = key.strip_prefix(episodes::PREFIX).and_then(|digits| digits.parse().ok()).ok_or("unknown kind of state")?;
        let known = |id: &str| self.by_id.get(id).and_then(|index| self.watched.get(*index));
        self.episodes.restore(fingerprint, body, |id| known(id).map(|watched| watched.terms))
    }

    fn touch(&mut self) {
        self.dirty.extend(0..self.watched.len());
        self.mark_dirty = true;
        self.episodes.touch();
    }

    fn counts(&self) -> Counts {
        Counts { open: self.watched.len(), bytes: self.episodes.bytes(), evicted: self.episodes.evicted(), ..self.counts }
    }
}
