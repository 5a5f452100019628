//! docs/ROUTING.md is run with the programs that users have: its options are compiled to descriptor sets, `grpcrouter
//! gateway` serves them, three agents register in front of three servers, and each call says what the page says.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use grpcrouter_tests::{
    admin::proto::{ListInstancesRequest, SetSplitRequest, Share, admin_client::AdminClient},
    pages::{blocks, root},
    raw::RawClient,
    world::PATIENCE,
};
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use tokio::net::TcpListener;
use tonic::transport::Channel;

use crate::process::{Process, address};

// Beside the test, which waits for processes, its client and its servers go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_page_says_of_each_strategy_and_balancing_is_so() {
    let page = fs::read_to_string(root().join("docs/ROUTING.md")).unwrap();
    let mut protos = blocks(&page, "protobuf").into_iter();
    let messages = protos.next().expect("the messages of all services");
    let calls = blocks(&page, "calls");
    let folder = tempfile::tempdir().unwrap();
    let mut sections = Vec::new();
    for (number, proto) in protos.enumerate() {
        let lines = calls.iter().find(|calls| calls.line > proto.line).expect("calls behind each option");
        let section = Section::new(number, &format!("{}\n{}", messages.text, proto.text), folder.path());
        sections.push((section, lines));
    }

    let place = Place::new(&sections.iter().map(|(section, _)| section).collect::<Vec<_>>()).await;
    let mut made = 0;
    for (section, lines) in &sections {
        for (index, line) in lines.text.lines().enumerate() {
            let (sent, expected) = line.split_once("->").expect("sent -> expected");
            let told = format!("docs/ROUTING.md:{}: {line}", lines.line + index);
            match sent.trim().strip_prefix("split ") {
                Some(shares) => place.split(section, shares).await,
                None => place.check(&Call::parse(sent.trim(), section), expected.trim(), &told).await,
            }
            made += 1;
        }
    }
    assert!(made >= 30, "the page has {made} calls");
    place.end();
}

/// One example, in a package of its own, so that one gateway serves all.
struct Section {
    package: String,
    /// The compiled descriptor set.
    set: String,
    pool: DescriptorPool,
}

impl Section {
    /// Compiled by protox, and by the generator too, which checks the options.
    fn new(number: usize, proto: &str, folder: &Path) -> Self {
        let package = format!("shop{number}");
        let proto = proto.replace("package shop;", &format!("package {package};"));
        let name = format!("{package}.proto");
        fs::write(folder.join(&name), &proto).unwrap();
        let includes = [folder, root()];
        protoc_gen_grpcrouter::configure()
            .out_dir(folder)
            .emit_rerun_if_changed(false)
            .compile_protos(&[&name], &includes)
            .unwrap_or_else(|error| panic!("{proto}\n{error}"));
        let mut compiler = protox::Compiler::new(includes).unwrap();
        compiler.include_imports(true).open_file(&name).unwrap();
        let set = folder.join(format!("{package}.binpb"));
        fs::write(&set, compiler.encode_file_descriptor_set()).unwrap();
        Self { package, set: set.to_str().unwrap().to_owned(), pool: compiler.descriptor_pool() }
    }
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
    fn parse(text: &str, section: &Section) -> Self {
        let text = &text.replace("/shop.", &format!("/{}.", section.package));
        let order = section.pool.get_message_by_name(&format!("{}.Order", section.package)).unwrap();
        let mut message = DynamicMessage::new(order.clone());
        let mut call = Self {
            host: None,
            path: format!("/{}.Orders/Buy", section.package),
            headers: Vec::new(),
            message: Bytes::new(),
        };
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

/// The gateway, three agents, and the servers behind them.
struct Place {
    client: RawClient,
    at: String,
    admin: AdminClient<Channel>,
    gateway: Process,
    agents: Vec<Process>,
}

impl Place {
    async fn new(sections: &[&Section]) -> Self {
        let mut flags = vec!["gateway", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        flags.extend(sections.iter().flat_map(|section| ["--descriptor-set", &section.set]));
        let mut gateway = Process::start(&flags);
        let line = gateway.line();
        let at = address(&line, "listening");
        let admin =
            Channel::from_shared(format!("http://{}", address(&line, "admin"))).unwrap().connect().await.unwrap();
        let (client, _) = RawClient::connect(at).await.unwrap();
        let mut place =
            Self { client, at: at.to_string(), admin: AdminClient::new(admin), gateway, agents: Vec::new() };
        let names: Vec<_> = sections.iter().map(|section| format!("{}.Orders", section.package)).collect();
        for (id, own) in [
            ("a", &["--weight", "3", "--software-version", "v1"][..]),
            ("b", &["--software-version", "v1"]),
            ("c", &["--routing-key", "7", "--software-version", "v2"]),
        ] {
            let (url, upstream) = (format!("http://{at}"), server(id).await);
            let mut flags = vec!["agent", "--gateway", &url, "--upstream", &upstream, "--instance-id", id];
            flags.extend(own);
            flags.extend(names.iter().flat_map(|name| ["--service", name]));
            place.agents.push(Process::start(&flags));
            place.registered(place.agents.len()).await;
        }
        place
    }

    /// So many are there and take calls.
    async fn registered(&self, count: usize) {
        let mut admin = self.admin.clone();
        let all = async {
            loop {
                let listed = admin.list_instances(ListInstancesRequest::default()).await.unwrap().into_inner();
                if listed.instances.len() == count {
                    return;
                }
                // waits because only asking again tells that an agent has come
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = || self.agents.iter().map(Process::told).collect::<String>() + &self.gateway.told();
        tokio::time::timeout(PATIENCE, all).await.unwrap_or_else(|_| panic!("{}", told()));
    }

    /// `v1=90 v2=10`
    async fn split(&self, section: &Section, shares: &str) {
        let share = |text: &str| {
            let (version, share) = text.split_once('=').unwrap();
            Share { software_version: version.to_owned(), share: share.parse().unwrap() }
        };
        let shares = shares.split_whitespace().map(share).collect();
        let service = format!("{}.Orders", section.package);
        self.admin.clone().set_split(SetSplitRequest { service, shares }).await.unwrap();
    }

    async fn made(&self, call: &Call) -> Result<String, tonic::Code> {
        let host = call.host.as_ref().unwrap_or(&self.at);
        let mut head = Request::post(format!("http://{host}{}", call.path))
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        for (name, value) in &call.headers {
            head = head.header(name, value);
        }
        let mut sent = self.client.send(head.body(()).unwrap()).await.unwrap();
        // A call may be refused before its message is sent.
        let _ = sent.request.send_data(call.message.clone(), true);
        let end = tokio::time::timeout(PATIENCE, sent.end()).await.expect("an end").unwrap();
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

    fn end(self) {
        drop((self.client, self.admin));
        for process in self.agents.into_iter().chain([self.gateway]) {
            assert_eq!(process.stop(), Some(0));
        }
    }
}

/// A gRPC server that knows nothing of routing and answers every call with `id`. Its address.
async fn server(id: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(socket).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer(id, request, respond));
                }
            });
        }
    });
    at
}

async fn answer(id: &str, request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let status = |code| HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))]);
    let mut head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    if request.uri().path().starts_with("/grpc.") {
        // It has no health and no reflection.
        head.headers_mut().extend(status("12"));
        let _ = respond.send_response(head, true);
        return;
    }
    let Ok(mut body) = respond.send_response(head, false) else { return };
    let length = u32::try_from(id.len()).unwrap().to_be_bytes();
    let _ = body.send_data([&[0], &length[..], id.as_bytes()].concat().into(), false);
    let _ = body.send_trailers(status("0"));
}

/// `INVALID_ARGUMENT` as tonic calls it.
fn camel(code: &str) -> String {
    code.split('_').map(|word| word[..1].to_owned() + &word[1..].to_lowercase()).collect()
}
