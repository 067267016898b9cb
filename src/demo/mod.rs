//! `opspilot demo`: the whole service, and the recorded outage of a small shop played through it.
//!
//! The story uses nothing but the public API and the live feed, like any client.

mod recording;
mod story;

use std::{cell::Cell, io, net::TcpListener, time::Duration};

use clap::Args;

use crate::{
    cli::{Failure, Outcome, tell},
    config::{Flags, Sources},
    service::{self, Launch, Service},
};

use self::story::{Story, Visitor};

const CONFIG: &str = include_str!("demo.yaml");
/// Where the service listens if it may choose.
const FIRST_PORT: u16 = 3000;
const PORTS: u16 = 50;
/// How fast the recording is played: for a person, and for a test.
const SPEED: f64 = 10.0;
const SPEED_UNATTENDED: f64 = 40.0;

/// Play a recorded outage of a small shop through a service of its own.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// End once the outage has become incidents that were seen, acknowledged and resolved; otherwise say why not
    #[arg(long)]
    exit_after_story: bool,
    /// Address and port [default: 127.0.0.1:3000, or the next free port]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// How many times faster than it happened
    #[arg(long, value_name = "FACTOR", value_parser = speed)]
    speed: Option<f64>,
}

fn speed(text: &str) -> Result<f64, String> {
    let factor: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=1000.0).contains(&factor) { Ok(factor) } else { Err("from 0.1 to 1000".to_owned()) }
}

impl Demo {
    pub(crate) fn run(self) -> Outcome {
        let folder = tempdir()?;
        let file = folder.path().join("demo.yaml");
        std::fs::write(&file, CONFIG)?;
        let (listen, moved) = match &self.listen {
            Some(listen) => (listen.clone(), false),
            None => {
                let port = free_port()?;
                (format!("127.0.0.1:{port}"), port != FIRST_PORT)
            }
        };
        let flags = Flags { listen: Some(listen), data: Some(folder.path().join("data")) };
        let launch = Launch { sources: Sources { file: Some(file), variables: Vec::new(), flags }, quiet: true };
        let told = Cell::new(false);
        service::run(launch, async |service: &Service| self.attend(service, moved, &told).await)?;
        // a signal ends the service in order, which says nothing about the story
        if self.exit_after_story && !told.get() {
            return Err(Failure::from("interrupted before the story was told"));
        }
        Ok(())
    }

    /// What happens while the service runs. Returning ends it.
    async fn attend(&self, service: &Service, moved: bool, told: &Cell<bool>) -> Outcome {
        let visitor = Visitor::log_in(service).await?;
        let speed = self.speed.unwrap_or(if self.exit_after_story { SPEED_UNATTENDED } else { SPEED });
        introduce(service, &visitor, speed, moved)?;
        let mut story = Story::begin(&visitor).await?;
        story.play(speed, service.clock()).await?;
        if self.exit_after_story {
            story.ending().await?;
            told.set(true);
            tell("\nthe story is told: the outage became incidents, was seen live, acknowledged, and is resolved and on record")?;
            return Ok(());
        }
        suggest(&visitor, &story)?;
        story.listen_on().await
    }
}

fn introduce(service: &Service, visitor: &Visitor, speed: f64, moved: bool) -> io::Result<()> {
    if moved {
        tell(&format!("port {FIRST_PORT} is in use, so the next free one is taken"))?;
    }
    tell(&format!("OpsPilot {} is running at {}", env!("CARGO_PKG_VERSION"), service.url()))?;
    for (name, password) in service.first_passwords() {
        tell(&format!("  log in as {name:<9} with {password}"))?;
    }
    tell(&format!("  everything is kept in a temporary folder that goes away at the end; API key for you: {}\n", visitor.key))?;
    tell(&format!("a small shop has an outage: ten minutes of logs and metrics, {speed}× as fast\n"))
}

fn suggest(visitor: &Visitor, story: &Story) -> io::Result<()> {
    let (url, key) = (&visitor.url, &visitor.key);
    tell("\nthe recording is over. Three things to try in another terminal:\n")?;
    tell("1. what happened, and what stands behind it:")?;
    tell(&format!("   curl -s -H 'X-API-Key: {key}' '{url}/api/incidents/{}'\n", story.main_incident()))?;
    tell("2. another failing payment; watch it arrive here:")?;
    tell(&format!(
        "   curl -s -H 'X-API-Key: {key}' -H 'Content-Type: application/json' '{url}/api/events' \\\n     -d '{{\"source\":\"shop-2\",\"severity\":\"error\",\"message\":\"payment failed for order 4711: card reader is on fire\"}}'\n"
    ))?;
    tell("3. the same from a terminal:")?;
    tell(&format!("   export OPSPILOT_URL={url} OPSPILOT_TOKEN={key}"))?;
    tell("   opspilot incidents list        (or: cargo run --release -- incidents list)\n")?;
    tell("Ctrl-C ends it.")
}

/// A folder that is removed with everything in it.
struct Folder(std::path::PathBuf);

impl Folder {
    fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // what stays behind lies in the system's folder for temporary files
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn tempdir() -> Result<Folder, Failure> {
    let path = std::env::temp_dir().join(format!("opspilot-demo-{}", hex::encode(rand::random::<[u8; 8]>())));
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&path)?;
    Ok(Folder(path))
}

fn free_port() -> Result<u16, Failure> {
    (FIRST_PORT..FIRST_PORT + PORTS)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| Failure::from(format!("no free port from {FIRST_PORT} to {}; use --listen", FIRST_PORT + PORTS - 1)))
}

/// How often the recording is looked at for lines that are due.
const STEP: Duration = Duration::from_millis(200);
