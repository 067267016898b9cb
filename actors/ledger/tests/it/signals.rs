//! Signals: in order, once, the same from memory and from the database, however they were cut.

use opspilot_kernel::{
    signal::{LogEntry, SignalRef},
    time::Timestamp,
};
use opspilot_ledger::{Ledger, Limits, SignalBatchBuilder};
use proptest::prelude::*;

use crate::support::{Rig, batch_of, hold_writer, lines, messages, noon, runtime};

#[test]
fn what_is_acknowledged_is_there_after_reopening() {
    let rig = Rig::new();
    let ledger = rig.open();
    let (first, second) = runtime().block_on(async {
        let first = ledger.append(lines("checkout", 0, 3)).await.unwrap();
        (first, ledger.append(lines("checkout", 3, 500)).await.unwrap())
    });
    assert_eq!((first.first_seq, first.last_seq, first.accepted), (1, 3, 3));
    assert_eq!((second.first_seq, second.last_seq, second.accepted), (4, 503, 500));
    let from_memory = messages(&ledger);
    assert_eq!(from_memory.len(), 503);
    drop(ledger);
    let ledger = rig.open();
    assert_eq!(ledger.signals().head(), 503);
    assert_eq!(messages(&ledger), from_memory, "the database says the same as memory");
}

#[test]
fn a_cursor_inside_a_block_gives_only_what_is_behind_it() {
    let rig = Rig::new();
    let ledger = rig.open();
    runtime().block_on(ledger.append(lines("a", 0, 10))).unwrap();
    let check = |ledger: &Ledger| {
        let entries = ledger.signals().next(7, 1 << 20).unwrap();
        let LogEntry::Batch(block) = &entries[0] else { panic!("not a batch") };
        assert_eq!((block.first_seq, block.last_seq), (8, 10));
        let texts: Vec<_> = block.iter().map(|(seq, record)| (seq, record.decode().unwrap().message.to_owned())).collect();
        assert_eq!(texts.len(), 3);
        assert!(texts[0].0 == 8 && texts[0].1.starts_with("line 7 "));
    };
    check(&ledger);
    drop(ledger);
    check(&rig.open());
}

#[test]
fn ticks_are_numbered_in_both_logs() {
    let rig = Rig::new();
    let ledger = rig.open();
    let at = Timestamp::from_millis(noon().millis() + 5000);
    runtime().block_on(async {
        ledger.append(lines("a", 0, 2)).await.unwrap();
        ledger.tick(at).await.unwrap();
        ledger.append(lines("a", 2, 1)).await.unwrap();
    });
    let check = |ledger: &Ledger| {
        let entries = ledger.signals().next(0, 1 << 20).unwrap();
        assert!(matches!(entries[1], LogEntry::Tick { seq: 3, at: seen } if seen == at), "{entries:?}");
        assert_eq!(entries[2].last_seq(), 4);
        let alerts = ledger.alerts().next(0, 10).unwrap();
        assert!(matches!(alerts[..], [opspilot_ledger::AlertEntry::Tick { seq: 1, at: seen }] if seen == at));
    };
    check(&ledger);
    drop(ledger);
    check(&rig.open());
}

#[test]
fn a_known_id_is_stored_once_and_named_by_index() {
    let rig = Rig::new();
    let with_id =
        |source: &'static str, message: &'static str, id: &'static str| SignalRef { id, ..SignalRef::log(noon(), source, message) };
    let ledger = rig.open();
    let rt = runtime();
    let first =
        rt.block_on(ledger.append(batch_of([with_id("a", "one", "1"), with_id("a", "two", "2"), with_id("a", "one again", "1")]))).unwrap();
    assert_eq!((first.accepted, first.duplicates), (2, vec![2]));
    let second = rt
        .block_on(ledger.append(batch_of([
            with_id("a", "two again", "2"),
            with_id("b", "other source", "2"),
            SignalRef::log(noon(), "a", "no id"),
        ])))
        .unwrap();
    assert_eq!((second.accepted, second.duplicates.clone(), second.first_seq, second.last_seq), (2, vec![0], 3, 4));
    let texts: Vec<String> = messages(&ledger).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["one", "two", "other source", "no id"]);
    drop(ledger);
    let ledger = rig.open();
    let third = rt.block_on(ledger.append(batch_of([with_id("a", "one", "1")]))).unwrap();
    assert_eq!((third.accepted, third.duplicates), (0, vec![0]), "remembered over a restart");
    assert_eq!(ledger.signals().head(), 4);
}

#[test]
fn the_future_is_clamped_and_counted() {
    let mut builder = SignalBatchBuilder::new(noon());
    builder.push(&SignalRef::log(noon().after(std::time::Duration::from_secs(300)), "a", "just in time"));
    builder.push(&SignalRef::log(noon().after(std::time::Duration::from_secs(301)), "a", "too far"));
    let batch = builder.seal();
    assert_eq!(batch.clamped(), 1);
    let rig = Rig::new();
    let ledger = rig.open();
    runtime().block_on(ledger.append(batch)).unwrap();
    let entries = ledger.signals().next(0, 1 << 20).unwrap();
    let LogEntry::Batch(block) = &entries[0] else { panic!("not a batch") };
    let times: Vec<_> = block.iter().map(|(_, record)| record.decode().unwrap().at.since(noon()).as_secs()).collect();
    assert_eq!(times, [300, 0]);
}

#[test]
fn one_group_commit_is_one_row_and_one_event() {
    let rig = Rig::new();
    let ledger = rig.open();
    let held = hold_writer(&ledger);
    let rt = runtime();
    rt.block_on(async {
        let appends = (0..50).map(|n| ledger.append(lines(&format!("source-{n}"), n * 10, 10)));
        let mut appends = futures_util::future::join_all(appends);
        assert!(futures_util::poll!(&mut appends).is_pending());
        drop(held);
        let numbers: Vec<_> = appends.await.into_iter().map(|appended| appended.unwrap().first_seq).collect();
        assert_eq!(numbers, (0..50).map(|n| n * 10 + 1).collect::<Vec<_>>(), "in the order they came");
    });
    assert_eq!(ledger.signals().next(0, usize::MAX).unwrap().len(), 1);
    let events = ledger.events().next(0, 100).unwrap();
    assert_eq!(events.len(), 1);
    let opspilot_ledger::EventEntry::Event(envelope) = &events[0] else { panic!("a gap") };
    let opspilot_kernel::event::Event::LogIngested { first_seq, last_seq, count, sources } = &envelope.event else {
        panic!("{envelope:?}")
    };
    assert_eq!((*first_seq, *last_seq, *count, sources.len()), (1, 500, 500, 32), "at most 32 sources are named");
    assert_eq!(messages(&ledger).len(), 500);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn however_signals_are_cut_the_log_is_the_same(
        cuts in proptest::collection::vec(1..400_u32, 1..12), reopen in any::<bool>(), ring in prop_oneof![Just(0_usize), Just(1 << 14), Just(64 << 20)],
    ) {
        let rig = Rig::new();
        let mut options = rig.options();
        options.limits = Limits { signal_ring_bytes: ring, ..options.limits };
        let mut ledger = Ledger::open(options).unwrap();
        let mut from = 0;
        let rt = runtime();
        for cut in cuts {
            rt.block_on(ledger.append(lines("a", from, cut))).unwrap();
            from += cut;
            if reopen && cut % 3 == 0 {
                drop(ledger);
                ledger = rig.open();
            }
        }
        let expected: Vec<_> = (0..from).map(|n| (u64::from(n) + 1, format!("line {n} of the story, request_{n} took {} ms", n % 97))).collect();
        prop_assert_eq!(messages(&ledger), expected);
    }
}
