//! The response of a call on its way into the client's HTTP/2 stream.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
};

use bytes::Bytes;
use grpcrouter_protocol::{Headers, Trailers};
use h2::{Reason, SendStream, server::SendResponse};
use http::{HeaderMap, Response, StatusCode};

use crate::{
    gateway::edge::{Edge, TooLong, is_limit},
    metadata,
    status::Answer,
};

/// The sending half of a client's stream, and what waits for room in it.
#[derive(Debug)]
pub(super) struct Reply {
    half: Half,
    waiting: VecDeque<Part>,
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

/// The client takes nothing any more.
#[derive(Debug)]
pub(super) struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

impl Reply {
    pub(super) fn new(respond: SendResponse<Bytes>, max_message: usize) -> Self {
        let limited = is_limit(max_message).then(|| (Edge::default(), max_message));
        Self { half: Half::Head(respond), waiting: VecDeque::new(), edge: Edge::default(), limited }
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
            self.waiting.push_back(Part { delivered: data.len(), data });
        }
        Ok(())
    }

    /// Sends as much as the client has room for; `taken` is told of each part that its stream took, and `cx` when there
    /// is room again.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>, mut taken: impl FnMut(usize)) -> Result<(), Gone> {
        let mut wanted: usize = self.waiting.iter().map(|part| part.data.len()).sum();
        while let Some(part) = self.waiting.front_mut() {
            let stream = match &mut self.half {
                Half::Body(stream) => stream,
                // Data without headers: the instance is wrong, the client gets legal gRPC.
                Half::Head(_) => {
                    self.begin(metadata::response_headers(&Headers::default()), false)?;
                    continue;
                }
                Half::Ended => return Err(Gone),
            };
            stream.reserve_capacity(wanted);
            // poll_capacity only tells of changes, and may tell of one that is used up again.
            while stream.capacity() == 0 {
                match stream.poll_capacity(cx) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(_)) | None) => return Err(Gone),
                }
            }
            let room = stream.capacity().min(part.data.len());
            let data = part.data.split_to(room);
            self.edge.pass(&data);
            stream.send_data(data, false)?;
            wanted -= room;
            if part.data.is_empty() {
                let delivered = part.delivered;
                self.waiting.pop_front();
                taken(delivered);
            }
        }
        Ok(())
    }

    /// Sends all that waits, and the status. The call is over in its tunnel, so nothing is owed for its parts and they are
    /// at most one window: h2 may keep them until the client has room.
    pub(super) fn finish(&mut self, trailers: &Trailers) -> Result<(), Gone> {
        if !self.waiting.is_empty() && matches!(self.half, Half::Head(_)) {
            self.begin(metadata::response_headers(&Headers::default()), false)?;
        }
        match &mut self.half {
            Half::Head(_) => self.begin(metadata::trailers_only(trailers), true),
            Half::Body(stream) => {
                for part in self.waiting.drain(..) {
                    stream.send_data(part.data, false)?;
                }
                let mut map = HeaderMap::with_capacity(2);
                metadata::trailers_into_map(trailers, &mut map);
                stream.send_trailers(map)?;
                self.half = Half::Ended;
                Ok(())
            }
            Half::Ended => Err(Gone),
        }
    }

    fn begin(&mut self, response: Response<()>, end: bool) -> Result<(), Gone> {
        let Half::Head(respond) = &mut self.half else { return Ok(()) };
        let stream = respond.send_response(response, end)?;
        self.half = if end { Half::Ended } else { Half::Body(stream) };
        Ok(())
    }

    /// Ends a call that its instance did not end. What came of the response goes out first; where that stops inside of a
    /// message no status could be believed, so the stream is reset.
    pub(super) fn end(&mut self, answer: &Answer) {
        self.waiting.iter().for_each(|part| self.edge.pass(&part.data));
        match &mut self.half {
            Half::Body(stream) if !self.edge.is_between_messages() => stream.send_reset(Reason::INTERNAL_ERROR),
            // The client is told all there is; if it has gone meanwhile, nobody is left to tell.
            _ => drop(self.finish(&answer.trailers())),
        }
    }

    /// Answers a call that no instance was asked about.
    pub(super) fn answer(mut self, answer: &Answer) {
        self.end(answer);
    }
}

/// Answers what is not gRPC.
pub(super) fn http(mut respond: SendResponse<Bytes>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    // As above: the client may be gone.
    drop(respond.send_response(response, true));
}
