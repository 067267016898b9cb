//! One run of the service: from the configuration to the exit code.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use opspilot_kernel::{
    clock::{SharedClock, SteadyClock, SystemClock},
    principal::Actor,
};
use slog::{info, warn};

use crate::{
    cli::{Failure, Outcome, tell},
    config::{Config, Sources, load},
    shutdown::{Reason, Stopper, forced},
    telemetry::{self, Telemetry},
    topology::{FirstPassword, Ground, Topology, catalogue},
};

/// What is to be run.
pub(crate) struct Launch {
    /// Where the configuration comes from.
    pub(crate) sources: Sources,
    /// Log only what a person should know.
    pub(crate) quiet: bool,
}

/// The service, as somebody sees it who works beside it in the same process.
pub(crate) struct Service {
    address: SocketAddr,
    tls: bool,
    clock: SharedClock,
    passwords: Vec<(String, String)>,
    /// The first users were made with a password that somebody gave.
    given: bool,
    data: PathBuf,
    log: slog::Logger,
}

impl Service {
    /// Where it answers.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let ip = if self.address.ip().is_unspecified() { std::net::IpAddr::from([127, 0, 0, 1]) } else { self.address.ip() };
        format!("{scheme}://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// What time it is there.
    pub(crate) fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// The users that were just made, with their passwords.
    pub(crate) fn first_passwords(&self) -> &[(String, String)] {
        &self.passwords
    }

    /// The first passwords did not reach anybody: the service goes on, and its log says what to do.
    pub(crate) fn not_greeted(&self, error: &io::Error) {
        if self.passwords.is_empty() {
            return;
        }
        let command = format!("opspilot user passwd admin --data {}", self.data.display());
        warn!(self.log, "the first passwords could not be shown; stop the service and make a new one";
            "error" => %error, "command" => command);
    }
}

/// Runs the service until `attend` returns, a signal comes, or it cannot go on.
pub(crate) fn run(launch: Launch, attend: impl AsyncFnOnce(&Service) -> Outcome) -> Outcome {
    let mut config = load(&launch.sources, &catalogue()).map_err(|report| {
        let count = report.findings.len();
        Failure { text: format!("{report}\n{count} problem{}; nothing was started", if count == 1 { "" } else { "s" }), code: 1 }
    })?;
    if launch.quiet {
        config.log.level = crate::config::LogLevel::Warning;
    }
    let registry = prometheus::Registry::new();
    let telemetry = telemetry::start(&config.log, &registry)?;
    opspilot_runtime::install_panic_hook(telemetry.log.clone());
    // bound before anything is opened: a busy port must leave no trace
    let listener = TcpListener::bind(config.server.listen).map_err(|error| cannot_listen(config.server.listen, &error))?;
    listener.set_nonblocking(true)?;
    actix_web::rt::System::new().block_on(supervised(config, launch.sources, &telemetry, registry, listener, attend))
}

async fn supervised(
    config: Config,
    sources: Sources,
    telemetry: &Telemetry,
    registry: prometheus::Registry,
    listener: TcpListener,
    attend: impl AsyncFnOnce(&Service) -> Outcome,
) -> Outcome {
    let log = telemetry.log.clone();
    let clock = SteadyClock::over(SystemClock::shared());
    let stopper = Stopper::new(log.clone());
    let tls = config.server.tls.is_some();
    if config.server.insecure && !config.server.listen.ip().is_loopback() && !tls {
        warn!(log, "passwords and data travel in the clear: server.insecure is set");
    }
    let ground =
        Ground { clock: Arc::clone(&clock), log: log.clone(), level: telemetry.level(), registry, stopper: stopper.clone(), sources };
    let data = config.ledger.dir.clone();
    let mut topology = Topology::start(config, ground, listener).await?;
    let switchboard = Arc::clone(&topology.switchboard);
    stopper.own_signals(async move || {
        // whatever comes of it is logged and on record
        drop(switchboard.reload(Actor::System).await);
    })?;
    let Some(address) = topology.addresses().first().copied() else { return Err(Failure::from("the server does not listen")) };
    let passwords = topology.first_passwords.iter().filter_map(shown).collect();
    let given = topology.first_passwords.iter().any(|first| first.password.is_none());
    let service = Service { address, tls, clock, passwords, given, data, log: log.clone() };
    info!(log, "ready"; "url" => service.url(), "version" => env!("CARGO_PKG_VERSION"));
    let outcome = tokio::select! {
        reason = stopper.wait() => reasoned(&reason),
        why = topology.server_ended() => {
            let reason = Reason::Server(why);
            stopper.stop(reason.clone());
            reasoned(&reason)
        }
        outcome = attend(&service) => {
            stopper.stop(Reason::Done);
            outcome
        }
    };
    let closed = topology.stop().await;
    info!(log, "stopped");
    if !closed && outcome.is_ok() && stopper.reason().is_none_or(|reason| reason.code() == 0) {
        // what was queued may not be stored: nobody may take this for a clean stop
        return Err(Failure { text: String::new(), code: forced(0) });
    }
    // what was found wrong on the way counts more than why the stop began
    match stopper.reason() {
        Some(reason) if outcome.is_ok() => reasoned(&reason),
        _ => outcome,
    }
}

fn shown(first: &FirstPassword) -> Option<(String, String)> {
    first.password.clone().map(|password| (first.user.to_owned(), password))
}

fn reasoned(reason: &Reason) -> Outcome {
    match reason.code() {
        0 => Ok(()),
        code => Err(Failure { text: String::new(), code }),
    }
}

fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> Failure {
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "another program listens there; is a service running already? --listen or server.listen names another port"
        }
        std::io::ErrorKind::PermissionDenied => "this user may not listen there; ports below 1024 need a privilege",
        _ => "--listen or server.listen names the address",
    };
    Failure { text: format!("cannot listen on {address}: {error}\n{advice}"), code: 1 }
}

/// What a person sees who has just started the service.
pub(crate) fn greet(service: &Service) -> io::Result<()> {
    let url = service.url();
    if service.given {
        tell("first start: only admin was made, with the password that was given")?;
        tell("an action that a person proposes needs a second person; with admin's token:")?;
        tell(&format!("  OPSPILOT_URL={url} OPSPILOT_TOKEN=$TOKEN opspilot user add approver --role operator"))?;
    } else if service.first_passwords().is_empty() {
        return Ok(());
    } else {
        tell("first start: these passwords are shown once, so keep them")?;
        for (user, password) in service.first_passwords() {
            tell(&format!("  {user:<9} {password}"))?;
        }
        tell("an action that a person proposes needs a second person: that is what approver is for")?;
    }
    tell(&format!("\nthe service is at {url}; in another terminal, log in, watch, and send an alert:"))?;
    tell(&format!("  TOKEN=$(curl -s {url}/api/auth/login -H 'Content-Type: application/json' \\"))?;
    tell(r#"    -d '{"username":"admin","password":"…"}' | sed 's/.*"token":"\([^"]*\)".*/\1/')"#)?;
    tell(&format!("  OPSPILOT_URL={url} OPSPILOT_TOKEN=$TOKEN opspilot feed &"))?;
    tell(&format!("  curl -s {url}/api/events -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' \\"))?;
    tell(r#"    -d '{"source":"checkout","kind":"alert","name":"payments","title":"Payments failing","severity":"critical"}'"#)
}
