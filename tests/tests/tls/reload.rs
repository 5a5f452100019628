//! Certificates that change while the gateway runs: new connections get the new ones, and no stream ends for it.

use std::{fs, time::Duration};

use grpcrouter_runtime::GatewayTls;
use grpcrouter_tests::{
    certs::Certs,
    lines::Lines,
    tls::{client, connect, raw},
    world::{PATIENCE, TestBackend, TestGateway, eventually},
};
use myservice::proto::StreamRequest;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tracing_subscriber::filter::LevelFilter;

use super::{METHOD1, backend, gateway, text, tls};

/// The certificate that the gateway shows to a new connection.
async fn shown(gateway: &TestGateway, certs: &Certs) -> CertificateDer<'static> {
    let stream = connect(gateway.address, &certs.trusting(None)).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

fn of_file(path: &std::path::Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

#[tokio::test]
async fn two_hundred_streams_run_on_while_the_certificate_changes_and_new_connections_get_the_new_one() {
    const STREAMS: usize = 200;
    let certs = Certs::new();
    let gateway = gateway(&certs, |it| it).await;
    let backend = backend(&gateway, &certs, "a").await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(client(gateway.address, certs.trusting(None)).await.unwrap());
    }
    let mut streams = Vec::new();
    for number in 0..STREAMS {
        let (sender, receiver) = mpsc::channel(1);
        let mut client = clients[number % clients.len()].clone();
        sender.send(StreamRequest { text: "before".to_owned() }).await.unwrap();
        let answers = client.stream_method(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        streams.push((sender, answers));
    }
    for (_, answers) in &mut streams {
        assert_eq!(answers.next().await.unwrap().unwrap().text, "before");
    }
    let before = shown(&gateway, &certs).await;

    for round in 0..3 {
        let renewed = certs.server();
        gateway.gateway.reload_tls().unwrap();
        let now = shown(&gateway, &certs).await;
        assert!(now == of_file(&renewed.cert) && now != before);
        for (sender, answers) in &mut streams {
            sender.send(StreamRequest { text: format!("after {round}") }).await.unwrap();
            let answer = timeout(PATIENCE, answers.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(answer.text, format!("after {round}"));
        }
    }

    for (sender, mut answers) in streams {
        drop(sender);
        assert!(answers.next().await.is_none());
    }
    drop(clients);
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn files_that_change_are_found_without_being_told_and_a_pair_that_does_not_match_is_not_taken() {
    let (certs, lines) = (Certs::new(), Lines::default());
    let _listening = lines.listen(LevelFilter::INFO);
    let often = tls(&certs).reload_every(Duration::from_millis(20));
    let gateway = TestGateway::start_with(|builder| builder.tls(often)).await;
    let (first, refused) = (shown(&gateway, &certs).await, "changed TLS files cannot be used");

    // A new certificate, and the key stays the old one.
    let (in_use, renewed) = (certs.path("server"), certs.server_in("renewed"));
    fs::rename(&renewed.cert, in_use.with_extension("pem")).unwrap();
    eventually("a line about it", || !lines.with(&[refused]).is_empty()).await;
    assert!(shown(&gateway, &certs).await == first);
    let said = lines.with(&[refused]);
    assert!(
        said[0].contains("WARN") && said[0].contains("server.key does not belong to the certificate in"),
        "{said:?}"
    );

    // And the key as well.
    fs::rename(&renewed.key, in_use.with_extension("key")).unwrap();
    eventually("the new one is taken", || !lines.with(&["TLS certificates read again", "not_after="]).is_empty()).await;
    assert!(shown(&gateway, &certs).await == of_file(&in_use.with_extension("pem")));
    assert_eq!(lines.with(&[refused]).len(), 1, "however often it was looked at");
    assert_eq!(lines.with(&["TLS certificates read again"]).len(), 1);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn files_that_go_away_or_break_leave_all_as_it_was() {
    let certs = Certs::new();
    let gateway = gateway(&certs, |it| it).await;
    let first = shown(&gateway, &certs).await;
    let good =
        ["server.pem", "server.key", "ca.pem"].map(|name| (certs.path(name), fs::read(certs.path(name)).unwrap()));

    for (path, text) in &good {
        fs::write(path, b"-----BEGIN").unwrap();
        gateway.gateway.reload_tls().unwrap_err();
        fs::remove_file(path).unwrap();
        let error = gateway.gateway.reload_tls().unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.contains(&path.display().to_string()), "{error}");
        fs::write(path, text).unwrap();
        assert!(shown(&gateway, &certs).await == first);
    }

    gateway.gateway.reload_tls().unwrap();
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn clients_of_a_new_authority_are_let_in_and_those_of_the_old_not_any_more_but_for_their_streams() {
    let (certs, other) = (Certs::new(), Certs::new());
    let (old, new) = (certs.client("spiffe://a/old"), other.client("spiffe://a/new"));
    let (server, bundle) = (certs.server(), certs.path("clients.pem"));
    fs::copy(certs.ca(), &bundle).unwrap();
    let both = GatewayTls::files(server.cert, server.key).client_ca(&bundle).require_client_certificate();
    let gateway = TestGateway::start_with(|builder| builder.tls(both)).await;
    let uri = format!("https://localhost:{}", gateway.address.port());
    let backend = TestBackend::start_with(&gateway, "a", |builder| {
        builder.gateway(uri).ca_file(certs.ca()).client_certificate(&old.cert, &old.key)
    })
    .await;
    let mut running = client(gateway.address, certs.trusting(Some(&old))).await.unwrap();
    let (sender, receiver) = mpsc::channel(1);
    sender.send(StreamRequest { text: "before".to_owned() }).await.unwrap();
    let mut answers = running.stream_method(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().text, "before");

    fs::copy(other.ca(), &bundle).unwrap();
    gateway.gateway.reload_tls().unwrap();

    // The gateway's own certificate is still of the first authority; the newcomer's is of the second.
    let (newcomer, newcomers) = raw(gateway.address, &certs.trusting(Some(&new))).await.unwrap();
    assert_eq!(newcomer.unary(METHOD1, &[], &text("x")).await.unwrap().code(), 0);
    let late =
        async { raw(gateway.address, &certs.trusting(Some(&old))).await?.0.unary(METHOD1, &[], &text("x")).await };
    timeout(PATIENCE, late).await.unwrap().unwrap_err();
    sender.send(StreamRequest { text: "after".to_owned() }).await.unwrap();
    assert_eq!(timeout(PATIENCE, answers.next()).await.unwrap().unwrap().unwrap().text, "after");
    drop((sender, answers, running, newcomer));
    newcomers.abort();
    gateway.stop(vec![backend]).await;
}
