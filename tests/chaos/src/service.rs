//! The service of the example as chaos needs it: it writes down each call that it begins, looks at all that comes, and
//! answers what the work says.

use std::{fmt, pin::Pin, sync::Arc};

use myservice::proto::{
    Method1Request, Method1Response, Method2Request, Method2Response, Method3Request, Method3Response, StreamRequest,
    StreamResponse, my_service_server::MyService,
};
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::work::{From, Kind, Work, shown};

/// Is told each call that a service begins.
pub type Journal = Arc<dyn Fn(u64) + Send + Sync>;

/// The service; clones share the journal.
#[derive(Clone)]
pub struct Worker {
    id: Arc<str>,
    journal: Journal,
}

impl Worker {
    /// One that answers as `id`.
    pub fn new(id: &str, journal: Journal) -> Self {
        Self { id: id.into(), journal }
    }

    /// The work of a request that begins like this.
    fn begin<'a>(&self, text: &'a str, kind: Kind) -> Result<(Work, &'a str), Status> {
        match Work::read(text) {
            Some((work, rest)) if work.kind == kind => {
                (self.journal)(work.id);
                Ok((work, rest))
            }
            _ => Err(wrong(&format!("a call of kind {kind:?} begins with {:?}", text.get(..40)))),
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What the service says when something came that was never sent: never to be excused by a fault.
pub(crate) const WRONG: tonic::Code = tonic::Code::DataLoss;

fn wrong(what: &str) -> Status {
    Status::new(WRONG, what)
}

fn same(work: &Work, index: u32, came: &str) -> Result<(), Status> {
    if came == work.content(From::Client, index) {
        Ok(())
    } else {
        Err(wrong(&format!("message {index} of call {} is not what was sent: {} bytes", work.id, came.len())))
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl MyService for Worker {
    async fn method1(&self, request: Request<Method1Request>) -> Result<Response<Method1Response>, Status> {
        let text = request.into_inner().text;
        let (work, said) = self.begin(&text, Kind::Unary)?;
        same(&work, 0, said)?;
        sleep(work.pause).await; // waits because the call is to be cut in its middle
        Ok(Response::new(Method1Response { text: work.content(From::Service, 0), instance_id: self.id.to_string() }))
    }

    type Method2Stream = Answers<Method2Response>;

    async fn method2(&self, request: Request<Method2Request>) -> Result<Response<Self::Method2Stream>, Status> {
        let text = request.into_inner().text;
        let (work, _) = self.begin(&text, Kind::Down)?;
        let instance_id = self.id.to_string();
        let answers = tokio_stream::iter(0..work.messages).then(move |index| {
            let instance_id = instance_id.clone();
            async move {
                sleep(work.pause).await; // waits because the call is to be cut in its middle
                Ok(Method2Response { text: work.content(From::Service, index), index, instance_id })
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn method3(&self, request: Request<Streaming<Method3Request>>) -> Result<Response<Method3Response>, Status> {
        let mut messages = request.into_inner();
        let head = messages.message().await?.ok_or_else(|| wrong("a stream without a message"))?;
        let (work, _) = self.begin(&head.text, Kind::Up)?;
        let (mut hash, mut count) = (Sha256::new(), 0);
        while let Some(message) = messages.message().await? {
            same(&work, count, &message.text)?;
            hash.update(&message.text);
            count += 1;
        }
        if count != work.messages {
            return Err(wrong(&format!("{count} of {} messages came, and then a clean end", work.messages)));
        }
        Ok(Response::new(Method3Response { count, text: shown(hash), instance_id: self.id.to_string() }))
    }

    type StreamMethodStream = Answers<StreamResponse>;

    async fn stream_method(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamMethodStream>, Status> {
        let mut messages = request.into_inner();
        let head = messages.message().await?.ok_or_else(|| wrong("a stream without a message"))?;
        let (work, _) = self.begin(&head.text, Kind::Both)?;
        let (answers, queue) = tokio::sync::mpsc::channel(1);
        let instance_id = self.id.to_string();
        tokio::spawn(async move {
            let talk = async {
                for index in 0..work.messages {
                    let Some(message) = messages.message().await? else {
                        return Err(wrong(&format!(
                            "{index} of {} messages came, and then a clean end",
                            work.messages
                        )));
                    };
                    same(&work, index, &message.text)?;
                    let text = work.content(From::Service, index);
                    let answer = StreamResponse { text, index, instance_id: instance_id.clone() };
                    if answers.send(Ok(answer)).await.is_err() {
                        return Ok(());
                    }
                }
                match messages.message().await? {
                    None => Ok(()),
                    Some(_) => Err(wrong("there is a message too many")),
                }
            };
            tokio::select! {
                ended = talk => if let Err(status) = ended {
                    let _ = answers.send(Err(status)).await;
                },
                // The client is gone, and the stream of its answers with it.
                () = answers.closed() => {}
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }
}
