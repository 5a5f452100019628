//! The health of an upstream, told on as the backend's own: what its health service says of itself and of each service,
//! and that it is gone when nothing answers.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tracing::{info, warn};

use super::exchange::UpstreamService;
use super::link::{Link, State};
use crate::backend::BackendHealth;

/// Tells the health of `services` on, and that of the whole.
pub(super) struct Mirror {
    link: Link,
    services: Vec<Arc<str>>,
    health: BackendHealth,
    /// Whether the upstream, or its absence, has been heard of.
    heard: watch::Sender<bool>,
}

impl Mirror {
    pub(super) fn new(link: Link, services: &[Arc<str>], health: BackendHealth) -> Self {
        // What nobody has asked yet does not serve.
        set(&health, "", false);
        Self { link, services: services.to_vec(), health, heard: watch::Sender::new(false) }
    }

    /// Becomes true once the backend's health is that of the upstream.
    pub(super) fn heard(&self) -> watch::Receiver<bool> {
        self.heard.subscribe()
    }

    /// Mirrors until it is dropped.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the health as it was told last.
    pub(super) async fn run(self) -> Infallible {
        let mut state = self.link.watch();
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Up(_) => {
                    // The questions end with the connection: an upstream that leaves must not wait for them.
                    tokio::select! {
                        _ = state.changed() => {}
                        never = self.ask() => match never {},
                    }
                    continue;
                }
                State::Down(_) => {
                    set(&self.health, "", false);
                    self.heard.send_replace(true);
                }
                State::Dialling => {}
            }
            if state.changed().await.is_err() {
                return pending().await;
            }
        }
    }

    /// Asks for each name for as long as one connection lives.
    async fn ask(&self) -> Infallible {
        let mut questions = JoinSet::new();
        let (told, mut answers) = tokio::sync::mpsc::channel(16);
        // "" last: it says that the whole serves, when all else is known.
        let names = self.services.iter().take(MAX_QUESTIONS).cloned().chain(["".into()]);
        let mut unknown: Vec<Arc<str>> = names.collect();
        for name in unknown.clone() {
            questions.spawn(question(self.link.clone(), name, told.clone()));
        }
        let mut whole = None;
        loop {
            let Some((name, serves)) = answers.recv().await else { return pending().await };
            unknown.retain(|other| *other != name);
            if name.is_empty() {
                whole = Some(serves);
            } else {
                set(&self.health, &name, serves);
            }
            if let (Some(serves), true) = (whole, unknown.is_empty()) {
                set(&self.health, "", serves);
                self.heard.send_replace(true);
            }
        }
    }
}

/// Whether `name` serves, now and at each change.
async fn question(link: Link, name: Arc<str>, told: tokio::sync::mpsc::Sender<(Arc<str>, bool)>) {
    let mut last = None;
    let mut tell = async |serves: bool| {
        if last != Some(serves) {
            let what = if name.is_empty() { "the upstream" } else { &name };
            if last.is_some() || !serves {
                info!(upstream = %link.address(), "{what} says that it {}", if serves { "serves" } else { "does not serve" });
            }
            last = Some(serves);
            let _ = told.send((name.clone(), serves)).await;
        }
    };
    let mut client = HealthClient::new(UpstreamService::new(link.clone()));
    let asked = || HealthCheckRequest { service: name.to_string() };
    loop {
        let status = match timeout(ANSWER_TIMEOUT, client.watch(asked())).await {
            Ok(Ok(answers)) => {
                let mut answers = answers.into_inner();
                loop {
                    match answers.message().await {
                        Ok(Some(answer)) => tell(serves(answer.status())).await,
                        Ok(None) => break Status::unknown("the watch ended"),
                        Err(status) => break status,
                    }
                }
            }
            Ok(Err(status)) => status,
            Err(_) => {
                warn!(upstream = %link.address(), "no answer to a question for its health within {} s", ANSWER_TIMEOUT.as_secs());
                tell(false).await;
                continue;
            }
        };
        match status.code() {
            // An older health service: it is asked now and then.
            Code::Unimplemented => match timeout(ANSWER_TIMEOUT, client.check(asked())).await {
                Ok(Ok(answer)) => tell(serves(answer.into_inner().status())).await,
                // No health service: who is there, serves.
                Ok(Err(status)) if status.code() == Code::Unimplemented => {
                    tell(true).await;
                    return pending().await;
                }
                Ok(Err(_)) => tell(true).await,
                Err(_) => tell(false).await,
            },
            // It answers calls, and has nothing to say of this name, or not to us.
            _ => tell(true).await,
        }
        sleep(ASK_AGAIN).await;
    }
}

/// What an upstream does not know of is not said to be ill.
fn serves(status: ServingStatus) -> bool {
    status != ServingStatus::NotServing
}

fn set(health: &BackendHealth, service: &str, serves: bool) {
    // The names are the backend's own.
    let _ = health.set_serving(service, serves);
}

/// Services that are asked for one by one; beyond, only the whole is.
const MAX_QUESTIONS: usize = 64;

/// An upstream that does not answer this for so long would not answer calls either.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two questions to a health service that has no Watch.
const ASK_AGAIN: Duration = Duration::from_secs(3);
