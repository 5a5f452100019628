//! `grpc.reflection.v1.ServerReflection`, and v1alpha, whose messages are the same on the wire.
//! <https://github.com/grpc/grpc/blob/master/doc/server-reflection.md>

use std::{
    collections::HashSet,
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::stream::unfold;
use http::{Request, Response, Uri};
use tokio_stream::Stream;
use tonic::{Code, Status, Streaming, async_trait, body::Body, server::NamedService};
use tonic_reflection::pb::v1::{
    ErrorResponse, ExtensionNumberResponse, ExtensionRequest, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
    server_reflection_request::MessageRequest as Question,
    server_reflection_response::MessageResponse as Reply,
    server_reflection_server::{ServerReflection, ServerReflectionServer},
};
use tower_service::Service;

use super::{Reflection, V1_ALPHA, catalog::Catalog};
use crate::{
    descriptors::{File, Hash},
    gateway::own::OwnService,
    status::shown,
};

/// Both versions.
pub(in crate::gateway) fn services(reflection: &Arc<Reflection>) -> [OwnService; 2] {
    let v1 = ServerReflectionServer::new(Answerer(reflection.clone()));
    [OwnService::new(v1.clone()), OwnService::new(V1Alpha(v1))]
}

struct Answerer(Arc<Reflection>);

#[async_trait]
impl ServerReflection for Answerer {
    type ServerReflectionInfoStream =
        Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send + 'static>>;

    async fn server_reflection_info(
        &self,
        request: tonic::Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<tonic::Response<Self::ServerReflectionInfoStream>, Status> {
        let asked = Asked { reflection: self.0.clone(), sent: HashSet::new() };
        let answers = unfold(Some((request.into_inner(), asked)), |state| async {
            let (mut questions, mut asked) = state?;
            match questions.message().await {
                Ok(Some(question)) => Some((Ok(asked.answer(question)), Some((questions, asked)))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(tonic::Response::new(Box::pin(answers)))
    }
}

/// One stream of questions.
struct Asked {
    reflection: Arc<Reflection>,
    /// Files that it has: an import that was sent once is not sent again.
    sent: HashSet<Hash>,
}

impl Asked {
    fn answer(&mut self, question: ServerReflectionRequest) -> ServerReflectionResponse {
        let catalog = self.reflection.catalog();
        let reply = match &question.message_request {
            None => Err((Code::InvalidArgument, "the question is none of those that are known here".to_owned())),
            Some(Question::ListServices(_)) => {
                let service = self.reflection.services().into_iter().map(|name| ServiceResponse { name });
                Ok(Reply::ListServicesResponse(ListServiceResponse { service: service.collect() }))
            }
            Some(Question::FileByFilename(name)) => {
                self.files(&catalog, catalog.file(name), || format!("no file {}", shown(name)))
            }
            Some(Question::FileContainingSymbol(symbol)) => {
                let name = symbol.strip_prefix('.').unwrap_or(symbol);
                self.files(&catalog, catalog.defining(name), || format!("nothing is called {}", shown(name)))
            }
            Some(Question::FileContainingExtension(ExtensionRequest { containing_type, extension_number })) => {
                let message = containing_type.strip_prefix('.').unwrap_or(containing_type);
                let file = catalog.extending(message, *extension_number);
                self.files(&catalog, file, || format!("no extension {extension_number} of {}", shown(message)))
            }
            Some(Question::AllExtensionNumbersOfType(message)) => {
                let name = message.strip_prefix('.').unwrap_or(message);
                let numbers =
                    catalog.extensions(name).ok_or_else(|| (Code::NotFound, format!("no message {}", shown(name))));
                numbers.map(|extension_number| {
                    let base_type_name = name.to_owned();
                    Reply::AllExtensionNumbersResponse(ExtensionNumberResponse { base_type_name, extension_number })
                })
            }
        };
        let reply = reply.unwrap_or_else(|(code, error_message)| {
            Reply::ErrorResponse(ErrorResponse { error_code: code.into(), error_message })
        });
        ServerReflectionResponse {
            valid_host: question.host.clone(),
            original_request: Some(question),
            message_response: Some(reply),
        }
    }

    /// A file, and of its imports those that were not sent, as many as fit in a message that every client takes: what is
    /// left out is asked for by name.
    fn files(
        &mut self,
        catalog: &Catalog,
        file: Option<&Arc<File>>,
        why_none: impl FnOnce() -> String,
    ) -> Result<Reply, (Code, String)> {
        let file = file.ok_or_else(|| (Code::NotFound, why_none()))?;
        let mut left = MOST_BYTES;
        let mut files = Vec::new();
        for file in catalog.with_imports(file, |import| !self.sent.contains(&import.hash)) {
            let fits = left.checked_sub(file.bytes.len());
            if !files.is_empty() && fits.is_none() {
                break;
            }
            left = fits.unwrap_or_default();
            self.sent.insert(file.hash);
            files.push(file.bytes.to_vec());
        }
        Ok(Reply::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto: files }))
    }
}

/// The same service by its older name.
#[derive(Clone)]
struct V1Alpha(ServerReflectionServer<Answerer>);

impl NamedService for V1Alpha {
    const NAME: &'static str = V1_ALPHA;
}

impl Service<Request<Body>> for V1Alpha {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <ServerReflectionServer<Answerer> as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if request.uri().path() == V1_ALPHA_PATH {
            *request.uri_mut() = Uri::from_static(V1_PATH);
        }
        self.0.call(request)
    }
}

const V1_ALPHA_PATH: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
const V1_PATH: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

/// gRPC clients take messages of 4 MiB.
const MOST_BYTES: usize = 3 << 20;
