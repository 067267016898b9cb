//! Search over stored signals: ascending by number, within a budget, skipping rows that cannot hold what
//! is looked for.

mod near;
mod query;

use std::{collections::BTreeMap, time::Duration};

use diesel::prelude::*;
use opspilot_kernel::{
    ids::Seq,
    signal::{AlertState, KindSet, Severity, SignalKind, SignalRef},
    time::Timestamp,
};

pub use self::near::{Around, Looked};

use self::query::Query;
use crate::{
    error::LedgerError,
    frames,
    read::{Page, Reader},
    schema::signal_block::dsl as t,
    tokens::{TokenFilter, source_token},
    tx::{loaded, stored},
};

/// Which signals are wanted. An empty filter wants all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignalFilter {
    /// Event time not before.
    pub since: Option<Timestamp>,
    /// Event time before.
    pub until: Option<Timestamp>,
    /// The source, exactly.
    pub source: Option<String>,
    /// The kind.
    pub kind: Option<SignalKind>,
    /// Words, all of which must occur in message, name, title, description or label values. Case does
    /// not matter for ASCII letters. `word` matches whole words, `wor*` the beginning of one,
    /// `"two words"` exactly that; `order-81` must stand there as it is written.
    pub q: Option<String>,
    /// Only signals behind this number.
    pub after_seq: Seq,
}

/// How much a search may do before it gives what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchBudget {
    /// Rows looked at.
    pub rows: usize,
    /// Bytes of signals decompressed.
    pub bytes: usize,
    /// Time taken.
    pub time: Duration,
}

impl Default for SearchBudget {
    fn default() -> SearchBudget {
        SearchBudget { rows: 100_000, bytes: 256 << 20, time: Duration::from_secs(1) }
    }
}

/// A stored signal, on its own.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct StoredSignal {
    /// Its number.
    pub seq: Seq,
    /// The sender's identity of it; may be empty.
    pub id: String,
    /// What it is.
    pub kind: SignalKind,
    /// Who observed it.
    pub source: String,
    /// Event time.
    #[serde(rename = "timestamp")]
    pub at: Timestamp,
    /// How bad it is.
    pub severity: Severity,
    /// Alerts: whether it holds.
    pub status: AlertState,
    /// Logs: the line.
    pub message: String,
    /// Metrics and alerts: the name.
    pub name: String,
    /// Metrics: the value.
    pub value: Option<f64>,
    /// Metrics: the unit.
    pub unit: String,
    /// Alerts: the sender's identity of the condition.
    pub fingerprint: String,
    /// Alerts: one line for people.
    pub title: String,
    /// Alerts: more for people.
    pub description: String,
    /// Names and values.
    pub labels: BTreeMap<String, String>,
}

impl StoredSignal {
    fn new(seq: Seq, signal: &SignalRef<'_>) -> StoredSignal {
        StoredSignal {
            seq,
            id: signal.id.to_owned(),
            kind: signal.kind,
            source: signal.source.to_owned(),
            at: signal.at,
            severity: signal.severity,
            status: signal.state,
            message: signal.message.to_owned(),
            name: signal.name.to_owned(),
            value: signal.value,
            unit: signal.unit.to_owned(),
            fingerprint: signal.fingerprint.to_owned(),
            title: signal.title.to_owned(),
            description: signal.description.to_owned(),
            labels: signal.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        }
    }
}

/// What a search came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The signals, ascending by number.
    pub items: Vec<StoredSignal>,
    /// Where to go on; `None` at the end of the log.
    pub next_cursor: Option<String>,
    /// The last number that was looked at.
    pub scanned_until: Seq,
    /// How much was looked at: rows, and rows that had to be decompressed.
    pub scanned: (usize, usize),
}

/// Rows whose small columns are read at once.
const CHUNK: i64 = 256;

/// The small columns of a row.
#[derive(Debug, Queryable)]
struct Outline {
    first_seq: i64,
    last_seq: i64,
    count: i32,
    kinds: i32,
    at_min: i64,
    at_max: i64,
    raw_len: i64,
    more_sources: bool,
    sources: String,
}

impl SignalFilter {
    /// Whether a row's ranges allow a match.
    fn may_match(&self, row: &Outline) -> bool {
        row.count > 0
            && self.kind.is_none_or(|kind| KindSet::from_bits(u8::try_from(row.kinds).unwrap_or(u8::MAX)).contains(kind))
            && self.since.is_none_or(|since| row.at_max >= since.millis())
            && self.until.is_none_or(|until| row.at_min < until.millis())
            && (row.more_sources || self.source.as_ref().is_none_or(|source| names(&row.sources, source)))
    }

    fn wants(&self, signal: &SignalRef<'_>) -> bool {
        self.kind.is_none_or(|kind| signal.kind == kind)
            && self.since.is_none_or(|since| signal.at >= since)
            && self.until.is_none_or(|until| signal.at < until)
            && self.source.as_ref().is_none_or(|source| signal.source == source)
    }
}

/// Whether the JSON list `sources` has `source` in it.
fn names(sources: &str, source: &str) -> bool {
    serde_json::from_str::<Vec<String>>(sources).map_or(true, |named| named.iter().any(|name| name == source))
}

impl Reader<'_> {
    /// Searches the signals that are kept. A page may be short, or empty, and still have a `next_cursor`:
    /// then the budget was used up.
    pub fn signals(&mut self, filter: &SignalFilter, page: &Page, budget: &SearchBudget) -> Result<Found, LedgerError> {
        let query = Query::parse(filter.q.as_deref().unwrap_or(""))?;
        let mut after = filter.after_seq;
        if let Some(cursor) = &page.cursor {
            let seq: Seq = cursor.parse().map_err(|_| LedgerError::Cursor)?;
            after = after.max(seq);
        }
        let started = self.clock.elapsed();
        let mut found = Found { items: Vec::new(), next_cursor: None, scanned_until: after, scanned: (0, 0) };
        let mut bytes = 0_usize;
        // the row that holds `after` may have signals behind it
        let holding: Option<i64> = t::signal_block
            .filter(t::first_seq.le(stored(after)?))
            .order(t::first_seq.desc())
            .select(t::first_seq)
            .first(self.conn)
            .optional()?;
        let mut from = holding.unwrap_or(0);
        loop {
            let rows: Vec<Outline> = t::signal_block
                .filter(t::first_seq.ge(from))
                .order(t::first_seq)
                .limit(CHUNK)
                .select((t::first_seq, t::last_seq, t::count, t::kinds, t::at_min, t::at_max, t::raw_len, t::more_sources, t::sources))
                .load(self.conn)?;
            if rows.is_empty() {
                return Ok(found);
            }
            for row in rows {
                let last = loaded(row.last_seq)?;
                from = row.last_seq.saturating_add(1);
                if last <= after {
                    continue;
                }
                let spent =
                    found.scanned.0 >= budget.rows || bytes >= budget.bytes || self.clock.elapsed().saturating_sub(started) >= budget.time;
                // at least one row, so that whoever asks again gets on
                if spent && found.scanned.0 > 0 {
                    found.next_cursor = Some(found.scanned_until.to_string());
                    return Ok(found);
                }
                found.scanned.0 += 1;
                if filter.may_match(&row) && self.filter_allows(&row, filter, &query)? {
                    found.scanned.1 += 1;
                    bytes = bytes.saturating_add(usize::try_from(row.raw_len).unwrap_or(usize::MAX));
                    if self.search_row(&row, filter, &query, after, page.limit, &mut found)? {
                        found.next_cursor = Some(found.scanned_until.to_string());
                        return Ok(found);
                    }
                }
                found.scanned_until = last;
            }
        }
    }

    /// Whether the row's token filter allows a match.
    fn filter_allows(&mut self, row: &Outline, filter: &SignalFilter, query: &Query) -> Result<bool, LedgerError> {
        let unnamed = filter.source.as_ref().filter(|source| row.more_sources && !names(&row.sources, source));
        if query.tokens().next().is_none() && unnamed.is_none() {
            return Ok(true);
        }
        let bytes: Vec<u8> = t::signal_block.find(row.first_seq).select(t::filter).first(self.conn)?;
        let held = TokenFilter::from_bytes(bytes);
        Ok(query.tokens().all(|token| held.may_contain(token)) && unnamed.is_none_or(|source| held.may_contain(source_token(source))))
    }

    /// Looks through a row; `true` if the page is full before its end.
    fn search_row(
        &mut self,
        row: &Outline,
        filter: &SignalFilter,
        query: &Query,
        after: Seq,
        limit: usize,
        found: &mut Found,
    ) -> Result<bool, LedgerError> {
        let data: Vec<u8> = t::signal_block.find(row.first_seq).select(t::data).first(self.conn)?;
        let raw_len = usize::try_from(row.raw_len).map_err(|_| LedgerError::Damaged("a negative size".to_owned()))?;
        let mut seq = loaded(row.first_seq)?;
        for piece in frames::decompress(&data, raw_len)? {
            let may = query.may_match(&piece);
            for record in opspilot_kernel::codec::records(&piece) {
                let own = seq;
                seq += 1;
                if !may || own <= after || !query.may_match(record.bytes()) {
                    continue;
                }
                let signal = record.decode()?;
                if !filter.wants(&signal) || !query.matches(&signal) {
                    continue;
                }
                if found.items.len() == limit {
                    found.scanned_until = found.items.last().map_or(found.scanned_until, |last| last.seq);
                    return Ok(true);
                }
                found.items.push(StoredSignal::new(own, &signal));
            }
        }
        Ok(false)
    }
}
