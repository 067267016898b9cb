//! Recorded signals on their way to the detectors.

use std::collections::VecDeque;

use opspilot_kernel::{
    codec::{PieceBuilder, records},
    signal::{KindSet, SignalRef},
    time::Timestamp,
};

/// A run is cut at so many bytes, so that a file of one moment is not one run.
const RUN_BYTES: usize = 1 << 20;

/// Signals that follow each other in a recording and happened at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// When they happened.
    pub(crate) at: Timestamp,
    /// How many they are.
    pub(crate) count: u32,
    /// What kinds are among them.
    pub(crate) kinds: KindSet,
    /// The records.
    pub(crate) piece: Vec<u8>,
}

impl Run {
    /// The same signals, as if they had happened at `at`.
    pub(crate) fn moved(self, at: Timestamp) -> Run {
        let mut piece = PieceBuilder::with_capacity(self.piece.len());
        for signal in records(&self.piece).filter_map(|record| record.decode().ok()) {
            piece.push(&SignalRef { at, ..signal });
        }
        Run { at, count: piece.count(), kinds: piece.kinds(), piece: piece.into_bytes() }
    }
}

/// Makes runs of signals, one by one.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    open: Option<(Timestamp, PieceBuilder)>,
    done: VecDeque<Run>,
    /// The time of the last signal.
    pub(crate) last: Option<Timestamp>,
    /// How many signals there were.
    pub(crate) signals: u64,
    /// Whether every signal is a run of its own.
    single: bool,
}

impl Runs {
    /// With `single`, every signal is a run of its own.
    pub(crate) fn new(single: bool) -> Runs {
        Runs { single, ..Runs::default() }
    }

    /// Appends a signal.
    pub(crate) fn push(&mut self, signal: &SignalRef<'_>) {
        if self.single || self.open.as_ref().is_some_and(|(at, piece)| *at != signal.at || piece.len() > RUN_BYTES) {
            self.close();
        }
        let (_, piece) = self.open.get_or_insert_with(|| (signal.at, PieceBuilder::default()));
        piece.push(signal);
        self.last = Some(signal.at);
        self.signals += 1;
    }

    /// Ends the run under way.
    pub(crate) fn close(&mut self) {
        if let Some((at, piece)) = self.open.take() {
            self.done.push_back(Run { at, count: piece.count(), kinds: piece.kinds(), piece: piece.into_bytes() });
        }
    }

    /// The next run that is complete.
    pub(crate) fn next(&mut self) -> Option<Run> {
        self.done.pop_front()
    }
}
