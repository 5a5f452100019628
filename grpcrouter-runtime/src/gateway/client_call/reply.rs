//! The response of a call on its way into the client's HTTP/2 stream.

use std::{
    collections::VecDeque,
    mem,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use grpcrouter_protocol::{Headers, Text, Trailers, WindowLease};
use h2::{Reason, SendStream, server::SendResponse};
use http::{HeaderMap, Response, StatusCode};

use crate::{
    gateway::edge::{Edge, TooLong, is_limit},
    metadata,
    status::Answer,
    tunnel::kept,
};

/// The sending half of a client's stream, and what waits for room in it.
#[derive(Debug)]
pub(super) struct Reply {
    half: Half,
    /// Of the request; where the service names none of its own.
    content_subtype: Text,
    waiting: VecDeque<Part>,
    /// Bytes of all that waits.
    queued: usize,
    /// The status, if it waits for what came before it.
    last: Option<Trailers>,
    /// Of the tunnel's pool of windows, once the call is over there.
    lease: Option<WindowLease>,
    edge: Edge,
    /// Of what has come, if the size of messages is limited.
    limited: Option<(Edge, usize)>,
}

#[derive(Debug)]
enum Half {
    /// No headers have gone out.
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
    /// The stream has ended.
    Ended,
}

#[derive(Debug)]
struct Part {
    data: Bytes,
    /// As it was delivered: what is owed to the instance once all of it is taken.
    delivered: usize,
}

/// Whether a response is all in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    All,
    /// What waits needs room first.
    Part,
}

/// The client takes nothing any more.
#[derive(Debug)]
pub(super) struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

impl Reply {
    pub(super) fn new(respond: SendResponse<Bytes>, content_subtype: Text, max_message: usize) -> Self {
        let limited = is_limit(max_message).then(|| (Edge::default(), max_message));
        let half = Half::Head(respond);
        let (waiting, edge) = (VecDeque::new(), Edge::default());
        Self { half, content_subtype, waiting, queued: 0, last: None, lease: None, edge, limited }
    }

    /// Looks at data before it is taken, and cuts it off before a message that is over the limit.
    pub(super) fn limit(&mut self, data: &mut Bytes) -> Result<(), TooLong> {
        let Some((edge, most)) = &mut self.limited else { return Ok(()) };
        let looked = edge.pass_up_to(data, *most);
        if let Err(long) = &looked {
            data.truncate(long.at());
        }
        looked
    }

    /// Whether the client has ended the stream or its connection is gone; else `cx` is told when that happens.
    pub(super) fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.half {
            Half::Head(respond) => respond.poll_reset(cx).is_ready(),
            Half::Body(stream) => stream.poll_reset(cx).is_ready(),
            Half::Ended => false,
        }
    }

    /// Takes parts of the response. Headers go out at once, before any data and also without.
    pub(super) fn take(&mut self, headers: Option<Headers>, data: Bytes) -> Result<(), Gone> {
        if let Some(headers) = &headers {
            self.begin(metadata::response_headers(headers), false)?;
        }
        if !data.is_empty() {
            self.queued += data.len();
            self.waiting.push_back(Part { delivered: data.len(), data });
        }
        Ok(())
    }

    /// Sends as much as the client has room for; `taken` is told of each part that its stream took, and `cx` when there
    /// is room again.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, taken: impl FnMut(usize)) -> Result<Said, Gone> {
        self.send_data(cx, taken)?;
        match self.last.take() {
            Some(trailers) => self.finish(trailers, cx),
            None => Ok(Said::Part),
        }
    }

    fn send_data(&mut self, cx: &mut Context<'_>, mut taken: impl FnMut(usize)) -> Result<(), Gone> {
        while let Some(part) = self.waiting.front_mut() {
            let stream = match &mut self.half {
                Half::Body(stream) => stream,
                // The core lets no data through before headers.
                Half::Head(_) | Half::Ended => return Err(Gone),
            };
            stream.reserve_capacity(self.queued);
            // poll_capacity only tells of changes, and may tell of one that is used up again.
            while stream.capacity() == 0 {
                match stream.poll_capacity(cx) {
                    Poll::Pending => {
                        if let Some(newest) = self.waiting.back_mut() {
                            newest.data = kept(mem::take(&mut newest.data));
                        }
                        return Ok(());
                    }
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(_)) | None) => return Err(Gone),
                }
            }
            let room = stream.capacity().min(part.data.len());
            let data = part.data.split_to(room);
            self.edge.pass(&data);
            stream.send_data(data, false)?;
            self.queued -= room;
            if part.data.is_empty() {
                let delivered = part.delivered;
                self.waiting.pop_front();
                taken(delivered);
            }
        }
        Ok(())
    }

    /// The call is over in its tunnel; what waits of it keeps this of the pool of windows.
    pub(super) fn hold(&mut self, lease: WindowLease) {
        self.lease = Some(lease);
    }

    /// All is here and waits for room: nothing else comes for this response.
    pub(super) fn is_ending(&self) -> bool {
        self.last.is_some()
    }

    /// Sends all that waits, and the status. The call is over in its tunnel, so nothing is owed for its parts. The last of
    /// them h2 may keep until the client has room; what is more than that waits here.
    pub(super) fn finish(&mut self, trailers: Trailers, cx: &mut Context<'_>) -> Result<Said, Gone> {
        if self.queued > KEPT_BY_H2 {
            self.send_data(cx, |_| {})?;
            if self.queued > KEPT_BY_H2 {
                self.last = Some(trailers);
                return Ok(Said::Part);
            }
        }
        self.queued = 0;
        match &mut self.half {
            Half::Head(_) => self.begin(metadata::trailers_only(&trailers, &self.content_subtype), true)?,
            Half::Body(stream) => {
                for part in self.waiting.drain(..) {
                    stream.send_data(part.data, false)?;
                }
                let mut map = HeaderMap::with_capacity(2);
                metadata::trailers_into_map(&trailers, &mut map);
                stream.send_trailers(map)?;
                self.half = Half::Ended;
            }
            Half::Ended => return Err(Gone),
        }
        Ok(Said::All)
    }

    /// Bytes that wait for room in the client's stream.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued
    }

    fn begin(&mut self, response: Response<()>, end: bool) -> Result<(), Gone> {
        let Half::Head(respond) = &mut self.half else { return Ok(()) };
        let stream = respond.send_response(response, end)?;
        self.half = if end { Half::Ended } else { Half::Body(stream) };
        Ok(())
    }

    /// Ends a call that its instance did not end. What came of the response goes out first; where that stops inside of a
    /// message no status could be believed, so the stream is reset.
    pub(super) fn end(&mut self, answer: &Answer, cx: &mut Context<'_>) -> Result<Said, Gone> {
        self.waiting.iter().for_each(|part| self.edge.pass(&part.data));
        if let Half::Body(stream) = &mut self.half
            && !self.edge.is_between_messages()
        {
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(Said::All);
        }
        self.finish(answer.trailers(), cx)
    }

    /// Answers a call that no instance was asked about.
    pub(super) fn answer(mut self, answer: &Answer) {
        // The client is told all there is; if it has gone meanwhile, nobody is left to tell.
        let _ = self.finish(answer.trailers(), &mut Context::from_waker(Waker::noop()));
    }
}

/// Answers what is not gRPC.
pub(super) fn http(mut respond: SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    // As above: the client may be gone.
    drop(respond.send_response(response, true));
}

/// Bytes that are handed to h2 together with the status of a finished call, though the client has no room for them:
/// one first window, so that a usual call needs no second look.
const KEPT_BY_H2: usize = 64 * 1024;
