use opspilot_kernel::codec::{PieceBuilder, records};
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn parser() -> Parser {
    Parser::new(Years::first(2003), Offset::UTC)
}

fn parse(line: &str) -> Message<'_> {
    parser().parse(line)
}

#[test]
fn the_examples_of_rfc_5424_are_read() {
    // section 6.5, examples 1 to 4; the first one's text begins with a byte order mark
    let line = "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{feff}'su root' failed for lonvick on /dev/pts/8";
    let read = parse(line);
    assert_eq!((read.form, read.facility, read.severity), (Form::Ietf, Some(4), Some(Severity::Critical)));
    assert_eq!(read.at, Some(at("2003-10-11T22:14:15.003Z")));
    assert_eq!((read.host, read.app, read.pid, read.kind), ("mymachine.example.com", "su", "", "ID47"));
    assert_eq!(read.text, "'su root' failed for lonvick on /dev/pts/8");

    let read = parse("<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.");
    assert_eq!((read.facility, read.severity, read.pid), (Some(20), Some(Severity::Info), "8710"));
    assert_eq!((read.at, read.text), (Some(at("2003-08-24T12:14:15.000Z")), "%% It's time to make the do-nuts."));

    let data = r#"[exampleSDID@32473 iut="3" eventSource="Application" eventID="1011"]"#;
    let line =
        format!("<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 {data} \u{feff}An application event log entry...");
    let read = parse(&line);
    let names: Vec<&str> = read.data.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["exampleSDID@32473.iut", "exampleSDID@32473.eventSource", "exampleSDID@32473.eventID"]);
    assert_eq!((read.data[2].1.as_ref(), read.text), ("1011", "An application event log entry..."));

    let line =
        format!(r#"<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 {data}[examplePriority@32473 class="high"]"#);
    let read = parse(&line);
    assert_eq!((read.data.len(), read.data[3].1.as_ref(), read.text), (4, "high", ""));
}

#[test]
fn structured_data_is_unescaped_and_what_is_wrong_with_it_leaves_the_line_raw() {
    let read = |data: &str| -> Option<Vec<(String, String)>> {
        let line = format!("<165>1 - - - - - {data} m");
        let read = parse(&line);
        (read.form == Form::Ietf).then(|| read.data.into_iter().map(|(name, value)| (name, value.into_owned())).collect())
    };
    let one = |name: &str, value: &str| Some(vec![(name.to_owned(), value.to_owned())]);
    assert_eq!(read(r#"[a b="q\"u\\o\]te\n"]"#), one("a.b", r#"q"u\o]te\n"#));
    // section 6.3.5: an element without parameters
    assert_eq!(read("[a]"), Some(vec![]));
    assert_eq!(read(r#"[a b=""]"#), one("a.b", ""));
    for wrong in [r#"[ a b="c"]"#, r#"[a b="c""#, r#"[a b=c]"#, "[a", "[]", r#"[a b="c"]x"#, r#"[a ="c"]"#] {
        assert_eq!(read(wrong), None, "{wrong}");
    }
}

#[test]
fn nil_values_are_nothing_and_a_message_may_be_missing() {
    for line in ["<13>1 - - - - - -", "<13>1 - - - - -", "<13>1 - - - - - - "] {
        let read = parse(line);
        assert_eq!(
            (read.form, read.at, read.host, read.app, read.pid, read.kind, read.text),
            (Form::Ietf, None, "", "", "", "", ""),
            "{line}"
        );
    }
}

#[test]
fn the_examples_of_rfc_3164_are_read() {
    // section 5.4
    let read = parse("<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8");
    assert_eq!((read.form, read.facility, read.severity), (Form::Bsd, Some(4), Some(Severity::Critical)));
    assert_eq!((read.at, read.host, read.app), (Some(at("2003-10-11T22:14:15Z")), "mymachine", "su"));
    assert_eq!(read.text, "'su root' failed for lonvick on /dev/pts/8");

    let read = parse("Use the BFG!");
    assert_eq!((read.form, read.text, read.at), (Form::Raw, "Use the BFG!", None));

    // "CST" stands where the host's name is expected, says the RFC
    let read = parse("<165>Aug 24 05:34:00 CST 1987 mymachine myproc[10]: %% It's time to make the do-nuts.");
    assert_eq!((read.host, read.text), ("CST", "1987 mymachine myproc[10]: %% It's time to make the do-nuts."));

    let line = "<0>1990 Oct 22 10:52:01 TZ-6 scapegoat.dmz.example.org 10.1.2.3 sched[0]: That's All Folks!";
    let read = parse(line);
    assert_eq!((read.form, read.severity, read.text), (Form::Raw, Some(Severity::Critical), line));
}

#[test]
fn lines_as_files_hold_them_are_read() {
    let cases = [
        (
            "Jun 14 15:16:01 combo sshd(pam_unix)[19939]: check pass",
            "2003-06-14T15:16:01Z",
            "combo",
            "sshd(pam_unix)",
            "19939",
            "check pass",
        ),
        ("Jan  2 03:04:05 web-1 kernel: [12.5] eth0: up", "2003-01-02T03:04:05Z", "web-1", "kernel", "", "[12.5] eth0: up"),
        ("Jan 02 03:04:05.678 web-1 postfix/smtpd[7]: x", "2003-01-02T03:04:05.678Z", "web-1", "postfix/smtpd", "7", "x"),
        ("2026-01-31T09:30:00.123456+01:00 db systemd[1]: Started x", "2026-01-31T08:30:00.123Z", "db", "systemd", "1", "Started x"),
        ("2026-01-31T08:30:00.5Z db app: x", "2026-01-31T08:30:00.500Z", "db", "app", "", "x"),
        ("2026-01-31T08:30:00+0000 db app: x", "2026-01-31T08:30:00Z", "db", "app", "", "x"),
        ("2026-01-31 08:30:00 db app: x", "2026-01-31T08:30:00Z", "db", "app", "", "x"),
        ("<189>Feb 29 2024 00:00:01 rtr1 %SYS-5-CONFIG_I: Configured", "2024-02-29T00:00:01Z", "rtr1", "%SYS-5-CONFIG_I", "", "Configured"),
        ("<189>*Mar  1 18:46:11: %LINK-3-UPDOWN: down", "2003-03-01T18:46:11Z", "", "%LINK-3-UPDOWN", "", "down"),
        ("Oct 11 22:14:15 su[3]: no host here", "2003-10-11T22:14:15Z", "", "su", "3", "no host here"),
        ("Oct 11 22:14:15 web last message repeated 2 times", "2003-10-11T22:14:15Z", "web", "", "", "last message repeated 2 times"),
        ("Oct 11 22:14:15 web -- MARK --\r\n", "2003-10-11T22:14:15Z", "web", "", "", "-- MARK --"),
        ("Oct 11 22:14:15 ::1 http://x is up", "2003-10-11T22:14:15Z", "::1", "", "", "http://x is up"),
        ("Oct 11 23:59:60 web a: leap", "2003-10-11T23:59:59Z", "web", "a", "", "leap"),
    ];
    for (line, time, host, app, pid, text) in cases {
        let read = parse(line);
        assert_eq!((read.form, read.at), (Form::Bsd, Some(at(time))), "{line}");
        assert_eq!((read.host, read.app, read.pid, read.text), (host, app, pid, text), "{line}");
    }
}

#[test]
fn what_is_no_syslog_is_kept_whole() {
    let wrong = [
        "",
        " ",
        "<",
        "<>",
        "<192>Oct 11 22:14:15 a b: c",
        "<1a>x",
        "<0001>x",
        "Oct 32 22:14:15 a b: c",
        "Feb 29 10:00:00 a b: c",
        "Oct 11 24:14:15 a b: c",
        "Okt 11 22:14:15 a b: c",
        "Oct 11 22:14 a b: c",
        "    at java.lang.Thread.run(Thread.java:829)",
        "<34>2 yesterday h a p m - x",
        "2026-13-01T00:00:00Z a b: c",
    ];
    for line in wrong {
        let read = parse(line);
        assert_eq!((read.form, read.text, read.at), (Form::Raw, line, None), "{line}");
    }
}

#[test]
fn a_year_begins_between_two_lines_and_a_straggler_goes_back() {
    let mut parser = Parser::new(Years::first(2023), Offset::UTC);
    let lines = [
        ("Dec 30 10:00:00 h a: x", "2023-12-30T10:00:00Z"),
        ("Dec 31 23:59:59 h a: x", "2023-12-31T23:59:59Z"),
        ("Jan  1 00:00:01 h a: x", "2024-01-01T00:00:01Z"),
        ("Dec 31 23:59:58 h a: late", "2023-12-31T23:59:58Z"),
        ("Jan  1 00:00:02 h a: x", "2024-01-01T00:00:02Z"),
        ("Feb 29 00:00:00 h a: x", "2024-02-29T00:00:00Z"),
        ("Jul 31 00:00:00 h a: x", "2024-07-31T00:00:00Z"),
        ("Jan  9 00:00:00 h a: x", "2025-01-09T00:00:00Z"),
    ];
    for (line, time) in lines {
        assert_eq!(parser.parse(line).at, Some(at(time)), "{line}");
    }
}

#[test]
fn the_first_year_is_the_newest_that_does_not_put_a_line_behind_the_file() {
    for (until, line, time) in [
        ("2026-03-05T00:00:00Z", "Mar  4 10:00:00 h a: x", "2026-03-04T10:00:00Z"),
        ("2026-03-05T00:00:00Z", "Mar  5 20:00:00 h a: x", "2026-03-05T20:00:00Z"),
        ("2026-03-05T00:00:00Z", "Mar  7 10:00:00 h a: x", "2025-03-07T10:00:00Z"),
        ("2026-01-03T00:00:00Z", "Dec 28 10:00:00 h a: x", "2025-12-28T10:00:00Z"),
        ("2026-03-05T00:00:00Z", "Feb 29 10:00:00 h a: x", "2024-02-29T10:00:00Z"),
    ] {
        let mut parser = Parser::new(Years::until(at(until)), Offset::UTC);
        assert_eq!(parser.parse(line).at, Some(at(time)), "{line} until {until}");
    }
}

#[test]
fn a_zone_holds_for_times_that_name_none() {
    let mut parser = Parser::new(Years::first(2026), "+02:00".parse().unwrap());
    for (line, time) in [
        ("Jun  1 12:00:00 h a: x", "2026-06-01T10:00:00Z"),
        ("2026-06-01 12:00:00 h a: x", "2026-06-01T10:00:00Z"),
        ("2026-06-01T12:00:00Z h a: x", "2026-06-01T12:00:00Z"),
    ] {
        assert_eq!(parser.parse(line).at, Some(at(time)), "{line}");
    }
    assert_eq!("-05:30".parse::<Offset>().map(|offset| offset.utc(at("2026-06-01T00:00:00Z"))), Ok(at("2026-06-01T05:30:00Z")));
    for wrong in ["", "2", "+2:00", "+02:60", "+19:00", "CET", "+02:00 "] {
        assert!(wrong.parse::<Offset>().is_err(), "{wrong}");
    }
}

#[test]
fn a_message_becomes_a_signal_with_its_particulars_as_labels() {
    let line = r#"<165>1 2003-10-11T22:14:15.003Z web shop 42 ID47 [x@1 id="7"][x@1 id="8"] order failed"#;
    let message = parse(line);
    let mut labels = Vec::new();
    let now = at("2026-01-01T00:00:00Z");
    let read = signal(&message, now, "file", &mut labels);
    assert_eq!(
        (read.source, read.message, read.severity, read.at),
        ("shop", "order failed", Severity::Info, at("2003-10-11T22:14:15.003Z"))
    );
    let pairs: Vec<_> = read.labels.iter().collect();
    assert_eq!(pairs, [("facility", "local4"), ("host", "web"), ("pid", "42"), ("msgid", "ID47"), ("x@1.id", "7")]);

    let message = parse("Traceback: ERROR in line 3");
    let read = signal(&message, now, "file", &mut labels);
    assert_eq!((read.source, read.message, read.severity, read.at), ("file", "Traceback: ERROR in line 3", Severity::Error, now));
    assert_eq!(read.labels.get("parse_error"), Some("no syslog line"));
    let message = parse("Oct 11 22:14:15 web kernel:");
    assert_eq!(signal(&message, now, "file", &mut labels).message, "-");
}

fn piece() -> impl Strategy<Value = String> {
    let known = vec![
        "<34>",
        "<191>",
        "1 ",
        "- ",
        "-",
        " ",
        "Oct 11 22:14:15 ",
        "Feb 29 00:00:00",
        "2003-10-11T22:14:15.003Z ",
        "2026-01-31 08:30:00",
        "+01:00",
        "host ",
        "app[1]: ",
        "[a b=\"c\"]",
        "[a b=\"\\",
        "\\]",
        "\u{feff}",
        "é",
        "\u{1f600}",
        ":",
        "[",
        "]",
        "\"",
        ".123456789",
        "9999",
        "Dec 31 23:59:60 ",
        "\0",
        "\r\n",
    ];
    prop_oneof![4 => proptest::sample::select(known).prop_map(str::to_owned), 1 => ".{0,12}"]
}

proptest! {
    #[test]
    fn h6_no_line_makes_it_panic_and_none_is_lost(parts in proptest::collection::vec(piece(), 0..12), until in any::<i64>(), after in any::<bool>()) {
        let line: String = parts.concat();
        let years = if after { Years::until(Timestamp::from_millis(until)) } else { Years::first(u16::try_from(until & 0x3fff).unwrap()) };
        let mut parser = Parser::new(years, Offset::UTC);
        for _ in 0..2 {
            let message = parser.parse(&line);
            prop_assert!(message.form != Form::Raw || message.text == line.trim_end_matches(['\r', '\n', '\0']));
            let mut labels = Vec::new();
            let signal = signal(&message, Timestamp::ZERO, "s", &mut labels);
            prop_assert!(!signal.message.is_empty() && !signal.source.is_empty() && signal.labels.iter().count() <= 64);
            let mut piece = PieceBuilder::default();
            piece.push(&signal);
            let bytes = piece.into_bytes();
            prop_assert_eq!(records(&bytes).next().unwrap().decode().unwrap(), signal);
        }
    }

    #[test]
    fn h6_any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        let message = parser().parse(&text).text.len();
        prop_assert!(message <= text.len());
    }

    #[test]
    fn what_is_written_by_rfc_5424_is_read_back(
        priority in 0..192_u8, millis in 0..4_102_444_800_000_i64, host in "[!-~]{1,30}", app in "[!-~]{1,20}", text in "[ -~é]{0,40}", value in "[ -~é]{0,20}",
    ) {
        prop_assume!(host != "-" && app != "-");
        let time = Timestamp::from_millis(millis);
        let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace(']', r"\]");
        let line = format!("<{priority}>1 {time} {host} {app} - - [a@1 b=\"{escaped}\"] {text}");
        let read = parse(&line);
        prop_assert_eq!((read.form, read.facility, read.at), (Form::Ietf, Some(priority / 8), Some(time)));
        prop_assert_eq!((read.host, read.app, read.data[0].1.as_ref(), read.text), (host.as_str(), app.as_str(), value.as_str(), text.as_str()));
    }

    #[test]
    fn the_year_of_any_time_is_found_again(millis in 0..250_000_000_000_000_i64) {
        let time = Timestamp::from_millis(millis);
        let text = time.to_string();
        let year: u16 = text[..4].parse().unwrap();
        let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month: usize = text[5..7].parse().unwrap();
        let line = format!("{} {} {} h a: x", names[month - 1], &text[8..10], &text[11..23]);
        prop_assert_eq!(Parser::new(Years::first(year), Offset::UTC).parse(&line).at, Some(time));
        prop_assert_eq!(Parser::new(Years::until(time), Offset::UTC).parse(&line).at, Some(time));
    }
}
