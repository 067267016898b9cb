//! The one way out: every HTTP call a module makes.
//!
//! A [`Target`] has a name of the configuration, a deadline, a bound on what it may answer, a budget of repetitions and
//! a breaker. A call reaches public addresses, and what `outbound.allow_private` admits. Addresses written in the URL are
//! checked before anything else; names are resolved here, every address is checked, and the connection is made to exactly
//! these. Redirects are answers like any other, proxies of the environment are not used.
//!
//! What a URL, a header or a body says is in no error, no log and no metric.

mod address;
mod budget;
mod meters;
mod place;
mod resolver;
mod target;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use opspilot_kernel::net::Network;
pub use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use self::{address::Reach, meters::Meters, resolver::Checked};
pub use self::{
    resolver::{Resolve, SystemResolver},
    target::Target,
};

/// How calls are made.
#[derive(Clone)]
pub struct OutboundOptions {
    /// Networks that may be reached besides public addresses.
    pub allow_private: Vec<Network>,
    /// Turns names into addresses.
    pub resolver: Arc<dyn Resolve>,
}

impl Default for OutboundOptions {
    fn default() -> OutboundOptions {
        OutboundOptions { allow_private: Vec::new(), resolver: Arc::new(SystemResolver::default()) }
    }
}

/// How one target is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetPolicy {
    /// A call is over after so long, repetitions included.
    pub deadline: Duration,
    /// The longest body that is taken, in bytes.
    pub max_body: usize,
    /// How often a call that may be repeated is repeated, as far as the budget lets it.
    pub retries: u32,
}

impl Default for TargetPolicy {
    fn default() -> TargetPolicy {
        TargetPolicy { deadline: Duration::from_secs(10), max_body: 1 << 20, retries: 2 }
    }
}

/// A call.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Where to. It may hold a secret, and is told nobody.
    pub url: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whether doing it twice is the same as doing it once.
    pub repeatable: bool,
}

impl Request {
    /// A call that only reads.
    pub fn get(url: impl Into<String>) -> Request {
        Request { method: Method::GET, url: url.into(), headers: HeaderMap::new(), body: Bytes::new(), repeatable: true }
    }

    /// A call that does something; not repeated unless the caller says that it may be.
    pub fn post(url: impl Into<String>, body: impl Into<Bytes>) -> Request {
        Request { method: Method::POST, url: url.into(), headers: HeaderMap::new(), body: body.into(), repeatable: false }
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request").field("method", &self.method).field("body", &self.body.len()).finish_non_exhaustive()
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status, whatever it is: a redirect is not followed.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Why a place is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is, or resolves to, an address that outgoing calls may not reach.
    #[error("its address is not a public one; outbound.allow_private admits networks")]
    Address,
    /// Neither `https` nor `http`.
    #[error("only https and http are called")]
    Scheme,
    /// A name or a password in the URL.
    #[error("a user name or a password in the URL; send it in a header")]
    Userinfo,
    /// A port that speaks something else.
    #[error("its port is not one of HTTP; 80, 443 and most from 1024 on are called")]
    Port,
    /// The name has no address, or nobody knows it.
    #[error("its name cannot be resolved")]
    Unresolved,
}

/// Why there is no answer. It never says where the call went or what it carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// The URL is none.
    #[error("not a URL")]
    Url,
    /// The place must not be called, or cannot be found.
    #[error("{0}")]
    Refused(Refused),
    /// It kept failing, and is left alone for a while.
    #[error("it kept failing and is not called for a while")]
    Open,
    /// There is no connection, or none that can be trusted.
    #[error("no connection can be made")]
    Connect,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer is longer than is taken.
    #[error("the answer is too long")]
    TooLong,
    /// The connection broke, or what came is no HTTP.
    #[error("the connection broke before the answer was there")]
    Broken,
}

impl OutboundError {
    /// A word for metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            OutboundError::Url => "bad_url",
            OutboundError::Refused(Refused::Unresolved) => "unresolved",
            OutboundError::Refused(_) => "refused",
            OutboundError::Open => "open",
            OutboundError::Connect => "no_connection",
            OutboundError::Timeout => "timeout",
            OutboundError::TooLong => "too_long",
            OutboundError::Broken => "broken",
        }
    }

    /// Whether the other side is to blame, or the way there.
    const fn is_theirs(&self) -> bool {
        use OutboundError::{Broken, Connect, Refused as Not, Timeout};
        matches!(self, Connect | Timeout | Broken | Not(Refused::Unresolved))
    }
}

/// The client. Cheap to clone; every clone is the same.
#[derive(Clone)]
pub struct Outbound {
    http: reqwest::Client,
    reach: Reach,
    meters: Meters,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("reach", &self.reach).finish_non_exhaustive()
    }
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OutboundSetupError {
    /// Its metrics.
    #[error("the metrics of outgoing calls cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    /// TLS, or what it rests on.
    #[error("outgoing calls cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

impl Outbound {
    /// The client; registers its metrics.
    pub fn new(options: OutboundOptions, registry: &prometheus::Registry) -> Result<Outbound, OutboundSetupError> {
        // fails only if one is installed already
        drop(rustls::crypto::ring::default_provider().install_default());
        let reach = Reach::and(options.allow_private);
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(8)
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("opspilot/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Arc::new(Checked { resolver: options.resolver, reach: reach.clone() }))
            .build()?;
        Ok(Outbound { http, reach, meters: Meters::register(registry)? })
    }

    /// Something to call, by its name in metrics: of the configuration, and from a closed set.
    pub fn target(&self, name: impl Into<String>, policy: TargetPolicy) -> Target {
        Target::new(self.clone(), name.into(), policy)
    }
}
