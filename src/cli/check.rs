//! `opspilot check`, `config-schema`, `openapi`: what can be known without starting anything.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{
    Failure, Outcome,
    output::{say, say_json},
};
use crate::{
    config::{Flags, Sources, document, load},
    http,
    topology::catalogue,
};

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The configuration file
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(crate) fn run(self) -> Outcome {
        let name = self.file.display().to_string();
        match load(&Sources::of_process(Some(self.file), Flags::default()), &catalogue()) {
            Ok(config) => {
                let on: Vec<&str> = config.modules.iter().filter(|(_, settings)| settings.enabled).map(|(id, _)| id.as_str()).collect();
                if self.json {
                    say_json(&json!({ "ok": true, "listen": config.server.listen.to_string(), "enabled": on, "problems": [] }));
                } else {
                    say(&format!("{name}: ok"));
                    say(&format!("  listens on {}, keeps its data in {}", config.server.listen, config.ledger.dir.display()));
                    say(&format!("  runs {}", on.join(", ")));
                }
                Ok(())
            }
            Err(report) if self.json => {
                say_json(&json!({ "ok": false, "problems": report.views() }));
                Err(Failure { text: String::new(), code: 1 })
            }
            Err(report) => {
                let count = report.findings.len();
                say(&format!("{report}\n\n{name}: {count} problem{}", if count == 1 { "" } else { "s" }));
                Err(Failure { text: String::new(), code: 1 })
            }
        }
    }
}

pub(crate) fn config_schema() -> Outcome {
    say(&format!("{:#}", document(&catalogue())));
    Ok(())
}

pub(crate) fn openapi() -> Outcome {
    say(&format!("{:#}", serde_json::to_value(http::document())?));
    Ok(())
}
