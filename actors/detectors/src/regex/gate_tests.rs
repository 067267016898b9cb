use super::gate::Gate;
use crate::testing::Rng;

/// Rules as people write them: with and without literals, with and without regard to case.
fn thousand(rng: &mut Rng) -> Vec<String> {
    const WHAT: [&str; 12] = ["payment", "order", "kafka", "tls handshake", "disk", "ſkip", "Über", "K8s", "pod", "oom", "node", "queue"];
    const HOW: [&str; 10] = [
        r"failed for (\d+)",
        r"timed? ?out",
        r"(?i)Refused by \S+",
        r"(lost|gained) quorum",
        r"\d{3}",
        r"[a-f]{4}\b",
        r"(full|empty) at \d+%",
        r"^\w+ x",
        r"(?:re)+started",
        r".{3}ed$",
    ];
    (0..1000)
        .map(|_| {
            let what = WHAT[usize::try_from(rng.below(12)).unwrap()];
            let how = HOW[usize::try_from(rng.below(10)).unwrap()];
            match rng.below(6) {
                0 => format!("(?i){what} {how}"),
                1 => how.to_owned(),
                2 => format!("{what}|{how}"),
                3 => format!("{what}.*{}", rng.below(100)),
                _ => format!("{what} {how}"),
            }
        })
        .collect()
}

#[test]
fn a_thousand_rules_agree_with_trying_every_one() {
    let mut rng = Rng(0x9E37_79B9_7F4A_7C15);
    let texts: Vec<String> = thousand(&mut rng).into_iter().filter(|text| super::pattern::Pattern::read(text).is_ok()).collect();
    assert!(texts.len() > 900);
    let naive: Vec<regex::Regex> = texts.iter().map(|text| regex::Regex::new(text).unwrap()).collect();
    let mut gate = Gate::new(texts);
    let words = [
        "payment",
        "PAYMENT",
        "order",
        "Kafka",
        "TLS Handshake",
        "disk",
        "DIſK",
        "\u{212A}afka",
        "ſKIP",
        "skip",
        "über",
        "ÜBER",
        "k8S",
        "failed for",
        "12",
        "timeout",
        "timed out",
        "refused by",
        "REFUSED BY x",
        "lost quorum",
        "100",
        "beef",
        "full at 3%",
        "rerestarted",
        "x",
        "ended",
    ];
    let mut matched = 0;
    for _ in 0..100 {
        let line: Vec<&str> = (0..=rng.below(6)).map(|_| words[usize::try_from(rng.below(26)).unwrap()]).collect();
        let line = line.join(" ");
        let expected: Vec<usize> = (0..naive.len()).filter(|number| naive[*number].is_match(&line)).collect();
        assert_eq!(gate.matches(&line), expected, "{line}");
        matched += expected.len();
    }
    assert!(matched > 300, "the lines do match: {matched}");
}

#[test]
fn patterns_are_compiled_only_when_their_literal_comes_by() {
    let texts: Vec<String> = (0..1000).map(|n| format!(r"service{n} failed with (\d+) \w+")).collect();
    let mut gate = Gate::new(texts);
    assert_eq!(gate.matches("all is well"), [0_usize; 0]);
    assert_eq!(gate.compiled(), 0);
    let literals = gate.bytes();
    assert!((10 << 10..16 << 20).contains(&literals), "{literals}");
    assert_eq!(gate.matches("service77 failed with 5 errors"), [77]);
    assert_eq!(gate.compiled(), 1);
    assert!((literals + 100..literals + (1 << 20)).contains(&gate.bytes()), "{}", gate.bytes());
}

#[test]
fn a_pattern_that_only_other_scripts_can_match_is_no_burden() {
    let mut gate = Gate::new(vec!["größe (\\d+)".to_owned(), "(ä|x)yz".to_owned(), "[α-ω]{3}".to_owned(), "[а-я]+".to_owned()]);
    assert_eq!(gate.matches("xyz größe 5"), [0, 1]);
    assert_eq!(gate.matches("xyz grosse 5"), [1]);
    assert_eq!(gate.matches("αβγ"), [2]);
    assert_eq!(gate.matches("äyz да"), [1, 3]);
}

#[test]
fn patterns_that_share_a_literal_are_tried_together_and_found_all_the_same() {
    let shared = (0..100).map(|n| format!(r"payment [a-z]+ {n}\b"));
    let texts: Vec<String> =
        shared.chain((0..100).map(|n| format!("payment (declined|refused) {n}$"))).chain(["ment x".to_owned()]).collect();
    let mut gate = Gate::new(texts);
    assert_eq!(gate.matches("payment declined 7"), [7, 107]);
    assert_eq!(gate.matches("payment lost 42 and found"), [42]);
    assert_eq!(gate.matches("payment x"), [200]);
    assert_eq!(gate.matches("payment größe 99"), [0_usize; 0]);
    assert_eq!(gate.matches("payment refused 8 ü payment ok 9"), [8, 9]);
}
