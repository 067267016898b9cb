#![allow(clippy::as_conversions, reason = "tests")]

use opspilot_kernel::{
    signal::{AlertState, Severity, SignalKind, SignalRef},
    time::Timestamp,
};
use proptest::prelude::*;

use super::{Format, Malformed, Parsed, parse, reference};

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn read(body: impl AsRef<[u8]>, format: Format) -> (Result<Parsed, Malformed>, Vec<reference::Signal>) {
    let mut signals = Vec::new();
    let parsed = parse(body.as_ref(), format, now(), &mut |signal| signals.push(owned(signal)));
    (parsed, signals)
}

fn owned(signal: &SignalRef<'_>) -> reference::Signal {
    let texts = [signal.source, signal.message, signal.name, signal.unit, signal.fingerprint, signal.title, signal.description, signal.id];
    reference::Signal {
        kind: signal.kind,
        severity: signal.severity,
        resolved: signal.state == AlertState::Resolved,
        at: signal.at,
        value: signal.value,
        texts: reference::TEXTS.into_iter().zip(texts.map(str::to_owned)).collect(),
        labels: signal.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

/// What one event is refused for: code, pointer, detail.
fn refusal(event: &str) -> (String, String, String) {
    let (parsed, signals) = read(event, Format::Json);
    assert_eq!(signals, vec![], "{event}");
    match parsed {
        Err(malformed) => (malformed.code.to_owned(), "-".to_owned(), malformed.detail),
        Ok(parsed) => {
            assert_eq!((parsed.events, parsed.accepted, parsed.rejected.total), (1, 0, 1), "{event}");
            let rejected = parsed.rejected.named.into_iter().next().unwrap();
            (rejected.code.to_owned(), rejected.pointer, rejected.detail)
        }
    }
}

#[test]
fn a_log_needs_only_source_and_message() {
    let (parsed, signals) = read(r#"{"source":"a","message":"m"}"#, Format::Json);
    assert_eq!(parsed.unwrap().accepted, 1);
    let [signal] = &signals[..] else { panic!("one signal: {signals:?}") };
    assert_eq!((signal.kind, signal.severity, signal.at, signal.value), (SignalKind::Log, Severity::Info, now(), None));
    assert_eq!((signal.texts["source"].as_str(), signal.texts["message"].as_str()), ("a", "m"));
}

#[test]
fn a_value_makes_it_a_metric_unless_it_says_otherwise() {
    for (event, kind) in [
        (r#"{"source":"a","name":"cpu","value":1}"#, SignalKind::Metric),
        (r#"{"source":"a","kind":"log","message":"m","value":1}"#, SignalKind::Log),
        (r#"{"source":"a","kind":"alert","name":"Down"}"#, SignalKind::Alert),
    ] {
        let (parsed, signals) = read(event, Format::Json);
        assert_eq!((parsed.unwrap().accepted, signals[0].kind), (1, kind), "{event}");
    }
}

#[test]
fn null_says_that_a_field_is_not_given() {
    let event = r#"{"source":"a","kind":null,"timestamp":null,"message":"m","name":null,"value":null,"unit":null,"severity":null,
        "labels":null,"status":null,"fingerprint":null,"title":null,"description":null,"id":null}"#;
    let (parsed, signals) = read(event, Format::Json);
    assert_eq!(parsed.unwrap().accepted, 1);
    assert_eq!(signals, read(r#"{"source":"a","message":"m"}"#, Format::Json).1);
}

#[test]
fn every_field_arrives_and_escapes_are_undone() {
    let event = r#"{"\u0073ource":"a\"b","kind":"alert","timestamp":"2026-11-22T11:00:00+01:00","message":"x\ny","name":"n","value":-1.5e3,
        "unit":"ms","severity":"critical","labels":{"h":"1","k\u00e9":"v\u20ac"},"status":"resolved","fingerprint":"f","title":"t","description":"d","id":"i"}"#;
    let (parsed, signals) = read(event, Format::Json);
    assert_eq!(parsed.unwrap().accepted, 1);
    let signal = &signals[0];
    assert_eq!(signal.texts.values().map(String::as_str).collect::<Vec<_>>(), ["d", "f", "i", "x\ny", "n", "a\"b", "t", "ms"]);
    assert_eq!((signal.severity, signal.resolved, signal.value), (Severity::Critical, true, Some(-1500.0)));
    assert_eq!(signal.at.to_string(), "2026-11-22T10:00:00.000Z");
    assert_eq!(signal.labels, [("h".to_owned(), "1".to_owned()), ("ké".to_owned(), "v€".to_owned())]);
}

#[test]
fn what_is_wrong_with_an_event_is_said_by_code_place_and_suggestion() {
    let long = |count: usize| "é".repeat(count);
    let with = |rest: &str| format!(r#"{{"source":"a","message":"m",{rest}}}"#);
    let labels = |count: usize| (0..count).map(|i| format!(r#""k{i}":"v""#)).collect::<Vec<_>>().join(",");
    let cases: Vec<(String, &str, &str, &str)> = vec![
        ("{}".into(), "required", "/source", "source is required"),
        (r#"{"source":"","message":"m"}"#.into(), "required", "/source", "source is required"),
        (r#"{"source":"a"}"#.into(), "required", "/message", "message is required for a log"),
        (r#"{"source":"a","value":1}"#.into(), "required", "/name", "name is required for a metric"),
        (r#"{"source":"a","kind":"metric","name":"n"}"#.into(), "required", "/value", "value is required for a metric"),
        (with(r#""severty":"info""#), "unknown_field", "/severty", "did you mean severity?"),
        (with(r#""level":"info""#), "unknown_field", "/level", "did you mean severity?"),
        (with(r#""wholly":1"#), "unknown_field", "/wholly", "put what you want to keep under labels"),
        (with(r#""a/b~":1"#), "unknown_field", "/a~1b~0", "unknown field a/b~"),
        (with(r#""source":"b""#), "duplicate_key", "/source", "source is given twice"),
        (with(r#""s\u006furce":"b""#), "duplicate_key", "/source", "source is given twice"),
        (with(r#""labels":{"a":"1","b":"2","a":"1"}"#), "duplicate_key", "/labels/a", "label a is given twice"),
        (with(r#""labels":{"a":"1"},"labels":{"a":"1"}"#), "duplicate_key", "/labels", "labels is given twice"),
        (with(r#""labels":{"a":1}"#), "wrong_type", "/labels/a", "write the number in quotes"),
        (with(r#""labels":{"a":null}"#), "wrong_type", "/labels/a", "must be a string"),
        (with(r#""labels":["a"]"#), "wrong_type", "/labels", "not an array"),
        (with(r#""labels":{"":"x"}"#), "required", "/labels", "must have a name"),
        (with(&format!(r#""labels":{{{}}}"#, labels(65))), "too_many", "/labels", "at most 64"),
        (with(&format!(r#""labels":{{"{}":"x"}}"#, long(129))), "too_long", "-", "at most 128 characters"),
        (with(&format!(r#""labels":{{"x":"{}"}}"#, long(1025))), "too_long", "/labels/x", "at most 1024 characters"),
        (format!(r#"{{"message":"m","source":"{}"}}"#, long(257)), "too_long", "/source", "at most 256 characters"),
        (with(r#""severity":"warn""#), "invalid_value", "/severity", "severity must be one of"),
        (with(r#""severity":"warnin""#), "invalid_value", "/severity", "did you mean warning?"),
        (with(r#""severity":3"#), "wrong_type", "/severity", "severity must be a string, not a number"),
        (with(r#""kind":"logs""#), "invalid_value", "/kind", "did you mean log?"),
        (with(r#""status":"ok""#), "invalid_value", "/status", "firing, resolved"),
        (with(r#""timestamp":"yesterday""#), "invalid_timestamp", "/timestamp", "RFC 3339"),
        (with(r#""timestamp":1795348800"#), "wrong_type", "/timestamp", "must be a string"),
        (with(r#""value":"1""#), "wrong_type", "/value", "value must be a number, not a string"),
        (with(r#""title":{"a":[{"b":1}]}"#), "wrong_type", "/title", "not an object"),
        (r#"{"source":null,"message":"m"}"#.into(), "required", "/source", "source is required"),
        (r#"{"source":"a","kind":null,"message":null}"#.into(), "required", "/message", "message is required for a log"),
        (r#"{"source":"a","kind":"metric","name":"n","value":null}"#.into(), "required", "/value", "value is required for a metric"),
        (with(r#""wholly":null"#), "unknown_field", "/wholly", "unknown field"),
        (with(r#""title":null,"title":"t""#), "duplicate_key", "/title", "title is given twice"),
        (with(r#""id":"idempotency-key:1""#), "reserved", "/id", "must not begin with idempotency-key:"),
        (with(r#""timestamp":"1969-12-31T23:59:59Z""#), "invalid_timestamp", "/timestamp", "times before 1970 are not accepted"),
        (with(r#""title":"a\u0000b""#), "nul", "/title", "NUL"),
        (with(r#""labels":{"a":"\u0000"}"#), "nul", "/labels/a", "NUL"),
        ("[5]".into(), "wrong_type", "", "an event must be an object, not a number"),
        (r#"[["x"]]"#.into(), "wrong_type", "", "not an array"),
    ];
    for (event, code, pointer, detail) in cases {
        let got = refusal(&event);
        assert_eq!(got.0, code, "{event}: {got:?}");
        assert!(pointer == "-" || got.1 == pointer, "{event}: {got:?}");
        assert!(got.2.contains(detail), "{event}: {got:?}");
    }
}

#[test]
fn limits_count_characters_not_bytes() {
    let long = |count: usize| "é".repeat(count);
    let labels = (0..63).map(|i| format!(r#","k{i}":"v""#)).collect::<String>();
    let event = format!(r#"{{"source":"{}","message":"m","labels":{{"{}":"{}"{labels}}}}}"#, long(256), long(128), long(1024));
    assert_eq!(read(event, Format::Json).0.unwrap().accepted, 1);
}

#[test]
fn h1_hostile_json_is_refused_with_its_place() {
    let event = |value: &str| format!(r#"{{"source":"a","name":"n","value":{value}}}"#).into_bytes();
    let message = |text: &[u8]| [br#"{"source":"a","message":""#, text, br#""}"#].concat();
    let deep = |depth: usize| format!(r#"{{"source":"a","message":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)).into_bytes();
    for (name, body, code, detail) in [
        ("1e400", event("1e400"), "malformed", "line 1, column"),
        ("-1e400", event("-1e400"), "malformed", "number out of range"),
        ("NaN", event("NaN"), "malformed", "expected value"),
        ("Infinity", event("Infinity"), "malformed", "expected value"),
        ("leading zero", event("01"), "malformed", "invalid number"),
        ("lone surrogate", message(br"\ud800\u0041"), "malformed", "surrogate"),
        ("lone surrogate in a label", br#"{"source":"a","message":"m","labels":{"a":"\udc00x"}}"#.to_vec(), "malformed", ""),
        ("invalid UTF-8", message(b"\xff\xfe"), "invalid_utf8", "line 1, column 26: not UTF-8"),
        ("bare NUL", message(b"\0"), "malformed", "control character"),
        ("byte order mark", [b"\xef\xbb\xbf".to_vec(), event("1")].concat(), "malformed", "byte order mark"),
        ("nothing", vec![], "malformed", "empty"),
        ("blanks", b" \n ".to_vec(), "malformed", "empty"),
        ("a string", br#""x""#.to_vec(), "malformed", "expected an event or an array of events"),
        ("cut off", br#"{"source":"a","#.to_vec(), "malformed", "EOF"),
        (
            "lines as JSON",
            b"{\"source\":\"a\",\"message\":\"m\"}\n{}".to_vec(),
            "malformed",
            "line 2, column 1: trailing characters after the event; to send one event per line, say content-type: application/x-ndjson",
        ),
        ("65 levels", deep(64), "too_deep", "deeper than 64"),
        ("100 k levels", deep(100_000), "too_deep", "deeper than 64"),
        ("100 k levels, open", "[".repeat(100_000).into_bytes(), "too_deep", "deeper than 64"),
        ("100 k objects", r#"{"a":"#.repeat(100_000).into_bytes(), "too_deep", "deeper than 64"),
    ] {
        let (parsed, _) = read(&body, Format::Json);
        let malformed = parsed.expect_err(name);
        assert_eq!(malformed.code, code, "{name}: {malformed:?}");
        assert!(malformed.detail.contains(detail), "{name}: {malformed:?}");

        if !body.trim_ascii().is_empty() && !body.contains(&b'\n') {
            let good = br#"{"source":"a","message":"m"}"#;
            let (parsed, _) = read([good.as_slice(), b"\r\n\n", &body, b"\n", good].concat(), Format::Lines);
            let parsed = parsed.expect(name);
            assert_eq!((parsed.events, parsed.accepted, parsed.rejected.total), (3, 2, 1), "{name}");
            assert_eq!(parsed.rejected.named[0].index, 1, "{name}");
        }
    }
    assert_eq!(refusal(std::str::from_utf8(&deep(63)).unwrap()).0, "wrong_type", "64 levels are read");
}

#[test]
fn h1_odd_but_proper_numbers_are_taken() {
    for (text, value) in
        [("-0", -0.0), ("18446744073709551616", 18_446_744_073_709_551_616.0), ("1e-400", 0.0), ("-9223372036854775808", i64::MIN as f64)]
    {
        let (parsed, signals) = read(format!(r#"{{"source":"a","name":"n","value":{text}}}"#), Format::Json);
        assert_eq!((parsed.unwrap().accepted, signals[0].value), (1, Some(value)), "{text}");
    }
    let (_, signals) = read(r#"{"source":"a","name":"n","value":18446744073709551615}"#, Format::Json);
    assert_eq!(signals[0].value, Some(u64::MAX as f64));
}

#[test]
fn h1_very_many_keys_are_refused_and_nothing_of_them_is_kept() {
    let keys = |prefix: &str| (0..300_000).map(|i| format!(r#""{prefix}{i}":0,"#)).collect::<String>();
    let body = format!(r#"{{"source":"a","message":"m",{}"z":0}}"#, keys("k"));
    assert_eq!(refusal(&body[..]).0, "unknown_field");
    let body = format!(r#"{{"source":"a","message":"m","labels":{{{}"z":"0"}}}}"#, keys(""));
    assert_eq!(refusal(&body).0, "wrong_type");
}

#[test]
fn the_valid_events_of_a_batch_are_taken_and_the_others_named_by_index() {
    let body = r#"[{"source":"a","message":"1"},{"source":"a"},5,{"source":"b","message":"2"},{"source":"a","source":"a","message":"3"}]"#;
    let (parsed, signals) = read(body, Format::Json);
    let parsed = parsed.unwrap();
    assert_eq!((parsed.events, parsed.accepted, parsed.rejected.total), (5, 2, 3));
    assert_eq!(
        parsed.rejected.named.iter().map(|r| (r.index, r.code)).collect::<Vec<_>>(),
        [(1, "required"), (2, "wrong_type"), (4, "duplicate_key")]
    );
    assert!(!parsed.rejected.only_malformed());
    assert_eq!(signals.iter().map(|s| s.texts["message"].as_str()).collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn a_broken_line_costs_only_itself_and_is_named_with_its_line() {
    let body = b"\n{\"source\":\"a\",\"message\":\"1\"}\r\n{\"source\":\n{\"source\":\"a\",\"message\":\"\xff\"}\n{\"source\":\"a\",\"message\":\"2\"} x\n  \n{\"source\":\"a\",\"message\":\"3\"}";
    let (parsed, signals) = read(body, Format::Lines);
    let parsed = parsed.unwrap();
    assert_eq!((parsed.events, parsed.accepted), (5, 2));
    let named: Vec<_> = parsed.rejected.named.iter().map(|r| (r.index, r.code, r.detail.split(':').next().unwrap())).collect();
    assert_eq!(
        named,
        [(1, "malformed", "line 3, column 10"), (2, "invalid_utf8", "line 4, column 26"), (3, "malformed", "line 5, column 30")]
    );
    assert!(parsed.rejected.only_malformed());
    assert_eq!(signals.len(), 2);
}

#[test]
fn an_answer_names_a_bounded_number_of_events_and_counts_all() {
    let parsed = read("{}\n".repeat(25_000), Format::Lines).0.unwrap();
    assert_eq!((parsed.rejected.total, parsed.rejected.named.len()), (25_000, super::problem::NAMED));
}

#[test]
fn names_in_answers_are_short_and_move_no_cursor() {
    let (_, _, detail) = refusal(&format!(r#"{{"source":"a","message":"m","\u001b[2J\u0007{}":1}}"#, "x".repeat(10_000)));
    assert!(detail.len() < 300 && !detail.contains('\u{1b}'), "{detail:?}");
}

#[test]
fn labels_of_one_event_do_not_leak_into_the_next() {
    let (_, signals) =
        read("{\"source\":\"a\",\"message\":\"m\",\"labels\":{\"a\":\"\\t\"}}\n{\"source\":\"a\",\"message\":\"m\"}", Format::Lines);
    assert_eq!(signals.iter().map(|s| s.labels.len()).collect::<Vec<_>>(), [1, 0]);
}

/// JSON strings as senders write them: plain, escaped, odd.
fn json_text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z]{0,6}".prop_map(|text| format!("\"{text}\"")),
        2 => ".{0,8}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        1 => Just(r#""\u0000""#.to_owned()),
        1 => Just(r#""\ud83d\ude00""#.to_owned()),
        1 => (250_usize..260).prop_map(|count| format!("\"{}\"", "é".repeat(count))),
        1 => prop_oneof![Just("\"log\""), Just("\"metric\""), Just("\"alert\""), Just("\"error\""), Just("\"resolved\""), Just("\"2026-11-22T12:30:00Z\"")].prop_map(str::to_owned),
    ]
}

fn json_value() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => json_text(),
        2 => any::<f64>().prop_filter("JSON has none other", |number| number.is_finite()).prop_map(|number| number.to_string()),
        1 => any::<i64>().prop_map(|number| number.to_string()),
        1 => any::<u64>().prop_map(|number| number.to_string()),
        1 => prop_oneof![Just("null"), Just("true"), Just("[]"), Just("[{\"a\":[1]}]"), Just("{\"a\":1}"), Just("1e400"), Just("\"\\ud800\""), Just("")].prop_map(str::to_owned),
        2 => proptest::collection::vec((json_text(), json_text()), 0..5)
            .prop_map(|labels| format!("{{{}}}", labels.iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>().join(","))),
    ]
}

fn json_event() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        20 => proptest::sample::select(vec!["source", "kind", "timestamp", "message", "name", "value", "unit", "severity", "labels", "status", "fingerprint", "title", "description", "id"])
            .prop_map(|name| format!("\"{name}\"")),
        1 => json_text(),
    ];
    let base = proptest::sample::select(vec![
        "",
        r#""source":"a","message":"m","#,
        r#""source":"a","name":"n","value":1,"#,
        r#""source":"a","kind":"alert","#,
    ]);
    (base, proptest::collection::vec((name, json_value()), 0..4)).prop_map(|(base, fields)| {
        let fields = fields.iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>().join(", ");
        let inner = format!("{base}{fields}");
        format!("{{{}}}", inner.trim_end_matches(','))
    })
}

fn agree(body: &[u8], format: Format) {
    let (parsed, signals) = read(body, format);
    match (parsed, reference::parse(body, format, now())) {
        (Err(_), None) => {}
        (Ok(parsed), Some(expected)) => {
            let refused: Vec<u32> = (0..).zip(&expected).filter(|(_, signal)| signal.is_none()).map(|(index, _)| index).collect();
            assert_eq!(parsed.rejected.named.iter().map(|rejected| rejected.index).collect::<Vec<_>>(), refused);
            assert_eq!(parsed.events as usize, expected.len());
            assert_eq!(parsed.accepted as usize, signals.len());
            assert_eq!(signals, expected.into_iter().flatten().collect::<Vec<_>>());
        }
        (parsed, expected) => panic!("{parsed:?} but the reference says {expected:?} of {}", String::from_utf8_lossy(body)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn agrees_with_the_slow_reference_on_lines(events in proptest::collection::vec(json_event(), 0..5)) {
        agree(events.join("\n").as_bytes(), Format::Lines);
    }

    #[test]
    fn agrees_with_the_slow_reference_on_arrays(events in proptest::collection::vec(json_event(), 0..5)) {
        agree(format!("[{}]", events.join(",")).as_bytes(), Format::Json);
    }

    #[test]
    fn agrees_with_the_slow_reference_on_damaged_bodies(
        events in proptest::collection::vec(json_event(), 1..4), at in any::<proptest::sample::Index>(), byte: u8, lines: bool,
    ) {
        let (joint, format) = if lines { ("\n", Format::Lines) } else { (",", Format::Json) };
        let mut body = events.join(joint).into_bytes();
        if !lines {
            body = [b"[".as_slice(), &body, b"]"].concat();
        }
        let at = at.index(body.len());
        body[at] = byte;
        agree(&body, format);
    }

    #[test]
    fn random_bytes_never_panic(body in proptest::collection::vec(prop_oneof![any::<u8>(), proptest::sample::select(b"{}[]\":,\\\n0e1-".to_vec())], 0..300)) {
        agree(&body, Format::Lines);
        agree(&body, Format::Json);
    }
}
