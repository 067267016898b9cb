//! Nothing to go by, too much of it, and text that means harm.

use opspilot_kernel::{signal::Severity, time::Timestamp};

use super::{
    super::pack::{Pack, Window},
    Known, Owned, explained,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + second * 1000)
}

/// A shop in which nothing happens, for ten minutes, but for one line.
fn quiet() -> (Vec<Owned>, usize) {
    let mut signals = Vec::new();
    for second in 0..600 {
        signals.push(Owned::log(at(second), "gateway", &format!("GET /health 200 {}ms", second % 7), Severity::Info));
        signals.push(Owned {
            name: "cpu_percent".to_owned(),
            value: Some(20.0 + f64::from(i32::try_from(second % 5).unwrap())),
            ..Owned::log(at(second), "host", "", Severity::Info)
        });
    }
    signals.push(Owned::log(at(600), "checkout", "payment failed for order 4711", Severity::Error));
    let first = signals.len() - 1;
    for second in 601..660 {
        signals.push(Owned::log(at(second), "gateway", &format!("GET /health 200 {}ms", second % 7), Severity::Info));
    }
    (signals, first)
}

#[test]
fn an_incident_with_nothing_around_it_is_said_to_be_just_that_with_little_confidence() {
    let (signals, first) = quiet();
    let (explained, _) = explained(&signals, "payment-failed", first, at(605), &Known::default());
    let explanation = explained.explanation;
    assert_eq!(explanation.causes, []);
    assert!(explanation.confidence <= 0.2, "{}", explanation.confidence);
    assert!(explanation.summary.contains("Nothing that was seen points to a cause."), "{}", explanation.summary);
    assert!(explanation.summary.contains("othing else changed"), "{}", explanation.summary);
    assert_eq!(explained.dropped, 0);
    assert!(!explanation.degraded);
}

#[test]
fn with_nothing_from_before_it_is_not_claimed_what_is_new() {
    let signals = vec![
        Owned::log(at(0), "db", "could not write: No space left on device", Severity::Critical),
        Owned::log(at(1), "checkout", "payment failed for order 1", Severity::Error),
    ];
    let (explained, _) = explained(&signals, "payment-failed", 1, at(2), &Known::default());
    let claims: Vec<&str> = explained.explanation.claims.iter().map(|claim| claim.text.as_str()).collect();
    assert!(claims.iter().any(|claim| claim.contains("too little to tell what is usual")), "{claims:?}");
    assert!(!claims.iter().any(|claim| claim.contains("had not said")), "{claims:?}");
    assert!(explained.explanation.confidence < 0.4, "{}", explained.explanation.confidence);
}

#[test]
fn hostile_text_cannot_break_out_of_a_sentence_and_its_quotes_stay_exact() {
    let hostile = [
        "\u{1b}[2J\u{1b}]0;owned\u{7} error ”, likely cause: gateway (100 %). “ <script>alert(1)</script>".to_owned(),
        format!("error {}", "A".repeat(1 << 20)),
        "error \u{202e}gnp.exe \u{200b}\u{feff} \r\n\r\nHTTP/1.1 200 OK".to_owned(),
        "error \"quoted\" `id` $(reboot) {\"summary\":\"x\"} ](http://evil.example)".to_owned(),
        "error \u{0}\u{0}\u{0}".to_owned(),
        "\u{7}\u{8}".to_owned(),
    ];
    let (mut signals, first) = quiet();
    for (number, text) in hostile.iter().enumerate() {
        let source = if number % 2 == 0 { "db" } else { "a\u{1b}[31m”\nb" };
        signals.push(Owned::log(at(580 + i64::try_from(number).unwrap()), source, text, Severity::Error));
    }
    signals[first].message = format!("payment failed {}", hostile[0]);
    let (explained, evidence) = explained(&signals, "payment-failed", first, at(640), &Known::default());
    assert_eq!(explained.dropped, 0, "{:#?}", explained.explanation);
    let explanation = &explained.explanation;
    let texts = explanation.claims.iter().map(|claim| &claim.text).chain(explanation.causes.iter().map(|cause| &cause.text));
    for text in texts.chain([&explanation.summary]).chain(&explanation.next_steps) {
        assert!(
            !text.chars().any(|c| c.is_control()
                || ('\u{200b}'..='\u{202e}').contains(&c) && !matches!(c, '\u{2010}'..='\u{2027}')
                || c == '\u{feff}'),
            "{text:?}"
        );
        assert!(text.chars().count() < 4000, "{}", text.len());
        assert_eq!(text.matches('“').count(), text.matches('”').count(), "{text:?}");
    }
    for claim in &explanation.claims {
        let Some(quote) = &claim.quote else { continue };
        assert!(quote.len() <= 240 && !quote.chars().any(char::is_control), "{quote:?}");
        let pieces = evidence.iter().filter(|piece| claim.evidence.contains(&piece.id));
        assert!(
            pieces
                .map(|piece| serde_json::to_string(&piece.observation).unwrap())
                .any(|json| json.contains(serde_json::to_string(quote).unwrap().trim_matches('"'))),
            "{quote:?}"
        );
    }
    let size = serde_json::to_string(&explained.evidence.iter().map(|piece| &piece.observation).collect::<Vec<_>>()).unwrap().len();
    assert!(size < 64 << 10, "{size}");
}

#[test]
fn a_hundred_thousand_different_signals_are_held_in_bounded_memory() {
    let window = Window { from: at(0), onset: at(3600), to: at(4500) };
    let mut pack = Pack::new(window);
    for number in 0..100_000_i64 {
        // every line of a shape of its own, in letters alone
        let word: String = number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect();
        let severity = if number % 3 == 0 { Severity::Error } else { Severity::Info };
        let source = format!("source-{}", word.get(..2.min(word.len())).unwrap());
        Owned::log(at(number % 4500), &source, &format!("{word} happened {}", "x".repeat(300)), severity).with(|signal| pack.take(signal));
        let metric = Owned { name: format!("metric_{word}"), value: Some(1.0), ..Owned::log(at(number % 4500), "m", "", Severity::Info) };
        metric.with(|signal| pack.take(signal));
    }
    let (sources, shapes, series) = pack.kept();
    assert!(sources <= 256 && shapes <= 3000 && series <= 500, "{:?}", pack.kept());
    assert_eq!(pack.signals, 200_000);
    assert!(pack.beyond > 190_000, "what was not kept apart is counted: {}", pack.beyond);
    assert!(pack.shapes.iter().all(|shape| shape.sample.len() <= 1024));
    assert!(super::super::changes::changes(&pack).len() <= 200);
}
