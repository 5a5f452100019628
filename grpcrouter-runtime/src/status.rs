//! The one table from what goes wrong here to the gRPC status that a client sees. Each answer of ours carries
//! `ErrorInfo { domain: "grpcrouter", reason, metadata: { "outcome": .. } }` in its details.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use grpcrouter_protocol::{Metadata, Text, Trailers};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// An answer that this hop gives in place of the service.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) reason: Reason,
    /// Whether the service can have seen the call.
    pub(crate) outcome: Outcome,
    /// What programs are told beside that.
    hint: Option<Hint>,
}

/// What a program can act upon.
#[derive(Clone, Debug)]
enum Hint {
    /// Which credentials are asked for, as `www-authenticate` of HTTP says it: `ErrorInfo.metadata["www-authenticate"]`.
    Challenge(&'static str),
    /// When to try again: `RetryInfo`.
    RetryAfter(Duration),
}

/// Why, for programs: `ErrorInfo.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    UnknownService,
    UnknownMethod,
    NoInstance,
    NoInstanceForKey,
    MissingKey,
    MalformedKey,
    MalformedRequest,
    MissingMessage,
    Deadline,
    InstanceLost,
    Refused,
    Violation,
    TooLarge,
    TooManyCalls,
    ShuttingDown,
    Cancelled,
    Panic,
    MalformedResponse,
    UpstreamUnavailable,
    UpstreamReset,
    NoCredentials,
    BadCredentials,
    NotAllowed,
    RateLimited,
    WrongPort,
}

impl Reason {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::UnknownService => "UNKNOWN_SERVICE",
            Self::UnknownMethod => "UNKNOWN_METHOD",
            Self::NoInstance => "NO_INSTANCE",
            Self::NoInstanceForKey => "NO_INSTANCE_FOR_KEY",
            Self::MissingKey => "MISSING_ROUTING_KEY",
            Self::MalformedKey => "MALFORMED_ROUTING_KEY",
            Self::MalformedRequest => "MALFORMED_REQUEST",
            Self::MissingMessage => "WRONG_NUMBER_OF_MESSAGES",
            Self::Deadline => "DEADLINE",
            Self::InstanceLost => "INSTANCE_LOST",
            Self::Refused => "REFUSED",
            Self::Violation => "PROTOCOL_VIOLATION",
            Self::TooLarge => "TOO_LARGE",
            Self::TooManyCalls => "TOO_MANY_CALLS",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::Cancelled => "CALL_CANCELLED",
            Self::Panic => "HANDLER_PANICKED",
            Self::MalformedResponse => "MALFORMED_RESPONSE",
            Self::UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
            Self::UpstreamReset => "UPSTREAM_RESET",
            Self::NoCredentials => "NO_CREDENTIALS",
            Self::BadCredentials => "BAD_CREDENTIALS",
            Self::NotAllowed => "NOT_ALLOWED",
            Self::RateLimited => "RATE_LIMITED",
            Self::WrongPort => "WRONG_PORT",
        }
    }
}

/// What a failed call may have done: `ErrorInfo.metadata["outcome"]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It never left this hop.
    NotSent,
    /// The instance had it and did not start it.
    NotStarted,
    /// It was started, or nobody can tell.
    MaybeExecuted,
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "NOT_SENT",
            Self::NotStarted => "NOT_STARTED",
            Self::MaybeExecuted => "MAYBE_EXECUTED",
        }
    }
}

/// The table: one constructor for each situation.
impl Answer {
    /// Nobody serves `service`. `nearest` is the known name that looks most like it.
    pub(crate) fn unknown_service(service: &str, nearest: Option<&str>) -> Self {
        let mut message = format!("unknown service {}", shown(service));
        did_you_mean(&mut message, nearest);
        Self::new(Code::Unimplemented, Reason::UnknownService, message).outcome(Outcome::NotSent)
    }

    /// This listener is for others; `why` says for whom and where to go.
    pub(crate) fn another_listener(why: &str) -> Self {
        Self::new(Code::Unimplemented, Reason::UnknownService, why.to_owned()).outcome(Outcome::NotSent)
    }

    /// `service` is known, `method` is not one of its methods.
    pub(crate) fn unknown_method(service: &str, method: &str, nearest: Option<&str>) -> Self {
        let mut message = format!("service {} has no method {}", shown(service), shown(method));
        did_you_mean(&mut message, nearest);
        Self::new(Code::Unimplemented, Reason::UnknownMethod, message).outcome(Outcome::NotSent)
    }

    /// A known service without a live instance. `resting` are connected and take no calls, `away` have lost their
    /// connection; `last` tells of the one that was here last, if any ever was.
    pub(crate) fn no_instance(service: &str, resting: usize, away: usize, last: Option<&str>) -> Self {
        let service = shown(service);
        let message = match last {
            _ if away > 0 => format!(
                "no instance of {service} takes calls now: {away} lost their connection and may come back, {resting} \
                 connected say that they do not serve, or drain"
            ),
            _ if resting > 0 => format!(
                "no instance of {service} takes calls now: {resting} connected, and each says that it does not serve, or \
                 drains"
            ),
            Some(last) => format!("no instance of {service} is connected: {last}"),
            None => format!(
                "no instance of {service} has registered yet; a backend registers by dialling this gateway: \
                 Backend::builder().gateway(\"http://<this gateway>\").add_service(<{service}>)"
            ),
        };
        Self::new(Code::Unavailable, Reason::NoInstance, message).outcome(Outcome::NotSent)
    }

    /// No instance of `service` answers the routing key `value`, which was read from `name`. `present` are those that
    /// are connected.
    pub(crate) fn unknown_key<'a>(
        service: &str,
        name: &str,
        value: &str,
        present: impl ExactSizeIterator<Item = &'a str>,
    ) -> Self {
        let total = present.len();
        let mut message = format!("no instance of {} has the routing key {name} = {}", shown(service), quoted(value));
        if total == 0 {
            message.push_str("; none is connected at all");
        } else {
            message.push_str("; connected: ");
            for (index, id) in present.take(SHOWN_INSTANCES).enumerate() {
                let separator = if index == 0 { "" } else { ", " };
                let _ = write!(message, "{separator}{}", shown(id));
            }
            if total > SHOWN_INSTANCES {
                let _ = write!(message, " and {} more", total - SHOWN_INSTANCES);
            }
        }
        Self::new(Code::Unavailable, Reason::NoInstanceForKey, message).outcome(Outcome::NotSent)
    }

    /// The route asks for a key and the call has none.
    pub(crate) fn missing_key(service: &str, name: &str, strategy: &str) -> Self {
        let message = format!(
            "calls to {} need the routing key {name} ({strategy}): set it to say which instance is meant",
            shown(service)
        );
        Self::new(Code::InvalidArgument, Reason::MissingKey, message).outcome(Outcome::NotSent)
    }

    /// The call has a key that cannot be read.
    pub(crate) fn malformed_key(service: &str, name: &str, strategy: &str, why: &str) -> Self {
        let message =
            format!("the routing key {name} ({strategy}) of a call to {} is malformed: {why}", shown(service));
        Self::new(Code::InvalidArgument, Reason::MalformedKey, message).outcome(Outcome::NotSent)
    }

    /// The request's head breaks the rules of gRPC over HTTP/2.
    pub(crate) fn malformed_request(why: impl Into<String>) -> Self {
        Self::new(Code::Internal, Reason::MalformedRequest, why.into()).outcome(Outcome::NotSent)
    }

    /// A call of a unary method came with no message, or with more than one.
    pub(crate) fn wrong_number_of_messages(path: &str, count: usize) -> Self {
        let message = format!("{} takes exactly one message, this call has {count}", shown(path));
        Self::new(Code::Unimplemented, Reason::MissingMessage, message).outcome(Outcome::NotSent)
    }

    /// The call's time is over. `outcome` tells what became of it until then.
    pub(crate) fn deadline(outcome: Outcome) -> Self {
        Self::new(Code::DeadlineExceeded, Reason::Deadline, "the deadline passed before the call was done".into())
            .outcome(outcome)
    }

    /// The instance went away with the call.
    pub(crate) fn lost(outcome: Outcome) -> Self {
        let what = match outcome {
            Outcome::NotSent => "before the call was sent to it",
            Outcome::NotStarted => "before it started the call",
            Outcome::MaybeExecuted => "while it had the call; the call may have been executed",
        };
        Self::new(Code::Unavailable, Reason::InstanceLost, format!("the instance was lost {what}")).outcome(outcome)
    }

    /// Every instance that was asked refused the call.
    pub(crate) fn refused() -> Self {
        let message = "every instance that was asked refused the call: they are draining or full".into();
        Self::new(Code::Unavailable, Reason::Refused, message).outcome(Outcome::NotStarted)
    }

    /// The instance broke the protocol in this call.
    pub(crate) fn violation(why: &str) -> Self {
        Self::new(Code::Internal, Reason::Violation, format!("the instance broke the protocol: {}", shown(why)))
            .outcome(Outcome::MaybeExecuted)
    }

    /// `what` is over its limit.
    pub(crate) fn too_large(what: &str, size: usize, limit: usize) -> Self {
        let message = format!("{what} is too large: {size}, the limit is {limit}");
        Self::new(Code::ResourceExhausted, Reason::TooLarge, message).outcome(Outcome::NotSent)
    }

    /// The instances there are have no room for another call.
    pub(crate) fn too_many_calls(service: &str) -> Self {
        let message = format!("every instance of {} has as many calls open as it takes", shown(service));
        Self::new(Code::ResourceExhausted, Reason::TooManyCalls, message).outcome(Outcome::NotSent)
    }

    /// The call came to a port that speaks TLS, without it, or the other way round.
    pub(crate) fn wrong_port(what_to_do: &str) -> Self {
        Self::new(Code::Unavailable, Reason::WrongPort, what_to_do.to_owned()).outcome(Outcome::NotSent)
    }

    /// As many calls are open in this process as may.
    pub(crate) fn too_many_open(most: usize) -> Self {
        let message = format!("this gateway has {most} calls open and takes no more");
        Self::new(Code::ResourceExhausted, Reason::TooManyCalls, message).outcome(Outcome::NotSent)
    }

    /// No instance of `service` can take the call, and it cannot wait for one: as many as may already do.
    pub(crate) fn too_many_wait(service: &str, most: usize) -> Self {
        let message =
            format!("no instance of {} can take the call, and {most} calls wait for instances already", shown(service));
        Self::new(Code::ResourceExhausted, Reason::TooManyCalls, message).outcome(Outcome::NotSent)
    }

    /// As many health watches are open as may.
    pub(crate) fn too_many_watches(most: usize) -> Self {
        let message = format!("{most} health watches are open already, and no more may be");
        Self::new(Code::ResourceExhausted, Reason::TooManyCalls, message).outcome(Outcome::NotSent)
    }

    /// This process is about to end. `outcome` tells what became of the call.
    pub(crate) fn shutting_down(who: &str, outcome: Outcome) -> Self {
        Self::new(Code::Unavailable, Reason::ShuttingDown, format!("the {who} is shutting down")).outcome(outcome)
    }

    /// The call was cancelled; only who cancelled it could see this.
    pub(crate) fn cancelled(outcome: Outcome) -> Self {
        Self::new(Code::Cancelled, Reason::Cancelled, "the call was cancelled".into()).outcome(outcome)
    }

    /// The service's handler panicked.
    pub(crate) fn panic() -> Self {
        Self::new(Code::Unknown, Reason::Panic, "the handler of this method panicked".into())
            .outcome(Outcome::MaybeExecuted)
    }

    /// The service answered something that is not gRPC.
    pub(crate) fn malformed_response(why: impl Into<String>) -> Self {
        Self::new(Code::Internal, Reason::MalformedResponse, why.into()).outcome(Outcome::MaybeExecuted)
    }

    /// The method is not for everybody, and the call does not say who calls. `accepted` tells what to send.
    pub(crate) fn no_credentials(method: &str, accepted: &str) -> Self {
        let message = format!("{} needs credentials and the call has none: send {accepted}", shown(method));
        Self::new(Code::Unauthenticated, Reason::NoCredentials, message)
            .outcome(Outcome::NotSent)
            .hint(Hint::Challenge("Bearer"))
    }

    /// The call has credentials that prove nothing. `why` shows nothing of them.
    pub(crate) fn bad_credentials(why: impl Into<String>) -> Self {
        Self::new(Code::Unauthenticated, Reason::BadCredentials, why.into())
            .outcome(Outcome::NotSent)
            .hint(Hint::Challenge("Bearer error=\"invalid_token\""))
    }

    /// Who calls is known, and may not call this. `needed` tells who may.
    pub(crate) fn not_allowed(principal: &str, method: &str, needed: &str) -> Self {
        let message = format!("{} may not call {}: {needed}", shown(principal), shown(method));
        Self::new(Code::PermissionDenied, Reason::NotAllowed, message).outcome(Outcome::NotSent)
    }

    /// A limit on calls is reached; there is room again after `wait`.
    pub(crate) fn rate_limited(limit: &str, wait: Duration) -> Self {
        let message = format!("the limit of {limit} is reached: try again in {} ms", wait.as_millis().max(1));
        Self::new(Code::ResourceExhausted, Reason::RateLimited, message)
            .outcome(Outcome::NotSent)
            .hint(Hint::RetryAfter(wait))
    }

    /// The server behind an agent cannot be reached, or was lost, or refused the call.
    #[cfg_attr(not(feature = "agent"), allow(dead_code, reason = "only an agent has an upstream"))]
    pub(crate) fn upstream_unavailable(why: String, outcome: Outcome) -> Self {
        Self::new(Code::Unavailable, Reason::UpstreamUnavailable, why).outcome(outcome)
    }

    /// The server behind an agent ended the call without a status, after gRPC's "HTTP2 error code to gRPC status" mapping.
    #[cfg_attr(not(feature = "agent"), allow(dead_code, reason = "only an agent has an upstream"))]
    pub(crate) fn upstream_reset(why: String, reason: h2::Reason) -> Self {
        let answer = match reason {
            h2::Reason::CANCEL => Self::new(Code::Cancelled, Reason::UpstreamReset, why),
            h2::Reason::ENHANCE_YOUR_CALM => Self::new(Code::ResourceExhausted, Reason::UpstreamReset, why),
            h2::Reason::INADEQUATE_SECURITY => Self::new(Code::PermissionDenied, Reason::UpstreamReset, why),
            h2::Reason::REFUSED_STREAM => Self::new(Code::Unavailable, Reason::UpstreamReset, why),
            _ => Self::new(Code::Internal, Reason::UpstreamReset, why),
        };
        answer.outcome(Outcome::MaybeExecuted)
    }

    /// What an HTTP status without a gRPC status means, after gRPC's "HTTP to gRPC status code mapping".
    pub(crate) fn http_status(status: http::StatusCode) -> Self {
        let code = match status.as_u16() {
            400 => Code::Internal,
            401 => Code::Unauthenticated,
            403 => Code::PermissionDenied,
            404 => Code::Unimplemented,
            429 | 502 | 503 | 504 => Code::Unavailable,
            _ => Code::Unknown,
        };
        Self::new(code, Reason::MalformedResponse, format!("the service answered HTTP {status} instead of gRPC"))
            .outcome(Outcome::MaybeExecuted)
    }
}

/// The shapes an answer is wanted in.
impl Answer {
    /// Of whose outcome nothing is known: nobody shall try again what may have happened.
    fn new(code: Code, reason: Reason, message: String) -> Self {
        Self { code, message, reason, outcome: Outcome::MaybeExecuted, hint: None }
    }

    fn hint(mut self, hint: Hint) -> Self {
        self.hint = Some(hint);
        self
    }

    /// What is wrong came from the service, so it has seen the call.
    pub(crate) fn by_the_service(mut self) -> Self {
        if self.reason == Reason::MalformedRequest {
            self.reason = Reason::MalformedResponse;
        }
        self.outcome(Outcome::MaybeExecuted)
    }

    /// The same answer, telling what became of the call.
    pub(crate) fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// The same answer of a call that could go to another instance, if its service had not spent what it may.
    pub(crate) fn not_again(mut self) -> Self {
        self.message.push_str("; no other was asked: too many calls of this service came back from instances of late");
        self
    }

    /// As trailers of a call.
    pub(crate) fn trailers(&self) -> Trailers {
        let status = self.status();
        Trailers {
            status: u32::try_from(i32::from(self.code)).unwrap_or(2),
            message: Text::from(self.message.clone()),
            details: Bytes::copy_from_slice(status.details()),
            metadata: Metadata::default(),
        }
    }

    /// As tonic's status.
    pub(crate) fn into_status(self) -> Status {
        self.status()
    }

    /// As a response of trailers alone.
    pub(crate) fn into_http<B: Default>(self) -> http::Response<B> {
        self.status().into_http()
    }

    fn status(&self) -> Status {
        let mut metadata = HashMap::from([("outcome".to_owned(), self.outcome.as_str().to_owned())]);
        if let Some(Hint::Challenge(challenge)) = self.hint {
            metadata.insert("www-authenticate".to_owned(), challenge.to_owned());
        }
        let mut details = ErrorDetails::with_error_info(self.reason.as_str(), DOMAIN, metadata);
        if let Some(Hint::RetryAfter(wait)) = self.hint {
            details.set_retry_info(Some(wait));
        } else if self.outcome == Outcome::NotStarted || self.reason == Reason::TooManyCalls {
            details.set_retry_info(Some(RETRY_DELAY));
        }
        Status::with_error_details(self.code, self.message.clone(), details)
    }
}

impl From<Answer> for Status {
    fn from(answer: Answer) -> Self {
        answer.into_status()
    }
}

fn did_you_mean(message: &mut String, nearest: Option<&str>) {
    if let Some(nearest) = nearest {
        let _ = write!(message, "; did you mean {nearest}?");
    }
}

/// The name among `known` that looks most like `name`, if any looks like it at all.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Text from outside as it may stand in a message: escaped and short.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        out.push('…');
    }
    out
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", shown(text))
}

/// The domain of every `ErrorInfo` of ours.
const DOMAIN: &str = "grpcrouter";

/// How much of a foreign text a message repeats: enough to recognise it, too little to flood a log.
const SHOWN_CHARS: usize = 96;

/// How many instance ids a message names.
const SHOWN_INSTANCES: usize = 5;

/// What a refused client is told to wait: an instance that drains is gone from the registry within a round trip.
const RETRY_DELAY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn error_info(status: &Status) -> (String, String, Option<String>) {
        let info = status.get_details_error_info().unwrap();
        (info.domain, info.reason, info.metadata.get("outcome").cloned())
    }

    #[test]
    fn every_answer_carries_domain_reason_and_outcome() {
        let status = Answer::lost(Outcome::MaybeExecuted).into_status();

        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(error_info(&status), ("grpcrouter".into(), "INSTANCE_LOST".into(), Some("MAYBE_EXECUTED".into())));
    }

    #[test]
    fn trailers_hold_the_same_details_as_the_status() {
        let answer = Answer::panic();

        let trailers = answer.trailers();

        assert_eq!(trailers.status, 2);
        assert_eq!(trailers.message.as_str(), "the handler of this method panicked");
        assert_eq!(&trailers.details[..], answer.into_status().details());
    }

    #[test]
    fn an_unknown_service_is_answered_with_the_nearest_name() {
        let known = ["shop.Orders", "shop.Stock"];
        let near = nearest("shop.Order", known.into_iter());

        let answer = Answer::unknown_service("shop.Order", near);

        assert_eq!(answer.code, Code::Unimplemented);
        assert_eq!(answer.message, "unknown service shop.Order; did you mean shop.Orders?");
    }

    #[test]
    fn a_name_like_no_other_gets_no_suggestion() {
        assert_eq!(nearest("xyz", ["shop.Orders"].into_iter()), None);
    }

    #[test]
    fn an_unknown_key_names_a_few_of_the_connected_instances() {
        let ids = ["a", "b", "c", "d", "e", "f", "g"];

        let answer = Answer::unknown_key("shop.Orders", "instanceid", "z\n", ids.iter().copied());

        assert_eq!(
            answer.message,
            "no instance of shop.Orders has the routing key instanceid = \"z\\n\"; connected: a, b, c, d, e and 2 more"
        );
    }

    #[test]
    fn a_service_that_never_had_an_instance_says_how_one_would_come() {
        let answer = Answer::no_instance("shop.Orders", 0, 0, None);

        assert_eq!(answer.code, Code::Unavailable);
        assert!(answer.message.starts_with("no instance of shop.Orders has registered yet; a backend registers by"));
    }

    #[test]
    fn an_answer_over_http_is_trailers_alone() {
        let response: http::Response<()> = Answer::deadline(Outcome::MaybeExecuted).into_http();

        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().get("content-type").unwrap(), "application/grpc");
        assert_eq!(response.headers().get("grpc-status").unwrap(), "4");
        assert!(response.headers().contains_key("grpc-status-details-bin"));
    }

    #[test]
    fn foreign_text_is_cut_short() {
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), SHOWN_CHARS + 1);
    }
}
