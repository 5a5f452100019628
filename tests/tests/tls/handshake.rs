//! Who shakes hands with the gateway and who does not, and that calls of all kinds go over TLS as they do without.

use grpcrouter_runtime::{Gateway, GatewayTls};
use grpcrouter_tests::{
    certs::Certs,
    tls::{client, connect, raw},
    world::{PATIENCE, TestGateway, eventually},
};
use myservice::proto::{Method2Request, Method3Request, StreamRequest, my_service_router::MyServiceRouter};
use rustls::{ClientConfig, version};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tokio_stream::StreamExt as _;

use super::{METHOD1, backend, gateway, text, tls};

const URI: &str = "spiffe://hospital.example/orders";

/// What becomes of a client: None if it is served, else what it sees.
async fn refusal(gateway: &TestGateway, config: &ClientConfig) -> Option<String> {
    let shaken = async {
        let mut stream = connect(gateway.address, config).await?;
        // With TLS 1.3 a client is done before its certificate was looked at: the alert comes in place of SETTINGS.
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        stream.read_exact(&mut [0; 9]).await
    };
    timeout(PATIENCE, shaken).await.unwrap().err().map(|error| error.to_string())
}

#[tokio::test]
async fn calls_of_all_kinds_go_over_tls_to_a_backend_that_dialled_out_over_tls() {
    let certs = Certs::new();
    let gateway = gateway(&certs, |it| it).await;
    let backend = backend(&gateway, &certs, "a").await;
    for versions in [[&version::TLS13], [&version::TLS12]] {
        let mut client = client(gateway.address, certs.trusting_with(None, &versions)).await.unwrap();

        assert_eq!(client.method1(text("one")).await.unwrap().into_inner().text, "one");
        let much = Method2Request { text: "y".repeat(100_000), count: 20 };
        let answers: Vec<_> = client.method2(much.clone()).await.unwrap().into_inner().collect().await;
        assert!(answers.len() == 20 && answers.iter().all(|answer| answer.as_ref().unwrap().text == much.text));
        let words = ["a", "b", "c"].map(str::to_owned);
        let sent = tokio_stream::iter(words.clone().map(|text| Method3Request { text }));
        assert_eq!(client.method3(sent).await.unwrap().into_inner().text, "a b c");
        let sent = tokio_stream::iter(words.map(|text| StreamRequest { text }));
        let answers: Vec<_> = client.stream_method(sent).await.unwrap().into_inner().collect().await;
        assert_eq!(answers.len(), 3);
    }
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn a_client_may_show_a_certificate_and_need_not_where_it_is_not_required() {
    let certs = Certs::new();
    let gateway = gateway(&certs, |it| it).await;

    let shown = certs.client(URI);
    assert_eq!(refusal(&gateway, &certs.trusting(None)).await, None);
    assert_eq!(refusal(&gateway, &certs.trusting(Some(&shown))).await, None);

    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_certificate_that_is_shown_must_be_good_in_every_way() {
    let certs = Certs::new();
    let stranger = Certs::new();
    let gateway = gateway(&certs, |it| it).await;
    for (what, pair, says) in [
        ("expired", certs.expired_client(URI), "CertificateExpired"),
        ("of another authority", stranger.client(URI), "UnknownCA"),
        // rustls has no alert of its own for it.
        ("for servers alone", certs.not_a_client(URI), "received fatal alert"),
    ] {
        for versions in [[&version::TLS13], [&version::TLS12]] {
            let refused = refusal(&gateway, &certs.trusting_with(Some(&pair), &versions)).await;
            let refused = refused.unwrap_or_else(|| panic!("{what} was let in"));
            assert!(refused.contains(says), "{what}: {refused}");
        }
    }
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn who_shows_no_certificate_is_refused_where_one_is_required() {
    let certs = Certs::new();
    let required = tls(&certs).require_client_certificate();
    let gateway = TestGateway::start_with(|builder| builder.tls(required)).await;

    let refused = refusal(&gateway, &certs.trusting(None)).await.unwrap();

    assert!(refused.contains("CertificateRequired"), "{refused}");
    let shown = certs.client(URI);
    assert_eq!(refusal(&gateway, &certs.trusting(Some(&shown))).await, None);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_client_does_not_take_a_gateway_for_another() {
    let certs = Certs::new();
    let gateway = gateway(&certs, |it| it).await;

    let strange = refusal(&gateway, &Certs::new().trusting(None)).await.unwrap();

    assert!(strange.contains("UnknownIssuer"), "{strange}");
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn tls_older_than_1_2_is_refused_with_an_alert() {
    let certs = Certs::new();
    let gateway = gateway(&certs, |it| it).await;
    // No library here speaks TLS 1.1 any more: a ClientHello of it by hand, with one cipher suite.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();

    stream.write_all(&hello).await.unwrap();

    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    // An alert, fatal; handshake_failure, because what TLS 1.2 asks of a ClientHello is not in it.
    assert_eq!((answer[0], &answer[5..]), (21, &[2, 40][..]));
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_session_is_not_resumed_where_certificates_are_looked_at() {
    let certs = Certs::new();
    let gateway = gateway(&certs, |it| it).await;
    let shown = certs.client(URI);
    for versions in [[&version::TLS13], [&version::TLS12]] {
        let config = certs.trusting_with(Some(&shown), &versions);
        for _ in 0..2 {
            let (client, task) = raw(gateway.address, &config).await.unwrap();
            // Whatever could be resumed has come by then.
            client.unary(METHOD1, &[], &text("x")).await.unwrap();
            task.abort();
        }
        let stream = connect(gateway.address, &config).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_more_after_the_first_record_holds_up_nobody_and_is_closed_in_time() {
    let certs = Certs::new();
    let gateway = gateway(&certs, |it| it.opening_timeout(std::time::Duration::from_secs(2))).await;
    let mut silent = Vec::new();
    for said in [&b""[..], &[22], &[22, 3, 1, 2, 0, 1, 0, 1], b"PRI"] {
        let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(said).await.unwrap();
        silent.push(stream);
    }
    assert_eq!(refusal(&gateway, &certs.trusting(None)).await, None);

    for mut stream in silent {
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
        assert_eq!(rest, b"");
    }
    eventually("no connection", || gateway.gateway.stats().connections == 0).await;
    gateway.stop(Vec::new()).await;
}

#[test]
fn files_that_cannot_be_used_are_told_of_at_build() {
    let certs = Certs::new();
    let (server, stranger) = (certs.server(), certs.client(URI));
    let build = |tls| {
        let error = Gateway::builder().add_router::<MyServiceRouter>().tls(tls).build().unwrap_err();
        error.to_string()
    };

    let mixed = build(GatewayTls::files(&server.cert, &stranger.key));
    assert!(mixed.contains("client.key does not belong to the certificate in"), "{mixed}");
    let missing = build(GatewayTls::files(certs.path("nowhere.pem"), &server.key));
    assert!(missing.starts_with("cannot read ") && missing.contains("nowhere.pem"), "{missing}");
    let bundle = build(GatewayTls::files(&server.cert, &server.key).client_ca(&server.key));
    assert!(bundle.starts_with("no certificate in ") && bundle.contains("server.key"), "{bundle}");
    let nobody = build(GatewayTls::files(&server.cert, &server.key).require_client_certificate());
    assert!(nobody.contains("name the authorities that sign them with .client_ca(FILE)"), "{nobody}");
}
