//! The explainer's loop: reads events, waits for them to settle, explains, and stores each explanation with the cursor.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use opspilot_kernel::{
    event::{Envelope, Event},
    explanation::Explanation,
    ids::{IncidentId, Seq},
    incident::TimelineKind,
    principal::Actor,
};
use opspilot_ledger::{EventEntry, LedgerError, NewExplanation, Priority, StoredExplanation};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    Ask, Deps, ExplainError, ID, Shown,
    gather::{Made, Unmade, make},
};

/// Events read at once.
const EVENTS: usize = 256;
/// Incidents that wait; while there are so many no further events are read.
const PENDING: usize = 1000;
/// Incidents whose last explanation is remembered; beyond that all are forgotten, and may be explained sooner.
const REMEMBERED: usize = 4096;
/// The cursor is stored by itself when it is so far behind.
const SAVE_AFTER: u64 = 2000;
const UNAVAILABLE: Duration = Duration::from_millis(500);
const BUSY: Duration = Duration::from_millis(20);
/// So often an explanation is made anew because the ledger does not take it; then it is given up, and the next event tries again.
const TRIES: u32 = 5;

/// An incident that waits to be explained.
#[derive(Debug, Clone, Copy)]
struct Due {
    /// The first event that asks for it: until it is explained the cursor stands before that.
    first: Seq,
    /// The newest.
    last: Seq,
    at: Instant,
    /// How often it failed for no reason that goes away by itself.
    failures: u32,
}

/// When an incident was last explained, and how many observations it had then.
#[derive(Debug, Clone, Copy)]
struct Last {
    at: Instant,
    occurrences: u64,
}

pub(super) struct Run {
    deps: Deps,
    shown: Arc<Shown>,
    stopping: watch::Receiver<bool>,
    asks: mpsc::Receiver<Ask>,
    /// Every event up to here has been looked at.
    position: Seq,
    /// What is stored.
    cursor: Seq,
    pending: BTreeMap<IncidentId, Due>,
    last: BTreeMap<IncidentId, Last>,
}

impl Run {
    pub(super) fn new(deps: Deps, shown: Arc<Shown>, stopping: watch::Receiver<bool>, asks: mpsc::Receiver<Ask>) -> Run {
        Run { deps, shown, stopping, asks, position: 0, cursor: 0, pending: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// Follows the events until it is told to stop.
    pub(super) async fn follow(mut self) {
        self.take_up().await;
        let mut log = self.deps.ledger.events().watch();
        while !*self.stopping.borrow() {
            let more = self.read().await;
            self.show();
            let next = self.pending.values().map(|due| due.at).min();
            if next.is_some_and(|at| at <= Instant::now()) {
                self.explain_due().await;
                continue;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let position = self.position;
            let full = self.pending.len() >= PENDING;
            tokio::select! {
                changed = log.wait_for(|head| *head > position), if !full => if changed.is_err() { break },
                changed = self.stopping.changed() => if changed.is_err() { break },
                Some(ask) = self.asks.recv() => self.asked(ask).await,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
        self.save().await;
        self.shown.finished.send_replace(true);
    }

    /// Where it was; or, the first time, here, with the incidents that are open.
    async fn take_up(&mut self) {
        let ledger = self.deps.ledger.clone();
        loop {
            let head = ledger.events().head();
            let known = ledger.read_blocking(|reader| {
                let cursor = reader.cursor(ID.as_str())?;
                let open = if cursor == 0 { reader.never_explained(i64::try_from(PENDING).unwrap_or(i64::MAX))? } else { Vec::new() };
                Ok((cursor, open))
            });
            match known {
                Ok((0, open)) => {
                    (self.position, self.cursor) = (head, 0);
                    open.into_iter().for_each(|id| self.want(id, head.max(1), Duration::ZERO));
                    self.save().await;
                    return;
                }
                Ok((cursor, _)) => {
                    (self.position, self.cursor) = (cursor, cursor);
                    return;
                }
                Err(error) => self.wait(UNAVAILABLE, error.to_string()).await,
            }
        }
    }

    /// Reads some events; whether there may be more.
    async fn read(&mut self) -> bool {
        if self.pending.len() >= PENDING {
            return false;
        }
        let entries = match self.deps.ledger.events().next(self.position, EVENTS) {
            Ok(entries) => entries,
            Err(error) => {
                self.wait(UNAVAILABLE, error.to_string()).await;
                return true;
            }
        };
        self.clear_trouble();
        let more = !entries.is_empty();
        for entry in entries {
            match entry {
                EventEntry::Event(envelope) => {
                    self.hear(&envelope);
                    self.position = envelope.seq;
                }
                EventEntry::Gap { oldest } => {
                    self.position = oldest.saturating_sub(1);
                    // what the missing events told of shows in the incidents
                    let open = self.deps.ledger.read_blocking(|reader| reader.never_explained(i64::try_from(PENDING).unwrap_or(i64::MAX)));
                    open.unwrap_or_default().into_iter().for_each(|id| self.want(id, oldest, Duration::ZERO));
                }
            }
        }
        if self.safe().saturating_sub(self.cursor) >= SAVE_AFTER {
            self.save().await;
        }
        more
    }

    fn hear(&mut self, envelope: &Envelope) {
        let settle = self.deps.config().settle.0;
        match &envelope.event {
            Event::IncidentCreated(incident) => self.want(incident.id.clone(), envelope.seq, settle),
            Event::IncidentUpdated { incident, .. } if incident.merged_into.is_some() => {
                self.pending.remove(&incident.id);
            }
            Event::IncidentUpdated { incident, changes } => {
                let tells = |kind: &TimelineKind| {
                    use TimelineKind::{AlertFiring, AlertJoined, Merged, Renamed, Reopened, Resolved, SeverityRaised};
                    matches!(kind, AlertFiring | AlertJoined | Merged | Renamed | Reopened | Resolved | SeverityRaised)
                };
                let explained = self.last.get(&incident.id).copied();
                // after a restart its last explanation is not remembered, and it is looked into once more
                let grown = changes.is_empty() && explained.is_none_or(|last| incident.occurrences >= last.occurrences.saturating_mul(2));
                if changes.iter().any(tells) || grown {
                    let refresh = self.deps.config().refresh.0;
                    let rest = explained.map_or(Duration::ZERO, |last| refresh.saturating_sub(last.at.elapsed()));
                    self.want(incident.id.clone(), envelope.seq, settle.max(rest));
                }
            }
            _ => {}
        }
    }

    fn want(&mut self, id: IncidentId, seq: Seq, within: Duration) {
        let at = Instant::now() + within;
        let due = self.pending.entry(id).or_insert(Due { first: seq, last: seq, at, failures: 0 });
        due.last = due.last.max(seq);
    }

    /// The cursor that loses nothing: before the first event that still asks for something.
    fn safe(&self) -> Seq {
        let first = self.pending.values().map(|due| due.first).min();
        first.map_or(self.position, |first| first.saturating_sub(1).min(self.position))
    }

    async fn explain_due(&mut self) {
        let now = Instant::now();
        let due = self.pending.iter().filter(|(_, due)| due.at <= now).min_by_key(|(_, due)| due.at);
        let Some((id, due)) = due.map(|(id, due)| (id.clone(), *due)) else { return };
        match self.explain(&id, due.last, None).await {
            Ok(()) => {
                self.pending.remove(&id);
            }
            Err(LedgerError::NotFound(_)) => {
                self.pending.remove(&id);
            }
            Err(LedgerError::Conflict(_)) => {
                self.deps.metrics.outcome("superseded");
                self.pending.remove(&id);
            }
            Err(error) => {
                let passes = matches!(error, LedgerError::Busy | LedgerError::Unavailable(_));
                if let Some(due) = self.pending.get_mut(&id) {
                    due.at = Instant::now() + UNAVAILABLE;
                    due.failures = due.failures.saturating_add(u32::from(!passes));
                }
                if due.failures.saturating_add(u32::from(!passes)) >= TRIES {
                    slog::error!(self.deps.log, "an incident cannot be explained"; "incident" => id.as_str(), "error" => %error);
                    self.deps.metrics.outcome("failed");
                    self.pending.remove(&id);
                }
                self.wait(BUSY, error.to_string()).await;
            }
        }
    }

    async fn asked(&mut self, ask: Ask) {
        let Ask { incident, by, answer } = ask;
        let outcome = self.explain(&incident, 0, Some(by)).await.map_err(|error| match error {
            LedgerError::NotFound(_) => ExplainError::NotFound(error.to_string()),
            other => ExplainError::Unavailable(other.to_string()),
        });
        drop(answer.send(outcome)); // whoever asked may have given up waiting
    }

    /// Explains an incident and stores that with the cursor it allows.
    async fn explain(&mut self, id: &IncidentId, upto: Seq, by: Option<Actor>) -> Result<(), LedgerError> {
        let mut tried = 0;
        loop {
            tried += 1;
            let basis = self.deps.ledger.events().head();
            let (config, actions) = (self.deps.config(), self.deps.actions());
            let clock = Arc::clone(self.deps.ledger.clock());
            let began = clock.elapsed();
            let made = match make(&self.deps.ledger, &config, &actions, id, upto, by.is_some())? {
                Ok(made) => made,
                Err(Unmade::Unchanged | Unmade::Often) => {
                    self.deps.metrics.outcome("unchanged");
                    return Ok(());
                }
            };
            let took = clock.elapsed().saturating_sub(began);
            let (degraded, dropped, looked, occurrences) =
                (made.explained.explanation.degraded, made.explained.dropped, made.looked, made.occurrences);
            let new = stored(id, basis, made, by.clone());
            let cursor = {
                let others = self.pending.iter().filter(|(other, _)| *other != id).map(|(_, due)| due.first).min();
                others.map_or(self.position, |first| first.saturating_sub(1).min(self.position)).max(self.cursor)
            };
            let written = self.deps.ledger.write(Priority::Bulk, move |tx| {
                tx.explain(new)?;
                tx.save_cursor(ID.as_str(), cursor, Vec::new())
            });
            match written.await {
                Ok(()) => {
                    self.cursor = cursor;
                    let metrics = &self.deps.metrics;
                    metrics.seconds.observe(took.as_secs_f64());
                    metrics.signals.inc_by(looked);
                    metrics.dropped.inc_by(dropped);
                    metrics.outcome(if degraded { "degraded" } else { "full" });
                    if self.last.len() >= REMEMBERED {
                        self.last.clear();
                    }
                    self.last.insert(id.clone(), Last { at: Instant::now(), occurrences });
                    return Ok(());
                }
                Err(LedgerError::Conflict(_) | LedgerError::Busy) if tried < TRIES => sleep(BUSY).await,
                Err(error) => return Err(error),
            }
        }
    }

    async fn save(&mut self) {
        let cursor = self.safe().max(self.cursor);
        let saved = self.deps.ledger.write(Priority::Bulk, move |tx| tx.save_cursor(ID.as_str(), cursor, Vec::new()));
        match saved.await {
            Ok(()) => self.cursor = cursor,
            Err(error) => {
                slog::debug!(self.deps.log, "the cursor was not stored; events are read again after a restart"; "error" => %error)
            }
        }
    }

    fn show(&self) {
        let pending = self.pending.len();
        self.deps.metrics.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.shown.pending.store(pending, std::sync::atomic::Ordering::Relaxed);
        self.deps.position.send_replace(if pending == 0 { self.position } else { self.safe() });
    }

    async fn wait(&self, pause: Duration, why: String) {
        *self.shown.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        sleep(pause).await;
    }

    fn clear_trouble(&self) {
        *self.shown.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What is stored, and what the timeline is told: the first explanation, one that somebody asked for, and another likeliest cause.
fn stored(id: &IncidentId, basis: Seq, made: Made, by: Option<Actor>) -> NewExplanation {
    let Made { explained, before, .. } = made;
    let likeliest = |explanation: &Explanation| explanation.causes.first().map(|cause| cause.component.clone());
    let news = before.as_ref().is_none_or(|before| likeliest(&before.explanation) != likeliest(&explained.explanation));
    let line = (news || by.is_some()).then(|| {
        let cause = explained.explanation.causes.first();
        let cause = cause.map_or_else(
            || "nothing points to a cause".to_owned(),
            |cause| format!("likely cause: {} ({} %)", cause.component, super::say::number(100.0 * cause.share)),
        );
        let degraded = if explained.explanation.degraded { "; not complete" } else { "" };
        format!("{cause}; confidence {}{degraded}", super::say::number(explained.explanation.confidence))
    });
    NewExplanation {
        incident: id.clone(),
        times: before.map_or(0, |before| before.times),
        actor: by.unwrap_or_else(|| Actor::Module { id: ID.as_str().to_owned() }),
        stored: StoredExplanation {
            basis,
            times: 0,
            found: explained.found,
            explanation: explained.explanation,
            similar: explained.similar,
            evidence: explained.evidence,
        },
        line,
    }
}
