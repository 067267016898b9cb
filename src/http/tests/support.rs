//! What the tests share: a server, a clock that can be moved, a log that can be read.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::web::{self, ServiceConfig};
use futures_util::future::BoxFuture;
use opspilot_enrichers::topology::{self, TopologyDesk};
use opspilot_kernel::{
    clock::{Clock, SharedClock, SystemClock},
    ids::{DeadLetterId, IncidentId},
    module::{ModuleHealth, ModuleId, ModuleStatus},
    principal::{Actor, Role},
    time::Timestamp,
};
use opspilot_ledger::{Ledger, NewUser, Options, Priority};
use opspilot_runtime::{Overall, TopologyView};
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use slog::Drain as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};

use crate::http::{
    self, AppState, Deps, Server,
    auth::{
        Auth, SessionPolicy,
        passwords::{self, Cost},
    },
    settings::{RateLimits, Settings},
    state::{Control, ControlError, Reloaded, Retried, Switch},
};

/// The password of every account that [`Api::user`] makes.
pub(super) const PASSWORD: &str = "correct horse battery";

/// The machine's clock, moved forward at will.
pub(super) struct Shifted {
    system: SharedClock,
    by_ms: AtomicU64,
}

impl Shifted {
    pub(super) fn advance(&self, by: Duration) {
        self.by_ms.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    /// Sets the clock back, at most to the right time.
    pub(super) fn set_back(&self, by: Duration) {
        self.by_ms.fetch_sub(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn by(&self) -> Duration {
        Duration::from_millis(self.by_ms.load(Ordering::SeqCst))
    }
}

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        self.system.now().after(self.by())
    }

    fn elapsed(&self) -> Duration {
        self.system.elapsed() + self.by()
    }
}

/// Stands for the rest of the process.
pub(super) struct Fake {
    pub(super) switched: Mutex<Vec<(String, Switch, Actor)>>,
    pub(super) reasons: Mutex<Vec<String>>,
    pub(super) broken: Mutex<Vec<opspilot_kernel::config::Problem>>,
    pub(super) topology: Mutex<Option<TopologyDesk>>,
}

fn module() -> ModuleHealth {
    ModuleHealth {
        id: ModuleId::new("detector.regex"),
        category: "detector",
        status: ModuleStatus::Healthy,
        since: Timestamp::ZERO,
        restarts: 0,
        detail: String::new(),
        queue: 0,
    }
}

impl Control for Arc<Fake> {
    fn overall(&self) -> (Overall, String) {
        (Overall::Healthy, String::new())
    }

    fn modules(&self) -> Vec<ModuleHealth> {
        vec![module()]
    }

    fn not_ready(&self) -> Vec<String> {
        self.reasons.lock().clone()
    }

    fn switch(&self, id: String, to: Switch, by: Actor) -> BoxFuture<'static, Result<ModuleHealth, ControlError>> {
        let known = id == "detector.regex";
        self.switched.lock().push((id.clone(), to, by));
        Box::pin(async move { if known { Ok(module()) } else { Err(ControlError::NoSuchModule(id)) } })
    }

    fn requeue(&self, _: String, _: DeadLetterId) -> BoxFuture<'static, Retried> {
        Box::pin(async { Retried::Failed("it is still broken".to_owned()) })
    }

    fn explain(&self, incident: IncidentId, _: Actor) -> BoxFuture<'static, Result<(), ControlError>> {
        let known = incident.as_str() != "inc_nothing";
        Box::pin(async move { if known { Ok(()) } else { Err(ControlError::NotFound(format!("the incident {incident}"))) } })
    }

    fn topology(&self) -> BoxFuture<'static, Option<TopologyDesk>> {
        let desk = self.topology.lock().clone();
        Box::pin(async move { desk })
    }

    fn reload(&self, _: Actor) -> BoxFuture<'static, Result<Reloaded, ControlError>> {
        let problems = self.broken.lock().clone();
        Box::pin(async move {
            if problems.is_empty() {
                Ok(Reloaded { changed: vec!["detector.regex".to_owned()], restart_required: Vec::new() })
            } else {
                Err(ControlError::Config(problems))
            }
        })
    }
}

#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

/// A running server.
pub(super) struct Api {
    pub(super) address: SocketAddr,
    pub(super) client: reqwest::Client,
    pub(super) clock: Arc<Shifted>,
    pub(super) control: Arc<Fake>,
    pub(super) state: web::Data<AppState>,
    pub(super) log: Log,
    pub(super) dir: tempfile::TempDir,
    pub(super) stopping: watch::Sender<bool>,
    scheme: &'static str,
    server: Server,
    supervisor: opspilot_runtime::Supervisor,
}

/// Settings that no test runs into by accident.
pub(super) fn roomy() -> Settings {
    Settings {
        rate_limits: RateLimits { reads: 1_000_000, writes: 1_000_000, logins: 1_000_000, ..RateLimits::default() },
        workers: 1,
        stop_timeout: Duration::from_secs(1),
        ..Settings::default()
    }
}

/// An answer, taken apart.
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) body: Value,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }

    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Got {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }
}

pub(super) async fn send(request: RequestBuilder) -> Got {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let bytes = answer.bytes().await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    if status >= 400 {
        assert_eq!(headers.get("content-type").map(|kind| kind.to_str().unwrap()), Some("application/problem+json"), "{body}");
        for field in ["type", "title", "status", "detail", "instance", "code"] {
            assert!(body.get(field).is_some(), "{field} in {body}");
        }
    }
    Got { status, headers, body }
}

/// Who sends a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum As<'a> {
    Nobody,
    Token(&'a str),
    Key(&'a str),
}

fn gate(
    dir: &tempfile::TempDir,
    ledger: &Ledger,
    clock: SharedClock,
    log: &slog::Logger,
    registry: &prometheus::Registry,
) -> (opspilot_safety::Gate, opspilot_runtime::Supervisor) {
    // the modules that the API tells of are those of its stand-in for the switchboard
    let health = opspilot_runtime::HealthMetrics::register(&prometheus::Registry::new(), ledger.queue_gauge().clone()).unwrap();
    let supervisor = opspilot_runtime::Supervisor::new(opspilot_runtime::SupervisorOptions {
        clock: clock.clone(),
        log: log.clone(),
        health: opspilot_runtime::Health::new(clock.clone(), health),
        exit: Arc::new(|_| {}),
        seed: 7,
    });
    let options = opspilot_safety::GateOptions {
        dir: dir.path().to_owned(),
        ledger: ledger.clone(),
        clock,
        log: log.clone(),
        registry: registry.clone(),
        supervisor: supervisor.group(opspilot_runtime::GroupSpec::ACTIONS),
        policy: opspilot_safety::Policy::default(),
    };
    (opspilot_safety::Gate::open(options).unwrap(), supervisor)
}

impl Api {
    pub(super) async fn start() -> Api {
        Api::with(roomy(), |_| {}).await
    }

    pub(super) async fn with(settings: Settings, more: impl Fn(&mut ServiceConfig) + Clone + Send + 'static) -> Api {
        drop(rustls::crypto::ring::default_provider().install_default());
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Shifted { system: SystemClock::shared(), by_ms: AtomicU64::new(0) });
        let log = Log::default();
        let drain = std::sync::Mutex::new(slog_json::Json::default(log.clone())).map(slog::Fuse);
        let logger = slog::Logger::root(drain, slog::o!());
        let registry = prometheus::Registry::new();
        let mut options = Options::new(dir.path(), clock.clone());
        options.log = logger.clone();
        options.registry = registry.clone();
        let ledger = Ledger::open(options).unwrap();
        let auth = Auth::open(dir.path(), ledger.clone(), clock.clone(), SessionPolicy::default(), Cost::cheap_for_tests()).unwrap();
        let desk = TopologyDesk::open(ledger.clone(), TopologyView::default(), &registry, topology::Config::default());
        let topology = Mutex::new(Some(desk.unwrap_or_else(|error| panic!("{error}"))));
        let control = Arc::new(Fake { switched: Mutex::default(), reasons: Mutex::default(), broken: Mutex::default(), topology });
        let (stopping, told) = watch::channel(false);
        let (gate, supervisor) = gate(&dir, &ledger, clock.clone(), &logger, &registry);
        let tls = settings.tls.then(tls);
        let scheme = if settings.tls { "https" } else { "http" };
        let state = web::Data::new(
            AppState::new(Deps {
                ledger,
                clock: clock.clone(),
                log: logger,
                registry,
                settings,
                auth,
                control: Arc::new(Arc::clone(&control)),
                gate,
                stopping: told,
            })
            .unwrap(),
        );
        drop(state.dashboard.open());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = http::serve(state.clone(), listener, tls, more).unwrap();
        let client =
            reqwest::Client::builder().tls_danger_accept_invalid_certs(true).redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Api { address: server.addresses[0], client, clock, control, state, log, dir, stopping, scheme, server, supervisor }
    }

    pub(super) async fn stop(self) -> tempfile::TempDir {
        self.server.stop().await;
        self.supervisor.stop_all().await;
        self.state.ledger.shut_down().await.unwrap();
        self.dir
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub(super) fn origin(&self) -> String {
        self.url("")
    }

    pub(super) fn request(&self, who: As<'_>, method: &str, path: &str) -> RequestBuilder {
        let request = self.client.request(Method::from_bytes(method.to_uppercase().as_bytes()).unwrap(), self.url(path));
        match who {
            As::Nobody => request,
            As::Token(token) => request.bearer_auth(token),
            As::Key(key) => request.header("x-api-key", key),
        }
    }

    pub(super) async fn get(&self, who: As<'_>, path: &str) -> Got {
        send(self.request(who, "get", path)).await
    }

    pub(super) async fn post(&self, who: As<'_>, path: &str, body: Value) -> Got {
        send(self.request(who, "post", path).json(&body)).await
    }

    /// Makes an account, past the API.
    pub(super) async fn user(&self, name: &str, role: Role) {
        let password_hash = passwords::hash_blocking(Cost::cheap_for_tests(), PASSWORD).unwrap();
        let user = NewUser { name: name.to_owned(), role, groups: Vec::new(), password_hash };
        self.state.ledger.write(Priority::Control, move |tx| tx.user_create(&Actor::System, user)).await.unwrap();
    }

    /// Logs in; the account must be there.
    pub(super) async fn login(&self, name: &str) -> String {
        let got = self.post(As::Nobody, "/api/auth/login", json!({ "username": name, "password": PASSWORD })).await.expect(200);
        got.body["token"].as_str().unwrap().to_owned()
    }

    /// Makes an account and logs in.
    pub(super) async fn someone(&self, name: &str, role: Role) -> String {
        self.user(name, role).await;
        self.login(name).await
    }

    /// An API key of whoever holds the token.
    pub(super) async fn key(&self, token: &str, role: &str) -> String {
        let got = self.post(As::Token(token), "/api/api-keys", json!({ "name": "test", "role": role })).await.expect(201);
        got.body["key"].as_str().unwrap().to_owned()
    }

    /// Sends bytes as they are and reads until the server closes or nothing comes for `patience`.
    pub(super) async fn raw(&self, bytes: &[u8], patience: Duration) -> Raw {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        // the server may answer and close before all is sent
        drop(socket.write_all(bytes).await);
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match tokio::time::timeout(patience, socket.read(&mut buffer)).await {
                Err(_) => return Raw { text: String::from_utf8_lossy(&text).into_owned(), closed: false },
                Ok(Ok(0) | Err(_)) => return Raw { text: String::from_utf8_lossy(&text).into_owned(), closed: true },
                Ok(Ok(read)) => text.extend_from_slice(&buffer[..read]),
            }
        }
    }
}

/// What came back over a raw socket.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) text: String,
    pub(super) closed: bool,
}

impl Raw {
    pub(super) fn status(&self) -> Option<u16> {
        self.text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|status| status.parse().ok())
    }
}

fn tls() -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
    let cert = CertificateDer::from_pem_slice(include_bytes!("localhost.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("localhost.key")).unwrap();
    Arc::new(rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert], key).unwrap())
}

pub(super) fn is_success(status: u16) -> bool {
    StatusCode::from_u16(status).unwrap().is_success()
}
