//! After a restart: the way back to where a detector was, over the signals that its stored state does not contain yet.

use opspilot_kernel::ids::Seq;
use opspilot_ledger::{Ledger, LedgerError};
use opspilot_runtime::Entries as _;

use crate::{Detect, Shelf};

/// Read at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// A base that cannot be read for want of a connection is asked for so often.
const TRIES: usize = 5;

/// A module's shelf in the ledger.
#[derive(Debug)]
struct LedgerShelf {
    ledger: Ledger,
    module: &'static str,
}

impl Shelf for LedgerShelf {
    fn keys(&self) -> Result<Vec<String>, String> {
        self.ledger.read_blocking(|reader| reader.shelf_keys(self.module)).map_err(|error| error.to_string())
    }

    fn read(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        let mut answer = self.ledger.read_blocking(|reader| reader.shelved(self.module, key));
        for _ in 1..TRIES {
            if !matches!(answer, Err(LedgerError::Busy)) {
                break;
            }
            answer = self.ledger.read_blocking(|reader| reader.shelved(self.module, key));
        }
        answer.map_err(|error| error.to_string())
    }
}

/// How far the way back is.
#[derive(Debug, Default)]
pub(crate) struct Relearn {
    stage: Stage,
    /// Numbers of the log that had to be read again and were removed before.
    pub(crate) lost: u64,
    /// How many were read again.
    pub(crate) again: u64,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Begin,
    Read {
        after: Seq,
        upto: Seq,
        /// What the detector failed at in its first life, and must not be given again.
        set_aside: Vec<(Seq, Seq)>,
    },
    Done,
}

impl Relearn {
    /// Goes a part of the way; whether there is more.
    pub(crate) fn step<D: Detect>(&mut self, detector: &mut D, ledger: &Ledger) -> Result<bool, LedgerError> {
        match &mut self.stage {
            Stage::Done => return Ok(false),
            Stage::Begin => {
                let upto = ledger.read_blocking(|reader| reader.cursor(D::ID))?;
                let behind = detector.behind();
                let set_aside = ledger.read_blocking(|reader| reader.set_aside(D::ID, behind.unwrap_or(upto)))?;
                let shelf = Box::new(LedgerShelf { ledger: ledger.clone(), module: D::ID });
                // storage answered a moment ago: it will again
                detector.begin(shelf).map_err(|_| LedgerError::Busy)?;
                let Some(after) = behind else {
                    self.stage = Stage::Done;
                    return Ok(false);
                };
                self.stage = Stage::Read { after, upto, set_aside };
            }
            Stage::Read { after, upto, set_aside } => {
                let entries = if *after < *upto { ledger.signals().next(*after, CHUNK_BYTES)? } else { Vec::new() };
                for entry in entries {
                    let Some(entry) = entry.within(after.saturating_add(1), *upto) else { break };
                    self.lost = self.lost.saturating_add(entry.first_seq().saturating_sub(after.saturating_add(1)));
                    self.again = self.again.saturating_add(entry.last_seq().saturating_add(1).saturating_sub(entry.first_seq()));
                    *after = entry.last_seq();
                    let mut from = entry.first_seq();
                    for (first, last) in set_aside.iter() {
                        if *last < from || *first > *after {
                            continue;
                        }
                        if let Some(part) = entry.clone().within(from, first.saturating_sub(1)).filter(|_| from < *first) {
                            detector.relearn(&part);
                        }
                        from = last.saturating_add(1);
                    }
                    if let Some(part) = entry.within(from, *after).filter(|_| from <= *after) {
                        detector.relearn(&part);
                    }
                }
                // nothing more is there, or the rest is behind what retention left
                let next = ledger.signals().next(*after, 1)?;
                if *after >= *upto || next.first().is_none_or(|next| next.first_seq() > *upto) {
                    self.lost = self.lost.saturating_add(upto.saturating_sub(*after));
                    detector.relearned(*upto);
                    self.stage = Stage::Done;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
