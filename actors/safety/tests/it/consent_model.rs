//! The rules of consent against a model that tries everything.

use std::time::Duration;

use opspilot_kernel::{
    approval::ApprovalStatus as Status,
    consent::{Clause, Closed, Refusal, Standing, Step, Voter, is_quorum},
    plan::PlanDigest,
    principal::Role,
    time::Timestamp,
};
use proptest::prelude::*;

const PEOPLE: [(&str, Role, &[&str]); 6] = [
    ("ada", Role::Operator, &[]),
    ("bob", Role::Operator, &["sre"]),
    ("cleo", Role::Admin, &["sre", "owners"]),
    ("dora", Role::Viewer, &["owners"]),
    ("eve", Role::Viewer, &[]),
    ("ingo", Role::Integrator, &["sre"]),
];

fn person(index: usize) -> Voter {
    let (user, role, groups) = PEOPLE[index % PEOPLE.len()];
    Voter { user: user.to_owned(), role, groups: groups.iter().map(|group| (*group).to_owned()).collect() }
}

/// Tries every way to give the places to people.
fn fills(places: &[Option<String>], people: &[usize]) -> bool {
    let Some((place, rest)) = places.split_first() else { return true };
    (0..people.len()).any(|at| {
        let (_, role, groups) = PEOPLE[people[at]];
        let fits = match place {
            None => matches!(role, Role::Operator | Role::Admin),
            Some(group) => role != Role::Integrator && groups.contains(&group.as_str()),
        };
        let others: Vec<usize> = people.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, person)| *person).collect();
        fits && fills(rest, &others)
    })
}

fn places(clauses: &[Clause]) -> Vec<Option<String>> {
    clauses.iter().flat_map(|clause| (0..clause.n).map(|_| clause.group.clone())).collect()
}

fn clauses() -> impl Strategy<Value = Vec<Clause>> {
    let group = prop_oneof![Just(None), Just(Some("sre".to_owned())), Just(Some("owners".to_owned()))];
    prop::collection::vec((group, 1..3_u32).prop_map(|(group, n)| Clause { group, n }), 1..3)
}

#[derive(Debug, Clone)]
enum Deed {
    Approve(usize, bool, bool),
    Deny(usize, bool),
    Revoke(usize),
    Withdraw(usize),
    Start,
    Pass(u64),
    Close,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let who = 0..PEOPLE.len();
    let deed = prop_oneof![
        6 => (who.clone(), prop::bool::weighted(0.1), prop::bool::weighted(0.9)).prop_map(|(who, key, right)| Deed::Approve(who, key, right)),
        1 => (who.clone(), prop::bool::ANY).prop_map(|(who, key)| Deed::Deny(who, key)),
        1 => who.clone().prop_map(Deed::Revoke),
        1 => who.prop_map(Deed::Withdraw),
        2 => Just(Deed::Start),
        2 => (1..1000_u64).prop_map(Deed::Pass),
        1 => Just(Deed::Close),
    ];
    prop::collection::vec(deed, 0..24)
}

/// What matters of an approval, as simply as it can be said.
struct Model {
    status: Status,
    agreed: Vec<usize>,
    decided_at: u64,
}

impl Model {
    fn pass(&mut self, now: u64) {
        if self.status == Status::Pending && now >= 3600 {
            self.status = Status::Expired;
        }
        if self.status == Status::Approved && now >= self.decided_at + 900 {
            self.status = Status::Lapsed;
        }
    }

    /// Whether it is done; the state is as it is after time passed.
    fn does(&mut self, deed: &Deed, now: u64, owner: Option<usize>, clauses: &[Clause]) -> bool {
        self.pass(now);
        let decides = |who: usize| {
            let (_, role, groups) = PEOPLE[who];
            let named = clauses.iter().filter_map(|clause| clause.group.as_deref()).any(|group| groups.contains(&group));
            matches!(role, Role::Operator | Role::Admin) || (role == Role::Viewer && named)
        };
        match deed {
            Deed::Approve(who, key, right) => {
                let may = owner != Some(*who) && !key && *right && decides(*who) && self.status == Status::Pending;
                if may {
                    self.agreed.retain(|other| other != who);
                    self.agreed.push(*who);
                    if fills(&places(clauses), &self.agreed) {
                        (self.status, self.decided_at) = (Status::Approved, now);
                    }
                }
                may
            }
            Deed::Deny(who, key) => self.turn(!key && decides(*who), Status::Pending, Status::Denied),
            Deed::Revoke(who) => self.turn(decides(*who), Status::Approved, Status::Revoked),
            Deed::Withdraw(who) => self.turn(owner == Some(*who) || PEOPLE[*who].1 == Role::Admin, Status::Pending, Status::Withdrawn),
            Deed::Start => self.turn(true, Status::Approved, Status::Executing),
            Deed::Pass(_) => true,
            Deed::Close => {
                match self.status {
                    Status::Pending => self.status = Status::Superseded,
                    Status::Approved => self.status = Status::Revoked,
                    _ => {}
                }
                true
            }
        }
    }

    fn turn(&mut self, may: bool, from: Status, to: Status) -> bool {
        let done = may && self.status == from;
        if done {
            self.status = to;
        }
        done
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_quorum_is_what_can_be_seated(clauses in clauses(), people in prop::collection::btree_set(0..PEOPLE.len(), 0..6)) {
        let people: Vec<usize> = people.into_iter().collect();
        let voters: Vec<Voter> = people.iter().map(|index| person(*index)).collect();
        prop_assert_eq!(is_quorum(&clauses, &voters), fills(&places(&clauses), &people));
    }

    #[test]
    fn every_step_does_what_the_model_does(clauses in clauses(), owner in prop::option::of(0..PEOPLE.len()), deeds in deeds()) {
        let digest = PlanDigest::of(b"shown");
        let at = |second: u64| Timestamp::from_millis(1_000_000).after(Duration::from_secs(second));
        let mut standing = Standing {
            status: Status::Pending, owner: owner.map(|owner| PEOPLE[owner].0.to_owned()), digest, clauses: clauses.clone(),
            voters: Vec::new(), approve_by: at(3600), execute_by: None, closed: None,
        };
        let mut model = Model { status: Status::Pending, agreed: Vec::new(), decided_at: 0 };
        let mut now = 0;
        for deed in deeds {
            let step = match &deed {
                Deed::Approve(who, by_key, right) => Step::Approve {
                    by: person(*who), by_key: *by_key, digest: if *right { digest } else { PlanDigest::of(b"another") },
                },
                Deed::Deny(who, by_key) => Step::Deny { by: person(*who), by_key: *by_key },
                Deed::Revoke(who) => Step::Revoke { by: person(*who), by_key: false },
                Deed::Withdraw(who) => Step::Withdraw { by: person(*who) },
                Deed::Start => Step::Start,
                Deed::Pass(seconds) => { now += seconds; Step::Time }
                Deed::Close => Step::Close(Closed::PlanChanged),
            };
            let outcome = standing.step(&step, at(now));
            let done = model.does(&deed, now, owner, &clauses);
            prop_assert_eq!(outcome.is_ok(), done, "{:?} at {}: {:?}", deed, now, outcome);
            standing = outcome.unwrap_or_else(|_| standing.at(at(now)));
            prop_assert_eq!(standing.status, model.status, "{:?} at {}", deed, now);
            if standing.status == Status::Executing {
                // nothing runs that its proposer agreed to, or that a quorum did not
                prop_assert!(!standing.voters.iter().any(|voter| Some(voter.user.as_str()) == standing.owner.as_deref()));
                prop_assert!(is_quorum(&clauses, &standing.voters));
            }
        }
    }

    #[test]
    fn whoever_proposed_it_is_told_so_first(key in prop::bool::ANY, right in prop::bool::ANY) {
        let digest = PlanDigest::of(b"shown");
        let standing = Standing {
            status: Status::Pending, owner: Some("ADA".to_owned()), digest, clauses: vec![Clause::anybody(1)], voters: Vec::new(),
            approve_by: Timestamp::from_millis(1000), execute_by: None, closed: None,
        };
        let digest = if right { digest } else { PlanDigest::of(b"another") };
        let step = Step::Approve { by: person(0), by_key: key, digest };
        prop_assert_eq!(standing.step(&step, Timestamp::from_millis(0)), Err(Refusal::SelfApproval));
    }
}
