//! How the HTTP server behaves; every bound is here.

use std::time::Duration;

use opspilot_kernel::principal::Role;

use crate::config::Network;

/// How many requests a minute a client may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimits {
    /// Reads, for each principal (or address).
    pub reads: u32,
    /// Writes, for each principal (or address).
    pub writes: u32,
    /// Log-ins, for each address; and as many pings of heartbeats that do not exist.
    pub logins: u32,
    /// Other numbers for a role: reads and writes.
    pub roles: Vec<(Role, u32, u32)>,
    /// How many clients are remembered; the one that was idle longest makes room for a new one.
    pub clients: usize,
}

impl Default for RateLimits {
    fn default() -> RateLimits {
        RateLimits { reads: 6_000, writes: 3_000, logins: 30, roles: Vec::new(), clients: 50_000 }
    }
}

/// How the server behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Networks whose forwarded headers are believed.
    pub trusted_proxies: Vec<Network>,
    /// Origins besides the server's own that a browser may come from.
    pub allowed_origins: Vec<String>,
    /// Whether TLS ends here.
    pub tls: bool,
    /// Whether the server listens beyond loopback without TLS or a trusted proxy, because it was told to.
    pub insecure: bool,
    /// How many requests a minute a client may make.
    pub rate_limits: RateLimits,
    /// Threads that serve connections.
    pub workers: usize,
    /// Connections that a worker holds; further ones wait to be accepted.
    pub connections: usize,
    /// How long a client may take to send the head of a request.
    pub head_timeout: Duration,
    /// How long a client may take to send the body of a request.
    pub body_timeout: Duration,
    /// How long a connection may be idle between requests.
    pub keep_alive: Duration,
    /// How long requests under way may take when the server stops.
    pub stop_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            trusted_proxies: Vec::new(),
            allowed_origins: Vec::new(),
            tls: false,
            insecure: false,
            rate_limits: RateLimits::default(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            connections: 1024,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            stop_timeout: Duration::from_secs(5),
        }
    }
}
