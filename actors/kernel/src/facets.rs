//! What matchers see of an alert: its labels, and behind them what else is known of it.
//!
//! | name | value |
//! |---|---|
//! | `alertname`, `name` | the rule, or the outside alert's name |
//! | `source` | who observed it |
//! | `severity` | `debug`, `info`, `warning`, `error` or `critical`: the worst so far |
//! | `detected_by` | the module that claims it |
//! | `fingerprint` | 16 hex digits, the same for every episode |
//!
//! A label that the alert really has, and that is not empty, goes before the one of the same name here.

use std::{borrow::Cow, collections::BTreeMap};

use crate::{
    alert::{Alert, AlertRecord},
    fingerprint::Fingerprint,
    matcher::Matcher,
    signal::Severity,
};

/// An alert, as matchers see it.
#[derive(Debug, Clone, Copy)]
pub struct Facets<'a> {
    /// Its own labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The rule, or the outside alert's name.
    pub name: &'a str,
    /// Who observed it.
    pub source: &'a str,
    /// How bad it is.
    pub severity: Severity,
    /// The module that claims it.
    pub detected_by: &'a str,
    /// Identity of the condition.
    pub fingerprint: Fingerprint,
}

impl<'a> From<&'a Alert> for Facets<'a> {
    fn from(alert: &'a Alert) -> Facets<'a> {
        Facets {
            labels: &alert.labels,
            name: &alert.name,
            source: &alert.source,
            severity: alert.severity,
            detected_by: &alert.detected_by,
            fingerprint: alert.fingerprint,
        }
    }
}

impl<'a> From<&'a AlertRecord> for Facets<'a> {
    fn from(record: &'a AlertRecord) -> Facets<'a> {
        Facets {
            labels: &record.labels,
            name: &record.rule,
            source: &record.source,
            severity: record.severity,
            detected_by: &record.detected_by,
            fingerprint: record.fingerprint,
        }
    }
}

impl<'a> Facets<'a> {
    /// The value under this name; empty where there is none.
    pub fn value(&self, name: &str) -> Cow<'a, str> {
        if let Some(value) = self.labels.get(name).filter(|value| !value.is_empty()) {
            return Cow::Borrowed(value);
        }
        match name {
            "alertname" | "name" => Cow::Borrowed(self.name),
            "source" => Cow::Borrowed(self.source),
            "severity" => Cow::Borrowed(self.severity.as_str()),
            "detected_by" => Cow::Borrowed(self.detected_by),
            "fingerprint" => Cow::Owned(self.fingerprint.to_string()),
            _ => Cow::Borrowed(""),
        }
    }

    /// Whether all of `matchers` hold.
    pub fn match_all(&self, matchers: &[Matcher]) -> bool {
        matchers.iter().all(|matcher| matcher.holds(&self.value(matcher.name())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_go_before_what_else_is_known_and_what_is_missing_is_empty() {
        let labels = BTreeMap::from([
            ("severity".to_owned(), "page".to_owned()),
            ("source".to_owned(), String::new()),
            ("host".to_owned(), "h1".to_owned()),
        ]);
        let facets = Facets {
            labels: &labels,
            name: "disk-full",
            source: "shop",
            severity: Severity::Critical,
            detected_by: "detector.alert",
            fingerprint: Fingerprint::from_u64(0xabc),
        };
        for (name, value) in [
            ("host", "h1"),
            ("severity", "page"),
            ("source", "shop"),
            ("alertname", "disk-full"),
            ("name", "disk-full"),
            ("detected_by", "detector.alert"),
            ("fingerprint", "0000000000000abc"),
            ("team", ""),
        ] {
            assert_eq!(facets.value(name), value, "{name}");
        }
        let matchers = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Matcher>>();
        assert!(facets.match_all(&matchers(&["alertname=~disk-.*", "severity=page", "team!=x", "team=\"\""])));
        assert!(!facets.match_all(&matchers(&["alertname=~disk-.*", "severity=critical"])));
    }
}
