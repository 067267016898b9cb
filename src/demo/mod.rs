//! `opspilot demo`: the whole service, and the recorded outage of a small shop played through it. The outage goes on
//! until somebody approves the repair that a rule proposes; the repair is a real program, and what it does ends the outage.
//!
//! The story uses nothing but the public API and the live feed, like any client.

mod consent;
mod recording;
mod shop;
mod story;

use std::{cell::Cell, io, net::TcpListener, time::Duration};

use clap::Args;
use opspilot_kernel::clock::SystemClock;
use opspilot_ledger::audit::{AuditData, Report, Verdict};
use serde_json::Value as Json;

use crate::{
    cli::{Failure, Outcome, tell, text},
    config::{Flags, Sources},
    service::{self, Launch, Service},
};

pub(crate) use self::shop::Repair;
use self::{
    consent::Consent,
    shop::Shop,
    story::{Story, Visitors},
};

/// Where the service listens if it may choose.
const FIRST_PORT: u16 = 3000;
const PORTS: u16 = 50;
/// How fast the recording is played: for a person, and for a test.
const SPEED: f64 = 10.0;
const SPEED_UNATTENDED: f64 = 40.0;
/// How often the recording is looked at for lines that are due.
const STEP: Duration = Duration::from_millis(200);

/// Play a recorded outage of a small shop through a service of its own.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Do everything unattended, and end once the outage was explained, its repair approved and executed, the incidents resolved and the audit log verified; otherwise say why not
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
        let shop = Shop::open()?;
        let file = shop.configure()?;
        let (listen, moved) = match &self.listen {
            Some(listen) => (listen.clone(), false),
            None => {
                let port = free_port()?;
                (format!("127.0.0.1:{port}"), port != FIRST_PORT)
            }
        };
        let flags = Flags { listen: Some(listen), data: Some(shop.data()) };
        let launch = Launch { sources: Sources { file: Some(file), variables: Vec::new(), flags }, quiet: true };
        let told = Cell::new(false);
        service::run(launch, async |service: &Service| self.attend(service, &shop, moved, &told).await)?;
        // a signal ends the service in order, which says nothing about the story
        if self.exit_after_story && !told.get() {
            return Err(Failure::from("interrupted before the story was told"));
        }
        Ok(())
    }

    /// What happens while the service runs. Returning ends it.
    async fn attend(&self, service: &Service, shop: &Shop, moved: bool, told: &Cell<bool>) -> Outcome {
        let visitors = Visitors::log_in(service).await?;
        let speed = self.speed.unwrap_or(if self.exit_after_story { SPEED_UNATTENDED } else { SPEED });
        introduce(service, &visitors, speed, moved)?;
        let mut story = Story::begin(&visitors, speed).await?;
        story.break_down(service.clock()).await?;
        if self.exit_after_story {
            let approval = unattended(&mut story, service, shop, &visitors).await?;
            story.ending(&approval).await?;
            verified(shop).await?;
            told.set(true);
            tell("\nthe story is told: the outage became incidents, was seen live and acknowledged; its repair was proposed,")?;
            return Ok(tell("approved by somebody else and executed once; it ended the outage, and the record of it is verified")?);
        }
        let suggested = Cell::new(false);
        let suggesting = async |story: &Story| suggest(&visitors, story, &suggested).await;
        story.go_on(service.clock(), || shop.is_repaired(), suggesting).await?;
        tell("\nthe volume is mounted, and the shop recovers:\n")?;
        story.recover(service.clock()).await?;
        tell("\nthe recording is over; the service goes on. Ctrl-C ends it.")?;
        story.listen_on().await
    }
}

/// Does what people would do, until the shop recovered. Gives the approval of the repair.
async fn unattended(story: &mut Story, service: &Service, shop: &Shop, visitors: &Visitors) -> Result<String, Failure> {
    let consent = tokio::sync::Mutex::new(Consent::new(&visitors.api, &visitors.approver));
    let done = Cell::new(false);
    let work = async |story: &Story| {
        let mut consent = consent.lock().await;
        consent.step(story.cause(), story.is_cause_explained()).await?;
        done.set(consent.is_done());
        Ok(())
    };
    story.go_on(service.clock(), || done.get() && shop.is_repaired(), work).await?;
    story.recover(service.clock()).await?;
    let consent = consent.into_inner();
    Ok(consent.approval().ok_or("the repair was not approved")?.to_owned())
}

/// Checks a copy of the audit log, as a stranger would.
async fn verified(shop: &Shop) -> Outcome {
    let (data, copy) = (shop.data(), shop.copy());
    let checked = tokio::task::spawn_blocking(move || -> Result<Report, Failure> {
        std::fs::create_dir(&copy)?;
        opspilot_ledger::backup(&data, &copy.join(opspilot_ledger::DATABASE), &SystemClock::shared())?;
        let keys = AuditData::open(&data, SystemClock::shared())?.own_key().into_iter().collect();
        Ok(AuditData::open(&copy, SystemClock::shared())?.verify(keys, Vec::new(), |_, _| {})?)
    });
    let report = checked.await??;
    if report.verdict != Verdict::Ok {
        let why: Vec<String> =
            report.findings.iter().map(|finding| format!("entry {}: {}", finding.seq, finding.what)).chain(report.unverifiable).collect();
        return Err(Failure::from(format!("the audit log does not verify: {}", why.join("; "))));
    }
    Ok(tell(&format!("audit: {} entries verified on a copy, {} of them under a signed checkpoint", report.entries, report.covered))?)
}

fn introduce(service: &Service, visitors: &Visitors, speed: f64, moved: bool) -> io::Result<()> {
    if moved {
        tell(&format!("port {FIRST_PORT} is in use, so the next free one is taken"))?;
    }
    tell(&format!("OpsPilot {} is running; its page: {}", env!("CARGO_PKG_VERSION"), service.url()))?;
    for ((name, password), what) in service.first_passwords().iter().zip(["looks, proposes, manages", "approves"]) {
        tell(&format!("  log in as {name:<9} with {password}   ({what})"))?;
    }
    tell(&format!("  everything is kept in a temporary folder that goes away at the end; API key for you: {}\n", visitors.key))?;
    tell(&format!("a small shop has an outage, recorded and played {speed}× as fast; it ends when somebody repairs it\n"))
}

/// Says what can be done, once there is something to be done.
async fn suggest(visitors: &Visitors, story: &Story, suggested: &Cell<bool>) -> Outcome {
    let Some(cause) = story.cause().filter(|_| !suggested.get()) else { return Ok(()) };
    let Some(proposed) = consent::waiting(&visitors.api, cause).await? else { return Ok(()) };
    suggested.set(true);
    let (url, key, session) = (&visitors.url, &visitors.key, &visitors.session);
    let (id, command) = (text(&proposed, "id"), proposed.pointer("/preview/text").and_then(Json::as_str).unwrap_or_default());
    tell("\nthe outage goes on until it is repaired. Three things to try:\n")?;
    tell("1. approve the repair that was proposed. It runs exactly this, and nothing before you say so:")?;
    tell(&format!("     {}", crate::plain::stripped(command)))?;
    tell(&format!("   on the page, logged in as approver: {url}/"))?;
    tell("   or in another terminal (or: cargo run --release -- approvals …):")?;
    tell(&format!("     export OPSPILOT_URL={url} OPSPILOT_TOKEN={session}"))?;
    tell(&format!("     opspilot approvals approve {id} --execute --reason 'mount it'\n"))?;
    tell("2. what happened, and what stands behind it:")?;
    tell(&format!("     curl -s -H 'X-API-Key: {key}' '{url}/api/incidents/{cause}'\n"))?;
    tell("3. another failing payment; watch it arrive here:")?;
    Ok(tell(&format!(
        "     curl -s -H 'X-API-Key: {key}' -H 'Content-Type: application/json' '{url}/api/events' \\\n       -d '{{\"source\":\"shop-2\",\"severity\":\"error\",\"message\":\"payment failed for order 4711: card reader is on fire\"}}'\n"
    ))?)
}

fn free_port() -> Result<u16, Failure> {
    (FIRST_PORT..FIRST_PORT + PORTS)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .ok_or_else(|| Failure::from(format!("no free port from {FIRST_PORT} to {}; use --listen", FIRST_PORT + PORTS - 1)))
}
