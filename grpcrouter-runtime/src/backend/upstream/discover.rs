//! Which services an upstream has, and their descriptors, from its reflection: `grpc.reflection.v1`, else `v1alpha`,
//! whose messages are the same. The descriptors stay the bytes that came.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use prost::bytes::BufMut as _;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ErrorResponse, ServerReflectionRequest, ServerReflectionResponse};
use tracing::{debug, warn};

use super::exchange::UpstreamService;
use super::link::Link;
use crate::descriptors::{MAX_SET, Set};

/// What an upstream has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Full names, in order.
    pub(super) services: Vec<Arc<str>>,
    /// An encoded `FileDescriptorSet` of them, if there is one that gateways take.
    pub(super) descriptors: Option<Bytes>,
}

/// Why the services of an upstream are not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiscoverError {
    /// It will not answer this later either.
    #[error("it serves no reflection (grpc.reflection.v1 or v1alpha)")]
    NoReflection,
    #[error("its reflection lists no service that could be offered")]
    Empty,
    #[error("its reflection answered {0}")]
    Failed(String),
}

/// Asks the upstream behind `link`. With `named` services these are meant, and only their descriptors are asked for.
///
/// # Errors
/// Nothing is named and the upstream does not tell.
///
/// # Cancel safety
/// Dropping the future ends the question.
pub(super) async fn discover(link: &Link, named: &[Arc<str>]) -> Result<Found, DiscoverError> {
    let asked = timeout(TIMEOUT, ask(link, named)).await;
    let asked = asked.unwrap_or_else(|_| Err(DiscoverError::Failed(format!("nothing within {} s", TIMEOUT.as_secs()))));
    match asked {
        Err(error) if !named.is_empty() => {
            debug!(upstream = %link.address(), "no descriptors from the upstream: {error}");
            Ok(Found { services: named.to_vec(), descriptors: None })
        }
        asked => asked,
    }
}

async fn ask(link: &Link, named: &[Arc<str>]) -> Result<Found, DiscoverError> {
    let mut asker = Asker::of(link).await.map_err(failed)?;
    let mut services = named.to_vec();
    if services.is_empty() {
        services = asker.listed.iter().filter(|name| is_offered(name)).map(|name| name.as_str().into()).collect();
        services.sort();
        services.dedup();
    }
    if services.is_empty() {
        return Err(DiscoverError::Empty);
    }
    let descriptors = match asker.descriptors(&services).await {
        Ok(set) if set.len() <= MAX_SET => Some(set),
        Ok(set) => {
            warn!(upstream = %link.address(), bytes = set.len(), "its descriptors are larger than a gateway takes; none are offered");
            None
        }
        Err(status) => {
            warn!(upstream = %link.address(), "its reflection does not tell its descriptors: {}", status.message());
            None
        }
    };
    // What no gateway would take is not offered; a call needs no descriptors.
    let descriptors = descriptors.filter(|set| {
        let read = Set::read(set);
        if let Err(error) = &read {
            warn!(upstream = %link.address(), "its descriptors cannot be offered: {error}");
        }
        read.is_ok()
    });
    Ok(Found { services, descriptors })
}

/// Asks one upstream. Each question has a stream of its own: some servers end it where they have no answer.
struct Asker {
    client: Grpc<UpstreamService>,
    path: &'static str,
    /// The names of all services.
    listed: Vec<String>,
}

impl Asker {
    async fn of(link: &Link) -> Result<Self, Status> {
        let client = Grpc::new(UpstreamService::new(link.clone())).max_decoding_message_size(MAX_SET * 2);
        let mut this = Self { client, path: V1, listed: Vec::new() };
        let list = || MessageRequest::ListServices(String::new());
        let mut answer = this.ask(list()).await;
        if answer.as_ref().is_err_and(|status| status.code() == Code::Unimplemented) {
            this.path = V1_ALPHA;
            answer = this.ask(list()).await;
        }
        match answer? {
            MessageResponse::ListServicesResponse(list) => {
                this.listed = list.service.into_iter().map(|service| service.name).collect();
                Ok(this)
            }
            _ => Err(Status::internal("the answer to another question")),
        }
    }

    /// The files of `services` and all that they import, as far as the upstream has them.
    async fn descriptors(&mut self, services: &[Arc<str>]) -> Result<Bytes, Status> {
        let mut files = BTreeMap::new();
        let mut missing = VecDeque::new();
        for service in services {
            self.take(MessageRequest::FileContainingSymbol(service.to_string()), &mut files, &mut missing).await?;
        }
        let mut asked = BTreeSet::new();
        while let Some(import) = missing.pop_front() {
            // Google's own files are the gateway's, and an upstream that lacks another leaves it out.
            if files.contains_key(&import) || import.starts_with("google/protobuf/") || !asked.insert(import.clone()) {
                continue;
            }
            self.take(MessageRequest::FileByFilename(import), &mut files, &mut missing).await?;
        }
        let mut set = BytesMut::new();
        for file in files.values() {
            put_file(&mut set, file);
        }
        Ok(set.freeze())
    }

    async fn take(
        &mut self,
        question: MessageRequest,
        files: &mut BTreeMap<String, Bytes>,
        missing: &mut VecDeque<String>,
    ) -> Result<(), Status> {
        let MessageResponse::FileDescriptorResponse(response) = self.ask(question).await? else { return Ok(()) };
        for bytes in response.file_descriptor_proto {
            let bytes = Bytes::from(bytes);
            let mut one = BytesMut::new();
            put_file(&mut one, &bytes);
            let set = Set::read(&one.freeze()).map_err(|error| Status::internal(error.to_string()))?;
            let Some(file) = set.files.first() else { continue };
            missing.extend(file.imports.iter().cloned());
            files.insert(file.name.to_string(), bytes);
        }
        Ok(())
    }

    /// The answer; that there is none of that name is an `ErrorResponse`, however the server says it.
    async fn ask(&mut self, question: MessageRequest) -> Result<MessageResponse, Status> {
        let asked = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let asked = Request::new(tokio_stream::once(asked));
        let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
        let path = PathAndQuery::from_static(self.path);
        let answer = match self.client.streaming(asked, path, codec).await {
            Ok(answers) => answers.into_inner().message().await,
            Err(status) => Err(status),
        };
        match answer {
            Ok(answer) => answer
                .and_then(|answer| answer.message_response)
                .ok_or_else(|| Status::internal("reflection ended without an answer")),
            Err(status) if status.code() == Code::NotFound => {
                Ok(MessageResponse::ErrorResponse(ErrorResponse { error_code: 5, error_message: String::new() }))
            }
            Err(status) => Err(status),
        }
    }
}

/// `FileDescriptorSet.file`.
fn put_file(set: &mut BytesMut, file: &[u8]) {
    set.put_u8(0x0a);
    prost::encoding::encode_varint(file.len() as u64, set);
    set.put_slice(file);
}

fn failed(status: Status) -> DiscoverError {
    match status.code() {
        Code::Unimplemented => DiscoverError::NoReflection,
        code => DiscoverError::Failed(format!("{code:?}: {}", crate::status::shown(status.message()))),
    }
}

/// Not what gateways serve themselves: theirs would answer, and this would not be found.
fn is_offered(service: &str) -> bool {
    !["grpc.health.", "grpc.reflection.", "grpc.channelz.", "grpcrouter."].iter().any(|own| service.starts_with(own))
}

const V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const V1_ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

/// For all questions together: an upstream is near.
const TIMEOUT: Duration = Duration::from_secs(10);
