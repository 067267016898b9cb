use opspilot_kernel::alert::{AlertRecord, Transition};
use serde_json::json;

use crate::{
    Detect,
    testing::{Owned, Step, log_of, ms, number},
    threshold::{Config, Detector},
};

const MINUTE: i64 = 60_000;

/// A shop's counters as they stand, told every minute.
struct Shop {
    detector: Detector,
    minute: i64,
    total: f64,
    errors: f64,
    said: Vec<AlertRecord>,
}

impl Shop {
    fn new(slo: serde_json::Value) -> Shop {
        let config: Config = serde_json::from_value(json!({ "builtin_rules": false, "slos": [slo] })).unwrap();
        assert_eq!(opspilot_kernel::config::ModuleConfig::validate(&config), []);
        Shop { detector: Detector::new(config), minute: 0, total: 5_000_000.0, errors: 700.0, said: Vec::new() }
    }

    fn feed(&mut self, steps: &[Step]) {
        let detector = &mut self.detector;
        log_of(steps, |_| true).iter().for_each(|entry| detector.consume(entry, &mut self.said));
    }

    /// So many minutes with so many events and errors each; the errors are told by a series of their own.
    fn run(&mut self, minutes: i64, events: f64, errors: f64) {
        for _ in 0..minutes {
            let at = self.minute * MINUTE;
            self.feed(&[
                Step::metric(at, "web-1", "requests_total", self.total),
                Step::metric(at, "web-1", "good_total", self.total - self.errors),
                Step::metric(at, "web-1", "failed_total", self.errors),
                Step::metric(at, "web-1", "error_ratio", if events > 0.0 { errors / events } else { 0.0 }),
            ]);
            self.minute += 1;
            self.total += events;
            self.errors += errors;
        }
    }

    /// What was said, with the minute since `from` at which it was: `+` fires, `-` is over.
    fn said(&self, from: i64) -> Vec<String> {
        let line = |record: &AlertRecord| {
            let sign = match record.transition {
                Transition::Firing => "+",
                Transition::Repeat => return None,
                Transition::Resolved => "-",
            };
            Some(format!("{sign}{} {}", (record.logged_at.millis() - ms(0).millis()) / MINUTE - from, record.severity))
        };
        self.said.iter().filter_map(line).collect()
    }
}

fn by_errors() -> serde_json::Value {
    json!({ "id": "checkout", "errors": "failed_total", "total": "requests_total", "objective": 99.9 })
}

#[test]
fn a_total_outage_pages_in_its_first_minute_and_everything_ends_with_its_short_window() {
    for slo in [
        by_errors(),
        json!({ "id": "checkout", "good": "good_total", "total": "requests_total", "objective": 99.9 }),
        json!({ "id": "checkout", "ratio": "error_ratio", "objective": 99.9 }),
    ] {
        let is_ratio = slo.get("ratio").is_some();
        let mut shop = Shop::new(slo);
        shop.run(180, 600.0, 0.0);
        // what is told at a minute happened in the one before, by a counter; a ratio is told at once
        let from = shop.minute - i64::from(is_ratio);
        shop.run(10, 600.0, 600.0);
        shop.run(400, 600.0, 0.0);
        // 1h: 1 min of 60 is 1.67 % of errors, 16.7 times 0.1 %, and 5m even more; 3d: after 5 min of 4,320 (4 are 0.926 times);
        // the page also stands on 6h and 30m, so it ends 30 minutes after the outage; the ticket 6 hours after it
        assert_eq!(shop.said(from), ["+1 critical", "+5 warning", "-40 critical", "-370 warning"]);
        assert_eq!(shop.said[0].title, "checkout: the error budget burns 16.67 times too fast over 1h and 200 times over 5m (limit 14.4)");
    }
}

#[test]
fn a_page_says_what_is_spent_and_how_long_the_rest_lasts() {
    let mut shop = Shop::new(by_errors());
    shop.run(180, 600.0, 0.0);
    shop.run(2, 600.0, 600.0);
    // one minute of 43,200 is 2.31 % of a budget of 0.1 %; the rest of 30 days at 200 times the rate lasts 3.52 hours
    let expected = "1.67 % of 36000 events within 1h are errors, at an objective of 99.9 %; 2.31 % of the budget of 30d is spent, \
                    and at the rate of the last 5m the rest lasts 3h 31m";
    assert_eq!(shop.said[0].description, expected);
    assert_eq!(shop.said[0].labels["windows"], "1h/5m,6h/30m");
    assert_eq!((shop.said[0].rule.as_str(), shop.said[0].evidence.len()), ("checkout", 2));
}

#[test]
fn two_percent_of_the_budget_in_an_hour_page_and_a_trace_less_does_not() {
    // 14.4 times for an hour are 2 % of 30 days. At 15 times 58 minutes show more than 14.4 within the hour, 57 do not
    let mut shop = Shop::new(by_errors());
    shop.run(300, 10_000.0, 0.0);
    let from = shop.minute;
    shop.run(60, 10_000.0, 150.0);
    assert_eq!(shop.said(from), ["+58 critical"]);
    assert!(shop.said[0].description.contains("; 2.01 % of the budget of 30d is spent"), "{}", shop.said[0].description);
    let mut shop = Shop::new(by_errors());
    shop.run(300, 10_000.0, 0.0);
    // exactly 14.4 times is not more than that, and 6h see it only after two and a half hours
    let from = shop.minute;
    shop.run(160, 10_000.0, 144.0);
    assert_eq!(shop.said(from), ["+151 critical"]);
    assert!(shop.said[0].title.contains("6.04 times too fast over 6h"), "{}", shop.said[0].title);
}

#[test]
fn five_percent_of_the_budget_in_six_hours_page() {
    // at 7 times the rate: 7 × m / 360 > 6 from minute 309 on; 7 × 309 / 43,200 are 5.01 % of the budget
    let mut shop = Shop::new(by_errors());
    shop.run(400, 10_000.0, 0.0);
    let from = shop.minute;
    shop.run(320, 10_000.0, 70.0);
    assert_eq!(shop.said(from), ["+309 critical"]);
    assert!(shop.said[0].description.contains("; 5.01 % of the budget of 30d is spent"), "{}", shop.said[0].description);
}

#[test]
fn ten_percent_of_the_budget_in_three_days_are_a_ticket() {
    // at 1.1 times the rate: 1.1 × m / 4,320 > 1 from minute 3,928 on, also when nothing is known from before
    let mut shop = Shop::new(by_errors());
    shop.run(3_940, 10_000.0, 11.0);
    assert_eq!(shop.said(0), ["+3928 warning"]);
    assert!(shop.said[0].description.contains("; 10 % of the budget of 30d is spent"), "{}", shop.said[0].description);
    // exactly at the rate that spends the budget in its time nothing is wrong
    let mut shop = Shop::new(by_errors());
    shop.run(4_400, 10_000.0, 10.0);
    assert_eq!(shop.said(0), Vec::<String>::new());
}

#[test]
fn counters_that_begin_anew_and_series_that_come_and_go_are_added_up() {
    let slo = json!({ "id": "api", "objective": 99, "match": ["env=prod"],
        "errors": { "metric": "http_requests_total", "match": ["code=~\"5..\""] }, "total": "http_requests_total" });
    let mut shop = Shop::new(slo);
    let requests = |at: i64, pod: &str, code: &str, env: &str, value: f64| {
        Step::Signal(ms(at), Owned::metric(ms(at), pod, "http_requests_total", value).label("code", code).label("env", env))
    };
    for minute in 0..61_i64 {
        let at = minute * MINUTE;
        // the first pod is restarted after half an hour; both give 100 a minute, of which 20 fail in the last minute
        let count = |each: f64| if minute < 30 { 1e6 + number(minute) * each } else { number(minute - 29) * each };
        let failed = if minute == 60 { 20.0 } else { 0.0 };
        shop.feed(&[
            requests(at, "pod-1", "200", "prod", count(100.0) - failed),
            requests(at, "pod-1", "500", "prod", failed),
            requests(at, "pod-2", "200", "prod", 7.0 + number(minute) * 100.0),
            requests(at, "pod-3", "500", "test", number(minute * 1000)),
        ]);
    }
    assert_eq!(shop.said(0), Vec::<String>::new(), "20 of 12,000 burn at 0.17");
    let objective = shop.detector.objective(0);
    let [errors, total] = objective.minutes.sum(objective.minutes.bucket(ms(60 * MINUTE)), 60);
    assert!((errors - 20.0).abs() < 1e-6 && (total - 12_000.0).abs() < 1e-6, "{errors} of {total}");
}

#[test]
fn late_and_repeated_values_count_where_they_belong_or_not_at_all() {
    let mut shop = Shop::new(by_errors());
    let at = |received: i64, at: i64, value: f64| Step::Signal(ms(received), Owned::metric(ms(at), "a", "requests_total", value));
    shop.feed(&[at(0, 0, 100.0), at(120_000, 120_000, 300.0), at(121_000, 60_000, 150.0), at(122_000, 120_000, 200.0)]);
    let sum = |shop: &Shop, minute: i64| {
        let ring = &shop.detector.objective(0).minutes;
        ring.sum(ring.bucket(ms(minute * MINUTE)), 1)[1]
    };
    // 100 in two minutes, by the value that came last; the one between them came too late for its own series
    assert_eq!((sum(&shop, 1), sum(&shop, 2), shop.detector.counts().ignored), (50.0, 50.0, 1));
    // another series that is late by this one's time counts where it belongs
    let other = |at: i64, value: f64| Step::Signal(ms(130_000), Owned::metric(ms(at), "b", "requests_total", value));
    shop.feed(&[other(0, 0.0), other(60_000, 7.0)]);
    assert_eq!((sum(&shop, 1), sum(&shop, 2)), (57.0, 50.0));
    // after more than an hour nobody knows when it grew
    shop.feed(&[at(130_000 + 3_600_000, 130_000 + 3_600_000, 9_000.0)]);
    assert_eq!(sum(&shop, 40), 0.0);
}

#[test]
fn few_events_page_nobody() {
    // the workbook's example: ten requests an hour, one of which fails, burn at a hundred times
    let run = |least: serde_json::Value| {
        let mut slo = by_errors();
        slo["min_events"] = least;
        let mut shop = Shop::new(slo);
        for n in 0..120 {
            shop.run(1, if n % 6 == 0 { 1.0 } else { 0.0 }, if n == 90 { 1.0 } else { 0.0 });
        }
        shop.said(91)
    };
    assert_eq!(run(serde_json::Value::Null), Vec::<String>::new());
    // and one of 16 within an hour and a half: 62.5 times, of which 91 of 4,320 minutes are known, is more than once
    assert_eq!(run(json!(10)), ["+0 critical", "+0 warning"]);
}

#[test]
fn an_alert_of_counters_that_fall_silent_is_over_after_a_while_by_ticks_alone() {
    let mut shop = Shop::new(by_errors());
    shop.run(120, 600.0, 0.0);
    shop.run(3, 600.0, 600.0);
    let last = (shop.minute - 1) * MINUTE;
    assert_eq!(shop.detector.next_due(), Some(ms(last + 15 * MINUTE)));
    shop.feed(&[Step::tick(last + 15 * MINUTE - 1), Step::tick(last + 15 * MINUTE)]);
    assert_eq!(shop.said(120), ["+1 critical", "+17 critical"].map(|line| line.replace("+17", "-17")));
    assert_eq!(shop.detector.next_due(), None);
}

#[test]
fn while_it_fires_news_come_every_five_minutes() {
    let mut shop = Shop::new(by_errors());
    shop.run(120, 600.0, 0.0);
    shop.run(13, 600.0, 600.0);
    let repeats = shop.said.iter().filter(|record| record.transition == Transition::Repeat && record.rule == "checkout");
    let repeats: Vec<_> = repeats.filter(|record| record.severity == opspilot_kernel::signal::Severity::Critical).collect();
    assert_eq!(repeats.iter().map(|record| record.count).collect::<Vec<_>>(), [5, 5]);
    assert!(repeats[1].description.contains("of the budget of 30d is spent"));
}

#[test]
fn an_objective_that_is_changed_ends_its_alerts_and_begins_anew() {
    let mut shop = Shop::new(by_errors());
    shop.run(120, 600.0, 0.0);
    shop.run(3, 600.0, 600.0);
    let mut other = by_errors();
    other["objective"] = json!(99.0);
    let mut after = Shop::new(other);
    for change in shop.detector.changed() {
        after.detector.restore(&change.key, &change.body.unwrap()).unwrap();
    }
    after.feed(&[Step::tick(124 * MINUTE)]);
    assert_eq!(after.said(120), ["-4 critical"]);
    let changes = after.detector.changed();
    assert!(!changes.is_empty() && changes.iter().all(|change| change.body.is_none()), "what was stored of the other is gone");
}

#[test]
fn only_what_changed_is_stored_and_the_whole_is_bounded() {
    let mut shop = Shop::new(by_errors());
    shop.run(300, 600.0, 1.0);
    let bytes = |shop: &mut Shop| {
        shop.detector.changed().iter().map(|change| change.key.len() + change.body.as_ref().map_or(0, Vec::len)).sum::<usize>()
    };
    bytes(&mut shop);
    shop.run(1, 600.0, 1.0);
    let one = bytes(&mut shop);
    assert!(one < 2_500, "{one} bytes for a minute");
    shop.run(5_000, 600.0, 1.0);
    shop.detector.touch();
    let all = bytes(&mut shop);
    assert!(all < 110_000, "{all} bytes in all");
}
