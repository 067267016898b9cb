//! `AuditActor`: the writer as the supervision tree sees it.
//!
//! | Consumes   | `Heartbeat`, `Drain`                                                          |
//! | Emits      | nothing; jobs reach the writer thread through the ledger's bounded queues      |
//! | Keeps      | nothing: the thread owns the connection, the queues belong to the handle       |
//! | On restart | starts the writer thread anew if it died; it rereads its heads from the tables |

use actix::prelude::*;
use opspilot_kernel::lifecycle::{Drain, Heartbeat, Pulse};

use crate::{
    ledger::{Ledger, Priority},
    storage::StorageHealth,
};

/// Owns the writer thread.
#[derive(Debug)]
pub struct AuditActor {
    ledger: Ledger,
}

impl AuditActor {
    pub(crate) fn new(ledger: Ledger) -> AuditActor {
        AuditActor { ledger }
    }

    fn revive(&self) -> Option<String> {
        self.ledger.ensure_writer().err().map(|error| format!("the writer cannot be started: {error}"))
    }
}

impl Actor for AuditActor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        self.revive();
    }
}

impl Supervised for AuditActor {
    fn restarting(&mut self, _: &mut Context<Self>) {}
}

impl Handler<Heartbeat> for AuditActor {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        let (control, bulk) = self.ledger.queued();
        let trouble = self.revive().or_else(|| match self.ledger.storage() {
            StorageHealth::Healthy { notice } => notice,
            StorageHealth::Failed { failure, .. } => Some(failure.to_string()),
        });
        MessageResult(Pulse { queue: control + bulk, trouble })
    }
}

impl Handler<Drain> for AuditActor {
    type Result = ResponseFuture<()>;

    /// Answered when everything queued before it is on the disk: an empty job behind it all.
    fn handle(&mut self, _: Drain, _: &mut Context<Self>) -> ResponseFuture<()> {
        let flushed = self.ledger.write(Priority::Bulk, |_| Ok(()));
        Box::pin(async move {
            if flushed.await.is_err() {
                // refused or failed: then nothing waits that could still be stored
            }
        })
    }
}
