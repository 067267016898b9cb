//! How approvals and runs look in the API document. The kernel's types are what is sent, and know nothing of the document;
//! a test holds the two together.

use std::collections::BTreeMap;

use utoipa::ToSchema;

/// One proposed plan.
#[derive(ToSchema)]
pub struct Approval {
    /// `apr_…`.
    pub id: String,
    /// The incident it is to help.
    pub incident_id: String,
    /// The action of the catalogue.
    pub action: String,
    /// One line for people.
    pub title: String,
    /// `read`, `reversible`, `disruptive` or `destructive`.
    pub risk: String,
    /// What the action's slots were filled with.
    #[schema(value_type = Object)]
    pub params: (),
    /// What exactly would run.
    pub plan: Plan,
    /// `sha256:` over the plan's canonical JSON (RFC 8785): what approval binds to.
    pub plan_digest: String,
    /// What an approver is shown besides the plan.
    pub preview: Preview,
    /// Why it was proposed.
    pub reasoning: String,
    /// Who proposed it.
    pub proposed_by: Proposer,
    /// `pending`, `approved`, `executing`, `succeeded`, `failed`, `unknown`, `denied`, `expired`, `lapsed`, `revoked`,
    /// `superseded` or `withdrawn`.
    pub status: String,
    /// How many people must agree, and who did.
    pub quorum: Quorum,
    /// When it was proposed.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it expires unless it is decided.
    #[schema(format = DateTime)]
    pub approve_by: String,
    /// When the approval lapses unless it is executed.
    #[schema(format = DateTime)]
    pub execute_by: Option<String>,
    /// Its run.
    pub execution_id: Option<String>,
}

/// All that decides what happens when it runs. Whatever else stands in it is agreed to as well.
#[derive(ToSchema)]
pub struct Plan {
    /// The version of this shape.
    pub v: u32,
    /// What carries it out: `process`.
    pub executor: String,
    /// The action of the catalogue that it was rendered from.
    pub action: String,
    /// SHA-256 over the action's definition.
    pub template: String,
    /// SHA-256 over the policy in force when it was rendered.
    pub policy: String,
    /// The program and its arguments, each passed as it stands.
    pub argv: Vec<String>,
    /// The files that are run, by their content.
    pub files: Vec<PlanFile>,
    /// Names of the variables that the program gets besides the fixed ones.
    pub env: Vec<String>,
    /// By name, a keyed hash of each of their values, or `unset`.
    pub env_values: BTreeMap<String, String>,
    /// The directory it runs in.
    pub cwd: String,
    /// The user id it runs as; the service's own when null.
    pub uid: Option<u32>,
    /// Seconds after which it is ended.
    pub timeout_secs: u64,
    /// Seconds without output after which it is ended.
    pub idle_timeout_secs: Option<u64>,
    /// Bytes kept of each of its two outputs.
    pub output_bytes: u64,
    /// Bounds on each of its processes.
    pub limits: Option<PlanLimits>,
    /// What it acts on.
    pub targets: Vec<String>,
}

/// A file that is run.
#[derive(ToSchema)]
pub struct PlanFile {
    /// Its absolute path, as the arguments name it.
    pub path: String,
    /// SHA-256 over what is in it, in hex.
    pub sha256: String,
}

/// Bounds on each process of a run.
#[derive(ToSchema)]
pub struct PlanLimits {
    /// Bytes of address space.
    pub memory: u64,
    /// Bytes of each file that is written.
    pub file_size: u64,
}

/// What an approver is shown besides the plan.
#[derive(ToSchema)]
pub struct Preview {
    /// In words and as a command line.
    pub text: String,
    /// How many targets it touches.
    pub targets: u64,
}

/// What proposed it.
#[derive(ToSchema)]
pub struct Proposer {
    /// `rule`, `user` or `ai`.
    pub r#type: String,
    /// Its name.
    pub id: String,
}

/// How many people must agree, and who did.
#[derive(ToSchema)]
pub struct Quorum {
    /// How many different people are needed.
    pub required: u32,
    /// Who agreed so far.
    pub approved_by: Vec<String>,
}

/// One part of a list of approvals.
#[derive(ToSchema)]
pub struct Approvals {
    /// The items.
    pub items: Vec<Approval>,
    /// Ask with `cursor=` this for the next ones; null at the end.
    pub next_cursor: Option<String>,
}

/// An approval that enough people gave.
#[derive(ToSchema)]
pub struct Token {
    /// `approved`.
    pub status: String,
    /// What starts it, once; shown once.
    pub token: String,
    /// Its name in the audit log.
    pub token_id: String,
    /// When it is of no more use.
    #[schema(format = DateTime)]
    pub expires_at: String,
}

/// An approval that more people must give.
#[derive(ToSchema)]
pub struct Noted {
    /// `pending`.
    pub status: String,
    /// How many people must agree, and who did.
    pub quorum: Quorum,
    /// What was agreed to.
    pub plan_digest: String,
    /// When it expires unless it is decided.
    #[schema(format = DateTime)]
    pub approve_by: String,
}

/// A run that begins.
#[derive(ToSchema)]
pub struct Started {
    /// `exe_…`.
    pub execution_id: String,
    /// `executing`.
    pub status: String,
}

/// The run of an approved plan.
#[derive(ToSchema)]
pub struct Execution {
    /// `exe_…`.
    pub id: String,
    /// The approval that was used up for it.
    pub approval_id: String,
    /// `executing`, `succeeded`, `failed`, `timed_out` or `unknown`.
    pub status: String,
    /// Why, where the status alone does not say it.
    pub reason: Option<String>,
    /// What the program returned.
    pub exit_code: Option<i32>,
    /// What it wrote to its standard output: the head and the tail.
    pub stdout: String,
    /// What it wrote to its standard error: the head and the tail.
    pub stderr: String,
    /// Whether something between head and tail is missing.
    pub truncated: bool,
    /// When it was started.
    #[schema(format = DateTime)]
    pub started_at: String,
    /// When it ended.
    #[schema(format = DateTime)]
    pub finished_at: Option<String>,
    /// What held it in: `pgroup`, `cgroup`.
    pub containment: Option<String>,
    /// What else kept it from doing harm.
    #[schema(value_type = Option<Object>)]
    pub sandbox: Option<BTreeMap<String, String>>,
    /// Whether signals showed afterwards that it helped; null while nobody looked.
    pub verified: Option<bool>,
}
