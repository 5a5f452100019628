//! The raw path: a generated router as a tower service that forwards bytes as they are, and the wrappers around such a
//! service: [`Keyed`], [`KeyedPath`] and [`Prefixed`].

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Uri};
use http_body::Body as HttpBody;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tower_service::Service;

use super::{RouterChannel, ServiceSpec, StdError, Strategy};
use crate::metadata;
use crate::status::{Answer, nearest};

/// Sends a call on as it is. A path that is none of the service's methods is answered here, as the service itself would.
pub fn raw_call<C, B>(channel: &mut C, spec: &'static ServiceSpec, request: http::Request<B>) -> RawFuture<C::Future>
where
    C: RouterChannel,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    if !is_method(spec, request.uri().path()) {
        return RawFuture { step: Step::Answered { response: Some(unknown_method(spec, request.uri().path())) } };
    }
    RawFuture { step: Step::Sent { response: channel.call(request.map(Body::new)) } }
}

/// Whether `path` calls a method of the service; where the key is in the path, that is for the gateway to tell.
fn is_method(spec: &ServiceSpec, path: &str) -> bool {
    let keyed = || {
        let bare = path.rmatch_indices('/').nth(1).and_then(|(at, _)| path.get(at..));
        let method = bare.and_then(|bare| spec.method_by_path(bare));
        method.is_some_and(|method| spec.routes(method).strategy == Strategy::PathBased)
    };
    spec.method_by_path(path).is_some() || keyed()
}

fn unknown_method(spec: &ServiceSpec, path: &str) -> http::Response<Body> {
    let method = path.rsplit('/').next().unwrap_or(path);
    let nearest = nearest(method, spec.methods.iter().map(|method| method.name));
    Answer::unknown_method(spec.name, method, nearest).into_http()
}

pin_project! {
    /// The answer to a call on the raw path.
    pub struct RawFuture<F> {
        #[pin]
        step: Step<F>,
    }
}

pin_project! {
    #[project = StepProjection]
    enum Step<F> {
        Sent { #[pin] response: F },
        Answered { response: Option<http::Response<Body>> },
    }
}

impl<F> fmt::Debug for RawFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawFuture").finish_non_exhaustive()
    }
}

impl<F: Future<Output = Result<http::Response<Body>, Infallible>>> Future for RawFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().step.project() {
            StepProjection::Sent { response } => response.poll(cx),
            StepProjection::Answered { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending,
            },
        }
    }
}

/// Sends every call with the same routing key; a key that a call brings is replaced.
#[derive(Debug, Clone)]
pub struct Keyed<S> {
    inner: S,
    name: HeaderName,
    key: HeaderValue,
}

impl<S> Keyed<S> {
    /// Wraps a service.
    ///
    /// # Panics
    /// When the name is not a lower case header name; the plugin sees to it.
    pub fn new(inner: S, name: &'static str, key: HeaderValue) -> Self {
        Self { inner, name: HeaderName::from_static(name), key }
    }

    /// Wraps a service whose key is the bytes of a `-bin` entry, which travel in base64.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn binary(inner: S, name: &'static str, key: impl AsRef<[u8]>) -> Self {
        // Base64 is always a header's value.
        let key = metadata::encode_bin(key.as_ref()).unwrap_or(HeaderValue::from_static(""));
        Self::new(inner, name, key)
    }
}

impl<S: Service<http::Request<B>>, B> Service<http::Request<B>> for Keyed<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> S::Future {
        request.headers_mut().insert(self.name.clone(), self.key.clone());
        self.inner.call(request)
    }
}

/// Sends every call with the same routing key in its path.
#[derive(Debug, Clone)]
pub struct KeyedPath<S> {
    inner: S,
    /// What stands before the service: the prefix and the key.
    before: String,
}

impl<S> KeyedPath<S> {
    /// Wraps a service whose paths have `prefix`, or an empty one, before the key.
    pub fn new(inner: S, prefix: &'static str, key: impl AsRef<str>) -> Self {
        Self { inner, before: format!("{prefix}/{}", utf8_percent_encode(key.as_ref(), NON_ALPHANUMERIC)) }
    }
}

impl<S: Service<http::Request<B>>, B> Service<http::Request<B>> for KeyedPath<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> S::Future {
        let path = request.uri().path_and_query().map_or("", PathAndQuery::as_str);
        if let Some(uri) = with_path(request.uri(), &format!("{}{path}", self.before)) {
            *request.uri_mut() = uri;
        }
        self.inner.call(request)
    }
}

/// The names of a router whose service has a `path_prefix`.
pub trait PrefixedName {
    /// The prefix, such as `/api/v1`.
    const PREFIX: &'static str;
    /// The service behind the prefix, such as `api/v1/package.Service`.
    const PREFIXED_NAME: &'static str;
}

/// A router under its path prefix: `add_service(Prefixed(router))` beside `add_service(router)`.
#[derive(Debug, Clone)]
pub struct Prefixed<S>(pub S);

impl<S: PrefixedName> tonic::server::NamedService for Prefixed<S> {
    // tonic routes by `/{NAME}/{*rest}`, and a name may have slashes in it.
    const NAME: &'static str = S::PREFIXED_NAME;
}

impl<S, B> Service<http::Request<B>> for Prefixed<S>
where
    S: Service<http::Request<B>, Error = Infallible> + PrefixedName,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> S::Future {
        if let Some(uri) = without_prefix(request.uri(), S::PREFIX) {
            *request.uri_mut() = uri;
        }
        self.0.call(request)
    }
}

/// The address behind the prefix; none if it does not begin with it.
fn without_prefix(uri: &Uri, prefix: &str) -> Option<Uri> {
    let rest = uri.path_and_query()?.as_str().strip_prefix(prefix)?;
    if rest.starts_with('/') { with_path(uri, rest) } else { None }
}

/// The address with another path; none if there can be no such path.
fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_taken_off_and_the_rest_of_the_address_stays() {
        let uri = Uri::from_static("http://gateway:8080/api/v1/demo.Shop/Buy?x=1");
        let expected = Uri::from_static("http://gateway:8080/demo.Shop/Buy?x=1");
        assert_eq!(without_prefix(&uri, "/api/v1"), Some(expected));
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let uri = Uri::from_static("http://gateway:8080/api/v10/demo.Shop/Buy");
        assert_eq!(without_prefix(&uri, "/api/v1"), None);
    }

    #[test]
    fn another_path_has_no_prefix_to_take_off() {
        assert_eq!(without_prefix(&Uri::from_static("/demo.Shop/Buy"), "/api/v1"), None);
    }
}
