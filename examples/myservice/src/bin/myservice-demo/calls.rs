//! One call of each kind, its answers checked to the last field; and the count of who answered what.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use myservice::proto::my_service_client::MyServiceClient;
use myservice::proto::{Method1Request, Method2Request, Method3Request, StreamRequest, StreamResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Method1,
    Method2,
    Method3,
    Stream,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Method1, Self::Method2, Self::Method3, Self::Stream];

    fn name(self) -> &'static str {
        match self {
            Self::Method1 => "Method1 (unary)",
            Self::Method2 => "Method2 (server streams)",
            Self::Method3 => "Method3 (client streams)",
            Self::Stream => "StreamMethod (both)",
        }
    }
}

/// tonic's own client of the gateway. Clones share its connection.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    client: MyServiceClient<Channel>,
}

impl Caller {
    pub(crate) async fn connect(gateway: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{gateway}"))?.connect().await?;
        Ok(Self { client: MyServiceClient::new(channel) })
    }

    /// Makes one call and checks what comes; tells which instance answered. With a key it has to be that one.
    pub(crate) async fn call(&self, kind: Kind, key: Option<&str>) -> anyhow::Result<String> {
        let instance = match kind {
            Kind::Method1 => self.method1(key).await,
            Kind::Method2 => self.method2(key).await,
            Kind::Method3 => self.method3(key).await,
            Kind::Stream => self.stream(key).await,
        }?;
        ensure!(key.is_none_or(|key| key == instance), "asked for {key:?}, answered by {instance}");
        Ok(instance)
    }

    async fn method1(&self, key: Option<&str>) -> anyhow::Result<String> {
        let request = request(Method1Request { text: "hello".into() }, key)?;
        let answer = self.client.clone().method1(request).await?.into_inner();
        ensure!(answer.text == "hello", "sent hello, got {:?}", answer.text);
        Ok(answer.instance_id)
    }

    async fn method2(&self, key: Option<&str>) -> anyhow::Result<String> {
        let request = request(Method2Request { text: "again".into(), count: MESSAGES }, key)?;
        let mut answers = self.client.clone().method2(request).await?.into_inner();
        let mut instance = String::new();
        for expected in 0..MESSAGES {
            let answer = answers.message().await?.context("an answer is missing")?;
            ensure!((answer.index, answer.text.as_str()) == (expected, "again"), "got {answer:?}");
            instance = answer.instance_id;
        }
        ensure!(answers.message().await?.is_none(), "there is an answer too many");
        Ok(instance)
    }

    async fn method3(&self, key: Option<&str>) -> anyhow::Result<String> {
        let messages = (0..MESSAGES).map(|number| Method3Request { text: number.to_string() });
        let request = request(tokio_stream::iter(messages), key)?;
        let answer = self.client.clone().method3(request).await?.into_inner();
        ensure!((answer.count, answer.text.as_str()) == (MESSAGES, "0 1 2"), "got {answer:?}");
        Ok(answer.instance_id)
    }

    /// Each message goes out after the answer to the one before has come.
    async fn stream(&self, key: Option<&str>) -> anyhow::Result<String> {
        let mut talk = self.talk(key).await?;
        for _ in 0..MESSAGES {
            talk.say().await?;
        }
        talk.end().await
    }

    /// Begins a StreamMethod call that stays open.
    pub(crate) async fn talk(&self, key: Option<&str>) -> anyhow::Result<Talk> {
        let (messages, queue) = mpsc::channel(1);
        let answers = self.client.clone().stream_method(request(ReceiverStream::new(queue), key)?).await?.into_inner();
        Ok(Talk { messages, answers, said: 0, instance: String::new() })
    }
}

/// A StreamMethod call.
#[derive(Debug)]
pub(crate) struct Talk {
    messages: mpsc::Sender<StreamRequest>,
    answers: Streaming<StreamResponse>,
    said: u32,
    instance: String,
}

impl Talk {
    /// Sends one message and waits for its answer.
    pub(crate) async fn say(&mut self) -> anyhow::Result<()> {
        let text = format!("message {}", self.said);
        self.messages.send(StreamRequest { text: text.clone() }).await.context("the call ended early")?;
        let answer = self.answers.message().await?.context("an answer is missing")?;
        ensure!((answer.index, &answer.text) == (self.said, &text), "got {answer:?}");
        self.instance = answer.instance_id;
        self.said += 1;
        Ok(())
    }

    /// Ends it well; tells which instance answered.
    pub(crate) async fn end(self) -> anyhow::Result<String> {
        let Self { messages, mut answers, instance, .. } = self;
        drop(messages);
        ensure!(answers.message().await?.is_none(), "there is an answer too many");
        Ok(instance)
    }
}

/// Whether the gateway says so: the instance was lost while it had the call.
fn may_have_been_executed(error: &anyhow::Error) -> bool {
    let status = error.downcast_ref::<Status>();
    let info = status.filter(|status| status.code() == Code::Unavailable).and_then(StatusExt::get_details_error_info);
    info.is_some_and(|info| info.metadata.get("outcome").is_some_and(|outcome| outcome == "MAYBE_EXECUTED"))
}

fn request<T>(message: T, key: Option<&str>) -> anyhow::Result<Request<T>> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    if let Some(key) = key {
        request.metadata_mut().insert("instanceid", key.parse()?);
    }
    Ok(request)
}

/// Who answered what.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    answered: BTreeMap<(Kind, String), u64>,
    ok: u64,
    failed: u64,
    /// Of a backend that was killed, where nobody can tell whether it had done them.
    in_doubt: u64,
    killed: Option<String>,
}

impl Counts {
    fn may_be_of_the_killed(&self, key: Option<&str>) -> bool {
        self.killed.as_deref().is_some_and(|killed| key.is_none_or(|key| key == killed))
    }
}

impl Tally {
    /// Counts a call; the first failures are printed.
    pub(crate) fn count(&self, kind: Kind, key: Option<&str>, result: anyhow::Result<String>) {
        let mut counts = self.lock();
        match result {
            Ok(instance) => {
                counts.ok += 1;
                *counts.answered.entry((kind, instance)).or_default() += 1;
            }
            Err(error) if counts.may_be_of_the_killed(key) && may_have_been_executed(&error) => counts.in_doubt += 1,
            Err(error) => {
                counts.failed += 1;
                if counts.failed <= SHOWN {
                    println!("demo: FAILED {}, key {}: {error:#}", kind.name(), key.unwrap_or("none"));
                }
            }
        }
    }

    pub(crate) fn calls(&self) -> u64 {
        let counts = self.lock();
        counts.ok + counts.failed + counts.in_doubt
    }

    pub(crate) fn ok(&self) -> u64 {
        self.lock().ok
    }

    pub(crate) fn failed(&self) -> u64 {
        self.lock().failed
    }

    pub(crate) fn in_doubt(&self) -> u64 {
        self.lock().in_doubt
    }

    /// From now on the calls of this instance may end in doubt.
    pub(crate) fn killed(&self, instance: &str) {
        self.lock().killed = Some(instance.to_owned());
    }

    /// From now on none may.
    pub(crate) fn mended(&self) {
        self.lock().killed = None;
    }

    pub(crate) fn answered_by(&self, instance: &str) -> u64 {
        self.lock().answered.iter().filter(|((_, id), _)| id == instance).map(|(_, count)| count).sum()
    }

    /// Kinds down, instances across.
    pub(crate) fn table(&self, instances: &[&str]) -> String {
        let counts = self.lock();
        let mut table = format!("{:>28}", "answered by");
        for instance in instances {
            let _ = write!(table, "{instance:>8}");
        }
        for kind in Kind::ALL {
            let _ = write!(table, "\n{:>28}", kind.name());
            for instance in instances {
                let count = counts.answered.get(&(kind, (*instance).to_owned())).copied().unwrap_or(0);
                let _ = write!(table, "{count:>8}");
            }
        }
        table
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messages in a stream.
const MESSAGES: u32 = 3;

/// For one call. None takes a hundredth of it; without it a call that hangs would hang the demo.
const DEADLINE: Duration = Duration::from_secs(10);

/// So many failures are printed in full: the first ones tell the story.
const SHOWN: u64 = 10;
