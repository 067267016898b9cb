//! `signal_block`: one row for each group commit of signals, or for each tick.

use std::sync::Arc;

use diesel::prelude::*;
use opspilot_kernel::{
    ids::Seq,
    signal::{KindSet, LogEntry, SignalBlock},
    time::Timestamp,
};

use crate::{
    error::LedgerError,
    frames,
    read::Reader,
    schema::signal_block::dsl as t,
    tx::{loaded, stored},
};

/// A row to be written.
#[derive(Debug)]
pub(crate) struct NewBlock<'a> {
    pub(crate) first: Seq,
    pub(crate) last: Seq,
    pub(crate) kinds: KindSet,
    pub(crate) event_time: (Timestamp, Timestamp),
    pub(crate) received: (Timestamp, Timestamp),
    pub(crate) more_sources: bool,
    pub(crate) raw_len: usize,
    pub(crate) sources: &'a str,
    pub(crate) filter: &'a [u8],
    pub(crate) data: &'a [u8],
}

fn size(len: usize) -> Result<i64, LedgerError> {
    i64::try_from(len).map_err(|_| LedgerError::out_of_range("the size of a row"))
}

/// What a row takes besides its long columns, about.
const ROW: usize = 64;

/// Stores a block. Says what it takes.
pub(crate) fn insert(conn: &mut SqliteConnection, block: &NewBlock<'_>) -> Result<u64, LedgerError> {
    let takes = block.data.len() + block.filter.len() + block.sources.len() + ROW;
    let count = i32::try_from(block.last + 1 - block.first).map_err(|_| LedgerError::out_of_range("the number of signals"))?;
    diesel::insert_into(t::signal_block)
        .values((
            t::first_seq.eq(stored(block.first)?),
            t::last_seq.eq(stored(block.last)?),
            t::count.eq(count),
            t::kinds.eq(i32::from(block.kinds.bits())),
            t::at_min.eq(block.event_time.0.millis()),
            t::at_max.eq(block.event_time.1.millis()),
            t::received_min.eq(block.received.0.millis()),
            t::received_max.eq(block.received.1.millis()),
            t::more_sources.eq(block.more_sources),
            t::raw_len.eq(size(block.raw_len)?),
            t::stored_len.eq(size(takes)?),
            t::sources.eq(block.sources),
            t::filter.eq(block.filter),
            t::data.eq(block.data),
        ))
        .execute(conn)?;
    Ok(u64::try_from(takes).unwrap_or(u64::MAX))
}

pub(crate) fn insert_tick(conn: &mut SqliteConnection, seq: Seq, at: Timestamp) -> Result<u64, LedgerError> {
    insert_mark(conn, seq, at, &[])
}

/// An entry without signals: a tick, or with a body a reload. Says what it takes.
pub(crate) fn insert_mark(conn: &mut SqliteConnection, seq: Seq, at: Timestamp, body: &[u8]) -> Result<u64, LedgerError> {
    let none: &[u8] = &[];
    let (seq, at) = (stored(seq)?, at.millis());
    diesel::insert_into(t::signal_block)
        .values((
            t::first_seq.eq(seq),
            t::last_seq.eq(seq),
            t::count.eq(0),
            t::kinds.eq(0),
            t::at_min.eq(at),
            t::at_max.eq(at),
            t::received_min.eq(at),
            t::received_max.eq(at),
            t::more_sources.eq(false),
            t::raw_len.eq(0),
            t::stored_len.eq(size(body.len() + ROW)?),
            t::sources.eq("[]"),
            t::filter.eq(none),
            t::data.eq(body),
        ))
        .execute(conn)?;
    Ok(u64::try_from(body.len() + ROW).unwrap_or(u64::MAX))
}

/// What all rows take together.
pub(crate) fn total(conn: &mut SqliteConnection) -> Result<u64, LedgerError> {
    loaded(diesel::dsl::sql::<diesel::sql_types::BigInt>("SELECT COALESCE(SUM(stored_len), 0) FROM signal_block").get_result(conn)?)
}

/// The last number given out.
pub(crate) fn head(conn: &mut SqliteConnection) -> Result<Seq, LedgerError> {
    let newest: Option<i64> = t::signal_block.select(t::last_seq).order(t::first_seq.desc()).first(conn).optional()?;
    loaded(newest.unwrap_or(0))
}

/// What a follower reads of a row.
type EntryRow = (i64, i64, i32, i32, i64, i64, Vec<u8>);

pub(crate) fn entry(row: EntryRow) -> Result<(LogEntry, usize), LedgerError> {
    let (first, last, count, kinds, received_max, raw_len, data) = row;
    let (first_seq, last_seq) = (loaded(first)?, loaded(last)?);
    let received_at = Timestamp::from_millis(received_max);
    if count == 0 && !data.is_empty() {
        let reload = serde_json::from_slice(&data).map_err(|error| LedgerError::Damaged(format!("a reload: {error}")))?;
        return Ok((LogEntry::Reload { seq: last_seq, at: received_at, reload: Arc::new(reload) }, data.len() + 64));
    }
    if count == 0 {
        return Ok((LogEntry::Tick { seq: last_seq, at: received_at }, 64));
    }
    let raw_len = usize::try_from(raw_len).map_err(|_| LedgerError::Damaged("a negative size".to_owned()))?;
    let pieces = frames::decompress(&data, raw_len)?;
    let kinds = KindSet::from_bits(u8::try_from(kinds).unwrap_or(0));
    Ok((LogEntry::Batch(Arc::new(SignalBlock { first_seq, last_seq, received_at, kinds, pieces })), raw_len))
}

impl Reader<'_> {
    /// The number before the first entry received at `since` or later, of the last `most` numbers before `before`.
    pub(crate) fn signals_since(&mut self, since: Timestamp, before: Seq, most: u64) -> Result<Seq, LedgerError> {
        let first: Option<i64> = t::signal_block
            .filter(t::first_seq.ge(stored(before.saturating_sub(most))?))
            .filter(t::first_seq.lt(stored(before)?))
            .filter(t::received_max.ge(since.millis()))
            .order(t::first_seq)
            .select(t::first_seq)
            .first(self.conn)
            .optional()?;
        first.map_or(Ok(before.saturating_sub(1)), |first| Ok(loaded(first)?.saturating_sub(1)))
    }

    /// Entries that reach behind `after`, in order: at least one if there is one, up to `max_bytes`.
    pub(crate) fn signal_entries(&mut self, after: Seq, max_bytes: usize) -> Result<Vec<LogEntry>, LedgerError> {
        let after = stored(after)?;
        // the row that holds `after` starts at or before it; rows are found by their first number
        let holding: Option<i64> = t::signal_block
            .filter(t::first_seq.le(after))
            .order(t::first_seq.desc())
            .select((t::first_seq, t::last_seq))
            .first::<(i64, i64)>(self.conn)
            .optional()?
            .filter(|(_, last)| *last > after)
            .map(|(first, _)| first);
        let mut from = holding.unwrap_or(after.saturating_add(1));
        let (mut entries, mut bytes) = (Vec::new(), 0_usize);
        while bytes < max_bytes || entries.is_empty() {
            let row: Option<EntryRow> = t::signal_block
                .filter(t::first_seq.ge(from))
                .order(t::first_seq)
                .select((t::first_seq, t::last_seq, t::count, t::kinds, t::received_max, t::raw_len, t::data))
                .first(self.conn)
                .optional()?;
            let Some(row) = row else { break };
            from = row.1.saturating_add(1);
            let (entry, size) = entry(row)?;
            bytes = bytes.saturating_add(size);
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// A row that may be deleted.
struct Old {
    first: i64,
    last: i64,
    received: i64,
    takes: i64,
}

/// The oldest rows that a step may delete, never the newest of all: its number must stay known.
fn oldest(conn: &mut SqliteConnection, rows: i64, bytes: i64) -> Result<Vec<Old>, LedgerError> {
    let newest: Option<i64> = t::signal_block.select(diesel::dsl::max(t::first_seq)).first(conn)?;
    let found: Vec<(i64, i64, i64, i64)> = t::signal_block
        .filter(t::first_seq.ne(newest.unwrap_or(0)))
        .order(t::first_seq)
        .limit(rows)
        .select((t::first_seq, t::last_seq, t::received_max, t::stored_len))
        .load(conn)?;
    let mut total = 0_i64;
    Ok(found
        .into_iter()
        .take_while(|(.., takes)| {
            let room = total < bytes;
            total = total.saturating_add(*takes);
            room
        })
        .map(|(first, last, received, takes)| Old { first, last, received, takes })
        .collect())
}

/// What was deleted.
#[derive(Debug, Default)]
pub(crate) struct Deleted {
    pub(crate) rows: usize,
    /// What the rows took.
    pub(crate) bytes: u64,
    /// The first and the last number, if there were any.
    pub(crate) range: Option<(Seq, Seq)>,
}

fn delete(conn: &mut SqliteConnection, old: &[Old]) -> Result<Deleted, LedgerError> {
    let (Some(first), Some(last)) = (old.first(), old.last()) else { return Ok(Deleted::default()) };
    let rows = diesel::delete(t::signal_block.filter(t::first_seq.le(last.first))).execute(conn)?;
    let bytes = loaded(old.iter().map(|row| row.takes).sum())?;
    Ok(Deleted { rows, bytes, range: Some((loaded(first.first)?, loaded(last.last)?)) })
}

/// Deletes rows received before `before` that every follower has read.
pub(crate) fn delete_before(
    conn: &mut SqliteConnection,
    before: Timestamp,
    least: Option<Seq>,
    rows: i64,
    bytes: i64,
) -> Result<Deleted, LedgerError> {
    let least = least.map_or(Ok(i64::MAX), stored)?;
    let mut old = oldest(conn, rows, bytes)?;
    let keep = old.iter().position(|row| row.received >= before.millis() || row.last > least).unwrap_or(old.len());
    old.truncate(keep);
    delete(conn, &old)
}

/// Deletes the oldest rows whoever still wants them, until at least `excess` bytes are gone.
pub(crate) fn delete_oldest(conn: &mut SqliteConnection, excess: u64, rows: i64, bytes: i64) -> Result<Deleted, LedgerError> {
    let excess = i64::try_from(excess).unwrap_or(i64::MAX);
    let old = oldest(conn, rows, bytes.min(excess))?;
    delete(conn, &old)
}
