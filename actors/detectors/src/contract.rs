//! What holds for every detector in the list.

use opspilot_kernel::{ids::Seq, signal::AlertState};
use schemars::generate::SchemaSettings;
use serde_json::json;

use crate::{
    Detect, MODULES, alert, anomaly, heartbeat, log_template, regex,
    testing::{Owned, Step, log_of, ms, say},
    threshold,
};

/// The detectors as they are without configuration, and with one that makes them work.
fn check_each(check: impl Fn(&dyn Fn(&[Step]) -> Vec<opspilot_kernel::alert::AlertRecord>)) {
    fn run<D: Detect>(section: serde_json::Value) -> impl Fn(&[Step]) -> Vec<opspilot_kernel::alert::AlertRecord> {
        let config: D::Config = serde_json::from_value(section).unwrap();
        move |steps| say(D::build(&config), steps)
    }
    check(&run::<regex::Detector>(json!({})));
    check(&run::<regex::Detector>(json!({ "rules": [{ "id": "e", "pattern": "(?i)error|panic" }, { "id": "n", "pattern": r"\d{9}" }] })));
    check(&run::<threshold::Detector>(json!({})));
    check(&run::<threshold::Detector>(json!({ "rules": [{ "id": "m", "metric": "m", "op": "gt", "value": 90 }] })));
    check(&run::<anomaly::Detector>(json!({})));
    check(&run::<anomaly::Detector>(json!({ "rules": [
        { "id": "z", "match": ["__name__=~\".*\""], "method": { "zscore": { "window": 5, "min_samples": 3, "rest": 0 } } },
        { "id": "x", "extract": { "pattern": "(?P<value>\\d+)" } },
    ] })));
    let slo = json!({ "id": "s", "errors": "m", "total": "m", "objective": 99.9 });
    let rules = json!([{ "id": "p", "metric": "m", "agg": "p95", "op": "gt", "value": 90 }, { "id": "r", "metric": "m", "agg": "rate", "op": "gt", "value": 90 }]);
    check(&run::<threshold::Detector>(json!({ "rules": rules, "slos": [slo] })));
    check(&run::<log_template::Detector>(json!({})));
    let learned = json!({ "id": "t", "learning": "0s", "learning_lines": 0, "burst_baseline": "5m", "stops": true });
    check(&run::<log_template::Detector>(json!({ "rules": [learned] })));
    check(&run::<alert::Detector>(json!({})));
    check(&run::<heartbeat::Detector>(json!({})));
    let fed = json!({ "heartbeats": [
        { "id": "e", "period": "1h", "on_alert": ["alertname=error"] },
        { "id": "l", "period": "1h", "on_signal": ["__message__=~\"GET.*|error\""] },
        { "id": "m", "period": "1h", "on_signal": ["__name__=~\"cpu.*|m\""], "key": "0123456789abcdef" },
    ] });
    check(&run::<heartbeat::Detector>(fed));
}

#[test]
fn every_default_configuration_is_valid_and_read_back_as_it_was() {
    for entry in MODULES {
        let defaults = (entry.defaults)();
        assert_eq!((entry.check)(defaults.clone()), [], "{}", entry.id);
        assert_eq!((entry.check)(serde_json::Value::Null), [], "{}", entry.id);
        assert!(defaults.is_object());
    }
}

#[test]
fn an_unknown_field_is_rejected_with_its_place() {
    for entry in MODULES {
        let mut section = (entry.defaults)();
        section["pattrens"] = json!([]);
        let problems = (entry.check)(section);
        assert_eq!(problems.len(), 1, "{}: {problems:?}", entry.id);
        assert_eq!(problems[0].pointer, "/pattrens", "{}", entry.id);
    }
}

#[test]
fn ids_differ_are_of_the_category_and_are_documented() {
    let mut ids: Vec<&str> = MODULES.iter().map(|entry| entry.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), MODULES.len());
    for entry in MODULES {
        assert_eq!(entry.id.category(), "detector");
        assert!(!entry.summary.is_empty());
        assert!(entry.enabled_by_default, "{}", entry.id);
        let schema = schema(entry);
        let definition = schema.pointer("/description").and_then(serde_json::Value::as_str).unwrap_or_default();
        assert!(definition.contains(&format!("`{}`", entry.id)), "the doc comment of its Config names {}: {schema}", entry.id);
    }
}

fn schema(entry: &opspilot_runtime::Entry) -> serde_json::Value {
    let mut generator = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
    (entry.schema)(&mut generator).to_value()
}

#[test]
fn every_key_is_documented_in_the_schema() {
    for entry in MODULES {
        undocumented(entry.id.as_str(), &schema(entry));
    }
}

fn undocumented(at: &str, schema: &serde_json::Value) {
    if let Some(properties) = schema.get("properties").and_then(serde_json::Value::as_object) {
        for (name, property) in properties {
            assert!(property.get("description").is_some(), "{at}.{name} is not documented: {property}");
            undocumented(&format!("{at}.{name}"), property);
        }
    }
    if let Some(items) = schema.get("items") {
        undocumented(at, items);
    }
}

#[test]
fn quiet_input_stays_quiet() {
    let steps: Vec<Step> = (0..2000_i64)
        .flat_map(|n| {
            [Step::log(n * 1000, "s", "GET /health 200"), Step::metric(n * 1000, "s", "cpu_percent", 20.0), Step::tick(n * 1000 + 500)]
        })
        .collect();
    check_each(|run| assert_eq!(run(&steps), []));
}

#[test]
fn odd_input_does_no_harm_and_the_same_input_gives_the_same_output() {
    let far = [ms(-1_795_348_800_000), ms(0), ms(4_000_000_000_000)];
    let texts = ["", "\u{0}", "error", "ſ\u{10ffff}", &"x".repeat(1 << 20), "panic 123456789"];
    let numbers = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, f64::MIN_POSITIVE, f64::MAX, f64::MIN, 95.0];
    let mut steps = vec![Step::Tick(far[2]), Step::Tick(far[0])];
    for at in far {
        for text in texts {
            steps.push(Step::Signal(ms(0), Owned::log(at, text, text)));
            steps.push(Step::Signal(at, Owned::alert(at, text, text, AlertState::Firing)));
            steps.push(Step::Signal(at, Owned::alert(at, "s", text, AlertState::Resolved)));
        }
        for number in numbers {
            steps.push(Step::Signal(at, Owned::metric(at, "s", "m", number).label("", "").label("", "")));
            steps.push(Step::Signal(at, Owned::metric(at, "", "", number)));
        }
    }
    check_each(|run| {
        let said = run(&steps);
        assert_eq!(said, run(&steps));
        for record in said {
            assert!(record.title.len() < 1024 && record.description.len() < 8192, "{}", record.title);
            assert!(
                serde_json::to_string(&record).unwrap().len() < 64 << 10 || record.source.len() > 1 << 19,
                "bounded but for the sender's own source"
            );
        }
    });
}

#[test]
fn an_empty_batch_and_one_of_garbage_are_survived() {
    use opspilot_kernel::signal::{KindSet, LogEntry, SignalBlock};
    let block = |first_seq: Seq, pieces: Vec<Vec<u8>>| {
        let last_seq = first_seq;
        LogEntry::Batch(std::sync::Arc::new(SignalBlock { first_seq, last_seq, received_at: ms(0), kinds: KindSet::from_bits(7), pieces }))
    };
    let entries = [block(1, vec![]), block(2, vec![vec![]]), block(3, vec![vec![3, 0, 255, 255, 2, 3, 3, 1, 1]])];
    fn survive<D: Detect>(entries: &[opspilot_kernel::signal::LogEntry]) -> u64 {
        let mut detector = D::build(&D::Config::default());
        let mut out = Vec::new();
        entries.iter().for_each(|entry| detector.consume(entry, &mut out));
        assert!(out.is_empty());
        detector.counts().damaged
    }
    survive::<regex::Detector>(&entries);
    assert!(survive::<anomaly::Detector>(&entries) > 0);
    survive::<log_template::Detector>(&entries);
    assert!(survive::<alert::Detector>(&entries) > 0);
    assert!(survive::<threshold::Detector>(&entries) > 0);
    assert!(log_of(&[], |_| true).is_empty());
}
