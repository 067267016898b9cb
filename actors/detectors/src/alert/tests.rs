use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy, Transition},
    config::Span,
    signal::{
        AlertState::{Firing, Resolved},
        Severity,
    },
};
use proptest::prelude::*;

use super::{Config, Detector};
use crate::{
    Detect,
    testing::{Owned, Step, fate, log_of, ms, outline, say, survive},
};

fn detector() -> Detector {
    Detector::new(&Config::default())
}

fn sent(at: i64, signal: Owned) -> Step {
    Step::Signal(ms(at), signal)
}

#[test]
fn what_the_sender_says_is_kept() {
    let signal =
        Owned { title: "Disk of db-1 is full".to_owned(), ..Owned::alert(ms(0), "zabbix", "DiskFull", Firing).label("host", "db-1") };
    let records = say(detector(), &[sent(3, signal)]);
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.title.as_str(), record.rule.as_str(), record.source.as_str()), ("Disk of db-1 is full", "DiskFull", "zabbix"));
    assert_eq!((record.severity, record.transition, record.detected_by.as_str()), (Severity::Error, Transition::Firing, "detector.alert"));
    assert_eq!((record.labels["host"].as_str(), record.labels["alertname"].as_str()), ("db-1", "DiskFull"));
    assert_eq!((record.at, record.logged_at), (ms(0), ms(3)));
}

#[test]
fn the_title_defaults_to_the_name() {
    let records = say(detector(), &[Step::alert(0, "zabbix", "DiskFull", Firing)]);
    assert_eq!(records[0].title, "DiskFull");
}

#[test]
fn the_same_alert_is_counted_and_its_source_ends_it() {
    let steps = [
        Step::alert(0, "am", "Down", Firing),
        Step::alert(10, "am", "Down", Firing),
        Step::alert(20, "am", "Down", Firing),
        Step::tick(1000),
        Step::alert(40_000, "am", "Down", Firing),
        Step::alert(41_500, "am", "Down", Firing),
        Step::alert(41_600, "am", "Down", Firing),
        Step::alert(41_700, "am", "Down", Resolved),
        Step::alert(41_800, "am", "Down", Resolved),
        Step::alert(41_900, "am", "Down", Firing),
    ];
    let records = say(detector(), &steps);
    assert_eq!(
        outline(&records),
        [
            "     0 firing 1 Down am",
            "    20 repeat 2 Down am",
            " 40000 firing 1 Down am",
            " 41500 repeat 1 Down am",
            " 41600 repeat 1 Down am",
            " 41700 resolved source Down am",
            " 41900 firing 1 Down am",
        ]
    );
    assert!(records[..6].iter().all(|record| record.alert == records[0].alert));
    assert_ne!(records[6].alert, records[0].alert);
    assert_eq!(records[6].fingerprint, records[0].fingerprint);
}

#[test]
fn a_system_ends_only_what_it_raised_itself() {
    let labelled =
        |source: &str, state| Owned { fingerprint: "f1".to_owned(), ..Owned::alert(ms(0), source, "Down", state).label("source", "am") };
    let mut detector = detector();
    let mut out = Vec::new();
    let steps = [
        sent(0, labelled("am", Firing)),
        sent(1, labelled("evil", Resolved)),
        sent(2, labelled("evil", Firing)),
        sent(3, labelled("evil", Resolved)),
    ];
    log_of(&steps, |_| false).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(outline(&out), ["     0 firing 1 Down am", "     2 firing 1 Down evil", "     3 resolved source Down evil"]);
    assert_eq!((detector.counts().ignored, detector.counts().open), (1, 1));
}

#[test]
fn identity_is_the_senders_fingerprint_or_source_name_and_labels() {
    let base = || Owned::alert(ms(0), "am", "Down", Firing);
    let printed = |text: &str| Owned { fingerprint: text.to_owned(), ..base() };
    let of = |signal: Owned| say(detector(), &[sent(0, signal)])[0].fingerprint;
    assert_eq!(of(printed("a").label("x", "1")), of(printed("a")));
    assert_ne!(of(printed("a")), of(printed("b")));
    assert_ne!(of(base()), of(base().label("x", "1")));
    assert_eq!(of(base().label("x", "1").label("a", "2")), of(base().label("a", "2").label("x", "1")));
    assert_ne!(of(base()), of(Owned { source: "other".to_owned(), ..base() }));
    assert_ne!(of(Owned { source: "other".to_owned(), ..base() }.label("@source", "am")), of(base()));
}

#[test]
fn one_that_gets_worse_fires_at_once() {
    let severe = |at: i64, severity| sent(at, Owned { severity, ..Owned::alert(ms(at), "am", "Down", Firing) });
    let steps = [
        severe(0, Severity::Warning),
        severe(10, Severity::Critical),
        severe(20, Severity::Info),
        severe(30, Severity::Critical),
        Step::tick(2000),
    ];
    let records = say(detector(), &steps);
    assert_eq!(outline(&records), ["     0 firing 1 Down am", "    10 firing 1 Down am", "    30 repeat 2 Down am"]);
    assert_eq!(records[1].severity, Severity::Critical);
}

#[test]
fn silence_ends_an_alert_only_if_that_is_wanted() {
    let steps = [Step::alert(0, "am", "Down", Firing), Step::tick(86_400_000)];
    assert_eq!(say(detector(), &steps).len(), 1);
    let impatient = Detector::new(&Config { resolve_after: Some(Span::seconds(60)), ..Config::default() });
    let records = say(impatient, &steps);
    assert_eq!(records[1].resolved_by, Some(ResolvedBy::Quiet));
}

#[test]
fn an_open_alert_waits_by_the_new_configuration() {
    let config = |seconds: Option<u64>| Config { resolve_after: seconds.map(Span::seconds), ..Config::default() };
    for (before, after, over) in [(None, Some(60), 60_000), (Some(5), Some(60), 60_000), (Some(3600), Some(60), 60_000)] {
        let mut old = Detector::new(&config(before));
        let mut out = Vec::new();
        log_of(&[Step::alert(0, "am", "Down", Firing)], |_| true).iter().for_each(|entry| old.consume(entry, &mut out));
        let mut new = Detector::new(&config(after));
        for change in old.changed() {
            new.restore(&change.key, &change.body.unwrap()).unwrap();
        }
        let said = say(new, &[Step::tick(over - 1), Step::tick(over)]);
        assert_eq!(outline(&said), [format!("{over:>6} resolved quiet Down am")], "{before:?} {after:?}");
    }
}

#[test]
fn alerts_are_bounded_and_the_one_sent_longest_ago_makes_room() {
    let mut detector = Detector::new(&Config { max_fingerprints: 2, ..Config::default() });
    let mut out = Vec::new();
    let steps = [(0, "a"), (1, "b"), (2, "a"), (3, "c")].map(|(at, name)| Step::alert(at, "am", name, Firing));
    log_of(&steps, |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(outline(&out), ["     0 firing 1 a am", "     1 firing 1 b am", "     3 resolved quiet b am", "     3 firing 1 c am"]);
    assert_eq!(detector.next_due(), Some(ms(1000)), "the repeat of a waits to be told");
}

#[test]
fn alerts_that_fire_by_design_are_left_out() {
    let ignore = vec!["alertname=\"Watchdog\"".parse().unwrap(), "team=\"none\"".parse().unwrap()];
    let mut detector = Detector::new(&Config { ignore, ..Config::default() });
    let mut out = Vec::new();
    let steps = [
        Step::alert(0, "prom", "Watchdog", Firing),
        sent(1, Owned::alert(ms(1), "prom", "Down", Firing).label("team", "none")),
        Step::alert(2, "prom", "Down", Firing),
    ];
    log_of(&steps, |_| false).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(outline(&out), ["     2 firing 1 Down prom"]);
    assert_eq!(detector.counts().ignored, 2);
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (prop_oneof![Just(0_u64), 0..400_u64, 400..40_000_u64], 0..9_u8, 0..3_u8, 0..3_u8);
    proptest::collection::vec(step, 1..80).prop_map(|moves| {
        let mut now = 0;
        moves
            .into_iter()
            .map(|(wait, what, who, name)| {
                now += i64::try_from(wait).unwrap();
                let state = match what {
                    0 => return Step::tick(now),
                    1 | 2 => Resolved,
                    _ => Firing,
                };
                let severity = Severity::ALL[usize::from(what / 2)];
                let (who, name) = (["a", "b", "c"][usize::from(who)], ["x", "y", "z"][usize::from(name)]);
                sent(now, Owned { severity, ..Owned::alert(ms(now), who, name, state) })
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn neither_cuts_nor_kills_change_what_is_said(steps in steps(), fate in fate(), expires: bool) {
        let config = Config { max_fingerprints: 6, resolve_after: expires.then_some(Span::seconds(20)), ..Config::default() };
        let whole = say(Detector::new(&config), &steps);
        let survived = survive(|| Detector::new(&config), &steps, &fate);
        prop_assert_eq!(outline(&whole), outline(&survived));
        prop_assert_eq!(&whole, &survived);
        let unique: std::collections::BTreeSet<_> = whole.iter().map(|r: &AlertRecord| (r.alert.as_str(), r.signal_seq, format!("{:?}", r.transition))).collect();
        prop_assert_eq!(unique.len(), whole.len());
    }
}
