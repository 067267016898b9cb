//! Retention, audit, backup and restore.

use std::{fs, time::Duration};

use opspilot_kernel::{module::ModuleStatus, principal::Actor, signal::SignalRef, time::Timestamp};
use opspilot_ledger::{
    AuditFilter, EventEntry, Ledger, Limits, Options, Page, Priority, Retention, SignalBatch, SignalBatchBuilder, StorageHealth, backup,
    restore,
};

use crate::support::{Rig, lines, messages, noon, runtime};

const DAY: Duration = Duration::from_secs(86_400);

fn ada() -> Actor {
    Actor::User { id: "ada".to_owned(), via: "cli".to_owned() }
}

fn codes(ledger: &Ledger, filter: AuditFilter) -> Vec<String> {
    ledger
        .read_blocking(|reader| {
            reader.audit_verify()?;
            let page = reader.audit(&filter, &Page::first(100))?;
            Ok(page.items.iter().map(|record| record.leaf["code"].as_str().unwrap().to_owned()).collect())
        })
        .unwrap()
}

fn received(at: Timestamp, text: &str, id: &str) -> SignalBatch {
    let mut builder = SignalBatchBuilder::new(at);
    builder.push(&SignalRef { id, ..SignalRef::log(at, "a", text) });
    builder.seal()
}

/// Waits until the writer, left alone, has done a round of retention: each job gives it the occasion.
fn until(ledger: &Ledger, mut done: impl FnMut() -> bool) {
    let rt = runtime();
    for _ in 0..10_000 {
        if done() {
            return;
        }
        rt.block_on(ledger.write(Priority::Control, |_| Ok(()))).unwrap();
    }
    panic!("it never came");
}

#[test]
fn old_signals_go_but_not_past_a_follower() {
    let rig = Rig::new();
    let mut options = rig.options();
    options.limits = Limits { signal_ring_bytes: 0, event_ring_bytes: 0, ..options.limits };
    let ledger = Ledger::open(options).unwrap();
    let rt = runtime();
    rt.block_on(ledger.write(Priority::Bulk, |tx| {
        tx.follow("detector.slow", "signals")?;
        tx.save_cursor("detector.slow", 1, Vec::new())
    }))
    .unwrap();
    for day in 0..10 {
        rt.block_on(ledger.append(received(rig_now(&rig), &format!("day {day}"), ""))).unwrap();
        rig.clock.advance(DAY);
    }
    rig.clock.advance(Duration::from_secs(61));
    until(&ledger, || messages(&ledger).first().is_some_and(|(seq, _)| *seq == 2));
    rt.block_on(ledger.write(Priority::Bulk, |tx| tx.save_cursor("detector.slow", 10, Vec::new()))).unwrap();
    rig.clock.advance(Duration::from_secs(61));
    until(&ledger, || messages(&ledger).first().is_some_and(|(seq, _)| *seq == 5));
    assert_eq!(messages(&ledger).len(), 6, "what is younger than seven days is kept");
    let events = ledger.events().next(0, 100).unwrap();
    assert_eq!(events[0], EventEntry::Gap { oldest: 5 }, "events older than seven days are a gap");
    assert_eq!(events.len(), 7);
    drop(ledger);
    rig.clock.advance(DAY * 30);
    let ledger = rig.open();
    until(&ledger, || messages(&ledger).len() == 1);
    assert_eq!(ledger.signals().head(), 10, "the newest stays, so that numbers go on");
    assert_eq!(rt.block_on(ledger.append(lines("a", 0, 1))).unwrap().first_seq, 11);
}

fn rig_now(rig: &Rig) -> Timestamp {
    opspilot_kernel::clock::Clock::now(&*rig.clock)
}

#[test]
fn the_size_limit_passes_a_follower_and_says_so() {
    let rig = Rig::new();
    let mut options = rig.options();
    options.retention = Retention { signals_max_bytes: 50_000, ..Retention::default() };
    options.limits = Limits { signal_ring_bytes: 0, ..options.limits };
    let ledger = Ledger::open(options).unwrap();
    let rt = runtime();
    rt.block_on(ledger.write(Priority::Bulk, |tx| tx.follow("detector.stuck", "signals"))).unwrap();
    for n in 0..40 {
        rt.block_on(ledger.append(lines(&format!("s{n}"), n * 1000, 1000))).unwrap();
    }
    rig.clock.advance(Duration::from_secs(61));
    until(&ledger, || messages(&ledger).first().is_some_and(|(seq, _)| *seq > 1));
    assert_eq!(codes(&ledger, AuditFilter { action: Some("RET".to_owned()), ..AuditFilter::default() })[0], "RET02W");
    let StorageHealth::Healthy { notice: Some(notice) } = ledger.storage() else { panic!("{:?}", ledger.storage()) };
    assert!(notice.contains("a follower had only read up to 0"), "{notice}");
    assert_eq!(messages(&ledger).last().unwrap().0, 40_000);
}

/// A ledger whose database is mostly events, each the size of a name, and a few signals that nobody has read.
fn mostly_events(rig: &Rig, retention: Retention, names: usize) -> Ledger {
    let mut options = rig.options();
    options.retention = retention;
    options.limits = Limits { signal_ring_bytes: 0, event_ring_bytes: 0, ..options.limits };
    let ledger = Ledger::open(options).unwrap();
    let rt = runtime();
    rt.block_on(ledger.write(Priority::Bulk, |tx| tx.follow("detector.slow", "signals"))).unwrap();
    for n in 0..5 {
        rt.block_on(ledger.append(lines("a", n, 1))).unwrap();
    }
    for n in 0..names {
        let reason = format!("{n} {}", "x".repeat(2_000));
        rt.block_on(ledger.write(Priority::Bulk, move |tx| {
            tx.module_health_changed("detector.slow", ModuleStatus::Healthy, ModuleStatus::Degraded, &reason)
        }))
        .unwrap();
    }
    ledger
}

fn gauge(registry: &prometheus::Registry, name: &str, log: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    family.get_metric().iter().find(|metric| metric.get_label()[0].value() == log).unwrap().get_gauge().get_value()
}

#[test]
fn signals_are_not_deleted_for_what_other_tables_take() {
    let rig = Rig::new();
    let retention = Retention { signals_max_bytes: 100_000, ..Retention::default() };
    let ledger = mostly_events(&rig, retention.clone(), 300);
    let size = fs::metadata(rig.data().join("opspilot.db")).unwrap().len();
    let size = size + fs::metadata(rig.data().join("opspilot.db-wal")).unwrap().len();
    assert!(size > 600_000, "{size}");
    for _ in 0..2 {
        rig.clock.advance(Duration::from_secs(61));
        runtime().block_on(ledger.write(Priority::Control, |_| Ok(()))).unwrap();
    }
    runtime().block_on(ledger.write(Priority::Control, |_| Ok(()))).unwrap();
    assert_eq!(messages(&ledger).len(), 5, "acknowledged, and far below their own limit");
    drop(ledger);
    // counted anew at the next start
    let mut options = rig.options();
    options.retention = retention;
    let registry = options.registry.clone();
    let ledger = Ledger::open(options).unwrap();
    runtime().block_on(ledger.append(lines("a", 5, 1))).unwrap();
    let signals = gauge(&registry, "opspilot_ledger_log_bytes", "signals");
    assert!((400.0..20_000.0).contains(&signals), "{signals}");
    let events = gauge(&registry, "opspilot_ledger_log_bytes", "events");
    assert!((600_000.0..1_000_000.0).contains(&events), "{events}");
}

#[test]
fn events_have_a_size_limit_that_waits_for_a_channel_until_they_take_twice_as_much() {
    let rig = Rig::new();
    let retention = Retention { events_max_bytes: 400_000, ..Retention::default() };
    let ledger = mostly_events(&rig, retention, 100);
    let rt = runtime();
    let oldest = || match ledger.events().next(0, 1).unwrap()[0] {
        EventEntry::Gap { oldest } => oldest,
        _ => 1,
    };
    let channels = ["pager".to_owned()];
    rt.block_on(ledger.write(Priority::Bulk, move |tx| tx.outbox_open("notifier.webhook", &channels))).unwrap();
    rt.block_on(ledger.write(Priority::Bulk, |tx| tx.outbox_cursor("notifier.webhook", "pager", 50))).unwrap();
    let add = |names: usize| {
        for n in 0..names {
            let reason = format!("{n} {}", "x".repeat(2_000));
            rt.block_on(ledger.write(Priority::Bulk, move |tx| {
                tx.module_health_changed("detector.slow", ModuleStatus::Healthy, ModuleStatus::Degraded, &reason)
            }))
            .unwrap();
        }
        rig.clock.advance(Duration::from_secs(61));
    };
    add(200);
    until(&ledger, || oldest() == 51);
    for _ in 0..3 {
        rig.clock.advance(Duration::from_secs(61));
        rt.block_on(ledger.write(Priority::Control, |_| Ok(()))).unwrap();
    }
    assert_eq!(oldest(), 51, "over the limit, but not by far: the channel has not read these");
    assert_eq!(ledger.storage(), StorageHealth::Healthy { notice: None });
    add(250);
    until(&ledger, || oldest() > 51);
    let StorageHealth::Healthy { notice: Some(notice) } = ledger.storage() else { panic!("{:?}", ledger.storage()) };
    assert!(notice.contains("deleted events up to") && notice.contains("had only read up to 50"), "{notice}");
    assert_eq!(codes(&ledger, AuditFilter { action: Some("RET".to_owned()), ..AuditFilter::default() })[0], "RET04W");
    assert!(oldest() < 300, "no more than what is over twice the limit");
    rt.block_on(ledger.write(Priority::Bulk, |tx| tx.unfollow("notifier.webhook"))).unwrap();
    let before = oldest();
    rig.clock.advance(Duration::from_secs(61));
    until(&ledger, || oldest() > before + 100);
    assert_eq!(messages(&ledger).len(), 5);
}

#[test]
fn a_step_of_retention_that_is_cut_by_its_bytes_goes_on_at_once() {
    for retention in [Retention::default(), Retention { signals_max_bytes: 1, signals: DAY * 365, ..Retention::default() }] {
        let rig = Rig::new();
        let open = |retention| {
            let options = rig.options();
            let limits = Limits { signal_ring_bytes: 0, retention_step_bytes: 1, ..options.limits.clone() };
            Ledger::open(Options { limits, retention, ..options }).unwrap()
        };
        let ledger = open(Retention::default());
        for n in 0..20 {
            runtime().block_on(ledger.append(lines("a", n, 1))).unwrap();
        }
        drop(ledger);
        rig.clock.advance(DAY * 8);
        let ledger = open(retention);
        until(&ledger, || messages(&ledger).len() == 1);
    }
}

#[test]
fn claims_are_forgotten_after_a_day_and_at_the_bound() {
    let rig = Rig::new();
    let mut options = rig.options();
    options.limits = Limits { claims: 3, ..options.limits };
    let registry = options.registry.clone();
    let ledger = Ledger::open(options).unwrap();
    let rt = runtime();
    let accepted = |id: &str| rt.block_on(ledger.append(received(rig_now(&rig), "x", id))).unwrap().accepted;
    for id in ["1", "2", "3", "4", "5"] {
        assert_eq!(accepted(id), 1);
    }
    let metric = |name: &str| {
        registry.gather().iter().find(|family| family.name() == name).map_or(0.0, |family| {
            let metric = &family.get_metric()[0];
            metric.get_counter().get_value() + metric.get_gauge().get_value()
        })
    };
    assert_eq!(
        (metric("opspilot_ledger_claims"), metric("opspilot_ledger_claims_evicted_total")),
        (3.0, 2.0),
        "the bound holds after each commit"
    );
    assert_eq!([accepted("5"), accepted("1")], [0, 1], "the oldest were forgotten");
    rig.clock.advance(DAY + Duration::from_secs(61));
    until(&ledger, || metric("opspilot_ledger_claims") == 0.0);
    assert_eq!(accepted("5"), 1, "a day later it is another one");
}

#[test]
fn denied_attempts_are_coalesced_and_none_goes_uncounted() {
    let rig = Rig::new();
    let ledger = rig.open();
    let rt = runtime();
    let denied = |ledger: &Ledger, sources: Vec<String>| {
        rt.block_on(
            ledger
                .write(Priority::Control, move |tx| sources.into_iter().try_for_each(|via| tx.denied(&Actor::Anonymous { via }, "login"))),
        )
        .unwrap();
    };
    denied(&ledger, vec!["10.0.0.1".to_owned(); 200]);
    denied(&ledger, (0..400).map(|n| format!("10.0.1.{n}")).collect());
    rig.clock.advance(Duration::from_secs(61));
    denied(&ledger, vec!["10.0.0.2".to_owned()]);
    let filter = AuditFilter { action: Some("DEN".to_owned()), ..AuditFilter::default() };
    let (mut single, mut counted, mut cursor) = (0, 0, None);
    loop {
        let page = ledger.read_blocking(|reader| reader.audit(&filter, &Page { limit: 50, cursor: cursor.clone() })).unwrap();
        for record in &page.items {
            match record.leaf["code"].as_str().unwrap() {
                "DEN01W" => single += 1,
                _ => counted += record.body.as_ref().unwrap()["count"].as_u64().unwrap(),
            }
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(single + counted, 601);
    assert!(single <= 258, "{single} entries of their own");
    ledger.read_blocking(|reader| reader.audit_verify()).unwrap();
}

#[test]
fn a11_a_clock_that_goes_back_is_noticed_until_it_has_caught_up() {
    let rig = Rig::new();
    let ledger = rig.open();
    let audit = |ledger: &Ledger| runtime().block_on(ledger.write(Priority::Control, |tx| tx.module_switched(&ada(), "m", true))).unwrap();
    audit(&ledger);
    rig.clock.set(noon().before(Duration::from_secs(5)));
    assert_eq!(ledger.clock_regression(), None, "five seconds are nothing");
    rig.clock.set(noon().before(Duration::from_secs(3600)));
    audit(&ledger);
    assert_eq!(ledger.clock_regression(), Some(Duration::from_secs(3600)));
    drop(ledger);
    let ledger = rig.open();
    assert_eq!(ledger.clock_regression(), Some(Duration::from_secs(3600)), "known after a restart");
    rig.clock.set(noon());
    assert_eq!(ledger.clock_regression(), None);
}

#[test]
fn the_audit_chain_is_filtered_and_paged_newest_first() {
    let rig = Rig::new();
    let ledger = rig.open();
    let rt = runtime();
    for n in 0..30 {
        let actor = if n % 3 == 0 { ada() } else { Actor::System };
        rt.block_on(ledger.write(Priority::Control, move |tx| tx.module_switched(&actor, &format!("m{n}"), true))).unwrap();
    }
    let filter = AuditFilter { actor: Some("user:ada".to_owned()), ..AuditFilter::default() };
    let (mut targets, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = ledger.read_blocking(|reader| reader.audit(&filter, &Page { limit: 4, cursor: cursor.clone() })).unwrap();
        targets.extend(page.items.iter().map(|record| record.leaf["obj"]["id"].as_str().unwrap().to_owned()));
        pages += 1;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(targets, (0..10).rev().map(|n| format!("m{}", n * 3)).collect::<Vec<_>>());
    assert!(pages >= 3);
    let one = ledger
        .read_blocking(|reader| {
            reader.audit(&AuditFilter { target: Some("module:m7".to_owned()), ..AuditFilter::default() }, &Page::first(5))
        })
        .unwrap();
    assert_eq!(one.items.len(), 1);
    assert_eq!(one.items[0].body.as_ref().unwrap()["enabled"], true);
}

#[test]
fn a_backup_of_a_live_ledger_restores_with_a_new_epoch() {
    let rig = Rig::new();
    let ledger = rig.open();
    let rt = runtime();
    for n in 0..5 {
        rt.block_on(ledger.append(lines("a", n * 100, 100))).unwrap();
    }
    let epoch = ledger.read_blocking(|reader| reader.epoch()).unwrap();
    let instance = ledger.read_blocking(|reader| reader.instance()).unwrap();
    let file = rig.dir.path().join("backup.db");
    let report = rt.block_on(ledger.backup(file.clone(), ada())).unwrap();
    assert_eq!((report.last_signal, report.audit_entries), (500, 2));
    assert!(rt.block_on(ledger.backup(file.clone(), ada())).is_err(), "an existing file is not overwritten");
    let clock: opspilot_kernel::clock::SharedClock = rig.clock.clone();
    backup(&rig.data(), &rig.dir.path().join("second.db"), &clock).unwrap();
    rt.block_on(ledger.append(lines("a", 500, 10))).unwrap();
    let into = |dir: &str| Options { dir: rig.dir.path().join(dir), ..Options::new("", rig.clock.clone()) };
    assert!(restore(&file, into("data"), &ada()).unwrap_err().to_string().contains("is in use by another process"), "a live directory");
    drop(ledger);

    let fresh = restore(&file, into("fresh"), &ada()).unwrap();
    assert_eq!((fresh.restored.last_signal, fresh.replaced), (500, None));
    let ledger = Ledger::open(into("fresh")).unwrap();
    assert_eq!(messages(&ledger).len(), 500);
    assert_ne!(ledger.read_blocking(|reader| reader.epoch()).unwrap(), epoch);
    assert_eq!(ledger.read_blocking(|reader| reader.instance()).unwrap(), instance);
    assert!(codes(&ledger, AuditFilter::default()).contains(&"RES01I".to_owned()));

    let over = restore(&file, into("data"), &ada()).unwrap();
    let aside = over.replaced.unwrap();
    assert_eq!(messages(&Ledger::open(into("data")).unwrap()).len(), 500);
    assert_eq!(
        messages(&Ledger::open(Options { dir: aside, ..Options::new("", rig.clock.clone()) }).unwrap()).len(),
        510,
        "moved aside whole"
    );
}

#[test]
fn a_restore_sets_a_log_aside_that_was_left_without_its_database() {
    let rig = Rig::new();
    let ledger = rig.open();
    let rt = runtime();
    rt.block_on(ledger.append(lines("a", 0, 100))).unwrap();
    let file = rig.dir.path().join("backup.db");
    rt.block_on(ledger.backup(file.clone(), ada())).unwrap();
    drop(ledger);
    let dir = rig.dir.path().join("leftovers");
    fs::create_dir(&dir).unwrap();
    let left = ["opspilot.db-wal", "opspilot.db-shm", "running"];
    left.iter().for_each(|name| fs::write(dir.join(name), "left").unwrap());
    let into = || Options { dir: dir.clone(), ..Options::new("", rig.clock.clone()) };
    let aside = restore(&file, into(), &ada()).unwrap().replaced.expect("the leftovers are kept");
    left.iter().for_each(|name| assert_eq!(fs::read_to_string(aside.join(name)).unwrap(), "left"));
    assert_eq!(messages(&Ledger::open(into()).unwrap()).len(), 100);
}

#[test]
fn a_damaged_backup_is_refused_and_nothing_is_touched() {
    let rig = Rig::new();
    let ledger = rig.open();
    let rt = runtime();
    rt.block_on(ledger.append(lines("a", 0, 2000))).unwrap();
    let file = rig.dir.path().join("backup.db");
    rt.block_on(ledger.backup(file.clone(), ada())).unwrap();
    drop(ledger);
    let mut bytes = fs::read(&file).unwrap();
    let half = bytes.len() / 2;
    bytes.truncate(half);
    fs::write(&file, bytes).unwrap();
    let refused = restore(&file, rig.options(), &ada()).unwrap_err();
    assert!(refused.to_string().contains("cannot be used"), "{refused}");
    assert_eq!(messages(&rig.open()).len(), 2000);
}

#[test]
fn denied_attempts_that_a_full_queue_refuses_are_counted() {
    let rig = Rig::new();
    let mut options = rig.options();
    options.limits = Limits { bulk_queue: 1, ..options.limits };
    let registry = options.registry.clone();
    let ledger = Ledger::open(options).unwrap();
    let held = crate::support::hold_writer(&ledger);
    let rt = runtime();
    let waits = ledger.denied(ada(), "GET /a".to_owned());
    for _ in 0..3 {
        rt.block_on(ledger.denied(ada(), "GET /b".to_owned())).unwrap_err();
    }
    drop(held);
    rt.block_on(waits).unwrap();
    let families = registry.gather();
    let lost = families.iter().find(|family| family.name() == "opspilot_audit_refused_total").unwrap();
    assert_eq!(lost.get_metric()[0].get_counter().get_value(), 3.0);
}

#[test]
fn a1_a_snapshot_in_several_transactions_counts_when_its_cursor_is_written_and_never_in_part() {
    let rig = Rig::new();
    let ledger = rig.open();
    let part = |key: &str, text: &str| opspilot_ledger::Snapshot { key: key.to_owned(), blob: text.as_bytes().to_vec() };
    let known = |ledger: &Ledger| {
        let parts = ledger.read_blocking(|reader| reader.snapshots("detector.a")).unwrap();
        parts.into_iter().map(|part| format!("{}={}", part.key, String::from_utf8(part.blob).unwrap())).collect::<Vec<_>>()
    };
    let write = |ledger: &Ledger, job: fn(&mut opspilot_ledger::Tx<'_>, Vec<opspilot_ledger::Snapshot>) -> _, parts| {
        ledger.write_blocking(Priority::Bulk, move |tx| job(tx, parts)).unwrap();
    };
    write(&ledger, |tx, parts| tx.save_cursor("detector.a", 5, parts), vec![part("a", "1"), part("b", "1"), part("c", "1")]);
    write(&ledger, |tx, parts| tx.stage_snapshots("detector.a", 10, parts), vec![part("a", "2"), part("b", "")]);
    assert_eq!(known(&ledger), ["a=1", "b=1", "c=1"], "the set is not complete");
    drop(ledger);
    let ledger = rig.open();
    ledger.write_blocking(Priority::Bulk, |tx| tx.follow("detector.a", "signals")).unwrap();
    write(&ledger, |tx, parts| tx.save_cursor("detector.a", 12, parts), vec![part("c", "3")]);
    assert_eq!(known(&ledger), ["a=1", "b=1", "c=3"], "a set that was cut off never counts");
    write(&ledger, |tx, parts| tx.stage_snapshots("detector.a", 20, parts), vec![part("a", "4"), part("b", ""), part("d", "4")]);
    write(&ledger, |tx, parts| tx.save_cursor("detector.a", 20, parts), vec![part("c", "4")]);
    assert_eq!(known(&ledger), ["a=4", "c=4", "d=4"]);
    write(&ledger, |tx, parts| tx.save_cursor("detector.a", 21, parts), vec![part("a", "5"), part("b", "5"), part("d", "")]);
    assert_eq!(known(&ledger), ["a=5", "b=5", "c=4"]);
}

#[test]
fn what_lies_on_the_shelf_is_read_by_its_key_and_is_no_part_of_a_snapshot() {
    let rig = Rig::new();
    let ledger = rig.open();
    let part = |key: &str, text: &str| opspilot_ledger::Snapshot { key: key.to_owned(), blob: text.as_bytes().to_vec() };
    let parts = vec![part("~b", "2"), part("~a", "1"), part("~c", "3")];
    ledger
        .write_blocking(Priority::Bulk, move |tx| {
            tx.save_cursor("detector.a", 5, vec![part("a", "1"), part("\u{e9}", "2")])?;
            tx.shelve("detector.a", parts)?;
            tx.shelve("detector.b", vec![part("~a", "theirs")])?;
            tx.shelve("detector.a", vec![part("~a", "4"), part("~b", ""), part("~none", "")])
        })
        .unwrap();
    let plain = |key: &str| {
        matches!(
            ledger.write_blocking(Priority::Bulk, {
                let key = key.to_owned();
                move |tx| tx.shelve("detector.a", vec![part(&key, "x")])
            }),
            Err(opspilot_ledger::LedgerError::Invalid(_))
        )
    };
    assert!(plain("a"), "what lies elsewhere is not touched by it");
    ledger
        .read_blocking(|reader| {
            let keys: Vec<String> = reader.snapshots("detector.a")?.into_iter().map(|part| part.key).collect();
            assert_eq!(keys, ["a", "\u{e9}"]);
            assert_eq!(reader.shelf_keys("detector.a")?, ["~a", "~c"]);
            assert_eq!(reader.shelved("detector.a", "~a")?, Some(b"4".to_vec()));
            assert_eq!(reader.shelved("detector.a", "~b")?, None);
            Ok(())
        })
        .unwrap();
}
