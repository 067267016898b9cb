//! `opspilot replay` and `opspilot eval`, as somebody runs them.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::SystemTime,
};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::common::{Home, command};

const RULES: &str = r"
modules:
  connector.metrics: { enabled: false }
  detector.anomaly: { enabled: false }
  detector.logTemplate: { enabled: false }
  detector.regex:
    rules:
      - { id: failed, pattern: 'payment failed', severity: error, resolve_after: 5m }
  detector.threshold:
    rules:
      - { id: busy, metric: cpu, op: gt, value: 90, for: 0s, window: 5m }
";

struct Desk(TempDir);

impl Desk {
    fn new() -> Desk {
        let desk = Desk(tempfile::tempdir().unwrap());
        // modules that this build does not have must not be named
        desk.write("rules.yaml", known(RULES).as_bytes());
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        command().args(args).current_dir(self.0.path()).output().unwrap()
    }

    fn replay(&self, args: &[&str]) -> Output {
        self.run(&[&["replay", "--config", "rules.yaml"], args].concat())
    }

    fn json(&self, args: &[&str]) -> Json {
        let output = self.replay(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// The configuration without the sections of modules that this build does not have.
fn known(config: &str) -> String {
    let schema = command().arg("config-schema").output().unwrap();
    let schema = String::from_utf8(schema.stdout).unwrap();
    let absent = |line: &&str| {
        ["detector.anomaly", "detector.logTemplate"].iter().any(|id| line.contains(id) && !schema.contains(&format!("\"{id}\"")))
    };
    config.lines().filter(|line| !absent(line)).collect::<Vec<_>>().join("\n")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn fired(json: &Json) -> Vec<String> {
    let text = |alert: &Json, key: &str| alert[key].as_str().unwrap_or("-").to_owned();
    let line =
        |alert: &Json| format!("{} {} {} {}", text(alert, "fired_at"), text(alert, "rule"), text(alert, "source"), text(alert, "over_at"));
    json["alerts"].as_array().unwrap().iter().map(line).collect()
}

fn at(minute: u32, second: u32) -> String {
    format!("2026-03-01T10:{minute:02}:{second:02}.000Z")
}

/// Ten minutes of a shop: a line a second, payments that fail from 3:00 to 3:30, a busy processor from 5:00 to 6:00.
fn shop() -> String {
    let mut text = String::new();
    for second in 0..600 {
        let time = at(second / 60, second % 60);
        let message = if (180..210).contains(&second) { "payment failed for order 7" } else { "order taken" };
        text.push_str(&json!({ "source": "shop", "timestamp": time, "message": message }).to_string());
        text.push('\n');
        let value = if (300..360).contains(&second) { 97.5 } else { 20.0 };
        text.push_str(&json!({ "source": "host", "timestamp": time, "name": "cpu", "value": value }).to_string());
        text.push('\n');
    }
    text
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_recording_tells_what_would_have_fired_and_which_incidents_it_would_have_made() {
    let desk = Desk::new();
    desk.write("shop.ndjson", shop().as_bytes());
    let json = desk.json(&["shop.ndjson"]);
    let alerts = fired(&json);
    assert_eq!(alerts.len(), 2, "{alerts:#?}");
    assert_eq!(alerts[0], format!("{} failed shop {}", at(3, 0), at(8, 29)), "the last match was at 3:29");
    assert!(alerts[1].starts_with(&format!("{} busy host {}", at(5, 0), &at(6, 0)[..14])), "{}", alerts[1]);
    assert_eq!(json["recording"]["signals"], 1200);
    assert_eq!((json["recording"]["from"].as_str(), json["recording"]["to"].as_str()), (Some(at(0, 0).as_str()), Some(at(9, 59).as_str())));
    let incidents = json["incidents"].as_array().unwrap();
    assert_eq!(incidents.len(), 2);
    assert_eq!(
        (incidents[0]["opened_at"].as_str(), incidents[0]["resolved_at"].as_str()),
        (Some(at(3, 0).as_str()), Some(at(8, 29).as_str()))
    );
    assert_eq!(json["alerts"][0]["count"], 30);

    let table = desk.replay(&["shop.ndjson"]);
    let text = said(&table);
    assert_eq!(table.status.code(), Some(0), "{text}");
    for wanted in ["FIRED AT", "2026-03-01 10:03:00Z  error     failed", "5m 29s", "1,200 signals in 9m 59s", "2 alerts, 2 incidents"] {
        assert!(text.contains(wanted), "{wanted:?} in\n{text}");
    }
}

#[test]
fn the_same_recording_gives_the_same_bytes_however_it_is_packed() {
    let desk = Desk::new();
    desk.write("shop.ndjson", shop().as_bytes());
    let first = desk.replay(&["shop.ndjson", "--json"]).stdout;
    assert_eq!(first, desk.replay(&["shop.ndjson", "--json"]).stdout);
    desk.write("packed/shop.ndjson.gz", &gzip(shop().as_bytes()));
    let events: Vec<&str> = std::str::from_utf8(shop().as_bytes()).unwrap().lines().map(str::to_owned).map(|line| &*line.leak()).collect();
    desk.write("array.json", format!("[{}]", events.join(",")).as_bytes());
    let whole: Json = serde_json::from_slice(&first).unwrap();
    for file in ["packed/shop.ndjson.gz", "array.json"] {
        let other = desk.json(&[file]);
        assert_eq!(
            (&other["alerts"], &other["incidents"], &other["rules"]),
            (&whole["alerts"], &whole["incidents"], &whole["rules"]),
            "{file}"
        );
    }
    // two files of which each has every second line, merged by time
    let half =
        |rest: usize| (0..).zip(&events).filter(|(index, _)| index % 2 == rest).map(|(_, line)| format!("{line}\n")).collect::<String>();
    desk.write("logs.ndjson", half(0).as_bytes());
    desk.write("metrics.ndjson", half(1).as_bytes());
    let merged = desk.json(&["logs.ndjson", "metrics.ndjson"]);
    assert_eq!((&merged["alerts"], &merged["recording"]["disorder"]["late"]), (&whole["alerts"], &json!(0)));
    let mut child = command()
        .args(["replay", "--config", "rules.yaml", "--json", "-"])
        .current_dir(desk.0.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(shop().as_bytes()).unwrap();
    let piped: Json = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(piped["alerts"], whole["alerts"]);
}

#[test]
fn a_table_of_numbers_is_a_metric_by_the_name_of_its_file() {
    let desk = Desk::new();
    for (name, heading, time) in [("cpu.csv", "timestamp,value\n", "2026-03-01 10:0{m}:00"), ("cpu.tsv", "", "17723592{m}0")] {
        let rows = (0..9).map(|minute| {
            let value = if (4..7).contains(&minute) { 99.0 } else { 1.0 };
            format!("{},{value}\n", time.replace("{m}", &minute.to_string()))
        });
        desk.write(name, format!("{heading}{}", rows.collect::<String>()).as_bytes());
        let json = desk.json(&[name]);
        assert_eq!(
            (json["recording"]["files"][0]["format"].as_str(), json["recording"]["signals"].as_u64()),
            (Some("csv"), Some(9)),
            "{json}"
        );
        assert_eq!((json["alerts"][0]["rule"].as_str(), json["alerts"][0]["source"].as_str()), (Some("busy"), Some("cpu")), "{json}");
    }
    assert_eq!(
        fired(&desk.json(&["cpu.csv", "--source", "web-1", "--utc-offset", "+02:00"]))[0][..35],
        *"2026-03-01T08:04:00.000Z busy web-1"
    );
    assert_eq!(fired(&desk.json(&["cpu.csv", "--name", "memory"])), Vec::<String>::new());
}

#[test]
fn syslog_files_are_read_over_new_year() {
    let desk = Desk::new();
    let text = "Dec 31 23:59:58 web shop[7]: started\nDec 31 23:59:59 web shop[7]: payment failed for order 1\n  at line 3\n\nJan  1 00:00:03 web shop[7]: payment failed for order 2\n";
    desk.write("messages", text.as_bytes());
    let json = desk.json(&["messages", "--year", "2025", "--after", "1h"]);
    assert_eq!(json["recording"]["files"][0]["format"], "syslog");
    assert_eq!(json["recording"]["files"][0]["unparsed"], 1);
    assert_eq!(fired(&json), ["2025-12-31T23:59:59.000Z failed shop 2026-01-01T00:05:03.000Z"]);
    assert_eq!(json["alerts"][0]["count"], 2);
}

#[test]
fn another_configuration_is_held_against_the_first() {
    let desk = Desk::new();
    desk.write("shop.ndjson", shop().as_bytes());
    desk.write("other.yaml", known(&RULES.replace("value: 90", "value: 10").replace("'payment failed'", "'refund failed'")).as_bytes());
    let output = desk.replay(&["shop.ndjson", "--diff", "other.yaml"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for wanted in [
        "would not have fired, 1 fewer alert",
        "would have fired once, 5m earlier, as many alerts",
        "1 alert instead of 2 (1 fewer), 1 incident instead of 2",
    ] {
        assert!(text.contains(wanted), "{wanted:?} in\n{text}");
    }
    let json = desk.json(&["shop.ndjson", "--diff", "other.yaml"]);
    let rules: BTreeMap<&str, &Json> =
        json["rules"].as_array().unwrap().iter().map(|rule| (rule["rule"].as_str().unwrap(), rule)).collect();
    assert_eq!((&rules["busy"]["first_earlier_ms"], &rules["failed"]["difference"]), (&json!(300_000), &json!(-1)));
    assert_eq!(fired(&json["before"]).len(), 2);
    assert_eq!(json["before"]["alerts"], desk.json(&["shop.ndjson"])["alerts"]);
}

#[test]
fn h6_bad_lines_are_named_and_cost_only_themselves() {
    let desk = Desk::new();
    let mut bytes = Vec::new();
    bytes.extend(b"\n{\"source\":\"a\",\"message\":\"no time yet\"}\n");
    bytes.extend(format!("{{\"source\":\"shop\",\"timestamp\":\"{}\",\"message\":\"payment failed\"}}\n", at(1, 0)).bytes());
    bytes.extend(b"{\"source\":\n\xff\xfe{\n{\"source\":\"a\",\"value\":1}\n{\"source\":\"a\",\"message\":\"without a time\"}\n");
    bytes.extend(format!("{{\"source\":\"a\",\"message\":\"{}\"}}\n", "x".repeat(9 << 20)).bytes());
    bytes.extend(format!("{{\"source\":\"shop\",\"timestamp\":\"{}\",\"message\":\"payment failed\"}}", at(2, 0)).bytes());
    desk.write("odd.ndjson", &bytes);
    let output = desk.replay(&["odd.ndjson", "--json"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
    let file = &json["recording"]["files"][0];
    assert_eq!((&file["bad_lines"], &file["untimed"], &file["signals"]), (&json!(5), &json!(1), &json!(3)), "{file}");
    for wanted in ["line 4: column", "line 5: column 1: not UTF-8", "line 6: name is required", "line 8: longer than 8 MiB"] {
        assert!(text.contains(wanted), "{wanted:?} in\n{text}");
    }
    assert_eq!(json["alerts"][0]["count"], 2);

    desk.write("wrong.ndjson", b"hello\nworld\n");
    let output = desk.replay(&["wrong.ndjson", "--format", "ndjson"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("no line of the input could be read"), "{}", said(&output));
    desk.write("empty.ndjson", b"");
    assert!(said(&desk.replay(&["empty.ndjson"])).contains("no signals"));
}

#[test]
fn odd_numbers_odd_times_and_odd_files_are_survived() {
    let desk = Desk::new();
    let rows = "timestamp,value\n1970-01-01 00:00:01,1\n2026-03-01 10:00:00,99\n2106-02-07 06:28:16,1\n2026-03-01 10:01:00,99\n2026-03-01 10:00:30,98\nnever,1\n2026-03-01 10:02:00,NaN\n2026-03-01 10:02:00,inf\n2026-03-01 10:02:00,1e999\n2026-03-01 10:02:00,\n2026-03-01 10:03:00,1\n";
    desk.write("cpu.csv", rows.as_bytes());
    let json = desk.json(&["cpu.csv"]);
    let recording = &json["recording"];
    assert_eq!((&recording["files"][0]["bad_lines"], &recording["signals"]), (&json!(5), &json!(6)));
    assert_eq!(recording["disorder"], json!({ "late": 1, "latest_ms": 30_000, "ahead": 1 }));
    assert_eq!(recording["to"], "2026-03-01T10:03:00.000Z", "a wrong clock does not move time");
    assert_eq!(json["alerts"][0]["fired_at"], "2026-03-01T10:00:00.000Z");
    let sorted = desk.json(&["cpu.csv", "--sort"]);
    assert_eq!(sorted["recording"]["disorder"]["late"], 0);

    desk.write("utf16.csv", &[0xff, 0xfe, b't', 0]);
    assert!(said(&desk.replay(&["utf16.csv"])).contains("is UTF-16"));
    assert!(said(&desk.replay(&["missing.csv"])).contains("cannot read missing.csv"));
    assert!(said(&desk.replay(&["."])).contains("--data replays a data directory"));
    let whole = gzip(shop().as_bytes());
    desk.write("cut.ndjson.gz", &whole[..whole.len() / 2]);
    let output = desk.replay(&["cut.ndjson.gz", "--json"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    let json: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert!(json["recording"]["signals"].as_u64().unwrap() > 100, "what can be read is replayed");
    assert!(said(&output).contains("the compressed data ends in the middle"));
}

#[test]
fn a_reader_that_goes_away_is_no_mistake() {
    let desk = Desk::new();
    let text: String = (0..5000)
        .map(|n| json!({ "source": format!("s{n}"), "timestamp": at(n / 60 % 60, n % 60), "message": "payment failed" }).to_string() + "\n")
        .collect();
    desk.write("many.ndjson", text.as_bytes());
    let mut child = command()
        .args(["replay", "--config", "rules.yaml", "--limit", "100000", "many.ndjson"])
        .current_dir(desk.0.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = said(&output);
    // on a slow machine it says how long it took
    assert!(output.status.code() == Some(0) && text.lines().all(|line| line.starts_with("replayed ")), "{text}");
}

/// Every file of a folder with its bytes and when it was changed.
fn traces(folder: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(traces(&path));
        } else {
            found.insert(path.clone(), (entry.metadata().unwrap().modified().unwrap(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

#[tokio::test]
async fn the_signals_of_a_service_are_replayed_while_it_runs_and_without_a_trace_when_it_does_not() {
    let home = Home::new(&known(RULES));
    let desk = Desk::new();
    let service = home.start().await;
    service.logs("checkout", &["payment failed for order 6", "all is well"]).await;
    service.incident("").await;
    let data = home.data();
    let args = ["--data", data.to_str().unwrap()];
    let live = desk.json(&args);
    assert_eq!((&live["recording"]["signals"], &live["alerts"][0]["rule"]), (&json!(2), &json!("failed")), "{live}");
    service.stop().await;
    let before = traces(&data);
    let stopped = desk.json(&args);
    assert_eq!(stopped["alerts"], live["alerts"]);
    assert_eq!(traces(&data), before, "nothing is written where it is read");
    desk.write("other.yaml", known(&RULES.replace("payment failed", "all is well")).as_bytes());
    let difference = desk.json(&[&args[..], &["--diff", "other.yaml"]].concat());
    assert_eq!(difference["alerts"], json!({ "before": 1, "after": 1, "difference": 0 }));
    assert_eq!(traces(&data), before);
    let copy = desk.path("copy.db");
    assert!(desk.run(&["backup", copy.to_str().unwrap(), "--data", data.to_str().unwrap()]).status.success());
    let of_backup = desk.json(&["--data", copy.to_str().unwrap()]);
    assert_eq!(of_backup["alerts"], live["alerts"]);
    let none = desk.replay(&["--data", "nowhere"]);
    assert!(none.status.code() == Some(1) && said(&none).contains("cannot be read"), "{}", said(&none));
}

#[test]
fn lines_are_grouped_for_a_scorer_without_a_look_at_the_answers() {
    let desk = Desk::new();
    let rows: String = (1..=40)
        .map(|n| if n % 2 == 0 { format!("{n},\"closed \"\"{n}\"\", after {n} ms\"\n") } else { format!("{n},opened file{n}.txt\n") })
        .collect();
    desk.write("logs/Own/Own_2k.log_structured.csv", format!("LineId,Content\n{rows}").as_bytes());
    let run = |out: &str| {
        let output = desk.run(&["eval", "logs", "--data", "logs", "--out", out]);
        assert!(output.status.success(), "{}", said(&output));
        std::fs::read_to_string(desk.path(out).join("Own.csv")).unwrap()
    };
    let text = run("one");
    assert_eq!((text.lines().next(), text.lines().count()), (Some("LineId,ClusterId"), 41));
    let group = |n: usize| text.lines().nth(n).unwrap().split_once(',').unwrap().1;
    assert!(group(2) == group(40) && group(1) != group(2), "{text}");
    assert_eq!(text, run("two"));
    // the answers beside it change nothing, right or wrong
    let rows: String = rows.lines().map(|row| format!("{row},E1,nonsense\n")).collect();
    desk.write("logs/Own/Own_2k.log_structured.csv", format!("LineId,Content,EventId,EventTemplate\n{rows}").as_bytes());
    desk.write("logs/Own/Own_2k.log_templates.csv", b"EventId,EventTemplate\n");
    assert_eq!(text, run("three"));
    let none = desk.run(&["eval", "logs", "--data", "nowhere", "--out", "four"]);
    assert!(none.status.code() == Some(1) && said(&none).contains("there is no folder nowhere"), "{}", said(&none));
}

#[test]
fn series_are_scored_without_a_look_at_the_answers() {
    let desk = Desk::new();
    let mut text = String::from("timestamp,value\n");
    for n in 0..4000_u32 {
        let wave = f64::from(n % 288) / 288.0 * std::f64::consts::TAU;
        let noise = f64::from(n.wrapping_mul(2_654_435_761) >> 20) / 4096.0;
        let value = if (3500..3510).contains(&n) { 500.0 } else { 20.0 + 5.0 * wave.sin() + noise };
        let minutes = n * 5;
        text.push_str(&format!("2026-03-{:02} {:02}:{:02}:00,{value}\n", 1 + minutes / 1440, minutes / 60 % 24, minutes % 60));
    }
    desk.write("nab/data/own/series.csv", text.as_bytes());
    let run = |out: &str| desk.run(&["eval", "anomaly", "--data", "nab", "--out", out]);
    let first = run("one");
    assert!(first.status.success(), "{}", said(&first));
    let scored = |out: &str| std::fs::read_to_string(desk.path(out).join("own/series.csv")).unwrap();
    let rows: Vec<String> = scored("one").lines().map(str::to_owned).collect();
    assert_eq!((rows.len(), rows[0].as_str()), (4001, "timestamp,anomaly_score"));
    assert_eq!(rows[1].split(',').next(), text.lines().nth(1).unwrap().split(',').next());
    let alarms: Vec<usize> = (0..).zip(&rows[1..]).filter(|(_, row)| row.ends_with(",1")).map(|(n, _)| n).collect();
    assert!(alarms.iter().any(|n| (3500..3510).contains(n)) && alarms.len() < 20, "{alarms:?}");
    desk.write("nab/windows.json", br#"{"own/series.csv":[["2026-03-01 00:00:00","2026-03-14 00:00:00"]]}"#);
    assert!(run("two").status.success());
    assert_eq!(scored("one"), scored("two"));
    for (data, out) in [(".", "around"), ("nab/data", "inside")] {
        assert!(desk.run(&["eval", "anomaly", "--data", data, "--out", out]).status.success(), "found from {data}");
        assert_eq!(scored("one"), scored(out));
    }
    // what came later changes nothing about what came before
    let half: String = text.lines().take(2001).map(|line| format!("{line}\n")).collect();
    desk.write("nab/data/own/series.csv", half.as_bytes());
    assert!(run("three").status.success());
    assert_eq!(scored("three").lines().collect::<Vec<_>>(), rows[..2001]);
}
