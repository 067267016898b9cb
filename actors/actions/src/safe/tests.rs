//! The rules and their configuration.

use std::collections::BTreeMap;

use opspilot_kernel::{
    config::{ModuleConfig, Problem},
    event::Event,
    ids::IncidentId,
    incident::{Incident, IncidentStatus, TimelineKind},
    signal::Severity,
    time::Timestamp,
};
use opspilot_safety::{Facts, Policy, render};
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{config::SafeConfig, rules::Rules, *};
use crate::MODULES;

fn section() -> Value {
    json!({
        "actions": [{
            "id": "restart-service", "title": "Restart {service}", "risk": "disruptive",
            "argv": ["/usr/bin/systemctl", "restart", "--", "{service}"], "params": {"service": {"type": "unit_name"}}, "timeout": "30s",
        }],
        "rules": [{
            "action": "restart-service", "match": {"severity": ["critical", "error"], "source": "checkout"},
            "params": {"service": "$labels.service"},
        }],
    })
}

fn problems(section: Value) -> Vec<Problem> {
    (ENTRY.check)(section)
}

fn incident(source: &str, severity: Severity, labels: &[(&str, &str)]) -> Incident {
    let at = Timestamp::from_millis(1_900_000_000_000);
    Incident {
        id: IncidentId::derived(&[source]),
        title: "t".to_owned(),
        description: String::new(),
        severity,
        status: IncidentStatus::Open,
        detected_by: "detector.regex".to_owned(),
        rule: "payments".to_owned(),
        source: source.to_owned(),
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        occurrences: 1,
        opened_at: at,
        last_seen_at: at,
        acknowledged_at: None,
        acknowledged_by: None,
        assignee: None,
        snoozed_until: None,
        resolved_at: None,
        resolution: None,
        merged_into: None,
        alert_count: 1,
        evidence_count: 1,
    }
}

fn opened(incident: &Incident) -> Event {
    Event::IncidentCreated(Box::new(incident.clone()))
}

fn rules(section: Value) -> Rules {
    let config: SafeConfig = serde_json::from_value(section).unwrap();
    assert_eq!(config.validate(), []);
    Rules::new(&config)
}

#[test]
fn the_documented_configuration_is_valid_and_the_default_too() {
    assert_eq!(problems(section()), []);
    assert_eq!(problems((ENTRY.defaults)()), []);
    assert_eq!(problems(Value::Null), []);
}

#[test]
fn every_module_of_the_category_is_named_and_documented() {
    for entry in MODULES {
        assert_eq!(entry.id.category(), "action");
        let mut generator = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true).into_generator();
        let schema = (entry.schema)(&mut generator).to_value();
        let about = schema.pointer("/description").and_then(Value::as_str).unwrap_or_default();
        assert!(about.contains(&format!("`{}`", entry.id)), "{about}");
        undocumented(entry.id.as_str(), &schema);
        let mut section = (entry.defaults)();
        section["acitons"] = json!([]);
        let problems = (entry.check)(section);
        assert_eq!((problems[0].pointer.as_str(), problems[0].suggestion.as_deref()), ("/acitons", Some("actions")));
    }
}

fn undocumented(at: &str, schema: &Value) {
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        assert!(property.get("description").is_some(), "{at}.{name} is not documented: {property}");
        undocumented(&format!("{at}.{name}"), property);
    }
    if let Some(items) = schema.get("items") {
        undocumented(at, items);
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_what_was_meant() {
    let with = |pointer: &str, value: Value| {
        let mut section = section();
        *section.pointer_mut(pointer).unwrap() = value;
        let found = problems(section);
        let first = found.first().unwrap_or_else(|| panic!("{pointer} is accepted")).clone();
        (first.pointer, first.suggestion, first.message)
    };
    let (at, meant, _) = with("/rules/0/action", json!("restart-servce"));
    assert_eq!((at.as_str(), meant.as_deref()), ("/rules/0/action", Some("restart-service")));
    let (at, meant, _) = with("/rules/0/params", json!({"sevice": "x", "service": "$source"}));
    assert_eq!((at.as_str(), meant.as_deref()), ("/rules/0/params/sevice", Some("service")));
    for (pointer, value, at, says) in [
        ("/rules/0/params", json!({}), "/rules/0/params", "service is missing"),
        ("/rules/0/params", json!({"service": "-x"}), "/rules/0/params/service", "must not begin with -"),
        ("/rules/0/params", json!({"service": "$lables.service"}), "/rules/0/params/service", "`$labels`"),
        ("/rules/0/params", json!({"service": "$labels."}), "/rules/0/params/service", "name a label"),
        ("/rules/0/params", json!({"service": ["x"]}), "/rules/0/params/service", "a text or a whole number"),
        ("/rules/0/match", json!({}), "/rules/0/match", "say which incidents"),
        ("/rules/0/match", json!({"severity": []}), "/rules/0/match/severity", "matches nothing"),
        ("/rules/0/match", json!({"labels": {"a": []}}), "/rules/0/match/labels/a", "matches nothing"),
        ("/rules/0/match/severity", json!(["urgent"]), "/rules/0/match/severity", "urgent"),
        ("/actions/0/argv/0", json!("systemctl"), "/actions/0/argv/0", "absolute path"),
        ("/actions/0/argv", json!(["/bin/sh", "-c", "{service}"]), "/actions/0/argv/0", "sh"),
        ("/actions/0/params/service/type", json!("unit"), "/actions/0/params/service/type", "unit"),
    ] {
        let (found, _, message) = with(pointer, value.clone());
        assert!(found == at && message.contains(says), "{value}: {found} {message}");
    }
    let mut twice = section();
    twice["rules"] = json!([twice["rules"][0], twice["rules"][0]]);
    assert_eq!(problems(twice)[0].pointer, "/rules/1/id");
    for (key, value) in [("max_runs", json!(0)), ("limits", json!({"memory": "1MiB"}))] {
        let mut section = section();
        section[key] = value;
        assert_eq!(problems(section).len(), 1, "{key}");
    }
}

#[test]
fn a_rule_is_for_the_incidents_that_it_says_and_no_others() {
    let rules = rules(section());
    let labels = [("service", "checkout.service")];
    let good = incident("checkout", Severity::Critical, &labels);
    let wanted = rules.wanted(&opened(&good));
    assert_eq!(wanted.len(), 1);
    assert_eq!((wanted[0].rule.as_str(), wanted[0].action.as_str()), ("restart-service", "restart-service"));
    assert_eq!(wanted[0].params.as_ref().unwrap()["service"], "checkout.service");
    assert!(wanted[0].reasoning.contains("critical incident of checkout"));
    for other in [incident("payments", Severity::Critical, &labels), incident("checkout", Severity::Warning, &labels)] {
        assert_eq!(rules.wanted(&opened(&other)), []);
    }
    // it became worse: the same proposal, so that it is made once
    let mut worse = Event::IncidentUpdated { incident: Box::new(good.clone()), changes: vec![TimelineKind::SeverityRaised] };
    assert_eq!(rules.wanted(&worse), wanted);
    worse = Event::IncidentUpdated { incident: Box::new(good.clone()), changes: vec![TimelineKind::AlertJoined] };
    assert_eq!(rules.wanted(&worse), []);
    let over = Incident { status: IncidentStatus::Resolved, ..good };
    assert_eq!(rules.wanted(&opened(&over)), []);
}

#[test]
fn labels_and_rules_can_be_conditions_and_a_missing_label_is_told() {
    let mut section = section();
    section["rules"][0]["match"] = json!({"rule": ["payments", "other"], "labels": {"region": ["eu-1", "eu-2"], "tier": "gold"}});
    let rules = rules(section);
    let wanted = |labels: &[(&str, &str)]| rules.wanted(&opened(&incident("s", Severity::Info, labels)));
    assert_eq!(wanted(&[("region", "eu-1")]), []);
    assert_eq!(wanted(&[("region", "us-1"), ("tier", "gold")]), []);
    assert_eq!(wanted(&[("region", "eu-2"), ("tier", "gold")])[0].params, Err(vec!["service".to_owned()]));
}

#[test]
fn the_names_of_proposals_differ_by_incident_and_rule() {
    let mut section = section();
    let mut second = section["rules"][0].clone();
    second["id"] = json!("again");
    section["rules"].as_array_mut().unwrap().push(second);
    let rules = rules(section);
    let ids = |source: &str| -> Vec<String> {
        let mut incident = incident("checkout", Severity::Critical, &[("service", "a")]);
        incident.id = IncidentId::derived(&[source]);
        rules.wanted(&opened(&incident)).into_iter().map(|wanted| wanted.id.to_string()).collect()
    };
    let (first, other) = (ids("a"), ids("b"));
    assert!(first.len() == 2 && first[0] != first[1] && first[0] != other[0]);
    assert_eq!(first, ids("a"));
}

/// What an attacker may put into a label, so that a rule fills a parameter with it.
#[test]
fn e5_a_hostile_label_is_refused_or_stands_in_its_argument_as_it_is() {
    let mut section = section();
    section["actions"] = json!([{
        "id": "restart-service", "title": "x", "risk": "read", "argv": ["/usr/bin/printf", "--", "[%s]", "{service}"],
        "params": {"service": {"type": "text", "pattern": "(?s).*"}},
    }]);
    let config: SafeConfig = serde_json::from_value(section.clone()).unwrap();
    let catalogue = Catalogue::new(config.actions).unwrap();
    let rules = rules(section);
    let long = "x".repeat(1 << 20);
    let hostile = [
        ("--config=/x", false),
        ("-o", false),
        (";id", true),
        ("$(id)", true),
        ("`id`", true),
        ("a\nb", false),
        ("a\0b", false),
        ("\u{2010}o", true),
        (&long, false),
        ("", false),
        ("*", true),
        ("../../etc/passwd", true),
        ("a b", true),
        ("\u{202e}x", false),
        ("$labels.service", true),
        ("{service}", true),
        ("%s%n", true),
    ];
    for (value, taken) in hostile {
        let wanted = rules.wanted(&opened(&incident("checkout", Severity::Critical, &[("service", value)])));
        let params: &BTreeMap<String, Value> = wanted[0].params.as_ref().unwrap();
        let facts = Facts { files: [("/usr/bin/printf".to_owned(), Ok(String::new()))].into(), ..Facts::default() };
        match render(catalogue.get("restart-service").unwrap(), params, &Policy::default(), &facts) {
            Ok(rendered) => {
                assert!(taken, "{value:?} is taken");
                assert_eq!(rendered.plan.argv, ["/usr/bin/printf", "--", "[%s]", value]);
            }
            Err(error) => assert!(!taken, "{value:?}: {error}"),
        }
    }
}
