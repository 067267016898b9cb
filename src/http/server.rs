//! The listening server: connections, timeouts, TLS.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_http::{HttpService, Protocol, Request};
use actix_service::{IntoServiceFactory as _, ServiceFactoryExt as _, fn_service, map_config};
use actix_tls::accept::{
    TlsError,
    rustls_0_23::{Acceptor, TlsStream},
};
use actix_web::{
    App, Error,
    body::MessageBody,
    dev::{self, AppConfig, ServerHandle, Service, ServiceFactory, ServiceResponse},
    middleware::from_fn,
    rt::net::TcpStream,
    web::{self, ServiceConfig},
};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{configure, framing::Guarded, shell, state::AppState};

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
    let app = move || {
        let more = more.clone();
        App::new().app_data(app_state.clone()).wrap(from_fn(shell::shell)).configure(move |config| more(config)).configure(configure)
    };
    let address = listener.local_addr()?;
    let builder = dev::Server::build()
        .workers(settings.workers.max(1))
        .max_concurrent_connections(settings.connections.max(1))
        .shutdown_timeout(settings.stop_timeout.as_secs().max(1))
        .disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let stopping = move || {
        let stopping = stopping.clone();
        async move { stopping.notified().await }
    };
    let (head_timeout, keep_alive) = (settings.head_timeout, settings.keep_alive);
    let builder = match tls {
        None => builder.listen("http", listener, move || {
            let http = http(app().into_factory(), keep_alive, head_timeout, stopping.clone());
            fn_service(move |socket: TcpStream| async move {
                let peer = prepare(&socket);
                Ok((Guarded::new(socket, head_timeout), Protocol::Http1, peer))
            })
            .and_then(http)
        })?,
        Some(config) => {
            let mut config = ServerConfig::clone(&config);
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            builder.listen("https", listener, move || {
                let http = http(app().into_factory(), keep_alive, head_timeout, stopping.clone());
                let mut acceptor = Acceptor::new(config.clone());
                acceptor.set_handshake_timeout(head_timeout);
                acceptor
                    .map_init_err(|_| ())
                    .map_err(TlsError::into_service_error)
                    .and_then(fn_service(move |stream: TlsStream<TcpStream>| async move {
                        let (socket, session) = stream.get_ref();
                        let peer = prepare(socket);
                        let two = session.alpn_protocol() == Some(b"h2");
                        Ok(match two {
                            true => (Guarded::through(stream), Protocol::Http2, peer),
                            false => (Guarded::new(stream, head_timeout), Protocol::Http1, peer),
                        })
                    }))
                    .and_then(http.map_err(TlsError::Service))
            })?
        }
    };
    let server = builder.run();
    let handle = server.handle();
    let running = actix_web::rt::spawn(server);
    Ok(Server { addresses: vec![address], handle, running })
}

/// Sets up a connection that was just accepted; where it comes from.
fn prepare(socket: &TcpStream) -> Option<SocketAddr> {
    // where the system refuses one of these, the connection still works
    socket.set_nodelay(true).ok();
    let millis = u32::try_from(UNREAD_FOR.as_millis()).unwrap_or(u32::MAX);
    // a client that stops reading would keep its connection for as long as it likes
    rustix::net::sockopt::set_tcp_user_timeout(socket, millis).ok();
    socket.peer_addr().ok()
}

/// The HTTP service of one worker, over streams that are followed.
fn http<S, A, B, F>(
    app: A,
    keep_alive: Duration,
    head_timeout: Duration,
    stopping: impl Fn() -> F + 'static,
) -> impl ServiceFactory<
    (Guarded<S>, Protocol, Option<SocketAddr>),
    Config = (),
    Response = (),
    Error = actix_http::error::DispatchError,
    InitError = (),
>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    A: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>, Error = Error> + 'static,
    A::InitError: std::fmt::Debug,
    A::Future: 'static,
    <A::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
    F: Future<Output = ()> + 'static,
{
    HttpService::build()
        .graceful_shutdown_signal(stopping)
        .keep_alive(keep_alive)
        // heads are timed where the stream is followed; this one holds for the beginning of HTTP/2
        .client_request_timeout(head_timeout + Duration::from_secs(1))
        .client_disconnect_timeout(Duration::from_secs(2))
        .h1_allow_half_closed(false)
        .on_connect_ext(|stream: &Guarded<S>, extensions| {
            extensions.insert(stream.connection());
        })
        .finish(map_config(app.map_err(|error: Error| error.error_response()), |()| AppConfig::default()))
}
