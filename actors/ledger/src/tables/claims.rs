//! `claim`: which (source, id) pairs were accepted in the last 24 hours.
//!
//! A row holds the 16-byte keys that one commit claimed, so that claiming costs no random write. What
//! the rows say is kept in a set in memory, read when the first signal with an id arrives. Bounded: the
//! oldest commits' keys are forgotten first, and counted.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasherDefault, Hasher},
};

use diesel::prelude::*;
use opspilot_kernel::{ids::Seq, time::Timestamp};

use crate::{
    batch::ClaimKey,
    error::LedgerError,
    schema::claim::dsl as t,
    tx::{loaded, stored},
};

/// The keys are hashes already.
#[derive(Debug, Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(low) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_le_bytes(*low);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = u64::try_from(key & u128::from(u64::MAX)).unwrap_or(0);
    }
}

#[derive(Debug)]
struct Generation {
    id: Seq,
    at: Timestamp,
    keys: Vec<ClaimKey>,
}

/// The claimed keys.
#[derive(Debug)]
pub(crate) struct Claims {
    loaded: bool,
    known: HashSet<ClaimKey, BuildHasherDefault<KeyHasher>>,
    generations: VecDeque<Generation>,
    /// Claimed in the transaction at hand; part of `known` already.
    fresh: Vec<ClaimKey>,
    /// How many of the oldest generations give way to them.
    giving_way: usize,
    /// Under which number they are stored.
    number: Seq,
    bound: usize,
}

impl Claims {
    pub(crate) fn new(bound: usize) -> Claims {
        Claims {
            loaded: false,
            known: HashSet::default(),
            generations: VecDeque::new(),
            fresh: Vec::new(),
            giving_way: 0,
            number: 0,
            bound,
        }
    }

    /// Reads the table, once.
    pub(crate) fn load(&mut self, conn: &mut SqliteConnection, expired: Timestamp) -> Result<(), LedgerError> {
        if self.loaded {
            return Ok(());
        }
        let rows: Vec<(i64, i64, Vec<u8>)> =
            t::claim.filter(t::at.ge(expired.millis())).order(t::id).select((t::id, t::at, t::keys)).load(conn)?;
        for (id, at, bytes) in rows {
            let keys: Vec<ClaimKey> = bytes.as_chunks::<16>().0.iter().map(|key| ClaimKey::from_le_bytes(*key)).collect();
            self.known.extend(&keys);
            self.generations.push_back(Generation { id: loaded(id)?, at: Timestamp::from_millis(at), keys });
        }
        self.loaded = true;
        Ok(())
    }

    /// Claims a key; `false` if it was claimed before.
    pub(crate) fn claim(&mut self, key: ClaimKey) -> bool {
        let fresh = self.known.insert(key);
        if fresh {
            self.fresh.push(key);
        }
        fresh
    }

    /// What is claimed now belongs to the row that begins with signal `first`.
    pub(crate) fn number(&mut self, first: Seq) {
        self.number = first;
    }

    /// Stores what was claimed since the last commit, and deletes the oldest above the bound.
    pub(crate) fn store(&mut self, conn: &mut SqliteConnection, at: Timestamp) -> Result<(), LedgerError> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = self.fresh.iter().flat_map(|key| key.to_le_bytes()).collect();
        let count = i32::try_from(self.fresh.len()).unwrap_or(i32::MAX);
        diesel::insert_into(t::claim)
            .values((t::id.eq(stored(self.number)?), t::at.eq(at.millis()), t::count.eq(count), t::keys.eq(&bytes)))
            .execute(conn)?;
        let mut over = self.known.len().saturating_sub(self.bound);
        let giving_way = self.generations.iter().take_while(|generation| {
            let wanted = over > 0;
            over = over.saturating_sub(generation.keys.len());
            wanted
        });
        if let Some((index, last)) = giving_way.enumerate().last() {
            delete_up_to(conn, last.id)?;
            self.giving_way = index.saturating_add(1);
        }
        Ok(())
    }

    /// The transaction was committed. Says how many keys were forgotten early.
    pub(crate) fn committed(&mut self, at: Timestamp) -> usize {
        let mut early = 0_usize;
        for generation in self.generations.drain(..std::mem::take(&mut self.giving_way)) {
            early = early.saturating_add(generation.keys.len());
            for key in &generation.keys {
                self.known.remove(key);
            }
        }
        if !self.fresh.is_empty() {
            let keys = std::mem::take(&mut self.fresh);
            self.generations.push_back(Generation { id: self.number, at, keys });
        }
        early
    }

    /// The transaction was rolled back.
    pub(crate) fn rolled_back(&mut self) {
        self.giving_way = 0;
        for key in self.fresh.drain(..) {
            self.known.remove(&key);
        }
    }

    /// Forgets what is older than `expired`, and the oldest above the bound. Says up to which id the rows
    /// may be deleted, and how many keys were forgotten early.
    pub(crate) fn forget(&mut self, expired: Timestamp) -> Option<(Seq, usize)> {
        let (mut up_to, mut early) = (None, 0_usize);
        while let Some(oldest) = self.generations.front() {
            let old = oldest.at < expired;
            if !old && self.known.len() <= self.bound {
                break;
            }
            if !old {
                early = early.saturating_add(oldest.keys.len());
            }
            up_to = Some(oldest.id);
            for key in &oldest.keys {
                self.known.remove(key);
            }
            self.generations.pop_front();
        }
        up_to.map(|up_to| (up_to, early))
    }

    /// Whether the table was read.
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

/// Deletes the rows up to `id`.
pub(crate) fn delete_up_to(conn: &mut SqliteConnection, id: Seq) -> Result<usize, LedgerError> {
    Ok(diesel::delete(t::claim.filter(t::id.le(stored(id)?))).execute(conn)?)
}

/// Deletes rows that nobody has loaded and that are older than `expired`.
pub(crate) fn delete_before(conn: &mut SqliteConnection, expired: Timestamp) -> Result<usize, LedgerError> {
    Ok(diesel::delete(t::claim.filter(t::at.lt(expired.millis()))).execute(conn)?)
}
