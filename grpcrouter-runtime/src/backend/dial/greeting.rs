//! The request to register: Hello goes out, and Welcome is heard or what came instead is told.

use bytes::Bytes;
use grpcrouter_protocol::{Accepted, Hello, Resumed, Welcome, decode_welcome, encode_hello};
use h2::client::SendRequest;
use http::header::{AUTHORIZATION, CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};

use super::{Dialled, Dialler, Trail};
use crate::error::{ConnectError, DialStep, Spoken, Whom};
use crate::h2_body::RecvBody;
use crate::metadata;
use crate::tunnel::Messages;

/// A stream on which Welcome was said.
pub(crate) struct Greeted {
    pub(crate) welcome: Welcomed,
    pub(crate) outgoing: h2::SendStream<Bytes>,
    pub(crate) incoming: Messages<RecvBody>,
    /// To be held until the end: h2 closes a connection that nobody can use any more.
    pub(crate) requests: SendRequest<Bytes>,
}

/// A Welcome that is one.
pub(crate) enum Welcomed {
    Accepted(Accepted),
    Resumed(Resumed),
}

impl Dialler {
    /// Says Hello and hears Welcome. The connection must be polled beside it.
    pub(crate) async fn greet(
        &self,
        dialled: &Dialled,
        hello: &Hello,
        trail: &mut Trail,
    ) -> Result<Greeted, ConnectError> {
        trail.at(DialStep::Gateway, Whom::Gateway, self.address());
        let no_answer = |error| self.no_answer(error, dialled);
        let mut requests = dialled.requests.clone().ready().await.map_err(no_answer)?;
        let (response, mut outgoing) = requests.send_request(self.request(dialled), false).map_err(no_answer)?;
        outgoing.send_data(encode_hello(hello), false).map_err(no_answer)?;

        let (head, body) = response.await.map_err(no_answer)?.into_parts();
        match head.status {
            StatusCode::OK => {}
            status if is_from_in_front(status) => {
                return Err(ConnectError::InFront { address: self.address(), answer: format!("HTTP {status}") });
            }
            status => return Err(self.not_a_gateway(format!("HTTP {status}"))),
        }
        if !metadata::is_grpc(&head.headers) {
            return Err(self.not_a_gateway("something that is not gRPC".to_owned()));
        }
        if metadata::is_trailers_only(&head.headers) {
            return Err(self.ended(&head.headers));
        }
        let mut incoming = Messages::new(RecvBody::new(body));
        let message = match incoming.next().await {
            Ok(Some(message)) => message,
            Ok(None) => {
                return Err(match incoming.trailers() {
                    Some(trailers) => self.ended(trailers),
                    None => self.no_welcome("without a word".to_owned()),
                });
            }
            Err(error) => return Err(self.no_welcome(error.to_string())),
        };
        let welcome =
            decode_welcome(message).map_err(|source| ConnectError::BadWelcome { address: self.address(), source })?;
        trail.passed("it answers as a gateway".to_owned());
        trail.at(DialStep::Register, Whom::Gateway, self.address());
        match welcome {
            Welcome::Accepted(accepted) => {
                Ok(Greeted { welcome: Welcomed::Accepted(accepted), outgoing, incoming, requests })
            }
            Welcome::Resumed(resumed) => {
                Ok(Greeted { welcome: Welcomed::Resumed(resumed), outgoing, incoming, requests })
            }
            Welcome::Rejected(rejected) => Err(ConnectError::Rejected {
                address: self.address(),
                reason: rejected.reason.as_str(),
                message: words(&rejected.message),
                retry_after: rejected.retry_after,
                gateways: rejected.gateways,
            }),
        }
    }

    fn request(&self, dialled: &Dialled) -> Request<()> {
        let mut request =
            Request::post(self.gateway.register_uri()).version(Version::HTTP_2).body(()).unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("grpcrouter/", env!("CARGO_PKG_VERSION"))));
        if let Some(token) = &dialled.token {
            headers.insert(AUTHORIZATION, token.clone());
        }
        request
    }

    /// What HTTP/2 broke with before there was an answer.
    pub(crate) fn no_answer(&self, source: h2::Error, dialled: &Dialled) -> ConnectError {
        let address = self.address();
        if let Some(problem) = dialled.late_tls_problem() {
            return ConnectError::Tls { whom: Whom::Gateway, address, problem };
        }
        match dialled.heard.spoken() {
            spoken if !source.is_io() => ConnectError::NotHttp2 { address, source, spoken },
            spoken @ (Spoken::Tls | Spoken::Http1) => ConnectError::NotHttp2 { address, source, spoken },
            _ => self.no_welcome(source.to_string()),
        }
    }

    /// The stream is over with a status and without Welcome.
    fn ended(&self, trailers: &HeaderMap) -> ConnectError {
        let trailers = metadata::trailers_from_map(trailers);
        let code = tonic::Code::from(trailers.status.cast_signed());
        let message = words(trailers.message.as_str());
        let refused = |reason| ConnectError::Rejected {
            address: self.address(),
            reason,
            message: message.clone(),
            retry_after: std::time::Duration::ZERO,
            gateways: Vec::new(),
        };
        match code {
            tonic::Code::Unimplemented => self.not_a_gateway(format!("{code:?}: {message}")),
            tonic::Code::Unauthenticated => refused("UNAUTHENTICATED"),
            tonic::Code::PermissionDenied => refused("PERMISSION_DENIED"),
            code => self.no_welcome(format!("{code:?}: {message}")),
        }
    }

    fn no_welcome(&self, why: String) -> ConnectError {
        ConnectError::NoWelcome { address: self.address(), why }
    }

    /// It took a Hello that asks for a tunnel for one that asks for another.
    pub(crate) fn unasked(&self) -> ConnectError {
        self.no_welcome("it offered another tunnel than it was asked for".to_owned())
    }

    fn not_a_gateway(&self, answer: String) -> ConnectError {
        ConnectError::NotAGateway { address: self.address(), answer }
    }
}

/// Characters of a gateway's own words: enough for a few sentences, too few to flood a log.
const SHOWN: usize = 400;

/// A gateway's own words, as one line of a log may show them.
fn words(text: &str) -> String {
    text.chars().take(SHOWN).map(|one| if one.is_control() { ' ' } else { one }).collect()
}

/// Statuses that a load balancer or reverse proxy gives of its own accord, and a gateway never.
fn is_from_in_front(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}
