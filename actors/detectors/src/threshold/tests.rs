use std::collections::BTreeMap;

use super::{Aggregation, Comparison, Config, Detector, Rule};
use crate::{
    Detect,
    testing::{Owned, Step, log_of, ms, number, outline, say},
};
use opspilot_kernel::{
    alert::{Observation, ResolvedBy, Transition},
    config::Span,
    signal::Severity,
};

fn detector(rules: Vec<Rule>) -> Detector {
    Detector::new(Config { rules, builtin_rules: false, ..Config::default() })
}

fn cpu() -> Rule {
    Rule::new("cpu", "cpu_percent", Comparison::Gt, 90.0)
}

fn point(at: i64, value: f64) -> Step {
    Step::metric(at, "host-7", "cpu_percent", value)
}

/// A rule that fires does so at these values, one a second.
fn fires(rule: Rule, values: &[f64]) -> bool {
    let steps: Vec<Step> = (0..).step_by(1000).zip(values).map(|(at, value)| point(at, *value)).collect();
    !say(detector(vec![rule]), &steps).is_empty()
}

#[test]
fn every_comparison_and_aggregation_means_what_it_says() {
    let rule = |agg, op, value| Rule { agg, ..Rule::new("r", "cpu_percent", op, value) };
    use {Aggregation::*, Comparison::*};
    for (agg, op, limit, values, expected) in [
        (Last, Gt, 90.0, &[90.0][..], false),
        (Last, Gt, 90.0, &[90.1], true),
        (Last, Gte, 90.0, &[90.0], true),
        (Last, Lt, 5.0, &[5.0], false),
        (Last, Lt, 5.0, &[4.9], true),
        (Last, Lte, 5.0, &[5.0], true),
        (Last, Eq, 5.0, &[5.0], true),
        (Last, Eq, 5.0, &[5.000_001], false),
        (Last, Ne, 5.0, &[5.0], false),
        (Last, Ne, 5.0, &[5.000_001], true),
        (Avg, Gt, 90.0, &[50.0, 95.0], false),
        (Avg, Gt, 90.0, &[89.0, 92.0], true),
        (Min, Gt, 90.0, &[89.0, 99.0], false),
        (Min, Lt, 10.0, &[50.0, 9.0, 50.0], true),
        (Max, Gt, 90.0, &[91.0, 1.0], true),
        (Sum, Gte, 6.0, &[1.0, 2.0, 3.0], true),
        (Sum, Gte, 6.1, &[1.0, 2.0, 3.0], false),
        (Count, Gte, 3.0, &[0.0, 0.0, 0.0], true),
        (Count, Gte, 4.0, &[0.0, 0.0, 0.0], false),
    ] {
        assert_eq!(fires(rule(agg, op, limit), values), expected, "{agg:?} {op:?} {limit} {values:?}");
    }
}

#[test]
fn values_older_than_the_window_do_not_count() {
    let rule = Rule { agg: Aggregation::Sum, window: Span::seconds(10), ..Rule::new("r", "cpu_percent", Comparison::Gte, 3.0) };
    let at = |times: &[i64]| -> Vec<Step> { times.iter().map(|time| point(*time, 1.0)).collect() };
    assert!(!say(detector(vec![rule.clone()]), &at(&[0, 5000, 9999])).is_empty());
    assert!(say(detector(vec![rule]), &at(&[0, 5000, 10_000])).is_empty());
}

#[test]
fn too_few_values_are_not_compared() {
    let rule = Rule { min_samples: 3, ..cpu() };
    assert!(!fires(rule.clone(), &[95.0, 95.0]));
    assert!(fires(rule, &[95.0, 95.0, 95.0]));
}

#[test]
fn it_fires_once_when_it_held_for_long_enough_and_a_tick_is_enough() {
    let rule = Rule { hold: Span::seconds(120), agg: Aggregation::Avg, ..cpu() };
    let mut steps = vec![point(0, 95.0), point(60_000, 94.0), point(61_000, 10.0), point(65_000, 95.0)];
    steps.extend((0..12).map(|n| point(122_000 + n * 10_000, 93.0)));
    steps.insert(15, Step::tick(232_000));
    let mut steps: Vec<Step> = steps.into_iter().take_while(|step| !matches!(step, Step::Signal(at, _) if *at > ms(240_000))).collect();
    steps.push(Step::tick(241_999));
    steps.push(Step::tick(242_000));
    let records = say(detector(vec![rule]), &steps);
    // the value of 10 leaves the window of a minute at 121,000: from 122,000 on the mean is above 90
    assert_eq!(outline(&records), ["242000 firing 12 cpu host-7"]);
    assert_eq!(records[0].title, "avg of cpu_percent over 1m is 93 > 90 for 2m on host-7");
    assert_eq!((records[0].severity, records[0].transition), (Severity::Warning, Transition::Firing));
    assert_eq!(records[0].evidence.len(), 12);
    assert_eq!(
        records[0].evidence[0],
        Observation::Metric { at: ms(122_000), source: "host-7".to_owned(), name: "cpu_percent".to_owned(), value: 93.0, expected: None }
    );
}

#[test]
fn a_series_that_falls_silent_does_not_fire_until_it_speaks_again() {
    let rule = Rule { hold: Span::seconds(300), ..cpu() };
    let steps = [point(0, 95.0), Step::tick(300_000), Step::tick(350_000), point(400_000, 95.0)];
    assert_eq!(outline(&say(detector(vec![rule]), &steps)), ["400000 firing 2 cpu host-7"]);
}

#[test]
fn it_is_over_below_the_clear_value_and_not_before() {
    let rule = Rule { clear: Some(80.0), ..cpu() };
    let steps =
        [point(0, 91.0), point(1000, 85.0), point(2000, 92.0), point(3000, 80.1), point(4000, 80.0), point(5000, 85.0), point(6000, 90.5)];
    let records = say(detector(vec![rule]), &steps);
    assert_eq!(
        outline(&records),
        ["     0 firing 1 cpu host-7", "  2000 repeat 1 cpu host-7", "  4000 resolved clear cpu host-7", "  6000 firing 1 cpu host-7",]
    );
    assert_eq!(records[2].at, ms(4000));
    assert_ne!(records[0].alert, records[3].alert);
    assert_eq!(records[0].alert, records[2].alert);
    let low = Rule { clear: Some(20.0), ..Rule::new("low", "cpu_percent", Comparison::Lt, 10.0) };
    let records = say(detector(vec![low]), &[point(0, 5.0), point(1, 15.0), point(2, 20.0)]);
    assert_eq!(outline(&records), ["     0 firing 1 low host-7", "     2 resolved clear low host-7"]);
}

#[test]
fn while_it_fires_news_come_every_half_minute() {
    let steps: Vec<Step> = (0..10).map(|n| point(n * 10_000, 91.0 + f64::from(i32::try_from(n).unwrap()))).collect();
    let records = say(detector(vec![cpu()]), &steps);
    assert_eq!(
        outline(&records),
        ["     0 firing 1 cpu host-7", " 30000 repeat 3 cpu host-7", " 60000 repeat 3 cpu host-7", " 90000 repeat 3 cpu host-7",]
    );
    assert_eq!(records[3].title, "cpu_percent 100 > 90 on host-7");
}

#[test]
fn recorded_values_that_come_all_at_once_fire_and_are_over_by_their_own_time() {
    let rule = Rule { agg: Aggregation::Avg, window: Span::seconds(60), hold: Span::seconds(120), ..cpu() };
    let recorded = |received: i64, from: i64, many: i64, value: f64| -> Vec<Step> {
        let at = |n: i64| ms(from + n * 10_000);
        (0..many).map(|n| Step::Signal(ms(received), Owned::metric(at(n), "host-7", "cpu_percent", value))).collect()
    };
    let day = 86_400_000;
    let mut steps = recorded(day, 0, 60, 95.0);
    assert_eq!(outline(&say(detector(vec![rule.clone()]), &steps)), ["86400000 firing 13 cpu host-7"]);
    let short = recorded(day, 0, 12, 95.0);
    assert!(say(detector(vec![rule.clone()]), &short).is_empty(), "110 s are not 120");
    let future = recorded(0, 0, 60, 95.0);
    assert!(say(detector(vec![rule.clone()]), &future).is_empty(), "times to come prove nothing");
    steps.extend(recorded(day + 1, 600_000, 10, 50.0));
    let records = say(detector(vec![rule.clone()]), &steps);
    let expected = ["86400000 firing 13 cpu host-7", "86400000 repeat 47 cpu host-7", "86400001 resolved clear cpu host-7"];
    assert_eq!(outline(&records), expected);
    let mut together = recorded(day, 0, 60, 95.0);
    together.extend(recorded(day, 600_000, 10, 50.0));
    assert_eq!(say(detector(vec![rule]), &together).last().unwrap().resolved_by, Some(ResolvedBy::Clear));
}

#[test]
fn what_is_counted_bears_the_time_of_its_newest_value_beyond_the_limit() {
    let rule = Rule { clear: Some(80.0), ..cpu() };
    let steps = [point(0, 95.0), point(10_000, 95.0), point(20_000, 85.0), point(31_000, 85.0), point(40_000, 95.0), point(50_000, 10.0)];
    let records = say(detector(vec![rule]), &steps);
    let expected =
        ["     0 firing 1 cpu host-7", " 10000 repeat 1 cpu host-7", " 40000 repeat 1 cpu host-7", " 50000 resolved clear cpu host-7"];
    assert_eq!(outline(&records), expected);
}

#[test]
fn an_alert_without_values_is_over_after_a_while() {
    let steps = [point(0, 95.0), point(10_000, 95.0), Step::tick(909_999), Step::tick(910_000)];
    let records = say(detector(vec![cpu()]), &steps);
    assert_eq!(outline(&records), ["     0 firing 1 cpu host-7", " 10000 repeat 1 cpu host-7", "910000 resolved quiet cpu host-7",]);
    assert_eq!(records[2].resolved_by, Some(ResolvedBy::Quiet));
}

#[test]
fn every_source_and_set_of_labels_is_a_series_of_its_own() {
    let disk = |at, source: &str, mount: &str, value| {
        Step::Signal(ms(at), Owned::metric(ms(at), source, "disk_percent", value).label("mount", mount).label("fs", "ext4"))
    };
    let rule = Rule {
        labels: BTreeMap::from([("fs".to_owned(), "ext4".to_owned())]),
        title: Some("${labels.mount} at $value % on $source ($metric)".to_owned()),
        ..Rule::new("disk", "disk_percent", Comparison::Gt, 90.0)
    };
    let other = Owned::metric(ms(0), "a", "disk_percent", 99.0).label("fs", "tmpfs").label("mount", "/run");
    let swapped = Owned::metric(ms(3), "a", "disk_percent", 91.0).label("fs", "ext4").label("mount", "/");
    let steps = [
        disk(0, "a", "/", 95.0),
        disk(0, "a", "/var", 96.5),
        disk(1, "b", "/", 97.25),
        Step::Signal(ms(2), other),
        Step::Signal(ms(3), swapped),
    ];
    let records = say(detector(vec![rule]), &steps);
    let titles: Vec<&str> = records.iter().map(|record| record.title.as_str()).collect();
    assert_eq!(titles, ["/ at 95 % on a (disk_percent)", "/var at 96.5 % on a (disk_percent)", "/ at 97.25 % on b (disk_percent)"]);
    assert_eq!(records[0].labels["mount"], "/");
    assert_eq!(records[0].labels["alertname"], "disk");
    let default = say(detector(vec![Rule::new("d", "disk_percent", Comparison::Gt, 90.0)]), &steps[..1]);
    assert_eq!(default[0].title, "disk_percent{fs=ext4,mount=/} 95 > 90 on a");
}

#[test]
fn a_rule_may_name_its_source() {
    let rule = Rule { source: Some("host-8".to_owned()), ..cpu() };
    let steps = [point(0, 95.0), Step::metric(0, "host-8", "cpu_percent", 95.0)];
    assert_eq!(outline(&say(detector(vec![rule]), &steps)), ["     0 firing 1 cpu host-8"]);
}

#[test]
fn a_sender_cannot_pass_for_another_series_by_its_labels() {
    let forged = Owned::metric(ms(0), "x", "cpu_percent", 95.0).label("alertname", "cpu").label("source", "host-7");
    let records = say(detector(vec![cpu()]), &[point(0, 95.0), Step::Signal(ms(0), forged)]);
    assert_ne!(records[0].fingerprint, records[1].fingerprint);
    assert_eq!(records[1].labels["source"], "x");
}

#[test]
fn late_values_count_within_the_window_and_those_from_the_future_do_no_harm() {
    let late = |received, at, value| Step::Signal(ms(received), Owned::metric(ms(at), "host-7", "cpu_percent", value));
    let max = Rule { agg: Aggregation::Max, ..cpu() };
    assert_eq!(say(detector(vec![max.clone()]), &[late(100_000, 100_000, 1.0), late(100_001, 50_000, 95.0)]).len(), 1);
    let mut detector = detector(vec![max]);
    let mut out = Vec::new();
    let steps = [late(100_000, 100_000, 1.0), late(100_001, 40_000, 95.0), late(100_002, 9_000_000, 2.0), late(100_003, 100_003, 95.0)];
    log_of(&steps, |_| false).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(outline(&out), ["100003 firing 1 cpu host-7"]);
    assert_eq!(detector.counts().ignored, 1);
}

#[test]
fn what_is_no_number_is_left_out() {
    let mut detector = detector(vec![cpu()]);
    let mut out = Vec::new();
    let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(|value| point(0, value));
    log_of(&bad, |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!((out.len(), detector.counts().ignored, detector.counts().open), (0, 3, 0));
}

#[test]
fn series_are_bounded_and_the_longest_silent_makes_room() {
    let config = Config { rules: vec![cpu()], builtin_rules: false, max_series: 2, ..Config::default() };
    let of = |at, source: &str| Step::metric(at, source, "cpu_percent", 95.0);
    let mut detector = Detector::new(config);
    let mut out = Vec::new();
    let steps = [of(0, "a"), of(1, "b"), of(2, "a"), of(3, "c")];
    log_of(&steps, |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(outline(&out), ["     0 firing 1 cpu a", "     1 firing 1 cpu b", "     3 resolved quiet cpu b", "     3 firing 1 cpu c"]);
    assert_eq!((detector.counts().open, detector.counts().evicted), (2, 1));
    let calm: Vec<Step> = (0..1000).map(|n| Step::metric(2_000_000 + n * 1000, &format!("s{n}"), "cpu_percent", 1.0)).collect();
    log_of(&calm, |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(detector.counts().open, 2);
    assert_eq!(detector.next_due(), None, "series that do not fire ask for no tick");
}

#[test]
fn names_and_labels_of_series_are_bounded_by_their_bytes_too() {
    let mut detector = detector(vec![cpu()]);
    detector.max_bytes = 1_000;
    let of = |at, source: &str| Step::metric(at, &source.repeat(300), "cpu_percent", 95.0);
    let mut out = Vec::new();
    let steps = [of(0, "a"), of(1, "b"), of(2, "c"), of(3, "a"), of(4, "d")];
    log_of(&steps, |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    let counts = detector.counts();
    assert_eq!((counts.open, counts.evicted), (3, 1), "far below the number there may be");
    assert!((900..=1_000).contains(&counts.bytes), "{counts:?}");
    let resolved = out.iter().find(|record| record.transition == Transition::Resolved).unwrap();
    assert!(resolved.source.starts_with("bb"), "the longest silent: {}", resolved.source);
    // what one holds alone is followed all the same, and what goes is given back
    let alone = Step::metric(5, &"e".repeat(2_000), "cpu_percent", 95.0);
    log_of(&[alone], |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(detector.counts().open, 1);
    log_of(&[Step::tick(10_000_000)], |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!((detector.counts().open, detector.counts().bytes), (0, 0));
}

#[test]
fn idle_series_are_forgotten() {
    let mut detector = detector(vec![cpu()]);
    let mut out = Vec::new();
    log_of(&[point(0, 1.0), Step::tick(899_999)], |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(detector.counts().open, 1);
    assert_eq!(detector.changed().len(), 1);
    log_of(&[Step::tick(900_000)], |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(detector.counts().open, 0);
    assert!(detector.changed()[0].body.is_none());
}

#[test]
fn the_alert_of_a_rule_that_was_changed_is_over() {
    let mut before = detector(vec![cpu()]);
    let mut out = Vec::new();
    log_of(&[point(0, 95.0)], |_| true).iter().for_each(|entry| before.consume(entry, &mut out));
    let mut after = detector(vec![Rule { value: Some(91.0), ..cpu() }]);
    for change in before.changed() {
        after.restore(&change.key, &change.body.unwrap()).unwrap();
    }
    assert!(after.next_due().unwrap() <= ms(0), "a tick is asked for at once");
    let mut said = Vec::new();
    log_of(&[point(5, 95.0)], |_| true).iter().for_each(|entry| after.consume(entry, &mut said));
    assert_eq!(outline(&said), ["     5 resolved rule_changed cpu host-7", "     5 firing 1 cpu host-7"]);
    assert_eq!(said[0].alert, out[0].alert);
    assert_eq!(said[0].labels, out[0].labels);
}

#[test]
fn with_no_configuration_a_busy_host_is_noticed() {
    let steps: Vec<Step> = (0..40).map(|n| Step::metric(n * 10_000, "localhost", "cpu_percent", 97.5)).collect();
    let records = say(Detector::new(Config::default()), &steps);
    assert_eq!(outline(&records)[0], "300000 firing 30 host-cpu-high localhost");
    assert_eq!(records[0].title, "Processor busy: 97.5 % on localhost");
}

#[test]
fn percentiles_rates_and_counts_are_told_in_words_and_numbers() {
    let rule =
        |agg: &str, op, value| Rule { agg: agg.parse().unwrap(), window: Span::seconds(300), ..Rule::new("r", "latency_ms", op, value) };
    let steps: Vec<Step> = (1..=21).map(|n| Step::metric(n * 1000, "web-1", "latency_ms", number(n * 10))).collect();
    let said = |rule| say(detector(vec![rule]), &steps);
    let p95 = said(rule("p95", Comparison::Gte, 200.0));
    // by hand: of 21 values the 95th percentile is the 20th
    assert_eq!(outline(&p95), [" 21000 firing 1 r web-1"]);
    assert_eq!(p95[0].title, "p95 of latency_ms over 5m is 200 >= 200 on web-1");
    assert_eq!(p95[0].description, "21 values within 5m, the least 10, the greatest 210");
    // 10 a second, believed for half a second before the first value: 155 in 300 s after 16 values, 205 after 21
    let rate = said(rule("rate", Comparison::Gt, 0.5));
    assert_eq!(outline(&rate)[0], " 16000 firing 1 r web-1");
    assert_eq!(rate[0].title, "rate of latency_ms over 5m is 0.5167/s > 0.5 on web-1");
    let increase = said(rule("increase", Comparison::Gte, 200.0));
    assert_eq!(outline(&increase)[0], " 21000 firing 1 r web-1");
    let counted = said(rule("count", Comparison::Gt, 3.0));
    assert_eq!(counted[0].title, "count of latency_ms over 5m is 4 > 3 on web-1");
}

#[test]
fn matchers_and_labels_choose_series_together() {
    let of = |source: &str, labels: &[(&str, &str)]| {
        let point = Owned::metric(ms(0), source, "latency_ms", 95.0);
        Step::Signal(ms(0), labels.iter().fold(point, |point, (name, value)| point.label(name, value)))
    };
    let matchers = [r#"path!~"/internal/.*""#, r#"source=~"web-\\d+""#, "canary=\"\""].iter().map(|text| text.parse().unwrap()).collect();
    let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
    let rule = Rule { matchers, labels, ..Rule::new("r", "latency_ms", Comparison::Gt, 90.0) };
    let steps = [
        of("web-1", &[("env", "prod"), ("path", "/a")]),
        of("web-2", &[("env", "prod"), ("path", "/internal/b")]),
        of("web-3", &[("env", "test"), ("path", "/a")]),
        of("web-x", &[("env", "prod"), ("path", "/a")]),
        of("web-4", &[("env", "prod"), ("canary", "yes")]),
        of("web-5", &[("env", "prod")]),
    ];
    assert_eq!(outline(&say(detector(vec![rule]), &steps)), ["     0 firing 1 r web-1", "     0 firing 1 r web-5"]);
}

#[test]
fn it_keeps_firing_for_a_while_and_goes_on_if_it_holds_again() {
    let rule = Rule { keep_firing_for: Span::seconds(60), ..cpu() };
    // below for 50 s, above, and below for 60 s: by a value, or by a tick where none comes
    let steps = [point(0, 95.0), point(10_000, 50.0), point(59_999, 50.0), point(60_000, 95.0), point(61_000, 50.0), point(120_000, 50.0)];
    let clear = "121000 resolved clear cpu host-7";
    let after = |last: Step| {
        let steps: Vec<Step> = steps.iter().cloned().chain([last]).collect();
        outline(&say(detector(vec![rule.clone()]), &steps))
    };
    assert_eq!(after(point(121_000, 50.0)), ["     0 firing 1 cpu host-7", " 60000 repeat 1 cpu host-7", clear]);
    assert_eq!(after(Step::tick(121_000)), ["     0 firing 1 cpu host-7", " 60000 repeat 1 cpu host-7", clear]);
    assert_eq!(after(Step::tick(120_999)).len(), 2);
    let mut detector = detector(vec![rule.clone()]);
    log_of(&steps, |_| true).iter().for_each(|entry| detector.consume(entry, &mut Vec::new()));
    assert_eq!(detector.next_due(), Some(ms(121_000)), "a tick is asked for");
}

#[test]
fn recorded_values_end_an_alert_by_their_own_time_too() {
    let rule = Rule { keep_firing_for: Span::seconds(60), ..cpu() };
    let at = |time, value| Step::Signal(ms(86_400_000), Owned::metric(ms(time), "host-7", "cpu_percent", value));
    let steps = [at(0, 95.0), at(10_000, 50.0), at(69_999, 50.0), at(70_000, 50.0)];
    let records = say(detector(vec![rule]), &steps);
    assert_eq!(outline(&records), ["86400000 firing 1 cpu host-7", "86400000 resolved clear cpu host-7"]);
    assert_eq!(records[1].at, ms(70_000));
}

#[test]
fn of_two_values_with_the_same_time_the_later_one_counts() {
    let rule = |agg, value| Rule { agg, ..Rule::new("r", "cpu_percent", Comparison::Gte, value) };
    let steps = [point(0, 10.0), point(0, 30.0), point(1000, 20.0)];
    assert!(say(detector(vec![rule(Aggregation::Sum, 50.1)]), &steps).is_empty());
    assert_eq!(say(detector(vec![rule(Aggregation::Sum, 50.0)]), &steps).len(), 1);
    assert!(say(detector(vec![rule(Aggregation::Count, 3.0)]), &steps).is_empty());
}

#[test]
fn points_from_1970_and_2106_do_not_distort_and_are_counted() {
    let rule = Rule { agg: Aggregation::Avg, min_samples: 3, ..cpu() };
    let from = |received: i64, at: i64, value| {
        Step::Signal(ms(received), Owned::metric(opspilot_kernel::time::Timestamp::from_millis(at), "host-7", "cpu_percent", value))
    };
    let mut detector = detector(vec![rule]);
    let mut out = Vec::new();
    let steps = [
        from(0, 0, 1e300),
        point(1000, 95.0),
        from(2000, 0, 1e300),
        // 2106-02-07: counts as of its receipt
        from(3000, 4_294_967_295_000, 95.0),
        from(3500, 1, -1e300),
        point(4000, 95.0),
    ];
    log_of(&steps, |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(outline(&out), ["  4000 firing 1 cpu host-7"]);
    assert_eq!((out[0].title.as_str(), out[0].at), ("avg of cpu_percent over 1m is 95 > 90 on host-7", ms(4000)));
    let counts = detector.counts();
    assert_eq!((counts.ignored, counts.ahead), (2, 1));
}

#[test]
fn what_a_window_has_no_room_for_is_counted() {
    let rules = vec![Rule { agg: Aggregation::Sum, ..cpu() }];
    let mut detector = Detector::new(Config { rules, builtin_rules: false, max_samples: 16, ..Config::default() });
    let steps: Vec<Step> = (0..40).map(|n| point(n * 100, 1.0)).collect();
    log_of(&steps, |_| false).iter().for_each(|entry| detector.consume(entry, &mut Vec::new()));
    assert_eq!(detector.counts().crowded, 5, "every time that the seventeenth comes, four or five are joined");
}
