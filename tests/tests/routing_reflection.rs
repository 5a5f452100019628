//! What clients learn of the services by reflection: from generated code, from what instances offer, and what is told
//! when those do not agree.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "routing_reflection/generated.rs"]
mod generated;
#[path = "routing_reflection/hostile.rs"]
mod hostile;
#[path = "routing_reflection/offered.rs"]
mod offered;
#[path = "routing_reflection/versions.rs"]
mod versions;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use grpcrouter_runtime::{Gateway, GatewayBuilder, ServiceRoutes};
use grpcrouter_tests::world::{PATIENCE, TestGateway};
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::{Status, transport::Channel};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest as Question, server_reflection_response::MessageResponse as Reply,
};

/// Asks one gateway, each question on a stream of its own.
#[derive(Clone)]
struct Asker(ServerReflectionClient<Channel>);

impl Asker {
    async fn of(gateway: &TestGateway) -> Self {
        Self(ServerReflectionClient::new(channel(gateway).await))
    }

    /// The replies to these questions, asked one after the other in one stream.
    async fn ask(&self, questions: Vec<Question>) -> Result<Vec<Reply>, Status> {
        let requests = questions
            .into_iter()
            .map(|question| ServerReflectionRequest { host: "somewhere".to_owned(), message_request: Some(question) });
        let mut client = self.0.clone();
        let mut replies = client.server_reflection_info(tokio_stream::iter(requests.clone())).await?.into_inner();
        let mut told = Vec::new();
        for request in requests {
            let reply = replies.next().await.expect("a reply to each question")?;
            assert_eq!((reply.valid_host.as_str(), reply.original_request), ("somewhere", Some(request)));
            told.push(reply.message_response.expect("a reply"));
        }
        assert!(replies.next().await.is_none());
        Ok(told)
    }

    async fn one(&self, question: Question) -> Reply {
        self.ask(vec![question]).await.unwrap().remove(0)
    }

    /// Encoded files.
    async fn files(&self, question: Question) -> Vec<Vec<u8>> {
        match self.one(question).await {
            Reply::FileDescriptorResponse(files) => files.file_descriptor_proto,
            other => panic!("{other:?}"),
        }
    }

    /// Code and message.
    async fn error(&self, question: Question) -> (i32, String) {
        match self.one(question).await {
            Reply::ErrorResponse(error) => (error.error_code, error.error_message),
            other => panic!("{other:?}"),
        }
    }

    async fn services(&self) -> Vec<String> {
        match self.one(Question::ListServices(String::new())).await {
            Reply::ListServicesResponse(list) => list.service.into_iter().map(|service| service.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// Whether the file that defines `symbol` comes to be one that `is_it`.
    async fn comes(&self, symbol: &str, what: &str, is_it: impl Fn(Option<&[u8]>) -> bool) {
        let started = tokio::time::Instant::now();
        loop {
            let file = match self.one(by_symbol(symbol)).await {
                Reply::FileDescriptorResponse(files) => files.file_descriptor_proto.into_iter().next(),
                _ => None,
            };
            if is_it(file.as_deref()) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await; // waits because nothing announces what reflection knows
        }
    }
}

async fn channel(gateway: &TestGateway) -> Channel {
    Channel::from_shared(gateway.uri()).unwrap().connect().await.unwrap()
}

fn by_name(file: &str) -> Question {
    Question::FileByFilename(file.to_owned())
}

fn by_symbol(symbol: &str) -> Question {
    Question::FileContainingSymbol(symbol.to_owned())
}

/// A `FileDescriptorSet` whose files stay bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct RawSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// The files of an encoded set.
fn files(set: &[u8]) -> Vec<Vec<u8>> {
    RawSet::decode(set).unwrap().file
}

/// The set of these files: name and text of each, the last one with all that it imports.
fn compiled(protos: &[(&str, &str)]) -> Bytes {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in protos {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let mut compiler =
        protox::Compiler::new([directory.path(), Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_file(protos.last().unwrap().0).unwrap();
    compiler.encode_file_descriptor_set().into()
}

/// A gateway for `myservice.MyService` that was built without knowing its proto file.
fn unknowing() -> GatewayBuilder {
    let routes = ServiceRoutes::new("myservice.MyService").routing_key("instanceid").unary("Method1");
    // Who loses its connection is gone.
    Gateway::builder().add_service(routes).resume_window(Duration::ZERO)
}

/// `myservice.MyService` with one method, in a file of this name; `more` is in its request.
fn service_file(name: &str, more: &str) -> Bytes {
    let text = format!(
        "syntax = \"proto3\"; package myservice; message Ask {{ string text = 1; {more} }} \
         service MyService {{ rpc Method1(Ask) returns (Ask); }}"
    );
    compiled(&[(name, &text)])
}

/// A test's end: a lost reply must not hang it.
fn in_time<T>(what: BoxFuture<'_, T>) -> impl Future<Output = T> {
    let patient = tokio::time::timeout(PATIENCE * 3, what);
    async { patient.await.expect("in time") }
}
