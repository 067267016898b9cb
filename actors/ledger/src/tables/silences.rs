//! `silence`: which alerts people do not want to hear of, until when, and why.
//!
//! | code | meaning |
//! |---|---|
//! | `SIL01I` | a silence was set |
//! | `SIL02I` | a silence was changed |
//! | `SIL03I` | a silence was ended |

use std::time::Duration;

use diesel::prelude::*;
use opspilot_kernel::{
    ids::SilenceId,
    principal::Actor,
    silence::{Draft, Silence, SilenceState},
    time::Timestamp,
};
use serde_json::json;

use super::{
    audit::{AuditEntry, Object},
    incidents_list::{listed, number_cursor, one_more},
    incidents_rows::{counted, json as text, parsed},
    suppression::moved,
};
use crate::{
    error::LedgerError,
    read::{Listed, Page, Reader},
    schema::{alert, silence::dsl as t},
    tx::Tx,
};

/// So long a silence can be looked up after its end.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// So many can be looked up; then the oldest of those that are over go.
const MOST_KEPT: i64 = 100_000;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SilenceLimits {
    /// How many silences there may be that are not over.
    pub most: u32,
    /// How long one may last that this person sets.
    pub longest: Duration,
}

/// Which silences are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SilenceFilter {
    /// Where they stand.
    pub state: Option<SilenceState>,
}

/// A silence with what it does.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedSilence {
    /// The silence.
    pub silence: Silence,
    /// How many alerts fire that it holds back.
    pub hides: u64,
}

#[derive(Debug, Clone, Queryable, Selectable)]
#[diesel(table_name = crate::schema::silence, check_for_backend(diesel::sqlite::Sqlite))]
struct Row {
    num: i64,
    id: String,
    matchers: String,
    starts_at: i64,
    ends_at: i64,
    updated_at: i64,
    created_by: String,
    account: String,
    comment: String,
}

impl Row {
    fn read(self) -> Result<Silence, LedgerError> {
        Ok(Silence {
            id: SilenceId::given(self.id),
            matchers: parsed(&self.matchers)?,
            starts_at: Timestamp::from_millis(self.starts_at),
            ends_at: Timestamp::from_millis(self.ends_at),
            updated_at: Timestamp::from_millis(self.updated_at),
            created_by: self.created_by,
            account: self.account,
            comment: self.comment,
        })
    }
}

fn load(conn: &mut SqliteConnection, id: &SilenceId) -> Result<Silence, LedgerError> {
    let row = t::silence.filter(t::id.eq(id.as_str())).select(Row::as_select()).first(conn).optional()?;
    row.ok_or_else(|| LedgerError::NotFound(format!("the silence {id}")))?.read()
}

/// Those that are not over at `at`, by their end.
pub(super) fn not_over(conn: &mut SqliteConnection, at: Timestamp) -> Result<Vec<Silence>, LedgerError> {
    let query = t::silence.filter(t::ends_at.gt(at.millis())).order((t::ends_at, t::num));
    query.select(Row::as_select()).load(conn)?.into_iter().map(Row::read).collect()
}

fn hides(conn: &mut SqliteConnection, id: &SilenceId) -> Result<u64, LedgerError> {
    let held = alert::table.filter(alert::status.eq("firing")).filter(alert::suppressed_by.eq(format!("silence:{id}")));
    counted(held.count().get_result(conn)?)
}

fn with_what_it_hides(conn: &mut SqliteConnection, silence: Silence) -> Result<ListedSilence, LedgerError> {
    Ok(ListedSilence { hides: hides(conn, &silence.id)?, silence })
}

impl Tx<'_> {
    /// Sets a silence, or changes one. A change that would rewrite what was silenced ends the old one and sets a new one,
    /// as Alertmanager does.
    pub fn silence_set(&mut self, actor: &Actor, account: &str, draft: Draft, limits: SilenceLimits) -> Result<Silence, LedgerError> {
        let now = self.now();
        draft.check(now, limits.longest).map_err(|error| LedgerError::Invalid(error.to_string()))?;
        let old = draft.id.as_ref().map(|id| load(self.conn, id)).transpose()?;
        let in_place = old.as_ref().filter(|old| draft.fits_in_place_of(old, now));
        let starts_at = match in_place {
            Some(old) if old.state(now) == SilenceState::Active => old.starts_at,
            _ => draft.starts_at.unwrap_or(now).max(now),
        };
        let silence = Silence {
            id: in_place.map_or_else(SilenceId::random, |old| old.id.clone()),
            matchers: draft.matchers,
            starts_at,
            ends_at: draft.ends_at,
            updated_at: now,
            created_by: draft.created_by,
            account: account.to_owned(),
            comment: draft.comment,
        };
        let code = match in_place {
            Some(_) => "SIL02I",
            None => {
                if let Some(old) = old.as_ref().filter(|old| old.state(now) != SilenceState::Expired) {
                    self.end_silence(actor, old)?;
                }
                self.room_for_a_silence(limits.most)?;
                "SIL01I"
            }
        };
        self.put_silence(&silence)?;
        self.audit_silence(code, actor, &silence)?;
        moved(self.conn, false)?;
        Ok(silence)
    }

    /// Ends a silence. One that is over stays as it is.
    pub fn silence_expire(&mut self, actor: &Actor, id: &SilenceId) -> Result<(), LedgerError> {
        let silence = load(self.conn, id)?;
        if silence.state(self.now()) == SilenceState::Expired {
            return Ok(());
        }
        self.end_silence(actor, &silence)?;
        moved(self.conn, false)
    }

    fn end_silence(&mut self, actor: &Actor, silence: &Silence) -> Result<(), LedgerError> {
        let now = self.now();
        let ended = Silence { starts_at: silence.starts_at.min(now), ends_at: now, updated_at: now, ..silence.clone() };
        self.put_silence(&ended)?;
        self.audit_silence("SIL03I", actor, &ended)
    }

    fn room_for_a_silence(&mut self, most: u32) -> Result<(), LedgerError> {
        let now = self.now();
        let over = t::silence.filter(t::ends_at.le(now.millis()));
        let newest: Option<i64> = t::silence.select(diesel::dsl::max(t::num)).first(self.conn)?;
        let old = t::ends_at.le(now.before(KEPT).millis()).or(t::num.le(newest.unwrap_or(0) - MOST_KEPT));
        diesel::delete(t::silence.filter(t::ends_at.le(now.millis())).filter(old)).execute(self.conn)?;
        let all: i64 = t::silence.count().get_result(self.conn)?;
        let over: i64 = over.count().get_result(self.conn)?;
        if all - over >= i64::from(most) {
            return Err(LedgerError::Conflict(format!(
                "there are {most} silences that are not over, and no more are taken; end some first"
            )));
        }
        Ok(())
    }

    fn put_silence(&mut self, silence: &Silence) -> Result<(), LedgerError> {
        let values = (
            t::id.eq(silence.id.as_str()),
            t::matchers.eq(text(&silence.matchers)?),
            t::starts_at.eq(silence.starts_at.millis()),
            t::ends_at.eq(silence.ends_at.millis()),
            t::updated_at.eq(silence.updated_at.millis()),
            t::created_by.eq(&silence.created_by),
            t::account.eq(&silence.account),
            t::comment.eq(&silence.comment),
        );
        diesel::insert_into(t::silence).values(values.clone()).on_conflict(t::id).do_update().set(values).execute(self.conn)?;
        Ok(())
    }

    fn audit_silence(&mut self, code: &'static str, actor: &Actor, silence: &Silence) -> Result<(), LedgerError> {
        self.audit(AuditEntry {
            code,
            actor: actor.clone(),
            object: Object::new("silence", silence.id.as_str()),
            body: json!({
                "matchers": silence.matchers,
                "starts_at": silence.starts_at,
                "ends_at": silence.ends_at,
                "created_by": silence.created_by,
                "comment": silence.comment,
            }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }
}

impl Reader<'_> {
    /// Silences, the one that was set last first.
    pub fn silences(&mut self, filter: SilenceFilter, page: &Page) -> Result<Listed<ListedSilence>, LedgerError> {
        let now = self.clock.now().millis();
        let mut query = t::silence.select(Row::as_select()).into_boxed();
        query = match filter.state {
            None => query,
            Some(SilenceState::Pending) => query.filter(t::starts_at.gt(now)).filter(t::ends_at.gt(now)),
            Some(SilenceState::Active) => query.filter(t::starts_at.le(now)).filter(t::ends_at.gt(now)),
            Some(SilenceState::Expired) => query.filter(t::ends_at.le(now)),
        };
        if let Some(before) = number_cursor(page)? {
            query = query.filter(t::num.lt(before));
        }
        let rows: Vec<Row> = query.order(t::num.desc()).limit(one_more(page)).load(self.conn)?;
        let Listed { items, next_cursor } = listed(rows, page, |row| row.num.to_string(), Row::read)?;
        let items = items.into_iter().map(|silence| with_what_it_hides(self.conn, silence)).collect::<Result<_, _>>()?;
        Ok(Listed { items, next_cursor })
    }

    /// One silence.
    pub fn silence(&mut self, id: &SilenceId) -> Result<ListedSilence, LedgerError> {
        let silence = load(self.conn, id)?;
        with_what_it_hides(self.conn, silence)
    }

    /// Silences that hold something back and end within `ahead`, the first one first, at most 1,000.
    pub fn silences_ending(&mut self, ahead: Duration) -> Result<Vec<ListedSilence>, LedgerError> {
        let by = self.clock.now().after(ahead).millis();
        let now = self.clock.now().millis();
        let ending = t::silence.filter(t::ends_at.gt(now)).filter(t::ends_at.le(by)).filter(t::starts_at.le(now));
        let rows: Vec<Row> = ending.order((t::ends_at, t::num)).limit(1000).select(Row::as_select()).load(self.conn)?;
        let all = rows.into_iter().map(|row| with_what_it_hides(self.conn, row.read()?));
        Ok(all.collect::<Result<Vec<_>, LedgerError>>()?.into_iter().filter(|one| one.hides > 0).collect())
    }
}
