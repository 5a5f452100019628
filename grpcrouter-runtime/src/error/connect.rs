//! One try of a backend to reach its gateway: the steps of it, and what can go wrong at each. Nobody reads these but in a
//! log and in what a check prints, so each text is the whole story: what happened, why, and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::tls::TlsFileError;

/// A step of the way from a backend to its gateway, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DialStep {
    /// Files are read: the token, certificates.
    Settings,
    /// The name of the gateway, or of the proxy in front of it, is looked up.
    Name,
    /// A TCP connection is made to it.
    Connect,
    /// The proxy is asked for a connection to the gateway.
    Proxy,
    /// The gateway, or a proxy that is spoken to over TLS, shows its certificate.
    Tls,
    /// The gateway speaks HTTP/2.
    Http2,
    /// What speaks is a gateway.
    Gateway,
    /// The gateway lets this instance in.
    Register,
}

impl DialStep {
    /// One word in small letters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Name => "name",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Http2 => "http2",
            Self::Gateway => "gateway",
            Self::Register => "register",
        }
    }
}

impl fmt::Display for DialStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One try of a backend to reach its gateway that failed. The backend tries again; this is what its log says.
///
/// An `address` is `the gateway at HOST:PORT` or `the proxy at HOST:PORT` where it is a [`Whom`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Token(#[from] TokenError),

    #[error(transparent)]
    File(#[from] TlsFileError),

    #[error("the name {host} cannot be looked up: {source}; {}", name_hint(.whom))]
    Name { whom: Whom, host: String, source: io::Error },

    #[error("nothing answers at {address}: {source}; {}", dial_hint(.whom, .source))]
    Dial { whom: Whom, address: String, source: io::Error },

    #[error("{}", too_late(*.step, .whom, .address, *.limit))]
    Timeout { step: DialStep, whom: Whom, address: String, limit: Duration },

    #[error("the proxy at {proxy} does not connect to {target}: {problem}")]
    Proxy { proxy: String, target: String, problem: ProxyProblem },

    #[error("{whom} at {address} {problem}")]
    Tls { whom: Whom, address: String, problem: TlsProblem },

    #[error(
        "what listens at {address} does not speak HTTP/2 as a gateway does: {source}; {}", not_http2_hint(*.spoken)
    )]
    NotHttp2 { address: String, source: h2::Error, spoken: Spoken },

    #[error(
        "what listens at {address} is no gateway: it answered {answer}; is the port right? A gateway serves \
         /grpcrouter.Router/Register"
    )]
    NotAGateway { address: String, answer: String },

    #[error(
        "something in front of the gateway at {address} answered for it: {answer}; is the gateway behind it running, and does \
         it pass gRPC (HTTP/2 with trailers, streams without end)?"
    )]
    InFront { address: String, answer: String },

    #[error("the gateway at {address} ended the stream before it said Welcome: {why}")]
    NoWelcome { address: String, why: String },

    #[error("the gateway at {address} said something that is no Welcome: {source}; is it of another release?")]
    BadWelcome { address: String, source: grpcrouter_protocol::ProtocolError },

    #[error("the gateway at {address} refused this instance ({reason}): {message}; {}", rejected_hint(reason))]
    Rejected {
        address: String,
        reason: &'static str,
        message: String,
        retry_after: Duration,
        /// Where it may be better.
        gateways: Vec<String>,
    },
}

impl ConnectError {
    /// How far the dial came.
    pub(crate) fn step(&self) -> DialStep {
        match self {
            Self::Token(_) | Self::File(_) => DialStep::Settings,
            Self::Name { .. } => DialStep::Name,
            Self::Dial { .. } => DialStep::Connect,
            Self::Timeout { step, .. } => *step,
            Self::Proxy { .. } => DialStep::Proxy,
            Self::Tls { problem: TlsProblem::NoHttp2, .. } | Self::NotHttp2 { .. } => DialStep::Http2,
            Self::Tls { .. } => DialStep::Tls,
            Self::NotAGateway { .. } | Self::InFront { .. } | Self::NoWelcome { .. } | Self::BadWelcome { .. } => {
                DialStep::Gateway
            }
            Self::Rejected { .. } => DialStep::Register,
        }
    }
}

/// Who is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    Gateway,
    Proxy,
}

impl fmt::Display for Whom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "the gateway",
            Self::Proxy => "the proxy",
        })
    }
}

/// What the first bytes of the other side look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Nothing,
    Http1,
    Http2,
    Tls,
    Other,
}

/// A token that cannot be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    #[error(
        "cannot read the token from {}: {source}; check the path given to .token_file(..) or --token-file, and that this \
         process may read it",
        .path.display()
    )]
    Unreadable { path: PathBuf, source: io::Error },

    #[error(
        "{} holds no token: {why}; it must hold what `grpcrouter token create` printed, on one line and nothing else",
        .path.display()
    )]
    Malformed { path: PathBuf, why: &'static str },
}

/// Why a proxy gives no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyProblem {
    /// 407 without credentials of ours.
    #[error(
        "it asks for a user and a password (407); put them into the proxy's URL, http://USER:PASSWORD@HOST:PORT, with %40 \
         for @ and %3A for :"
    )]
    WantsCredentials,

    /// 407, or tinyproxy's 401, with credentials.
    #[error("it does not take the user and the password of its URL ({code}); check them, with %40 for @ and %3A for :")]
    WrongCredentials { code: u16 },

    /// 407 that offers no Basic.
    #[error(
        "it asks for credentials as {offered} (407), which is not spoken here, only Basic is; ask its owner for Basic or for \
         an exception, or run a local proxy that speaks {offered} for you"
    )]
    OtherCredentials { offered: String },

    #[error(
        "it refuses to ({answer}); ask its owner to allow CONNECT to this host and port: many allow port 443 alone"
    )]
    Refused { answer: String },

    #[error(
        "it cannot reach the gateway ({answer}); is the gateway running, and is its name known where the proxy is?"
    )]
    NotReached { answer: String },

    #[error("it answered {answer}; is it a proxy that does CONNECT, and is this its port?")]
    Other { answer: String },

    #[error("it closed the connection without an answer; does it let this machine in, and allow CONNECT to that port?")]
    Closed,

    #[error("it speaks TLS there; write its URL with https://")]
    SpeaksTls,

    #[error("what it answered is no HTTP/1.1; is there a proxy at this address?")]
    NotHttp,

    #[error("the head of its answer is longer than {limit} bytes; is there a proxy at this address?")]
    TooLong { limit: usize },

    #[error("the connection to it broke: {0}")]
    Broke(io::Error),
}

/// Why TLS gives no connection. Each goes on after `the gateway at HOST:PORT`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsProblem {
    #[error(
        "shows a certificate for {subject} that was issued by {issuer}, which is not trusted here; if that is your network, \
         which inspects TLS, or your own CA, add the CA's certificate with .ca_file(..) or --ca-file"
    )]
    UnknownIssuer { subject: String, issuer: String },

    #[error(
        "shows a certificate for {subject} that it signed itself; if it is the right one, add it with .ca_file(..) or \
         --ca-file"
    )]
    SelfSigned { subject: String },

    #[error(
        "shows the certificate of a CA, {subject}, as its own; a server needs one that the CA issued to it: give the gateway \
         such a one"
    )]
    CaItself { subject: String },

    #[error(
        "shows a certificate for {names} and not for {host} (issued by {issuer}); dial it by a name that the certificate has, \
         or have {host} put into it"
    )]
    OtherName { host: String, names: String, issuer: String },

    #[error(
        "shows a certificate for {subject} that expired on {not_after} (issued by {issuer}); it must be renewed there. The \
         clock of this machine says {today}: if that is wrong, set it"
    )]
    Expired { subject: String, issuer: String, not_after: String, today: String },

    #[error(
        "shows a certificate for {subject} that is valid from {not_before} on (issued by {issuer}). The clock of this machine \
         says {today}: if that is wrong, set it"
    )]
    NotYetValid { subject: String, issuer: String, not_before: String, today: String },

    #[error(
        "shows a certificate for {subject} (issued by {issuer}) that cannot be used: {error}; have it issued again, for a \
         server"
    )]
    Unusable { subject: String, issuer: String, error: rustls::Error },

    #[error(
        "cannot be checked, since no CA is trusted here: {why}; install your system's CA certificates (the package is often \
         called ca-certificates), or name the CA of the gateway with .ca_file(..) or --ca-file"
    )]
    NoRoots { why: String },

    #[error("asks for a client certificate; give one with .client_certificate(..) or --client-cert and --client-key")]
    WantsClientCertificate,

    #[error(
        "does not take the client certificate: {alert:?}; is it issued by a CA that the gateway knows, for clients, and not \
         expired?"
    )]
    RefusesClientCertificate { alert: rustls::AlertDescription },

    #[error("speaks no TLS, but {}; if it is a gateway without TLS, write http:// and trust the network", spoken(*.0))]
    NoTls(Spoken),

    #[error("ended the TLS handshake: {alert:?}; {}", alert_hint(*.alert))]
    Alert { alert: rustls::AlertDescription },

    #[error(
        "closed the connection in the TLS handshake; is the port right, and does a firewall on the way cut TLS, or this \
         name, off?"
    )]
    Closed,

    #[error("does not finish the TLS handshake: {0}")]
    Other(io::Error),

    #[error(
        "speaks TLS, but did not agree on HTTP/2 (ALPN h2); is the port right, and does a load balancer or an inspecting \
         proxy on the way pass HTTP/1.1 alone?"
    )]
    NoHttp2,
}

fn name_hint(whom: &Whom) -> &'static str {
    match whom {
        Whom::Gateway => {
            "is the host name right? Where only a proxy can look names up, name it with .proxy(..) or HTTPS_PROXY"
        }
        Whom::Proxy => "is the name of the proxy right?",
    }
}

fn dial_hint(whom: &Whom, source: &io::Error) -> &'static str {
    match (source.kind(), whom) {
        (io::ErrorKind::ConnectionRefused, Whom::Gateway) => "is the gateway running, and is this its address?",
        (_, Whom::Gateway) => {
            "is the address right, and may this machine dial out to it? If a proxy is the only way out, name it with \
             .proxy(..) or HTTPS_PROXY"
        }
        (_, Whom::Proxy) => "that is where the proxy should be: is its address right?",
    }
}

fn too_late(step: DialStep, whom: &Whom, address: &str, limit: Duration) -> String {
    let (what, hint) = match (step, whom) {
        (DialStep::Name, _) => ("the name was not found", "does the DNS of this machine answer?"),
        (DialStep::Connect, Whom::Gateway) => (
            "the connection was not made",
            "is the address right, and does a firewall drop what goes there? If a proxy is the only way out, name it with \
             .proxy(..) or HTTPS_PROXY",
        ),
        (DialStep::Connect, Whom::Proxy) => ("the connection was not made", "is that the address of the proxy?"),
        (DialStep::Proxy, _) => ("it did not answer CONNECT", "is that a proxy, and can it reach the gateway?"),
        (DialStep::Tls, _) => ("the TLS handshake was not done", "is the port right, and does it speak TLS?"),
        _ => ("it did not say Welcome", "is the address right, and does a firewall drop what goes there?"),
    };
    format!("no answer from {whom} at {address} within {limit:?}: {what}; {hint}")
}

fn not_http2_hint(spoken: Spoken) -> &'static str {
    match spoken {
        Spoken::Tls => "it speaks TLS: write https://",
        Spoken::Http1 => "it speaks HTTP/1: is the port right, or does it expect TLS?",
        _ => "is the port right, or does it expect TLS?",
    }
}

fn spoken(spoken: Spoken) -> &'static str {
    match spoken {
        Spoken::Http1 => "HTTP/1",
        Spoken::Http2 => "HTTP/2 in the clear",
        Spoken::Nothing | Spoken::Tls | Spoken::Other => "something else",
    }
}

fn alert_hint(alert: rustls::AlertDescription) -> &'static str {
    match alert {
        rustls::AlertDescription::UnrecognisedName => "it does not know this name: is the host right?",
        rustls::AlertDescription::ProtocolVersion => {
            "it speaks no TLS 1.2 or 1.3, or no TLS at all: is it a gateway without TLS? Then write http:// and trust the \
             network"
        }
        _ => "is the port right, and does it speak TLS 1.2 or 1.3?",
    }
}

fn rejected_hint(reason: &str) -> &'static str {
    match reason {
        "VERSION" => "update the older of the two",
        "DRAINING" => "it is about to stop; another one or its successor will answer",
        "UNAUTHENTICATED" => {
            "give this instance a token that the gateway knows, with .token_file(..) or --token-file, or a client certificate"
        }
        "PERMISSION_DENIED" => "check what its token or certificate allows: services, instance ids, how many",
        "FLAPPING" => "two processes use the same instance id: give each its own with .instance_id(..)",
        "INVALID" => "correct what the message names",
        "RESOURCE_EXHAUSTED" => "the gateway is full: raise its limits or add a gateway",
        _ => "trying again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dial(whom: Whom, kind: io::ErrorKind) -> String {
        ConnectError::Dial { whom, address: "127.0.0.1:8080".into(), source: kind.into() }.to_string()
    }

    #[test]
    fn a_gateway_that_is_not_there_says_what_to_do() {
        assert_eq!(
            dial(Whom::Gateway, io::ErrorKind::ConnectionRefused),
            "nothing answers at 127.0.0.1:8080: connection refused; is the gateway running, and is this its address?"
        );
    }

    #[test]
    fn who_cannot_get_out_directly_is_told_of_proxies_and_who_has_one_is_not() {
        assert!(dial(Whom::Gateway, io::ErrorKind::NetworkUnreachable).contains(".proxy(..) or HTTPS_PROXY"));
        assert!(dial(Whom::Proxy, io::ErrorKind::ConnectionRefused).ends_with("is its address right?"));
    }

    #[test]
    fn each_step_that_takes_too_long_is_named() {
        let late = |step| {
            let error = ConnectError::Timeout {
                step,
                whom: Whom::Gateway,
                address: "gateway.test:443".into(),
                limit: Duration::from_secs(10),
            };
            assert_eq!(error.step(), step);
            error.to_string()
        };

        for (step, said) in [
            (DialStep::Name, "the name was not found; does the DNS"),
            (DialStep::Connect, "the connection was not made; is the address right"),
            (DialStep::Proxy, "it did not answer CONNECT; is that a proxy"),
            (DialStep::Tls, "the TLS handshake was not done; is the port right"),
            (DialStep::Register, "it did not say Welcome; is the address right"),
        ] {
            let text = late(step);
            assert!(text.starts_with("no answer from the gateway at gateway.test:443 within 10s: "), "{text}");
            assert!(text.contains(said), "{text}");
        }
    }
}
