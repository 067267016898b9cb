//! `opspilot audit`: the audit log checked, exported and proved, on a data directory or a copy of one, with no service
//! running.
//!
//! Exit codes of `verify`: 0 as it was written, 1 tampered with, 2 cannot be said (no key, no file), 3 as it was written,
//! with payloads deleted on record.

use std::{
    fs::File,
    io::{self, BufReader, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use opspilot_kernel::clock::SystemClock;
use opspilot_ledger::{
    KeyFile, KeyPurpose, Priority,
    audit::{
        AuditData, Report, Verdict,
        note::{PublicKey, SignedNote},
        notes, verify_export, verify_proof,
    },
};
use serde_json::json;

use super::{
    Data, Failure, Outcome,
    keys::{caller, offline},
    output::{say, say_json},
};

/// It cannot be said whether the log was tampered with.
const CANNOT: u8 = 2;

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// Check a whole log: every hash, link, checkpoint and signature. Exit 0 as written, 1 tampered with, 2 cannot be said, 3 with deletions
    Verify(Verify),
    /// Write the log as text that anybody can check
    Export {
        /// The file to be written [default: standard output]
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        data: Data,
    },
    /// Write one entry with all that it takes to check it
    Prove {
        /// The number of the entry
        #[arg(long)]
        seq: u64,
        #[command(flatten)]
        data: Data,
    },
    /// Print the newest signed checkpoint: a note to keep somewhere else
    Checkpoint {
        #[command(flatten)]
        data: Data,
    },
    /// Print what a sensitive value is recorded as, to confirm a guess
    Hash {
        /// Where the value stands, as the entry names it
        #[arg(long)]
        path: String,
        /// The value
        #[arg(long)]
        value: String,
        #[command(flatten)]
        data: Data,
    },
    /// Delete the payload of an entry for good, on record. The service must be stopped
    Redact {
        /// The number of the entry
        #[arg(long)]
        seq: u64,
        /// Why
        #[arg(long)]
        reason: String,
        /// The account of the second person who agreed; the record says that this is claimed, not proved
        #[arg(long, value_name = "NAME")]
        approved_by: String,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    data: Data,
    /// Check an export instead of a directory
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    export: Option<PathBuf>,
    /// Check the proof of one entry instead of a directory
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "export", "since"])]
    proof: Option<PathBuf>,
    /// File with the public key to trust, from elsewhere [default: the one beside the log]
    #[arg(long, value_name = "FILE")]
    pubkey: Vec<PathBuf>,
    /// File with a note (or several) that was signed earlier, which the log must continue
    #[arg(long, value_name = "NOTE")]
    since: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn cannot(text: impl std::fmt::Display) -> Failure {
    Failure { text: text.to_string(), code: CANNOT }
}

fn read(file: &PathBuf) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| cannot(format!("cannot read {}: {error}", file.display())))
}

fn open(data: &Data) -> Result<AuditData, Failure> {
    let dir = data.folder();
    AuditData::open(&dir, SystemClock::shared()).map_err(|error| {
        cannot(format!("the log in {} cannot be read: {error}; --data names a data directory or a copy of one", dir.display()))
    })
}

impl Audit {
    pub(crate) fn run(self) -> Outcome {
        match self {
            Audit::Verify(verify) => verify.run(),
            Audit::Export { output, data } => export(output, &data),
            Audit::Prove { seq, data } => {
                let mut data = open(&data)?;
                let key = data.own_key();
                let proof = data.read(|reader| reader.audit_proof(seq, key.as_ref())).map_err(cannot)?;
                say(&serde_json::to_string(&proof)?);
                Ok(())
            }
            Audit::Checkpoint { data } => {
                let newest = open(&data)?.read(|reader| reader.audit_checkpoint()).map_err(cannot)?.and_then(|checkpoint| checkpoint.note);
                let note = newest.ok_or_else(|| cannot("no checkpoint is signed yet"))?;
                Ok(io::stdout().lock().write_all(note.as_bytes())?)
            }
            Audit::Hash { path, value, data } => {
                let key = KeyFile::read(&data.folder(), KeyPurpose::Redaction).map_err(cannot)?;
                let key = key.ok_or_else(|| cannot(format!("there is no redaction key in {}", data.folder().display())))?;
                say(&key.hashed(&path, value.as_bytes()));
                Ok(())
            }
            Audit::Redact { seq, reason, approved_by, data } => {
                offline(&data)?.write_blocking(Priority::Control, move |tx| tx.redact(&caller(), seq, &reason, &approved_by))?;
                say(&format!("the payload of entry {seq} is deleted, on record; backups and exports from before may still hold it"));
                Ok(())
            }
        }
    }
}

fn export(output: Option<PathBuf>, data: &Data) -> Outcome {
    let mut data = open(data)?;
    let key = data.own_key();
    let mut out: Box<dyn Write> = match &output {
        Some(path) => Box::new(File::create_new(path).map_err(|error| cannot(format!("cannot write {}: {error}", path.display())))?),
        None => Box::new(io::stdout().lock()),
    };
    let (first, mut cursor) = data.read(|reader| reader.audit_export_begin(key.as_ref())).map_err(cannot)?;
    out.write_all(&first)?;
    while let Some((part, next)) =
        data.read(|reader| reader.audit_export_part(&cursor)).map_err(|error| Failure { text: error.to_string(), code: 1 })?
    {
        out.write_all(&part)?;
        cursor = next;
    }
    Ok(out.flush()?)
}

impl Verify {
    fn run(self) -> Outcome {
        let mut keys = Vec::new();
        for file in &self.pubkey {
            for line in read(file)?.lines().filter(|line| !line.trim().is_empty()) {
                keys.push(PublicKey::parse(line.trim()).map_err(|why| cannot(format!("{}: {why}", file.display())))?);
            }
        }
        let mut held: Vec<SignedNote> = Vec::new();
        for file in &self.since {
            let before = held.len();
            held.extend(notes(&read(file)?));
            if held.len() == before {
                return Err(cannot(format!("there is no signed note in {}", file.display())));
            }
        }
        if let Some(file) = &self.proof {
            return self.proof(file, keys);
        }
        let bar = indicatif::ProgressBar::new(0).with_message("entries");
        let given = !keys.is_empty();
        let (report, key_of) = match &self.export {
            Some(file) => {
                let opened = File::open(file).map_err(|error| cannot(format!("cannot read {}: {error}", file.display())))?;
                let report =
                    verify_export(BufReader::with_capacity(1 << 20, opened), keys, held, |size| bar.set_position(size)).map_err(cannot)?;
                (report, "the export itself")
            }
            None => {
                let mut data = open(&self.data)?;
                if keys.is_empty() {
                    keys.extend(data.own_key());
                }
                let report = data.verify(keys, held, |done, all| {
                    bar.set_length(all);
                    bar.set_position(done);
                });
                (report.map_err(cannot)?, "the directory itself")
            }
        };
        bar.finish_and_clear();
        let key_of = if given { "given" } else { key_of };
        if self.json {
            let mut json = serde_json::to_value(&report)?;
            if let Some(json) = json.as_object_mut() {
                json.insert("key_from".to_owned(), json!(key_of));
                json.insert("exit_code".to_owned(), json!(report.verdict.code()));
            }
            say_json(&json);
        } else {
            tell(&report, key_of);
        }
        ended(report.verdict)
    }

    fn proof(&self, file: &PathBuf, keys: Vec<PublicKey>) -> Outcome {
        let key_of = if keys.is_empty() { "the proof itself" } else { "given" };
        let bytes = std::fs::read(file).map_err(|error| cannot(format!("cannot read {}: {error}", file.display())))?;
        let proved = verify_proof(&bytes, keys).map_err(cannot)?;
        if self.json {
            say_json(&serde_json::to_value(&proved)?);
            return ended(proved.verdict);
        }
        match &proved.why {
            Some(why) => say(&format!("{}: {why}", headline(proved.verdict))),
            None => {
                say(&format!("{}: entry {} is among the first {} of {}", headline(proved.verdict), proved.seq, proved.size, proved.origin))
            }
        }
        said_key(key_of);
        ended(proved.verdict)
    }
}

fn ended(verdict: Verdict) -> Outcome {
    match verdict.code() {
        0 => Ok(()),
        code => Err(Failure { text: String::new(), code }),
    }
}

fn headline(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Tampered => "TAMPERED",
        Verdict::Unverifiable => "cannot be said",
        Verdict::OkWithDeletions => "ok, with payloads deleted on record",
    }
}

fn said_key(key_of: &str) {
    if key_of != "given" {
        say(&format!(
            "  the public key is from {key_of}: whoever could change the log could change it too; --pubkey names one from elsewhere"
        ));
    }
}

fn tell(report: &Report, key_of: &str) {
    say(&format!("{}: {} entries of {}", headline(report.verdict), report.entries, report.origin));
    if let Some(first) = report.first_bad {
        say(&format!("  the first that is not as it was written: entry {first}"));
    }
    for finding in &report.findings {
        say(&format!("  entry {}: {}", finding.seq, finding.what));
    }
    let listed = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
    if report.wrong > listed {
        say(&format!("  and {} more", report.wrong - listed));
    }
    for why in &report.unverifiable {
        say(&format!("  {why}"));
    }
    say(&format!("  root {}; {} signed checkpoints, the newest over {} entries", report.root, report.checkpoints, report.covered));
    if report.deleted > 0 {
        say(&format!("  {} payloads deleted on record", report.deleted));
    }
    for warning in &report.warnings {
        say(&format!("  {warning}"));
    }
    if !report.keys.is_empty() {
        say(&format!("  keys: {}", report.keys.join(", ")));
    }
    said_key(key_of);
}
