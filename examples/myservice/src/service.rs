//! The service as its author writes it: an ordinary tonic service, which knows nothing of gateways and tunnels.

use std::pin::Pin;

use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::proto::my_service_server::MyService;
use crate::proto::{
    Method1Request, Method1Response, Method2Request, Method2Response, Method3Request, Method3Response, StreamRequest,
    StreamResponse,
};

/// Answers with what it is sent, and says who answered.
#[derive(Debug, Clone)]
pub struct MyServiceImpl {
    instance_id: String,
}

impl MyServiceImpl {
    /// A service that calls itself `instance_id` in its answers.
    pub fn new(instance_id: impl Into<String>) -> Self {
        Self { instance_id: instance_id.into() }
    }
}

/// The answers of a streaming method.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl MyService for MyServiceImpl {
    async fn method1(&self, request: Request<Method1Request>) -> Result<Response<Method1Response>, Status> {
        let text = request.into_inner().text;
        Ok(Response::new(Method1Response { text, instance_id: self.instance_id.clone() }))
    }

    type Method2Stream = Answers<Method2Response>;

    async fn method2(&self, request: Request<Method2Request>) -> Result<Response<Self::Method2Stream>, Status> {
        let Method2Request { text, count } = request.into_inner();
        let instance_id = self.instance_id.clone();
        let answers = (0..count)
            .map(move |index| Ok(Method2Response { text: text.clone(), index, instance_id: instance_id.clone() }));
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn method3(&self, request: Request<Streaming<Method3Request>>) -> Result<Response<Method3Response>, Status> {
        let mut messages = request.into_inner();
        let mut texts = Vec::new();
        while let Some(message) = messages.message().await? {
            texts.push(message.text);
        }
        let count = u32::try_from(texts.len()).map_err(|_| Status::out_of_range("more than 4294967295 messages"))?;
        Ok(Response::new(Method3Response { count, text: texts.join(" "), instance_id: self.instance_id.clone() }))
    }

    type StreamMethodStream = Answers<StreamResponse>;

    async fn stream_method(
        &self,
        request: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamMethodStream>, Status> {
        let instance_id = self.instance_id.clone();
        let mut index = 0u32;
        let answers = request.into_inner().map(move |message| {
            let text = message?.text;
            let answer = StreamResponse { text, index, instance_id: instance_id.clone() };
            index = index.wrapping_add(1);
            Ok(answer)
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
