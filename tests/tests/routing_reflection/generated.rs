//! What generated code brings: its own descriptors, byte for byte.

use grpcrouter_runtime::{Gateway, ServiceRoutes};
use grpcrouter_tests::world::TestGateway;
use myservice::proto::my_service_router::{self, MyServiceRouter};
use prost::Message as _;
use protox::prost_reflect::{DescriptorPool, Value};
use tokio_stream::StreamExt as _;
use tonic::{
    Code,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_reflection::pb::{
    v1::{
        self, ExtensionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest as Question, server_reflection_response::MessageResponse as Reply,
    },
    v1alpha::{self, server_reflection_client::ServerReflectionClient as AlphaClient},
};

use crate::{Asker, RawSet, by_name, by_symbol, channel, files};

const FILE: &str = "examples/myservice/service.proto";

#[tokio::test]
async fn a_gateway_tells_its_services_and_the_files_of_its_generated_code_with_every_option() {
    let gateway = TestGateway::start().await;
    let asker = Asker::of(&gateway).await;

    let services = asker.services().await;
    let found = asker.files(by_symbol("myservice.MyService")).await;

    let expected = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "myservice.MyService",
    ];
    assert_eq!(services, expected);
    // The file itself comes first, byte for byte, and all that it imports after it.
    assert_eq!(found[0], *files(my_service_router::FILE_DESCRIPTOR_SET).last().unwrap());
    let set = RawSet { file: found };
    let pool = DescriptorPool::decode(set.encode_to_vec().as_slice()).unwrap();
    let option = pool.get_extension_by_name("grpcrouter.routes_to").unwrap();
    let service = pool.get_service_by_name("myservice.MyService").unwrap();
    let options = service.options();
    let routes = options.get_extension(&option);
    let key = routes.as_message().unwrap().get_field_by_name("routing_key").unwrap().into_owned();
    assert_eq!(key, Value::String("instanceid".to_owned()));
    drop(asker);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn each_way_to_ask_finds_the_file_and_what_is_not_there_is_not_found() {
    let gateway = TestGateway::start().await;
    let asker = Asker::of(&gateway).await;
    let extension = |number| {
        let containing_type = "google.protobuf.ServiceOptions".to_owned();
        Question::FileContainingExtension(ExtensionRequest { containing_type, extension_number: number })
    };

    let own = files(my_service_router::FILE_DESCRIPTOR_SET).pop().unwrap();
    for symbol in [
        "myservice.MyService.Method1",
        "myservice.Method1Request",
        "myservice.Method1Request.text",
        ".myservice.MyService",
    ] {
        assert_eq!(asker.files(by_symbol(symbol)).await[0], own, "{symbol}");
    }
    assert_eq!(asker.files(by_name(FILE)).await[0], own);
    let options = asker.files(by_name("proto/options.proto")).await;
    assert_eq!(options, asker.files(extension(50311)).await);
    assert_eq!(options, asker.files(by_symbol("grpcrouter.RoutingOptions")).await);
    let numbers = asker.one(Question::AllExtensionNumbersOfType("google.protobuf.MethodOptions".to_owned())).await;
    let expected = v1::ExtensionNumberResponse {
        base_type_name: "google.protobuf.MethodOptions".to_owned(),
        extension_number: vec![50312],
    };
    assert_eq!(numbers, Reply::AllExtensionNumbersResponse(expected));

    for (question, why) in [
        (by_name("nowhere.proto"), "no file nowhere.proto"),
        (by_symbol("myservice.Nobody"), "nothing is called myservice.Nobody"),
        (extension(1), "no extension 1 of google.protobuf.ServiceOptions"),
        (Question::AllExtensionNumbersOfType("no.Message".to_owned()), "no message no.Message"),
    ] {
        assert_eq!(asker.error(question).await, (Code::NotFound.into(), why.to_owned()));
    }
    drop(asker);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn an_import_is_sent_once_in_a_stream_and_what_is_asked_for_always() {
    let gateway = TestGateway::start().await;
    let asker = Asker::of(&gateway).await;

    let replies =
        asker.ask(vec![by_name(FILE), by_symbol("myservice.MyService"), by_name("proto/options.proto")]).await;

    let count = |reply: &Reply| match reply {
        Reply::FileDescriptorResponse(files) => files.file_descriptor_proto.len(),
        other => panic!("{other:?}"),
    };
    // The file with proto/options.proto and google/protobuf/descriptor.proto; then only what was asked for.
    assert_eq!(replies.unwrap().iter().map(count).collect::<Vec<_>>(), [3, 1, 1]);
    drop(asker);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn the_older_version_answers_the_same_and_an_unknown_question_is_an_invalid_argument() {
    let gateway = TestGateway::start().await;
    let mut client = AlphaClient::new(channel(&gateway).await);
    let question = |message_request| v1alpha::ServerReflectionRequest { host: String::new(), message_request };
    let by_name = v1alpha::server_reflection_request::MessageRequest::FileByFilename(FILE.to_owned());
    let questions = tokio_stream::iter([question(Some(by_name)), question(None)]);

    let replies = client.server_reflection_info(questions).await.unwrap().into_inner();
    let replies: Vec<_> = replies.map(|reply| reply.unwrap().message_response.unwrap()).collect().await;

    use v1alpha::server_reflection_response::MessageResponse as AlphaReply;
    let [AlphaReply::FileDescriptorResponse(found), AlphaReply::ErrorResponse(error)] = replies.as_slice() else {
        panic!("{replies:?}")
    };
    assert_eq!(found.file_descriptor_proto[0], *files(my_service_router::FILE_DESCRIPTOR_SET).last().unwrap());
    assert_eq!(error.error_code, i32::from(Code::InvalidArgument));
    drop(client);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn reflection_can_be_turned_off_and_a_route_of_the_users_own_comes_before_it() {
    let off = TestGateway::start_with(|builder| builder.reflection(false)).await;
    let asker = Asker::of(&off).await;
    assert_eq!(asker.ask(vec![by_name(FILE)]).await.unwrap_err().code(), Code::Unimplemented);
    assert!(off.gateway.descriptor_conflicts().is_empty());
    drop(asker);
    off.stop(Vec::new()).await;

    // Nobody is there to answer it, and that is what its caller is told.
    let routes = ServiceRoutes::new("grpc.reflection.v1.ServerReflection").bidi("ServerReflectionInfo");
    let own = TestGateway::of(Gateway::builder().add_service(routes)).await;
    let asker = Asker::of(&own).await;
    assert_eq!(asker.ask(vec![by_name(FILE)]).await.unwrap_err().code(), Code::Unavailable);
    drop(asker);
    own.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_server_of_the_users_own_can_have_the_gateways_reflection() {
    let gateway = Gateway::builder().add_router::<MyServiceRouter>().build().unwrap();
    let (v1, v1alpha) = gateway.reflection_services().unwrap();
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_nodelay(Some(true));
    let uri = format!("http://{}", incoming.local_addr().unwrap());
    let server = tokio::spawn(Server::builder().add_service(v1).add_service(v1alpha).serve_with_incoming(incoming));
    let channel = Channel::from_shared(uri).unwrap().connect().await.unwrap();

    let asker = Asker(ServerReflectionClient::new(channel.clone()));
    assert_eq!(asker.services().await.last().unwrap(), "myservice.MyService");
    let question = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    let mut replies =
        AlphaClient::new(channel).server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    assert!(matches!(
        replies.next().await.unwrap().unwrap().message_response,
        Some(v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list)) if list.service.len() == 4
    ));

    server.abort();
    let off = Gateway::builder().add_router::<MyServiceRouter>().reflection(false).build().unwrap();
    assert!(off.reflection_services().is_none());
}
