//! The pipeline's loop.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError},
    time::Duration,
};

use opspilot_kernel::{
    facets::Facets,
    ids::{Seq, SilenceId},
};
use opspilot_ledger::{
    AlertEntry, DeadLetter, LedgerError, ListedSilence, Priority,
    pipeline::{Board, BoardRequest, Commit, SilenceSet},
};
use opspilot_runtime::{AskError, AttemptBook, Entries, Phase, RequeueError};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::{Deps, ID, Letter, Shown, Strikes};
use crate::{
    incident_store::{
        self, Rules,
        decide::{TIMERS_PER_TICK, decide},
        desk::Effects,
    },
    silence::{self, decide::SWEPT_PER_TICK, judge::Rules as SilenceRules},
    stage::Item,
    stage_actor::{Decide, Poisoned},
};

/// Entries decided on together; each batch is one transaction.
const BATCH: usize = 500;
/// How often an idle pipeline looks whether a person set a timer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long it waits when the writer's queue is full.
const BUSY: Duration = Duration::from_millis(5);
/// How long it waits when something it needs is not there.
const UNAVAILABLE: Duration = Duration::from_millis(500);
/// So often a batch is decided on anew because what it was decided on had changed; more often counts against it.
const CONFLICTS: u32 = 10;

/// Why a batch was not committed.
enum Failure {
    /// Nothing is wrong with the batch: it is tried again after a while, however long that takes.
    Wait(Duration, String),
    /// It may be the batch's fault: counted.
    Strike(String),
    /// A stage fails on one entry.
    Poisoned(&'static str, Poisoned),
}

pub(super) struct Run {
    deps: Deps,
    shown: Arc<Shown>,
    stopping: watch::Receiver<bool>,
    letters: mpsc::Receiver<Letter>,
    cursor: Seq,
    /// Up to which event the count of open incidents was last brought up to date.
    counted_at: Seq,
    /// The silences as they were read last.
    silences: Arc<SilenceSet>,
    /// Where the cursor stood when what is held back was last counted.
    suppressed_at: Option<Seq>,
    /// Silences that it was said of that they end soon.
    ending: BTreeSet<SilenceId>,
}

impl Run {
    pub(super) fn new(deps: Deps, shown: Arc<Shown>, stopping: watch::Receiver<bool>, letters: mpsc::Receiver<Letter>) -> Run {
        Run {
            deps,
            shown,
            stopping,
            letters,
            cursor: 0,
            counted_at: Seq::MAX,
            silences: Arc::default(),
            suppressed_at: None,
            ending: BTreeSet::new(),
        }
    }

    /// Follows the alert log until it is told to stop; then finishes what is in the log and ends.
    pub(super) async fn follow(mut self) {
        self.take_up().await;
        let mut log = self.deps.ledger.alerts().watch();
        loop {
            let entries = match self.read() {
                Ok(entries) => entries,
                Err(error) => {
                    self.wait(UNAVAILABLE, error.to_string()).await;
                    continue;
                }
            };
            if entries.is_empty() {
                if *self.stopping.borrow() {
                    break;
                }
                self.idle();
                tokio::select! {
                    changed = log.changed() => if changed.is_err() { break },
                    changed = self.stopping.changed() => if changed.is_err() { break },
                    Some(letter) = self.letters.recv() => self.requeue(letter).await,
                    () = sleep(LOOK_AGAIN) => {}
                }
            } else if !self.step(entries).await && *self.stopping.borrow() {
                break; // what is missing will not come back while everything stops; the log keeps the rest
            }
        }
        self.shown.finished.send_replace(true);
    }

    async fn take_up(&mut self) {
        loop {
            match self.deps.ledger.write(Priority::Bulk, |tx| tx.follow(ID.as_str(), AlertEntry::LOG)).await {
                Ok(cursor) => match self.deps.ledger.read_blocking(|reader| reader.open_attempts(ID.as_str())) {
                    Ok(begun) => {
                        let until = begun.into_iter().map(|(_, last, _)| last).max().unwrap_or(0);
                        self.strikes(|strikes| strikes.alone_until = strikes.alone_until.max(until));
                        return self.stand_at(cursor);
                    }
                    Err(error) => self.wait(UNAVAILABLE, error.to_string()).await,
                },
                Err(LedgerError::Busy) => sleep(BUSY).await,
                Err(error) => self.wait(UNAVAILABLE, error.to_string()).await,
            }
        }
    }

    fn stand_at(&mut self, cursor: Seq) {
        self.cursor = cursor;
        self.deps.cursor.send_replace(cursor);
        let behind = self.deps.ledger.alerts().head().saturating_sub(cursor);
        self.deps.metrics.behind.set(i64::try_from(behind).unwrap_or(i64::MAX));
    }

    /// The next batch. A tick is one by itself: timers must see everything before it, and nothing behind.
    fn read(&self) -> Result<Vec<AlertEntry>, LedgerError> {
        let strikes = self.strikes(|strikes| *strikes);
        let most = if self.cursor < strikes.alone_until { 1 } else { BATCH };
        let mut entries = self.deps.ledger.alerts().next(self.cursor, most)?;
        if let Some(tick) = entries.iter().position(|entry| matches!(entry, AlertEntry::Tick { .. })) {
            entries.truncate(tick.max(1));
        }
        Ok(entries)
    }

    /// Gets a batch decided and committed; false if it has to wait for something.
    async fn step(&mut self, entries: Vec<AlertEntry>) -> bool {
        let (Some(first), Some(last)) = (entries.first().map(AlertEntry::seq), entries.last().map(AlertEntry::seq)) else {
            return true;
        };
        let count = u64::try_from(entries.len()).unwrap_or(0);
        let strikes = self.strikes(|strikes| {
            if (strikes.first, strikes.last) != (first, last) {
                *strikes = Strikes { first, last, count: 0, ..*strikes };
            }
            // counted before it is tried: a panic of this very loop must leave its mark too
            strikes.count += 1;
            *strikes
        });
        match self.count_attempt(first, last).await {
            Err(why) => {
                self.strikes(|strikes| strikes.count = strikes.count.saturating_sub(1));
                self.wait(UNAVAILABLE, why).await;
                return false;
            }
            Ok(attempts) if attempts > AttemptBook::LIMIT && first == last => {
                if let Some(only) = entries.first() {
                    self.set_aside(only, "the process ended each time it was tried", attempts - 1).await;
                }
                return true;
            }
            Ok(_) => {}
        }
        let alone = strikes.alone_until >= last;
        let careful = alone || strikes.count > AttemptBook::LIMIT;
        let failure = match self.process(&entries, self.cursor, last, careful, None).await {
            Ok(()) => {
                self.clear_trouble();
                self.strikes(|strikes| strikes.count = 0);
                self.deps.metrics.entries.inc_by(count);
                return true;
            }
            Err(failure) => failure,
        };
        match failure {
            Failure::Wait(span, why) => {
                self.strikes(|strikes| strikes.count = strikes.count.saturating_sub(1));
                self.forget_attempt(first, last).await;
                self.wait(span, why).await;
                return false;
            }
            Failure::Poisoned(stage, Poisoned { index }) => {
                let mut before = entries;
                let poison = before.split_off(index.min(before.len()));
                if let Some(end) = before.last().map(AlertEntry::seq)
                    && self.process(&before, self.cursor, end, true, None).await.is_err()
                {
                    return true; // the next round sees to what is left
                }
                if let Some(poison) = poison.first() {
                    self.set_aside(poison, &format!("{stage} fails on it"), strikes.count).await;
                }
            }
            Failure::Strike(why) => {
                slog::warn!(self.deps.log, "a batch of alerts could not be processed";
                    "first" => first, "last" => last, "attempt" => strikes.count, "error" => &why);
                if strikes.count > AttemptBook::LIMIT || (alone && strikes.count > 1) {
                    match entries.as_slice() {
                        [only] => self.set_aside(only, &why, strikes.count).await,
                        _ => self.strikes(|strikes| strikes.alone_until = last),
                    }
                }
            }
        }
        true
    }

    /// Decides on `entries` and commits; the cursor goes from `from` to `to`.
    async fn process(
        &mut self,
        entries: &[AlertEntry],
        from: Seq,
        to: Seq,
        careful: bool,
        letter: Option<&DeadLetter>,
    ) -> Result<(), Failure> {
        let mut conflict = String::new();
        for _ in 0..CONFLICTS {
            let board = Arc::new(self.board(entries)?);
            let commit = self.decide(entries, board, from, to, careful).await?;
            let done = letter.map(|letter| letter.id.clone());
            let backlog = from < self.deps.backlog;
            let applied = self.deps.ledger.write(Priority::Bulk, move |tx| {
                tx.apply_decisions(commit)?;
                if backlog {
                    tx.clear_attempts(ID.as_str(), to)?;
                }
                done.map_or(Ok(()), |letter| tx.dead_letter_done(&letter))
            });
            match applied.await {
                Ok(()) => {
                    self.stand_at(to);
                    return Ok(());
                }
                Err(LedgerError::Conflict(why)) => {
                    self.deps.metrics.conflicts.inc();
                    let cursor = self.deps.ledger.read_blocking(|reader| reader.cursor(ID.as_str())).map_err(refused)?;
                    if cursor != from {
                        // an earlier run of this loop had it committed after all
                        self.stand_at(cursor);
                        return Ok(());
                    }
                    conflict = why;
                }
                Err(error) => return Err(refused(error)),
            }
        }
        Err(Failure::Strike(format!("it is in conflict again and again: {conflict}")))
    }

    fn board(&mut self, entries: &[AlertEntry]) -> Result<Board, Failure> {
        let mut request = BoardRequest { silences: Arc::clone(&self.silences), ..BoardRequest::default() };
        let rules = self.rules();
        for entry in entries {
            match entry {
                AlertEntry::Record { record, .. } => {
                    request.claims.insert(record.alert.clone());
                    request.fingerprints.insert(record.fingerprint);
                }
                AlertEntry::Tick { at, .. } => {
                    request.due = Some((*at, u32::try_from(TIMERS_PER_TICK).unwrap_or(u32::MAX)));
                }
            }
        }
        for stage in self.deps.stages.running() {
            stage.reads(entries, &mut request);
        }
        let board = self.deps.ledger.read_blocking(|reader| {
            if let Some((at, _)) = request.due {
                let (silences, sweep) = (reader.silence_set(&request.silences)?, reader.sweep()?);
                request.firing = rules.sweep_at(&silences, &sweep, at).map(|sweep| (sweep.place, SWEPT_PER_TICK));
            }
            let mut board = reader.board(&request)?;
            let records = entries.iter().filter_map(|entry| match entry {
                AlertEntry::Record { record, .. } => Some(Facets::from(&**record)),
                AlertEntry::Tick { .. } => None,
            });
            let known = board.alerts.values().map(|state| Facets::from(&state.alert));
            let keys = records.chain(known).flat_map(|alert| rules.keys(alert)).collect();
            // of those that are read, the records of this batch may end as many as there are
            board.inhibitors = reader.inhibitors(&keys, entries.len() + 1)?;
            Ok(board)
        });
        let board = board.map_err(refused)?;
        self.silences = Arc::clone(&board.silences);
        Ok(board)
    }

    /// What holds alerts back; nothing while the stage is switched off.
    fn rules(&self) -> SilenceRules {
        self.deps.stages.running().iter().find_map(|stage| stage.holds_back()).unwrap_or_else(SilenceRules::none)
    }

    async fn decide(&self, entries: &[AlertEntry], board: Arc<Board>, from: Seq, to: Seq, careful: bool) -> Result<Commit, Failure> {
        let mut items: Vec<Item> = entries.iter().cloned().map(Item::new).collect();
        let mut decisions = Vec::new();
        let mut effects = None;
        let running = self.deps.stages.running();
        let mut sweep = match running.iter().any(|stage| stage.id() == silence::ID) {
            true => None,
            // what was held back while it ran must not stay so
            false => silence::decide::decide(&SilenceRules::none(), &board, &mut items),
        };
        for stage in running {
            let id = stage.id();
            let question = Decide { board: Arc::clone(&board), items, careful };
            let answer = match stage.ask(question).await {
                Ok(Ok(answer)) if answer.items.len() == entries.len() => answer,
                Ok(Ok(_)) => return Err(Failure::Strike(format!("{id} lost entries"))),
                Ok(Err(poisoned)) => return Err(Failure::Poisoned(id.as_str(), poisoned)),
                Err(AskError::Busy) => return Err(Failure::Wait(BUSY, format!("{id} is busy"))),
                Err(error) if matches!(stage.phase(), Phase::Failed | Phase::Stopped) => {
                    return Err(Failure::Wait(UNAVAILABLE, format!("alerts wait for {id}: {error}")));
                }
                Err(error) => return Err(Failure::Strike(format!("{id}: {error}"))),
            };
            items = answer.items;
            decisions.extend(answer.decisions);
            effects = answer.effects.or(effects);
            sweep = answer.sweep.or(sweep);
        }
        let effects = effects.unwrap_or_else(|| decide(&Rules::OFF, &board, &items).0);
        let read = board.incidents.iter().map(|(id, state)| (id.clone(), state.rev)).collect();
        let Effects { alerts, incidents, merges } = effects;
        let silences = board.silences.rev;
        Ok(Commit { module: ID.as_str(), from, to, read, silences, sweep, alerts, incidents, merges, decisions })
    }

    /// Counts an attempt where the next process finds it, if these entries were there when this one started. Says how many
    /// there were, this one included; 0 for entries that came since.
    async fn count_attempt(&self, first: Seq, last: Seq) -> Result<u32, String> {
        if first > self.deps.backlog {
            return Ok(0);
        }
        loop {
            match self.deps.ledger.write(Priority::Bulk, move |tx| tx.count_attempt(ID.as_str(), first, last)).await {
                Err(LedgerError::Busy) => sleep(BUSY).await,
                counted => return counted.map_err(|error| error.to_string()),
            }
        }
    }

    /// The attempt says nothing about the entries: something else is missing. Without this each start in vain counts.
    async fn forget_attempt(&self, first: Seq, last: Seq) {
        if first > self.deps.backlog {
            return;
        }
        let forgotten = self.deps.ledger.write(Priority::Bulk, move |tx| tx.clear_attempts(ID.as_str(), last));
        if let Err(error) = forgotten.await {
            slog::debug!(self.deps.log, "an attempt stays counted"; "first" => first, "error" => %error);
        }
    }

    /// Puts an entry away that cannot be processed, and goes past it.
    async fn set_aside(&mut self, entry: &AlertEntry, why: &str, attempts: u32) {
        let (from, seq, payload, why) = (self.cursor, entry.seq(), entry.payload(), why.to_owned());
        slog::error!(self.deps.log, "an alert record was set aside"; "seq" => seq, "error" => &why);
        let put = self.deps.ledger.write(Priority::Bulk, move |tx| {
            tx.dead_letter(ID.as_str(), AlertEntry::LOG, (seq, seq), &payload, &why, attempts)?;
            tx.clear_attempts(ID.as_str(), seq)?;
            tx.pass_over(ID.as_str(), from, seq)
        });
        match put.await {
            Ok(()) => {
                self.deps.metrics.dead_letters.inc();
                self.strikes(|strikes| strikes.count = 0);
                self.stand_at(seq);
            }
            Err(error) => self.wait(UNAVAILABLE, error.to_string()).await,
        }
    }

    /// Tries a dead letter again: on the state as it is now, without moving the cursor.
    async fn requeue(&mut self, Letter { id, answer }: Letter) {
        let found = self.deps.ledger.read_blocking(|reader| reader.requeued(ID.as_str()));
        let outcome = match found.map(|letters| letters.into_iter().find(|letter| letter.id == id)) {
            Err(_) => Err(RequeueError::Unavailable),
            Ok(None) => Err(RequeueError::Unknown),
            Ok(Some(letter)) => match AlertEntry::revive(&letter) {
                None => Err(RequeueError::FailsAgain("what was kept of it cannot be read".to_owned())),
                Some(entry) => match self.process(&[entry], self.cursor, self.cursor, true, Some(&letter)).await {
                    Ok(()) => Ok(()),
                    Err(Failure::Wait(..)) => Err(RequeueError::Unavailable),
                    Err(Failure::Strike(why)) => Err(RequeueError::FailsAgain(why)),
                    Err(Failure::Poisoned(stage, _)) => Err(RequeueError::FailsAgain(format!("{stage} fails on it"))),
                },
            },
        };
        drop(answer.send(outcome)); // whoever asked may have given up waiting
    }

    /// Everything in the log is done: says when the next timer is due, and how many incidents are open.
    fn idle(&mut self) {
        self.clear_trouble();
        let store_runs = self.deps.stages.running().iter().any(|stage| stage.id() == incident_store::ID);
        let rules = self.rules();
        let due = self.deps.ledger.read_blocking(|reader| {
            let timer = if store_runs { reader.next_incident_timer()? } else { None };
            let (silences, sweep) = (reader.silence_set(&self.silences)?, reader.sweep()?);
            let due = timer.into_iter().chain(rules.due(&silences, &sweep)).min();
            Ok((due, silences))
        });
        let due = due.map(|(due, silences)| {
            self.silences = silences;
            due
        });
        match due {
            Ok(due) => self.deps.ticker.publish(ID.as_str(), due),
            Err(error) => slog::debug!(self.deps.log, "timers could not be read"; "error" => %error),
        }
        self.tell_of_silences(&rules);
        let head = self.deps.ledger.events().head();
        if head != self.counted_at
            && let Ok(counts) = self.deps.ledger.read_blocking(|reader| reader.open_incidents())
        {
            self.deps.metrics.open(&counts);
            self.counted_at = head;
        }
    }

    /// Counts what is held back, and reminds of silences that end soon and still hold something back: whoever set one may
    /// have forgotten it.
    fn tell_of_silences(&mut self, rules: &SilenceRules) {
        if self.suppressed_at != Some(self.cursor)
            && let Ok(counts) = self.deps.ledger.read_blocking(|reader| reader.suppressed_alerts())
        {
            self.deps.metrics.suppressed(&counts);
            self.suppressed_at = Some(self.cursor);
        }
        let Ok(ending) = self.deps.ledger.read_blocking(|reader| reader.silences_ending(rules.remind_before())) else { return };
        self.deps.metrics.ending.set(i64::try_from(ending.len()).unwrap_or(i64::MAX));
        for ListedSilence { silence, hides } in ending.iter().filter(|one| !self.ending.contains(&one.silence.id)) {
            slog::warn!(self.deps.log, "a silence ends soon and still holds alerts back that fire";
                "silence" => silence.id.as_str(), "ends_at" => %silence.ends_at, "created_by" => &silence.created_by, "alerts" => hides);
        }
        self.ending = ending.into_iter().map(|one| one.silence.id).collect();
    }

    async fn wait(&self, span: Duration, why: String) {
        self.tell_of_stages();
        if span > BUSY {
            *self.shown.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
        }
        sleep(span).await;
    }

    /// A stage that failed for good holds up every incident: then the service does not do its job.
    fn tell_of_stages(&self) {
        let failed = self.deps.stages.running().into_iter().find(|stage| stage.phase() == Phase::Failed);
        let why =
            |stage: &str| format!("{stage} failed, and alerts wait for it: no incident is made until it is restarted or switched off");
        self.deps.health.unhealthy(ID, failed.map(|stage| why(stage.id().as_str())));
    }

    fn clear_trouble(&self) {
        self.tell_of_stages();
        *self.shown.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn strikes<T>(&self, look: impl FnOnce(&mut Strikes) -> T) -> T {
        look(&mut self.deps.strikes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether the ledger refuses because of what it was asked, or because of how it is.
fn refused(error: LedgerError) -> Failure {
    match error {
        LedgerError::Busy => Failure::Wait(BUSY, error.to_string()),
        LedgerError::Unavailable(_) => Failure::Wait(UNAVAILABLE, error.to_string()),
        other => Failure::Strike(other.to_string()),
    }
}
