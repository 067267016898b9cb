//! `opspilot approvals`: what waits for people, and what they decide about it.

use std::{
    io::{self, Read as _},
    time::Duration,
};

use clap::Subcommand;
use opspilot_kernel::{canonical::canonical, plan::PlanDigest, time::Timestamp};
use serde_json::{Value as Json, json};

use super::{
    Api, Failure, Outcome, Server, Table,
    client::ApiFailure,
    ids::{APPROVAL, INCIDENT},
    output::{complain, moment, say, say_json, text},
    terminal::Terminal,
};
use crate::plain;

/// How often a run that was started is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// After so many failures to look it is left alone: the run goes on without us.
const LOOKS_FAILED: u32 = 20;
/// As many digits of a digest as nobody makes fit by trying.
const DIGITS: usize = 12;

#[derive(Debug, Subcommand)]
pub(crate) enum Approvals {
    /// List proposals and what became of them, newest first
    List {
        /// Only pending, approved, executing, succeeded, failed, unknown, denied, expired, lapsed, revoked, superseded or withdrawn ones
        #[arg(long)]
        status: Option<String>,
        /// Only of this incident
        #[arg(long)]
        incident: Option<String>,
        /// How many
        #[arg(long, default_value_t = 50)]
        limit: u16,
        #[command(flatten)]
        server: Server,
    },
    /// Show one: the exact command, its digest, who must agree, how long there is
    Show {
        /// Its id, or the start of it
        id: String,
        #[command(flatten)]
        server: Server,
    },
    /// Agree to the command that is shown
    Approve {
        /// Its id, or the start of it
        id: String,
        /// Why
        #[arg(long, short, default_value = "")]
        reason: String,
        /// Start it at once, and wait for its end
        #[arg(long)]
        execute: bool,
        /// Do not ask; needs --digest
        #[arg(long, short, requires = "digest")]
        yes: bool,
        /// The plan you looked at: its digest, or the first 12 digits of it; another plan is not agreed to
        #[arg(long)]
        digest: Option<String>,
        /// Read your password from standard input instead of the terminal, for the tier destructive
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Say no
    Deny {
        /// Its id, or the start of it
        id: String,
        /// Why
        #[arg(long, short)]
        reason: String,
        #[command(flatten)]
        server: Server,
    },
    /// Start what you approved, and wait for its end
    Execute {
        /// Its id, or the start of it
        id: String,
        /// Read the approval token from standard input, instead of having it made anew
        #[arg(long)]
        token_stdin: bool,
        #[command(flatten)]
        server: Server,
    },
}

impl Approvals {
    pub(crate) async fn run(self) -> Outcome {
        match self {
            Approvals::List { status, incident, limit, server } => list(status, incident, limit, &server).await,
            Approvals::Show { id, server } => {
                let api = Api::of(&server)?;
                let approval = found(&api, &id).await?;
                if server.json {
                    say_json(&approval)
                } else {
                    show(&approval)
                }
                Ok(())
            }
            Approvals::Approve { id, reason, execute, yes, digest, password_stdin, server } => {
                approve(&server, &id, &reason, Consent { run: execute, yes, digest, password_stdin }).await
            }
            Approvals::Deny { id, reason, server } => {
                let api = Api::of(&server)?;
                let id = APPROVAL.of_service(&api, &id).await?;
                let approval = api.post(&format!("/api/approvals/{id}/deny"), &json!({ "reason": reason })).await?;
                if server.json {
                    say_json(&approval);
                } else {
                    say(&format!("{id} is {}: {}", text(&approval, "status"), plain::stripped(text(&approval, "title"))));
                }
                Ok(())
            }
            Approvals::Execute { id, token_stdin, server } => {
                let api = Api::of(&server)?;
                let id = APPROVAL.of_service(&api, &id).await?;
                let token = if token_stdin { line_of_stdin()? } else { made_anew(&api, &id).await? };
                execute(&api, &server, &id, &token).await
            }
        }
    }
}

async fn found(api: &Api, id: &str) -> Result<Json, Failure> {
    let id = APPROVAL.of_service(api, id).await?;
    Ok(api.get(&format!("/api/approvals/{id}")).await?)
}

async fn list(status: Option<String>, incident: Option<String>, limit: u16, server: &Server) -> Outcome {
    let api = Api::of(server)?;
    let mut path = format!("/api/approvals?limit={limit}");
    if let Some(status) = status {
        path.push_str(&format!("&status={}", super::client::encoded(&status)));
    }
    if let Some(incident) = incident {
        path.push_str(&format!("&incident={}", INCIDENT.of_service(&api, &incident).await?));
    }
    let answer = api.get(&path).await?;
    if server.json {
        say_json(&answer);
        return Ok(());
    }
    let items = answer.get("items").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        say("nothing was proposed");
        return Ok(());
    }
    let mut table = Table::new(&["id", "status", "risk", "agreed", "left", "proposed by", "title"]);
    for item in items {
        let quorum = item.get("quorum").unwrap_or(&Json::Null);
        table.row([
            text(item, "id").get(..12).unwrap_or_else(|| text(item, "id")).to_owned(),
            text(item, "status").to_owned(),
            text(item, "risk").to_owned(),
            format!("{}/{}", names(quorum).len(), quorum.get("required").and_then(Json::as_u64).unwrap_or(0)),
            left(item).unwrap_or_default(),
            proposer(item),
            text(item, "title").to_owned(),
        ]);
    }
    table.print();
    if answer.get("next_cursor").is_some_and(Json::is_string) {
        say("… there are more: raise --limit, or narrow the list with --status, --incident");
    }
    Ok(())
}

fn names(quorum: &Json) -> Vec<&str> {
    quorum.get("approved_by").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect()
}

fn proposer(approval: &Json) -> String {
    let by = approval.get("proposed_by").unwrap_or(&Json::Null);
    format!("{} {}", text(by, "type"), text(by, "id"))
}

/// How long there still is to decide or to execute.
fn left(approval: &Json) -> Option<String> {
    let field = match text(approval, "status") {
        "pending" => "approve_by",
        "approved" => "execute_by",
        _ => return None,
    };
    let until: Timestamp = text(approval, field).parse().ok()?;
    let seconds = until.since(opspilot_kernel::clock::SystemClock::shared().now()).as_secs();
    Some(format!("{}:{:02}", seconds / 60, seconds % 60))
}

fn show(approval: &Json) {
    let line = |label: &str, value: &str| {
        if !value.is_empty() {
            say(&format!("{label:<13}{}", plain::stripped(value)));
        }
    };
    let plan = approval.get("plan").unwrap_or(&Json::Null);
    let quorum = approval.get("quorum").unwrap_or(&Json::Null);
    say(&plain::stripped(text(approval, "title")));
    line("id", text(approval, "id"));
    line("status", text(approval, "status"));
    line("risk", text(approval, "risk"));
    line("incident", text(approval, "incident_id"));
    line("proposed by", &proposer(approval));
    line("because", text(approval, "reasoning"));
    line("needs", &format!("{} of {}", names(quorum).len(), quorum.get("required").and_then(Json::as_u64).unwrap_or(0)));
    line("agreed", &names(quorum).join(", "));
    line("left", &left(approval).unwrap_or_default());
    line("execution", text(approval, "execution_id"));
    say("\nwhat runs, argument by argument");
    for (index, argument) in plan.get("argv").and_then(Json::as_array).into_iter().flatten().enumerate() {
        // written out, so that nothing in it can pass for something else
        say(&format!("  {index:>3}  {}", written(argument)));
    }
    // all that the digest covers, also what this program does not know
    say("\nwhat else is agreed to");
    for (key, value) in plan.as_object().into_iter().flatten().filter(|(key, _)| *key != "argv") {
        let only = std::slice::from_ref(value);
        // each item on a line of its own: where one ends is no guess
        for value in value.as_array().filter(|items| !items.is_empty()).map_or(only, Vec::as_slice) {
            say(&format!("  {:<18} {}", plain::escaped(key), written(value)));
        }
    }
    line("\ndigest", text(approval, "plan_digest"));
}

/// A value of a plan, as it stands.
fn written(value: &Json) -> String {
    match value {
        Json::Null => "none".to_owned(),
        Json::String(text) => plain::escaped(text).into_owned(),
        Json::Array(items) if items.is_empty() => "none".to_owned(),
        other => plain::escaped(&other.to_string()).into_owned(),
    }
}

/// Whether the digest that goes on record is that of the plan that is shown, and begins as `wanted` does.
fn is_shown(approval: &Json, wanted: Option<&str>) -> Outcome {
    let digest = text(approval, "plan_digest");
    let plan = approval.get("plan").and_then(|plan| canonical(plan).ok());
    if plan.is_none_or(|plan| PlanDigest::of(&plan).to_string() != digest) {
        return Err(Failure::from("the digest is not that of the plan that is shown; nothing is agreed to"));
    }
    let Some(wanted) = wanted else { return Ok(()) };
    let bare = |digest: &str| digest.strip_prefix("sha256:").unwrap_or(digest).to_ascii_lowercase();
    let wanted = bare(wanted);
    if wanted.len() < DIGITS || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::from(format!(
            "--digest takes at least {DIGITS} hex digits of the digest that `opspilot approvals show` shows"
        )));
    }
    if bare(digest).starts_with(&wanted) {
        Ok(())
    } else {
        Err(Failure::from(format!("this is another plan than {wanted}: its digest is {digest}; look at it again")))
    }
}

/// How somebody agrees.
struct Consent {
    run: bool,
    yes: bool,
    digest: Option<String>,
    password_stdin: bool,
}

async fn approve(server: &Server, id: &str, reason: &str, consent: Consent) -> Outcome {
    let Consent { run, yes, digest, password_stdin } = consent;
    let api = Api::of(server)?;
    let approval = found(&api, id).await?;
    let id = text(&approval, "id").to_owned();
    if !server.json {
        show(&approval);
    }
    is_shown(&approval, digest.as_deref())?;
    let mut password = if password_stdin { Some(line_of_stdin()?) } else { None };
    if !yes {
        let mut terminal = Terminal::open().ok_or_else(|| {
            Failure::from("nobody is there to be asked; look at it with `opspilot approvals show`, then say --yes --digest DIGEST")
        })?;
        agreed(&mut terminal, run)?;
        if password.is_none() && text(&approval, "risk") == "destructive" {
            password = Some(terminal.secret("your password: ")?);
        }
    }
    let mut body = json!({ "plan_digest": text(&approval, "plan_digest"), "reason": reason });
    if let (Some(password), Some(body)) = (password, body.as_object_mut()) {
        body.insert("password".to_owned(), password.into());
    }
    let mut answer = api.post(&format!("/api/approvals/{id}/approve"), &body).await?;
    let token = answer.as_object_mut().and_then(|answer| answer.remove("token")).and_then(|token| token.as_str().map(str::to_owned));
    match token {
        None => {
            if server.json {
                say_json(&answer)
            } else {
                say("noted; more people are needed")
            }
            Ok(())
        }
        Some(token) if run => execute(&api, server, &id, &token).await,
        // it is not shown: whoever approved can have it made anew
        Some(_) if server.json => {
            say_json(&answer);
            Ok(())
        }
        Some(_) => {
            say(&format!("approved until {}; start it with `opspilot approvals execute {id}`", moment(text(&answer, "expires_at"))));
            Ok(())
        }
    }
}

/// Asks; anything but `yes` is a no.
fn agreed(terminal: &mut Terminal, run: bool) -> Outcome {
    let question = if run { "approve exactly this, and run it? [yes/no] " } else { "approve exactly this? [yes/no] " };
    if terminal.line(question)?.trim() == "yes" { Ok(()) } else { Err(Failure::from("not approved")) }
}

fn line_of_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin().lock().take(8192).read_to_string(&mut text)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

async fn made_anew(api: &Api, id: &str) -> Result<String, Failure> {
    let answer = api.post(&format!("/api/approvals/{id}/token"), &json!({})).await?;
    Ok(text(&answer, "token").to_owned())
}

/// Starts the run, waits for its end and shows it. Ends with 1 unless it succeeded.
async fn execute(api: &Api, server: &Server, id: &str, token: &str) -> Outcome {
    let run = match api.post_with(&format!("/api/approvals/{id}/execute"), ("X-Approval-Token", token)).await {
        Ok(started) => text(&started, "execution_id").to_owned(),
        Err(lost) if lost.leaves_open() => became(api, id, lost).await?,
        Err(refused) => return Err(refused.into()),
    };
    let mut failed = 0;
    let execution = loop {
        match api.get(&format!("/api/executions/{run}")).await {
            Ok(execution) if text(&execution, "status") == "executing" => failed = 0,
            Ok(execution) => break execution,
            Err(error) if failed >= LOOKS_FAILED => {
                return Err(Failure::from(format!("{run} was started, but its end cannot be seen: {error}")));
            }
            Err(_) => failed += 1,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let status = text(&execution, "status").to_owned();
    if server.json {
        say_json(&execution);
    } else {
        for line in text(&execution, "stdout").lines() {
            say(&plain::escaped(line));
        }
        for line in text(&execution, "stderr").lines() {
            complain(line);
        }
        let code = execution.get("exit_code").and_then(Json::as_i64).map(|code| format!(", exit code {code}")).unwrap_or_default();
        let reason = text(&execution, "reason");
        let because = if reason.is_empty() { String::new() } else { format!(" ({})", plain::stripped(reason)) };
        say(&format!("{run} {status}{code}{because}"));
    }
    if status == "succeeded" { Ok(()) } else { Err(Failure { text: String::new(), code: 1 }) }
}

/// The run that was started although the answer said nothing of it; or what is known instead.
async fn became(api: &Api, id: &str, lost: ApiFailure) -> Result<String, Failure> {
    complain(&lost.to_string());
    let mut failed = 0;
    let approval = loop {
        match api.get(&format!("/api/approvals/{id}")).await {
            Ok(approval) => break approval,
            Err(_) if failed < LOOKS_FAILED => failed += 1,
            Err(error) => return Err(open(id, &format!("what became of {id} cannot be seen: {error}"))),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    };
    match text(&approval, "execution_id") {
        "" => Err(open(id, &format!("{id} is {} just now", text(&approval, "status")))),
        run => {
            complain(&format!("the answer was lost, but {run} was started"));
            Ok(run.to_owned())
        }
    }
}

fn open(id: &str, now: &str) -> Failure {
    Failure::from(format!(
        "it may have started; {now}\ndo not propose it again: look with `opspilot approvals show {id}`. As long as it is approved, \
         `opspilot approvals execute {id}` starts it at most once"
    ))
}
