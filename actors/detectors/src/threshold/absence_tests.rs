use std::collections::BTreeMap;

use opspilot_kernel::{
    alert::{AlertRecord, Transition},
    config::Span,
};

use super::{Comparison, Config, Detector, Rule};
use crate::{
    Detect,
    testing::{Step, log_of, ms, outline, say},
};

const MINUTE: i64 = 60_000;

fn gone() -> Rule {
    Rule::absent("gone", "up", Span::seconds(300))
}

fn detector(rules: Vec<Rule>) -> Detector {
    Detector::new(Config { rules, builtin_rules: false, ..Config::default() })
}

fn up(minute: i64, source: &str) -> Step {
    Step::metric(minute * MINUTE, source, "up", 1.0)
}

fn ticks(minutes: &[i64]) -> Vec<Step> {
    minutes.iter().map(|minute| Step::tick(minute * MINUTE)).collect()
}

/// Minute, transition and source of what is said.
fn brief(records: &[AlertRecord]) -> Vec<(i64, Transition, &str)> {
    records
        .iter()
        .map(|record| ((record.logged_at.millis() - ms(0).millis()) / MINUTE, record.transition, record.source.as_str()))
        .collect()
}

#[test]
fn a_series_that_falls_silent_is_missed_and_the_alert_is_over_when_it_returns() {
    let mut steps = vec![up(0, "a"), up(0, "b"), up(3, "b")];
    steps.extend(ticks(&[4, 5]));
    steps.extend([up(6, "b"), up(7, "a"), up(8, "b")]);
    steps.extend(ticks(&[12, 13]));
    let records = say(detector(vec![gone()]), &steps);
    use Transition::{Firing, Resolved};
    assert_eq!(brief(&records), [(5, Firing, "a"), (7, Resolved, "a"), (12, Firing, "a"), (13, Firing, "b")]);
    assert_eq!(records[0].title, "no up from a for 5m");
    assert_eq!(records[0].description, "its last value came at 2026-11-22T12:00:00.000Z");
    assert_eq!(records[1].description, "values come again, after 7m without any");
    assert_eq!((&records[0].labels["alertname"], &records[0].labels["condition"]), (&"gone".to_owned(), &"absent".to_owned()));
    assert_eq!((&records[0].alert, records[0].fingerprint), (&records[1].alert, records[2].fingerprint));
    assert_ne!(records[0].alert, records[2].alert, "another silence is another alert");
}

#[test]
fn what_is_missed_asks_for_a_tick_and_nothing_else_is_needed() {
    let mut detector = detector(vec![gone()]);
    let mut out = Vec::new();
    let mut feed =
        |detector: &mut Detector, steps: &[Step]| log_of(steps, |_| true).iter().for_each(|entry| detector.consume(entry, &mut out));
    assert_eq!(detector.next_due().map(|due| due <= ms(0)), Some(true), "time begins to count at the start");
    feed(&mut detector, &[Step::tick(0)]);
    assert_eq!(detector.next_due(), Some(ms(5 * MINUTE)), "there never was a series");
    feed(&mut detector, &[up(1, "a")]);
    assert_eq!(detector.next_due(), Some(ms(5 * MINUTE)));
    feed(&mut detector, &[Step::tick(5 * MINUTE)]);
    assert_eq!(detector.next_due(), Some(ms(6 * MINUTE)), "the series that came");
    feed(&mut detector, &[Step::tick(6 * MINUTE)]);
    assert_eq!(detector.next_due(), Some(ms((1 + 24 * 60) * MINUTE)), "a day after its last value it is not expected any more");
    assert_eq!(outline(&out), ["360000 firing 1 gone a"]);
}

#[test]
fn a_selector_that_never_had_any_series_raises_one_alert_for_the_rule() {
    let rule = Rule {
        labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
        matchers: vec!["zone=~\"eu-.*\"".parse().unwrap()],
        ..gone()
    };
    // another metric and series of other labels are no sign of life
    let mut steps =
        vec![Step::metric(0, "x", "other", 1.0), up(2, "a"), Step::tick(4 * MINUTE), Step::tick(5 * MINUTE), Step::tick(50 * MINUTE)];
    let records = say(detector(vec![rule.clone()]), &steps);
    assert_eq!(brief(&records), [(5, Transition::Firing, "detector.threshold")]);
    assert_eq!(records[0].title, "no series of up{env=prod,zone=~\"eu-.*\"} for 5m");
    assert_eq!(records[0].labels["env"], "prod");
    let back = crate::testing::Owned::metric(ms(51 * MINUTE), "b", "up", 1.0).label("env", "prod").label("zone", "eu-1");
    steps.push(Step::Signal(ms(51 * MINUTE), back));
    let records = say(detector(vec![rule]), &steps);
    assert_eq!(brief(&records)[1], (51, Transition::Resolved, "detector.threshold"));
    assert_eq!(records[1].alert, records[0].alert);
    assert_eq!(records[1].description, "values come, after 51m without any");
}

#[test]
fn a_series_that_does_not_return_is_forgotten_and_the_rule_misses_it_then() {
    let rule = Rule { forget_after: Span::seconds(3600), ..gone() };
    let mut steps = vec![up(0, "a")];
    steps.extend(ticks(&[5, 59, 60, 61]));
    let records = say(detector(vec![rule]), &steps);
    use Transition::{Firing, Resolved};
    assert_eq!(brief(&records), [(5, Firing, "a"), (60, Resolved, "a"), (60, Firing, "detector.threshold")]);
    assert_eq!(records[1].description, "it was silent for so long that it is not expected any more");
}

#[test]
fn silence_and_a_limit_are_alerts_of_their_own() {
    let rule = Rule { absent_after: Some(Span::seconds(300)), ..Rule::new("gone", "up", Comparison::Gt, 0.0) };
    let mut steps = vec![up(0, "a")];
    steps.extend(ticks(&[5, 15]));
    steps.push(up(16, "a"));
    let records = say(detector(vec![rule]), &steps);
    let expected = [
        "     0 firing 1 gone a",
        "300000 firing 1 gone a",
        "900000 resolved quiet gone a",
        "960000 resolved clear gone a",
        "960000 firing 1 gone a",
    ];
    assert_eq!(outline(&records), expected);
    assert_ne!(records[0].fingerprint, records[1].fingerprint);
    assert_eq!(records[1].alert, records[3].alert);
}

#[test]
fn a_rule_that_is_changed_or_removed_misses_nothing_any_more() {
    let mut before = detector(vec![gone(), Rule::absent("never", "nothing", Span::seconds(60))]);
    let mut out = Vec::new();
    let steps = [up(0, "a"), Step::tick(5 * MINUTE)];
    log_of(&steps, |_| true).iter().for_each(|entry| before.consume(entry, &mut out));
    assert_eq!(out.len(), 2);
    let stored = before.changed();
    let mut after = detector(vec![Rule { absent_after: Some(Span::seconds(600)), ..gone() }]);
    for change in stored {
        after.restore(&change.key, &change.body.unwrap()).unwrap();
    }
    let mut said = Vec::new();
    log_of(&[Step::tick(6 * MINUTE)], |_| true).iter().for_each(|entry| after.consume(entry, &mut said));
    let mut ended: Vec<_> = said.iter().map(|record| (record.alert.clone(), record.transition)).collect();
    let mut begun: Vec<_> = out.iter().map(|record| (record.alert.clone(), Transition::Resolved)).collect();
    ended.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
    begun.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
    assert_eq!(ended, begun);
    let left: Vec<String> = after.changed().into_iter().filter(|change| change.body.is_some()).map(|change| change.key).collect();
    assert_eq!(left, ["rule/gone"], "nothing else is stored any more");
}
