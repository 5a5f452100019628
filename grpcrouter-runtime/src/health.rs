//! grpc.health.v1 as gRPC's own page says it, for a gateway and for a backend alike: they keep a [`Book`] and the same
//! service reads it. <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::{Request, Response, Status, async_trait, codegen::tokio_stream::Stream, server::NamedService};
pub(crate) use tonic_health::pb::health_server::HealthServer;
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server::Health,
};

use crate::status::{Answer, Outcome, shown};

/// The name of the service.
pub(crate) const HEALTH: &str = <HealthServer<HealthService> as NamedService>::NAME;

/// How a whole process stands, which is the service named "".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Whole {
    /// It serves what its services serve.
    #[default]
    Serving,
    /// None of its services serves.
    NotServing,
    /// The same, and nobody is to wait for more news.
    Over,
}

/// Whose health can be asked for, and how it stands.
#[derive(Debug, Clone)]
pub(crate) struct Book {
    pub(crate) whole: watch::Receiver<Whole>,
    pub(crate) services: watch::Receiver<Services>,
}

/// Each service by its full name, and whether it serves. More may come.
pub(crate) type Services = HashMap<String, watch::Receiver<bool>>;

/// Answers Check and Watch from a [`Book`].
#[derive(Debug)]
pub(crate) struct HealthService {
    book: Book,
    /// One for each Watch.
    room: Arc<Semaphore>,
    most: usize,
}

impl HealthService {
    /// With at most so many Watch calls at once.
    pub(crate) fn server(book: Book, most: usize) -> HealthServer<Self> {
        let most = most.min(Semaphore::MAX_PERMITS);
        let room = Arc::new(Semaphore::new(most));
        // A name, and no more: what is longer is no question about health.
        HealthServer::new(Self { book, room, most }).max_decoding_message_size(LONGEST_QUESTION)
    }

    fn entry(&self, service: &str) -> Entry {
        let whole = self.book.whole.clone();
        if service.is_empty() {
            return Entry { whole, service: Asked::Whole };
        }
        Entry { whole, service: Asked::Unknown(service.to_owned(), self.book.services.clone()).known() }
    }
}

#[async_trait]
impl Health for HealthService {
    type WatchStream = Watching;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.entry(&service).look().0 {
            ServingStatus::ServiceUnknown => Err(Status::not_found(format!("unknown service {}", shown(&service)))),
            status => Ok(Response::new(said(status))),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Watching>, Status> {
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            return Err(Answer::too_many_watches(self.most).into());
        };
        let entry = self.entry(&request.into_inner().service);
        Ok(Response::new(Watching { next: Some(Box::pin(entry.next(None))), _permit: permit }))
    }
}

/// One name in the book.
#[derive(Debug)]
struct Entry {
    whole: watch::Receiver<Whole>,
    service: Asked,
}

#[derive(Debug)]
enum Asked {
    Whole,
    Service(watch::Receiver<bool>),
    /// Until it comes.
    Unknown(String, watch::Receiver<Services>),
}

impl Asked {
    /// The same, as far as it is known by now.
    fn known(self) -> Self {
        match self {
            Self::Unknown(name, mut services) => {
                let known = services.borrow_and_update().get(&name).cloned();
                known.map_or(Self::Unknown(name, services), Self::Service)
            }
            asked => asked,
        }
    }
}

impl Entry {
    /// How it stands, and how the whole process does.
    fn look(&mut self) -> (ServingStatus, Whole) {
        let whole = *self.whole.borrow_and_update();
        let serves = match &mut self.service {
            Asked::Unknown(..) => return (ServingStatus::ServiceUnknown, whole),
            Asked::Whole => true,
            Asked::Service(service) => *service.borrow_and_update(),
        };
        let serves = serves && whole == Whole::Serving;
        (if serves { ServingStatus::Serving } else { ServingStatus::NotServing }, whole)
    }

    /// The next status that is not the one that was `told`; an error when there will be none.
    ///
    /// Between two looks any number of changes is one: who does not read costs no more than who does.
    async fn next(mut self, told: Option<ServingStatus>) -> Next {
        loop {
            let (status, whole) = self.look();
            if told != Some(status) {
                return Ok((status, self));
            }
            if whole == Whole::Over || self.changed().await.is_err() {
                return Err(Answer::shutting_down("process", Outcome::MaybeExecuted).into());
            }
            self.service = self.service.known();
        }
    }

    /// An error when whoever keeps the book is gone.
    async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        match &mut self.service {
            Asked::Service(service) => tokio::select! {
                changed = service.changed() => changed,
                changed = self.whole.changed() => changed,
            },
            Asked::Unknown(_, services) => tokio::select! {
                // Where none can come nobody is left to say so.
                Ok(()) = services.changed() => Ok(()),
                changed = self.whole.changed() => changed,
            },
            Asked::Whole => self.whole.changed().await,
        }
    }
}

type Next = Result<(ServingStatus, Entry), Status>;

/// The answer to one Watch: how it stands at once, and then each change.
pub(crate) struct Watching {
    next: Option<Pin<Box<dyn Future<Output = Next> + Send>>>,
    _permit: OwnedSemaphorePermit,
}

impl Stream for Watching {
    type Item = Result<HealthCheckResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        let next = ready!(next.as_mut().poll(cx));
        self.next = None;
        Poll::Ready(Some(next.map(|(status, entry)| {
            self.next = Some(Box::pin(entry.next(Some(status))));
            said(status)
        })))
    }
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching").finish_non_exhaustive()
    }
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

/// Names have at most 256 bytes; a client that adds fields of its own is not turned away.
const LONGEST_QUESTION: usize = 4 * 1024;

#[cfg(test)]
mod tests;
