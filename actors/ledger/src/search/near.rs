//! Signals around a moment, the nearest first: what explains an incident is looked for there, within a budget.

use std::{collections::VecDeque, ops::ControlFlow};

use diesel::prelude::*;
use opspilot_kernel::{codec, ids::Seq, signal::SignalRef, time::Timestamp};

use super::SearchBudget;
use crate::{error::LedgerError, frames, read::Reader, schema::signal_block::dsl as t, tx::loaded};

/// Which signals are wanted: those received within a span, outwards from a moment in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Around {
    /// Where to begin, by our clock.
    pub moment: Timestamp,
    /// Received at this time or later.
    pub since: Timestamp,
    /// Received at this time or before.
    pub until: Timestamp,
    /// At most about so many signals; whole rows are read.
    pub signals: usize,
}

/// How far [`Reader::signals_near`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Looked {
    /// Signals that were handed over.
    pub signals: u64,
    /// Bytes that were decompressed.
    pub bytes: usize,
    /// Where it stopped on the way back, if it did not come to the end: nothing received before was looked at.
    pub from: Option<Timestamp>,
    /// Where it stopped on the way forward, if it did not come to the end: nothing received behind was looked at.
    pub upto: Option<Timestamp>,
}

/// Rows whose small columns are read at once.
const CHUNK: i64 = 128;
/// Of what is looked at, so much lies before the moment for each part behind it: what is usual takes more to know.
const BEFORE: u64 = 3;

/// The small columns of a row.
#[derive(Debug, Clone, Copy, Queryable)]
struct Outline {
    first_seq: i64,
    last_seq: i64,
    count: i32,
    raw_len: i64,
    received_min: i64,
    received_max: i64,
}

macro_rules! outline {
    () => {
        (t::first_seq, t::last_seq, t::count, t::raw_len, t::received_min, t::received_max)
    };
}

/// One of the two ways from the moment.
struct Way {
    rows: VecDeque<Outline>,
    /// The number to go on from; `None` at the end of the log.
    next: Option<i64>,
    signals: u64,
    ended: bool,
    /// The receipt time that was come to.
    reached: Timestamp,
}

impl Way {
    fn new(from: i64, moment: Timestamp) -> Way {
        Way { rows: VecDeque::new(), next: Some(from), signals: 0, ended: false, reached: moment }
    }

    /// Where it stopped, if that is not the end.
    fn stopped(&self) -> Option<Timestamp> {
        (!self.ended).then_some(self.reached)
    }
}

impl Reader<'_> {
    /// Hands over the signals received around a moment, row by row outwards from it, until the budget is used up or
    /// `visit` breaks off. Within a row they are in order; the rows are not.
    pub fn signals_near(
        &mut self,
        around: &Around,
        budget: &SearchBudget,
        mut visit: impl FnMut(Seq, &SignalRef<'_>) -> ControlFlow<()>,
    ) -> Result<Looked, LedgerError> {
        let started = self.clock.elapsed();
        let middle = self.first_received_at(around.moment)?;
        let (mut back, mut forth) = (Way::new(middle, around.moment), Way::new(middle, around.moment));
        let mut looked = Looked::default();
        let mut rows = 0_usize;
        let most = u64::try_from(around.signals).unwrap_or(u64::MAX);
        let mut broken = false;
        while !(broken || back.ended && forth.ended) {
            let spent = rows >= budget.rows
                || looked.bytes >= budget.bytes
                || looked.signals >= most
                || self.clock.elapsed().saturating_sub(started) >= budget.time;
            // at least the row that holds the moment
            if spent && rows > 0 {
                break;
            }
            let onwards = !forth.ended && (back.ended || forth.signals.saturating_mul(BEFORE) <= back.signals);
            let way = if onwards { &mut forth } else { &mut back };
            let Some(row) = self.next_row(way, onwards)? else { continue };
            let within = if onwards { row.received_min <= around.until.millis() } else { row.received_max >= around.since.millis() };
            if !within {
                way.ended = true;
                continue;
            }
            rows = rows.saturating_add(1);
            way.reached = Timestamp::from_millis(if onwards { row.received_max } else { row.received_min });
            if row.count == 0 {
                continue;
            }
            way.signals = way.signals.saturating_add(u64::try_from(row.count).unwrap_or(0));
            looked.bytes = looked.bytes.saturating_add(usize::try_from(row.raw_len).unwrap_or(usize::MAX));
            broken = self.visit_row(&row, &mut visit, &mut looked.signals)?.is_break();
        }
        looked.from = back.stopped();
        looked.upto = forth.stopped();
        Ok(looked)
    }

    /// The first row that was received at `moment` or later, or a number behind the last. Receipt times ascend, but
    /// for what was received by several threads at once, which does not matter here.
    fn first_received_at(&mut self, moment: Timestamp) -> Result<i64, LedgerError> {
        let (oldest, newest): (Option<i64>, Option<i64>) =
            t::signal_block.select((diesel::dsl::min(t::first_seq), diesel::dsl::max(t::last_seq))).first(self.conn)?;
        let (mut low, mut high) = (oldest.unwrap_or(1), newest.unwrap_or(0).saturating_add(1));
        while low < high {
            let middle = low.midpoint(high);
            let holding: Option<(i64, i64, i64)> = t::signal_block
                .filter(t::first_seq.le(middle))
                .order(t::first_seq.desc())
                .select((t::first_seq, t::last_seq, t::received_max))
                .first(self.conn)
                .optional()?;
            match holding {
                Some((_, last, received)) if received < moment.millis() => low = last.max(middle).saturating_add(1),
                Some((first, ..)) => high = first.min(middle),
                None => low = middle.saturating_add(1),
            }
        }
        Ok(low)
    }

    fn next_row(&mut self, way: &mut Way, onwards: bool) -> Result<Option<Outline>, LedgerError> {
        if way.rows.is_empty()
            && let Some(from) = way.next
        {
            let query = t::signal_block.select(outline!()).limit(CHUNK).into_boxed();
            let query = if onwards {
                query.filter(t::first_seq.ge(from)).order(t::first_seq)
            } else {
                query.filter(t::first_seq.lt(from)).order(t::first_seq.desc())
            };
            way.rows = query.load::<Outline>(self.conn)?.into();
            way.next = way.rows.back().map(|row| if onwards { row.last_seq.saturating_add(1) } else { row.first_seq });
        }
        let row = way.rows.pop_front();
        way.ended |= row.is_none();
        Ok(row)
    }

    fn visit_row(
        &mut self,
        row: &Outline,
        visit: &mut impl FnMut(Seq, &SignalRef<'_>) -> ControlFlow<()>,
        handed: &mut u64,
    ) -> Result<ControlFlow<()>, LedgerError> {
        let data: Vec<u8> = t::signal_block.find(row.first_seq).select(t::data).first(self.conn)?;
        let raw_len = usize::try_from(row.raw_len).map_err(|_| LedgerError::Damaged("a negative size".to_owned()))?;
        let mut seq = loaded(row.first_seq)?;
        for piece in frames::decompress(&data, raw_len)? {
            for record in codec::records(&piece) {
                let signal = record.decode()?;
                *handed = handed.saturating_add(1);
                if visit(seq, &signal).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                seq = seq.saturating_add(1);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
