//! The newest events, each written as a frame once, for all who listen.
//!
//! Sessions read by cursor: a client that does not read costs nothing but its place in here, and one that falls
//! behind what is kept is told so. What is kept is bounded by bytes.

use std::{collections::VecDeque, sync::Arc};

use actix_web::web::{Bytes, BytesMut};
use opspilot_kernel::{event::Envelope, ids::Seq};
use opspilot_runtime::EventKinds;
use parking_lot::RwLock;
use tokio::sync::watch;

/// One event on the board.
#[derive(Debug)]
pub(super) struct Posted {
    pub(super) envelope: Arc<Envelope>,
    /// Where its frame ends in the batch.
    end: usize,
}

/// Events that were posted together.
#[derive(Debug)]
pub(super) struct Batch {
    first: Seq,
    last: Seq,
    kinds: EventKinds,
    frames: Bytes,
    posted: Vec<Posted>,
}

impl Batch {
    /// The frames of all that pass, or all at once without a copy if `all` says that every kind in here does.
    pub(super) fn frames(&self, after: Seq, all: EventKinds, passes: impl Fn(&Envelope) -> bool, out: &mut Vec<Bytes>) {
        if after < self.first && all.covers(self.kinds) {
            out.push(self.frames.clone());
            return;
        }
        let mut start = 0;
        for posted in &self.posted {
            if posted.envelope.seq > after && passes(&posted.envelope) {
                out.push(self.frames.slice(start..posted.end));
            }
            start = posted.end;
        }
    }

    /// The number of the last event.
    pub(super) fn last(&self) -> Seq {
        self.last
    }
}

#[derive(Debug, Default)]
struct Kept {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
}

/// What lies behind a cursor.
#[derive(Debug)]
pub(super) enum Behind {
    /// These, in order; none if the cursor is at the end.
    Batches(Vec<Arc<Batch>>),
    /// What follows the cursor is not kept any more.
    Gone,
}

/// The board.
#[derive(Debug)]
pub(super) struct Board {
    kept: RwLock<Kept>,
    head: watch::Sender<Seq>,
    bound: usize,
}

/// What a posted event costs besides its frame: the fact itself, kept for filters.
const OVERHEAD: usize = 512;

impl Board {
    /// An empty board that keeps at most `bound` bytes; nothing up to `head` will be on it.
    pub(super) fn new(head: Seq, bound: usize) -> Board {
        Board { kept: RwLock::default(), head: watch::Sender::new(head), bound }
    }

    /// The last event that was posted.
    pub(super) fn head(&self) -> Seq {
        *self.head.borrow()
    }

    /// Tells of everything that is posted.
    pub(super) fn watch(&self) -> watch::Receiver<Seq> {
        self.head.subscribe()
    }

    /// How many bytes are kept.
    pub(super) fn bytes(&self) -> usize {
        self.kept.read().bytes
    }

    /// Posts events, which follow each other and what is on the board.
    pub(super) fn post(&self, events: Vec<Arc<Envelope>>) {
        let (Some(first), Some(last)) = (events.first().map(|event| event.seq), events.last().map(|event| event.seq)) else { return };
        let mut frames = BytesMut::new();
        let mut kinds = EventKinds::NONE;
        let mut posted = Vec::with_capacity(events.len());
        for envelope in events {
            super::say::event(&mut frames, &envelope);
            kinds.insert(envelope.event.kind());
            posted.push(Posted { envelope, end: frames.len() });
        }
        let cost = |batch: &Batch| batch.frames.len() * 2 + batch.posted.len() * OVERHEAD;
        let batch = Arc::new(Batch { first, last, kinds, frames: frames.freeze(), posted });
        let mut kept = self.kept.write();
        if kept.batches.back().is_some_and(|newest| newest.last + 1 != first) {
            *kept = Kept::default();
        }
        kept.bytes += cost(&batch);
        kept.batches.push_back(batch);
        while kept.bytes > self.bound
            && kept.batches.len() > 1
            && let Some(oldest) = kept.batches.pop_front()
        {
            kept.bytes = kept.bytes.saturating_sub(cost(&oldest));
        }
        drop(kept);
        self.head.send_replace(last);
    }

    /// What lies behind `after`: whole batches, at least one, up to `bytes` of frames.
    pub(super) fn behind(&self, after: Seq, bytes: usize) -> Behind {
        if after >= self.head() {
            return Behind::Batches(Vec::new());
        }
        let kept = self.kept.read();
        if kept.batches.front().is_none_or(|oldest| oldest.first > after + 1) {
            return Behind::Gone;
        }
        let from = kept.batches.partition_point(|batch| batch.last <= after);
        let mut taken = 0;
        let mut found = Vec::new();
        for batch in kept.batches.range(from..) {
            taken += batch.frames.len();
            if !found.is_empty() && taken > bytes {
                break;
            }
            found.push(Arc::clone(batch));
        }
        Behind::Batches(found)
    }
}

#[cfg(test)]
mod tests {
    use opspilot_kernel::{
        event::{Event, EventKind},
        time::Timestamp,
    };

    use super::*;

    fn event(seq: Seq) -> Arc<Envelope> {
        let event = Event::LogIngested { first_seq: seq, last_seq: seq, count: 1, sources: vec!["a".to_owned()] };
        Arc::new(Envelope { seq, at: Timestamp::ZERO, event })
    }

    fn seqs(board: &Board, after: Seq) -> Option<Vec<Seq>> {
        match board.behind(after, usize::MAX) {
            Behind::Gone => None,
            Behind::Batches(batches) => Some(
                batches.iter().flat_map(|batch| batch.posted.iter().map(|posted| posted.envelope.seq)).filter(|seq| *seq > after).collect(),
            ),
        }
    }

    #[test]
    fn a_cursor_finds_what_lies_behind_it_or_that_it_is_gone() {
        let board = Board::new(10, 1 << 20);
        assert_eq!(seqs(&board, 10), Some(vec![]), "at the end");
        assert_eq!(seqs(&board, 12), Some(vec![]), "ahead of the board");
        board.post(vec![event(11), event(12)]);
        board.post(vec![event(13)]);
        assert_eq!(seqs(&board, 10), Some(vec![11, 12, 13]));
        assert_eq!(seqs(&board, 11), Some(vec![12, 13]));
        assert_eq!(seqs(&board, 12), Some(vec![13]));
        assert_eq!(seqs(&board, 9), None, "was never on it");
        assert_eq!(board.head(), 13);
    }

    #[test]
    fn s6_the_board_is_bounded_and_forgets_the_oldest() {
        let board = Board::new(0, 20_000);
        (1..=1000).for_each(|seq| board.post(vec![event(seq)]));
        assert!(board.bytes() <= 20_000, "{}", board.bytes());
        assert_eq!(seqs(&board, 0), None);
        assert_eq!(seqs(&board, 999), Some(vec![1000]));
    }

    #[test]
    fn a_batch_is_shared_whole_when_everything_passes_and_cut_when_not() {
        let board = Board::new(0, 1 << 20);
        board.post((1..=3).map(event).collect());
        let Behind::Batches(batches) = board.behind(0, usize::MAX) else { panic!("it is there") };
        let frames = |after, all, passes: fn(&Envelope) -> bool| {
            let mut out = Vec::new();
            batches[0].frames(after, all, passes, &mut out);
            out
        };
        let whole = frames(0, EventKinds::of([EventKind::LogIngested]), |_| false);
        assert_eq!((whole.len(), whole[0].as_ptr()), (1, batches[0].frames.as_ptr()));
        let each = frames(0, EventKinds::NONE, |_| true);
        assert_eq!(each.concat(), whole[0]);
        assert_eq!(frames(1, EventKinds::ALL, |event| event.seq != 2), [each[2].clone()]);
    }
}
