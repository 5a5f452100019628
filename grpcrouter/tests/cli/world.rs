//! Runs the binary, and what it talks to.

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::time::Duration;

use grpcrouter_runtime::{Backend, Gateway, GatewayBuilder};
use myservice::MyServiceImpl;
use myservice::proto::my_service_router::{FILE_DESCRIPTOR_SET, MyServiceRouter};
use myservice::proto::my_service_server::MyServiceServer;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// What is waited for must come within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program, with nothing of the environment's own settings.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grpcrouter"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("GRPCROUTER_") || name.ends_with("_PROXY")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs it to its end.
pub(crate) async fn run(arguments: &[&str]) -> Ran {
    Ran::of(timeout(PATIENCE, program(arguments).output()).await.expect("it ends").unwrap())
}

/// The same with something to read.
pub(crate) async fn run_with(arguments: &[&str], input: &str) -> Ran {
    let mut command = program(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    Ran::of(timeout(PATIENCE, child.wait_with_output()).await.expect("it ends").unwrap())
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("no signal"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What it printed, if it did what it should.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    /// What it said, if it ended like that and printed no result.
    #[track_caller]
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        self.err
    }
}

/// A program that stays.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = program(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next line that it prints.
    pub(crate) async fn line(&mut self) -> String {
        timeout(PATIENCE, self.lines.next_line()).await.expect("a line").unwrap().expect("it goes on")
    }

    /// Asks it to stop; its exit code.
    #[cfg(unix)]
    pub(crate) async fn stop(mut self) -> i32 {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(pid).status().await.unwrap().success());
        timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap().code().expect("no signal")
    }
}

/// A gateway for the example's service, in this process.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    tasks: JoinSet<()>,
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    pub(crate) async fn start_with(settings: impl FnOnce(GatewayBuilder) -> GatewayBuilder) -> Self {
        let gateway = settings(Gateway::builder().add_router::<MyServiceRouter>()).build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, admin) = (listener.local_addr().unwrap(), admin_listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        let serving = gateway.clone();
        tasks.spawn(async move { serving.serve(listener, std::future::pending::<()>()).await.unwrap() });
        let serving = gateway.clone();
        tasks.spawn(async move { serving.serve_admin(admin_listener, std::future::pending::<()>()).await.unwrap() });
        Self { gateway, address, admin, tasks }
    }

    /// With an instance of the service, registered.
    pub(crate) async fn with_instance(id: &str) -> Self {
        let mut world = Self::start().await;
        let backend = Backend::builder()
            .gateway(world.uri())
            .instance_id(id)
            .software_version("1.2")
            .add_service(MyServiceServer::new(MyServiceImpl::new(id)))
            .build()
            .unwrap();
        let serving = backend.clone();
        world.tasks.spawn(async move { serving.serve(std::future::pending::<()>()).await.unwrap() });
        timeout(PATIENCE, backend.ready()).await.expect("it registers");
        world
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn admin(&self) -> String {
        format!("http://{}", self.admin)
    }
}

/// An unmodified server of the same service.
pub(crate) async fn upstream(tasks: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()
        .unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(MyServiceServer::new(MyServiceImpl::new("unmodified")))
        .add_service(reflection)
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    tasks.spawn(async move { server.await.unwrap() });
    address
}
