//! What a gateway knows of its services: `grpc.reflection.v1`, else `v1alpha`, whose messages are the same.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context as _, anyhow};
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

/// Asks one server, each question on a stream of its own.
#[derive(Debug)]
pub(super) struct Reflection {
    client: Grpc<Channel>,
    path: &'static str,
    /// Sent with each question, as with the call itself: who may call nothing may ask nothing.
    metadata: MetadataMap,
    /// The full names of all services.
    pub(super) services: Vec<String>,
}

impl Reflection {
    /// Asks which services there are.
    ///
    /// # Errors
    /// The server has no reflection, and what to do.
    pub(super) async fn of(channel: Channel, metadata: MetadataMap) -> anyhow::Result<Self> {
        let client = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
        let mut this = Self { client, path: V1, metadata, services: Vec::new() };
        let list = || MessageRequest::ListServices(String::new());
        let mut listed = this.ask(list()).await;
        if listed.as_ref().is_err_and(|status| status.code() == Code::Unimplemented) {
            this.path = V1_ALPHA;
            listed = this.ask(list()).await;
        }
        match listed {
            Ok(MessageResponse::ListServicesResponse(list)) => {
                this.services = list.service.into_iter().map(|service| service.name).collect();
                this.services.sort();
                Ok(this)
            }
            Err(status) if status.code() == Code::Unimplemented => {
                Err(anyhow!("the gateway serves no reflection; {DESCRIPTOR_SET}"))
            }
            Err(status) => Err(anyhow!("the gateway's reflection answered {:?}: {}", status.code(), status.message())),
            Ok(_) => Err(anyhow!("the gateway's reflection answered another question; {DESCRIPTOR_SET}")),
        }
    }

    /// Adds the files that define these names, and all that they import, to `pool`. What the server does not have is left
    /// out.
    ///
    /// # Errors
    /// The server broke off, or its descriptors cannot be used.
    pub(super) async fn add(&mut self, names: &[String], pool: &mut DescriptorPool) -> anyhow::Result<()> {
        let mut files = BTreeMap::new();
        let mut missing = VecDeque::new();
        for name in names {
            self.take(MessageRequest::FileContainingSymbol(name.clone()), &mut files, &mut missing).await?;
        }
        let mut asked = BTreeSet::new();
        while let Some(import) = missing.pop_front() {
            if !files.contains_key(&import) && pool.get_file_by_name(&import).is_none() && asked.insert(import.clone())
            {
                self.take(MessageRequest::FileByFilename(import), &mut files, &mut missing).await?;
            }
        }
        let file = files.into_values().filter(|file| pool.get_file_by_name(file.name()).is_none()).collect();
        pool.add_file_descriptor_set(FileDescriptorSet { file }).context("the gateway's descriptors cannot be used")
    }

    async fn take(
        &mut self,
        question: MessageRequest,
        files: &mut BTreeMap<String, FileDescriptorProto>,
        missing: &mut VecDeque<String>,
    ) -> anyhow::Result<()> {
        let answer = match self.ask(question).await {
            Ok(answer) => answer,
            // Some servers say it like this.
            Err(status) if status.code() == Code::NotFound => return Ok(()),
            Err(status) => {
                return Err(anyhow!(
                    "the gateway's reflection broke off with {:?}: {}",
                    status.code(),
                    status.message()
                ));
            }
        };
        if let MessageResponse::FileDescriptorResponse(answer) = answer {
            for bytes in answer.file_descriptor_proto {
                let file = FileDescriptorProto::decode(&*bytes).context("the gateway's descriptors cannot be read")?;
                missing.extend(file.dependency.iter().cloned());
                files.insert(file.name().to_owned(), file);
            }
        }
        Ok(())
    }

    async fn ask(&mut self, question: MessageRequest) -> Result<MessageResponse, Status> {
        self.client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let asked = ServerReflectionRequest { host: String::new(), message_request: Some(question) };
        let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
        let mut asked = Request::new(tokio_stream::once(asked));
        *asked.metadata_mut() = self.metadata.clone();
        let mut answers = self.client.streaming(asked, PathAndQuery::from_static(self.path), codec).await?.into_inner();
        let answer = answers.message().await?.and_then(|answer| answer.message_response);
        answer.ok_or_else(|| Status::internal("it ended without an answer"))
    }
}

/// What to do without reflection.
pub(super) const DESCRIPTOR_SET: &str = "give the descriptors with --descriptor-set FILE, which protoc writes with \
                                         --include_imports --descriptor_set_out=FILE";

const V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const V1_ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

/// A gateway takes descriptors of at most 4 MiB from each instance.
const MAX_ANSWER: usize = 64 << 20;
