//! The policy: how long people have to decide, how many must agree, and how often rules may propose.

use std::{collections::BTreeSet, time::Duration};

use opspilot_kernel::{
    canonical::canonical,
    config::{Problem, Span},
    consent::{Clause, needed},
    plan::{PlanDigest, Risk},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most people that all clauses of a tier may ask for.
const MOST_PEOPLE: u32 = 20;

/// Who must agree to actions, and how long they have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// How long a proposal waits for people, from 1 minute to 7 days.
    pub approve_by: Span,
    /// Who must agree, for single tiers. By default one operator, for `destructive` two.
    pub quorum: Vec<TierQuorum>,
    /// How often rules and models may propose. What people propose is never held back.
    pub proposals: Proposals,
}

/// Who must agree to the actions of one tier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TierQuorum {
    /// The tier.
    pub tier: Risk,
    /// All of these must hold, by different people.
    pub require: Vec<Clause>,
}

/// How often rules and models may propose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Proposals {
    /// The same plan is not proposed again within this time.
    pub cooldown: Span,
    /// Proposals within an hour, all rules and models together.
    #[schemars(range(min = 1, max = 10_000))]
    pub per_hour: u32,
}

impl Default for Proposals {
    fn default() -> Proposals {
        Proposals { cooldown: Span::seconds(600), per_hour: 60 }
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { approve_by: Span::seconds(3600), quorum: Vec::new(), proposals: Proposals::default() }
    }
}

impl Policy {
    /// Every problem that the types alone cannot show; pointers start at the section.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(Duration::from_secs(60)..=Duration::from_secs(7 * 86_400)).contains(&self.approve_by.0) {
            problems.push(Problem::at("/approve_by", "is from 1m to 7d"));
        }
        if self.proposals.per_hour == 0 {
            problems.push(Problem::at("/proposals/per_hour", "is at least 1; to hear of no proposals, write no rules"));
        }
        let mut seen = BTreeSet::new();
        for (index, quorum) in self.quorum.iter().enumerate() {
            if !seen.insert(quorum.tier) {
                problems.push(Problem::at(format!("/quorum/{index}/tier"), format!("{} stands here twice", quorum.tier.as_str())));
            }
            let people = needed(&quorum.require);
            if quorum.require.iter().any(|clause| clause.n == 0) || !(1..=MOST_PEOPLE).contains(&people) {
                let text = format!("every clause asks for at least one person, and all of them for at most {MOST_PEOPLE}");
                problems.push(Problem::at(format!("/quorum/{index}/require"), text));
            } else if quorum.tier == Risk::Destructive && people < 2 {
                let text = "destructive actions need at least two people".to_owned();
                problems.push(Problem::at(format!("/quorum/{index}/require"), text));
            }
            for (place, clause) in quorum.require.iter().enumerate() {
                if clause.group.as_deref().is_some_and(str::is_empty) {
                    problems.push(Problem::at(format!("/quorum/{index}/require/{place}/group"), "name a group, or leave it out"));
                }
            }
        }
        problems
    }

    /// Who must agree to an action of this tier.
    pub fn clauses(&self, risk: Risk) -> Vec<Clause> {
        let own = self.quorum.iter().find(|quorum| quorum.tier == risk).map(|quorum| quorum.require.clone());
        own.unwrap_or_else(|| vec![Clause::anybody(if risk == Risk::Destructive { 2 } else { 1 })])
    }

    /// Whether a clause names one of these groups: such people decide, whatever their role is.
    pub fn names_group(&self, groups: &[String]) -> bool {
        let mut named = self.quorum.iter().flat_map(|quorum| &quorum.require).filter_map(|clause| clause.group.as_deref());
        named.any(|name| groups.iter().any(|own| own == name))
    }

    /// SHA-256 over what decides about one tier, `sha256:…`: another policy makes another plan.
    pub fn digest(&self, risk: Risk) -> String {
        let decides = serde_json::json!({ "v": 1, "tier": risk, "require": self.clauses(risk) });
        // numbers here are small and whole, so it can always be hashed; if not, nothing would match it
        canonical(&decides).map_or_else(|_| "unhashable".to_owned(), |bytes| PlanDigest::of(&bytes).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_word_one_person_agrees_and_two_to_destruction() {
        let policy = Policy::default();
        assert_eq!(policy.validate(), []);
        let people: Vec<u32> = Risk::ALL.iter().map(|risk| needed(&policy.clauses(*risk))).collect();
        assert_eq!(people, [1, 1, 1, 2]);
    }

    #[test]
    fn a_policy_that_would_let_one_person_destroy_is_refused() {
        let require = |n| vec![TierQuorum { tier: Risk::Destructive, require: vec![Clause { group: Some("sre".to_owned()), n }] }];
        let with = |quorum| Policy { quorum, ..Policy::default() }.validate().len();
        assert_eq!((with(require(0)), with(require(1)), with(require(2)), with(require(21))), (1, 1, 0, 1));
    }

    #[test]
    fn what_does_not_decide_about_a_tier_does_not_change_its_plans() {
        let policy = Policy::default();
        let later = Policy { approve_by: Span::seconds(120), ..policy.clone() };
        assert_eq!(policy.digest(Risk::Read), later.digest(Risk::Read));
        let stricter = Policy { quorum: vec![TierQuorum { tier: Risk::Read, require: vec![Clause::anybody(3)] }], ..policy.clone() };
        assert_ne!(policy.digest(Risk::Read), stricter.digest(Risk::Read));
        assert_eq!(policy.digest(Risk::Reversible), stricter.digest(Risk::Reversible));
    }
}
