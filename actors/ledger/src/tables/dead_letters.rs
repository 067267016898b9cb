//! `dead_letter`: what could not be processed, set aside, visible, and requeueable.

use diesel::prelude::*;
use opspilot_kernel::{
    ids::{DeadLetterId, Seq},
    principal::Actor,
    time::Timestamp,
};
use serde_json::json;

use crate::{
    error::LedgerError,
    read::{Listed, Page, Reader},
    schema::dead_letter::dsl as t,
    tables::audit::{AuditEntry, Object},
    tx::{Tx, loaded, stored},
};

/// The largest payload that is kept, in bytes.
const MAX_PAYLOAD: usize = 64 << 10;
/// The longest error text that is kept, in bytes.
const MAX_ERROR: usize = 4 << 10;

/// Something that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DeadLetter {
    /// Its id.
    pub id: DeadLetterId,
    /// The module that could not process it.
    pub module: String,
    /// The log it came from: `signals` or `alerts`.
    pub log: String,
    /// The first number it covers.
    pub first_seq: Seq,
    /// The last number it covers.
    pub last_seq: Seq,
    /// What it was, cut at 64 KiB.
    #[serde(skip)]
    pub payload: Vec<u8>,
    /// What went wrong.
    pub error: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was set aside.
    pub at: Timestamp,
    /// When somebody had it tried again.
    pub requeued_at: Option<Timestamp>,
}

impl Tx<'_> {
    /// Sets aside what `module` cannot process. The same place twice is one dead letter.
    pub fn dead_letter(
        &mut self,
        module: &str,
        log: &str,
        (first, last): (Seq, Seq),
        payload: &[u8],
        error: &str,
        attempts: u32,
    ) -> Result<DeadLetterId, LedgerError> {
        let id = DeadLetterId::derived(&[module, log, &first.to_string(), &last.to_string()]);
        let payload = payload.get(..MAX_PAYLOAD).unwrap_or(payload);
        let error = error.get(..error.floor_char_boundary(MAX_ERROR)).unwrap_or(error);
        let row = (
            t::id.eq(id.as_str()),
            t::module.eq(module),
            t::log.eq(log),
            t::first_seq.eq(stored(first)?),
            t::last_seq.eq(stored(last)?),
            t::payload.eq(payload),
            t::error.eq(error),
            t::attempts.eq(i32::try_from(attempts).unwrap_or(i32::MAX)),
            t::at.eq(self.now().millis()),
            t::requeued_at.eq(None::<i64>),
        );
        diesel::replace_into(t::dead_letter).values(row).execute(self.conn)?;
        self.audit(AuditEntry {
            code: "DLQ01I",
            actor: Actor::Module { id: module.to_owned() },
            object: Object::new("dead_letter", id.as_str()),
            body: json!({ "log": log, "first_seq": first, "last_seq": last, "attempts": attempts, "error": error }),
            ..AuditEntry::default()
        })?;
        Ok(id)
    }

    /// Marks a dead letter as to be tried again; its module looks for such ones.
    pub fn requeue_dead_letter(&mut self, id: &DeadLetterId, actor: &Actor) -> Result<DeadLetter, LedgerError> {
        let now = self.now();
        let changed = diesel::update(t::dead_letter.find(id.as_str())).set(t::requeued_at.eq(now.millis())).execute(self.conn)?;
        if changed == 0 {
            return Err(LedgerError::NotFound(format!("dead letter {id}")));
        }
        let letter = one(self.conn, id)?;
        self.audit(AuditEntry {
            code: "DLQ02I",
            actor: actor.clone(),
            object: Object::new("dead_letter", id.as_str()),
            body: json!({ "module": letter.module, "first_seq": letter.first_seq, "last_seq": letter.last_seq }),
            ..AuditEntry::default()
        })?;
        Ok(letter)
    }

    /// Takes a dead letter away: its second try went well.
    pub fn dead_letter_done(&mut self, id: &DeadLetterId) -> Result<(), LedgerError> {
        let letter = one(self.conn, id)?;
        diesel::delete(t::dead_letter.find(id.as_str())).execute(self.conn)?;
        self.audit(AuditEntry {
            code: "DLQ03I",
            actor: Actor::Module { id: letter.module },
            object: Object::new("dead_letter", id.as_str()),
            ..AuditEntry::default()
        })?;
        Ok(())
    }
}

type Row = (String, String, String, i64, i64, Vec<u8>, String, i32, i64, Option<i64>);

fn letter(row: Row) -> Result<DeadLetter, LedgerError> {
    let (id, module, log, first, last, payload, error, attempts, at, requeued_at) = row;
    Ok(DeadLetter {
        id: DeadLetterId::given(id),
        module,
        log,
        first_seq: loaded(first)?,
        last_seq: loaded(last)?,
        payload,
        error,
        attempts: u32::try_from(attempts).unwrap_or(0),
        at: Timestamp::from_millis(at),
        requeued_at: requeued_at.map(Timestamp::from_millis),
    })
}

fn one(conn: &mut SqliteConnection, id: &DeadLetterId) -> Result<DeadLetter, LedgerError> {
    let row: Option<Row> = t::dead_letter.find(id.as_str()).first(conn).optional()?;
    letter(row.ok_or_else(|| LedgerError::NotFound(format!("dead letter {id}")))?)
}

impl Reader<'_> {
    /// Dead letters, newest first.
    pub fn dead_letters(&mut self, page: &Page) -> Result<Listed<DeadLetter>, LedgerError> {
        let limit = i64::try_from(page.limit).unwrap_or(i64::MAX);
        let mut query = t::dead_letter.order((t::at.desc(), t::id.desc())).limit(limit.saturating_add(1)).into_boxed();
        if let Some(cursor) = &page.cursor {
            let (at, id) = cursor.split_once('.').ok_or(LedgerError::Cursor)?;
            let at: i64 = at.parse().map_err(|_| LedgerError::Cursor)?;
            query = query.filter(t::at.lt(at).or(t::at.eq(at).and(t::id.lt(id.to_owned()))));
        }
        let mut items = query.load::<Row>(self.conn)?.into_iter().map(letter).collect::<Result<Vec<_>, _>>()?;
        let more = items.len() > page.limit;
        items.truncate(page.limit);
        let next_cursor = items.last().filter(|_| more).map(|last| format!("{}.{}", last.at.millis(), last.id));
        Ok(Listed { items, next_cursor })
    }

    /// Dead letters of `module` that somebody wants tried again.
    pub fn requeued(&mut self, module: &str) -> Result<Vec<DeadLetter>, LedgerError> {
        let rows: Vec<Row> =
            t::dead_letter.filter(t::module.eq(module)).filter(t::requeued_at.is_not_null()).order(t::first_seq).load(self.conn)?;
        rows.into_iter().map(letter).collect()
    }
}
