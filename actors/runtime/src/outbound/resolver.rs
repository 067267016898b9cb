//! Names into addresses: asked once for each connection, checked, and connected to as they are.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolving};
use tokio::sync::Semaphore;

use super::{Refused, address::Reach};

/// Turns names into addresses.
pub trait Resolve: Send + Sync + 'static {
    /// Every address of the name.
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Asks the system. A question that hangs holds a thread, and so there are never more than a few: whoever comes then
/// waits for as long as their own deadline lets them.
#[derive(Debug, Clone)]
pub struct SystemResolver {
    pub(super) threads: Arc<Semaphore>,
}

impl SystemResolver {
    /// So many questions are under way at most.
    pub const AT_ONCE: usize = 8;
}

impl Default for SystemResolver {
    fn default() -> SystemResolver {
        SystemResolver { threads: Arc::new(Semaphore::new(SystemResolver::AT_ONCE)) }
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let (threads, name) = (Arc::clone(&self.threads), name.to_owned());
        Box::pin(async move {
            let seat = threads.acquire_owned().await.map_err(io::Error::other)?;
            let asked = tokio::task::spawn_blocking(move || {
                // given back when the thread is free again, whoever still waits for the answer
                let _seat = seat;
                (name.as_str(), 0).to_socket_addrs().map(|found| found.map(|address| address.ip()).collect())
            });
            asked.await.map_err(io::Error::other)?
        })
    }
}

/// What stands between the HTTP client and the resolver: it lets addresses through only if all of them are within reach.
/// The client connects to what it is handed here, so there is no second question whose answer could differ.
pub(super) struct Checked {
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) reach: Reach,
}

impl reqwest::dns::Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (asked, reach) = (self.resolver.resolve(name.as_str()), self.reach.clone());
        Box::pin(async move {
            let found = asked.await.map_err(|_| Refused::Unresolved)?;
            if found.is_empty() {
                return Err(Refused::Unresolved.into());
            }
            // one that is closed among public ones is how a name gets the better of a client that tries the next
            if !found.iter().all(|address| reach.holds(*address)) {
                return Err(Refused::Address.into());
            }
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}
