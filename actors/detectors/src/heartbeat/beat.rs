//! What is known of one heartbeat, and what follows from it.

use std::time::Duration;

use opspilot_kernel::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::config::Heartbeat;
use crate::{rules, words::spoken};

/// So many runs are followed at a time; those that begin beyond them are not.
pub(super) const MOST_RUNS: usize = 16;
/// One that stays silent is said so again after its period, but no sooner than this.
const REMIND: Duration = Duration::from_secs(3600);

/// How a heartbeat stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Configured, and not heard of yet.
    New,
    /// Its pings come.
    Up,
    /// A ping is due, and still within its grace.
    Late,
    /// It is silent, its last run failed, or a run does not end.
    Down,
    /// It is not watched.
    Paused,
}

/// What is known of one heartbeat; all times are the log's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Beat {
    /// Changes when something else feeds it: then nothing of this means anything.
    pub(super) feeds: u64,
    /// Changes when it has another time.
    times: u64,
    pub(super) paused: bool,
    /// When it came to be watched.
    pub(super) since: Timestamp,
    /// When its last ping came that ended a run, or was one.
    pub(super) last: Option<Timestamp>,
    /// From when its next ping is awaited: its last one, or later if it could not have been heard.
    pub(super) counted_from: Timestamp,
    /// The longest under way first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    runs: Vec<Run>,
    pub(super) down: Option<Down>,
}

/// A run that was announced and has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// What it was announced as, so that it is told from others that are under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    pub(super) at: Timestamp,
    /// From when its time counts.
    pub(super) counted_from: Timestamp,
}

/// Why it is down, since when, and when that is said again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Down {
    pub(super) why: Why,
    pub(super) since: Timestamp,
    pub(super) again: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Why {
    Silent,
    Overdue,
    Failed,
}

/// What changes when something else feeds the heartbeat. Whose it is belongs to it, as alerts are told apart by that.
pub(super) fn feeds(heartbeat: &Heartbeat) -> u64 {
    rules::digest(&(&heartbeat.on_alert, &heartbeat.on_signal, heartbeat.source()))
}

fn times(heartbeat: &Heartbeat) -> u64 {
    match &heartbeat.schedule {
        None => rules::digest(&(heartbeat.period, heartbeat.grace(), heartbeat.max_run())),
        Some(schedule) => rules::digest(&(schedule, &heartbeat.timezone, heartbeat.grace(), heartbeat.max_run())),
    }
}

impl Beat {
    /// One that is watched from `now` on.
    pub(super) fn new(heartbeat: &Heartbeat, now: Timestamp) -> Beat {
        Beat {
            feeds: feeds(heartbeat),
            times: times(heartbeat),
            paused: heartbeat.paused,
            since: now,
            last: None,
            counted_from: now,
            runs: Vec::new(),
            down: None,
        }
    }

    /// A run begins.
    pub(super) fn begins(&mut self, id: Option<&str>, now: Timestamp) {
        self.runs.retain(|run| run.id.as_deref() != id);
        if !self.paused && self.runs.len() < MOST_RUNS {
            self.runs.push(Run { id: id.map(str::to_owned), at: now, counted_from: now });
        }
    }

    /// The end of a run was told; which one, if it was announced. Where it is not said of which, no other goes on.
    pub(super) fn ends(&mut self, id: Option<&str>) -> Option<Run> {
        let place = self.runs.iter().position(|run| run.id.as_deref() == id);
        let ended = place.map(|place| self.runs.remove(place));
        if id.is_none() {
            self.runs.clear();
        }
        ended
    }

    /// All is well again, unless a run is under way for longer than it may be: that another ended well says nothing of it.
    /// What is over, if it was down.
    pub(super) fn recovers(&mut self, heartbeat: &Heartbeat, now: Timestamp) -> Option<Down> {
        let down = self.down.take()?;
        if self.overdue_at(heartbeat).is_none_or(|overdue| overdue > now) {
            return Some(down);
        }
        self.down = Some(Down { why: Why::Overdue, again: Some(down.again.unwrap_or(now.after(REMIND))), ..down });
        None
    }

    fn overdue_at(&self, heartbeat: &Heartbeat) -> Option<Timestamp> {
        self.runs.iter().map(|run| run.counted_from.after(heartbeat.max_run())).min()
    }

    /// Whether the configuration says otherwise than when this was written down.
    pub(super) fn differs(&self, heartbeat: &Heartbeat) -> bool {
        self.paused != heartbeat.paused || self.times != times(heartbeat)
    }

    /// Goes by the configuration. True if an alert of it, should there be one, is over.
    pub(super) fn adapt(&mut self, heartbeat: &Heartbeat, now: Timestamp) -> bool {
        let resumed = self.paused && !heartbeat.paused;
        (self.paused, self.times) = (heartbeat.paused, times(heartbeat));
        if resumed {
            // nobody waited for its pings meanwhile
            self.counted_from = now;
        }
        let down = self.down.take();
        if self.paused {
            self.runs.clear();
        }
        if self.paused || down.is_none() {
            return down.is_some();
        }
        let holds = match down {
            Some(Down { why: Why::Failed, .. }) => true,
            _ => self.due(heartbeat).is_some_and(|due| due <= now),
        };
        if holds {
            self.down = down;
        }
        !holds
    }

    /// Time that passed unheard, until `now`.
    pub(super) fn unheard(&mut self, heartbeat: &Heartbeat, now: Timestamp) {
        if self.down.is_some() || self.paused {
            return;
        }
        self.runs.iter_mut().for_each(|run| run.counted_from = now);
        let from = heartbeat.expected(self.counted_from).before(heartbeat.grace()).max(self.counted_from);
        if now >= from {
            self.counted_from = now;
        }
    }

    /// A clock that was set back must not leave it waiting for a time long gone.
    pub(super) fn set_back(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.counted_from = self.counted_from.min(now);
        self.last = self.last.map(|last| last.min(now));
        for run in &mut self.runs {
            (run.at, run.counted_from) = (run.at.min(now), run.counted_from.min(now));
        }
        if let Some(down) = &mut self.down {
            down.since = down.since.min(now);
        }
    }

    /// When its next sign of life is expected. The run that a schedule asks for is one as soon as it begins.
    pub(super) fn expected(&self, heartbeat: &Heartbeat) -> Timestamp {
        let begun = self.runs.last().filter(|_| heartbeat.schedule.is_some()).map(|run| run.counted_from);
        heartbeat.expected(begun.map_or(self.counted_from, |begun| begun.max(self.counted_from)))
    }

    fn silent_at(&self, heartbeat: &Heartbeat) -> Timestamp {
        self.expected(heartbeat).after(heartbeat.grace())
    }

    /// When time alone has something to say of it.
    pub(super) fn due(&self, heartbeat: &Heartbeat) -> Option<Timestamp> {
        if self.paused {
            return None;
        }
        if let Some(down) = self.down {
            return down.again;
        }
        let silent = self.silent_at(heartbeat);
        Some(self.overdue_at(heartbeat).map_or(silent, |overdue| overdue.min(silent)))
    }

    /// It is due: why it is down now, or still is.
    pub(super) fn falls(&mut self, heartbeat: &Heartbeat, now: Timestamp) -> Why {
        let silent = self.silent_at(heartbeat) <= now;
        let why = match self.down {
            Some(down) => down.why,
            None if !self.runs.is_empty() && !silent => Why::Overdue,
            None => Why::Silent,
        };
        // of a period the grace is over already, and of a schedule each time has its own
        let next = heartbeat.expected(now).after(heartbeat.schedule.as_ref().map_or(Duration::ZERO, |_| heartbeat.grace()));
        let again = next.max(now.after(REMIND));
        let since = self.down.map_or(now, |down| down.since);
        self.down = Some(Down { why, since, again: Some(again) });
        why
    }

    pub(super) fn standing(&self, heartbeat: &Heartbeat, now: Timestamp) -> Standing {
        match (self.paused, self.down.is_some(), self.last.or(self.runs.last().map(|run| run.at))) {
            (true, ..) => Standing::Paused,
            (false, true, _) => Standing::Down,
            (false, false, _) if now > self.expected(heartbeat) => Standing::Late,
            (false, false, None) => Standing::New,
            (false, false, Some(_)) => Standing::Up,
        }
    }

    /// One line and more about its silence, or about its run.
    pub(super) fn told(&self, heartbeat: &Heartbeat, why: Why, now: Timestamp) -> (String, String) {
        let id = &heartbeat.id;
        let grace = spoken(heartbeat.grace());
        let allowed = match (&heartbeat.schedule, heartbeat.period) {
            (Some(schedule), _) => {
                let zone = heartbeat.timezone.as_ref().map_or_else(|| "UTC".to_owned(), ToString::to_string);
                format!("expected at {} by {schedule} {zone}, {grace} grace", self.expected(heartbeat))
            }
            (None, period) => format!("expected every {}, {grace} grace", spoken(period.map_or(Duration::ZERO, |period| period.0))),
        };
        let last = match self.last {
            Some(last) => format!("last one at {last}"),
            None => format!("none since it is watched, which began at {}", self.since),
        };
        let (title, mut more) = match (why, self.runs.first()) {
            (Why::Overdue, Some(run)) => (
                format!("{id} has been running for {} ({} allowed)", spoken(now.since(run.at)), spoken(heartbeat.max_run())),
                format!("A run began at {} and has not told of its end; {last}.", run.at),
            ),
            _ => {
                let silent = match self.last {
                    Some(last) => format!("no ping from {id} for {}", spoken(now.since(last))),
                    None => format!("no ping from {id} ever: watched for {}", spoken(now.since(self.since))),
                };
                (format!("{silent} ({allowed})"), format!("{}.", capital(&last)))
            }
        };
        if self.counted_from > self.last.unwrap_or(self.since) {
            more.push_str(&format!(" Pings before {} may have gone unheard, because nobody listened.", self.counted_from));
        }
        if !heartbeat.description.is_empty() {
            more.push(' ');
            more.push_str(&heartbeat.description);
        }
        (title, more)
    }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
