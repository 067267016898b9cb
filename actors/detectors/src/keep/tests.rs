//! Proved with a detector that remembers everything in a number: whatever is lost, doubled or out of order changes it.

use std::{collections::BTreeMap, time::Duration};

use opspilot_kernel::{
    alert::{AlertRecord, Transition},
    config::{ModuleConfig, Problem},
    fingerprint::Fingerprint,
    ids::AlertId,
    signal::{LogEntry, Severity},
};
use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Keep, Kept, Limits, Pace, Touch};
use crate::{
    Change, Counts, Detect, Shelf,
    testing::{Rng, Step, Store, fate, log_of, say, survive},
};

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
struct Config {
    held: usize,
    known: usize,
    digest: u64,
    /// Bytes in a commit.
    most: usize,
}

impl ModuleConfig for Config {
    fn validate(&self) -> Vec<Problem> {
        Vec::new()
    }
}

#[derive(Debug, Default, PartialEq)]
struct Sum {
    sum: u64,
    count: u64,
}

impl Kept for Sum {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.sum.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&[7; 50]);
    }

    fn decode(bytes: &[u8]) -> Option<Sum> {
        let (sum, rest) = bytes.split_first_chunk::<8>()?;
        let (count, _) = rest.split_first_chunk::<8>()?;
        Some(Sum { sum: u64::from_le_bytes(*sum), count: u64::from_le_bytes(*count) })
    }

    fn bytes(&self) -> usize {
        66
    }
}

struct Toy {
    keep: Keep<Sum>,
    digest: u64,
}

/// An alert about it is always open.
const OPEN: &str = "s0";

fn is_open(key: u64) -> bool {
    key == key_of(OPEN)
}

fn key_of(source: &str) -> u64 {
    Fingerprint::of_pairs([("source", source)]).as_u64()
}

fn limits(config: &Config) -> Limits {
    let pace = Pace { span: 1 << 40, hour: Duration::from_secs(3600 * 24 * 365), most: config.most };
    Limits { held: config.held, held_bytes: 1 << 20, known: config.known, forget_after: Duration::from_secs(10 * 3600), pace }
}

impl Detect for Toy {
    const ID: &'static str = "detector.toy";
    const SUMMARY: &'static str = "";
    type Config = Config;

    fn build(config: &Config) -> Toy {
        Toy { keep: Keep::new(limits(config)), digest: config.digest }
    }

    fn consume(&mut self, entry: &LogEntry, out: &mut Vec<AlertRecord>) {
        match entry {
            LogEntry::Batch(block) => {
                self.keep.advance(block.first_seq, block.received_at, is_open);
                for (seq, record) in block.iter() {
                    let signal = record.decode().unwrap();
                    let touch = Touch { key: key_of(signal.source), digest: self.digest, seq, at: block.received_at };
                    let place = self.keep.touch(touch, Sum::default, is_open);
                    let state = self.keep.get(place).unwrap();
                    state.sum = state.sum.wrapping_mul(31).wrapping_add(signal.value.unwrap().to_bits());
                    state.count += 1;
                    let said = format!("{} {} {}", signal.source, state.count, state.sum);
                    self.keep.weigh(place);
                    out.push(record_of(seq, block.received_at, said));
                }
                self.keep.read_to(block.last_seq);
            }
            LogEntry::Tick { seq, at } => self.keep.advance(*seq, *at, is_open),
            LogEntry::Reload { .. } => {}
        }
    }

    fn changed(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.keep.changed(&mut changes);
        changes
    }

    fn shelve(&mut self) -> Vec<Change> {
        self.keep.shelve()
    }

    fn restore(&mut self, key: &str, body: &[u8]) -> Result<(), String> {
        self.keep.restore(key, body)
    }

    fn begin(&mut self, shelf: Box<dyn Shelf>) -> Result<(), String> {
        self.keep.begin_with(shelf)
    }

    fn behind(&self) -> Option<u64> {
        self.keep.behind()
    }

    fn relearn(&mut self, entry: &LogEntry) {
        let LogEntry::Batch(block) = entry else { return };
        for (seq, record) in block.iter() {
            let signal = record.decode().unwrap();
            let touch = Touch { key: key_of(signal.source), digest: self.digest, seq, at: block.received_at };
            if let Some(place) = self.keep.relearn(touch, Sum::default) {
                let state = self.keep.get(place).unwrap();
                state.sum = state.sum.wrapping_mul(31).wrapping_add(signal.value.unwrap().to_bits());
                state.count += 1;
                self.keep.weigh(place);
            }
        }
    }

    fn relearned(&mut self, seq: u64) {
        self.keep.relearned(seq);
    }

    fn take_over(&mut self, former: &mut Toy) {
        std::mem::swap(&mut self.keep, &mut former.keep);
    }

    fn counts(&self) -> Counts {
        let kinds = self.keep.counts();
        Counts { open: kinds.held, bytes: kinds.bytes, shelved: kinds.shelved, ..Counts::default() }
    }
}

fn record_of(seq: u64, at: opspilot_kernel::time::Timestamp, said: String) -> AlertRecord {
    AlertRecord {
        alert: AlertId::derived(&[&said]),
        detected_by: Toy::ID.to_owned(),
        rule: String::new(),
        fingerprint: Fingerprint::from_u64(0),
        transition: Transition::Repeat,
        resolved_by: None,
        at,
        logged_at: at,
        signal_seq: seq,
        count: 1,
        source: String::new(),
        title: said,
        description: String::new(),
        severity: Severity::Info,
        labels: BTreeMap::new(),
        supports: false,
        evidence: Vec::new(),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![4 => Just(0_i64), 4 => 0..5_000_i64, 2 => 0..4 * 3_600_000_i64, 1 => Just(11 * 3_600_000_i64)];
    proptest::collection::vec((wait, 0..14_usize, 0..100_i32), 1..120).prop_map(|moves| {
        let mut now = 0;
        moves
            .into_iter()
            .map(|(wait, who, value)| {
                now += wait;
                match who {
                    13 => Step::tick(now),
                    who => Step::metric(now, &format!("s{who}"), "m", f64::from(value)),
                }
            })
            .collect()
    })
}

fn toy(held: usize, known: usize, most: usize) -> Toy {
    Toy::build(&Config { held, known, digest: 1, most })
}

fn titles(records: &[AlertRecord]) -> Vec<&str> {
    records.iter().map(|record| record.title.as_str()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a1_kills_at_any_point_lose_nothing_and_double_nothing_however_little_fits_and_is_written(
        steps in steps(), fate in fate(), held in 1..8_usize, known in 8..14_usize, most in prop_oneof![Just(1_usize), Just(150), Just(1 << 20)],
    ) {
        let whole = say(toy(100, known, 0), &steps);
        let squeezed = say(toy(held, known, most), &steps);
        prop_assert_eq!(titles(&whole), titles(&squeezed), "leaving memory loses nothing");
        let survived = survive(|| toy(held, known, most), &steps, &fate);
        prop_assert_eq!(titles(&whole), titles(&survived));
        prop_assert_eq!(whole, survived);
    }
}

/// A long log over many series, committed every so often; how much was written and read again.
fn run(series: u64, signals: i64, most: usize) -> (u64, usize, usize) {
    let mut rng = Rng(7);
    let steps: Vec<Step> = (0..signals).map(|n| Step::metric(n * 10, &format!("s{}", rng.below(series)), "m", 1.0)).collect();
    let entries = log_of(&steps, |_| true);
    let pace = Pace { span: 2_000, hour: Duration::from_secs(3600), most };
    let mut toy = toy(usize::MAX, usize::MAX, most);
    toy.keep.limit(Limits {
        held: usize::MAX,
        held_bytes: usize::MAX,
        known: usize::MAX,
        forget_after: Duration::from_secs(1 << 30),
        pace,
    });
    toy.begin(Box::new(crate::testing::TestShelf::default())).unwrap();
    let mut store = Store::default();
    let mut most_written = 0;
    for (at, entry) in entries.iter().enumerate() {
        toy.consume(entry, &mut Vec::new());
        if at % 50 == 0 {
            let before = toy.keep.counts().written;
            store.commit(&mut toy, usize::MAX);
            most_written = most_written.max(usize::try_from(toy.keep.counts().written - before).unwrap());
        }
    }
    store.commit(&mut toy, usize::MAX);
    let (_, again) = store.restart(toy_like(), &entries);
    (again, most_written, store.shelved())
}

fn toy_like() -> Toy {
    toy(usize::MAX, usize::MAX, 1)
}

#[test]
fn both_what_is_written_and_the_way_back_are_bounded() {
    // 226 bytes are accounted for each series: to write all within 2,000 signals takes 57 for each; a base counts 66
    let (again, written, shelved) = run(500, 20_000, 1 << 20);
    assert_eq!(shelved, 500);
    assert!(written <= 50 * 57 / 66 + 1, "{written} bases in a commit after 50 signals");
    assert!(again <= 2_000 + 50, "{again} signals read again");
    // a series that is silent costs nothing
    let (again, ..) = run(3, 20_000, 1 << 20);
    assert!(again <= 60, "{again} signals read again");
}

#[test]
fn a_base_that_is_damaged_costs_its_series_alone_and_nothing_while_its_signals_are_there() {
    let steps: Vec<Step> = (0..80).map(|n| Step::metric(n, &format!("s{}", n % 4), "m", 1.0)).collect();
    let entries = log_of(&steps, |_| true);
    let feed = |toy: &mut Toy, entries: &[LogEntry]| {
        let mut out = Vec::new();
        entries.iter().for_each(|entry| toy.consume(entry, &mut out));
        out.iter().map(|record| record.title.rsplit_once(' ').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    let mut store = Store::default();
    let (mut first, _) = store.restart(toy(100, 100, 1 << 20), &[]);
    feed(&mut first, &entries[..40]);
    store.commit(&mut first, usize::MAX);
    store.damage(key_of("s1"));
    let (mut second, again) = store.restart(toy(100, 100, 1 << 20), &entries[..40]);
    assert_eq!(again, 40, "what was on its way to the shelf is not known to be there");
    assert_eq!(feed(&mut second, &entries[40..76]).last().map(String::as_str), Some("s3 19"));
    store.commit(&mut second, usize::MAX);
    store.commit(&mut second, usize::MAX);
    store.damage(key_of("s1"));
    let (mut third, again) = store.restart(toy(100, 100, 1 << 20), &entries[..76]);
    assert_eq!(again, 0);
    assert_eq!(feed(&mut third, &entries[76..]), ["s0 20", "s1 1", "s2 20", "s3 20"]);
    assert_eq!(third.keep.counts().unreadable, 1);
}

#[test]
fn a_rule_that_means_something_else_begins_anew_and_goes_on_so_after_a_kill() {
    let point = |n: i64| Step::metric(n, "s1", "m", 1.0);
    let steps: Vec<Step> = (0..6).map(point).collect();
    let entries = log_of(&steps, |_| true);
    for (base_before, kill_before) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut store = Store::default();
        let config = |digest| Config { held: 10, known: 10, digest, most: if base_before { 1 << 20 } else { 0 } };
        let (mut toy, _) = store.restart(Toy::build(&config(1)), &[]);
        entries[..3].iter().for_each(|entry| toy.consume(entry, &mut Vec::new()));
        store.commit(&mut toy, usize::MAX);
        let mut changed = Toy::build(&config(2));
        if kill_before {
            changed = store.restart(changed, &entries[..3]).0;
        } else {
            changed.take_over(&mut toy);
        }
        let mut out = Vec::new();
        entries[3..5].iter().for_each(|entry| changed.consume(entry, &mut out));
        store.commit(&mut changed, usize::MAX);
        let (mut after, _) = store.restart(Toy::build(&config(2)), &entries[..5]);
        after.consume(&entries[5], &mut out);
        let counts: Vec<&str> = out.iter().map(|record| record.title.rsplit_once(' ').unwrap().0).collect();
        assert_eq!(counts, ["s1 1", "s1 2", "s1 3"], "base {base_before}, kill {kill_before}");
    }
}
