//! `outbox`: what must reach the outside, until it did or was given up.
//!
//! A row is written in the same transaction as the cursor over the events it comes from, so that each event leads to it
//! exactly once. Whoever delivers leases it, and the attempt is counted before it is made: what was sent by a process
//! that died is sent again, with the same key to go by. Rows of one channel and key go out in their order.
//!
//! | code | meaning |
//! |---|---|
//! | `NOT01I` | somebody had a test message sent |
//! | `NOT02I` | what was given up waits to be delivered again |

use std::time::Duration;

use diesel::prelude::*;
use opspilot_kernel::{
    event::Event,
    ids::{DeadLetterId, Seq},
    principal::Actor,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::audit::{AuditEntry, Object, Outcome};
use crate::{
    error::LedgerError,
    read::Reader,
    schema::{dead_letter, follower_cursor, outbox, outbox::dsl as t},
    tx::{Tx, loaded, stored},
};

/// The longest body, in bytes: as a dead letter it must fit whole.
pub const MAX_DELIVERY: usize = 48 << 10;

/// Something to be delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewDelivery {
    /// Through which channel.
    pub channel: String,
    /// What must stay in order.
    pub key: String,
    /// The same at every attempt.
    pub dedup: String,
    /// The event it comes from.
    pub event: Seq,
    /// For people: what it is about.
    pub subject: String,
    /// What is delivered.
    pub body: Value,
}

/// Something to be delivered now, by whoever leased it.
#[derive(Debug, Clone, PartialEq)]
pub struct Leased {
    /// Its row.
    num: i64,
    /// What it must stay in order with.
    pub key: String,
    /// The same at every attempt.
    pub dedup: String,
    /// For people: what it is about.
    pub subject: String,
    /// What is delivered.
    pub body: Value,
    /// Which attempt this is; the first is 1.
    pub attempt: u32,
    /// When it was first to be delivered.
    pub created_at: Timestamp,
}

/// How often and for how long something is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// So many attempts …
    pub attempts: u32,
    /// … or so long, whichever is over first.
    pub age: Duration,
}

/// What waits in a channel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Waiting {
    /// How much.
    pub count: u64,
    /// When the first thing can be done: the earliest time of the rows whose turn it is.
    pub next_at: Option<Timestamp>,
    /// Since when the oldest waits.
    pub oldest: Option<Timestamp>,
}

/// A row as a dead letter keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    last_event: Seq,
    #[serde(flatten)]
    delivery: NewDelivery,
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = outbox, check_for_backend(diesel::sqlite::Sqlite))]
struct Row {
    num: i64,
    channel: String,
    key: String,
    dedup: String,
    first_event: i64,
    last_event: i64,
    subject: String,
    body: String,
    created_at: i64,
    attempts: i32,
    next_at: i64,
    lease_until: Option<i64>,
    boot: Option<String>,
    error: Option<String>,
}

fn body_of(text: &str) -> Result<Value, LedgerError> {
    serde_json::from_str(text).map_err(|_| LedgerError::Damaged("the body of an outbox row".to_owned()))
}

/// The name under which a channel's cursor is kept.
fn cursor_of(module: &str, channel: &str) -> String {
    format!("{module}/{channel}")
}

impl Tx<'_> {
    /// `module` begins to deliver through `channels`. Leases of earlier runs are dropped; a channel that is new, or whose
    /// module was switched off until now, begins behind the events there are; what waits for a channel that is no more is
    /// given up, visibly. Says where each channel's cursor stands.
    pub fn outbox_open(&mut self, module: &str, channels: &[String]) -> Result<Vec<Seq>, LedgerError> {
        let boot = self.identity.boot.to_string();
        diesel::update(t::outbox.filter(t::boot.ne(&boot)))
            .set((t::boot.eq(None::<String>), t::lease_until.eq(None::<i64>)))
            .execute(self.conn)?;
        let was_live: Option<bool> = follower_cursor::table.find(module).select(follower_cursor::live).first(self.conn).optional()?;
        let own: Vec<String> = channels.iter().map(|channel| cursor_of(module, channel)).collect();
        let mut gone = follower_cursor::table.filter(follower_cursor::log.eq("events")).select(follower_cursor::module).into_boxed();
        gone = gone.filter(follower_cursor::module.like(format!("{module}/%")));
        if was_live == Some(true) {
            gone = gone.filter(follower_cursor::module.ne_all(&own));
        }
        let gone: Vec<String> = gone.load(self.conn)?;
        diesel::delete(follower_cursor::table.filter(follower_cursor::module.eq_any(gone))).execute(self.conn)?;
        self.move_cursor(module, Some("outbox"), 0, Vec::new())?;
        let orphans: Vec<Row> = t::outbox.filter(t::channel.ne_all(channels)).select(Row::as_select()).load(self.conn)?;
        for row in orphans {
            self.give_up(module, row, "its channel is not configured any more")?;
        }
        let head = self.work.heads.event;
        own.iter()
            .map(|name| {
                let known: Option<i64> = follower_cursor::table.find(name).select(follower_cursor::seq).first(self.conn).optional()?;
                match known {
                    Some(seq) => loaded(seq),
                    None => self.move_cursor(name, Some("events"), head, Vec::new()).map(|()| head),
                }
            })
            .collect()
    }

    /// Everything up to `event` has been put in the outbox of `channel`, as far as it belongs there.
    pub fn outbox_cursor(&mut self, module: &str, channel: &str, event: Seq) -> Result<(), LedgerError> {
        self.move_cursor(&cursor_of(module, channel), Some("events"), event, Vec::new())
    }

    /// Puts something in the outbox. If the last row of its channel and key was never attempted, `merge` may give a body
    /// that says both; that row then takes it up.
    pub fn outbox_put(&mut self, new: &NewDelivery, merge: impl FnOnce(&Value, &Value) -> Option<Value>) -> Result<(), LedgerError> {
        let event = stored(new.event)?;
        let last: Option<(i64, i32, String)> = t::outbox
            .filter(t::channel.eq(&new.channel))
            .filter(t::key.eq(&new.key))
            .order(t::num.desc())
            .select((t::num, t::attempts, t::body))
            .first(self.conn)
            .optional()?;
        if let Some((num, 0, body)) = last
            && let Some(both) = merge(&body_of(&body)?, &new.body)
            && let both = both.to_string()
            && both.len() <= MAX_DELIVERY
        {
            let changes = (t::body.eq(both), t::subject.eq(&new.subject), t::last_event.eq(event));
            diesel::update(t::outbox.find(num)).set(changes).execute(self.conn)?;
            return Ok(());
        }
        self.outbox_row(new, event)
    }

    fn outbox_row(&mut self, new: &NewDelivery, last_event: i64) -> Result<(), LedgerError> {
        let body = new.body.to_string();
        if body.len() > MAX_DELIVERY {
            return Err(LedgerError::out_of_range("the length of a notification"));
        }
        let last: Option<i64> = t::outbox.select(diesel::dsl::max(t::num)).first(self.conn)?;
        let now = self.now().millis();
        let row = Row {
            num: last.unwrap_or(0).saturating_add(1),
            channel: new.channel.clone(),
            key: new.key.clone(),
            dedup: new.dedup.clone(),
            first_event: stored(new.event)?,
            last_event,
            subject: new.subject.clone(),
            body,
            created_at: now,
            attempts: 0,
            next_at: now,
            lease_until: None,
            boot: None,
            error: None,
        };
        diesel::insert_into(t::outbox).values(row).execute(self.conn)?;
        Ok(())
    }

    /// Whoever delivered through `channel` failed: what it had leased is free again.
    pub fn outbox_release(&mut self, channel: &str) -> Result<(), LedgerError> {
        let free = (t::boot.eq(None::<String>), t::lease_until.eq(None::<i64>));
        diesel::update(t::outbox.filter(t::channel.eq(channel))).set(free).execute(self.conn)?;
        Ok(())
    }

    /// Leases up to `most` rows of a channel for `lease`: of each key the first, if it is due. The attempt counts from here.
    pub fn outbox_lease(&mut self, channel: &str, most: i64, lease: Duration) -> Result<Vec<Leased>, LedgerError> {
        let now = self.now();
        let boot = self.identity.boot.to_string();
        let rows: Vec<Row> = turn(channel)
            .filter(t::next_at.le(now.millis()))
            .filter(t::lease_until.is_null().or(t::lease_until.le(now.millis())))
            .order(t::num)
            .limit(most)
            .select(Row::as_select())
            .load(self.conn)?;
        let mut leased = Vec::with_capacity(rows.len());
        for row in rows {
            let until = now.after(lease).millis();
            let changes = (t::attempts.eq(t::attempts + 1), t::lease_until.eq(until), t::boot.eq(&boot));
            diesel::update(t::outbox.find(row.num)).set(changes).execute(self.conn)?;
            leased.push(Leased {
                num: row.num,
                key: row.key,
                dedup: row.dedup,
                subject: row.subject,
                body: body_of(&row.body)?,
                attempt: u32::try_from(row.attempts).unwrap_or(0).saturating_add(1),
                created_at: Timestamp::from_millis(row.created_at),
            });
        }
        Ok(leased)
    }

    /// The row, if the lease still holds.
    fn leased(&mut self, lease: &Leased) -> Result<Option<Row>, LedgerError> {
        let attempt = i32::try_from(lease.attempt).unwrap_or(i32::MAX);
        let row = t::outbox.find(lease.num).filter(t::dedup.eq(&lease.dedup)).filter(t::attempts.eq(attempt));
        Ok(row.filter(t::boot.eq(&*self.identity.boot)).select(Row::as_select()).first(self.conn).optional()?)
    }

    /// It arrived.
    pub fn outbox_delivered(&mut self, lease: &Leased) -> Result<(), LedgerError> {
        if let Some(row) = self.leased(lease)? {
            diesel::delete(t::outbox.find(row.num)).execute(self.conn)?;
        }
        Ok(())
    }

    /// It did not arrive. It is tried again after `again`, or given up: then it is a dead letter, and an event says so.
    pub fn outbox_failed(
        &mut self,
        module: &str,
        lease: &Leased,
        error: &str,
        again: Duration,
        patience: Patience,
    ) -> Result<Option<DeadLetterId>, LedgerError> {
        let Some(row) = self.leased(lease)? else { return Ok(None) };
        let age = self.now().since(Timestamp::from_millis(row.created_at));
        if lease.attempt >= patience.attempts || age >= patience.age {
            return self.give_up(module, row, error).map(Some);
        }
        self.wait(row.num, again, Some(error))?;
        Ok(None)
    }

    /// It was not even tried: the attempt does not count, and only time can end it.
    pub fn outbox_put_off(
        &mut self,
        module: &str,
        lease: &Leased,
        error: &str,
        again: Duration,
        patience: Patience,
    ) -> Result<Option<DeadLetterId>, LedgerError> {
        let Some(row) = self.leased(lease)? else { return Ok(None) };
        if self.now().since(Timestamp::from_millis(row.created_at)) >= patience.age {
            return self.give_up(module, row, error).map(Some);
        }
        diesel::update(t::outbox.find(row.num)).set(t::attempts.eq(t::attempts - 1)).execute(self.conn)?;
        self.wait(row.num, again, None)?;
        Ok(None)
    }

    fn wait(&mut self, num: i64, again: Duration, error: Option<&str>) -> Result<(), LedgerError> {
        let next = self.now().after(again).millis();
        let changes =
            (t::next_at.eq(next), t::lease_until.eq(None::<i64>), t::boot.eq(None::<String>), error.map(|error| t::error.eq(error)));
        diesel::update(t::outbox.find(num)).set(changes).execute(self.conn)?;
        Ok(())
    }

    /// Something got through: what waits in the channel waits no longer.
    pub fn outbox_hurry(&mut self, channel: &str) -> Result<(), LedgerError> {
        let now = self.now().millis();
        diesel::update(t::outbox.filter(t::channel.eq(channel)).filter(t::next_at.gt(now))).set(t::next_at.eq(now)).execute(self.conn)?;
        Ok(())
    }

    fn give_up(&mut self, module: &str, row: Row, error: &str) -> Result<DeadLetterId, LedgerError> {
        let (first, last) = (loaded(row.first_event)?, loaded(row.last_event)?);
        let attempts = u32::try_from(row.attempts).unwrap_or(0);
        let log = format!("outbox/{}", row.channel);
        let delivery = NewDelivery {
            channel: row.channel.clone(),
            key: row.key,
            dedup: row.dedup,
            event: first,
            subject: row.subject.clone(),
            body: body_of(&row.body)?,
        };
        let kept = serde_json::to_vec(&Kept { last_event: last, delivery }).map_err(|error| LedgerError::Internal(error.to_string()))?;
        diesel::delete(t::outbox.find(row.num)).execute(self.conn)?;
        let id = self.dead_letter(module, &log, (first, last), &kept, error, attempts)?;
        let subject = row.subject;
        self.event(Event::NotificationFailed { channel: row.channel, subject, attempts, error: error.to_owned() })?;
        Ok(id)
    }

    /// What was given up waits to be delivered again, behind whatever its key has waiting.
    pub fn outbox_requeue(&mut self, module: &str, letter: &DeadLetterId, channels: &[String]) -> Result<(), LedgerError> {
        let found: Option<Vec<u8>> = dead_letter::table
            .find(letter.as_str())
            .filter(dead_letter::module.eq(module))
            .select(dead_letter::payload)
            .first(self.conn)
            .optional()?;
        let found = found.ok_or_else(|| LedgerError::NotFound(format!("dead letter {letter}")))?;
        let kept: Kept = serde_json::from_slice(&found).map_err(|_| LedgerError::Conflict("it cannot be read any more".to_owned()))?;
        if !channels.contains(&kept.delivery.channel) {
            return Err(LedgerError::Conflict(format!("there is no channel {:?} any more", kept.delivery.channel)));
        }
        self.outbox_row(&kept.delivery, stored(kept.last_event)?)?;
        diesel::delete(dead_letter::table.find(letter.as_str())).execute(self.conn)?;
        self.audit(AuditEntry {
            code: "NOT02I",
            actor: Actor::Module { id: module.to_owned() },
            object: Object::new("dead_letter", letter.as_str()),
            body: json!({ "channel": kept.delivery.channel, "subject": kept.delivery.subject }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }

    /// Somebody had a test message sent through `channel`; how it went.
    pub fn notification_tested(&mut self, actor: &Actor, channel: &str, failure: Option<&str>) -> Result<(), LedgerError> {
        self.audit(AuditEntry {
            code: "NOT01I",
            actor: actor.clone(),
            object: Object::new("channel", channel),
            outcome: if failure.is_none() { Outcome::Success } else { Outcome::Failure },
            body: json!({ "error": failure }),
            ..AuditEntry::default()
        })?;
        Ok(())
    }
}

type Turn<'a> = outbox::BoxedQuery<'a, diesel::sqlite::Sqlite>;

/// The rows of a channel whose turn it is: of each key the first.
fn turn(channel: &str) -> Turn<'_> {
    let earlier = diesel::alias!(outbox as earlier);
    let before = earlier
        .filter(earlier.field(t::channel).eq(t::channel))
        .filter(earlier.field(t::key).eq(t::key))
        .filter(earlier.field(t::num).lt(t::num));
    t::outbox.filter(t::channel.eq(channel)).filter(diesel::dsl::not(diesel::dsl::exists(before))).into_boxed()
}

impl Reader<'_> {
    /// What waits in a channel.
    pub fn outbox_waiting(&mut self, channel: &str) -> Result<Waiting, LedgerError> {
        let (count, oldest): (i64, Option<i64>) = t::outbox
            .filter(t::channel.eq(channel))
            .select((diesel::dsl::count_star(), diesel::dsl::min(t::created_at)))
            .first(self.conn)?;
        if count == 0 {
            return Ok(Waiting::default());
        }
        // a lease that nobody ends ends by itself
        let when: Vec<(i64, Option<i64>)> = turn(channel).select((t::next_at, t::lease_until)).order(t::next_at).load(self.conn)?;
        let next = when.into_iter().map(|(next, lease)| lease.map_or(next, |lease| lease.max(next))).min();
        Ok(Waiting { count: loaded(count)?, next_at: next.map(Timestamp::from_millis), oldest: oldest.map(Timestamp::from_millis) })
    }
}
