//! What carries a message to where it belongs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde_json::Value;

/// A message, ready to go.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The same at every attempt.
    pub(crate) dedup: String,
    /// For people, in one line.
    pub(crate) subject: String,
    /// For machines.
    pub(crate) body: Value,
}

/// Why it did not arrive. It is shown to people: no address, no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotCarried {
    /// It was tried.
    Failed(String),
    /// It was not tried: the other side kept failing and is left alone for a while.
    LeftAlone(String),
}

/// Carries messages of one channel.
pub(crate) trait Carry: Send + Sync {
    /// Ends within the channel's timeout; `Ok` only when it arrived.
    fn carry(&self, message: Message) -> BoxFuture<'static, Result<(), NotCarried>>;
}

/// Does what may block on a thread that may: one at a time, so that a device that hangs holds one thread and no more.
#[derive(Debug, Clone, Default)]
pub(super) struct Aside {
    is_busy: Arc<AtomicBool>,
}

impl Aside {
    pub(super) fn run(
        &self,
        timeout: Duration,
        work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
    ) -> BoxFuture<'static, Result<(), NotCarried>> {
        let is_busy = Arc::clone(&self.is_busy);
        Box::pin(async move {
            let failed = |why: String| Err(NotCarried::Failed(why));
            if is_busy.swap(true, Ordering::SeqCst) {
                return failed("an earlier write does not come to an end".to_owned());
            }
            let done = tokio::task::spawn_blocking(move || {
                let outcome = work();
                is_busy.store(false, Ordering::SeqCst);
                outcome
            });
            match tokio::time::timeout(timeout, done).await {
                Ok(Ok(Ok(()))) => Ok(()),
                Ok(Ok(Err(error))) => failed(error.to_string()),
                Ok(Err(_)) => failed("the write panicked".to_owned()),
                Err(_) => failed("it could not be written in time".to_owned()),
            }
        })
    }
}
