//! What a detector counts, for its metrics.

/// Numbers since the detector was made, and as they stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Observations that met a rule.
    pub matched: u64,
    /// Observations that would have raised an alert but for a cap.
    pub held_back: u64,
    /// Observations that were left out: too late, not a number, or a resolve of something unknown.
    pub ignored: u64,
    /// Records that could not be read.
    pub damaged: u64,
    /// Alerts or series that had to go because there were too many.
    pub evicted: u64,
    /// Values for which others of their window had to be joined or to leave it early.
    pub crowded: u64,
    /// Values whose time lay ahead and that count as of their receipt.
    pub ahead: u64,
    /// Alerts or series followed now.
    pub open: usize,
    /// Bytes of the names and labels by which they are told apart.
    pub bytes: usize,
    /// Whether that is as many as there may be.
    pub full: bool,
    /// Series whose state lies on the shelf and not in memory.
    pub shelved: usize,
    /// Series that left memory for the shelf.
    pub put_away: u64,
    /// Series that came back from the shelf.
    pub taken_back: u64,
    /// Series that were forgotten: silent for too long, or for longest when there were too many.
    pub forgotten: u64,
    /// Large pieces of state that were written.
    pub bases: u64,
    /// Values that came out of order and were left out.
    pub late: u64,
    /// Values for a time that already had one.
    pub repeated: u64,
    /// Pieces of stored state that could not be read when they were wanted.
    pub unreadable: u64,
    /// Patterns compiled so far.
    pub compiled: usize,
    /// What literals and compiled patterns take in memory.
    pub pattern_bytes: usize,
}
