//! What is not in the evidence is not claimed: claims that were tampered with are dropped.

use std::{sync::LazyLock, time::Duration};

use opspilot_kernel::explanation::{ClaimKind, Explanation};
use opspilot_ledger::Evidence;
use proptest::prelude::*;

use super::{super::verify::prove, Known, demo::recording, explained};

/// A proved explanation of the demo's outage, and its evidence.
static PROVED: LazyLock<(Explanation, Vec<Evidence>)> = LazyLock::new(|| {
    let signals = recording();
    let first = signals.iter().position(|signal| signal.message.contains("payment failed for order")).unwrap();
    let (explained, evidence) =
        explained(&signals, "payment-failed", first, signals[first].at.after(Duration::from_secs(90)), &Known::default());
    (explained.explanation, evidence)
});

/// Changes one character of a text: a digit to another one, a letter to another one, or takes it away.
fn tampered(text: &str, place: usize, how: u8) -> String {
    let chars: Vec<char> = text.chars().collect();
    let place = place % chars.len().max(1);
    let mut out = String::new();
    for (index, c) in chars.iter().enumerate() {
        match (index == place, how % 3) {
            (false, _) => out.push(*c),
            (true, 0) => out.push(if *c == '7' { '8' } else { '7' }),
            (true, 1) => out.push(if *c == 'q' { 'z' } else { 'q' }),
            (true, _) => {}
        }
    }
    out
}

proptest! {
    #[test]
    fn a_claim_that_was_tampered_with_is_dropped(which in any::<prop::sample::Index>(), place in any::<usize>(), how in 0_u8..9) {
        let (explanation, evidence) = &*PROVED;
        let mut forged = explanation.clone();
        let index = which.index(forged.claims.len());
        let claim = &mut forged.claims[index];
        let before = claim.clone();
        match how {
            0..=2 => claim.text = tampered(&claim.text, place, how),
            3 | 4 => claim.quote = Some(claim.quote.as_ref().map_or_else(|| "made up".to_owned(), |quote| tampered(quote, place, how))),
            5 => claim.kind = if claim.kind == ClaimKind::Observed { ClaimKind::Inferred } else { ClaimKind::Observed },
            6 => claim.evidence = vec![evidence[place % evidence.len()].id.clone()],
            7 => claim.evidence.clear(),
            _ => claim.evidence.push("f999".to_owned()),
        }
        prop_assume!(*claim != before);
        prop_assert_eq!(prove(&mut forged, evidence), 1);
        prop_assert_eq!(forged.claims.len(), explanation.claims.len() - 1);
    }

    #[test]
    fn a_cause_that_was_tampered_with_is_dropped(which in any::<prop::sample::Index>(), place in any::<usize>(), how in 0_u8..6) {
        let (explanation, evidence) = &*PROVED;
        let mut forged = explanation.clone();
        let index = which.index(forged.causes.len());
        let cause = &mut forged.causes[index];
        let before = cause.clone();
        match how {
            0..=2 => cause.text = tampered(&cause.text, place, how),
            3 => cause.component = ["inventory", "nobody", "gateway2"][place % 3].to_owned(),
            4 => cause.evidence.truncate(1),
            _ => cause.share = 2.0,
        }
        prop_assume!(*cause != before);
        prove(&mut forged, evidence);
        prop_assert!(forged.causes.iter().all(|cause| explanation.causes.contains(cause)), "{:?}", forged.causes);
    }

    #[test]
    fn evidence_that_was_tampered_with_proves_nothing(which in any::<prop::sample::Index>(), text in "[a-z ]{0,40}") {
        let (explanation, evidence) = &*PROVED;
        let mut other = evidence.clone();
        let index = which.index(other.len());
        let id = other[index].id.clone();
        other[index].observation = opspilot_kernel::alert::Observation::Log { at: opspilot_kernel::time::Timestamp::ZERO, source: "nobody".to_owned(), text };
        let mut again = explanation.clone();
        prove(&mut again, &other);
        let cites = again.claims.iter().map(|claim| &claim.evidence).chain(again.causes.iter().map(|cause| &cause.evidence));
        prop_assert!(!cites.flatten().any(|cited| *cited == id));
    }
}

#[test]
fn everything_cited_is_there_and_every_quote_stands_in_it_byte_for_byte() {
    let (explanation, evidence) = &*PROVED;
    assert!(explanation.claims.len() >= 10 && explanation.claims.iter().filter(|claim| claim.quote.is_some()).count() >= 5);
    for claim in &explanation.claims {
        assert!(!claim.evidence.is_empty());
        let pieces: Vec<&Evidence> = claim.evidence.iter().map(|id| evidence.iter().find(|piece| piece.id == *id).unwrap()).collect();
        if let Some(quote) = &claim.quote {
            assert!(pieces.iter().any(
                |piece| matches!(&piece.observation, opspilot_kernel::alert::Observation::Log { text, .. } if text.contains(quote.as_str()))
            ));
        }
    }
}
