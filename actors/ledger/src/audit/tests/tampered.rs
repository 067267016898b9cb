//! The log of a ledger on disk, checked where it lies and changed behind its back.

use diesel::{connection::SimpleConnection, prelude::*};
use opspilot_kernel::principal::Actor;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::rig::{Rig, checkpoint, copy, runtime, write};
use crate::{
    DATABASE, Ledger, OpenError,
    audit::{PUBLISHED, Verdict, published},
    backup, restore,
};

#[derive(Clone, Copy, PartialEq)]
enum Cell {
    Bytes,
    Number,
    Text,
}

#[test]
fn f1_a_flipped_bit_in_any_cell_of_the_tables_is_found() {
    let rig = Rig::new();
    let ledger = rig.open();
    for n in 0..6 {
        write(&ledger, 6 + n);
        checkpoint(&ledger).unwrap();
    }
    drop(ledger);
    let size = rig.verify().entries;
    assert!((60..70).contains(&size), "{size}");
    let mut conn = rig.sql();
    conn.batch_execute("PRAGMA journal_mode=DELETE").unwrap();
    let mut dice = StdRng::seed_from_u64(1);
    let (mut flipped, keys) = (0, rig.own_key());
    for (table, column, key) in [
        ("audit_leaf", "leaf", "seq"),
        ("audit_leaf", "leaf_hash", "seq"),
        ("audit_payload", "salt", "seq"),
        ("audit_payload", "body", "seq"),
        ("audit_node", "hash", "level * 1000 + idx"),
        ("audit_head", "last_hash", "id"),
        ("audit_head", "last_ts", "id"),
        ("audit_head", "root", "id"),
        ("audit_head", "frontier", "id"),
        ("audit_checkpoint", "root", "size"),
        ("audit_checkpoint", "at", "size"),
        ("audit_checkpoint", "note", "size"),
    ] {
        use diesel::{
            dsl::sql,
            sql_types::{BigInt, Binary},
        };
        let places: Vec<i64> = sql::<BigInt>(&format!("SELECT {key} FROM {table}")).load(&mut conn).unwrap();
        assert!(!places.is_empty());
        for (nth, place) in places.into_iter().enumerate() {
            let cell = match column {
                "last_ts" | "at" => Cell::Number,
                "note" => Cell::Text,
                _ => Cell::Bytes,
            };
            let whole = if cell == Cell::Text { "CAST(note AS BLOB)" } else { column };
            let bytes: Vec<u8> = if cell == Cell::Number {
                let read = format!("SELECT {column} FROM {table} WHERE {key} = {place}");
                sql::<BigInt>(&read).get_result::<i64>(&mut conn).unwrap().to_be_bytes().to_vec()
            } else {
                sql::<Binary>(&format!("SELECT {whole} FROM {table} WHERE {key} = {place}")).get_result(&mut conn).unwrap()
            };
            let set = |conn: &mut SqliteConnection, bytes: &[u8]| {
                let value = match cell {
                    Cell::Number => i64::from_be_bytes(bytes.try_into().unwrap()).to_string(),
                    Cell::Text => format!("CAST(x'{}' AS TEXT)", hex::encode(bytes)),
                    Cell::Bytes => format!("x'{}'", hex::encode(bytes)),
                };
                conn.batch_execute(&format!("UPDATE {table} SET {column} = {value} WHERE {key} = {place}")).unwrap();
            };
            // every bit of a small cell, where nothing else depends on it or there are few; one of each of the others
            let every = nth == 0 && bytes.len() <= 32 && (cell == Cell::Number || table == "audit_head");
            let bits = if every { (0..bytes.len() * 8).collect() } else { vec![dice.random_range(0..bytes.len() * 8)] };
            for bit in bits {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                set(&mut conn, &changed);
                let found = rig.audit_data().verify(keys.clone(), Vec::new(), |_, _| {});
                match found {
                    Ok(report) => {
                        assert_eq!(report.verdict, Verdict::Tampered, "{table}.{column} {place} bit {bit}");
                        if table == "audit_leaf" || table == "audit_payload" {
                            assert_eq!(report.first_bad, u64::try_from(place).ok(), "{table}.{column} bit {bit}: {:?}", report.findings);
                        }
                    }
                    // text that is no text any more cannot even be read
                    Err(error) => assert!(cell == Cell::Text, "{table}.{column} {place}: {error}"),
                }
                flipped += 1;
            }
            set(&mut conn, &bytes);
        }
    }
    assert_eq!(rig.verify().verdict, Verdict::Ok, "all is back");
    println!("{flipped} bits");
}

#[test]
fn f2_rows_that_are_deleted_or_moved_are_missed() {
    let rig = Rig::new();
    let ledger = rig.open();
    write(&ledger, 20);
    checkpoint(&ledger).unwrap();
    write(&ledger, 5);
    let last = checkpoint(&ledger).unwrap().checkpoint().size;
    drop(ledger);
    let whole = std::fs::read(rig.file(DATABASE)).unwrap();
    for (change, first_bad) in [
        ("DELETE FROM audit_leaf WHERE seq = 7".to_owned(), 7),
        ("UPDATE audit_leaf SET seq = -seq WHERE seq = 9; UPDATE audit_leaf SET seq = 9 WHERE seq = 10; UPDATE audit_leaf SET seq = 10 WHERE seq = -9".to_owned(), 9),
        ("DELETE FROM audit_payload WHERE seq = 5".to_owned(), 5),
        (format!("DELETE FROM audit_checkpoint WHERE size < {last}"), 24),
        ("DELETE FROM audit_node WHERE level = 2 AND idx = 1".to_owned(), 8),
    ] {
        let mut conn = rig.sql();
        conn.batch_execute(&change).unwrap();
        drop(conn);
        let report = rig.verify();
        assert_eq!((report.verdict, report.first_bad), (Verdict::Tampered, Some(first_bad)), "{change}: {:?}", report.findings);
        std::fs::write(rig.file(DATABASE), &whole).unwrap();
    }
    // the end is cut off, with its head, its tree and its checkpoints: what was published tells
    let mut conn = rig.sql();
    conn.batch_execute("DELETE FROM audit_leaf WHERE seq > 12; DELETE FROM audit_payload WHERE seq > 12; DELETE FROM audit_checkpoint; UPDATE audit_head SET size = 12, root = x'', last_hash = (SELECT leaf_hash FROM audit_leaf WHERE seq = 12)").unwrap();
    drop(conn);
    let report = rig.verify();
    assert_eq!((report.verdict, report.first_bad.is_some_and(|seq| seq <= 13)), (Verdict::Tampered, true), "{report:?}");
    assert!(report.findings.iter().any(|finding| finding.what.contains("cut off")), "{report:?}");
}

fn epoch_in(rig: &Rig) -> String {
    let mut conn = SqliteConnection::establish(rig.file(DATABASE).to_str().unwrap()).unwrap();
    crate::tables::meta::get(&mut conn, "epoch").unwrap().unwrap()
}

#[test]
fn f6_a_database_that_was_put_back_does_not_start_unless_a_restore_says_so() {
    let rig = Rig::new();
    let ledger = rig.open();
    write(&ledger, 5);
    checkpoint(&ledger).unwrap();
    let saved = rig.dir.path().join("saved.db");
    backup(&rig.data(), &saved, &rig.options().clock).unwrap();
    write(&ledger, 20);
    let newest = checkpoint(&ledger).unwrap();
    let epoch = |ledger: &Ledger| ledger.read_blocking(|reader| reader.epoch()).unwrap();
    let first_epoch = epoch(&ledger);
    runtime().block_on(ledger.shut_down()).unwrap();
    drop(ledger);
    // somebody puts the old file in the place of the new one
    std::fs::copy(&saved, rig.file(DATABASE)).unwrap();
    for _ in 0..2 {
        let refused = Ledger::open(rig.options()).unwrap_err();
        assert!(matches!(&refused, OpenError::RolledBack { published, found, .. } if published > found), "{refused}");
        assert!(refused.to_string().contains("opspilot restore"), "{refused}");
    }
    let report = rig.verify();
    assert!(report.verdict == Verdict::Tampered && report.findings[0].what.contains("cut off"), "{report:?}");
    assert_ne!(epoch_in(&rig), first_epoch, "what was used up must not be usable again");
    // nor does it if he writes down himself that a restore went back behind it: outside of the log, or in an entry that
    // was another one
    let digest = published::digest(&newest);
    let put_back = std::fs::read(rig.file(DATABASE)).unwrap();
    let in_entry = {
        let mut conn = rig.sql();
        let (leaf, salt): (Vec<u8>, Vec<u8>) = crate::schema::audit_leaf::table
            .inner_join(crate::schema::audit_payload::table.on(crate::schema::audit_payload::seq.eq(crate::schema::audit_leaf::seq)))
            .filter(crate::schema::audit_leaf::seq.eq(5))
            .select((crate::schema::audit_leaf::leaf, crate::schema::audit_payload::salt))
            .first(&mut conn)
            .unwrap();
        let mut leaf: serde_json::Value = serde_json::from_slice(&leaf).unwrap();
        let body = serde_json::json!({ "behind": digest }).to_string();
        leaf["code"] = "RES01I".into();
        leaf["commit"] = hex::encode(crate::tables::audit::commitment(&salt, body.as_bytes())).into();
        let leaf = leaf.to_string();
        let hash = crate::audit::tree::leaf_hash(leaf.as_bytes());
        format!(
            "UPDATE audit_leaf SET leaf = x'{}', leaf_hash = x'{}' WHERE seq = 5; UPDATE audit_payload SET body = x'{}' WHERE seq = 5",
            hex::encode(&leaf),
            hex::encode(hash),
            hex::encode(&body)
        )
    };
    for attack in [format!("INSERT OR REPLACE INTO meta (name, value) VALUES ('rolled_back', '{digest}')"), in_entry] {
        std::fs::write(rig.file(DATABASE), &put_back).unwrap();
        let epoch_before = epoch_in(&rig);
        rig.sql().batch_execute(&attack).unwrap();
        let refused = Ledger::open(rig.options()).unwrap_err();
        if attack.contains("rolled_back") {
            assert!(matches!(&refused, OpenError::RolledBack { .. }), "{refused}");
            assert_ne!(epoch_in(&rig), epoch_before, "what was used up must not be usable again");
        }
        let report = rig.verify();
        assert_eq!(report.verdict, Verdict::Tampered, "{attack}: {report:?}");
        assert!(report.findings.iter().any(|finding| finding.what.contains("cut off")) || attack.contains("RES01I"), "{report:?}");
    }
    std::fs::write(rig.file(DATABASE), &put_back).unwrap();
    // a restore is on record, and the service starts and signs again
    restore(&saved, rig.options(), &Actor::System).unwrap();
    let ledger = rig.open();
    assert_ne!(epoch(&ledger), first_epoch);
    write(&ledger, 3);
    let note = checkpoint(&ledger).unwrap();
    assert!(note.checkpoint().size < newest.checkpoint().size);
    drop(ledger);
    let report = rig.verify();
    assert_eq!(report.verdict, Verdict::Ok, "{report:?}");
    // whoever holds the note from before still sees that the log went back
    let held = rig.audit_data().verify(rig.own_key(), vec![newest], |_, _| {}).unwrap();
    assert_eq!(held.verdict, Verdict::Tampered);
    drop(rig.open());
}

#[test]
fn a_copy_that_cannot_be_written_is_checked_all_the_same() {
    let rig = Rig::new();
    let ledger = rig.open();
    write(&ledger, 30);
    checkpoint(&ledger).unwrap();
    // with its write-ahead log, as somebody copies it who does not stop the service
    let live = Rig::new();
    copy(&rig.data(), &live.data());
    drop(ledger);
    let still = Rig::new();
    copy(&rig.data(), &still.data());
    for (rig, name) in [(&live, "live"), (&still, "still")] {
        let before: Vec<_> = std::fs::read_dir(rig.data()).unwrap().map(|file| file.unwrap().file_name()).collect();
        let bytes = std::fs::read(rig.file(DATABASE)).unwrap();
        assert_eq!(rig.verify().verdict, Verdict::Ok, "{name}");
        assert_eq!(std::fs::read(rig.file(DATABASE)).unwrap(), bytes, "{name}: it reads");
        if name == "still" {
            let after: Vec<_> = std::fs::read_dir(rig.data()).unwrap().map(|file| file.unwrap().file_name()).collect();
            assert_eq!(before.len(), after.len());
        }
    }
    assert!(published::newest(&still.file(PUBLISHED)).unwrap().is_some());
}
