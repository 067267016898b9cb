//! The live feed as a test sees it.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::PATIENCE;

pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub welcome: Json,
}

impl Socket {
    /// A client of the feed at `url`; its system takes in `room` bytes that it has not read, if that is said.
    pub async fn open(url: &str, token: &str, room: Option<u32>) -> Socket {
        let mut request = format!("{}/api/live", url.replace("http://", "ws://")).into_client_request().unwrap();
        request.headers_mut().insert("Authorization", format!("Bearer {token}").parse().unwrap());
        let socket = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = room {
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        let stream = socket.connect(url.trim_start_matches("http://").parse().unwrap()).await.unwrap();
        let (stream, _) = client_async(request, MaybeTlsStream::Plain(stream)).await.unwrap();
        let mut socket = Socket { stream, welcome: Json::Null };
        socket.welcome = socket.next().await.expect("a welcome");
        assert_eq!(socket.welcome["type"], "welcome");
        socket
    }

    pub async fn send(&mut self, message: Json) {
        self.stream.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Subscribes, and waits until it is confirmed.
    pub async fn subscribe(&mut self, events: &[&str], after: Option<u64>) {
        let mut command = json!({ "action": "subscribe", "events": events });
        if let Some(after) = after {
            command["after"] = json!(after);
        }
        self.send(command).await;
        let answer = self.next().await.expect("a confirmation");
        assert_eq!(answer["type"], "subscribed", "{answer}");
    }

    /// The next message, or the close code.
    pub async fn next(&mut self) -> Result<Json, u16> {
        let next = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(text.as_str()).unwrap()),
                    Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| u16::from(frame.code))),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return Err(1006),
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("the feed says nothing")
    }

    /// The next event that `wanted` wants.
    pub async fn event(&mut self, wanted: impl Fn(&Json) -> bool) -> Json {
        loop {
            let message = self.next().await.expect("the feed was closed");
            if message["type"] == "event" && wanted(&message) {
                return message;
            }
        }
    }

    /// Reads until it is closed; the code.
    pub async fn closed(&mut self) -> u16 {
        loop {
            if let Err(code) = self.next().await {
                return code;
            }
        }
    }
}
