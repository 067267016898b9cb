//! The listening server: connections, timeouts, TLS.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, HttpServer,
    dev::ServerHandle,
    middleware::from_fn,
    rt::net::TcpStream,
    web::{self, ServiceConfig},
};
use rustls::ServerConfig;

use super::{configure, shell, state::AppState};

/// Bytes that a client does not take for so long end its connection.
const UNREAD_FOR: Duration = Duration::from_secs(30);

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
}

/// A server that listens.
pub struct Server {
    /// Where, as it turned out (the port may have been 0).
    pub addresses: Vec<SocketAddr>,
    handle: ServerHandle,
    running: tokio::task::JoinHandle<io::Result<()>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Server {
    /// Takes no new connections and waits for the requests under way, at most [`super::settings::Settings::stop_timeout`].
    pub async fn stop(self) {
        self.handle.stop(true).await;
        // the server future ends right after; what it returns then says nothing new
        drop(self.running.await);
    }

    /// Ends when the server does, which without [`Server::stop`] is a failure.
    pub async fn ended(&mut self) -> io::Result<()> {
        (&mut self.running).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

/// Serves the API on `listener`, which is bound already, so that a busy port is found before anything starts.
///
/// `more` adds what other parts of the API need (`web::Data`) and routes that only tests have.
pub fn serve(
    state: web::Data<AppState>,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    more: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
) -> Result<Server, ServeError> {
    let settings = state.settings.clone();
    let app_state = state;
    let server = HttpServer::new(move || {
        let more = more.clone();
        App::new().app_data(app_state.clone()).wrap(from_fn(shell::shell)).configure(move |config| more(config)).configure(configure)
    })
    .workers(settings.workers.max(1))
    .max_connections(settings.connections.max(1))
    .client_request_timeout(settings.head_timeout)
    .client_disconnect_timeout(Duration::from_secs(2))
    .keep_alive(settings.keep_alive)
    .shutdown_timeout(settings.stop_timeout.as_secs().max(1))
    .tls_handshake_timeout(settings.head_timeout)
    .h1_allow_half_closed(false)
    .tcp_nodelay(true)
    .on_connect(|connection, extensions| {
        extensions.insert(shell::Closing::default());
        let socket = connection
            .downcast_ref::<TcpStream>()
            .or_else(|| connection.downcast_ref::<actix_tls::accept::rustls_0_23::TlsStream<TcpStream>>().map(|stream| stream.get_ref().0));
        if let Some(socket) = socket {
            let millis = u32::try_from(UNREAD_FOR.as_millis()).unwrap_or(u32::MAX);
            // a client that stops reading would keep its connection for as long as it likes; where the system refuses, it does
            rustix::net::sockopt::set_tcp_user_timeout(socket, millis).ok();
        }
    })
    .disable_signals();
    let server = match tls {
        None => server.listen(listener)?,
        Some(config) => server.listen_rustls_0_23(listener, ServerConfig::clone(&config))?,
    };
    let addresses = server.addrs();
    let server = server.run();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    Ok(Server { addresses, handle, running })
}
