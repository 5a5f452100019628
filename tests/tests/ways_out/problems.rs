//! What is said at each step that fails.

use grpcrouter_runtime::DialStep;
use grpcrouter_tests::{
    certs::{Certs, Pair},
    deadlines::long_enough,
    world::TestGateway,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::{
    backend,
    doors::{http2, mute, nobody, says, tls, tls_before},
    problem,
    proxy::Proxy,
};

const H2: &[&[u8]] = &[b"h2"];

/// Fails unless that step fails with all of these words.
#[track_caller]
fn says_so((step, said): (DialStep, String), expected: DialStep, words: &[&str]) {
    assert_eq!(step, expected, "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

#[tokio::test]
async fn a_name_that_nobody_knows_and_a_port_where_nobody_listens_are_told_apart() {
    let unknown = problem(backend("https://no-such-host.invalid")).await;
    says_so(
        unknown,
        DialStep::Name,
        &["the name no-such-host.invalid cannot be looked up: ", ".proxy(..) or HTTPS_PROXY"],
    );

    let address = nobody().await;
    let refused = problem(backend(&format!("https://localhost:{}", address.port()))).await;
    says_so(refused, DialStep::Connect, &["nothing answers at localhost:", "127.0.0.1", "is the gateway running"]);
}

#[tokio::test]
async fn each_certificate_that_cannot_be_trusted_is_told_with_whose_it_is_and_what_to_do() {
    let gateway = TestGateway::start().await;
    let certs = Certs::new();
    let at = |names: &[&str]| {
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
    };
    let server = ExtendedKeyUsagePurpose::ServerAuth;

    let good = certs.issue("good", at(&["localhost"]), server.clone());
    let mut params = at(&["localhost"]);
    (params.not_before, params.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 3, 4));
    let expired = certs.issue("expired", params, server.clone());
    let mut params = at(&["localhost"]);
    params.not_before = rcgen::date_time_ymd(2999, 1, 2);
    let early = certs.issue("early", params, server.clone());
    let other = certs.issue("other", at(&["gateway.example", "10.9.8.7"]), server);
    let client = certs.issue("client-only", at(&["localhost"]), ExtendedKeyUsagePurpose::ClientAuth);

    let others = Certs::new();
    for (pair, trusted, words) in [
        (
            &good,
            others.ca(),
            &[
                "shows a certificate for CN=",
                "good that was issued by CN=",
                "test authority",
                ", which is not trusted here",
                "inspects TLS",
                "--ca-file",
            ][..],
        ),
        (
            &expired,
            certs.ca(),
            &[
                "expired that expired on 2002-03-04 (issued by CN=",
                "must be renewed",
                "The clock of this machine says 20",
            ],
        ),
        (&early, certs.ca(), &["early that is valid from 2999-01-02 on", "clock of this machine"]),
        (&other, certs.ca(), &["shows a certificate for gateway.example, 10.9.8.7 and not for localhost"]),
        (&client, certs.ca(), &["client-only (issued by CN=", "cannot be used", "for a server"]),
    ] {
        let door = tls_before(gateway.address, tls(pair, H2, None)).await;
        let found = problem(backend(&format!("https://localhost:{}", door.port())).ca_file(trusted)).await;
        says_so(found, DialStep::Tls, &[&[&*format!("the gateway at localhost:{} ", door.port())], words].concat());
    }
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_told_and_can_be_trusted_by_itself() {
    let gateway = TestGateway::start().await;
    let certs = Certs::new();
    let own = |name: &str, is_ca: bool| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let key = KeyPair::generate().unwrap();
        let pair = Pair { cert: certs.path(&format!("{name}.pem")), key: certs.path(&format!("{name}.key")) };
        std::fs::write(&pair.cert, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    };
    let (own, ca) = (own("own", false), own("ca-itself", true));
    let door = tls_before(gateway.address, tls(&own, H2, None)).await;
    let uri = format!("https://localhost:{}", door.port());

    says_so(
        problem(backend(&uri).ca_file(certs.ca())).await,
        DialStep::Tls,
        &["that it signed itself; if it is the right one, add it"],
    );
    assert!(backend(&uri).ca_file(&own.cert).check([crate::SERVICE]).await.unwrap()[0].is_ok());

    let door = tls_before(gateway.address, tls(&ca, H2, None)).await;
    let found = problem(backend(&format!("https://localhost:{}", door.port())).ca_file(&ca.cert)).await;
    says_so(found, DialStep::Tls, &["shows the certificate of a CA"]);
    gateway.instances(0).await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn what_speaks_no_tls_or_another_protocol_within_it_is_told_apart() {
    let gateway = TestGateway::start().await;
    let certs = Certs::new();
    let server = certs.server();
    let at = |port: u16| backend(&format!("https://localhost:{port}")).ca_file(certs.ca());

    let web = says(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    says_so(problem(at(web.port())).await, DialStep::Tls, &["speaks no TLS, but HTTP/1", "write http://"]);
    // What a server that speaks HTTP/2 in the clear begins with.
    let clear = says(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00").await;
    says_so(problem(at(clear.port())).await, DialStep::Tls, &["speaks no TLS, but HTTP/2 in the clear"]);
    let closes = says(b"").await;
    says_so(problem(at(closes.port())).await, DialStep::Tls, &["closed the connection in the TLS handshake"]);
    // Our own gateway without TLS answers with an alert.
    says_so(problem(at(gateway.address.port())).await, DialStep::Tls, &["write http:// and trust the network"]);

    let old = tls_before(gateway.address, tls(&server, &[], None)).await;
    says_so(problem(at(old.port())).await, DialStep::Http2, &["did not agree on HTTP/2 (ALPN h2)"]);
    let old = tls_before(gateway.address, tls(&server, &[b"http/1.1"], None)).await;
    says_so(problem(at(old.port())).await, DialStep::Http2, &["did not agree on HTTP/2 (ALPN h2)"]);
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn what_is_dialled_without_tls_and_speaks_it_is_told() {
    let gateway = TestGateway::start().await;
    let door = tls_before(gateway.address, tls(&Certs::new().server(), H2, None)).await;

    let found = problem(backend(&format!("http://localhost:{}", door.port()))).await;

    says_so(found, DialStep::Http2, &["does not speak HTTP/2 as a gateway does", "it speaks TLS: write https://"]);
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn a_gateway_that_asks_for_a_certificate_says_so_and_takes_the_right_one() {
    let gateway = TestGateway::start().await;
    let (certs, others) = (Certs::new(), Certs::new());
    let door = tls_before(gateway.address, tls(&certs.server(), H2, Some(&certs.ca()))).await;
    let at = || backend(&format!("https://localhost:{}", door.port())).ca_file(certs.ca());
    let (ours, theirs) = (certs.client("spiffe://test/a"), others.client("spiffe://test/a"));

    says_so(
        problem(at()).await,
        DialStep::Tls,
        &["asks for a client certificate; give one with .client_certificate(..)"],
    );
    let found = problem(at().client_certificate(&theirs.cert, &theirs.key)).await;
    says_so(found, DialStep::Tls, &["does not take the client certificate"]);
    let found = problem(at().client_certificate(&ours.cert, &theirs.key)).await;
    says_so(found, DialStep::Settings, &["does not belong to the certificate"]);
    let found = at().client_certificate(&ours.cert, &ours.key).check([crate::SERVICE]).await.unwrap();
    assert!(found[0].is_ok(), "{:?}", found[0].steps);
    gateway.instances(0).await;
    gateway.stop(vec![]).await;
}

#[tokio::test]
async fn what_a_proxy_says_no_with_is_told_with_what_to_do() {
    for (answer, words) in [
        (
            &b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n"[..],
            "it asks for a user and a password (407); put them into the proxy's URL",
        ),
        (
            b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n",
            "it asks for credentials as NTLM or Negotiate (407), which is not spoken here",
        ),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "it refuses to (403 Forbidden); ask its owner to allow CONNECT"),
        (b"HTTP/1.0 500 Unable to connect\r\n\r\n", "it cannot reach the gateway (500 Unable to connect)"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "it cannot reach the gateway (502 Bad Gateway); is the gateway running"),
        (
            b"HTTP/1.1 405 Method Not Allowed\r\n\r\n",
            "it answered 405 Method Not Allowed; is it a proxy that does CONNECT",
        ),
        (b"HTTP/1.1 302 Found\r\nLocation: http://login\r\n\r\n", "it answered 302 Found"),
        (b"", "it closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nVia", "what it answered is no HTTP/1.1"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what it answered is no HTTP/1.1"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "it speaks TLS there; write its URL with https://"),
    ] {
        let proxy = says(answer).await;
        let found = problem(backend("https://gateway.test").proxy(format!("http://{proxy}"))).await;
        says_so(
            found,
            DialStep::Proxy,
            &[&format!("the proxy at http://{proxy} does not connect to gateway.test:443: "), words],
        );
    }
    let proxy = says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nHTTP/1.1 400 Bad Request\r\n\r\n").await;
    let found = problem(backend("https://gateway.test").proxy(format!("http://{proxy}"))).await;
    // What comes right behind the answer is the gateway's.
    says_so(found, DialStep::Tls, &["the gateway at gateway.test:443 speaks no TLS, but HTTP/1"]);
}

#[tokio::test]
async fn a_proxys_answer_without_an_end_is_not_read_without_end() {
    let endless = crate::doors::serve(|mut stream| async move {
        use tokio::io::AsyncWriteExt as _;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"X-More: of the same\r\n").await.is_ok() {}
    })
    .await;

    let found = problem(backend("https://gateway.test").proxy(format!("http://{endless}"))).await;

    says_so(found, DialStep::Proxy, &["the head of its answer is longer than 8192 bytes"]);
}

#[tokio::test]
async fn a_proxy_that_is_not_there_or_refuses_the_password_is_told_and_the_password_is_not() {
    let gateway = nobody().await;
    let strict = Proxy::to(gateway, Some("ana:geheim")).await;
    let at = |proxy: String| backend("https://gateway.test").proxy(proxy);

    let found = problem(at(format!("http://ana:wrong-geheim@{}", strict.address))).await;
    assert!(!found.1.contains("geheim"), "{}", found.1);
    says_so(found, DialStep::Proxy, &["it does not take the user and the password of its URL (407)"]);

    let found = problem(at(format!("http://ana:geheim@{}", nobody().await))).await;
    says_so(found, DialStep::Connect, &["nothing answers at 127.0.0.1:", "that is where the proxy should be"]);

    let found = problem(at("http://no-such-proxy.invalid:3128".to_owned())).await;
    says_so(
        found,
        DialStep::Name,
        &["the name no-such-proxy.invalid cannot be looked up: ", "is the name of the proxy right?"],
    );
}

#[tokio::test]
async fn whoever_takes_too_long_is_named_with_the_step() {
    let certs = Certs::new();
    let mute = mute().await;
    let port = mute.port();

    // A machine that is slow takes too long in an earlier step.
    let (soon, [proxy, shakes, greets]) = long_enough(async |soon| {
        let (proxy, shakes, greets) = tokio::join!(
            problem(backend("https://gateway.test").proxy(format!("http://{mute}")).dial_timeout(soon)),
            problem(backend(&format!("https://localhost:{port}")).ca_file(certs.ca()).dial_timeout(soon)),
            problem(backend(&format!("http://localhost:{port}")).dial_timeout(soon)),
        );
        let steps = [proxy.0, shakes.0, greets.0];
        let all = steps == [DialStep::Proxy, DialStep::Tls, DialStep::Http2];
        all.then_some((soon, [proxy, shakes, greets]))
    })
    .await;

    says_so(proxy, DialStep::Proxy, &[&format!("within {soon:?}: it did not answer CONNECT")]);
    says_so(shakes, DialStep::Tls, &[&format!("within {soon:?}: the TLS handshake was not done")]);
    says_so(greets, DialStep::Http2, &[&format!("within {soon:?}: it did not say Welcome")]);
}

#[tokio::test]
async fn what_speaks_http2_and_is_no_gateway_is_told_apart_from_what_stands_before_one() {
    for (status, content_type, step, words) in [
        (404, "text/html", DialStep::Gateway, "is no gateway: it answered HTTP 404 Not Found; is the port right?"),
        (200, "text/html", DialStep::Gateway, "is no gateway: it answered something that is not gRPC"),
        (502, "text/html", DialStep::Gateway, "something in front of the gateway at 127.0.0.1:"),
        (
            503,
            "text/html",
            DialStep::Gateway,
            "answered for it: HTTP 503 Service Unavailable; is the gateway behind it running",
        ),
    ] {
        let found = problem(backend(&format!("http://{}", http2(status, content_type).await))).await;
        says_so(found, step, &[words]);
    }
}
