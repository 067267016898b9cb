//! The sections of the configuration that belong to the process rather than to a module.

use std::{net::SocketAddr, path::PathBuf};

use opspilot_kernel::config::{Size, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use opspilot_kernel::net::Network;

/// Where the service listens, and whom it believes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port of the API. Port 0 takes any free one.
    #[schemars(with = "String", extend("format" = "listen-address", "examples" = ["127.0.0.1:3000"]))]
    pub listen: SocketAddr,
    /// Proxies (addresses or networks) whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Certificate and key, to serve HTTPS.
    pub tls: Option<Tls>,
    /// Serve plain HTTP to other machines anyway. Passwords then travel in the clear.
    pub insecure: bool,
    /// Further origins (`https://ops.example.org`) whose pages may use the cookie on the live feed.
    pub allowed_origins: Vec<String>,
    /// How long log-ins last.
    pub session: Session,
    /// Connections of every kind that are open at a time, those of the live feed among them (`ui.websocket.max_clients`
    /// says how many those may be); further ones wait to be accepted.
    #[schemars(range(min = 8, max = 1_000_000))]
    pub max_connections: usize,
}

impl Default for Server {
    fn default() -> Server {
        Server {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            trusted_proxies: Vec::new(),
            tls: None,
            insecure: false,
            allowed_origins: Vec::new(),
            session: Session::default(),
            max_connections: 20_000,
        }
    }
}

/// How long log-ins last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// Without a request for so long, a session is over.
    pub idle: Span,
    /// A session is over so long after its log-in, whatever happens.
    pub absolute: Span,
}

impl Default for Session {
    fn default() -> Session {
        Session { idle: Span::seconds(30 * 60), absolute: Span::seconds(12 * 3600) }
    }
}

/// The files HTTPS needs, in PEM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate, its chain behind it.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

/// Where and for how long things are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ledger {
    /// The data directory. `--data` wins over it.
    pub dir: PathBuf,
    /// What is deleted, and when.
    pub retention: Retention,
    /// Bytes of freshly committed signals kept in memory for the detectors.
    pub memory: Size,
    /// Requests that may wait for the writer; further ones are answered 429.
    #[schemars(range(min = 1, max = 100_000))]
    pub queue: usize,
    /// After the disk was full, signals are taken again (until then they are answered 503) only when this much is free
    /// besides the reserve of 16MiB that was given up meanwhile. From 1MiB to 1024GiB.
    pub headroom: Size,
    /// After the disk was full, that much must have been free for so long, so that storage does not fail and heal in turn.
    /// From 1s to 1h.
    pub heal_after: Span,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger {
            dir: PathBuf::from("./data"),
            retention: Retention::default(),
            memory: Size::mib(16),
            queue: 1024,
            headroom: Size::mib(16),
            heal_after: Span::seconds(10),
        }
    }
}

/// What is deleted, and when.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Days that signals are kept, counted from their receipt.
    #[schemars(range(min = 1, max = 36_500))]
    pub signals_days: u32,
    /// Bytes that signals may take on disk, nothing else counted; the oldest go first.
    pub signals_max_bytes: Size,
    /// How long events can be replayed to a socket that was away.
    pub events: Span,
    /// Bytes that events may take on disk; the oldest go first. What a notifier has not read yet is kept until they take
    /// twice as much.
    pub events_max_bytes: Size,
    /// Days that resolved incidents with their timelines and evidence, alerts that are over, and the decisions about
    /// them are kept, counted from when they were over. What is open is never deleted, and the audit log never either.
    #[schemars(range(min = 1, max = 36_500))]
    pub incidents_days: u32,
}

impl Default for Retention {
    fn default() -> Retention {
        Retention {
            signals_days: 7,
            signals_max_bytes: Size(10 << 30),
            events: Span::seconds(7 * 86_400),
            events_max_bytes: Size(1 << 30),
            incidents_days: 90,
        }
    }
}

/// Calls to the outside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Outbound {
    /// Networks that outgoing calls may reach besides public addresses.
    pub allow_private: Vec<Network>,
}

/// What is logged, how, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// The least level that is logged.
    pub level: LogLevel,
    /// A file besides stderr.
    pub file: Option<LogFile>,
    /// Lines that may wait to be written; further ones are dropped and counted.
    #[schemars(range(min = 16, max = 1_000_000))]
    pub queue: usize,
}

impl Default for Log {
    fn default() -> Log {
        Log { format: LogFormat::Text, level: LogLevel::Info, file: None, queue: 4096 }
    }
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object on each line.
    Json,
}

/// How important a line must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// A person must act.
    Error,
    /// A person should know.
    Warning,
    /// What the service does.
    Info,
    /// How it does it.
    Debug,
}

/// A log file that is kept small.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// The file.
    pub path: PathBuf,
    /// Above this size a new one is begun.
    #[serde(default = "LogFile::max_size")]
    pub max_size: Size,
    /// How many old ones are kept.
    #[serde(default = "LogFile::keep")]
    #[schemars(range(min = 1, max = 1000))]
    pub keep: usize,
}

impl LogFile {
    fn max_size() -> Size {
        Size::mib(10)
    }

    fn keep() -> usize {
        5
    }
}

/// How much one client may do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests a minute; a sliding window for each user, key, or (without either) address.
    pub requests: RequestLimits,
}

/// Requests a minute, by what they do and who asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RequestLimits {
    /// Requests that read.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub read: u32,
    /// Requests that change something.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub write: u32,
    /// Log-ins, for each address.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub login: u32,
    /// Other numbers for single roles.
    pub roles: RoleLimits,
}

impl Default for RequestLimits {
    fn default() -> RequestLimits {
        RequestLimits { read: 6000, write: 3000, login: 30, roles: RoleLimits::default() }
    }
}

/// What differs for single roles.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RoleLimits {
    /// For integrators.
    pub integrator: Option<RoleLimit>,
    /// For viewers.
    pub viewer: Option<RoleLimit>,
    /// For operators.
    pub operator: Option<RoleLimit>,
    /// For admins.
    pub admin: Option<RoleLimit>,
}

/// What one role may do in a minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RoleLimit {
    /// Requests that read.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub read: Option<u32>,
    /// Requests that change something.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub write: Option<u32>,
}
