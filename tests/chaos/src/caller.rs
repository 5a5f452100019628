//! tonic's own client of the example, which performs one work and looks at each byte of the answer.

use std::time::Duration;

use myservice::proto::{
    Method1Request, Method2Request, Method3Request, StreamRequest, my_service_client::MyServiceClient,
};
use tokio::time::sleep;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Status, transport::Channel};
use tonic_types::StatusExt as _;

use crate::{
    service::WRONG,
    work::{From, Kind, Work},
};

/// How a call is made. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Caller {
    client: MyServiceClient<Channel>,
    /// The instance that is asked for, if any.
    pub key: Option<String>,
    /// None: as long as it takes.
    pub deadline: Option<Duration>,
    /// Before each message that is read: a slow consumer.
    pub dawdle: Duration,
    /// Whether a call that a connection at its end did not send any more is sent through the next one, as gRPC's own
    /// clients do; tonic's leaves it to its user.
    pub follows_goaway: bool,
}

/// Why a call did not do what it should.
#[derive(Debug)]
pub enum Failure {
    /// It ended with this status, which may be told by a fault.
    Status(Box<Status>),
    /// What came is not what was sent: no fault excuses it.
    Wrong(String),
}

impl Caller {
    /// Calls through this channel.
    pub fn new(channel: Channel) -> Self {
        let client = MyServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        Self { client, key: None, deadline: None, dawdle: Duration::ZERO, follows_goaway: false }
    }

    /// Performs the work.
    ///
    /// # Errors
    /// The call failed, or its answer is not what it should be.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call.
    pub async fn perform(&self, work: &Work) -> Result<(), Failure> {
        loop {
            let end = match work.kind {
                Kind::Unary => self.unary(work).await,
                Kind::Down => self.down(work).await,
                Kind::Up => self.up(work).await,
                Kind::Both => self.both(work).await,
            };
            match end {
                Err(failure) if self.follows_goaway && failure.was_not_sent() => {}
                end => return end,
            }
        }
    }

    async fn unary(&self, work: &Work) -> Result<(), Failure> {
        let text = work.head() + &work.content(From::Client, 0);
        let answer = self.client.clone().method1(self.request(Method1Request { text })).await?.into_inner();
        self.same(work, 0, &answer.text, &answer.instance_id)
    }

    async fn down(&self, work: &Work) -> Result<(), Failure> {
        let request = Method2Request { text: work.head(), count: work.messages };
        let mut answers = self.client.clone().method2(self.request(request)).await?.into_inner();
        for index in 0..work.messages {
            self.dawdle().await;
            let answer = answers.message().await?.ok_or_else(|| early(work, index))?;
            self.same(work, index, &answer.text, &answer.instance_id)?;
        }
        at_its_end(work, answers.message().await?.is_none())
    }

    async fn up(&self, work: &Work) -> Result<(), Failure> {
        let said = *work;
        let messages = tokio_stream::iter(0..work.messages).then(move |index| async move {
            sleep(said.pause).await; // waits because the call is to be cut in its middle
            Method3Request { text: said.content(From::Client, index) }
        });
        let messages = tokio_stream::once(Method3Request { text: work.head() }).chain(Box::pin(messages));
        let answer = self.client.clone().method3(self.request(messages)).await?.into_inner();
        if (answer.count, &answer.text) != (work.messages, &work.hash()) {
            return Err(Failure::Wrong(format!(
                "call {}: {} messages counted, or another hash",
                work.id, answer.count
            )));
        }
        self.asked_for(&answer.instance_id)
    }

    /// Each message goes out when the answer to the one before has come.
    async fn both(&self, work: &Work) -> Result<(), Failure> {
        let (messages, queue) = tokio::sync::mpsc::channel(2);
        let say = async |text| messages.send(StreamRequest { text }).await;
        let _ = say(work.head()).await;
        let request = self.request(ReceiverStream::new(queue));
        let mut answers = self.client.clone().stream_method(request).await?.into_inner();
        for index in 0..work.messages {
            sleep(work.pause).await; // waits because the call is to be cut in its middle
            // That the call has ended is told by its status.
            let _ = say(work.content(From::Client, index)).await;
            self.dawdle().await;
            let answer = answers.message().await?.ok_or_else(|| early(work, index))?;
            self.same(work, index, &answer.text, &answer.instance_id)?;
        }
        drop(messages);
        at_its_end(work, answers.message().await?.is_none())
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline);
        }
        if let Some(key) = &self.key {
            request.metadata_mut().insert("instanceid", key.parse().expect("an id is ASCII"));
        }
        request
    }

    fn same(&self, work: &Work, index: u32, came: &str, instance: &str) -> Result<(), Failure> {
        if came != work.content(From::Service, index) {
            let length = came.len();
            return Err(Failure::Wrong(format!("call {}: answer {index} of {length} bytes is another", work.id)));
        }
        self.asked_for(instance)
    }

    fn asked_for(&self, instance: &str) -> Result<(), Failure> {
        match &self.key {
            Some(key) if key != instance => Err(Failure::Wrong(format!("asked for {key}, answered by {instance}"))),
            _ => Ok(()),
        }
    }

    async fn dawdle(&self) {
        if !self.dawdle.is_zero() {
            sleep(self.dawdle).await; // waits because it plays a slow consumer
        }
    }
}

impl Failure {
    /// The code of its status; none for a wrong answer.
    pub fn code(&self) -> Option<tonic::Code> {
        match self {
            Self::Status(status) => Some(status.code()),
            Self::Wrong(_) => None,
        }
    }

    /// Whether the client's own HTTP/2 says that nothing of the call went out.
    fn was_not_sent(&self) -> bool {
        let Self::Status(status) = self else { return false };
        let mut cause = std::error::Error::source(status.as_ref());
        while let Some(error) = cause {
            if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// What the gateway says of the call, such as `NOT_SENT`; "" where it says nothing.
    pub fn outcome(&self) -> String {
        match self {
            Self::Status(status) => status
                .get_details_error_info()
                .and_then(|info| info.metadata.get("outcome").cloned())
                .unwrap_or_default(),
            Self::Wrong(_) => String::new(),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{:?} {} {}", status.code(), self.outcome(), status.message()),
            Self::Wrong(what) => write!(f, "WRONG: {what}"),
        }
    }
}

impl std::convert::From<Status> for Failure {
    fn from(status: Status) -> Self {
        if status.code() == WRONG { Self::Wrong(status.message().to_owned()) } else { Self::Status(Box::new(status)) }
    }
}

fn early(work: &Work, index: u32) -> Failure {
    Failure::Wrong(format!("call {} ended well after {index} of {} answers", work.id, work.messages))
}

fn at_its_end(work: &Work, ended: bool) -> Result<(), Failure> {
    if ended { Ok(()) } else { Err(Failure::Wrong(format!("call {}: an answer too many", work.id))) }
}
