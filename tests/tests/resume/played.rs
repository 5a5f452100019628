//! A gateway that the test plays: it says what it is told to, and nothing else.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use grpcrouter_protocol::{
    Accepted, Config, Epoch, Hello, RejectReason, Rejected, Resume, Resumed, Time, Tunnel, TunnelId, Welcome,
    decode_hello, encode_welcome,
};
use grpcrouter_tests::world::PATIENCE;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Duration, Instant, sleep, timeout},
};

/// The listener of one.
pub(crate) struct Played {
    listener: TcpListener,
}

/// One stream that an instance began.
pub(crate) struct Visit {
    pub(crate) hello: Hello,
    respond: h2::server::SendResponse<Bytes>,
    outgoing: Option<h2::SendStream<Bytes>>,
    /// What the instance said after Hello.
    batches: mpsc::UnboundedReceiver<Bytes>,
    going_away: Arc<Notify>,
    connection: JoinHandle<()>,
}

impl Played {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    /// The next stream of an instance, and what it says there.
    pub(crate) async fn visited(&self) -> Visit {
        timeout(PATIENCE, self.next()).await.expect("an instance dials")
    }

    async fn next(&self) -> Visit {
        let (socket, _) = self.listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(socket).await.unwrap();
        let (request, respond) = connection.accept().await.unwrap().unwrap();
        let going_away = Arc::new(Notify::new());
        let asked = going_away.clone();
        let connection = tokio::spawn(async move {
            loop {
                tokio::select! {
                    next = connection.accept() => match next {
                        Some(Ok(_)) => {}
                        _ => return,
                    },
                    () = asked.notified() => connection.graceful_shutdown(),
                }
            }
        });
        let mut body = request.into_body();
        let mut said = BytesMut::new();
        let hello = loop {
            said.extend_from_slice(&body.data().await.expect("a Hello").unwrap());
            if whole(&said).is_some() {
                said.advance(5);
                break decode_hello(said.freeze()).unwrap();
            }
        };
        let (heard, batches) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut said = BytesMut::new();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
                said.extend_from_slice(&data);
                while let Some(length) = whole(&said) {
                    said.advance(5);
                    let _ = heard.send(said.split_to(length).freeze());
                }
            }
        });
        Visit { hello, respond, outgoing: None, batches, going_away, connection }
    }
}

impl Visit {
    /// Lets it in, and names these as the other gateways. Gives back this end of the tunnel.
    pub(crate) fn accept(&mut self, token: &'static str, gateways: Vec<String>) -> Tunnel {
        let config = Config::default();
        self.welcome(&Welcome::Accepted(Accepted {
            version: 1,
            features: Vec::new(),
            tunnel_id: TUNNEL,
            resume_token: Bytes::from_static(token.as_bytes()),
            heartbeat: config.heartbeat,
            resume_window: config.resume_window,
            limits: config.limits(),
            gateways,
        }));
        Tunnel::gateway(config, Time::default())
    }

    /// What it says of the tunnel that it wants here.
    pub(crate) fn resume(&self) -> Resume {
        self.hello.resume.clone().expect("it has a tunnel")
    }

    /// Gives it the tunnel here.
    pub(crate) fn give(&mut self, new_token: &'static str) {
        let Resume { epoch, tx_next, .. } = self.resume();
        let new_token = Bytes::from_static(new_token.as_bytes());
        self.welcome(&Welcome::Resumed(Resumed { epoch, rx_next: tx_next, new_token }));
    }

    /// Sends it away, to these gateways.
    pub(crate) fn reject(&mut self, reason: RejectReason, gateways: Vec<String>) {
        self.reject_for(reason, gateways, Duration::ZERO);
    }

    /// The same, for so long.
    pub(crate) fn reject_for(&mut self, reason: RejectReason, gateways: Vec<String>, retry_after: Duration) {
        let message = "as the test says".to_owned();
        self.welcome(&Welcome::Rejected(Rejected { reason, message, retry_after, gateways, versions: None }));
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        self.outgoing.as_mut().unwrap().send_trailers(trailers).unwrap();
    }

    /// Writes what the tunnel has to say.
    pub(crate) fn transmit(&mut self, tunnel: &mut Tunnel) {
        while let Some(batch) = tunnel.poll_transmit(Epoch::FIRST, Time::default()) {
            self.outgoing.as_mut().unwrap().send_data(batch, false).unwrap();
        }
    }

    /// Takes and acks what the instance says, until it ends the connection.
    pub(crate) async fn play(mut self, tunnel: &mut Tunnel) {
        let began = Instant::now();
        let played = async {
            while !self.connection.is_finished() {
                let now = Time::default() + began.elapsed();
                tokio::select! {
                    Some(batch) = self.batches.recv() => tunnel.handle_batch(Epoch::FIRST, batch, now).unwrap(),
                    () = sleep(Duration::from_millis(5)) => {} // waits because the tunnel's time passes
                }
                tunnel.handle_timeout(now).unwrap();
                while let Some(batch) = tunnel.poll_transmit(Epoch::FIRST, now) {
                    let _ = self.outgoing.as_mut().unwrap().send_data(batch, false);
                }
            }
        };
        timeout(PATIENCE, played).await.expect("the instance ends the connection");
    }

    /// Says GOAWAY, as what has had a connection for long enough does: no new stream, and this one may finish.
    pub(crate) fn go_away(&self) {
        self.going_away.notify_one();
    }

    /// Whether the instance has ended the connection.
    pub(crate) fn is_over(&self) -> bool {
        self.connection.is_finished()
    }

    /// Returns when it has.
    pub(crate) async fn over(self) {
        timeout(PATIENCE, self.connection).await.expect("the instance ends the connection").unwrap();
    }

    fn welcome(&mut self, welcome: &Welcome) {
        let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut outgoing = self.respond.send_response(head, false).unwrap();
        outgoing.send_data(encode_welcome(welcome), false).unwrap();
        self.outgoing = Some(outgoing);
    }
}

/// The length of the message at the front, if it is all there.
fn whole(said: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(said.get(1..5)?.try_into().unwrap()) as usize;
    (said.len() >= 5 + length).then_some(length)
}

/// The only tunnel of this gateway.
pub(crate) const TUNNEL: TunnelId = TunnelId([7; 16]);
