//! What people do about the outage: somebody reads the explanation, another one approves the repair that a rule proposed,
//! with the digest they were shown, and starts it. All of it over the API, one step at a time.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::cli::{Api, Failure, Outcome, tell, text};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What explains incidents.
const EXPLAINER: &str = "enricher.aiSummary";

/// How far it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Explained,
    Proposed,
    Running { approval: String, execution: String },
    Done { approval: String },
}

/// Somebody who approves what is proposed.
pub(super) struct Consent {
    proposer: Api,
    approver: Api,
    stage: Stage,
    since: tokio::time::Instant,
}

impl Consent {
    /// `proposer` looks; `approver`, somebody else, decides.
    pub(super) fn new(proposer: &Api, approver: &Api) -> Consent {
        let explains = crate::topology::catalogue().iter().any(|entry| entry.id.as_str() == EXPLAINER);
        let stage = if explains { Stage::Explained } else { Stage::Proposed };
        Consent { proposer: proposer.clone(), approver: approver.clone(), stage, since: tokio::time::Instant::now() }
    }

    /// Whether the repair ran, and succeeded.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done { .. })
    }

    /// The approval that it was about.
    pub(super) fn approval(&self) -> Option<&str> {
        match &self.stage {
            Stage::Done { approval } => Some(approval),
            _ => None,
        }
    }

    /// Does the next step if it can be done now.
    pub(super) async fn step(&mut self, incident: Option<&str>, is_explained: bool) -> Outcome {
        let before = self.stage.clone();
        match &before {
            Stage::Explained if is_explained => self.stage = Stage::Proposed,
            Stage::Proposed => {
                if let Some(incident) = incident
                    && let Some(proposed) = waiting(&self.proposer, incident).await?
                {
                    self.stage = self.approve(&proposed).await?;
                }
            }
            Stage::Running { approval, execution } => self.look(approval, execution).await?,
            Stage::Explained | Stage::Done { .. } => {}
        }
        if self.stage != before {
            self.since = tokio::time::Instant::now();
        } else if !self.is_done() && self.since.elapsed() > PATIENCE {
            return Err(Failure::from(match before {
                Stage::Explained => "the incident of the database was not explained within a minute".to_owned(),
                Stage::Proposed => "no repair was proposed within a minute".to_owned(),
                Stage::Running { execution, .. } => format!("the repair {execution} did not end within a minute"),
                Stage::Done { .. } => String::new(),
            }));
        }
        Ok(())
    }

    /// Agrees to what is shown, and starts it.
    async fn approve(&self, proposed: &Json) -> Result<Stage, Failure> {
        let id = text(proposed, "id").to_owned();
        let path = format!("/api/approvals/{id}");
        // what the approver sees is what they agree to
        let shown = self.approver.get(&path).await?;
        let digest = text(&shown, "plan_digest");
        let preview = shown.pointer("/preview/text").and_then(Json::as_str).unwrap_or_default();
        tell(&format!("the approver reads: {}\n  {}", text(&shown, "title"), crate::plain::stripped(preview)))?;
        let reason = "the volume is known, and mounting it is harmless";
        let decided = self.approver.post(&format!("{path}/approve"), &json!({ "plan_digest": digest, "reason": reason })).await?;
        let token = decided.get("token").and_then(Json::as_str).ok_or("there was no token in the answer to the approval")?;
        let begun = self.approver.post_with(&format!("{path}/execute"), ("X-Approval-Token", token)).await?;
        let execution = begun.get("execution_id").and_then(Json::as_str).ok_or("the execution has no id")?.to_owned();
        Ok(Stage::Running { approval: id, execution })
    }

    async fn look(&mut self, approval: &str, execution: &str) -> Outcome {
        let run = self.proposer.get(&format!("/api/executions/{execution}")).await?;
        match text(&run, "status") {
            "executing" => {}
            "succeeded" => {
                tell(&format!("the repair says: {}", crate::plain::stripped(text(&run, "stdout").trim_end())))?;
                self.stage = Stage::Done { approval: approval.to_owned() };
            }
            status => {
                let why = format!("the repair {status}: {} {}", text(&run, "reason"), text(&run, "stderr"));
                return Err(Failure::from(crate::plain::stripped(&why).into_owned()));
            }
        }
        Ok(())
    }
}

/// The proposal for this incident that waits for people.
pub(super) async fn waiting(api: &Api, incident: &str) -> Result<Option<Json>, Failure> {
    let listed = api.get(&format!("/api/approvals?status=pending&incident={incident}")).await?;
    Ok(listed.get("items").and_then(|items| items.get(0)).cloned())
}
