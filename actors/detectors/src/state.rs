//! What a detector stores between two records of the log, piece by piece.

use serde::Serialize;

/// One piece of state that changed: its new content, or nothing if it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which piece.
    pub key: String,
    /// Its content.
    pub body: Option<Vec<u8>>,
}

impl Change {
    /// The change that leaves `state` under `key`.
    pub(crate) fn of(key: String, state: Option<&impl Serialize>) -> Change {
        // a state is made of maps with text keys, texts and finite numbers: it can always be written
        Change { key, body: state.and_then(|state| serde_json::to_vec(state).ok()) }
    }

    /// The change that leaves nothing under `key`.
    pub(crate) fn gone(key: String) -> Change {
        Change { key, body: None }
    }
}
