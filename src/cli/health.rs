//! `opspilot health`: whether a service is well, for people and for whatever watches containers.

use clap::Args;
use serde_json::Value as Json;

use super::{
    Api, Failure, Outcome, Server, Table,
    output::{moment, say, say_json, text},
};

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Ask only whether the process turns at all
    #[arg(long)]
    live: bool,
    #[command(flatten)]
    server: Server,
}

impl Health {
    pub(crate) async fn run(self) -> Outcome {
        let report = Api::of(&self.server)?.get(if self.live { "/api/livez" } else { "/api/health" }).await?;
        if self.server.json {
            say_json(&report);
        } else {
            show(&report);
        }
        match text(&report, "status") {
            "unhealthy" => Err(Failure { text: String::new(), code: 1 }),
            _ => Ok(()),
        }
    }
}

fn show(report: &Json) {
    let detail = text(report, "detail");
    let about = if detail.is_empty() { String::new() } else { format!(": {detail}") };
    say(&crate::plain::stripped(&format!("{}{about}", text(report, "status"))));
    let modules = report.get("modules").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    if modules.is_empty() {
        return;
    }
    let mut table = Table::new(&["module", "status", "since", "restarts", "detail"]);
    for module in modules {
        let restarts = module.get("restarts").and_then(Json::as_u64).unwrap_or(0);
        let cell = |key: &str| text(module, key).to_owned();
        table.row([cell("id"), cell("status"), moment(text(module, "since")), restarts.to_string(), cell("detail")]);
    }
    table.print();
}
