//! A server that is nothing but HTTP/2: it shows each stream as it came, and answers what a test tells it to.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use grpcrouter_tests::world::PATIENCE;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Where it listens, and the connections that came.
#[derive(Debug)]
pub(crate) struct RawUpstream {
    pub(crate) address: SocketAddr,
    connections: mpsc::UnboundedReceiver<RawConnection>,
    _task: JoinSet<()>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct RawConnection {
    calls: mpsc::UnboundedReceiver<RawCall>,
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
enum Order {
    GoAway,
    Cut,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct RawCall {
    pub(crate) head: Request<()>,
    pub(crate) body: h2::RecvStream,
    pub(crate) answer: SendResponse<Bytes>,
}

impl RawUpstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (came, connections) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut tasks = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (calls_in, calls) = mpsc::unbounded_channel();
                let (orders, mut ordered) = mpsc::unbounded_channel();
                tasks.spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                    loop {
                        tokio::select! {
                            call = connection.accept() => match call {
                                Some(Ok((request, answer))) => {
                                    let (head, body) = request.into_parts();
                                    let _ = calls_in.send(RawCall { head: Request::from_parts(head, ()), body, answer });
                                }
                                _ => return,
                            },
                            Some(order) = ordered.recv() => match order {
                                Order::GoAway => connection.graceful_shutdown(),
                                Order::Cut => return,
                            },
                        }
                    }
                });
                let _ = came.send(RawConnection { calls, orders });
            }
        });
        Self { address, connections, _task: task }
    }

    /// The next connection.
    pub(crate) async fn connection(&mut self) -> RawConnection {
        timeout(PATIENCE, self.connections.recv()).await.expect("a connection").unwrap()
    }
}

impl RawConnection {
    /// The next call of the test's own. What the agent asks for itself is answered: there is no such service.
    pub(crate) async fn call(&mut self) -> RawCall {
        loop {
            let call = timeout(PATIENCE, self.calls.recv()).await.expect("a call").expect("a connection");
            if call.head.uri().path().starts_with("/grpc.") {
                call.trailers_only(&[("grpc-status", "12")]);
                continue;
            }
            return call;
        }
    }

    /// Answers what the agent asks for itself, for ever.
    pub(crate) async fn idle(&mut self) {
        let _ = self.call().await;
        panic!("a call that nobody makes");
    }

    /// Takes no new stream, and lets those go on that run.
    pub(crate) fn go_away(&self) {
        let _ = self.orders.send(Order::GoAway);
    }

    /// Cuts the connection.
    pub(crate) fn cut(&self) {
        let _ = self.orders.send(Order::Cut);
    }
}

impl RawCall {
    /// All that the client sends, and whether it ended that.
    pub(crate) async fn upload(&mut self) -> (Bytes, Result<(), h2::Reason>) {
        let mut all = BytesMut::new();
        loop {
            match timeout(PATIENCE, self.body.data()).await.expect("an end of the upload") {
                Some(Ok(data)) => {
                    self.body.flow_control().release_capacity(data.len()).unwrap();
                    all.extend_from_slice(&data);
                }
                Some(Err(error)) => return (all.freeze(), Err(error.reason().expect("a reset"))),
                None => return (all.freeze(), Ok(())),
            }
        }
    }

    /// How the client resets it.
    pub(crate) async fn reset(&mut self) -> h2::Reason {
        let reset = std::future::poll_fn(|cx| self.answer.poll_reset(cx));
        timeout(PATIENCE, reset).await.expect("a reset").unwrap()
    }

    /// Headers, this body, and trailers.
    pub(crate) fn answer(mut self, headers: &[(&str, &str)], body: &[u8], trailers: &[(&str, &str)]) {
        let mut response = Response::new(());
        *response.headers_mut() = map(headers);
        let mut stream = self.answer.send_response(response, false).unwrap();
        if !body.is_empty() {
            stream.send_data(Bytes::copy_from_slice(body), false).unwrap();
        }
        stream.send_trailers(map(trailers)).unwrap();
    }

    /// Headers that are all.
    pub(crate) fn trailers_only(mut self, headers: &[(&str, &str)]) {
        let mut response = Response::new(());
        *response.headers_mut() = map(headers);
        let _ = self.answer.send_response(response, true);
    }
}

fn map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert("content-type", "application/grpc".parse().unwrap());
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        map.append(name, value.parse().unwrap());
    }
    if headers.iter().any(|(name, _)| name.starts_with("x-trailer")) {
        map.remove("content-type");
    }
    map
}
