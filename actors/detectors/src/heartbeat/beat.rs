//! What is known of one heartbeat, and what follows from it.

use std::time::Duration;

use opspilot_kernel::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{config::Heartbeat, words::spoken};
use crate::rules;

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
    pub(super) run: Option<Run>,
    pub(super) down: Option<Down>,
}

/// A run that was announced and has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
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
    rules::digest(&(heartbeat.period, heartbeat.grace(), heartbeat.max_run()))
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
            run: None,
            down: None,
        }
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
            self.run = None;
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
        if let Some(run) = &mut self.run {
            run.counted_from = now;
        }
        let from = self.counted_from.after(heartbeat.period.0.saturating_sub(heartbeat.grace()));
        if now >= from {
            self.counted_from = now;
        }
    }

    /// A clock that was set back must not leave it waiting for a time long gone.
    pub(super) fn set_back(&mut self, now: Timestamp) {
        self.since = self.since.min(now);
        self.counted_from = self.counted_from.min(now);
        self.last = self.last.map(|last| last.min(now));
        if let Some(run) = &mut self.run {
            (run.at, run.counted_from) = (run.at.min(now), run.counted_from.min(now));
        }
        if let Some(down) = &mut self.down {
            down.since = down.since.min(now);
        }
    }

    fn silent_at(&self, heartbeat: &Heartbeat) -> Timestamp {
        self.counted_from.after(heartbeat.period.0.saturating_add(heartbeat.grace()))
    }

    /// When time alone has something to say of it.
    pub(super) fn due(&self, heartbeat: &Heartbeat) -> Option<Timestamp> {
        if self.paused {
            return None;
        }
        if let Some(down) = self.down {
            return down.again;
        }
        let overdue = self.run.map(|run| run.counted_from.after(heartbeat.max_run()));
        Some(overdue.map_or(self.silent_at(heartbeat), |overdue| overdue.min(self.silent_at(heartbeat))))
    }

    /// It is due: why it is down now, or still is.
    pub(super) fn falls(&mut self, heartbeat: &Heartbeat, now: Timestamp) -> Why {
        let silent = self.silent_at(heartbeat) <= now;
        let why = match self.down {
            Some(down) => down.why,
            None if self.run.is_some() && !silent => Why::Overdue,
            None => Why::Silent,
        };
        let again = now.after(heartbeat.period.0.max(REMIND));
        let since = self.down.map_or(now, |down| down.since);
        self.down = Some(Down { why, since, again: Some(again) });
        why
    }

    pub(super) fn standing(&self, heartbeat: &Heartbeat, now: Timestamp) -> Standing {
        match (self.paused, self.down.is_some(), self.last.or(self.run.map(|run| run.at))) {
            (true, ..) => Standing::Paused,
            (false, true, _) => Standing::Down,
            (false, false, _) if now > self.counted_from.after(heartbeat.period.0) => Standing::Late,
            (false, false, None) => Standing::New,
            (false, false, Some(_)) => Standing::Up,
        }
    }

    /// One line and more about its silence, or about its run.
    pub(super) fn told(&self, heartbeat: &Heartbeat, why: Why, now: Timestamp) -> (String, String) {
        let id = &heartbeat.id;
        let allowed = format!("expected every {}, {} grace", spoken(heartbeat.period.0), spoken(heartbeat.grace()));
        let last = match self.last {
            Some(last) => format!("last one at {last}"),
            None => format!("none since it is watched, which began at {}", self.since),
        };
        let (title, mut more) = match (why, self.run) {
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
