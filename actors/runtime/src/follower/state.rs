//! What a follower knows between two commits, and what it commits.

use std::{sync::Arc, time::Duration};

use opspilot_kernel::ids::{DeadLetterId, Seq};
use opspilot_ledger::{DONE, Ledger, LedgerError, Priority, Reader, Snapshot};

use super::{Deps, FollowerOptions};
use crate::{Committed, Consumer, Entries, Lease};

/// What was stored of a follower.
pub(super) struct Stored {
    cursor: Seq,
    done: Seq,
    snapshots: Vec<Snapshot>,
    /// Ranges an earlier run of the process began and did not finish.
    pub(super) attempts: Vec<(Seq, Seq, u32)>,
    /// Dead letters that somebody wants tried again.
    pub(super) requeued: Vec<DeadLetterId>,
}

impl Stored {
    pub(super) fn read(reader: &mut Reader<'_>, module: &str) -> Result<Stored, LedgerError> {
        let cursor = reader.cursor(module)?;
        let mut snapshots = reader.snapshots(module)?;
        let mut done = cursor;
        snapshots.retain(|snapshot| {
            if snapshot.key == DONE {
                done = snapshot.blob.as_slice().try_into().map(Seq::from_le_bytes).unwrap_or(cursor).max(cursor);
            }
            !snapshot.key.starts_with('@')
        });
        let attempts = reader.open_attempts(module)?;
        let requeued = reader.requeued(module)?.into_iter().map(|letter| letter.id).collect();
        Ok(Stored { cursor, done, snapshots, attempts, requeued })
    }
}

/// The consumer, and how far it is.
pub(super) struct State<C> {
    pub(super) consumer: C,
    /// It has consumed everything up to here.
    pub(super) position: Seq,
    /// Its output is committed up to here.
    pub(super) done: Seq,
    /// What is stored of it stands here.
    pub(super) cursor: Seq,
    saved_at: Duration,
    /// What was in the log when the process started: an earlier run may have died of it, so attempts at it are
    /// counted in the ledger before they are made.
    pub(super) suspect_upto: Seq,
}

/// What one transaction writes.
#[derive(Clone)]
pub(super) struct Commit<O> {
    pub(super) outputs: Vec<O>,
    /// Where the snapshots stand after it.
    pub(super) cursor: Seq,
    /// How far output is committed after it.
    pub(super) done: Seq,
    pub(super) snapshots: Vec<Snapshot>,
    /// Put on the shelf when the rest is committed.
    pub(super) shelved: Vec<Snapshot>,
    /// Set aside in the same transaction.
    pub(super) dead: Option<Dead>,
    /// Done with in the same transaction.
    pub(super) revived: Option<DeadLetterId>,
    /// Attempts counted in the ledger up to here are forgotten.
    pub(super) clear_upto: Option<Seq>,
}

/// Something to be set aside.
#[derive(Clone)]
pub(super) struct Dead {
    pub(super) first: Seq,
    pub(super) last: Seq,
    pub(super) payload: Vec<u8>,
    pub(super) error: String,
    pub(super) attempts: u32,
}

impl<C: Consumer> State<C> {
    pub(super) fn restore(deps: &Deps<C>, stored: Stored) -> Result<State<C>, LedgerError> {
        let mut consumer = (deps.make.lock())();
        consumer.restore(stored.snapshots).map_err(|error| LedgerError::Damaged(error.to_string()))?;
        let position = stored.cursor;
        let suspect_upto = deps.attempts.first_head(deps.module, C::Entry::head(&deps.ledger));
        if let Some((first, last, count)) = stored.attempts.iter().rfind(|(first, ..)| *first == position.saturating_add(1)) {
            deps.attempts.recall(deps.module, *first, *last, *count);
        }
        Ok(State { consumer, position, done: stored.done, cursor: stored.cursor, saved_at: deps.clock.elapsed(), suspect_upto })
    }

    /// Feeds entries; gives what is not yet committed of what they make.
    pub(super) fn consume(&mut self, entries: Vec<C::Entry>) -> Vec<C::Output> {
        let mut outputs = Vec::new();
        for entry in entries {
            self.consume_one(entry, &mut outputs);
        }
        outputs
    }

    fn consume_one(&mut self, entry: C::Entry, outputs: &mut Vec<C::Output>) {
        let (first, last) = (entry.first_seq(), entry.last_seq());
        if first <= self.done && self.done < last {
            // committed up to the middle of it
            if let Some(old) = entry.clone().within(first, self.done) {
                self.consumer.consume(&old, &mut Vec::new());
            }
            if let Some(new) = entry.within(self.done.saturating_add(1), last) {
                self.consumer.consume(&new, outputs);
            }
        } else {
            let known = outputs.len();
            self.consumer.consume(&entry, outputs);
            if last <= self.done {
                outputs.truncate(known);
            }
        }
        self.position = last;
    }

    /// Everything: output, what the consumer knows, and both numbers.
    pub(super) fn exact(&mut self, outputs: Vec<C::Output>) -> Commit<C::Output> {
        let mut snapshots = Vec::new();
        loop {
            let more = self.consumer.changed();
            if more.is_empty() {
                break;
            }
            snapshots.extend(more);
        }
        let mut shelved = Vec::new();
        loop {
            let more = self.consumer.shelve();
            if more.is_empty() {
                break;
            }
            shelved.extend(more);
        }
        let done = self.done.max(self.position);
        Commit { outputs, cursor: self.position, done, snapshots, shelved, dead: None, revived: None, clear_upto: None }
    }

    /// Output, and how far it goes.
    pub(super) fn quick(&mut self, outputs: Vec<C::Output>) -> Commit<C::Output> {
        let done = self.done.max(self.position);
        Commit {
            outputs,
            cursor: self.cursor,
            done,
            snapshots: Vec::new(),
            shelved: Vec::new(),
            dead: None,
            revived: None,
            clear_upto: None,
        }
    }

    pub(super) fn committed(&mut self, commit: &Commit<C::Output>, now: Duration) {
        self.done = self.done.max(commit.done);
        if commit.cursor != self.cursor || commit.cursor == self.position {
            self.saved_at = now;
        }
        self.cursor = commit.cursor;
    }

    fn is_dirty(&self) -> bool {
        self.position != self.cursor
    }

    pub(super) fn save_is_due(&self, deps: &Deps<C>) -> bool {
        let FollowerOptions { save_every, save_signals, .. } = deps.options;
        let age = deps.clock.elapsed().saturating_sub(self.saved_at);
        self.is_dirty() && (age >= save_every || self.consumer.is_urgent() || self.position.saturating_sub(self.cursor) >= save_signals)
    }

    /// How long until it must be stored; `None` if there is nothing to store.
    pub(super) fn save_in(&self, deps: &Deps<C>) -> Option<Duration> {
        let age = deps.clock.elapsed().saturating_sub(self.saved_at);
        self.is_dirty().then(|| deps.options.save_every.saturating_sub(age))
    }
}

/// What one transaction writes of snapshots.
const SNAPSHOT_BYTES: usize = 1 << 20;

/// Cuts snapshots into parts that each fit into a transaction; one that does not fit alone goes alone.
fn parts(snapshots: Vec<Snapshot>) -> Vec<Vec<Snapshot>> {
    let mut parts: Vec<Vec<Snapshot>> = Vec::new();
    let mut bytes = 0_usize;
    for snapshot in snapshots {
        let size = snapshot.key.len().saturating_add(snapshot.blob.len());
        bytes = bytes.saturating_add(size);
        match parts.last_mut() {
            Some(part) if bytes <= SNAPSHOT_BYTES => part.push(snapshot),
            _ => {
                bytes = size;
                parts.push(vec![snapshot]);
            }
        }
    }
    parts
}

/// Writes a commit, unless another instance has taken this one's place. Snapshots that are too large for one transaction
/// are written ahead in several; they count only with the last, which moves the cursor. What goes on the shelf follows; if
/// that fails, all is written again, which changes nothing that is there.
pub(super) async fn write<C: Consumer>(deps: Arc<Deps<C>>, lease: Lease, commit: Commit<C::Output>) -> Result<(), LedgerError> {
    let (module, log) = (deps.module, C::Entry::LOG);
    let ledger: &Ledger = &deps.ledger;
    let Commit { outputs, cursor, done, snapshots, shelved, dead, revived, clear_upto } = commit;
    let of = lease.clone();
    let mut ahead = parts(snapshots);
    let mut snapshots = ahead.pop().unwrap_or_default();
    for part in ahead {
        let lease = lease.clone();
        let staged = ledger.write(Priority::Bulk, move |tx| {
            if !lease.is_current() {
                return Err(LedgerError::Conflict("another instance has taken over".to_owned()));
            }
            tx.stage_snapshots(module, cursor, part)
        });
        staged.await?;
    }
    let committed = ledger.write(Priority::Bulk, move |tx| {
        if !lease.is_current() {
            return Err(LedgerError::Conflict("another instance has taken over".to_owned()));
        }
        snapshots.push(Snapshot { key: DONE.to_owned(), blob: done.to_le_bytes().to_vec() });
        if let Some(dead) = dead {
            tx.dead_letter(module, log, (dead.first, dead.last), &dead.payload, &dead.error, dead.attempts)?;
        }
        if let Some(id) = revived {
            tx.dead_letter_done(&id)?;
        }
        if let Some(last) = clear_upto {
            tx.clear_attempts(module, last)?;
        }
        <C::Output as Committed>::commit(tx, module, cursor, outputs, snapshots)
    });
    committed.await?;
    for part in parts(shelved) {
        let lease = of.clone();
        let written = ledger.write(Priority::Bulk, move |tx| {
            if !lease.is_current() {
                return Err(LedgerError::Conflict("another instance has taken over".to_owned()));
            }
            tx.shelve(module, part)
        });
        written.await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_cut_so_that_each_part_fits_into_a_transaction() {
        let of = |sizes: &[usize]| sizes.iter().map(|size| Snapshot { key: String::new(), blob: vec![0; *size] }).collect::<Vec<_>>();
        let cut =
            |sizes: &[usize]| parts(of(sizes)).iter().map(|part| part.iter().map(|one| one.blob.len()).collect()).collect::<Vec<Vec<_>>>();
        assert_eq!(cut(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(cut(&[1, SNAPSHOT_BYTES - 1, 1]), [vec![1, SNAPSHOT_BYTES - 1], vec![1]]);
        assert_eq!(cut(&[5, SNAPSHOT_BYTES + 1, 7, 8]), [vec![5], vec![SNAPSHOT_BYTES + 1], vec![7, 8]]);
    }
}
