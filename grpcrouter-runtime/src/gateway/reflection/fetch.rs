//! Asks an instance for its descriptors: an ordinary call through its tunnel, of a service that every instance may have.

use std::{
    collections::VecDeque,
    sync::Arc,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use grpcrouter_protocol::{CallId, CancelReason, OpenCall, Start, Text, Trailers};
use tokio::sync::Notify;
use tonic::Code;

use crate::{
    clock,
    descriptors::{DESCRIPTORS_PATH, Fields, Hash, MAX_SET, Value},
    tunnel::{CallEvent, CallSink, TunnelHandle},
};

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the tunnel takes no call: {0}")]
    NotOpened(String),
    #[error("the instance answered {0:?}: {1}")]
    Answered(Code, String),
    #[error("the call was lost")]
    Lost,
    #[error("more than {MAX_SET} bytes")]
    TooLong,
    #[error("its answer is no stream of DescriptorsResponse")]
    Malformed,
}

/// The bytes of the set with this hash, as the instance says; nothing of it is checked but its length.
///
/// # Cancel safety
/// Dropping the future cancels the call.
pub(super) async fn fetch(tunnel: &TunnelHandle, hash: &Hash) -> Result<Bytes, FetchError> {
    let sink = Arc::new(Sink::default());
    let deadline = Some(clock::now() + ANSWER_DUE);
    let start = Start { path: Text::from(DESCRIPTORS_PATH.to_owned()), ..Start::default() };
    let call = OpenCall { start, deadline, data: question(hash), half_close: true };
    tunnel.open(call, sink.clone()).map_err(|(error, _)| FetchError::NotOpened(error.to_string()))?;
    let asked = Asked { tunnel, sink };
    let mut stream = BytesMut::new();
    let mut set = BytesMut::new();
    loop {
        match asked.next().await {
            Part::Data(data) => {
                stream.extend_from_slice(&data);
                while let Some(message) = split(&mut stream)? {
                    set.extend_from_slice(chunk(&message)?);
                }
                if set.len() > MAX_SET {
                    return Err(FetchError::TooLong);
                }
            }
            Part::End(Some(trailers)) => {
                return match Code::from_i32(trailers.status.cast_signed()) {
                    Code::Ok if stream.is_empty() => Ok(set.freeze()),
                    Code::Ok => Err(FetchError::Malformed),
                    code => Err(FetchError::Answered(code, trailers.message.as_str().to_owned())),
                };
            }
            Part::End(None) => return Err(FetchError::Lost),
        }
    }
}

/// `DescriptorsRequest { hash }` with its length prefix.
fn question(hash: &Hash) -> Bytes {
    let hash = hash.as_bytes();
    let mut message = BytesMut::with_capacity(PREFIX + 2 + hash.len());
    message.put_u8(0);
    message.put_u32(2 + 32);
    message.put_slice(&[0x0a, 32]);
    message.put_slice(hash);
    message.freeze()
}

/// The next message of a gRPC stream, if it is all there.
fn split(stream: &mut BytesMut) -> Result<Option<Bytes>, FetchError> {
    let Some(([flag, length @ ..], rest)) = stream.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if *flag != 0 || length > MAX_MESSAGE {
        return Err(FetchError::Malformed);
    }
    if rest.len() < length {
        return Ok(None);
    }
    let mut message = stream.split_to(PREFIX + length);
    Ok(Some(message.split_off(PREFIX).freeze()))
}

/// `DescriptorsResponse.data`.
fn chunk(message: &[u8]) -> Result<&[u8], FetchError> {
    let mut data: &[u8] = &[];
    for field in Fields::of(message) {
        let field = field.map_err(|_| FetchError::Malformed)?;
        if let (1, Value::Bytes(bytes)) = (field.number, field.value) {
            data = bytes;
        }
    }
    Ok(data)
}

/// The call while it lives.
struct Asked<'a> {
    tunnel: &'a TunnelHandle,
    sink: Arc<Sink>,
}

impl Asked<'_> {
    async fn next(&self) -> Part {
        loop {
            let part = self.sink.lock().pop_front();
            match part {
                Some(Part::Data(data)) => {
                    self.tunnel.consumed(self.sink.id(), data.len());
                    return Part::Data(data);
                }
                Some(end) => return end,
                None => self.sink.news.notified().await,
            }
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.tunnel.cancel(self.sink.id(), CancelReason::Shutdown);
    }
}

#[derive(Debug)]
enum Part {
    Data(Bytes),
    End(Option<Trailers>),
}

/// What has come and was not looked at; no more than a window.
#[derive(Debug, Default)]
struct Sink {
    id: AtomicU64,
    parts: Mutex<VecDeque<Part>>,
    news: Notify,
}

impl Sink {
    fn id(&self) -> CallId {
        CallId::from_raw(self.id.load(Ordering::Acquire))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Part>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CallSink for Sink {
    fn bind(&self, call: CallId) {
        self.id.store(call.get(), Ordering::Release);
    }

    fn deliver(&self, _: CallId, event: CallEvent) {
        {
            let mut parts = self.lock();
            match event {
                CallEvent::Response { data, trailers, .. } => {
                    if !data.is_empty() {
                        parts.push_back(Part::Data(data));
                    }
                    parts.extend(trailers.map(|trailers| Part::End(Some(trailers))));
                }
                CallEvent::Refused(_) | CallEvent::Ended(_) => parts.push_back(Part::End(None)),
                CallEvent::Request { .. } | CallEvent::Writable { .. } | CallEvent::Leased(_) => {}
            }
        }
        self.news.notify_one();
    }
}

/// For up to 4 MiB over a slow way; it holds up nothing but reflection.
const ANSWER_DUE: Duration = Duration::from_secs(30);

/// gRPC's length prefix.
const PREFIX: usize = 5;

/// One message may hold all.
const MAX_MESSAGE: usize = MAX_SET + 64;
