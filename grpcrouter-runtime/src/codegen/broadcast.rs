//! One call to every instance of a service: what each answers comes as it comes, and one that fails ends no other.

use std::fmt;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt as _;
use http::Extensions;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::codec::Codec;
use tonic::{IntoRequest, Request, Response, Status};

use super::typed::{self, ResponseStream};
use super::{Channel, MethodSpec};
use crate::gateway::Pinned;

/// How a broadcast goes about it.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use grpcrouter_runtime::BroadcastOptions;
///
/// // For router.broadcast_with(options)
/// let options = BroadcastOptions::new().at_once(10).deadline(Duration::from_secs(5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it is to be given to a broadcast"]
pub struct BroadcastOptions {
    at_once: NonZeroUsize,
    deadline: Option<Duration>,
}

impl BroadcastOptions {
    /// 64 calls at once, and no deadline but the request's own.
    pub const fn new() -> Self {
        Self { at_once: AT_ONCE, deadline: None }
    }

    /// How many calls may run at once; the others wait for their turn. Zero is taken for one.
    pub const fn at_once(mut self, calls: usize) -> Self {
        self.at_once = match NonZeroUsize::new(calls) {
            Some(calls) => calls,
            None => NonZeroUsize::MIN,
        };
        self
    }

    /// How long the whole broadcast may take, from when it was made. What has no answer by then ends with
    /// DEADLINE_EXCEEDED, also what had no turn yet.
    pub const fn deadline(mut self, time: Duration) -> Self {
        self.deadline = Some(time);
        self
    }
}

impl Default for BroadcastOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// What generated code broadcasts with.
#[derive(Debug, Clone)]
pub struct Broadcast {
    channel: Channel,
    options: BroadcastOptions,
}

impl Broadcast {
    /// To the instances that `channel` leads to.
    pub fn new(channel: &Channel, options: BroadcastOptions) -> Self {
        Self { channel: channel.clone(), options }
    }

    /// A unary call to each instance that takes new calls now.
    pub fn unary<K, M1, M2>(
        &self,
        method: &'static MethodSpec,
        codec: fn() -> K,
        request: impl IntoRequest<M1>,
    ) -> BroadcastAnswers<Response<M2>>
    where
        K: Codec<Encode = M1, Decode = M2> + Send + 'static,
        M1: Clone + Send + Sync + 'static,
        M2: Send + Sync + 'static,
    {
        self.each(method, request, move |channel, request| async move {
            typed::unary(&channel, method, codec(), request).await
        })
    }

    /// A call with many answers to each instance that takes new calls now.
    pub fn server_streaming<K, M1, M2>(
        &self,
        method: &'static MethodSpec,
        codec: fn() -> K,
        request: impl IntoRequest<M1>,
    ) -> BroadcastAnswers<Response<ResponseStream<M2>>>
    where
        K: Codec<Encode = M1, Decode = M2> + Send + 'static,
        M1: Clone + Send + Sync + 'static,
        M2: Send + Sync + 'static,
    {
        self.each(method, request, move |channel, request| async move {
            typed::server_streaming(&channel, method, codec(), request).await
        })
    }

    fn each<M, T, F>(
        &self,
        method: &'static MethodSpec,
        request: impl IntoRequest<M>,
        call: impl Fn(Channel, Request<M>) -> F + Send + 'static,
    ) -> BroadcastAnswers<T>
    where
        M: Clone + Send + Sync + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
        T: 'static,
    {
        let (metadata, _, message) = request.into_request().into_parts();
        let channel = self.channel.clone();
        let due = self.options.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let calls = move |instance: Pinned| {
            let id = instance.id().to_owned();
            let mut request = Request::from_parts(metadata.clone(), Extensions::new(), message.clone());
            request.extensions_mut().insert(instance);
            // What is left when its turn comes.
            if let Some(due) = due {
                request.set_timeout(due.saturating_duration_since(Instant::now()));
            }
            let answer = call(channel.clone(), request);
            async move { (id, answer.await) }
        };
        let candidates = self.channel.candidates(method);
        let answers = futures_util::stream::iter(candidates).map(calls).buffer_unordered(self.options.at_once.get());
        BroadcastAnswers { answers: Box::pin(answers) }
    }
}

/// What each instance answers, by its id and in the order in which the answers come; ends when all have answered, at once
/// if nobody is there. Dropping it cancels every call that has not answered yet. Where instances answer with a stream it
/// is yours once it came: it counts no more for [`at_once`](BroadcastOptions::at_once), and dropping it cancels its call.
pub struct BroadcastAnswers<T> {
    answers: Pin<Box<dyn Stream<Item = Answered<T>> + Send>>,
}

/// An instance's id, and what it answered.
type Answered<T> = (String, Result<T, Status>);

impl<T> fmt::Debug for BroadcastAnswers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BroadcastAnswers").finish_non_exhaustive()
    }
}

impl<T> Stream for BroadcastAnswers<T> {
    type Item = Answered<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.answers.as_mut().poll_next(cx)
    }
}

/// A fleet's worth in a few turns, and no more of a gateway's memory than a busy client takes.
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(64).unwrap();
