//! What becomes of lines: whole, joined, unfinished, too long, no text.

use opspilot_kernel::{signal::Severity, time::Timestamp};

use super::super::config::Multiline;
use super::{Line, NOW, Rig, seconds};

#[test]
fn lines_become_signals_with_source_severity_time_and_file() {
    let mut rig = Rig::new("shop.log", |config| {
        config.files[0].labels.insert("team".into(), "web".into());
    });
    rig.append("shop.log", "2026-11-22T11:59:00Z ERROR payment failed\nplain\n");
    rig.read();
    let file = rig.path("shop.log").display().to_string();
    let line = |text: &str, severity, at| Line { text: text.into(), source: "shop".into(), file: file.clone(), severity, at };
    assert_eq!(
        rig.lines,
        [
            line("2026-11-22T11:59:00Z ERROR payment failed", Severity::Error, Timestamp::from_millis(NOW - 60_000)),
            line("plain", Severity::Info, Timestamp::from_millis(NOW)),
        ]
    );
}

#[test]
fn joined_records_wait_for_their_next_line_but_not_for_ever() {
    let mut rig = Rig::new("app.log", |config| config.files[0].multiline = Some(Multiline::starting_with(r"^\d")));
    rig.append("app.log", "1 boom\n  at a\n");
    assert_eq!(rig.read(), Vec::<String>::new());
    assert!(rig.engine.next_due() <= seconds(1));
    rig.append("app.log", "  at b\n2 ok\n");
    assert_eq!(rig.read(), ["1 boom\n  at a\n  at b"]);
    rig.restart();
    assert_eq!(rig.read(), Vec::<String>::new(), "the record that waits is read again, not given out twice");
    assert_eq!(rig.after(seconds(3)), ["2 ok"]);
    rig.restart();
    assert_eq!(rig.after(seconds(3)), Vec::<String>::new());
}

#[test]
fn a_line_without_an_end_is_taken_after_a_while_and_its_rest_follows() {
    let mut rig = Rig::new("app.log", |_| {});
    rig.append("app.log", "prompt: ");
    assert_eq!(rig.read(), Vec::<String>::new());
    assert_eq!(rig.after(seconds(4)), Vec::<String>::new());
    assert_eq!(rig.after(seconds(1)), ["prompt: "]);
    rig.append("app.log", "yes\n");
    assert_eq!(rig.read(), ["yes"]);
    assert_eq!(rig.after(seconds(60)), Vec::<String>::new());
}

#[test]
fn bytes_that_are_no_text_are_kept_as_far_as_they_are_and_counted() {
    let mut rig = Rig::new("app.log", |_| {});
    rig.append("app.log", b"ok\nbad \xff\xfe byte\n\xc3\xbcber\n");
    assert_eq!(rig.read(), ["ok", "bad \u{fffd}\u{fffd} byte", "\u{fc}ber"]);
    assert_eq!(rig.engine.counts.lossy, 1);
}

#[test]
fn very_long_lines_are_cut_counted_and_cost_bounded_memory() {
    let mut rig = Rig::new("app.log", |config| config.files[0].max_line = opspilot_kernel::config::Size(100));
    rig.append("app.log", vec![b'x'; 3 << 20]);
    assert_eq!(rig.read(), [format!("{} …[cut at 100 bytes]", "x".repeat(100))]);
    rig.restart();
    rig.append("app.log", "still the same line\nnext\n");
    assert_eq!(rig.read(), ["next"]);
}
