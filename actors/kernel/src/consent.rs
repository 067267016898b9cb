//! Consent: who may agree to a plan, how many must, and what becomes of an approval at every step.
//!
//! Pure: a standing, a step and the time give the next standing or a refusal. The ledger applies it inside one
//! transaction, so that whoever was first is first for everybody.

use serde::{Deserialize, Serialize};

use crate::{approval::ApprovalStatus, ids::ExecutionId, plan::PlanDigest, principal::Role, time::Timestamp};

/// A part of a quorum: so many different people, of one group or of anybody who may approve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Clause {
    /// The group they must be in; operators and admins when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// How many of them.
    #[schemars(range(min = 1, max = 100))]
    pub n: u32,
}

impl Clause {
    /// So many operators, of any group.
    pub const fn anybody(n: u32) -> Clause {
        Clause { group: None, n }
    }

    /// Whether this person's agreement can count for it.
    pub fn admits(&self, person: &Voter) -> bool {
        match &self.group {
            None => person.role.includes(Role::Operator),
            Some(group) => person.role.includes(Role::Viewer) && person.groups.iter().any(|own| own == group),
        }
    }
}

/// Somebody who agreed, as their account is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// The account's name.
    pub user: String,
    /// What the account may do.
    pub role: Role,
    /// The groups it is in.
    pub groups: Vec<String>,
}

/// Accounts differ by more than case.
pub fn same_person(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// How many different people the clauses need in all.
pub fn needed(clauses: &[Clause]) -> u32 {
    clauses.iter().fold(0, |sum, clause| sum.saturating_add(clause.n))
}

/// Whether these people, each counted once, fill every clause.
pub fn is_quorum(clauses: &[Clause], voters: &[Voter]) -> bool {
    // every place of every clause, each to be held by a person of its own: a matching
    let places: Vec<&Clause> = clauses.iter().flat_map(|clause| (0..clause.n).map(move |_| clause)).collect();
    if places.is_empty() || places.len() > voters.len() {
        return false;
    }
    let mut holds: Vec<Option<usize>> = vec![None; voters.len()];
    (0..places.len()).all(|place| seat(place, &places, voters, &mut holds, &mut vec![false; voters.len()]))
}

/// Finds somebody for a place, moving others to places they could hold as well.
fn seat(place: usize, places: &[&Clause], voters: &[Voter], holds: &mut [Option<usize>], asked: &mut [bool]) -> bool {
    let Some(clause) = places.get(place) else { return false };
    for (index, voter) in voters.iter().enumerate() {
        let is_new = asked.get(index) == Some(&false);
        if !is_new || !clause.admits(voter) {
            continue;
        }
        if let Some(asked) = asked.get_mut(index) {
            *asked = true;
        }
        let held = holds.get(index).copied().flatten();
        let is_free = held.is_none_or(|other| seat(other, places, voters, holds, asked));
        if is_free && let Some(hold) = holds.get_mut(index) {
            *hold = Some(place);
            return true;
        }
    }
    false
}

/// Why something was not done. Each has a code of its own for programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Whoever proposed it, through whatever session or key, cannot approve it.
    #[error("you proposed this, so somebody else must approve it")]
    SelfApproval,
    /// Neither the role nor a group allows it.
    #[error("this needs the role operator, or a group that the policy names for it")]
    NotPermitted,
    /// Keys propose; people decide.
    #[error("an API key never decides; log in and do it yourself")]
    KeyNotAllowed,
    /// The tier needs the password again.
    #[error("this needs your password again: send it as `password`")]
    StepUpRequired,
    /// What would run is not what was shown.
    #[error("the plan is not the one that was shown; look at it again, or propose it again")]
    PlanChanged,
    /// It is no longer waiting for people.
    #[error("this is {} already", .0.as_str())]
    AlreadyDecided(ApprovalStatus),
    /// Nobody decided in time.
    #[error("the time to decide is over; propose it again")]
    Expired,
    /// It was not approved, or is over.
    #[error("this is {}, not approved", .0.as_str())]
    NotApproved(ApprovalStatus),
    /// The state does not allow it; says why.
    #[error("{0}")]
    Conflict(String),
    /// The token was used already.
    #[error("this token was used already; a further run needs a new approval")]
    TokenUsed,
    /// The token is too old.
    #[error("the 15 minutes after the approval are over; propose it again")]
    TokenExpired,
    /// The token is not, or no longer, good for anything.
    #[error("this is not a valid approval token")]
    BadToken,
    /// The token is for another approval.
    #[error("this token is for another approval")]
    WrongAction,
    /// Whoever approved or proposed it may not do so any more.
    #[error("somebody who stood behind this approval may not do so any more; propose it again")]
    NotEligible,
    /// Another run works on the same target, or may still: nobody knows how it ended, and no person has closed it.
    #[error("{target} belongs to the run {run}, which is under way or waits for a person to close it; the token stays good")]
    TargetBusy {
        /// What both act on.
        target: String,
        /// The other run.
        run: ExecutionId,
    },
    /// As many runs as may be are under way. Nothing waits: what was agreed to a while ago is not to start by itself later.
    #[error("{0} runs are under way, as many as `max_runs` allows; the token stays good, so execute it again when one is over")]
    NoTurn(usize),
    /// The kill switch is engaged.
    #[error("the kill switch is engaged: {0}")]
    Frozen(String),
    /// The clock is behind a time that was already.
    #[error("the clock is behind a time that was already; an admin must look at it (opspilot clock accept)")]
    ClockRegression,
    /// A rule or a model proposes the same too often.
    #[error("the same was proposed a short while ago; the next proposal can be made at {0}")]
    CoolingDown(Timestamp),
    /// Rules and models propose too much.
    #[error("rules have made {0} proposals within the hour, which is the most they may")]
    TooMany(u32),
    /// The incident is over.
    #[error("the incident is resolved; reopen it first")]
    IncidentResolved,
    /// Nobody can carry it out.
    #[error("nothing is there to carry this out; enable the module action.safe")]
    NoExecutor,
}

impl Refusal {
    /// The code for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Refusal::SelfApproval => "self_approval",
            Refusal::NotPermitted => "forbidden",
            Refusal::KeyNotAllowed => "key_not_allowed",
            Refusal::StepUpRequired => "step_up_required",
            Refusal::PlanChanged => "plan_changed",
            Refusal::AlreadyDecided(_) => "already_decided",
            Refusal::Expired => "expired",
            Refusal::NotApproved(_) => "not_approved",
            Refusal::Conflict(_) => "conflict",
            Refusal::TokenUsed => "token_used",
            Refusal::TokenExpired => "token_expired",
            Refusal::BadToken => "bad_token",
            Refusal::WrongAction => "wrong_action",
            Refusal::NotEligible => "not_eligible",
            Refusal::TargetBusy { .. } | Refusal::NoTurn(_) => "target_busy",
            Refusal::Frozen(_) => "frozen",
            Refusal::ClockRegression => "clock_regression",
            Refusal::CoolingDown(_) => "cooling_down",
            Refusal::TooMany(_) => "too_many_proposals",
            Refusal::IncidentResolved => "incident_resolved",
            Refusal::NoExecutor => "no_executor",
        }
    }
}

/// Why an approval came to its end, where the status alone does not say what to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// A person did it.
    ByPerson,
    /// Time ran out.
    Time,
    /// The action's definition or the policy changed.
    PlanChanged,
    /// Somebody who stood behind it may not any more.
    NotEligible,
    /// Its incident was resolved.
    IncidentResolved,
    /// The epoch is another one: a restore, or a clock that was accepted.
    Epoch,
    /// The key that signed its token was revoked.
    Key,
}

/// What decides about an approval, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Where it stands.
    pub status: ApprovalStatus,
    /// The human behind the proposal, if there is one.
    pub owner: Option<String>,
    /// What was shown.
    pub digest: PlanDigest,
    /// Who must agree.
    pub clauses: Vec<Clause>,
    /// Who agreed, as their accounts are now; whoever is gone or disabled is not among them.
    pub voters: Vec<Voter>,
    /// When it expires.
    pub approve_by: Timestamp,
    /// When the approval lapses.
    pub execute_by: Option<Timestamp>,
    /// Why it ended.
    pub closed: Option<Closed>,
}

/// What somebody wants with an approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A person agrees to what they were shown.
    Approve {
        /// Who.
        by: Voter,
        /// Whether they came with an API key.
        by_key: bool,
        /// What they were shown.
        digest: PlanDigest,
    },
    /// A person says no.
    Deny {
        /// Who.
        by: Voter,
        /// Whether they came with an API key.
        by_key: bool,
    },
    /// A person takes an approval back.
    Revoke {
        /// Who.
        by: Voter,
        /// Whether they came with an API key.
        by_key: bool,
    },
    /// Whoever proposed it, or an admin, takes the proposal back.
    Withdraw {
        /// Who.
        by: Voter,
    },
    /// The used token starts the run.
    Start,
    /// Time passes.
    Time,
    /// It cannot go on, for this reason.
    Close(Closed),
}

/// How long an approval can be executed.
pub const TOKEN_LIFETIME: std::time::Duration = std::time::Duration::from_secs(15 * 60);

impl Standing {
    /// Whether this person may decide about it: by role, or by a group that one of its clauses names.
    pub fn may_decide(&self, person: &Voter) -> bool {
        person.role.includes(Role::Operator) || self.clauses.iter().any(|clause| clause.admits(person))
    }

    /// Whether this person, as their account is now, may stand behind the proposal.
    pub fn may_propose(&self, person: &Voter) -> bool {
        person.role.includes(Role::Operator)
    }

    /// What time alone makes of it.
    pub fn at(mut self, now: Timestamp) -> Standing {
        let over = match self.status {
            ApprovalStatus::Pending => (now >= self.approve_by).then_some(ApprovalStatus::Expired),
            ApprovalStatus::Approved => self.execute_by.is_none_or(|by| now >= by).then_some(ApprovalStatus::Lapsed),
            _ => None,
        };
        if let Some(status) = over {
            self.status = status;
            self.closed = Some(Closed::Time);
        }
        self
    }

    /// The next standing. A refusal changes nothing but what time alone changes.
    pub fn step(&self, step: &Step, now: Timestamp) -> Result<Standing, Refusal> {
        let mut next = self.clone().at(now);
        match step {
            Step::Approve { by, by_key, digest } => {
                if self.owner.as_deref().is_some_and(|owner| same_person(owner, &by.user)) {
                    return Err(Refusal::SelfApproval);
                }
                self.person_decides(by, *by_key)?;
                next.must_wait()?;
                if *digest != self.digest {
                    return Err(Refusal::PlanChanged);
                }
                next.voters.retain(|voter| !same_person(&voter.user, &by.user));
                next.voters.push(by.clone());
                if is_quorum(&next.clauses, &next.voters) {
                    next.status = ApprovalStatus::Approved;
                    next.execute_by = Some(now.after(TOKEN_LIFETIME));
                }
            }
            Step::Deny { by, by_key } => {
                self.person_decides(by, *by_key)?;
                next.must_wait()?;
                next.status = ApprovalStatus::Denied;
                next.closed = Some(Closed::ByPerson);
            }
            Step::Revoke { by, by_key } => {
                self.person_decides(by, *by_key)?;
                if next.status != ApprovalStatus::Approved {
                    return Err(Refusal::NotApproved(next.status));
                }
                next.status = ApprovalStatus::Revoked;
                next.closed = Some(Closed::ByPerson);
            }
            Step::Withdraw { by } => {
                let is_own = self.owner.as_deref().is_some_and(|owner| same_person(owner, &by.user));
                if !is_own && !by.role.includes(Role::Admin) {
                    return Err(Refusal::NotPermitted);
                }
                next.must_wait()?;
                next.status = ApprovalStatus::Withdrawn;
                next.closed = Some(Closed::ByPerson);
            }
            Step::Start => {
                match next.status {
                    ApprovalStatus::Approved => {}
                    ApprovalStatus::Lapsed => return Err(Refusal::TokenExpired),
                    ApprovalStatus::Executing | ApprovalStatus::Succeeded | ApprovalStatus::Failed | ApprovalStatus::Unknown => {
                        return Err(Refusal::TokenUsed);
                    }
                    other => return Err(next.ended(Refusal::NotApproved(other))),
                }
                let owner_agreed =
                    self.owner.as_deref().is_some_and(|owner| next.voters.iter().any(|voter| same_person(&voter.user, owner)));
                if owner_agreed || !is_quorum(&next.clauses, &next.voters) {
                    return Err(Refusal::NotEligible);
                }
                next.status = ApprovalStatus::Executing;
            }
            Step::Time => {}
            Step::Close(why) => match next.status {
                ApprovalStatus::Pending => {
                    next.status = match why {
                        Closed::PlanChanged => ApprovalStatus::Superseded,
                        _ => ApprovalStatus::Withdrawn,
                    };
                    next.closed = Some(*why);
                }
                ApprovalStatus::Approved => {
                    next.status = ApprovalStatus::Revoked;
                    next.closed = Some(*why);
                }
                _ => {}
            },
        }
        Ok(next)
    }

    fn person_decides(&self, by: &Voter, by_key: bool) -> Result<(), Refusal> {
        if by_key {
            return Err(Refusal::KeyNotAllowed);
        }
        if self.may_decide(by) { Ok(()) } else { Err(Refusal::NotPermitted) }
    }

    fn must_wait(&self) -> Result<(), Refusal> {
        match self.status {
            ApprovalStatus::Pending => Ok(()),
            ApprovalStatus::Expired => Err(Refusal::Expired),
            other => Err(self.ended(Refusal::AlreadyDecided(other))),
        }
    }

    /// What to answer about an approval that ended: the reason, where there is one, says more than the status.
    fn ended(&self, otherwise: Refusal) -> Refusal {
        match self.closed {
            Some(Closed::PlanChanged) => Refusal::PlanChanged,
            Some(Closed::NotEligible) => Refusal::NotEligible,
            _ => otherwise,
        }
    }
}
