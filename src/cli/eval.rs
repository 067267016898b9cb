//! `opspilot eval`: the detectors as shipped, with their defaults, over benchmark data.
//!
//! Exit codes: 0 written, 1 there is no such data, or it cannot be written.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Outcome,
    output::{Table, say, say_json},
};
use crate::replay::{
    eval::{self, Evaluated},
    report::grouped,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Eval {
    /// Run detector.anomaly over DIR/data/CATEGORY/FILE.csv and write OUT/CATEGORY/FILE.csv with timestamp,anomaly_score
    Anomaly(Folders),
    /// Group the lines of DIR/SET/*_structured.csv (LineId, Content) and write OUT/SET.csv with LineId,ClusterId
    Logs(Folders),
}

#[derive(Debug, Args)]
pub(crate) struct Folders {
    /// The folder with the data, or one in which it lies as nab/ or loghub_2k/
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The folder to write to; made if need be
    #[arg(long, value_name = "OUT", default_value = "./eval")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Eval {
    pub(crate) fn run(self) -> Outcome {
        match self {
            Eval::Anomaly(folders) => folders.tell("alarms", &eval::anomaly(&folders.data, &folders.out)?),
            Eval::Logs(folders) => folders.tell("groups", &eval::logs(&folders.data, &folders.out)?),
        }
        Ok(())
    }
}

impl Folders {
    fn tell(&self, found: &str, all: &[Evaluated]) {
        if self.json {
            let one = |file: &Evaluated| json!({ "file": file.name, "rows": file.rows, found: file.found });
            return say_json(&json!({ "files": all.iter().map(one).collect::<Vec<_>>(), "out": self.out }));
        }
        let mut table = Table::new(&["file", "rows", found]);
        for file in all {
            table.row([file.name.clone(), grouped(file.rows), grouped(file.found)]);
        }
        table.print();
        say(&format!("written to {}", self.out.display()));
    }
}
