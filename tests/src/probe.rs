//! A service that does what its callers tell it to, and writes down what happened to it.

use std::{pin::Pin, sync::Arc, time::Duration};

use myservice::proto::{
    Method1Request, Method1Response, Method2Request, Method2Response, Method3Request, Method3Response, StreamRequest,
    StreamResponse, my_service_server::MyService,
};
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::world::PATIENCE;

/// Texts that tell the service what to do with a call; any other is answered.
pub mod say {
    /// Never answers.
    pub const STALL: &str = "stall";
    /// Fails with FAILED_PRECONDITION, "no: ü", details and metadata.
    pub const FAIL: &str = "fail";
    /// Panics: `Method2` after its first answer, the others at once.
    pub const PANIC: &str = "panic";
    /// `Method2`: one answer each 200 ms.
    pub const SLOW: &str = "slow";
    /// `StreamMethod`: sends response headers at once and answers nothing until the client ends.
    pub const SILENT: &str = "silent";
}

/// The service; clones share the log.
#[derive(Debug, Clone)]
pub struct Probe {
    id: String,
    log: Arc<watch::Sender<Vec<String>>>,
}

impl Probe {
    /// A probe that answers as `id`.
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), log: Arc::new(watch::Sender::new(Vec::new())) }
    }

    /// All that was written down so far.
    pub fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// How often `line` was written.
    pub fn times(&self, line: &str) -> usize {
        self.log.borrow().iter().filter(|each| *each == line).count()
    }

    /// Returns when `line` was written `times` times.
    ///
    /// # Panics
    /// After [`PATIENCE`] without it.
    pub async fn saw(&self, line: &str, times: usize) {
        let mut log = self.log.subscribe();
        let seen = log.wait_for(|log| log.iter().filter(|each| *each == line).count() >= times);
        if tokio::time::timeout(PATIENCE, seen).await.is_err() {
            panic!("{line:?} was not seen {times} times within {PATIENCE:?}, but {:?}", self.log());
        }
    }

    /// Writes a line down.
    pub fn note(&self, line: &str) {
        self.log.send_modify(|log| log.push(line.to_owned()));
    }

    /// Writes "`name` begins" now and "`name` dropped" when the handler is dropped before it was [`done`](Run::done).
    fn run(&self, name: &'static str) -> Run {
        self.note(&format!("{name} begins"));
        Run { probe: self.clone(), name, done: false }
    }
}

struct Run {
    probe: Probe,
    name: &'static str,
    done: bool,
}

impl Run {
    fn done(mut self) {
        self.done = true;
        self.probe.note(&format!("{} done", self.name));
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.done {
            self.probe.note(&format!("{} dropped", self.name));
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl MyService for Probe {
    async fn method1(&self, request: Request<Method1Request>) -> Result<Response<Method1Response>, Status> {
        let run = self.run("method1");
        let (metadata, _, message) = request.into_parts();
        match message.text.as_str() {
            say::STALL => std::future::pending().await,
            say::PANIC => panic!("as asked"),
            say::FAIL => {
                run.done();
                let mut status =
                    Status::with_details(tonic::Code::FailedPrecondition, "no: ü", vec![0u8, 1, 254, 255].into());
                status.metadata_mut().insert("x-why", "because".parse().map_err(|_| Status::internal("parse"))?);
                Err(status)
            }
            _ => {
                let mut response = Response::new(Method1Response { text: message.text, instance_id: self.id.clone() });
                for entry in metadata.iter() {
                    match entry {
                        tonic::metadata::KeyAndValueRef::Ascii(key, value) if key.as_str().starts_with("x-echo") => {
                            response.metadata_mut().append(key.clone(), value.clone());
                        }
                        tonic::metadata::KeyAndValueRef::Binary(key, value) if key.as_str().starts_with("x-echo") => {
                            response.metadata_mut().append_bin(key.clone(), value.clone());
                        }
                        _ => {}
                    }
                }
                if let Some(principal) = metadata.get("x-grpcrouter-principal") {
                    response.metadata_mut().insert("x-told-principal", principal.clone());
                }
                let keys: Vec<&str> = metadata.keys().map(key_name).collect();
                response.metadata_mut().insert("x-keys", keys.join(" ").parse().map_err(|_| Status::internal("keys"))?);
                run.done();
                Ok(response)
            }
        }
    }

    type Method2Stream = Answers<Method2Response>;

    async fn method2(&self, request: Request<Method2Request>) -> Result<Response<Self::Method2Stream>, Status> {
        let run = self.run("method2");
        let Method2Request { text, count } = request.into_inner();
        let instance_id = self.id.clone();
        let stream = async_stream(move |answers| async move {
            for index in 0..count {
                if text == say::SLOW {
                    tokio::time::sleep(Duration::from_millis(200)).await; // waits because it plays a slow service
                }
                assert!(text != say::PANIC || index == 0, "as asked");
                if text == say::STALL && index > 0 {
                    std::future::pending::<()>().await;
                }
                let answer = Method2Response { text: text.clone(), index, instance_id: instance_id.clone() };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
            run.done();
        });
        Ok(Response::new(stream))
    }

    async fn method3(&self, request: Request<Streaming<Method3Request>>) -> Result<Response<Method3Response>, Status> {
        let run = self.run("method3");
        let mut messages = request.into_inner();
        let mut texts = Vec::new();
        loop {
            match messages.message().await {
                Ok(Some(message)) => {
                    assert!(message.text != say::PANIC, "as asked");
                    self.note("method3 message");
                    texts.push(message.text);
                }
                Ok(None) => break,
                Err(status) => {
                    self.note(&format!("method3 error {:?}", status.code()));
                    return Err(status);
                }
            }
        }
        self.note("method3 clean end");
        run.done();
        let count = u32::try_from(texts.len()).unwrap_or(u32::MAX);
        Ok(Response::new(Method3Response { count, text: texts.join(" "), instance_id: self.id.clone() }))
    }

    type StreamMethodStream = Answers<StreamResponse>;

    async fn stream_method(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamMethodStream>, Status> {
        let run = self.run("stream");
        let mut messages = request.into_inner();
        let (probe, instance_id) = (self.clone(), self.id.clone());
        let stream = async_stream(move |answers| async move {
            let mut index = 0;
            while let Some(message) = messages.next().await {
                match message {
                    Ok(message) if message.text == say::SILENT => probe.note("stream silent"),
                    Ok(message) => {
                        assert!(message.text != say::PANIC, "as asked");
                        let answer = StreamResponse { text: message.text, index, instance_id: instance_id.clone() };
                        index += 1;
                        if answers.send(Ok(answer)).await.is_err() {
                            return;
                        }
                    }
                    Err(status) => {
                        probe.note(&format!("stream error {:?}", status.code()));
                        return;
                    }
                }
            }
            probe.note("stream clean end");
            run.done();
        });
        Ok(Response::new(stream))
    }
}

fn key_name(key: tonic::metadata::KeyRef<'_>) -> &str {
    match key {
        tonic::metadata::KeyRef::Ascii(key) => key.as_str(),
        tonic::metadata::KeyRef::Binary(key) => key.as_str(),
    }
}

/// A stream that is driven by its consumer, and dropped with it: no task stands behind it.
fn async_stream<T, F>(produce: impl FnOnce(tokio::sync::mpsc::Sender<Result<T, Status>>) -> F) -> Answers<T>
where
    T: Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let mut producer = Box::pin(produce(sender));
    let mut over = false;
    Box::pin(futures_util::stream::poll_fn(move |cx| {
        if !over && producer.as_mut().poll(cx).is_ready() {
            over = true;
        }
        receiver.poll_recv(cx)
    }))
}
