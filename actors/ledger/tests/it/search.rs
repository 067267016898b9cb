//! Search: skipping rows finds the same as looking at every signal.

use std::time::Duration;

use opspilot_kernel::{
    codec::Labels,
    signal::{LogEntry, SignalKind, SignalRef},
    time::Timestamp,
};
use opspilot_ledger::{Ledger, Page, SearchBudget, SignalFilter};
use proptest::prelude::*;

use crate::support::{NOON, Rig, batch_of, lines, noon, runtime};

fn search(ledger: &Ledger, filter: &SignalFilter) -> Vec<u64> {
    let mut page = Page::first(7);
    let mut all = Vec::new();
    loop {
        let found = ledger.read_blocking(|reader| reader.signals(filter, &page, &SearchBudget::default())).unwrap();
        all.extend(found.items.iter().map(|item| item.seq));
        match found.next_cursor {
            Some(cursor) => page.cursor = Some(cursor),
            None => return all,
        }
    }
}

#[test]
fn rows_without_the_word_are_not_decompressed() {
    let rig = Rig::new();
    let ledger = rig.open();
    let rt = runtime();
    for n in 0..40 {
        rt.block_on(ledger.append(lines("shop", n * 100, 100))).unwrap();
    }
    let filter = SignalFilter { q: Some("request_1234".to_owned()), ..SignalFilter::default() };
    let found = ledger.read_blocking(|reader| reader.signals(&filter, &Page::first(10), &SearchBudget::default())).unwrap();
    assert_eq!(found.items.iter().map(|item| item.seq).collect::<Vec<_>>(), [1235]);
    assert_eq!((found.scanned.0, found.scanned_until, found.next_cursor), (40, 4000, None));
    assert!(found.scanned.1 < 20, "{} of 40 rows were decompressed", found.scanned.1);
}

#[test]
fn a_budget_ends_a_search_that_can_be_taken_up_again() {
    let rig = Rig::new();
    let ledger = rig.open();
    let rt = runtime();
    for n in 0..5 {
        rt.block_on(ledger.append(lines("shop", n * 10, 10))).unwrap();
    }
    let small = SearchBudget { rows: 2, bytes: usize::MAX, time: Duration::from_secs(60) };
    let filter = SignalFilter { q: Some("\"line 49\"".to_owned()), ..SignalFilter::default() };
    let (mut page, mut steps, mut found) = (Page::first(10), 0, Vec::new());
    loop {
        let part = ledger.read_blocking(|reader| reader.signals(&filter, &page, &small)).unwrap();
        steps += 1;
        found.extend(part.items.into_iter().map(|item| item.seq));
        let Some(cursor) = part.next_cursor else { break };
        page.cursor = Some(cursor);
    }
    assert_eq!((steps, found), (3, vec![50]));
}

#[test]
fn a_source_beyond_the_named_ones_is_found() {
    let rig = Rig::new();
    let ledger = rig.open();
    let sources: Vec<String> = (0..60).map(|n| format!("host-{n}")).collect();
    runtime().block_on(ledger.append(batch_of(sources.iter().map(|source| SignalRef::log(noon(), source, "up"))))).unwrap();
    for (n, source) in (1_u64..).zip(&sources) {
        let filter = SignalFilter { source: Some(source.clone()), ..SignalFilter::default() };
        assert_eq!(search(&ledger, &filter), [n]);
    }
    assert_eq!(search(&ledger, &SignalFilter { source: Some("host-60".to_owned()), ..SignalFilter::default() }), [0; 0]);
}

const WORDS: [&str; 8] = ["order", "order-81", "Failed", "timeout", "x", "db_pool", "größe", "100%"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn skipping_finds_what_a_full_scan_finds(
        batches in proptest::collection::vec(proptest::collection::vec((0..3_usize, 0..4_usize, proptest::collection::vec(0..8_usize, 0..4), 0..100_i64), 1..12), 1..8),
        kind in proptest::option::of(0..3_usize), source in proptest::option::of(0..4_usize), since in proptest::option::of(0..100_i64),
        until in proptest::option::of(0..100_i64), q in proptest::collection::vec(0..8_usize, 0..3), star: bool, after in 0..30_u64,
    ) {
        let kinds = [SignalKind::Log, SignalKind::Metric, SignalKind::Alert];
        let sources = ["web", "db", "cache", "queue"];
        let rig = Rig::new();
        let ledger = rig.open();
        let rt = runtime();
        for batch in &batches {
            let texts: Vec<String> = batch.iter().map(|(_, _, words, _)| words.iter().map(|word| WORDS[*word]).collect::<Vec<_>>().join(" ")).collect();
            let labels: Vec<[(&str, &str); 1]> = texts.iter().map(|text| [("note", text.as_str())]).collect();
            let signals = batch.iter().zip(texts.iter().zip(&labels)).map(|((kind, source, _, at), (text, labels))| {
                let at = Timestamp::from_millis(NOON + at);
                match kinds[*kind] {
                    SignalKind::Log => SignalRef::log(at, sources[*source], text),
                    SignalKind::Metric => SignalRef { labels: Labels::Pairs(labels), ..SignalRef::metric(at, sources[*source], "latency", 1.0) },
                    SignalKind::Alert => SignalRef { title: text, name: "Down", ..SignalRef::bare(SignalKind::Alert, at, sources[*source]) },
                }
            });
            rt.block_on(ledger.append(batch_of(signals))).unwrap();
        }
        let mut text = q.iter().map(|word| WORDS[*word]).collect::<Vec<_>>().join(" ");
        if star && !text.is_empty() {
            text.push('*');
        }
        let everything = SignalFilter { q: Some(text), ..SignalFilter::default() };
        let narrow = SignalFilter {
            kind: kind.map(|kind| kinds[kind]), source: source.map(|source| sources[source].to_owned()),
            since: since.map(|at| Timestamp::from_millis(NOON + at)), until: until.map(|at| Timestamp::from_millis(NOON + at)),
            after_seq: after, ..everything.clone()
        };
        // the full scan: every signal on its own, by the plainest reading of the words
        let mut expected = Vec::new();
        for entry in ledger.signals().next(0, usize::MAX).unwrap() {
            let LogEntry::Batch(block) = entry else { continue };
            for (seq, record) in block.iter() {
                let signal = record.decode().unwrap();
                let texts: Vec<String> = [signal.message, signal.name, signal.title, signal.description].into_iter()
                    .chain(signal.labels.iter().map(|(_, value)| value)).map(str::to_lowercase).collect();
                let has = |word: &str, prefix: bool| texts.iter().any(|text| text.match_indices(&word.to_lowercase()).any(|(at, hit)| {
                    let word_char = |c: char| c == '_' || c.is_alphanumeric();
                    let free_before = !text[..at].chars().next_back().is_some_and(word_char) || !word.starts_with(word_char);
                    let free_behind = prefix || !text[at + hit.len()..].chars().next().is_some_and(word_char) || !word.ends_with(word_char);
                    free_before && free_behind
                }));
                let words = q.iter().enumerate().all(|(n, word)| has(WORDS[*word], star && n + 1 == q.len()));
                let ranges = kind.is_none_or(|kind| kinds[kind] == signal.kind) && source.is_none_or(|source| sources[source] == signal.source)
                    && since.is_none_or(|at| signal.at.millis() >= NOON + at) && until.is_none_or(|at| signal.at.millis() < NOON + at);
                if words && ranges && seq > after {
                    expected.push(seq);
                }
            }
        }
        prop_assert_eq!(search(&ledger, &narrow), expected);
    }
}
