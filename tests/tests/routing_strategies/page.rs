//! docs/ROUTING.md is run: its options are compiled, its calls are made, and what it says comes out.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fs,
    future::{Ready, ready},
    task::{Context, Poll},
};

use bytes::Bytes;
use grpcrouter_runtime::{
    Backend, FieldPath, FieldType, Gateway, GatewayBuilder, LoadBalancing, MethodRoutes, OnMissingKey, ServiceRoutes,
    Strategy,
};
use grpcrouter_tests::{
    pages::{blocks, root},
    raw::{RawClient, RawEnd},
    world::{PATIENCE, TestGateway},
};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use protox::prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ServiceDescriptor, Value};
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

use crate::ended;

#[tokio::test]
async fn what_the_page_says_of_each_strategy_and_balancing_is_so() {
    let page = fs::read_to_string(root().join("docs/ROUTING.md")).unwrap();
    let mut protos = blocks(&page, "protobuf").into_iter();
    let messages = protos.next().expect("the messages of all services");
    let calls = blocks(&page, "calls");
    let mut made = 0;
    for proto in protos {
        let section = calls.iter().find(|calls| calls.line > proto.line).expect("calls behind each option");
        let pool = compiled(&format!("{}\n{}", messages.text, proto.text));
        let place = Place::new(gateway_of(&pool)).await;
        for (index, line) in section.text.lines().enumerate() {
            let (sent, expected) = line.split_once("->").expect("sent -> expected");
            let call = Call::parse(sent.trim(), &pool);
            let told = format!("docs/ROUTING.md:{}: {line}", section.line + index);
            place.check(&call, expected.trim(), &told).await;
            made += 1;
        }
        place.end().await;
    }
    assert!(made >= 30, "the page has {made} calls");
}

/// Compiled by protox, and by the generator too, which checks the options.
fn compiled(proto: &str) -> DescriptorPool {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("shop.proto"), proto).unwrap();
    let includes = [directory.path(), root()];
    protoc_gen_grpcrouter::configure()
        .out_dir(directory.path())
        .emit_rerun_if_changed(false)
        .compile_protos(&["shop.proto"], &includes)
        .unwrap_or_else(|error| panic!("{proto}\n{error}"));
    let mut compiler = protox::Compiler::new(includes).unwrap();
    compiler.include_imports(true).open_file("shop.proto").unwrap();
    compiler.descriptor_pool()
}

/// A gateway of every service with the option.
fn gateway_of(pool: &DescriptorPool) -> GatewayBuilder {
    let with_option = pool.services().filter_map(|service| routes(pool, &service));
    with_option.fold(Gateway::builder(), GatewayBuilder::add_service)
}

fn routes(pool: &DescriptorPool, service: &ServiceDescriptor) -> Option<ServiceRoutes> {
    let extension = |name: &str| pool.get_extension_by_name(name).unwrap();
    let (of_service, of_method) = (extension("grpcrouter.routes_to"), extension("grpcrouter.method_routes_to"));
    if !service.options().has_extension(&of_service) {
        return None;
    }
    let set = Options(service.options().get_extension(&of_service).as_message().unwrap().clone());
    let mut routes = ServiceRoutes::new(leaked(service.full_name()));
    if let Some(target) = set.text("service") {
        routes = routes.target(leaked(&format!("{}.{target}", service.package_name())));
    }
    if let Some(key) = set.text("routing_key") {
        routes = routes.routing_key(key);
    }
    if let Some(prefix) = set.text("path_prefix") {
        routes = routes.path_prefix(prefix);
    }
    routes = routes
        .strategy(set.strategy().unwrap_or(Strategy::MetadataBased))
        .load_balancing(set.balancing().unwrap_or(LoadBalancing::RoundRobin))
        .on_missing_key(set.missing().unwrap_or(OnMissingKey::Balance))
        .wait_for_instance(set.waits().unwrap_or(false));
    for method in service.methods() {
        let name = leaked(method.name());
        routes = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => routes.unary(name),
            (false, true) => routes.server_streaming(name),
            (true, false) => routes.client_streaming(name),
            (true, true) => routes.bidi(name),
        };
        let mut own = MethodRoutes::new();
        let mut key = set.text("routing_key");
        if method.options().has_extension(&of_method) {
            let set = Options(method.options().get_extension(&of_method).as_message().unwrap().clone());
            key = set.text("routing_key").or(key);
            own = set.text("routing_key").map_or(own, |key| own.routing_key(key));
            own = set.balancing().map_or(own, |balancing| own.load_balancing(balancing));
            own = set.missing().map_or(own, |missing| own.on_missing_key(missing));
        }
        if set.strategy() == Some(Strategy::FieldBased) {
            own = own.field(field(&method.input(), key.unwrap()));
        }
        routes = routes.method_routes(name, own);
    }
    Some(routes)
}

/// What one option sets.
struct Options(DynamicMessage);

impl Options {
    fn value(&self, name: &str) -> Option<Value> {
        self.0.has_field_by_name(name).then(|| self.0.get_field_by_name(name).unwrap().into_owned())
    }

    fn text(&self, name: &str) -> Option<&'static str> {
        self.value(name).map(|value| leaked(value.as_str().unwrap()))
    }

    fn number(&self, name: &str) -> Option<i32> {
        self.value(name).and_then(|value| value.as_enum_number())
    }

    fn strategy(&self) -> Option<Strategy> {
        let all = [Strategy::MetadataBased, Strategy::PathBased, Strategy::HeaderBased, Strategy::FieldBased];
        self.number("strategy").map(|number| all[number as usize])
    }

    fn balancing(&self) -> Option<LoadBalancing> {
        let all = [
            LoadBalancing::RoundRobin,
            LoadBalancing::WeightedRoundRobin,
            LoadBalancing::LeastRequest,
            LoadBalancing::PeakEwma,
            LoadBalancing::ConsistentHash,
            LoadBalancing::Random,
        ];
        self.number("load_balancing").map(|number| all[number as usize])
    }

    fn missing(&self) -> Option<OnMissingKey> {
        self.number("on_missing_key").map(|number| [OnMissingKey::Balance, OnMissingKey::Reject][number as usize])
    }

    fn waits(&self) -> Option<bool> {
        self.value("wait_for_instance").and_then(|value| value.as_bool())
    }
}

fn field(message: &MessageDescriptor, path: &str) -> FieldPath {
    let (mut message, mut numbers) = (message.clone(), Vec::new());
    for name in path.split('.') {
        let field = message.get_field_by_name(name).unwrap();
        numbers.push(field.number());
        match field.kind() {
            Kind::Message(next) => message = next,
            Kind::String => return FieldPath::new(numbers.leak(), FieldType::String),
            Kind::Uint32 => return FieldPath::new(numbers.leak(), FieldType::Uint32),
            other => panic!("{path} is {other:?}"),
        }
    }
    panic!("{path} is a message")
}

/// A gateway keeps names for as long as it lives, and these come from a page.
fn leaked(text: &str) -> &'static str {
    text.to_owned().leak()
}

/// The left side of a line.
struct Call {
    host: Option<String>,
    path: String,
    headers: Vec<(String, String)>,
    message: Bytes,
}

impl Call {
    /// Parts joined by commas: a path, an address, a message in braces, or `name: value`.
    fn parse(text: &str, pool: &DescriptorPool) -> Self {
        let order = pool.get_message_by_name("shop.Order").unwrap();
        let mut message = DynamicMessage::new(order.clone());
        let mut call = Self { host: None, path: "/shop.Orders/Buy".into(), headers: Vec::new(), message: Bytes::new() };
        for part in text.split(", ").map(str::trim).filter(|part| !part.is_empty()) {
            if let Some(rest) = part.strip_prefix("http://") {
                let (host, path) = rest.split_once('/').unwrap();
                call.host = Some(host.to_owned());
                call.path = format!("/{path}");
            } else if part.starts_with('/') {
                call.path = part.to_owned();
            } else if let Some(fields) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                message = DynamicMessage::parse_text_format(order.clone(), fields).unwrap();
            } else {
                let (name, value) = part.split_once(": ").unwrap_or_else(|| panic!("{part}"));
                call.headers.push((name.to_owned(), value.to_owned()));
            }
        }
        let message = message.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        call.message = [&[0], &length[..], &message].concat().into();
        call
    }
}

struct Place {
    gateway: TestGateway,
    backends: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
    client: RawClient,
}

impl Place {
    async fn new(builder: GatewayBuilder) -> Self {
        let gateway = TestGateway::of(builder).await;
        let mut backends = Vec::new();
        for (id, weight, key) in [("a", 3, None), ("b", 1, None), ("c", 1, Some("7"))] {
            let mut backend = Backend::builder().gateway(gateway.uri()).instance_id(id).weight(weight);
            if let Some(key) = key {
                backend = backend.routing_key(key);
            }
            let backend = backend.add_service(Orders(id)).build().unwrap();
            let (stop, stopped) = oneshot::channel::<()>();
            backends.push((stop, tokio::spawn(async move { backend.serve(stopped).await.unwrap() })));
            gateway.instances(backends.len()).await;
        }
        let client = gateway.raw().await;
        Self { gateway, backends, client }
    }

    async fn made(&self, call: &Call) -> Result<String, tonic::Code> {
        let host = call.host.clone().unwrap_or_else(|| self.gateway.address.to_string());
        let mut head = Request::post(format!("http://{host}{}", call.path))
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        for (name, value) in &call.headers {
            head = head.header(name, value);
        }
        let mut sent = self.client.send(head.body(()).unwrap()).await.unwrap();
        sent.request.send_data(call.message.clone(), true).unwrap();
        let end: RawEnd = ended(sent).await;
        match end.code() {
            0 => Ok(String::from_utf8(end.body[5..].to_vec()).unwrap()),
            code => Err(tonic::Code::from_i32(code)),
        }
    }

    async fn answers(&self, call: &Call, times: usize, told: &str) -> BTreeMap<String, usize> {
        let mut answers = BTreeMap::new();
        for _ in 0..times {
            let who = self.made(call).await.unwrap_or_else(|code| panic!("{told}: {code:?}"));
            *answers.entry(who).or_insert(0) += 1;
        }
        answers
    }

    async fn check(&self, call: &Call, expected: &str, told: &str) {
        let listed = |text: &str| text.split(' ').map(str::to_owned).collect::<BTreeSet<_>>();
        if let Some(all) = expected.strip_suffix(" in turn") {
            let answers = self.answers(call, 2 * listed(all).len(), told).await;
            assert!(
                answers.keys().eq(&listed(all)) && answers.values().all(|times| *times == 2),
                "{told}: {answers:?}"
            );
        } else if let Some(any) = expected.strip_prefix("any of ") {
            let answers = self.answers(call, 20, told).await;
            assert!(answers.keys().all(|who| listed(any).contains(who)), "{told}: {answers:?}");
        } else if let Some((all, shares)) = expected.split_once(" as ") {
            let shares: Vec<usize> = shares.split(" to ").map(|share| share.parse().unwrap()).collect();
            let (round, rounds) = (shares.iter().sum::<usize>(), 20);
            let answers = self.answers(call, round * rounds, told).await;
            for (who, share) in all.split(' ').zip(shares) {
                let times = answers.get(who).copied().unwrap_or_default();
                // The turns are spread evenly, which over so few is no more exact than that.
                assert!(times.abs_diff(share * rounds) <= round, "{told}: {answers:?}");
            }
        } else if expected == "always the same" {
            let answers = self.answers(call, 20, told).await;
            assert_eq!(answers.len(), 1, "{told}: {answers:?}");
        } else {
            match self.made(call).await {
                Ok(who) => assert_eq!(who, expected, "{told}"),
                Err(code) => assert_eq!(format!("{code:?}"), camel(expected), "{told}"),
            }
        }
    }

    async fn end(self) {
        let Self { gateway, backends, client } = self;
        drop(client);
        gateway.idle().await;
        for (stop, backend) in backends {
            let _ = stop.send(());
            tokio::time::timeout(PATIENCE, backend).await.unwrap().unwrap();
        }
        gateway.stop(Vec::new()).await;
    }
}

/// `INVALID_ARGUMENT` as tonic calls it.
fn camel(code: &str) -> String {
    code.split('_').map(|word| word[..1].to_owned() + &word[1..].to_lowercase()).collect()
}

/// Answers every call with its id.
#[derive(Clone)]
struct Orders(&'static str);

impl NamedService for Orders {
    const NAME: &'static str = "shop.Orders";
}

impl Service<Request<Body>> for Orders {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let length = u32::try_from(self.0.len()).unwrap().to_be_bytes();
        let message = [&[0], &length[..], self.0.as_bytes()].concat();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        let frames = [Frame::data(Bytes::from(message)), Frame::trailers(trailers)];
        let body = StreamBody::new(tokio_stream::iter(frames.map(Ok::<_, Infallible>)));
        let response = Response::builder().header("content-type", "application/grpc").body(Body::new(body));
        ready(Ok(response.unwrap()))
    }
}
