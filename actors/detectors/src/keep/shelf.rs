//! Where bases lie: read one by one, when they are wanted.

use std::fmt;

/// The shelf as a detector sees it. Keys begin with `~`; what lies there was committed.
pub trait Shelf: Send + fmt::Debug {
    /// All keys, in order.
    fn keys(&self) -> Result<Vec<String>, String>;
    /// What lies under one of them.
    fn read(&self, key: &str) -> Result<Option<Vec<u8>>, String>;
}
