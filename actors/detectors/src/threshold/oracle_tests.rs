//! What Prometheus itself says of the same values, where `promtool` is installed.

use std::{fmt::Write as _, process::Command, time::Duration};

use opspilot_kernel::time::Timestamp;

use super::window::{Pushed, Shape, Window};
use crate::testing::{Rng, number};

/// Every quarter of a minute one value, or none.
const STEP: i64 = 15;
/// No value lies at its edge: whether that one counts differs between releases of Prometheus.
const SPAN: u64 = 290;

const FUNCTIONS: [(&str, &str); 13] = [
    ("last", "last_over_time(m[290s])"),
    ("avg", "avg_over_time(m[290s])"),
    ("min", "min_over_time(m[290s])"),
    ("max", "max_over_time(m[290s])"),
    ("sum", "sum_over_time(m[290s])"),
    ("count", "count_over_time(m[290s])"),
    ("rate", "rate(m[290s])"),
    ("increase", "increase(m[290s])"),
    ("delta", "delta(m[290s])"),
    ("p50", "quantile_over_time(0.5, m[290s])"),
    ("p95", "quantile_over_time(0.95, m[290s])"),
    ("p99.9", "quantile_over_time(0.999, m[290s])"),
    ("p100", "quantile_over_time(1, m[290s])"),
];

/// A counter that rarely begins anew and then far from zero, or a gauge; where Prometheus 2 and 3 differ, nothing is asked.
fn series(rng: &mut Rng) -> Vec<Option<i64>> {
    let is_counter = rng.below(2) == 0;
    let mut value = 50_000;
    let mut next = |rng: &mut Rng| {
        value = match (is_counter, rng.below(20)) {
            (true, 0) => 20_000 + i64::try_from(rng.below(1000)).unwrap(),
            (true, _) => value + i64::try_from(rng.below(300)).unwrap(),
            (false, _) => i64::try_from(rng.below(2000)).unwrap() - 1000,
        };
        value
    };
    let mut values: Vec<Option<i64>> = (0..40).map(|_| (rng.below(5) > 0).then(|| next(rng))).collect();
    // the moment of evaluation is that of the newest value
    values.push(Some(next(rng)));
    values
}

#[test]
fn prometheus_says_the_same_of_windows() {
    if Command::new("promtool").arg("--version").output().is_err() {
        assert!(std::env::var_os("OPSPILOT_REQUIRE_TOOLS").is_none(), "promtool is missing");
        return;
    }
    let mut rng = Rng(20_261_122);
    let mut text = String::from("evaluation_interval: 1m\ntests:\n");
    for _ in 0..60 {
        let values = series(&mut rng);
        let written: Vec<String> = values.iter().map(|value| value.map_or("_".to_owned(), |value| value.to_string())).collect();
        let last = (i64::try_from(values.len()).unwrap() - 1) * STEP;
        write!(text, "- interval: 15s\n  input_series:\n  - {{series: m, values: '{}'}}\n  promql_expr_test:\n", written.join(" "))
            .unwrap();
        for (ours, theirs) in FUNCTIONS {
            let shape = Shape { aggregation: ours.parse().unwrap(), span: Duration::from_secs(SPAN), keep: 1000 };
            let mut window = Window::default();
            for (at, value) in (0..).step_by(15).zip(&values) {
                if let Some(value) = value {
                    assert_eq!(window.push(Timestamp::from_millis(at * 1000), number(*value), shape), Pushed::Taken);
                }
            }
            let value = window.aggregate(shape).unwrap();
            let (expr, samples) = (format!("abs({theirs} - ({value})) <= bool 1e-6"), "[{labels: '{}', value: 1}]");
            writeln!(text, "  - {{expr: '{expr}', eval_time: {last}s, exp_samples: {samples}}}").unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("windows.yml");
    std::fs::write(&file, text).unwrap();
    let output = Command::new("promtool").args(["test", "rules"]).arg(&file).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}", said.chars().take(3000).collect::<String>());
}
