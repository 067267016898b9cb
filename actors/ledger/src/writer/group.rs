//! A group commit: many jobs, one transaction, one fsync, then the answers.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
};

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use opspilot_kernel::{
    codec,
    event::Event,
    ids::Seq,
    signal::{KindSet, SignalBlock},
    time::Timestamp,
};

use super::{AppendJob, Job, Task, WriterState};
use crate::{
    batch::{Claim, SignalBatch, Sources},
    error::{FailureReason, LedgerError, StorageFailure},
    failpoint::failpoint,
    frames,
    ledger::Appended,
    tables::{
        audit,
        signals::{self, NewBlock},
    },
    tokens::{TokenFilter, source_token},
    tx::{Tx, Work},
};

/// What a job writes into the log beside signals: a few pages.
const PAGES_OF_A_JOB: u64 = 4 * 4096;

/// What the jobs of a group came to.
struct Outcomes {
    tasks: Vec<Result<(), LedgerError>>,
    appended: Result<Vec<Appended>, LedgerError>,
}

impl WriterState {
    /// Runs and commits a group, tells the followers, answers. An error means that nothing of the group
    /// is stored, everybody was told so, and the connection cannot be used any more.
    pub(crate) fn commit(&mut self, jobs: Vec<Job>) -> Result<(), StorageFailure> {
        let mut tasks: Vec<Box<dyn Task>> = Vec::new();
        let mut appends: Vec<AppendJob> = Vec::new();
        for job in jobs {
            match job {
                Job::Run(task) => tasks.push(task),
                Job::Append(append) => appends.push(append),
            }
        }
        if tasks.is_empty() && appends.is_empty() {
            return Ok(());
        }
        let metrics = &self.shared.metrics;
        metrics.group_jobs.observe(f64::from(u32::try_from(tasks.len() + appends.len()).unwrap_or(u32::MAX)));
        let clock = self.shared.options.clock.clone();
        let started = clock.elapsed();
        let mut work = Work::new(clock.now(), self.heads);
        match self.transact(&mut tasks, &mut appends, &mut work) {
            Ok(outcomes) => {
                let metrics = &self.shared.metrics;
                metrics.commits.inc();
                metrics.commit_seconds.observe(clock.elapsed().saturating_sub(started).as_secs_f64());
                self.upkeep.written += PAGES_OF_A_JOB * u64::try_from(tasks.len() + 1).unwrap_or(1);
                self.publish(work);
                failpoint!("ledger::after_commit_before_ack");
                for (task, outcome) in tasks.into_iter().zip(outcomes.tasks) {
                    task.finish(outcome);
                }
                answer(appends, outcomes.appended);
                Ok(())
            }
            Err(error) => {
                self.shared.metrics.rollbacks.inc();
                self.claims.rolled_back();
                // best effort: the connection is thrown away
                drop(AnsiTransactionManager::rollback_transaction(&mut self.conn));
                let failure = match &error {
                    LedgerError::Unavailable(failure) => failure.clone(),
                    other => StorageFailure::new(FailureReason::Io, other.to_string()),
                };
                let failure = self.settled(failure);
                // followers and health first: whoever is answered must find storage failed
                self.shared.storage.fail(failure.clone(), self.shared.options.clock.now());
                let refusal = LedgerError::from(failure.clone());
                tasks.into_iter().for_each(|task| task.finish(Err(refusal.clone())));
                appends.into_iter().for_each(|job| job.answer(Err(refusal.clone())));
                Err(failure)
            }
        }
    }

    fn transact(&mut self, tasks: &mut [Box<dyn Task>], appends: &mut [AppendJob], work: &mut Work) -> Result<Outcomes, LedgerError> {
        AnsiTransactionManager::begin_transaction_sql(&mut self.conn, "BEGIN IMMEDIATE")?;
        let mut outcomes = Vec::with_capacity(tasks.len());
        for task in tasks {
            outcomes.push(self.one(work, |tx| task.run(tx))?);
        }
        let appended = if appends.is_empty() { Ok(Vec::new()) } else { self.append(appends, work)? };
        if work.heads.audit != self.heads.audit {
            audit::store_head(&mut self.conn, &work.heads.audit)?;
        }
        failpoint!("ledger::before_commit");
        AnsiTransactionManager::commit_transaction(&mut self.conn)?;
        Ok(Outcomes { tasks: outcomes, appended })
    }

    /// Runs one job in a savepoint. The outer error fails the whole group, the inner one this job alone.
    fn one<T>(
        &mut self,
        work: &mut Work,
        job: impl FnOnce(&mut Tx<'_>) -> Result<T, LedgerError>,
    ) -> Result<Result<T, LedgerError>, LedgerError> {
        let mark = work.mark();
        AnsiTransactionManager::begin_transaction(&mut self.conn)?;
        let mut tx = Tx { conn: &mut self.conn, work, identity: &self.shared.identity };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            failpoint!("ledger::write_job");
            job(&mut tx)
        }));
        let error = match outcome {
            Ok(Ok(value)) => {
                AnsiTransactionManager::commit_transaction(&mut self.conn)?;
                return Ok(Ok(value));
            }
            Ok(Err(error)) => error,
            Err(_) => {
                self.shared.metrics.job_panics.inc();
                slog::error!(self.shared.options.log, "a job of the ledger panicked and was rolled back");
                LedgerError::Panicked
            }
        };
        // a failing device may have rolled back the whole transaction: nothing of it counts
        if error.storage().is_some() {
            return Err(error);
        }
        AnsiTransactionManager::rollback_transaction(&mut self.conn)?;
        work.return_to(mark);
        Ok(Err(error))
    }

    /// Stores all batches of the group as one row.
    fn append(&mut self, jobs: &mut [AppendJob], work: &mut Work) -> Result<Result<Vec<Appended>, LedgerError>, LedgerError> {
        let mut duplicates: Vec<Vec<u32>> = Vec::with_capacity(jobs.len());
        if jobs.iter().any(|job| !job.batch.claims.is_empty()) {
            let expired = work.now.before(self.shared.options.retention.claims);
            self.claims.load(&mut self.conn, expired)?;
        }
        for job in jobs.iter_mut() {
            let known = claim(&mut self.claims, &job.batch.claims);
            if !known.is_empty() {
                without(&mut job.batch, &known);
            }
            duplicates.push(known);
        }
        let first = work.heads.signal + 1;
        let stored = {
            self.claims.number(first);
            let claims = &mut self.claims;
            let batches: Vec<&mut SignalBatch> = jobs.iter_mut().map(|job| &mut job.batch).collect();
            let row = row(batches, first);
            let saves: Vec<_> = jobs.iter_mut().filter_map(|job| job.saves.take()).map(|saves| *saves).collect();
            let mark = work.mark();
            AnsiTransactionManager::begin_transaction(&mut self.conn)?;
            let mut tx = Tx { conn: &mut self.conn, work, identity: &self.shared.identity };
            let outcome = row.and_then(|row| {
                let mut bytes = 0;
                if let Some(row) = row {
                    bytes = row.store(&mut tx)?;
                    claims.store(tx.conn, tx.work.now)?;
                }
                for (module, snapshots) in saves {
                    let head = tx.work.heads.signal;
                    tx.move_cursor(&module, None, head, snapshots)?;
                }
                failpoint!("ledger::after_insert");
                Ok(bytes)
            });
            match outcome {
                Ok(bytes) => {
                    AnsiTransactionManager::commit_transaction(&mut self.conn)?;
                    Ok(bytes)
                }
                Err(error) if error.storage().is_some() => return Err(error),
                Err(error) => {
                    AnsiTransactionManager::rollback_transaction(&mut self.conn)?;
                    work.return_to(mark);
                    self.claims.rolled_back();
                    Err(error)
                }
            }
        };
        Ok(stored.map(|bytes| {
            let metrics = &self.shared.metrics;
            metrics.stored_bytes.inc_by(bytes);
            self.upkeep.written += bytes;
            let mut next = first;
            let mut appended = Vec::with_capacity(jobs.len());
            for (job, duplicates) in jobs.iter().zip(duplicates) {
                let accepted = job.batch.count;
                let first_seq = next;
                next += u64::from(accepted);
                metrics.duplicates.inc_by(u64::try_from(duplicates.len()).unwrap_or(0));
                metrics.clamped.inc_by(u64::from(job.batch.clamped));
                appended.push(Appended { first_seq, last_seq: next - 1, accepted, duplicates });
            }
            metrics.accepted.inc_by(next - first);
            metrics.group_signals.observe(f64::from(u32::try_from(next - first).unwrap_or(u32::MAX)));
            appended
        }))
    }

    /// Makes what was committed visible: rings first, then the heads that followers wait for.
    pub(crate) fn publish(&mut self, work: Work) {
        let shared = &self.shared;
        if work.heads.signal > self.heads.signal {
            let early = self.claims.committed(work.now);
            shared.metrics.claims_evicted.inc_by(u64::try_from(early).unwrap_or(0));
            shared.metrics.claims.set(i64::try_from(self.claims.len()).unwrap_or(i64::MAX));
        }
        if work.heads != self.heads {
            shared.files.acknowledge(&work.heads);
        }
        self.heads = work.heads;
        for (entry, bytes) in work.signals {
            shared.signals.push(entry, bytes);
        }
        for (entry, bytes) in work.alerts {
            shared.alerts.push(entry, bytes);
        }
        for (envelope, bytes) in work.events {
            shared.events.push(envelope, bytes);
        }
        shared.signals.tell(self.heads.signal);
        shared.alerts.tell(self.heads.alert);
        shared.events.tell(self.heads.event);
        shared.high_water.store(self.heads.audit.last_ts.millis(), Ordering::Relaxed);
        let size = self.heads.audit.size;
        shared.audit.send_if_modified(|known| std::mem::replace(known, size) != size);
        // after the size: whoever is woken first and finds nothing new goes back to sleep
        if work.ended {
            shared.checkpoint_wanted.notify_one();
        }
        shared.metrics.audit_size.set(i64::try_from(self.heads.audit.size).unwrap_or(i64::MAX));
        for (log, bytes) in [("signals", self.heads.sizes.signals), ("events", self.heads.sizes.events)] {
            shared.metrics.log_bytes.with_label_values(&[log]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        for (log, bytes) in
            [("signals", shared.signals.ring_bytes()), ("alerts", shared.alerts.ring_bytes()), ("events", shared.events.ring_bytes())]
        {
            shared.metrics.ring_bytes.with_label_values(&[log]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }
}

fn answer(jobs: Vec<AppendJob>, appended: Result<Vec<Appended>, LedgerError>) {
    match appended {
        Ok(appended) => jobs.into_iter().zip(appended).for_each(|(job, appended)| job.answer(Ok(appended))),
        Err(error) => jobs.into_iter().for_each(|job| job.answer(Err(error.clone()))),
    }
}

/// Claims what a batch wants to claim; the indexes of those that are known.
fn claim(claims: &mut crate::tables::claims::Claims, wanted: &[Claim]) -> Vec<u32> {
    wanted.iter().filter(|wanted| !claims.claim(wanted.key)).map(|wanted| wanted.index).collect()
}

/// Takes signals out of a batch. Rare, so it may cost: the rest is copied and compressed again.
fn without(batch: &mut SignalBatch, indexes: &[u32]) {
    let mut piece = Vec::with_capacity(batch.piece.len());
    let (mut count, mut kinds) = (0_u32, KindSet::EMPTY);
    for (index, record) in (0_u32..).zip(codec::records(&batch.piece)) {
        if indexes.binary_search(&index).is_err() {
            codec::push_record(&mut piece, record);
            count += 1;
            if let Ok(kind) = record.kind() {
                kinds.insert(kind);
            }
        }
    }
    batch.frame = None;
    (batch.piece, batch.count, batch.kinds) = (piece, count, kinds);
}

/// A row in the making.
struct Row {
    first: Seq,
    last: Seq,
    kinds: KindSet,
    event_time: (Timestamp, Timestamp),
    received: (Timestamp, Timestamp),
    sources: Sources,
    filter: TokenFilter,
    data: Vec<u8>,
    pieces: Vec<Vec<u8>>,
    raw_len: usize,
}

/// Joins the batches of a group, in order. `None` if nothing is left of them.
fn row(batches: Vec<&mut SignalBatch>, first: Seq) -> Result<Option<Row>, LedgerError> {
    let count: u64 = batches.iter().map(|batch| u64::from(batch.count)).sum();
    let Some(head) = batches.iter().find(|batch| batch.count > 0) else { return Ok(None) };
    let mut row = Row {
        first,
        last: first + count - 1,
        kinds: KindSet::EMPTY,
        event_time: head.event_time,
        received: (head.received_at, head.received_at),
        sources: Sources::default(),
        filter: TokenFilter::build(std::iter::empty()),
        data: Vec::new(),
        pieces: Vec::new(),
        raw_len: 0,
    };
    let no_memory = || LedgerError::Internal("no memory to compress".to_owned());
    let mut unnamed: Vec<u32> = Vec::new();
    let mut tokens: Vec<Vec<u32>> = Vec::new();
    let mut joined: Vec<u8> = Vec::new();
    for batch in batches.into_iter().filter(|batch| batch.count > 0) {
        row.kinds.extend(batch.kinds);
        row.event_time = (row.event_time.0.min(batch.event_time.0), row.event_time.1.max(batch.event_time.1));
        row.received = (row.received.0.min(batch.received_at), row.received.1.max(batch.received_at));
        row.sources.more |= batch.sources.more;
        for source in &batch.sources.named {
            if !row.sources.add(source) {
                unnamed.push(source_token(source));
            }
        }
        tokens.push(std::mem::take(&mut batch.tokens));
        row.raw_len += batch.piece.len();
        let piece = std::mem::take(&mut batch.piece);
        match batch.frame.take() {
            Some(frame) => {
                if !joined.is_empty() {
                    let before = std::mem::take(&mut joined);
                    row.data.extend_from_slice(&frames::compress(&before).ok_or_else(no_memory)?);
                    row.pieces.push(before);
                }
                row.data.extend_from_slice(&frame);
                row.pieces.push(piece);
            }
            None if joined.is_empty() => joined = piece,
            None => joined.extend_from_slice(&piece),
        }
    }
    if !joined.is_empty() {
        row.data.extend_from_slice(&frames::compress(&joined).ok_or_else(no_memory)?);
        row.pieces.push(joined);
    }
    tokens.push(unnamed);
    row.filter = TokenFilter::build(tokens.iter().map(Vec::as_slice));
    Ok(Some(row))
}

impl Row {
    /// Writes the row and its event. Says how many bytes it takes.
    fn store(self, tx: &mut Tx<'_>) -> Result<u64, LedgerError> {
        let sources = serde_json::to_string(&self.sources.named).map_err(|error| LedgerError::Internal(error.to_string()))?;
        let takes = signals::insert(
            tx.conn,
            &NewBlock {
                first: self.first,
                last: self.last,
                kinds: self.kinds,
                event_time: self.event_time,
                received: self.received,
                more_sources: self.sources.more,
                raw_len: self.raw_len,
                sources: &sources,
                filter: self.filter.bytes(),
                data: &self.data,
            },
        )?;
        let bytes = self.data.len() + self.filter.bytes().len() + sources.len();
        let block = SignalBlock {
            first_seq: self.first,
            last_seq: self.last,
            received_at: self.received.1,
            kinds: self.kinds,
            pieces: self.pieces,
        };
        tx.work.heads.sizes.signals += takes;
        tx.committed_block(block, self.raw_len + 256);
        tx.event(Event::LogIngested {
            first_seq: self.first,
            last_seq: self.last,
            count: self.last + 1 - self.first,
            sources: self.sources.named,
        })?;
        Ok(u64::try_from(bytes).unwrap_or(u64::MAX))
    }
}
