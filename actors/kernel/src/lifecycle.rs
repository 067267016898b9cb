//! Commands that every supervised actor understands.

use actix::Message;

/// "Are you there?": answered as soon as the actor gets to it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Pulse")]
pub struct Heartbeat;

/// The answer to a [`Heartbeat`].
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// Work that waits, as far as the actor knows: messages, bytes behind, rows behind.
    pub queue: usize,
    /// A loss a person should know of; makes the module `degraded` while it is there.
    pub trouble: Option<String>,
}

/// "Finish what you have, take nothing new": answered when everything before it is done.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Drain;
