//! The check that every explanation passes before it is stored: what cannot be made again from the evidence it cites is dropped.
//!
//! A claim holds if one of the sentences there are, made from the pieces of evidence that it cites, in the order in which it
//! cites them, comes out as the claim, word for word, with the same quote. So each number, time and name in it is
//! read off the evidence again, and a quote stands in it byte for byte. A cause holds in the same way.

use std::collections::BTreeMap;

use opspilot_kernel::{
    alert::Observation,
    explanation::{Cause, Claim, Explanation},
};
use opspilot_ledger::Evidence;

use super::say;

/// Takes away what is not proved; says how many claims and causes that were.
pub(super) fn prove(explanation: &mut Explanation, evidence: &[Evidence]) -> u64 {
    let known: BTreeMap<&str, &Observation> = evidence.iter().map(|piece| (piece.id.as_str(), &piece.observation)).collect();
    let before = explanation.claims.len().saturating_add(explanation.causes.len());
    explanation.claims.retain(|claim| claim_holds(claim, &known));
    let mut left = 1.01;
    explanation.causes.retain(|cause| {
        left -= cause.share.max(0.0);
        cause_holds(cause, &known) && left >= 0.0
    });
    let after = explanation.claims.len().saturating_add(explanation.causes.len());
    u64::try_from(before.saturating_sub(after)).unwrap_or(0)
}

fn cited<'a>(ids: &[String], known: &BTreeMap<&str, &'a Observation>) -> Option<Vec<&'a Observation>> {
    let found: Option<Vec<&Observation>> = ids.iter().map(|id| known.get(id.as_str()).copied()).collect();
    found.filter(|found| !found.is_empty())
}

fn claim_holds(claim: &Claim, known: &BTreeMap<&str, &Observation>) -> bool {
    let Some(cited) = cited(&claim.evidence, known) else { return false };
    let quoted = claim.quote.as_ref().is_none_or(|quote| {
        let stands_in = |piece: &&Observation| matches!(piece, Observation::Log { text, .. } if text.contains(quote.as_str()));
        !quote.is_empty() && cited.iter().any(stands_in)
    });
    let said = |what: say::Say| {
        what.about(&cited).is_some_and(|said| said.text == claim.text && said.kind == claim.kind && said.quote == claim.quote)
    };
    quoted && say::ALL.into_iter().any(said)
}

fn cause_holds(cause: &Cause, known: &BTreeMap<&str, &Observation>) -> bool {
    let Some(cited) = cited(&cause.evidence, known) else { return false };
    (0.0..=1.0).contains(&cause.share) && say::cause(&cause.component, &cited).as_deref() == Some(cause.text.as_str())
}
