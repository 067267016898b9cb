//! Signals from outside, one protocol per file; what they share is here.
//!
//! Everything that takes long for each byte happens before the ledger sees a batch: reading within bounds,
//! decompression, parsing, hashing, compression. An answer of 202 waits for the commit.

pub(crate) mod body;
pub mod events;
pub(crate) mod parse;

use std::sync::Arc;

use opspilot_kernel::error::ErrorKind;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// How many bytes of bodies may be held at once by all requests together, compressed and decompressed.
pub const IN_FLIGHT: usize = 256 << 20;

/// The door: how many bytes of bodies are inside, and what was turned away.
#[derive(Debug, Clone)]
pub struct Intake {
    room: Arc<Semaphore>,
    size: usize,
    held: IntGauge,
    rejected: IntCounterVec,
}

impl Intake {
    /// A door for `bytes` of bodies at once, [`IN_FLIGHT`] unless a test wants fewer.
    pub fn new(bytes: usize, registry: &Registry) -> Result<Intake, prometheus::Error> {
        let held = IntGauge::new("opspilot_ingest_in_flight_bytes", "Bytes of bodies held by requests under way.")?;
        let rejected = IntCounterVec::new(
            Opts::new("opspilot_ingest_events_rejected_total", "Events that were not acceptable, by what was wrong with them."),
            &["code"],
        )?;
        registry.register(Box::new(held.clone()))?;
        registry.register(Box::new(rejected.clone()))?;
        let size = bytes.min(Semaphore::MAX_PERMITS) / GRAIN;
        Ok(Intake { room: Arc::new(Semaphore::new(size)), size, held, rejected })
    }

    /// A place for one request, which holds nothing yet.
    pub(crate) fn place(&self) -> Place {
        Place { intake: self.clone(), permit: None, bytes: 0 }
    }

    pub(crate) fn count_rejected(&self, code: &str) {
        self.rejected.with_label_values(&[code]).inc();
    }

    /// How many bytes are held just now, in whole grains.
    pub fn held(&self) -> usize {
        (self.size - self.room.available_permits()) * GRAIN
    }
}

/// Room is given out in pieces of this size.
const GRAIN: usize = 16 << 10;

/// The room that one request takes; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    intake: Intake,
    permit: Option<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Place {
    /// The same room for somebody else to hold; nothing is left here.
    pub(crate) fn moved(&mut self) -> Place {
        let empty = self.intake.place();
        std::mem::replace(self, empty)
    }

    /// Takes room for `more` bytes, or says that there is none.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), ApiError> {
        self.bytes = self.bytes.saturating_add(more);
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = self.bytes.div_ceil(GRAIN).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let busy = |_| ApiError::new(ErrorKind::Busy, "busy", "the service takes in more than it can just now; try again shortly");
        let wanted = u32::try_from(missing).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.intake.room).try_acquire_many_owned(wanted).map_err(busy)?;
        match &mut self.permit {
            Some(held) => held.merge(permit),
            None => self.permit = Some(permit),
        }
        self.intake.held.set(i64::try_from(self.intake.held()).unwrap_or(i64::MAX));
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.permit = None;
        self.intake.held.set(i64::try_from(self.intake.held()).unwrap_or(i64::MAX));
    }
}
