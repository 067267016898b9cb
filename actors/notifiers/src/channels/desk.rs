//! The desk: opens the outbox for all channels, and tells how they are.
//!
//! | Consumes   | `Heartbeat`, `Drain`; dead letters that somebody wanted tried again while the module was off           |
//! | Emits      | that the outbox is open                                                                                |
//! | Keeps      | nothing                                                                                                |
//! | On restart | opens the outbox again, which changes nothing the second time                                          |

use std::{sync::Arc, time::Duration};

use actix::prelude::*;
use opspilot_kernel::lifecycle::{Drain, Heartbeat, Pulse};
use opspilot_ledger::{LedgerError, Priority};
use tokio::sync::watch;

use super::{ID, Shared};

pub(super) struct Desk {
    shared: Arc<Shared>,
    opened: watch::Sender<bool>,
}

impl Desk {
    pub(super) fn new(shared: Arc<Shared>, opened: watch::Sender<bool>) -> Desk {
        Desk { shared, opened }
    }
}

impl Actor for Desk {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        let (shared, opened) = (Arc::clone(&self.shared), self.opened.clone());
        let opening = async move {
            while let Err(error) = open(&shared).await {
                slog::warn!(shared.log, "the outbox cannot be opened yet"; "error" => %error);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            opened.send_replace(true);
        };
        ctx.spawn(opening.into_actor(self));
    }
}

async fn open(shared: &Shared) -> Result<(), LedgerError> {
    let channels = shared.channels.clone();
    shared.ledger.write(Priority::Bulk, move |tx| tx.outbox_open(ID.as_str(), &channels)).await?;
    for letter in shared.ledger.read(|reader| reader.requeued(ID.as_str())).await? {
        let channels = shared.channels.clone();
        let requeued = shared.ledger.write(Priority::Bulk, move |tx| tx.outbox_requeue(ID.as_str(), &letter.id, &channels)).await;
        if let Err(error) = requeued {
            slog::warn!(shared.log, "a dead letter cannot be delivered again"; "error" => %error);
        }
    }
    Ok(())
}

impl Supervised for Desk {
    fn restarting(&mut self, _: &mut Context<Self>) {}
}

impl Handler<Heartbeat> for Desk {
    type Result = MessageResult<Heartbeat>;

    fn handle(&mut self, _: Heartbeat, _: &mut Context<Self>) -> MessageResult<Heartbeat> {
        MessageResult(Pulse { queue: 0, trouble: self.shared.trouble() })
    }
}

impl Handler<Drain> for Desk {
    type Result = ();

    fn handle(&mut self, _: Drain, _: &mut Context<Self>) {}
}
