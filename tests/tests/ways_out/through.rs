//! The ways that lead there: TLS, proxies, and both; and files that change while a backend runs.

use std::{fs, sync::Arc};

use grpcrouter_runtime::{Gateway, GatewayTls};
use grpcrouter_tests::{
    certs::Certs,
    world::{TestGateway, eventually},
};
use myservice::proto::my_service_router::MyServiceRouter;
use tokio_rustls::TlsAcceptor;

use crate::{
    answers, backend,
    doors::{self, tls, tls_before},
    proxy::{self, Proxy},
    serve,
};

const H2: &[&[u8]] = &[b"h2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_registers_over_tls_and_answers() {
    let gateway = TestGateway::start().await;
    let certs = Certs::new();
    let door = tls_before(gateway.address, tls(&certs.server(), H2, None)).await;

    let backend = serve(backend(&format!("https://localhost:{}", door.port())).ca_file(certs.ca()));

    answers(&gateway).await;
    gateway.stop(vec![backend]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_registers_through_a_proxy_that_alone_knows_the_gateways_name() {
    let gateway = TestGateway::start().await;
    let certs = Certs::new();
    let door = tls_before(gateway.address, tls(&certs.server_at(&["gateway.test"]), H2, None)).await;
    let proxy = Proxy::to(door, Some("ana@site:p w#")).await;

    let backend = serve(
        backend("https://gateway.test")
            .ca_file(certs.ca())
            .token("grt_1_secret")
            .proxy(format!("http://ana%40site:p%20w%23@{}", proxy.address)),
    );

    answers(&gateway).await;
    let heads = proxy.heads();
    assert!(heads[0].starts_with("CONNECT gateway.test:443 HTTP/1.1\r\nHost: gateway.test:443\r\n"), "{}", heads[0]);
    assert!(!heads[0].contains("grt_"), "the token is not the proxy's: {}", heads[0]);
    gateway.stop(vec![backend]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_may_speak_tls_itself_and_a_gateway_none() {
    let gateway = TestGateway::start().await;
    let certs = Certs::new();
    let acceptor = TlsAcceptor::from(Arc::new(tls(&certs.server(), &[], None)));
    let inner = tls_before(gateway.address, tls(&certs.server_at(&["gateway.test"]), H2, None)).await;
    let to = gateway.address;
    let proxied = |to| {
        let acceptor = acceptor.clone();
        doors::serve(move |stream| {
            let acceptor = acceptor.clone();
            async move { proxy::carry(acceptor.accept(stream).await.unwrap(), to, None, Arc::default()).await }
        })
    };
    let (for_tls, for_plain) = (proxied(inner).await, proxied(to).await);

    // TLS to the gateway within TLS to the proxy.
    let both = serve(
        backend("https://gateway.test").ca_file(certs.ca()).proxy(format!("https://localhost:{}", for_tls.port())),
    );
    answers(&gateway).await;
    both.stop().await;
    gateway.instances(0).await;

    let outer = serve(
        backend(&format!("http://{to}")).ca_file(certs.ca()).proxy(format!("https://localhost:{}", for_plain.port())),
    );
    answers(&gateway).await;
    gateway.stop(vec![outer]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_of_ours_with_tls_that_wants_certificates_gets_one_and_knows_whose_it_is() {
    let certs = Certs::new();
    let (server, client) = (certs.server(), certs.client("spiffe://site.test/a"));
    let gateway = TestGateway::of(
        Gateway::builder()
            .add_router::<MyServiceRouter>()
            .tls(GatewayTls::files(server.cert, server.key).client_ca(certs.ca()).require_client_certificate()),
    )
    .await;

    let backend = serve(
        backend(&format!("https://localhost:{}", gateway.address.port()))
            .ca_file(certs.ca())
            .client_certificate(client.cert, client.key),
    );

    gateway.instances(1).await;
    gateway.stop(vec![backend]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_change_are_read_with_the_next_dial_and_dialling_never_ends() {
    let gateway = TestGateway::start().await;
    let (right, wrong) = (Certs::new(), Certs::new());
    let door = tls_before(gateway.address, tls(&right.server(), H2, None)).await;
    let folder = tempfile::tempdir().unwrap();
    let (ca, token) = (folder.path().join("ca.pem"), folder.path().join("token"));
    fs::copy(wrong.ca(), &ca).unwrap();
    let made = backend(&format!("https://localhost:{}", door.port())).ca_file(&ca).token_file(&token);
    let recorded = metrics_util::debugging::DebuggingRecorder::new();
    let snapshots = recorded.snapshotter();
    let failed = move |result: &str| {
        snapshots.snapshot().into_vec().iter().any(|(key, _, _, value)| {
            key.key().labels().any(|label| label.key() == "result" && label.value() == result)
                && matches!(value, metrics_util::debugging::DebugValue::Counter(1..))
        })
    };

    let backend = metrics::with_local_recorder(&recorded, || serve(made));

    // There is no token yet.
    eventually("a dial without a token", || failed("misconfigured")).await;
    fs::write(&token, "grt_1_secret\n").unwrap();
    eventually("a dial without trust", || failed("untrusted")).await;
    assert_eq!(gateway.gateway.stats().instances, 0);
    fs::copy(right.ca(), &ca).unwrap();
    answers(&gateway).await;
    gateway.stop(vec![backend]).await;
}
