//! What the API and SIGHUP may change while the service runs.

use std::{
    io::BufReader,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use opspilot_enrichers::topology::TopologyDesk;
use opspilot_kernel::{
    config::Problem,
    ids::{DeadLetterId, IncidentId},
    module::{ModuleHealth, ModuleId},
    principal::{Actor, Role},
};
use opspilot_ledger::{Ledger, Priority, StorageHealth};
use opspilot_runtime::{Health, Overall};
use sha2::{Digest, Sha256};
use slog::{Logger, error, info, warn};
use tokio::sync::{Mutex, watch};

use super::{catalogue, modules::SharedModules};
use crate::{
    config::{Config, Finding, Report, RoleLimit, Sources, Tls, load},
    http::{
        settings::{RateLimits, Settings},
        state::{Control, ControlError, Reloaded, Retried, Switch},
    },
    telemetry::LevelSwitch,
};

/// Modules and configuration, for whoever may change them.
pub(crate) struct Switchboard {
    modules: SharedModules,
    health: Health,
    ledger: Ledger,
    sources: Sources,
    level: LevelSwitch,
    log: Logger,
    stopping: watch::Receiver<bool>,
    ready: AtomicBool,
    /// The configuration that was taken last; held while a new one is applied.
    config: Arc<Mutex<Config>>,
}

impl Switchboard {
    #[expect(clippy::too_many_arguments, reason = "called once, by the wiring")]
    pub(super) fn new(
        modules: SharedModules,
        health: Health,
        ledger: Ledger,
        config: Config,
        sources: Sources,
        level: LevelSwitch,
        log: Logger,
        stopping: watch::Receiver<bool>,
    ) -> Switchboard {
        let config = Arc::new(Mutex::new(config));
        Switchboard { modules, health, ledger, sources, level, log, stopping, ready: AtomicBool::new(false), config }
    }

    /// From now on every enabled listener accepts.
    pub(super) fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    fn line(&self, id: ModuleId) -> Result<ModuleHealth, ControlError> {
        let lines = self.health.report();
        lines.into_iter().find(|line| line.id == id).ok_or_else(|| ControlError::NoSuchModule(id.as_str().to_owned()))
    }

    /// Reads the configuration again and takes all of it, or nothing and says why.
    pub(crate) async fn reload(&self, by: Actor) -> Result<Reloaded, ControlError> {
        let mut current = self.config.lock().await;
        let sources = self.sources.clone();
        let read = tokio::task::spawn_blocking(move || load(&sources, &catalogue())).await;
        let wanted = match read.map_err(|error| ControlError::Internal(error.to_string()))? {
            Ok(wanted) => wanted,
            Err(report) => return Err(self.refused(&report, by).await),
        };
        let modules = self.modules.changed(&wanted.modules, &current.modules).await;
        let restart_required = needs_restart(&current, &wanted);
        let mut changed: Vec<String> = modules.iter().map(|id| id.as_str().to_owned()).collect();
        changed.extend((current.log.level != wanted.log.level).then(|| "log.level".to_owned()));
        changed.extend((current.policy != wanted.policy).then(|| "policy".to_owned()));
        if changed.is_empty() && restart_required.is_empty() {
            info!(self.log, "the configuration was read again; nothing changed");
            return Ok(Reloaded::default());
        }
        // on record before it happens: no record, no change
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(format!("{wanted:?}"))));
        let (actor, named, waiting) = (by.clone(), changed.clone(), restart_required.clone());
        let record = self.ledger.write(Priority::Control, move |tx| tx.config_changed(&actor, &digest, &named, &waiting));
        record.await.map_err(|error| ControlError::Unavailable(format!("nothing changed, because it cannot be put on record: {error}")))?;
        if let Err(why) = self.modules.apply(&modules, &wanted.modules).await {
            error!(self.log, "a module did not take the new configuration; everything is as before"; "reason" => why.as_str());
            self.record_refusal(by, vec![why.clone()]).await;
            return Err(ControlError::Conflict(format!("nothing changed: {why}")));
        }
        if current.policy != wanted.policy
            && let Err(why) = self.modules.gate().set_policy(wanted.policy.clone()).await
        {
            // it is in force; what waits is looked at again whenever somebody decides or executes
            warn!(self.log, "what waits for people was not looked through by the new policy"; "reason" => %why);
        }
        self.level.set(wanted.log.level);
        // what needs a restart stays as it is, and is named again by the next reload
        current.modules = wanted.modules;
        current.log.level = wanted.log.level;
        current.policy = wanted.policy;
        info!(self.log, "the configuration was reloaded"; "changed" => changed.join(", "), "restart_required" => restart_required.join(", "));
        for key in &restart_required {
            warn!(self.log, "a change takes effect only when the service is started again"; "key" => key.as_str());
        }
        Ok(Reloaded { changed, restart_required })
    }

    async fn refused(&self, report: &Report, by: Actor) -> ControlError {
        for finding in &report.findings {
            error!(self.log, "the configuration is wrong; nothing changed";
                "problem" => report.line(finding), "suggestion" => finding.suggestion.as_deref().unwrap_or_default());
        }
        self.record_refusal(by, report.findings.iter().map(|finding| report.line(finding)).collect()).await;
        let problem = |finding: &Finding| Problem {
            pointer: finding.pointer.clone(),
            message: report.line(finding),
            suggestion: finding.suggestion.clone(),
        };
        ControlError::Config(report.findings.iter().map(problem).collect())
    }

    async fn record_refusal(&self, by: Actor, problems: Vec<String>) {
        let record = self.ledger.write(Priority::Control, move |tx| tx.config_refused(&by, &problems));
        if let Err(error) = record.await {
            warn!(self.log, "a refused configuration could not be put on record"; "error" => %error);
        }
    }
}

/// The switchboard as the API sees it.
pub(super) struct Panel(pub(super) Arc<Switchboard>);

impl Control for Panel {
    fn overall(&self) -> (Overall, String) {
        self.0.health.overall()
    }

    fn modules(&self) -> Vec<ModuleHealth> {
        self.0.health.report()
    }

    fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if *self.0.stopping.borrow() {
            reasons.push("the service is stopping".to_owned());
        } else if !self.0.ready.load(Ordering::Acquire) {
            reasons.push("the service is starting".to_owned());
        }
        if let StorageHealth::Failed { failure, .. } = self.0.ledger.storage() {
            reasons.push(failure.to_string());
        }
        if let Some(why) = self.0.ledger.audit_refusal() {
            reasons.push(format!("the audit log cannot be trusted: {why}"));
        }
        reasons.extend(self.0.health.lacking());
        reasons
    }

    fn switch(&self, module: String, to: Switch, by: Actor) -> BoxFuture<'static, Result<ModuleHealth, ControlError>> {
        let board = Arc::clone(&self.0);
        Box::pin(async move {
            if !board.modules.has(&module) && board.health.report().iter().any(|line| line.id.as_str() == module) {
                return Err(ControlError::Conflict(format!(
                    "{module} belongs to the core of the service, which is restarted only as a whole"
                )));
            }
            // a client that hangs up must not leave a module half switched
            let work = tokio::spawn(async move {
                let id = board.modules.switch(&module, to, by).await?;
                board.line(id)
            });
            work.await.unwrap_or_else(|error| Err(ControlError::Internal(error.to_string())))
        })
    }

    fn requeue(&self, module: String, letter: DeadLetterId) -> BoxFuture<'static, Retried> {
        let board = Arc::clone(&self.0);
        Box::pin(async move { board.modules.requeue(&module, letter).await })
    }

    fn explain(&self, incident: IncidentId, by: Actor) -> BoxFuture<'static, Result<(), ControlError>> {
        let board = Arc::clone(&self.0);
        Box::pin(async move { board.modules.explain(incident, by).await })
    }

    fn topology(&self) -> BoxFuture<'static, Option<TopologyDesk>> {
        let board = Arc::clone(&self.0);
        Box::pin(async move { board.modules.topology().await })
    }

    fn test_channel(&self, channel: String, by: Actor) -> BoxFuture<'static, Result<Result<(), String>, ControlError>> {
        let board = Arc::clone(&self.0);
        // a client that hangs up must not leave a test without its record
        Box::pin(async move {
            let work = tokio::spawn(async move { board.modules.test_channel(&channel, by).await });
            work.await.unwrap_or_else(|error| Err(ControlError::Internal(error.to_string())))
        })
    }

    fn reload(&self, by: Actor) -> BoxFuture<'static, Result<Reloaded, ControlError>> {
        let board = Arc::clone(&self.0);
        Box::pin(async move {
            let work = tokio::spawn(async move { board.reload(by).await });
            work.await.unwrap_or_else(|error| Err(ControlError::Internal(error.to_string())))
        })
    }
}

/// The sections that are read only when the service starts, as far as they differ.
fn needs_restart(current: &Config, wanted: &Config) -> Vec<String> {
    let mut log = wanted.log.clone();
    log.level = current.log.level;
    let differs = [
        ("server", current.server != wanted.server),
        ("ledger", current.ledger != wanted.ledger),
        ("outbound", current.outbound != wanted.outbound),
        ("log", current.log != log),
        ("limits", current.limits != wanted.limits),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
}

/// What the HTTP server is told of the configuration.
pub(super) fn http_settings(config: &Config) -> Settings {
    let (server, requests) = (&config.server, &config.limits.requests);
    let defaults = Settings::default();
    let of = |role: Role, own: &Option<RoleLimit>| {
        own.map(|limit| (role, limit.read.unwrap_or(requests.read), limit.write.unwrap_or(requests.write)))
    };
    let roles = [
        of(Role::Integrator, &requests.roles.integrator),
        of(Role::Viewer, &requests.roles.viewer),
        of(Role::Operator, &requests.roles.operator),
        of(Role::Admin, &requests.roles.admin),
    ];
    Settings {
        trusted_proxies: server.trusted_proxies.clone(),
        allowed_origins: server.allowed_origins.clone(),
        tls: server.tls.is_some(),
        insecure: server.insecure,
        rate_limits: RateLimits {
            reads: requests.read,
            writes: requests.write,
            logins: requests.login,
            roles: roles.into_iter().flatten().collect(),
            ..RateLimits::default()
        },
        connections: (server.max_connections / defaults.workers.max(1)).max(1),
        stop_timeout: std::time::Duration::from_secs(3),
        ..defaults
    }
}

/// The certificate and its key, ready to serve.
pub(super) fn tls(files: &Tls) -> Result<Arc<rustls::ServerConfig>, String> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let open = |path: &std::path::Path| {
        std::fs::File::open(path).map(BufReader::new).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_reader_iter(open(&files.cert)?).collect();
    let chain = chain.map_err(|error| format!("{} holds no certificate: {error}", files.cert.display()))?;
    let key = PrivateKeyDer::from_pem_reader(open(&files.key)?)
        .map_err(|error| format!("{} holds no private key: {error}", files.key.display()))?;
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).map_err(|error| error.to_string())?;
    Ok(Arc::new(config))
}
