use std::time::Duration;

use opspilot_kernel::{
    alert::{AlertRecord, Band, Observation, ResolvedBy, Transition},
    config::ModuleConfig as _,
    signal::Severity,
};
use proptest::prelude::*;
use serde_json::json;

use super::{Config, Detector};
use crate::{
    Detect,
    keep::Pace,
    testing::{Owned, Rng, Step, Store, fate, log_of, ms, outline, say, survive},
};

fn config(section: serde_json::Value) -> Config {
    let config: Config = serde_json::from_value(section).unwrap();
    assert_eq!(config.validate(), []);
    config
}

fn detector(rules: serde_json::Value) -> Detector {
    Detector::new(&config(json!({ "builtin_rules": false, "rules": rules })))
}

fn method(name: &str) -> serde_json::Value {
    json!({ name: { "window": 50, "min_samples": 20, "rest": 3 } })
}

fn rule() -> serde_json::Value {
    json!([{ "id": "latency", "metric": "latency", "method": method("zscore") }])
}

/// 41, 58, 41, …: forty values a second apart, then these.
fn after_calm(values: &[f64]) -> Vec<Step> {
    let calm = (0..40).map(|n| if n % 2 == 0 { 41.0 } else { 58.0 });
    calm.chain(values.iter().copied()).zip(0..).map(|(value, n)| Step::metric(n * 1000, "web-1", "latency", value)).collect()
}

#[test]
fn an_unusual_value_is_told_in_words_and_numbers_with_what_was_expected() {
    let records = say(detector(rule()), &after_calm(&[150.0]));
    assert_eq!(outline(&records), [" 40000 firing 1 latency web-1"]);
    let record = &records[0];
    assert!(record.description.starts_with("higher than everything in the last 40 seconds (no more than 40 values so far); expected "));
    assert!(record.description.ends_with(", saw 150"), "{}", record.description);
    assert!(record.title.starts_with("latency unusually high: 150 (expected "), "{}", record.title);
    assert_eq!((record.severity, record.supports), (Severity::Warning, true));
    assert_eq!(record.labels.keys().collect::<Vec<_>>(), ["alertname", "metric", "source"]);
    let Observation::Metric { value, expected: Some(Band { low, high }), .. } = &record.evidence[0] else { panic!("{record:?}") };
    assert!(*value == 150.0 && *low < 41.0 && *high > 58.0 && *high < 150.0, "{low} {high}");
}

#[test]
fn texts_labels_severity_and_whether_it_opens_an_incident_are_the_rules_choice() {
    let rules = json!([{
        "id": "latency", "metric": "latency", "method": method("zscore"), "severity": "critical", "opens_incident": true, "labels": { "team": "web" },
        "title": "$metric of ${labels.zone} is $value", "description": "$unusual ($expected) $source ${labels.team}",
    }]);
    let mut steps = after_calm(&[150.0]);
    for step in &mut steps {
        let Step::Signal(_, signal) = step else { continue };
        *signal = signal.clone().label("zone", "eu");
    }
    let records = say(detector(rules), &steps);
    assert_eq!(records[0].title, "latency of eu is 150");
    assert!(
        records[0].description.starts_with("higher than ") && records[0].description.ends_with(") web-1 web"),
        "{}",
        records[0].description
    );
    assert_eq!((records[0].severity, records[0].supports, records[0].labels["team"].as_str()), (Severity::Critical, false, "web"));
}

#[test]
fn it_is_over_when_values_were_as_expected_for_long_enough_and_not_while_they_are_not() {
    let rules = json!([{ "id": "latency", "metric": "latency", "method": method("mad"), "resolve_after": "5s" }]);
    let mut values = vec![400.0, 401.0, 399.0, 400.0];
    values.extend([50.0; 10]);
    let records = say(detector(rules), &after_calm(&values));
    assert_eq!(
        outline(&records),
        [
            " 40000 firing 1 latency web-1",
            " 41000 repeat 1 latency web-1",
            " 42000 repeat 1 latency web-1",
            " 43000 repeat 1 latency web-1",
            " 48000 resolved quiet latency web-1"
        ]
    );
    let quiet = say(
        detector(json!([{ "id": "latency", "metric": "latency", "method": method("zscore"), "resolve_after": "5s" }])),
        &[after_calm(&[150.0]), vec![Step::tick(45_000)]].concat(),
    );
    assert_eq!(outline(&quiet)[1], " 45000 resolved quiet latency web-1", "one that falls silent is over, too");
    assert_eq!(quiet[1].resolved_by, Some(ResolvedBy::Quiet));
}

#[test]
fn a_difference_of_no_interest_is_left_out() {
    let of = |min_change| json!([{ "id": "latency", "metric": "latency", "method": method("zscore"), "min_change": min_change }]);
    assert_eq!(say(detector(of(500)), &after_calm(&[150.0])).len(), 0);
    assert_eq!(say(detector(of(10)), &after_calm(&[150.0])).len(), 1);
}

#[test]
fn rules_are_about_a_metric_sources_and_labels_and_the_built_in_one_about_the_rest() {
    let section = json!({ "rules": [
        { "id": "exact", "metric": "a" },
        { "id": "label", "match": ["zone=~\"eu-.*\"", "__name__!=\"c\"", "source!=\"quiet\""] },
        { "id": "source", "sources": ["db"] },
    ] });
    let mut detector = Detector::new(&config(section));
    let mut about = |name: &str, source: &str, zone: &str| {
        let piece = Owned::metric(ms(0), source, name, 1.0).label("zone", zone);
        let mut out = Vec::new();
        let entry = &log_of(&[Step::Signal(ms(0), piece)], |_| true)[0];
        let before = detector.counts().matched;
        detector.consume(entry, &mut out);
        (detector.rules_about(entry), detector.counts().matched - before)
    };
    assert_eq!(about("a", "web", "us"), (vec!["exact".to_owned()], 1));
    assert_eq!(about("a", "web", "eu-1"), (vec!["exact".to_owned(), "label".to_owned()], 2));
    assert_eq!(about("b", "web", "eu-1"), (vec!["label".to_owned()], 1));
    assert_eq!(about("b", "quiet", "eu-1"), (vec!["unusual-metric".to_owned()], 1));
    assert_eq!(about("c", "web", "eu-1"), (vec!["unusual-metric".to_owned()], 1));
    assert_eq!(about("c", "db", "eu-1"), (vec!["source".to_owned()], 1));
}

#[test]
fn numbers_are_taken_out_of_log_lines_each_set_of_captures_a_series_of_its_own() {
    let rules = json!([{
        "id": "took", "method": method("mad"), "sources": ["api"], "match": ["env=\"\""],
        "extract": { "pattern": r"(?P<route>/\w+) took (?P<value>\d+(\.\d+)?) ms", "unit": "ms", "name": "took" },
    }]);
    let line = |n: i64, source: &str, text: String| Step::log(n * 1000, source, &text);
    let mut steps: Vec<Step> = (0..60)
        .flat_map(|n| {
            let (slow, fast) = (900 + n % 7, 30 + n % 5);
            [
                line(n, "api", format!("GET /report took {slow} ms")),
                line(n, "api", format!("GET /ping took {fast}.5 ms")),
                line(n, "web", "GET /ping took 999 ms".to_owned()),
            ]
        })
        .collect();
    assert_eq!(say(detector(rules.clone()), &steps), []);
    steps.push(line(61, "api", "GET /ping took 900 ms".to_owned()));
    steps.push(line(61, "web", "GET /ping took 90000 ms".to_owned()));
    let records = say(detector(rules), &steps);
    assert_eq!(outline(&records), [" 61000 firing 1 took api"]);
    assert_eq!(records[0].labels["route"], "/ping");
    assert!(records[0].title.starts_with("took{route=/ping} unusually high: 900 ms (expected "), "{}", records[0].title);
}

#[test]
fn h6_a_flood_of_series_is_bounded_and_counted_and_those_that_were_put_away_come_back_as_they_were() {
    let config = config(json!({ "builtin_rules": false, "max_series": 50, "max_shelved": 500, "rules": rule() }));
    let mut detector = Detector::new(&config);
    let mut store = Store::default();
    detector.begin(Box::new(store.shelf())).unwrap();
    let mut feed = |detector: &mut Detector, steps: &[Step]| {
        let mut out = Vec::new();
        for entry in log_of(steps, |index| index % 500 == 0) {
            detector.consume(&entry, &mut out);
            store.commit(detector, usize::MAX);
        }
        out
    };
    feed(&mut detector, &after_calm(&[]));
    let flood = |count: i64| -> Vec<Step> {
        (0..count)
            .map(|n| Step::Signal(ms(50_000), Owned::metric(ms(n * 4_000_000_000), "s", "latency", 1.0).label("id", &n.to_string())))
            .collect()
    };
    feed(&mut detector, &flood(200));
    let counts = detector.counts();
    assert_eq!((counts.open, counts.shelved, counts.forgotten), (50, 151, 0));
    assert_eq!(counts.put_away, 151);
    let returned = feed(&mut detector, &[Step::metric(60_000, "web-1", "latency", 150.0)]);
    assert_eq!(outline(&returned), [" 60000 firing 1 latency web-1"], "it knows what is usual");
    assert_eq!(detector.counts().taken_back, 1);
    feed(&mut detector, &flood(20_000));
    let counts = detector.counts();
    assert_eq!((counts.open, counts.shelved, counts.full), (50, 500, true));
    assert!(counts.forgotten > 19_000 && counts.bytes < 50 * 2_000, "{counts:?}");
    let again = feed(&mut detector, &[Step::metric(61_000, "web-1", "latency", 151.0)]);
    assert_eq!(again.len(), 1, "one with an open alert is not forgotten: {again:?}");
}

#[test]
fn values_out_of_order_and_repeated_ones_are_counted_and_do_no_harm() {
    let mut detector = detector(rule());
    let mut out = Vec::new();
    let at = |event| Step::Signal(ms(90_000), Owned::metric(ms(event), "web-1", "latency", 1.0));
    let bad = Step::Signal(ms(90_000), Owned::metric(ms(0), "web-1", "latency", f64::NAN));
    let far = [at(-1_795_348_800_000), at(2_500_000_000_000)];
    let steps = [vec![at(10), at(20), at(20), at(15), bad], far.to_vec(), vec![at(30)]].concat();
    log_of(&steps, |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    let counts = detector.counts();
    assert_eq!((counts.matched, counts.repeated, counts.late, counts.ignored), (7, 1, 3, 1));
    assert_eq!(out, []);
}

/// Several methods over a few series, with so little room that they are put away and taken back all the time.
fn several(held: usize) -> Config {
    let quick = |name: &str, direction: &str| {
        let min = if name == "ewma" { 4 } else { 3 };
        json!({ name: { "window": 8, "min_samples": min, "rest": 2, "direction": direction } })
    };
    config(json!({ "max_series": held, "max_shelved": 20 - held, "max_alerts": 4, "forget_after": "4h", "rules": [
        { "id": "z", "metric": "m", "method": quick("zscore", "both"), "cooldown": "5s", "resolve_after": "10s" },
        { "id": "mad", "metric": "m", "method": quick("mad", "high"), "min_change": 1 },
        { "id": "iqr", "match": ["__name__=\"n\""], "method": quick("iqr", "low"), "resolve_after": "2s" },
        { "id": "ewma", "match": ["__name__=~\"n|m\"", "source!=\"a\""], "method": quick("ewma", "both") },
        { "id": "took", "extract": { "pattern": r"(?P<value>-?\d+) (?P<who>\w)" }, "method": quick("zscore", "both") },
        { "id": "auto", "metric": "n" },
    ] }))
}

fn paced(held: usize, most: usize) -> Detector {
    Detector::paced(&several(held), Pace { span: 1 << 40, hour: Duration::from_secs(1 << 40), most })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![8 => 0..1500_u64, 1 => 1500..30_000_u64, 1 => 0..3 * 3_600_000_u64];
    let value = prop_oneof![6 => 40.0..60.0_f64, 1 => -500.0..500.0_f64];
    proptest::collection::vec((wait, 0..12_u8, 0..3_usize, value), 1..160).prop_map(|moves| {
        let mut now = 0;
        let mut steps = Vec::new();
        for (wait, what, who, value) in moves {
            now += i64::try_from(wait).unwrap();
            let source = ["a", "b", "c"][who];
            steps.push(match what {
                0 => Step::tick(now),
                1 | 2 => Step::log(now, source, &format!("{} {source}", value.round())),
                3 => Step::Signal(ms(now), Owned::metric(ms(now - 700), source, "m", value).label("x", "1").label("a", "2")),
                4 => Step::Signal(ms(now), Owned::metric(ms(now), source, "m", value).label("a", "2").label("x", "1")),
                5..=7 => Step::metric(now, source, "n", value),
                8 => Step::metric(now, source, "other", value),
                _ => Step::metric(now, source, "m", value),
            });
        }
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn a1_neither_cuts_nor_kills_nor_want_of_room_change_what_is_said(
        steps in steps(), fate in fate(), held in 1..6_usize, most in prop_oneof![Just(1_usize), Just(300), Just(1 << 20)],
    ) {
        let whole = say(Detector::new(&several(19)), &steps);
        let survived = survive(|| paced(held, most), &steps, &fate);
        prop_assert_eq!(outline(&whole), outline(&survived));
        prop_assert_eq!(whole, survived);
    }

    #[test]
    fn no_alarm_depends_on_what_comes_later(steps in steps(), upto in 0..160_usize) {
        let whole = say(Detector::new(&several(19)), &steps);
        let upto = upto.min(steps.len());
        let part = say(Detector::new(&several(19)), &steps[..upto]);
        prop_assert_eq!(&whole[..part.len()], &part[..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3))]
    #[test]
    fn a1_kills_change_nothing_of_what_auto_says_after_it_has_learned_for_long(seed in 1..1_000_000_u64, fate in fate()) {
        let mut rng = Rng(seed);
        let steps: Vec<Step> = (0..1300_i64)
            .map(|n| {
                let noise = f64::from(u32::try_from(rng.below(100)).unwrap()) / 10.0;
                let leap = if n % 400 > 396 && n > 1000 { 500.0 } else { 0.0 };
                Step::metric(n * 300_000, ["a", "b"][usize::try_from(n % 2).unwrap()], "m", 50.0 + noise + leap)
            })
            .collect();
        let config = config(json!({ "builtin_rules": true, "max_series": 1 }));
        let whole = say(Detector::new(&config), &steps);
        prop_assert!(!whole.is_empty());
        let pace = Pace { span: 1 << 40, hour: Duration::from_secs(1 << 40), most: 20_000 };
        let survived = survive(|| Detector::paced(&config, pace), &steps, &fate);
        prop_assert_eq!(outline(&whole), outline(&survived));
        prop_assert_eq!(whole, survived);
    }
}

#[test]
fn a_method_that_is_changed_begins_anew_and_ends_what_it_said() {
    let of =
        |name: &str| config(json!({ "builtin_rules": false, "rules": [{ "id": "latency", "metric": "latency", "method": method(name) }] }));
    let steps = after_calm(&[150.0, 150.0]);
    let entries = log_of(&steps, |_| true);
    for kill in [false, true] {
        let mut store = Store::default();
        let (mut before, _) = store.restart(Detector::new(&of("zscore")), &[]);
        let mut out = Vec::new();
        entries[..41].iter().for_each(|entry| before.consume(entry, &mut out));
        assert_eq!(outline(&out), [" 40000 firing 1 latency web-1"]);
        store.commit(&mut before, usize::MAX);
        let mut after = Detector::new(&of("mad"));
        if kill {
            after = store.restart(after, &entries[..41]).0;
        } else {
            before.touch();
            for change in before.changed() {
                let Some(body) = change.body else { continue };
                after.restore(&change.key, &body).unwrap();
            }
            after.take_over(&mut before);
        }
        out.clear();
        after.consume(&entries[41], &mut out);
        assert_eq!(outline(&out), [" 41000 resolved rule_changed latency web-1"], "kill {kill}");
        let counts = after.counts();
        assert_eq!((counts.open, counts.unreadable), (1, 0));
        out.clear();
        let more: Vec<Step> =
            (0..19).map(|n| Step::metric(60_000 + n * 1000, "web-1", "latency", if n == 18 { 9e9 } else { 50.0 })).collect();
        log_of(&more, |_| true).iter().for_each(|entry| after.consume(entry, &mut out));
        assert_eq!(out, [], "nineteen values are too few: what it learned before does not count");
    }
}

#[test]
fn a_changed_rule_learns_from_the_signals_before_the_change_and_a_kill_changes_nothing_of_it() {
    let of =
        |name: &str| config(json!({ "builtin_rules": false, "rules": [{ "id": "latency", "metric": "latency", "method": method(name) }] }));
    let entries = log_of(&after_calm(&[50.0, 400.0]), |_| true);
    let (part, back) = Detector::changed_part(&of("zscore"), &of("mad")).unwrap();
    assert_eq!((part, back), (of("mad"), Duration::MAX));
    assert_eq!(Detector::changed_part(&of("mad"), &of("mad")), None);
    for (kill, base) in [(false, 0), (true, 0), (true, usize::MAX)] {
        let mut store = Store::default();
        let (mut before, _) = store.restart(Detector::new(&of("zscore")), &[]);
        entries[..40].iter().for_each(|entry| before.consume(entry, &mut Vec::new()));
        store.commit(&mut before, base);
        let mut after = Detector::new(&of("mad"));
        after.take_over(&mut before);
        let mut recalled = Detector::new(&of("mad"));
        entries[10..40].iter().for_each(|entry| recalled.consume(entry, &mut Vec::new()));
        after.adopt(recalled, 41);
        let mut out = Vec::new();
        after.consume(&entries[40], &mut out);
        store.commit(&mut after, base);
        if kill {
            after = store.restart(Detector::new(&of("mad")), &entries[..41]).0;
        }
        after.consume(&entries[41], &mut out);
        assert_eq!(outline(&out), [" 41000 firing 1 latency web-1"]);
        assert!(out[0].description.contains("(no more than 31 values so far)"), "{}", out[0].description);
    }
}

#[test]
fn with_no_rules_it_watches_every_metric_and_says_little_of_a_healthy_machine() {
    let mut rng = Rng(11);
    let mut noise = |low: f64, width: f64| {
        let parts: u64 = (0..6).map(|_| rng.below(1000)).sum();
        low + width * f64::from(u32::try_from(parts).unwrap()) / 6000.0
    };
    let steps: Vec<Step> = (0..20_000_i64)
        .flat_map(|n| {
            [
                Step::metric(n * 10_000, "localhost", "cpu_percent", noise(3.0, 25.0)),
                Step::metric(n * 10_000, "localhost", "memory_percent", noise(40.0, 4.0)),
                Step::metric(n * 10_000, "localhost", "disk_percent", noise(61.0, 0.2)),
            ]
        })
        .collect();
    let records = say(Detector::new(&Config::default()), &steps);
    let fired: Vec<&AlertRecord> = records.iter().filter(|record| record.transition == Transition::Firing).collect();
    assert!(fired.iter().all(|record| record.supports && record.severity == Severity::Info), "it never opens an incident by itself");
    assert!(fired.len() <= 3, "{:#?}", outline(&records));
}
