//! `audit_node`: the tree over the entries, as it is stored.

use diesel::{
    connection::{AnsiTransactionManager, TransactionManager},
    prelude::*,
};

use super::{AuditHead, store_head};
use crate::{
    audit::tree::{Frontier, Hash, Nodes},
    error::LedgerError,
    schema::{audit_head, audit_leaf, audit_node},
    tx::{loaded, stored},
};

/// How many leaves of an old log are read at a time.
const CHUNK: i64 = 5_000;

/// The complete subtrees of the log that a connection reads; the leaves have their hashes beside them.
pub(crate) struct Stored<'a>(pub(crate) &'a mut SqliteConnection);

impl Nodes for Stored<'_> {
    type Error = LedgerError;

    fn node(&mut self, level: u8, index: u64) -> Result<Hash, LedgerError> {
        let hash: Option<Vec<u8>> = if level == 0 {
            use audit_leaf::dsl as t;
            t::audit_leaf.find(stored(index.saturating_add(1))?).select(t::leaf_hash).first(self.0).optional()?
        } else {
            use audit_node::dsl as t;
            t::audit_node.find((i32::from(level), stored(index)?)).select(t::hash).first(self.0).optional()?
        };
        let hash = hash.and_then(|hash| hash.try_into().ok());
        hash.ok_or_else(|| LedgerError::Damaged(format!("audit: the tree lacks the node {index} of level {level}")))
    }
}

/// Appends a leaf to the tree, in the table as well.
pub(super) fn push(conn: &mut SqliteConnection, tree: &mut Frontier, leaf: Hash) -> Result<(), LedgerError> {
    let mut done: Result<(), LedgerError> = Ok(());
    tree.push(leaf, |level, index, hash| {
        if done.is_ok() {
            done = insert(conn, level, index, hash);
        }
    });
    done
}

fn insert(conn: &mut SqliteConnection, level: u8, index: u64, hash: &Hash) -> Result<(), LedgerError> {
    use audit_node::dsl as t;
    let row = (t::level.eq(i32::from(level)), t::idx.eq(stored(index)?), t::hash.eq(hash.as_slice()));
    diesel::insert_into(t::audit_node).values(row).execute(conn)?;
    Ok(())
}

/// The tree that belongs to `head`, checked. A log that is older than the tree is given one.
pub(crate) fn load_or_fill(conn: &mut SqliteConnection, head: &AuditHead) -> Result<Frontier, LedgerError> {
    let (root, frontier): (Vec<u8>, Vec<u8>) = {
        use audit_head::dsl as t;
        t::audit_head.find(1).select((t::root, t::frontier)).first(conn)?
    };
    if root.is_empty() {
        return if head.size == 0 { Ok(Frontier::default()) } else { fill(conn, head) };
    }
    let tree = Frontier::gather(head.size, &mut Stored(conn))?;
    if root != tree.root() || frontier != tree.packed() {
        return Err(LedgerError::Damaged("audit: the tree does not belong to the entries".to_owned()));
    }
    Ok(tree)
}

/// Builds the tree of a log that has none: all of it or nothing.
fn fill(conn: &mut SqliteConnection, head: &AuditHead) -> Result<Frontier, LedgerError> {
    AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")?;
    let filled = fill_in(conn, head);
    match filled {
        Ok(tree) => {
            AnsiTransactionManager::commit_transaction(conn)?;
            Ok(tree)
        }
        Err(error) => {
            AnsiTransactionManager::rollback_transaction(conn)?;
            Err(error)
        }
    }
}

fn fill_in(conn: &mut SqliteConnection, head: &AuditHead) -> Result<Frontier, LedgerError> {
    let mut tree = Frontier::default();
    loop {
        let leaves: Vec<(i64, Vec<u8>)> = {
            use audit_leaf::dsl as t;
            t::audit_leaf.filter(t::seq.gt(stored(tree.size())?)).order(t::seq).limit(CHUNK).select((t::seq, t::leaf_hash)).load(conn)?
        };
        if leaves.is_empty() {
            break;
        }
        for (seq, hash) in leaves {
            let hash = <Hash>::try_from(hash).ok().filter(|_| loaded(seq).is_ok_and(|seq| seq == tree.size() + 1));
            let hash = hash.ok_or_else(|| LedgerError::Damaged(format!("audit entry {}: missing, or its hash is", tree.size() + 1)))?;
            push(conn, &mut tree, hash)?;
        }
    }
    if tree.size() != head.size {
        return Err(LedgerError::Damaged("audit: the head does not belong to the last entry".to_owned()));
    }
    store_head(conn, &AuditHead { tree, ..*head })?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use diesel::connection::SimpleConnection;
    use opspilot_kernel::{clock::ManualClock, principal::Actor, time::Timestamp};

    use super::*;
    use crate::{Ledger, LedgerError, Options, Priority, audit::tree::root_at, open::DATABASE};

    fn options(dir: &std::path::Path) -> Options {
        Options::new(dir, ManualClock::at(Timestamp::from_millis(1_795_348_800_000)))
    }

    fn establish(dir: &std::path::Path) -> SqliteConnection {
        SqliteConnection::establish(dir.join(DATABASE).to_str().unwrap()).unwrap()
    }

    fn write(ledger: &Ledger, count: u32) {
        let job = move |tx: &mut crate::Tx<'_>| (0..count).try_for_each(|n| tx.module_switched(&Actor::System, &format!("m{n}"), true));
        ledger.write_blocking(Priority::Control, job).unwrap();
    }

    fn stored_root(conn: &mut SqliteConnection) -> Vec<u8> {
        audit_head::table.find(1).select(audit_head::root).first(conn).unwrap()
    }

    #[test]
    fn the_tree_grows_in_the_transaction_of_its_entry_and_is_rolled_back_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(options(dir.path())).unwrap();
        for n in 1..30 {
            let refused = ledger.write_blocking(Priority::Control, move |tx| {
                (0..n).try_for_each(|_| tx.module_switched(&Actor::System, "never", true))?;
                Err::<(), _>(LedgerError::Conflict("no".to_owned()))
            });
            assert!(refused.is_err());
            write(&ledger, n % 4);
            let mut conn = establish(dir.path());
            let head = super::super::load_head(&mut conn).unwrap();
            assert_eq!(stored_root(&mut conn), root_at(&mut Stored(&mut conn), head.size).unwrap());
            let nodes: i64 = audit_node::table.count().get_result(&mut conn).unwrap();
            let complete: u64 = (1..48).map(|level| head.size >> level).sum();
            assert_eq!(loaded(nodes).unwrap(), complete, "one row for each complete subtree, and none that was rolled back");
        }
    }

    #[test]
    fn a_log_that_is_older_than_the_tree_is_given_one_when_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(options(dir.path())).unwrap();
        write(&ledger, 75);
        drop(ledger);
        let mut conn = establish(dir.path());
        let root = stored_root(&mut conn);
        let count = |conn: &mut SqliteConnection| -> i64 { audit_node::table.count().get_result(conn).unwrap() };
        let nodes = count(&mut conn);
        conn.batch_execute(include_str!("../../../../../migrations/sqlite/0004_audit_tree/down.sql")).unwrap();
        conn.batch_execute("DELETE FROM __diesel_schema_migrations WHERE version = '0004'").unwrap();
        drop(conn);
        drop(Ledger::open(Options { tool: true, ..options(dir.path()) }).unwrap());
        let mut conn = establish(dir.path());
        let head = super::super::load_head(&mut conn).unwrap();
        assert_eq!(head.size, 79, "migration, start, 75 entries, stop, and the migration again");
        assert_ne!(stored_root(&mut conn), root);
        assert_eq!(root_at(&mut Stored(&mut conn), 78).unwrap().to_vec(), root, "as if it had always been there");
        assert!(count(&mut conn) >= nodes);
    }

    #[test]
    fn a_tree_that_was_tampered_with_is_no_ground_to_go_on() {
        for damage in [
            "UPDATE audit_node SET hash = zeroblob(32) WHERE level = 3 AND idx = 0",
            "DELETE FROM audit_node WHERE level = 3",
            "UPDATE audit_head SET root = zeroblob(32)",
            "UPDATE audit_head SET frontier = substr(frontier, 2)",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let ledger = Ledger::open(options(dir.path())).unwrap();
            write(&ledger, 7);
            drop(ledger);
            let mut conn = establish(dir.path());
            assert!(conn.batch_execute("DELETE FROM audit_node").unwrap_err().to_string().contains("append-only"));
            conn.batch_execute("DROP TRIGGER audit_node_no_update; DROP TRIGGER audit_node_no_delete;").unwrap();
            conn.batch_execute(damage).unwrap();
            drop(conn);
            let refused = Ledger::open(options(dir.path())).unwrap_err();
            assert!(refused.to_string().contains("audit: the tree"), "{damage}: {refused}");
        }
    }
}
