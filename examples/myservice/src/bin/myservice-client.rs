//! A client of the example: tonic's own, with nothing of ours in it. It calls a gateway or a backend, just as well.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use myservice::proto::my_service_client::MyServiceClient;
use myservice::proto::{Method1Request, Method2Request, Method3Request, StreamRequest};
use tokio_stream::StreamExt as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Calls MyService and prints what it answers.
#[derive(Debug, Parser)]
#[command(name = "myservice-client", version)]
struct Arguments {
    /// The gateway, or a backend that listens.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    target: String,
    /// The instance that is to answer; any, if not given.
    #[arg(long, value_name = "ID")]
    instance_id: Option<String>,
    /// What to call.
    #[arg(value_enum, default_value_t = What::All)]
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Method1,
    Method2,
    Method3,
    Stream,
    All,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("myservice-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { target, instance_id, what } = arguments;
    let key = match &instance_id {
        Some(id) => Some(id.parse().with_context(|| format!("the instance id {id:?} cannot be sent as metadata"))?),
        None => None,
    };
    let endpoint = Endpoint::from_shared(target.clone()).with_context(|| format!("{target} is not a URL"))?;
    let channel =
        endpoint.connect_timeout(TIMEOUT).connect().await.with_context(|| {
            format!("nothing answers at {target}: is the gateway running, and is this its address?")
        })?;
    let mut caller = Caller { client: MyServiceClient::new(channel), key };
    let wanted = |method| what == What::All || what == method;
    if wanted(What::Method1) {
        caller.method1().await.map_err(|status| failed("method1", &status))?;
    }
    if wanted(What::Method2) {
        caller.method2().await.map_err(|status| failed("method2", &status))?;
    }
    if wanted(What::Method3) {
        caller.method3().await.map_err(|status| failed("method3", &status))?;
    }
    if wanted(What::Stream) {
        caller.stream().await?;
    }
    Ok(())
}

struct Caller {
    client: MyServiceClient<Channel>,
    key: Option<MetadataValue<Ascii>>,
}

impl Caller {
    async fn method1(&mut self) -> Result<(), Status> {
        let request = self.request(Method1Request { text: "hello".into() });
        let answer = self.client.method1(request).await?.into_inner();
        println!("method1: {} (instance {})", answer.text, answer.instance_id);
        Ok(())
    }

    async fn method2(&mut self) -> Result<(), Status> {
        let request = self.request(Method2Request { text: "hello".into(), count: 3 });
        let mut answers = self.client.method2(request).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            println!("method2: {} {} (instance {})", answer.index, answer.text, answer.instance_id);
        }
        Ok(())
    }

    async fn method3(&mut self) -> Result<(), Status> {
        let messages = ["hello", "from", "here"].map(|text| Method3Request { text: text.into() });
        let request = self.request(tokio_stream::iter(messages));
        let answer = self.client.method3(request).await?.into_inner();
        println!("method3: {} messages: {} (instance {})", answer.count, answer.text, answer.instance_id);
        Ok(())
    }

    /// Each message goes out after the answer to the one before has come.
    async fn stream(&mut self) -> anyhow::Result<()> {
        let (messages, queue) = tokio::sync::mpsc::channel(1);
        let request = self.request(tokio_stream::wrappers::ReceiverStream::new(queue));
        let mut answers =
            self.client.stream_method(request).await.map_err(|status| failed("stream", &status))?.into_inner();
        for text in ["hello", "again", "bye"] {
            messages.send(StreamRequest { text: text.into() }).await.context("stream: the call ended early")?;
            let answer = answers.next().await.context("stream: the answers ended early")?;
            let answer = answer.map_err(|status| failed("stream", &status))?;
            println!("stream: {} {} (instance {})", answer.index, answer.text, answer.instance_id);
        }
        drop(messages);
        ensure!(answers.next().await.is_none(), "stream: there are more answers than messages");
        Ok(())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(TIMEOUT);
        if let Some(key) = &self.key {
            request.metadata_mut().insert("instanceid", key.clone());
        }
        request
    }
}

fn failed(method: &str, status: &Status) -> anyhow::Error {
    anyhow::anyhow!("{method}: {:?}: {}", status.code(), status.message())
}

/// For one call, and for the connection: longer than anything here takes, shorter than a human waits.
const TIMEOUT: Duration = Duration::from_secs(10);
