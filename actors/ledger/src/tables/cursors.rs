//! `follower_cursor`, `snapshot`, `attempt`: how far each follower has come, what it knows, and what it
//! failed at.

use std::collections::BTreeMap;

use diesel::prelude::*;
use opspilot_kernel::{ids::Seq, time::Timestamp};

use crate::{
    error::LedgerError,
    read::Reader,
    schema::{attempt, follower_cursor, snapshot},
    tables::shelf::{SHELF, SHELF_END},
    tx::{Tx, loaded, stored},
};

/// The part of a follower's snapshot that says how far what it makes of the log is committed: a number of eight bytes,
/// the least significant first. What else it knows may stand further back, at its cursor.
pub const DONE: &str = "@done";

/// What the keys of parts begin with that were written before the cursor they belong to, then its number in 16 digits.
const STAGED: &str = "+";
const STAGED_END: &str = ",";

/// The number and the key of a part that was written ahead.
fn staged(key: &str) -> Option<(Seq, &str)> {
    let (digits, key) = key.strip_prefix(STAGED)?.split_at_checked(16)?;
    Some((Seq::from_str_radix(digits, 16).ok()?, key))
}

/// A part of what a follower knows, replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Which part; the follower's own choice.
    pub key: String,
    /// The part. Empty bytes remove it.
    pub blob: Vec<u8>,
}

impl Tx<'_> {
    /// Records how far `module` has come and what it knows now. Retention waits for it only if it said
    /// which log it follows ([`Tx::follow`], [`Tx::commit_alerts`]).
    pub fn save_cursor(&mut self, module: &str, cursor: Seq, snapshots: Vec<Snapshot>) -> Result<(), LedgerError> {
        self.move_cursor(module, None, cursor, snapshots)
    }

    pub(crate) fn move_cursor(
        &mut self,
        module: &str,
        log: Option<&str>,
        cursor: Seq,
        snapshots: Vec<Snapshot>,
    ) -> Result<(), LedgerError> {
        let now = self.now().millis();
        {
            use follower_cursor::dsl as t;
            diesel::insert_into(t::follower_cursor)
                .values((t::module.eq(module), t::log.eq(log.unwrap_or("")), t::seq.eq(stored(cursor)?), t::live.eq(true), t::at.eq(now)))
                .on_conflict(t::module)
                .do_update()
                .set((log.map(|log| t::log.eq(log)), t::seq.eq(stored(cursor)?), t::live.eq(true), t::at.eq(now)))
                .execute(self.conn)?;
        }
        use snapshot::dsl as t;
        let ahead = if snapshots.is_empty() { Vec::new() } else { self.staged_keys(module)? };
        for part in snapshots {
            for key in ahead.iter().filter(|key| staged(key).is_some_and(|(_, key)| key == part.key)) {
                diesel::delete(t::snapshot.find((module, key))).execute(self.conn)?;
            }
            if part.blob.is_empty() {
                diesel::delete(t::snapshot.find((module, &part.key))).execute(self.conn)?;
            } else {
                diesel::replace_into(t::snapshot)
                    .values((t::module.eq(module), t::key.eq(&part.key), t::blob.eq(&part.blob)))
                    .execute(self.conn)?;
            }
        }
        Ok(())
    }

    /// Writes a part of what `module` will know at `cursor`, where it does not stand yet: with a cursor short of that, this
    /// part is not among its snapshots. So what is too large for one transaction is written in several, the cursor last.
    pub fn stage_snapshots(&mut self, module: &str, cursor: Seq, snapshots: Vec<Snapshot>) -> Result<(), LedgerError> {
        use snapshot::dsl as t;
        for part in snapshots {
            let key = format!("{STAGED}{cursor:016x}{}", part.key);
            diesel::replace_into(t::snapshot).values((t::module.eq(module), t::key.eq(key), t::blob.eq(&part.blob))).execute(self.conn)?;
        }
        Ok(())
    }

    fn staged_keys(&mut self, module: &str) -> Result<Vec<String>, LedgerError> {
        use snapshot::dsl as t;
        let ahead = t::snapshot.filter(t::module.eq(module)).filter(t::key.ge(STAGED)).filter(t::key.lt(STAGED_END));
        Ok(ahead.select(t::key).load(self.conn)?)
    }

    /// Says that `module` follows `log` (`signals` or `alerts`); only then does retention wait for it.
    pub fn follow(&mut self, module: &str, log: &str) -> Result<Seq, LedgerError> {
        use follower_cursor::dsl as t;
        let now = self.now().millis();
        diesel::insert_into(t::follower_cursor)
            .values((t::module.eq(module), t::log.eq(log), t::seq.eq(0), t::live.eq(true), t::at.eq(now)))
            .on_conflict(t::module)
            .do_update()
            .set((t::log.eq(log), t::live.eq(true), t::at.eq(now)))
            .execute(self.conn)?;
        let seq: i64 = t::follower_cursor.find(module).select(t::seq).first(self.conn)?;
        let seq = loaded(seq)?;
        // a set that was never finished
        for key in self.staged_keys(module)?.iter().filter(|key| staged(key).is_some_and(|(of, _)| of > seq)) {
            diesel::delete(snapshot::table.find((module, key))).execute(self.conn)?;
        }
        Ok(seq)
    }

    /// Says that `module` no longer follows: it was switched off. Its cursor stays, retention ignores it.
    pub fn unfollow(&mut self, module: &str) -> Result<(), LedgerError> {
        use follower_cursor::dsl as t;
        diesel::update(t::follower_cursor.find(module)).set(t::live.eq(false)).execute(self.conn)?;
        self.release_tick()
    }

    /// Counts an attempt of `module` at `first..=last`; says how many there were, this one included.
    pub fn count_attempt(&mut self, module: &str, first: Seq, last: Seq) -> Result<u32, LedgerError> {
        use attempt::dsl as t;
        let now = self.now().millis();
        let key = (module, stored(first)?, stored(last)?);
        diesel::insert_into(t::attempt)
            .values((t::module.eq(key.0), t::first_seq.eq(key.1), t::last_seq.eq(key.2), t::count.eq(1), t::at.eq(now)))
            .on_conflict((t::module, t::first_seq, t::last_seq))
            .do_update()
            .set((t::count.eq(t::count + 1), t::at.eq(now)))
            .execute(self.conn)?;
        let count: i32 = t::attempt.find(key).select(t::count).first(self.conn)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Forgets the attempts of `module` at what lies at or before `last`: it got past.
    pub fn clear_attempts(&mut self, module: &str, last: Seq) -> Result<(), LedgerError> {
        use attempt::dsl as t;
        diesel::delete(t::attempt.filter(t::module.eq(module)).filter(t::last_seq.le(stored(last)?))).execute(self.conn)?;
        Ok(())
    }
}

/// The least cursor of all live followers of `log`; `None` if there is none.
pub(crate) fn least(conn: &mut SqliteConnection, log: &str) -> Result<Option<Seq>, LedgerError> {
    use follower_cursor::dsl as t;
    let least: Option<i64> =
        t::follower_cursor.filter(t::live.eq(true)).filter(t::log.eq(log)).select(diesel::dsl::min(t::seq)).first(conn)?;
    least.map(loaded).transpose()
}

/// The least cursor of all that read events for somebody else; `None` if there is none. A cursor that is named after a
/// module, as `module/what`, waits only while that module is switched on.
pub(crate) fn least_of_events(conn: &mut SqliteConnection) -> Result<Option<Seq>, LedgerError> {
    use follower_cursor::dsl as t;
    let off: Vec<String> = t::follower_cursor.filter(t::live.eq(false)).select(t::module).load(conn)?;
    let on: Vec<(String, i64)> =
        t::follower_cursor.filter(t::live.eq(true)).filter(t::log.eq("events")).select((t::module, t::seq)).load(conn)?;
    let is_off = |name: &str| name.split_once('/').is_some_and(|(module, _)| off.iter().any(|off| off == module));
    on.into_iter().filter(|(name, _)| !is_off(name)).map(|(_, seq)| seq).min().map(loaded).transpose()
}

/// Whether every live follower of the signals has committed what it makes of those up to `seq`.
pub(crate) fn all_done(conn: &mut SqliteConnection, seq: Seq) -> Result<bool, LedgerError> {
    use follower_cursor::dsl as t;
    let behind: Vec<String> = t::follower_cursor
        .filter(t::live.eq(true))
        .filter(t::log.eq("signals"))
        .filter(t::seq.lt(stored(seq)?))
        .select(t::module)
        .load(conn)?;
    for module in behind {
        let done: Option<Vec<u8>> = snapshot::table.find((&module, DONE)).select(snapshot::blob).first(conn).optional()?;
        let done = done.and_then(|bytes| bytes.as_slice().try_into().ok()).map_or(0, Seq::from_le_bytes);
        if done < seq {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A follower and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorRow {
    /// Which module.
    pub module: String,
    /// `signals` or `alerts`; empty if it never said.
    pub log: String,
    /// The last number it is done with.
    pub seq: Seq,
    /// Whether it follows at present.
    pub live: bool,
    /// When it last moved.
    pub at: Timestamp,
}

impl Reader<'_> {
    /// How far `module` has come; 0 if it never started.
    pub fn cursor(&mut self, module: &str) -> Result<Seq, LedgerError> {
        use follower_cursor::dsl as t;
        let seq: Option<i64> = t::follower_cursor.find(module).select(t::seq).first(self.conn).optional()?;
        loaded(seq.unwrap_or(0))
    }

    /// All followers.
    pub fn cursors(&mut self) -> Result<Vec<CursorRow>, LedgerError> {
        use follower_cursor::dsl as t;
        let rows: Vec<(String, String, i64, bool, i64)> =
            t::follower_cursor.select((t::module, t::log, t::seq, t::live, t::at)).order(t::module).load(self.conn)?;
        rows.into_iter()
            .map(|(module, log, seq, live, at)| Ok(CursorRow { module, log, seq: loaded(seq)?, live, at: Timestamp::from_millis(at) }))
            .collect()
    }

    /// What `module` knew at its cursor; what lies on its shelf is not among it.
    pub fn snapshots(&mut self, module: &str) -> Result<Vec<Snapshot>, LedgerError> {
        use snapshot::dsl as t;
        let plain = t::key.lt(SHELF).or(t::key.ge(SHELF_END));
        let rows: Vec<(String, Vec<u8>)> =
            t::snapshot.filter(t::module.eq(module)).filter(plain).order(t::key).select((t::key, t::blob)).load(self.conn)?;
        let cursor = self.cursor(module)?;
        let (ahead, plain): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(key, _)| staged(key).is_some());
        let mut parts: BTreeMap<String, Vec<u8>> = plain.into_iter().collect();
        // by number, so the newest of a key wins; one written in the ordinary way took those before it away
        for (key, blob) in ahead {
            match staged(&key) {
                Some((of, key)) if of <= cursor && blob.is_empty() => drop(parts.remove(key)),
                Some((of, key)) if of <= cursor => drop(parts.insert(key.to_owned(), blob)),
                _ => {}
            }
        }
        Ok(parts.into_iter().map(|(key, blob)| Snapshot { key, blob }).collect())
    }

    /// What `module` began and never got past: first number, last number, how often. Ascending, wider ranges first.
    pub fn open_attempts(&mut self, module: &str) -> Result<Vec<(Seq, Seq, u32)>, LedgerError> {
        use attempt::dsl as t;
        let rows: Vec<(i64, i64, i32)> = t::attempt
            .filter(t::module.eq(module))
            .order((t::first_seq, t::last_seq.desc()))
            .select((t::first_seq, t::last_seq, t::count))
            .load(self.conn)?;
        rows.into_iter().map(|(first, last, count)| Ok((loaded(first)?, loaded(last)?, u32::try_from(count).unwrap_or(0)))).collect()
    }

    /// How often `module` failed at `first..=last`.
    pub fn attempts(&mut self, module: &str, first: Seq, last: Seq) -> Result<u32, LedgerError> {
        use attempt::dsl as t;
        let key = (module, stored(first)?, stored(last)?);
        let count: Option<i32> = t::attempt.find(key).select(t::count).first(self.conn).optional()?;
        Ok(count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0))
    }
}
