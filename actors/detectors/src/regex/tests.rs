use std::collections::BTreeSet;

use opspilot_kernel::{
    alert::{AlertRecord, Observation, ResolvedBy, Transition},
    config::Span,
    fingerprint::Fingerprint,
    signal::Severity,
};
use proptest::prelude::*;

use super::{Config, Detector, Rule};
use crate::{
    Detect,
    testing::{Owned, Step, fate, log_of, ms, outline, say, survive},
};

fn payment() -> Rule {
    Rule {
        title: Some("Payments failing (order $order)".to_owned()),
        severity: Severity::Critical,
        ..Rule::new("payment-failed", r"payment failed for order (?P<order>\d+)")
    }
}

fn detector(rules: Vec<Rule>) -> Detector {
    Detector::new(Config { rules, ..Config::default() })
}

#[test]
fn a_match_fires_at_once_and_says_everything() {
    let records =
        say(detector(vec![payment()]), &[Step::log(0, "checkout", "fine"), Step::log(5, "checkout", "payment failed for order 77")]);
    let [record] = &records[..] else { panic!("{records:?}") };
    assert_eq!(record.transition, Transition::Firing);
    assert_eq!((record.at, record.logged_at, record.signal_seq, record.count), (ms(5), ms(5), 2, 1));
    assert_eq!(
        (record.rule.as_str(), record.source.as_str(), record.detected_by.as_str()),
        ("payment-failed", "checkout", "detector.regex")
    );
    assert_eq!((record.title.as_str(), record.severity), ("Payments failing (order 77)", Severity::Critical));
    let labels = [("alertname", "payment-failed"), ("source", "checkout")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(record.labels, labels.into());
    assert_eq!(record.fingerprint, Fingerprint::of_labels(&record.labels));
    let text = "payment failed for order 77".to_owned();
    assert_eq!(record.evidence, [Observation::Log { at: ms(5), source: "checkout".to_owned(), text }]);
}

#[test]
fn without_a_title_the_rule_and_the_line_are_one_and_labels_are_kept() {
    let labels = [("team".to_owned(), "storage".to_owned())].into();
    let rule = Rule { labels, description: "on $source: $1".to_owned(), ..Rule::new("disk", r"disk (\w+) full") };
    let records = say(detector(vec![rule]), &[Step::log(0, "h7", "  disk sda full  ")]);
    assert_eq!(records[0].title, "disk: disk sda full");
    assert_eq!(records[0].description, "on h7: sda");
    assert_eq!(records[0].labels["team"], "storage");
}

#[test]
fn repeats_are_counted_and_told_once_a_second_and_fire_again_after_the_cooldown() {
    let hit = |at| Step::log(at, "s", "payment failed for order 1");
    let steps = [
        hit(0),
        hit(0),
        hit(10),
        hit(999),
        Step::tick(1000),
        hit(1500),
        hit(2100),
        hit(2200),
        Step::tick(3099),
        Step::tick(3100),
        hit(29_999),
        hit(30_000),
        hit(30_001),
        Step::tick(40_000),
        Step::tick(930_000),
        Step::tick(930_001),
        hit(930_002),
    ];
    assert_eq!(
        outline(&say(detector(vec![payment()]), &steps)),
        [
            "     0 firing 1 payment-failed s",
            "   999 repeat 3 payment-failed s",
            "  1500 repeat 1 payment-failed s",
            "  2200 repeat 2 payment-failed s",
            " 29999 repeat 1 payment-failed s",
            " 30000 firing 1 payment-failed s",
            " 30001 repeat 1 payment-failed s",
            "930001 resolved quiet payment-failed s",
            "930002 firing 1 payment-failed s",
        ]
    );
}

#[test]
fn a_repeat_that_is_told_late_bears_the_time_at_which_it_was_seen() {
    let hit = |at| Step::log(at, "s", "payment failed for order 1");
    let records = say(detector(vec![payment()]), &[hit(0), hit(10), hit(20), Step::tick(5000), hit(5100), Step::tick(1_000_000)]);
    let times: Vec<_> = records.iter().map(|record| (record.transition, record.logged_at, record.signal_seq)).collect();
    let expected = [
        (Transition::Firing, ms(0), 1),
        (Transition::Repeat, ms(20), 3),
        (Transition::Repeat, ms(5100), 5),
        (Transition::Resolved, ms(1_000_000), 6),
    ];
    assert_eq!(times, expected);
}

#[test]
fn an_episode_keeps_its_id_and_the_next_one_has_another() {
    let hit = |at| Step::log(at, "s", "payment failed for order 1");
    let records = say(detector(vec![payment()]), &[hit(0), hit(40_000), Step::tick(1_000_000), hit(1_000_001)]);
    let ids: Vec<&str> = records.iter().map(|record| record.alert.as_str()).collect();
    assert_eq!(outline(&records).len(), 4);
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
    assert!(records.iter().all(|record| record.fingerprint == records[0].fingerprint));
}

#[test]
fn the_sample_of_a_record_is_its_first_and_last_lines() {
    let steps: Vec<Step> = (0..61).map(|n| Step::log(n, "s", &format!("payment failed for order {n}"))).chain([Step::tick(1000)]).collect();
    let records = say(detector(vec![payment()]), &steps);
    let texts: Vec<&str> = records[1]
        .evidence
        .iter()
        .map(|observation| match observation {
            Observation::Log { text, .. } => text.rsplit(' ').next().unwrap(),
            Observation::Metric { .. } | Observation::Change { .. } => panic!("a log line was seen"),
        })
        .collect();
    let expected: Vec<String> = (1..26).chain(36..61).map(|n: u32| n.to_string()).collect();
    assert_eq!((records[1].count, texts), (60, expected.iter().map(String::as_str).collect()));
}

#[test]
fn a_line_that_says_it_is_over_ends_the_alert_of_its_source_only() {
    let rule = Rule { resolve_pattern: Some("disk .* ok".to_owned()), ..Rule::new("disk", r"disk \w+") };
    let steps = [
        Step::log(0, "a", "disk sda failing"),
        Step::log(0, "b", "disk sda failing"),
        Step::log(1, "a", "disk sda failing"),
        Step::log(2, "a", "disk sda ok"),
        Step::log(3, "a", "disk sda ok"),
        Step::log(4, "a", "disk sda failing"),
    ];
    let records = say(detector(vec![rule]), &steps);
    assert_eq!(
        outline(&records),
        [
            "     0 firing 1 disk a",
            "     0 firing 1 disk b",
            "     1 repeat 1 disk a",
            "     2 resolved clear disk a",
            "     4 firing 1 disk a",
        ]
    );
    assert_eq!(records[3].signal_seq, 4);
}

#[test]
fn only_lines_of_the_named_sources_count_and_only_lines() {
    let rule = Rule { sources: vec!["a".to_owned()], ..Rule::new("oom", "OOM killed") };
    let alert = Owned { message: "OOM killed".to_owned(), ..Owned::alert(ms(0), "a", "OOM killed", Default::default()) };
    let metric = Owned { message: "OOM killed".to_owned(), ..Owned::metric(ms(0), "a", "OOM killed", 1.0) };
    let steps = [Step::log(0, "b", "OOM killed"), Step::Signal(ms(0), alert), Step::Signal(ms(0), metric), Step::log(1, "a", "OOM killed")];
    assert_eq!(outline(&say(detector(vec![rule]), &steps)), ["     1 firing 1 oom a"]);
}

#[test]
fn one_line_may_concern_several_rules_in_their_order() {
    let rules = vec![Rule::new("z", r"\d+ errors"), Rule::new("a", "12 errors"), Rule::new("m", "(?i)ERRORS"), Rule::new("n", r"\d{3}")];
    let records = say(detector(rules), &[Step::log(0, "s", "12 errors")]);
    assert_eq!(records.iter().map(|record| record.rule.as_str()).collect::<Vec<_>>(), ["z", "a", "m"]);
}

#[test]
fn what_the_cap_holds_back_is_counted_and_told_once_a_minute() {
    let rule = Rule { max_alerts_per_minute: 2, ..Rule::new("boom", "boom") };
    let mut steps: Vec<Step> = (0..5).map(|n| Step::log(n, &format!("s{n}"), "boom")).collect();
    steps.extend([Step::log(30_000, "s4", "boom"), Step::log(30_000, "s0", "boom"), Step::tick(60_000)]);
    steps.extend([Step::log(60_001, "s4", "boom"), Step::tick(120_000), Step::tick(180_000)]);
    let records = say(detector(vec![rule]), &steps);
    assert_eq!(
        outline(&records),
        [
            "     0 firing 1 boom s0",
            "     1 firing 1 boom s1",
            " 30000 firing 1 boom s0",
            " 60000 firing 4 boom detector.regex",
            " 60001 firing 1 boom s4",
            "120000 resolved clear boom detector.regex",
        ]
    );
    assert_eq!(records[3].title, "Rule boom: 4 matches held back in a minute, above the cap of 2 new alerts a minute");
    assert_eq!(records[3].alert, records[5].alert);
}

#[test]
fn nothing_is_held_back_when_a_minute_is_over() {
    let rule = Rule { max_alerts_per_minute: 1, ..Rule::new("boom", "boom") };
    let steps: Vec<Step> = (0..5).map(|n| Step::log(n * 60_000, &format!("s{n}"), "boom")).collect();
    assert_eq!(say(detector(vec![rule]), &steps).len(), 5);
}

#[test]
fn open_alerts_are_bounded_and_the_one_that_would_end_first_makes_room() {
    let config = Config { rules: vec![Rule::new("boom", "boom")], max_fingerprints: 2 };
    let steps = [
        Step::log(0, "a", "boom"),
        Step::log(1, "b", "boom"),
        Step::log(2000, "a", "boom"),
        Step::log(3000, "c", "boom"),
        Step::log(3001, "a", "boom"),
    ];
    let mut detector = Detector::new(config);
    let mut out = Vec::new();
    log_of(&steps, |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(
        outline(&out),
        [
            "     0 firing 1 boom a",
            "     1 firing 1 boom b",
            "  2000 repeat 1 boom a",
            "  3000 resolved quiet boom b",
            "  3000 firing 1 boom c",
            "  3001 repeat 1 boom a",
        ]
    );
    assert!(out[3].description.contains("at most 2"), "{}", out[3].description);
    assert_eq!((detector.counts().open, detector.counts().evicted), (2, 1));
}

#[test]
fn a_clock_that_was_set_back_holds_nothing_up() {
    let hit = |at| Step::log(at, "s", "payment failed for order 1");
    let day = 86_400_000;
    let steps = [hit(day), hit(day + 10), hit(0), hit(1000), hit(30_000), Step::tick(930_000)];
    assert_eq!(
        outline(&say(detector(vec![payment()]), &steps)),
        [
            "86400000 firing 1 payment-failed s",
            "     0 repeat 2 payment-failed s",
            "  1000 repeat 1 payment-failed s",
            " 30000 firing 1 payment-failed s",
            "930000 resolved quiet payment-failed s",
        ]
    );
}

#[test]
fn the_next_deadline_is_published_while_something_waits() {
    let mut detector = detector(vec![payment()]);
    let mut out = Vec::new();
    assert_eq!(detector.next_due(), None);
    let hit = |at| Step::log(at, "s", "payment failed for order 1");
    log_of(&[hit(0)], |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(detector.next_due(), Some(ms(900_000)));
    log_of(&[hit(10)], |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(detector.next_due(), Some(ms(1000)));
    log_of(&[Step::tick(1000)], |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(out.len(), 2);
    assert_eq!(detector.next_due(), Some(ms(900_000)));
}

#[test]
fn alerts_of_a_rule_that_was_changed_or_removed_are_over() {
    let steps = [Step::log(0, "s", "payment failed for order 1"), Step::log(0, "s", "boom")];
    let mut before = detector(vec![payment(), Rule::new("boom", "boom"), Rule::new("kept", "order 1")]);
    let mut out = Vec::new();
    log_of(&steps, |_| false).iter().for_each(|entry| before.consume(entry, &mut out));
    assert_eq!(out.len(), 3);
    let mut after = detector(vec![Rule::new("boom", "bo+m"), Rule { severity: Severity::Info, ..Rule::new("kept", "order 1") }]);
    for change in before.changed() {
        after.restore(&change.key, &change.body.unwrap()).unwrap();
    }
    assert!(after.next_due().unwrap() <= ms(0), "a tick is asked for at once");
    let mut said = Vec::new();
    log_of(&[Step::tick(5)], |_| false).iter().for_each(|entry| after.consume(entry, &mut said));
    let mut rules: Vec<&str> = said.iter().map(|record| record.rule.as_str()).collect();
    rules.sort_unstable();
    assert_eq!(rules, ["boom", "payment-failed"]);
    assert!(said.iter().all(|record| record.resolved_by == Some(ResolvedBy::RuleChanged)));
    assert_eq!(
        after.changed().iter().filter(|change| change.body.is_none()).count(),
        2 + 1,
        "both alerts and the removed rule's cap are gone"
    );
    assert_eq!(after.next_due(), Some(ms(900_000)));
}

#[test]
fn labels_decide_what_is_looked_at_and_what_is_excluded_raises_nothing() {
    let rule = Rule {
        matchers: vec!["env=\"prod\"".parse().unwrap(), "source!~\"test-.*\"".parse().unwrap()],
        exclude: vec![r"attempt [12]\b".to_owned(), "(?i)dry run".to_owned()],
        ..payment()
    };
    let line = |at: i64, source: &str, env: &str, more: &str| {
        Step::Signal(ms(at), Owned::log(ms(at), source, &format!("payment failed for order 7{more}")).label("env", env))
    };
    let steps = [
        line(0, "a", "test", ""),
        line(1, "test-a", "prod", ""),
        line(2, "a", "prod", " attempt 2"),
        line(3, "a", "prod", " Dry Run"),
        Step::log(4, "a", "payment failed for order 7"),
        line(5, "a", "prod", " attempt 3"),
    ];
    let mut detector = detector(vec![rule]);
    let mut out = Vec::new();
    log_of(&steps, |_| false).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(outline(&out), ["     5 firing 1 payment-failed a"]);
    assert_eq!((detector.counts().matched, detector.counts().ignored), (1, 2));
}

#[test]
fn what_is_captured_can_be_a_label_and_tells_no_alerts_apart() {
    let labels = [("order", "$order"), ("where", "${source}/$1"), ("team", "pay$$")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    let rule = Rule { labels: labels.into(), ..payment() };
    let hit = |at, order: u32| Step::log(at, "shop", &format!("payment failed for order {order}"));
    let records = say(detector(vec![rule]), &[hit(0, 7), hit(40_000, 8)]);
    let shown = |record: &AlertRecord| ["order", "where", "team"].map(|name| record.labels[name].clone());
    assert_eq!(shown(&records[0]), ["7", "shop/7", "pay$"]);
    assert_eq!(shown(&records[1]), ["8", "shop/8", "pay$"]);
    assert_eq!((records[0].fingerprint, &records[0].alert), (records[1].fingerprint, &records[1].alert));
}

#[test]
fn lines_beyond_ascii_match_and_capture_as_they_should() {
    let rule = Rule { title: Some("$who from $1".to_owned()), ..Rule::new("login", r"(?i)login from (\S+)\b.* by (?<who>\w+)$") };
    let steps = [
        Step::log(0, "a", "LOGIN from 10.0.0.1 by Max"),
        Step::log(0, "b", "login from köln by Ärger"),
        Step::log(0, "c", "login from x by -"),
    ];
    let titles: Vec<String> = say(detector(vec![rule]), &steps).into_iter().map(|record| record.title).collect();
    assert_eq!(titles, ["Max from 10.0.0.1", "Ärger from köln"]);
}

fn step() -> impl Strategy<Value = (u64, u8, u8)> {
    (prop_oneof![Just(0_u64), 0..400_u64, 400..20_000_u64, Just(900_000_u64)], 0..8_u8, 0..3_u8)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 1..80).prop_map(|moves| {
        let mut now = 0;
        let mut steps = Vec::new();
        for (wait, what, who) in moves {
            now += i64::try_from(wait).unwrap();
            let source = ["a", "b", "c"][usize::from(who)];
            let event = now - i64::from(what) * 100;
            let text = match what {
                0 => {
                    steps.push(Step::tick(now));
                    continue;
                }
                1..=3 => format!("payment failed for order {now}"),
                4 => "disk broken".to_owned(),
                5 => "disk ok".to_owned(),
                6 => "Gate 12 boom".to_owned(),
                _ => "all is well".to_owned(),
            };
            steps.push(Step::Signal(ms(now), Owned::log(ms(event), source, &text)));
        }
        steps
    })
}

fn several() -> Detector {
    let rules = vec![
        payment(),
        Rule { resolve_pattern: Some("disk ok".to_owned()), cooldown: Span::seconds(0), ..Rule::new("disk", "disk") },
        Rule { max_alerts_per_minute: 1, resolve_after: Span::seconds(5), ..Rule::new("boom", "boom") },
        Rule { resolve_after: Span::seconds(1), exclude: vec!["Gate 12".to_owned()], ..Rule::new("number", r"\d\d b|order \d+7$") },
    ];
    Detector::new(Config { rules, max_fingerprints: 5 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn neither_cuts_nor_kills_change_what_is_said(steps in steps(), fate in fate()) {
        let whole = say(several(), &steps);
        let survived = survive(several, &steps, &fate);
        prop_assert_eq!(outline(&whole), outline(&survived));
        prop_assert_eq!(whole, survived);
    }

    #[test]
    fn every_match_is_counted_exactly_once(steps in steps()) {
        let mut all = steps.clone();
        all.push(Step::tick(1_000_000_000));
        let records = say(Detector::new(Config { rules: vec![payment()], ..Config::default() }), &all);
        let matches = steps.iter().filter(|step| matches!(step, Step::Signal(_, signal) if signal.message.starts_with("payment"))).count();
        prop_assert_eq!(records.iter().map(|record| record.count).sum::<u64>(), u64::try_from(matches).unwrap());
        let unique: BTreeSet<_> = records.iter().map(|r: &AlertRecord| (r.alert.as_str().to_owned(), r.signal_seq, format!("{:?}", r.transition))).collect();
        prop_assert_eq!(unique.len(), records.len());
    }
}
