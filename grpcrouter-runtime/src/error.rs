//! What can go wrong for the one who builds and runs a gateway or a backend, one type for each operation.
//! Each text says what happened, why, and what to do.

mod connect;

use std::io;

pub use self::connect::DialStep;
pub(crate) use self::connect::{ConnectError, ProxyProblem, Spoken, TlsProblem, TokenError, Whom};

/// A service that a gateway knows nothing of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no router of this gateway leads to the service {service}; there are routers for {known}")]
#[non_exhaustive]
pub struct UnknownService {
    /// What was asked for.
    pub service: String,
    /// What could be asked for: full names with commas between them.
    pub known: String,
}

/// Shares by which calls cannot be split between versions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// Nothing leads to the service.
    #[error(transparent)]
    UnknownService(#[from] UnknownService),

    /// The shares cannot be meant.
    #[error("the calls of {service} cannot be split like this: {why}")]
    Shares {
        /// Whose calls.
        service: String,
        /// Why not, and what can be.
        why: String,
    },
}

/// A service that a backend does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the backend has no service {service}; it has {known}")]
#[non_exhaustive]
pub struct NoSuchService {
    /// What was asked for.
    pub service: String,
    /// What could be asked for: full names with commas between them.
    pub known: String,
}

/// A gateway or a backend that cannot be built from what was set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An option, in the .proto file or set in code, cannot be meant.
    #[error(
        "service {service}: the option {option} = {value:?} cannot be used: {why}; change it in the .proto file and generate again, or where it is set in code"
    )]
    InvalidOption {
        /// The service that carries the option, or `Service/Method` if a method does.
        service: String,
        /// The option's name as in `(grpcrouter.routes_to)`.
        option: &'static str,
        /// What it holds.
        value: String,
        /// Why it cannot be used.
        why: String,
    },

    /// A value given to a builder cannot be used.
    #[error("{setting}({value}) cannot be used: {why}")]
    InvalidSetting {
        /// The builder's method.
        setting: &'static str,
        /// What was given.
        value: String,
        /// Why it cannot be used, and what can.
        why: String,
    },

    /// A file of certificates or keys cannot be used.
    #[error(transparent)]
    TlsFile(#[from] crate::tls::TlsFileError),

    /// Two routers, or two prefixes, claim the same path.
    #[error(
        "the path {path} is claimed by {first} and by {second}: a call can only go one way; add each router once, and \
         give them different values of path_prefix"
    )]
    DuplicateRoute {
        /// The path that both serve.
        path: String,
        /// The service that claimed it first.
        first: String,
        /// The service that claimed it again.
        second: String,
    },

    /// The same service was added twice to a backend.
    #[error("the service {service} was added twice: a call can only go to one of them; remove one add_service")]
    DuplicateService {
        /// The full name of the service.
        service: String,
    },

    /// Nothing was added that could answer a call.
    #[error("{who} has nothing to serve: {hint}")]
    NothingToServe {
        /// `the gateway` or `the backend`.
        who: &'static str,
        /// What to add.
        hint: &'static str,
    },

    /// A backend was given neither a gateway to dial nor an address to listen at.
    #[error(
        "the backend has no way in: give it a gateway to dial with .gateway(\"http://HOST:PORT\"), an address to listen at \
         with .listen(ADDRESS), or both"
    )]
    NoWayIn,

    /// The generated code was made for another runtime.
    #[error(
        "the generated code of {service} speaks version {generated} of the runtime's door, this runtime speaks {runtime}; \
         use protoc-gen-grpcrouter and grpcrouter-runtime of the same release and generate again"
    )]
    GeneratedCode {
        /// The service whose router does not fit.
        service: String,
        /// The version that the generated code was made for.
        generated: u32,
        /// The version of this runtime.
        runtime: u32,
    },
}

impl ConfigError {
    pub(crate) fn setting(setting: &'static str, value: impl ToString, why: impl Into<String>) -> Self {
        Self::InvalidSetting { setting, value: value.to_string(), why: why.into() }
    }
}

/// A gateway or a backend that could not go on serving.
///
/// Its text is the whole story, with what the system said; so it names no [`source`](std::error::Error::source), which
/// who prints a chain of causes would print again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The address to listen at could not be taken.
    #[error("cannot listen at {address}: {error}; {}", listen_hint(.error))]
    Listen {
        /// The address asked for.
        address: String,
        /// What the system said.
        error: io::Error,
    },

    /// Others than this machine reach the listener, and something that protects it is missing.
    #[error("the gateway is not served at {address}: {why}")]
    Exposed {
        /// The address of the listener.
        address: String,
        /// What is missing, and how to set it.
        why: String,
    },

    /// The listener for `grpcrouter.Admin` can be reached from elsewhere.
    #[error(
        "grpcrouter.Admin is not served at {address}: it asks for no credentials; listen at a loopback address such as \
         127.0.0.1, or allow it with .admin_beyond_loopback(true) in a network that you trust"
    )]
    AdminExposed {
        /// The address of the listener.
        address: String,
    },

    /// The listener stopped giving connections.
    #[error(
        "cannot accept connections at {address} any more: {error}; nothing can call in until this is started again"
    )]
    Accept {
        /// The address listened at.
        address: String,
        /// What the system said.
        error: io::Error,
    },
}

impl ServeError {
    pub(crate) fn listen(address: impl ToString, error: io::Error) -> Self {
        Self::Listen { address: address.to_string(), error }
    }
}

fn listen_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there: stop it, or choose another port (port 0 lets the system choose a free one)"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege that this process lacks: choose a port above"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: use 127.0.0.1 for this machine alone or 0.0.0.0 for all of its addresses"
        }
        _ => "check the address",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_says_what_holds_it_and_what_to_do() {
        let error = ServeError::listen("127.0.0.1:8080", io::Error::from(io::ErrorKind::AddrInUse));

        assert_eq!(
            error.to_string(),
            "cannot listen at 127.0.0.1:8080: address in use; another process listens there: stop it, or choose another \
             port (port 0 lets the system choose a free one)"
        );
    }

    #[test]
    fn what_the_system_said_stands_once_in_a_chain_of_causes() {
        let error = ServeError::listen("a", io::Error::other("no"));

        assert!(error.to_string().contains("cannot listen at a: no; "));
        assert!(std::error::Error::source(&error).is_none());
    }
}
