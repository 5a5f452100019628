//! Calls that come straight to this backend, without a gateway: the same services, the same ends of a call.

use std::fmt;
use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{ResponsePart, Text, Trailers};
use h2::server::{Connection, SendResponse};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tracing::{debug, warn};

use super::answering::{Answering, Outlet, Over};
use super::dispatch::Services;
use super::meters::Meters;
use crate::accept_log::AcceptLog;
use crate::h2_body::RecvBody;
use crate::metadata::{self, Vouched};

/// The door for direct calls.
#[derive(Debug)]
pub(super) struct Direct {
    pub(super) listener: TcpListener,
    pub(super) services: Arc<Services>,
    pub(super) tasks: TaskTracker,
    pub(super) meters: Arc<Meters>,
    pub(super) drain_timeout: Duration,
}

impl Direct {
    /// Accepts until `stop`; then what runs may finish, for as long as the drain timeout.
    pub(super) async fn run(self, stop: CancellationToken) {
        let Self { listener, services, tasks, meters, drain_timeout } = self;
        let connections = TaskTracker::new();
        let mut log = AcceptLog::default();
        // Calls end with a status; connections are cut. Dropped with this future: no connection outlives its door.
        let (end, cut) = (CancellationToken::new(), CancellationToken::new());
        let _cut = cut.clone().drop_guard();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    log.works();
                    let (services, tasks, meters) = (services.clone(), tasks.clone(), meters.clone());
                    let door = Door { services, tasks, meters, peer, stop: stop.clone(), end: end.clone() };
                    let cut = cut.clone();
                    connections.spawn(async move { cut.run_until_cancelled(door.connection(stream)).await });
                }
                Err(error) => {
                    log.failed(&error);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.close();
        if timeout(drain_timeout, connections.wait()).await.is_ok() {
            return;
        }
        warn!(connections = connections.len(), "direct calls still run after the drain timeout; they end now");
        end.cancel();
        if timeout(LINGER, connections.wait()).await.is_err() {
            cut.cancel();
            connections.wait().await;
        }
    }
}

/// One client's connection.
struct Door {
    services: Arc<Services>,
    tasks: TaskTracker,
    meters: Arc<Meters>,
    peer: SocketAddr,
    /// No new call.
    stop: CancellationToken,
    /// No call at all.
    end: CancellationToken,
}

impl Door {
    async fn connection(self, stream: TcpStream) {
        let peer = self.peer;
        // Small answers do not wait for the ack of the last one.
        let _ = stream.set_nodelay(true);
        let handshake = h2::server::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAM_WINDOW * MAX_STREAMS)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_LIST)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_send_buffer_size(MAX_SEND_BUFFER)
            .handshake(stream);
        let connection = match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return debug!(%peer, %error, "no HTTP/2 handshake"),
            Err(_) => return debug!(%peer, "no HTTP/2 handshake in time"),
        };
        self.calls(connection).await;
    }

    async fn calls(&self, mut connection: Connection<TcpStream, Bytes>) {
        let mut draining = false;
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled(), if !draining => {
                    draining = true;
                    connection.graceful_shutdown();
                    continue;
                }
                accepted = connection.accept() => accepted,
            };
            match accepted {
                Some(Ok((request, respond))) => self.call(request, respond),
                Some(Err(error)) => return debug!(peer = %self.peer, %error, "connection lost"),
                None => return,
            }
        }
    }

    fn call(&self, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
        let (head, stream) = request.into_parts();
        let content_subtype = metadata::content_subtype(&head.headers);
        let refusal = if head.method != Method::POST {
            Some(StatusCode::METHOD_NOT_ALLOWED)
        } else if !metadata::is_grpc(&head.headers) {
            Some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        } else {
            None
        };
        if let Some(status) = refusal {
            let mut response = Response::new(());
            *response.status_mut() = status;
            let _ = respond.send_response(response, true);
            return;
        }
        let path = Text::from(head.uri.path().to_owned());
        let authority = Text::from(head.uri.authority().map(ToString::to_string).unwrap_or_default());
        // Through the same rules as a call that comes over a gateway: what must not cross there is not seen here.
        let meter = self.meters.began(path.clone());
        let request = metadata::start_from_request(&head.headers, path, authority, &Vouched::default())
            .and_then(|head| Ok((metadata::request_from_start(&head.start, head.timeout)?, head.timeout)));
        let (request, time_left) = match request {
            Ok(request) => request,
            Err(answer) => {
                meter.ended(None, Some(answer.trailers().status));
                let _ = respond.send_response(metadata::trailers_only(&answer.trailers(), &content_subtype), true);
                return;
            }
        };
        let (services, end) = (self.services.clone(), self.end.clone());
        self.tasks.spawn(async move {
            let body = Body::new(ClientBody(RecvBody::new(stream)));
            let outlet = StreamOutlet {
                head: respond,
                content_subtype,
                stream: None,
                deadline: time_left.map(|left| Box::pin(sleep(left))),
                end: Box::pin(end.cancelled_owned()),
            };
            let code = Answering::new(services.call(request.map(|()| body)), outlet).await;
            meter.ended(None, code);
        });
    }
}

/// The way back to the client.
struct StreamOutlet {
    head: SendResponse<Bytes>,
    /// Of the request.
    content_subtype: Text,
    stream: Option<h2::SendStream<Bytes>>,
    deadline: Option<Pin<Box<Sleep>>>,
    end: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Outlet for StreamOutlet {
    /// What fails here fails because the stream is gone, which `poll_over` tells.
    fn send(&mut self, part: ResponsePart) -> usize {
        let ResponsePart { headers, data, trailers } = part;
        let Some(stream) = self.open(headers, &data, trailers.as_ref()) else { return 0 };
        if !data.is_empty() {
            let _ = stream.send_data(data, false);
        }
        if let Some(trailers) = trailers {
            let mut map = HeaderMap::new();
            metadata::trailers_into_map(&trailers, &mut map);
            let _ = stream.send_trailers(map);
            return 0;
        }
        stream.reserve_capacity(CHUNK);
        stream.capacity()
    }

    fn poll_capacity(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let Some(stream) = &mut self.stream else { return Poll::Pending };
        loop {
            // What was there before is not told again, and what is told may be used up already.
            if stream.capacity() > 0 {
                return Poll::Ready(stream.capacity());
            }
            if !matches!(ready!(stream.poll_capacity(cx)), Some(Ok(_))) {
                // The stream is gone; `poll_over` ends the call.
                return Poll::Pending;
            }
        }
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Over> {
        let reset = match &mut self.stream {
            Some(stream) => stream.poll_reset(cx),
            None => self.head.poll_reset(cx),
        };
        if reset.is_ready() {
            return Poll::Ready(Over::Gone);
        }
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Over::Stopped);
        }
        match &mut self.deadline {
            Some(deadline) => deadline.as_mut().poll(cx).map(|()| Over::Deadline),
            None => Poll::Pending,
        }
    }
}

impl StreamOutlet {
    /// The stream for the rest of the answer; none if the head was all of it, or if the client is gone.
    fn open(
        &mut self,
        headers: Option<grpcrouter_protocol::Headers>,
        data: &Bytes,
        trailers: Option<&Trailers>,
    ) -> Option<&mut h2::SendStream<Bytes>> {
        if self.stream.is_none() {
            self.stream = match (headers, trailers) {
                (None, Some(trailers)) if data.is_empty() => {
                    let _ = self.head.send_response(metadata::trailers_only(trailers, &self.content_subtype), true);
                    return None;
                }
                (headers, _) => {
                    self.head.send_response(metadata::response_headers(&headers.unwrap_or_default()), false).ok()
                }
            };
        }
        self.stream.as_mut()
    }
}

impl fmt::Debug for StreamOutlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamOutlet").field("open", &self.stream.is_some()).finish_non_exhaustive()
    }
}

/// The client's request body. A reset is an error that tonic does not take for a clean end of the upload.
struct ClientBody(RecvBody);

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        Poll::Ready(
            frame.map(|frame| frame.map_err(|error| Status::unavailable(format!("the client is gone: {error}")))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// As at the gateway's front: a call behaves the same through either door.
const MAX_STREAMS: u32 = 256;
/// Bytes a client may send on one stream before the handler has read them.
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes of a request's head: the metadata limit with room for what HTTP adds to each entry.
const MAX_HEADER_LIST: u32 = 32 * 1024;
/// Streams reset before they were looked at; honest clients that cancel in a burst stay below.
const MAX_PENDING_RESETS: usize = 200;
/// Bytes of one answer that wait for the client.
const MAX_SEND_BUFFER: usize = 64 * 1024;
/// Bytes of an answer that are taken from the service before it waits for the client again.
const CHUNK: usize = 32 * 1024;
/// Who has not said hello by then is no client.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long clients may take to read the last statuses.
const LINGER: Duration = Duration::from_secs(1);
/// Out of file descriptors, mostly: trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
