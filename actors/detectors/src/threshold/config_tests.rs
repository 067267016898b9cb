use opspilot_kernel::config::Span;

use super::*;
use crate::threshold::{Comparison, rule::builtin_rules};

#[test]
fn a_rule_needs_only_id_metric_op_and_value() {
    let json = serde_json::json!({ "rules": [{ "id": "cpu", "metric": "cpu_percent", "op": "gt", "value": 90 }] });
    let config: Config = serde_json::from_value(json).unwrap();
    assert_eq!(config.rules, [Rule::new("cpu", "cpu_percent", Comparison::Gt, 90.0)]);
    assert_eq!(config.validate(), []);
    assert_eq!((config.rules[0].agg, config.rules[0].window.to_string()), (Aggregation::Last, "1m".to_owned()));
}

#[test]
fn a_rule_about_silence_needs_no_limit() {
    let json = serde_json::json!({ "rules": [{ "id": "gone", "metric": "up", "absent_after": "5m" }] });
    let config: Config = serde_json::from_value(json).unwrap();
    assert_eq!(config.rules, [Rule::absent("gone", "up", Span::seconds(300))]);
    assert_eq!(config.validate(), []);
}

#[test]
fn built_in_rules_are_sound_and_give_way_to_the_users_own() {
    let builtin = Config { rules: builtin_rules(), ..Config::default() };
    assert_eq!(builtin.validate(), []);
    let own = Config { rules: vec![Rule::new("mine", "cpu_percent", Comparison::Gt, 50.0)], ..Config::default() };
    let ids: Vec<String> = own.effective_rules().into_iter().map(|rule| rule.id).collect();
    assert_eq!(ids, ["mine", "host-memory-high", "host-disk-full"]);
    assert_eq!(Config { builtin_rules: false, ..own }.effective_rules().len(), 1);
}

#[test]
fn the_number_of_series_and_of_values_has_bounds() {
    let config = |max_series| Config { max_series, ..Config::default() };
    assert_eq!(config(1_000_000).validate(), []);
    assert_eq!(config(1_000_001).validate()[0].pointer, "/max_series");
    let config = |max_samples| Config { max_samples, ..Config::default() };
    assert_eq!((config(16).validate(), config(65_536).validate()), (vec![], vec![]));
    assert_eq!((config(15).validate().len(), config(65_537).validate().len()), (1, 1));
}

fn found(json: serde_json::Value) -> Vec<(String, Option<String>)> {
    let config: Config = serde_json::from_value(json).unwrap();
    config.validate().into_iter().map(|problem| (problem.pointer, problem.suggestion)).collect()
}

#[test]
fn every_problem_is_named_with_its_place_and_a_way_out() {
    let json = serde_json::json!({ "max_series": 0, "rules": [
        { "id": "a", "metric": "", "op": "gt", "value": 90, "clear": 91, "window": "0s", "min_samples": 0, "resolve_after": "1ms" },
        { "id": "a", "metric": "m", "op": "lt", "value": 5, "clear": 4, "title": "$vlue in $mount" },
        { "id": "b", "metric": "m", "op": "eq", "value": 5, "clear": 5 },
        { "id": "c", "metric": "m", "op": "ne" },
        { "id": "d", "metric": "m", "value": 1 },
        { "id": "e", "metric": "m" },
        { "id": "f", "metric": "m", "absent_after": "0s", "clear": 3 },
        { "id": "g", "metric": "m", "absent_after": "2d" },
        { "id": "h", "metric": "m", "op": "gt", "value": 1, "min_samples": 1025 },
        { "id": "i", "metric": "m", "agg": "count", "op": "gt", "value": 1, "min_samples": 1025 },
    ] });
    let expected = [
        ("/rules/0/clear", None),
        ("/rules/0/metric", None),
        ("/rules/0/window", None),
        ("/rules/0/min_samples", None),
        ("/rules/0/resolve_after", Some("15m")),
        ("/rules/1/id", None),
        ("/rules/1/clear", None),
        ("/rules/1/title", Some("$value")),
        ("/rules/1/title", Some("${labels.mount}")),
        ("/rules/2/clear", None),
        ("/rules/3/value", None),
        ("/rules/4/op", None),
        ("/rules/5/op", None),
        ("/rules/6/clear", None),
        ("/rules/6/absent_after", None),
        ("/rules/7/forget_after", None),
        ("/max_series", None),
        ("/rules/8/min_samples", None),
    ];
    let expected: Vec<(String, Option<String>)> = expected.into_iter().map(|(at, hint)| (at.to_owned(), hint.map(str::to_owned))).collect();
    assert_eq!(found(json), expected);
    let infinite = Config { rules: vec![Rule::new("x", "m", Comparison::Gt, f64::INFINITY)], ..Config::default() };
    assert_eq!(infinite.validate().len(), 1);
}

#[test]
fn an_unknown_aggregation_or_matcher_is_an_error_that_says_what_there_is() {
    for (rule, part) in [
        (serde_json::json!({ "id": "a", "metric": "m", "op": "gt", "value": 1, "agg": "p95.12345" }), "at most three decimals"),
        (serde_json::json!({ "id": "a", "metric": "m", "op": "gt", "value": 1, "agg": "median" }), "percentiles such as p95"),
        (serde_json::json!({ "id": "a", "metric": "m", "op": "gt", "value": 1, "match": ["env"] }), "none of the operators"),
    ] {
        let why = serde_json::from_value::<Config>(serde_json::json!({ "rules": [rule] })).unwrap_err().to_string();
        assert!(why.contains(part), "{why}");
    }
}

#[test]
fn objectives_are_checked_like_rules() {
    let json = serde_json::json!({ "builtin_rules": false, "rules": [{ "id": "same", "metric": "m", "op": "gt", "value": 1 }], "slos": [
        { "id": "same", "errors": "e", "total": "t", "objective": 99.9 },
        { "id": "b", "errors": "e", "objective": 99.9 },
        { "id": "c", "errors": "e", "good": "g", "total": "t", "objective": 99.9 },
        { "id": "d", "ratio": "r", "total": "t", "objective": 0.999 },
        { "id": "e", "ratio": "r", "objective": 100 },
        { "id": "f", "ratio": "r", "objective": 90 },
        { "id": "g", "ratio": "r", "objective": 99, "windows": [
            { "long": "5m", "short": "5m", "burn": 2, "severity": "warning" },
            { "long": "1h", "short": "30s", "burn": 0, "severity": "warning" },
            { "long": "8d", "short": "1h", "burn": 1, "severity": "warning" }] },
        { "id": "h", "ratio": { "metric": "" }, "objective": 99, "windows": [], "period": "2h" },
    ] });
    let expected = [
        ("/slos/0/id", None),
        ("/slos/1/total", None),
        ("/slos/2/errors", None),
        ("/slos/3/ratio", None),
        ("/slos/3/objective", Some("99.9")),
        ("/slos/4/objective", Some("99.9")),
        ("/slos/5/windows", None),
        ("/slos/6/windows/0/short", Some("30s")),
        ("/slos/6/windows/1/short", Some("1m")),
        ("/slos/6/windows/1/burn", None),
        ("/slos/6/windows/2/long", Some("3d")),
        ("/slos/7/ratio/metric", None),
        ("/slos/7/windows", None),
        ("/slos/7/period", Some("30d")),
    ];
    let expected: Vec<(String, Option<String>)> = expected.into_iter().map(|(at, hint)| (at.to_owned(), hint.map(str::to_owned))).collect();
    assert_eq!(found(json), expected);
}
