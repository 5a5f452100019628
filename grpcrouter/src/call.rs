//! `grpcrouter call`: one call of any kind, with JSON for its messages, as a client that knows nothing of the service.

mod codec;
mod failure;
mod input;
mod reflect;
mod resolve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataKey, BinaryMetadataKey, BinaryMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use self::codec::DynamicCodec;
use self::input::Input;
use self::reflect::Reflection;
use self::resolve::Written;
use crate::channel::GatewayArgs;
use crate::output;
use crate::values::duration;

/// What `call` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Such as:
  grpcrouter call shop.Orders/Buy '{\"item\": 7}'
  grpcrouter call Orders/Buy @order.json -H 'instanceid: a' --timeout 5s
  grpcrouter call Chat - < messages.json

Each message that comes is one line of JSON on standard output. Where the call fails, its status goes to standard error,
with details and trailers, and the exit code is 3.")]
pub(crate) struct Args {
    /// The method: package.Service/Method, Service/Method, or Method where only one service has it
    method: String,
    /// The message as JSON, @FILE, or - for standard input; several for a stream [default: an empty one]
    data: Option<String>,
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Metadata to send, such as the routing key; -bin keys take base64; again for another one
    #[arg(short = 'H', long, value_name = "KEY: VALUE")]
    header: Vec<String>,
    /// How long it may take, such as 5s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    timeout: Option<Duration>,
    /// Descriptors to use instead of the gateway's reflection: an encoded FileDescriptorSet
    #[arg(long, value_name = "FILE")]
    descriptor_set: Option<PathBuf>,
    /// Print headers and trailers to standard error
    #[arg(short, long)]
    verbose: bool,
}

/// Makes the call.
///
/// # Errors
/// There was no call: nobody answers, the method is not known, or the messages are none.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let written = Written::read(&args.method)?;
    let metadata = headers(&args.header)?;
    let mut pool = DescriptorPool::new();
    let named = match &args.descriptor_set {
        // Known to all, and open where nothing else is: probes ask for it without reflection and without a key.
        None if written.is_of(HEALTH) => {
            pool.decode_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)?;
            Some(vec![HEALTH.to_owned()])
        }
        Some(path) => {
            let set = std::fs::read(path).with_context(|| format!("--descriptor-set {}", path.display()))?;
            pool.decode_file_descriptor_set(&*set).with_context(|| format!("--descriptor-set {}", path.display()))?;
            Some(written.services(&pool.services().map(|service| service.full_name().to_owned()).collect::<Vec<_>>())?)
        }
        None => None,
    };
    let channel = args.gateway.connect().await?;
    let services = match named {
        Some(services) => services,
        None => {
            let mut reflection = Reflection::of(channel.clone(), metadata.clone()).await?;
            let services = written.services(&reflection.services)?;
            reflection.add(&services, &mut pool).await?;
            services
        }
    };
    let method = written.method(&pool, &services)?;
    let input = Input::read(args.data.as_deref(), &method.input(), method.is_client_streaming())?;
    match exchange(channel, &method, input, metadata, &args).await? {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(status) => {
            let mut known = DescriptorPool::new();
            known.decode_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
            output::status(&failure::lines(&status, &[&pool, &known]));
            Ok(ExitCode::from(FAILED))
        }
    }
}

/// Sends all and prints what comes. The status is how the call ended, an error why there is none.
async fn exchange(
    channel: Channel,
    method: &MethodDescriptor,
    input: Input,
    metadata: MetadataMap,
    args: &Args,
) -> anyhow::Result<Result<(), Status>> {
    match input {
        Input::Known(messages) => answers(channel, method, tokio_stream::iter(messages), metadata, args).await,
        Input::Typed(messages, broken) => {
            tokio::select! {
                biased;
                // The sender goes without a word when all is read.
                Ok(error) = broken_input(broken) => Err(error),
                ended = answers(channel, method, ReceiverStream::new(messages), metadata, args) => ended,
            }
        }
    }
}

async fn broken_input(broken: oneshot::Receiver<anyhow::Error>) -> Result<anyhow::Error, oneshot::error::RecvError> {
    broken.await
}

async fn answers(
    channel: Channel,
    method: &MethodDescriptor,
    messages: impl Stream<Item = DynamicMessage> + Send + 'static,
    metadata: MetadataMap,
    args: &Args,
) -> anyhow::Result<Result<(), Status>> {
    let mut client = Grpc::new(channel).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX);
    client.ready().await.map_err(|error| anyhow!("the connection to the gateway was lost: {error}"))?;
    let mut request = Request::new(messages);
    *request.metadata_mut() = metadata;
    if let Some(timeout) = args.timeout {
        request.set_timeout(timeout);
    }
    let path = format!("/{}", resolve::path(method)).parse()?;
    let response = match client.streaming(request, path, DynamicCodec(method.output())).await {
        Ok(response) => response,
        Err(status) => return Ok(Err(on_time(status))),
    };
    if args.verbose {
        output::note(&failure::metadata(response.metadata()));
    }
    print(response.into_inner(), args.verbose).await
}

async fn print(mut answers: Streaming<DynamicMessage>, verbose: bool) -> anyhow::Result<Result<(), Status>> {
    loop {
        match answers.message().await {
            Ok(Some(message)) => output::line(serde_json::to_string(&message)?)?,
            Ok(None) => break,
            Err(status) => return Ok(Err(on_time(status))),
        }
    }
    if verbose && let Ok(Some(trailers)) = answers.trailers().await {
        output::note(&failure::metadata(&trailers));
    }
    Ok(Ok(()))
}

/// tonic's own timer says CANCELLED where the gateway would say what it is.
fn on_time(status: Status) -> Status {
    if status.code() == Code::Cancelled && status.message() == "Timeout expired" {
        return Status::deadline_exceeded("the time of --timeout is over");
    }
    status
}

fn headers(texts: &[String]) -> anyhow::Result<MetadataMap> {
    let mut metadata = MetadataMap::new();
    for text in texts {
        let wrong = || anyhow!("-H {text:?} is no metadata; write 'key: value'");
        let (key, value) = text.split_once(':').ok_or_else(wrong)?;
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        if key.ends_with("-bin") {
            let key = key.parse::<BinaryMetadataKey>().map_err(|_| wrong())?;
            let engine = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, ANY_PADDING);
            let bytes = base64::Engine::decode(&engine, value)
                .with_context(|| format!("-H {text:?}: the value of a -bin key is base64"))?;
            metadata.append_bin(key, BinaryMetadataValue::from_bytes(&bytes));
        } else {
            let key = key.parse::<AsciiMetadataKey>().map_err(|_| wrong())?;
            metadata.append(key, value.parse().map_err(|_| wrong())?);
        }
    }
    Ok(metadata)
}

const ANY_PADDING: base64::engine::GeneralPurposeConfig = base64::engine::GeneralPurposeConfig::new()
    .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);

const HEALTH: &str = "grpc.health.v1.Health";

/// The exit code where the call was made and failed.
const FAILED: u8 = 3;
