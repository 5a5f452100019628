//! Between the `h2` crate's streams and `http_body`: for what is not on the forward path.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};

/// A received body.
#[derive(Debug)]
pub(crate) struct RecvBody {
    stream: h2::RecvStream,
    data_over: bool,
}

impl RecvBody {
    pub(crate) fn new(stream: h2::RecvStream) -> Self {
        Self { stream, data_over: false }
    }
}

impl Body for RecvBody {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let this = self.get_mut();
        if !this.data_over {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    this.stream.flow_control().release_capacity(data.len())?;
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.data_over = true,
            }
        }
        let trailers = ready!(this.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// Why a body did not get through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PumpError {
    #[error("the peer reset the stream: {0}")]
    Reset(h2::Reason),
    #[error(transparent)]
    Stream(#[from] h2::Error),
    #[error("the body failed: {0}")]
    Body(String),
}

/// Sends `body` until it ends, as fast as the peer takes it.
///
/// # Cancel safety
/// Dropping the future resets the stream: h2 does so when the last handle goes.
pub(crate) async fn pump<B>(body: B, mut stream: h2::SendStream<Bytes>) -> Result<(), PumpError>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let mut body = std::pin::pin!(body);
    loop {
        let frame = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending => Poll::Ready(Err(match ready!(stream.poll_reset(cx)) {
                Ok(reason) => PumpError::Reset(reason),
                Err(error) => PumpError::Stream(error),
            })),
        })
        .await?;
        match frame {
            None => return Ok(stream.send_data(Bytes::new(), true)?),
            Some(Err(error)) => {
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
                return Err(PumpError::Body(error.to_string()));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => send(&mut stream, data).await?,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return Ok(stream.send_trailers(trailers)?);
                    }
                }
            },
        }
    }
}

async fn send(stream: &mut h2::SendStream<Bytes>, mut data: Bytes) -> Result<(), PumpError> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        // poll_capacity only tells of changes, and may tell of one that is used up again.
        while stream.capacity() == 0 {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(PumpError::Reset(h2::Reason::CANCEL)),
            }
        }
        stream.send_data(data.split_to(stream.capacity().min(data.len())), false)?;
    }
    Ok(())
}
