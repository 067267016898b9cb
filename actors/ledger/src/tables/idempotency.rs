//! Answers that a repeated request gets again.
//!
//! A row is written in the transaction of the effect it answers for, kept 24
//! hours, and at most 100,000 are kept: the oldest go first, and a repeat that
//! comes after that is done again.

use std::time::Duration;

use diesel::prelude::*;

use crate::{error::LedgerError, schema::idempotency, tx::Tx};

const KEPT: Duration = Duration::from_secs(24 * 3600);
const MOST: i64 = 100_000;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Idempotent {
    /// Nothing: do the work, then store the answer with [`Tx::idempotent_answer`].
    New,
    /// The work was done; this was the answer.
    Replay(StoredAnswer),
    /// The key was used for another body.
    Mismatch,
}

/// An answer that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The body. It holds no secret.
    pub body: String,
}

impl Tx<'_> {
    /// Looks a key up. `scope` names the caller, method and route; `fingerprint` is a keyed hash of the body.
    pub fn idempotent(&mut self, scope: &str, key: &str, fingerprint: &[u8; 32]) -> Result<Idempotent, LedgerError> {
        let oldest = self.now().before(KEPT).millis();
        let found = idempotency::table
            .filter(idempotency::scope.eq(scope).and(idempotency::key.eq(key)).and(idempotency::at.gt(oldest)))
            .select((idempotency::fingerprint, idempotency::status, idempotency::body))
            .first::<(Vec<u8>, i32, String)>(self.conn)
            .optional()?;
        Ok(match found {
            None => Idempotent::New,
            Some((stored, ..)) if stored != fingerprint => Idempotent::Mismatch,
            Some((_, status, body)) => {
                let status = u16::try_from(status).map_err(|_| LedgerError::Damaged("a stored status".to_owned()))?;
                Idempotent::Replay(StoredAnswer { status, body })
            }
        })
    }

    /// Stores the answer of the work that was done in this transaction.
    pub fn idempotent_answer(&mut self, scope: &str, key: &str, fingerprint: &[u8; 32], answer: &StoredAnswer) -> Result<(), LedgerError> {
        let now = self.now();
        diesel::delete(idempotency::table.filter(idempotency::at.le(now.before(KEPT).millis()))).execute(self.conn)?;
        diesel::insert_into(idempotency::table)
            .values((
                idempotency::scope.eq(scope),
                idempotency::key.eq(key),
                idempotency::fingerprint.eq(fingerprint.as_slice()),
                idempotency::status.eq(i32::from(answer.status)),
                idempotency::body.eq(&answer.body),
                idempotency::at.eq(now.millis()),
            ))
            .execute(self.conn)?;
        let newest = idempotency::table.select(diesel::dsl::max(idempotency::num)).first::<Option<i64>>(self.conn)?.unwrap_or(0);
        diesel::delete(idempotency::table.filter(idempotency::num.le(newest - MOST))).execute(self.conn)?;
        Ok(())
    }
}
