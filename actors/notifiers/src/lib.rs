//! Tells people: at least once, in order, however long the other side is away.
