//! The recorded outage: the archive fails, the database's disk fills up, payments lose their connections, checkout fails, the
//! gateway answers 502. A deploy of inventory a minute before has nothing to do with it.

use std::time::Duration;

use opspilot_kernel::{explanation::ClaimKind, signal::Severity};
use serde_json::Value;

use super::{
    super::{config::Runbook, memory::Offered, verify},
    Known, Owned, explained,
};

pub(super) fn recording() -> Vec<Owned> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/demo/outage.ndjson")).unwrap();
    text.lines()
        .map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            Owned {
                at: text("timestamp").parse().unwrap(),
                source: text("source"),
                message: text("message"),
                name: text("name"),
                value: event["value"].as_f64(),
                severity: event["severity"].as_str().map_or(Severity::Info, |severity| severity.parse().unwrap()),
            }
        })
        .collect()
}

/// The incidents of the demo: the rule, and what it begins with.
fn stories(signals: &[Owned]) -> Vec<(&'static str, usize)> {
    let line = |text: &str| signals.iter().position(|signal| signal.message.contains(text)).unwrap();
    let metric = |name: &str, above: f64| signals.iter().position(|signal| signal.name == name && signal.value.unwrap() > above).unwrap();
    vec![
        ("payment-failed", line("payment failed for order")),
        ("database-unreachable", line("could not get a connection to")),
        ("database-cannot-write", line("No space left on device")),
        ("gateway-errors", metric("http_error_percent", 20.0)),
        ("disk-filling-up", metric("disk_used_percent", 92.0)),
    ]
}

#[test]
fn p17_the_root_cause_of_the_demos_outage_is_named_first_and_the_red_herring_is_not() {
    let signals = recording();
    for (rule, first) in stories(&signals) {
        for seconds in [1, 5, 20, 60, 120, 160, 400] {
            let now = signals[first].at.after(Duration::from_secs(seconds));
            let (explained, _) = explained(&signals, rule, first, now, &Known::default());
            let causes: Vec<(&str, f64)> =
                explained.explanation.causes.iter().map(|cause| (cause.component.as_str(), cause.share)).collect();
            assert_eq!(causes.first().map(|(component, _)| *component), Some("db"), "{rule} after {seconds} s: {causes:?}");
            assert!(causes[0].1 >= 0.4, "{rule} after {seconds} s: {causes:?}");
            let herring = causes.iter().find(|(component, _)| *component == "inventory").map_or(0.0, |(_, share)| *share);
            assert!(herring < 0.1, "{rule} after {seconds} s: {causes:?}");
            assert_eq!(explained.dropped, 0, "{rule} after {seconds} s: {:#?}", explained.explanation);
            assert!(explained.explanation.summary.contains("Likely cause: db"), "{}", explained.explanation.summary);
            assert!(explained.explanation.confidence >= 0.3, "{rule} after {seconds} s: {}", explained.explanation.confidence);
        }
    }
}

#[test]
fn the_explanation_of_the_demos_outage_says_what_since_when_how_much_and_what_else() {
    let signals = recording();
    let (rule, first) = stories(&signals)[0];
    let now = signals[first].at.after(Duration::from_secs(100));
    let known = Known {
        runbooks: vec![
            Runbook {
                id: "rb-disk".to_owned(),
                title: "Free the database's disk".to_owned(),
                keywords: vec!["no space left".to_owned(), "disk".to_owned()],
                steps: vec!["Mount the archive volume again".to_owned()],
            },
            Runbook {
                id: "rb-cache".to_owned(),
                title: "Warm the cache".to_owned(),
                keywords: vec!["cache is cold".to_owned()],
                steps: vec![],
            },
        ],
        actions: vec![
            Offered { id: "mount-archive".to_owned(), title: "Mount the archive volume of the db".to_owned(), ..Offered::default() },
            Offered { id: "rollback-inventory".to_owned(), title: "Roll inventory back".to_owned(), ..Offered::default() },
        ],
        ..Known::default()
    };
    let (explained, evidence) = explained(&signals, rule, first, now, &known);
    let explanation = &explained.explanation;
    println!("{explanation:#?}");
    let said = |text: &str| explanation.claims.iter().any(|claim| claim.text.contains(text));
    for text in [
        "payment-failed fires on checkout since 09:25:",
        "archive command failed",
        "No space left on device",
        "disk_used_percent of db left its usual range",
        "payments names db",
        "checkout names payments",
        "lines tell of trouble",
        "inventory changed too",
    ] {
        assert!(said(text), "{text}: {:#?}", explanation.claims);
    }
    assert!(explanation.claims.iter().any(|claim| claim.kind == ClaimKind::Inferred));
    assert_eq!(explanation.runbooks.iter().map(|runbook| runbook.id.as_str()).collect::<Vec<_>>(), ["rb-disk"]);
    assert!(explanation.runbooks[0].why.contains("“no space left” stands in"), "{}", explanation.runbooks[0].why);
    assert_eq!(explanation.suggested_actions.iter().map(|action| action.action.as_str()).collect::<Vec<_>>(), ["mount-archive"]);
    assert_eq!(explanation.next_steps[0], "Free the database's disk: Mount the archive volume again");
    assert!(explanation.causes[0].text.contains("before payment-failed fired"), "{}", explanation.causes[0].text);
    assert!(!explanation.degraded);
    assert!(evidence.len() < 80, "{}", evidence.len());
    // and it is proved from what a stranger has
    let mut again = explanation.clone();
    assert_eq!(verify::prove(&mut again, &evidence), 0);
    assert_eq!(&again, explanation);
}

#[test]
fn the_same_evidence_in_any_order_gives_the_same_words() {
    let signals = recording();
    let (rule, first) = stories(&signals)[0];
    let now = signals[first].at.after(Duration::from_secs(100));
    let (forward, _) = explained(&signals, rule, first, now, &Known::default());
    let mut turned = signals.clone();
    turned.reverse();
    let (backward, _) = explained(&turned, rule, turned.len() - 1 - first, now, &Known::default());
    let plain = |explained: &super::Explained| {
        (
            explained.explanation.summary.clone(),
            explained.explanation.causes.iter().map(|c| (c.component.clone(), c.share)).collect::<Vec<_>>(),
            explained.explanation.claims.len(),
        )
    };
    assert_eq!(plain(&forward), plain(&backward));
}
