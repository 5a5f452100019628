//! Who speaks something else than the port does gets an answer at once, in a language that it understands.

use std::net::SocketAddr;

use grpcrouter_tests::{
    certs::Certs,
    raw::RawClient,
    tls::{connect, raw},
    world::{PATIENCE, TestGateway, eventually},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::Code;

use super::{METHOD1, gateway, text};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl\r\n\r\n";

/// All that comes back for `said`, up to the end of the stream.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, said: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(said).await?;
        stream.read_to_end(&mut answer).await
    };
    timeout(PATIENCE, exchange).await.unwrap().unwrap();
    answer
}

async fn tcp(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// The body of a whole HTTP/1 answer.
fn body(answer: Vec<u8>) -> String {
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n") && head.contains("connection: close"), "{head}");
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
    body.to_owned()
}

#[tokio::test]
async fn curl_and_browsers_are_told_what_a_port_without_tls_speaks() {
    let gateway = TestGateway::start().await;

    let told = body(answer(tcp(gateway.address).await, GET).await);

    assert!(told.contains("speaks HTTP/2 without TLS") && told.contains("grpcurl -plaintext"), "{told}");
    let head = answer(tcp(gateway.address).await, b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(head.starts_with(b"HTTP/1.1 400 ") && head.ends_with(b"\r\n\r\n"));
    // Also who sends more than anybody reads.
    let upload = [b"POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n".to_vec(), vec![b'x'; 60_000]].concat();
    assert_eq!(body(answer(tcp(gateway.address).await, &upload).await), told);
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn curl_and_browsers_without_tls_are_told_to_use_it_at_a_port_with_tls() {
    let certs = Certs::new();
    let gateway = gateway(&certs, |it| it).await;

    let told = body(answer(tcp(gateway.address).await, GET).await);

    assert!(told.contains("this port speaks TLS: use https://"), "{told}");
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_grpc_client_without_tls_reads_in_its_status_that_the_port_speaks_tls() {
    let certs = Certs::new();
    let gateway = gateway(&certs, |it| it).await;
    let mut client = gateway.client().await;

    let status = client.method1(text("x")).await.unwrap_err();

    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("speaks TLS: use https://, or a channel with TLS credentials"), "{status:?}");
    let end = gateway.raw().await.unary(METHOD1, &[], &text("x")).await.unwrap();
    assert_eq!(end.reason(), ("WRONG_PORT".to_owned(), "NOT_SENT".to_owned()));
    let end = gateway.raw().await.unary(METHOD1, &[("content-type", "text/html")], &text("x")).await.unwrap();
    assert_eq!(end.http_status, 400);
    assert!(String::from_utf8_lossy(&end.body).contains("this port speaks TLS"));
    drop(client);
    eventually("no connection is kept for it", || gateway.gateway.stats().connections == 0).await;
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_client_with_tls_finds_at_once_that_a_port_without_speaks_none() {
    let certs = Certs::new();
    let gateway = TestGateway::start().await;

    let refused = timeout(PATIENCE, connect(gateway.address, &certs.trusting(None))).await.unwrap().unwrap_err();

    // What rustls says of an answer that is no TLS.
    assert!(refused.to_string().contains("InvalidContentType"), "{refused}");
    // And whoever looks at the bytes can read them.
    let said = [&[22, 3, 1, 0, 5][..], &[1, 0, 0, 1, 0]].concat();
    let told = body(answer(tcp(gateway.address).await, &said).await);
    assert!(told.contains("speaks HTTP/2 without TLS"), "{told}");
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn a_client_with_tls_that_offers_no_http2_is_told_so_in_words() {
    let certs = Certs::new();
    let gateway = gateway(&certs, |it| it).await;
    for offered in [Vec::new(), vec![b"http/1.1".to_vec()]] {
        let mut config = certs.trusting(None);
        config.alpn_protocols = offered;

        let told = body(answer(connect(gateway.address, &config).await.unwrap(), GET).await);

        assert!(told.contains("which clients ask for with ALPN h2"), "{told}");
    }
    // HTTP/2 all the same.
    let mut config = certs.trusting(None);
    config.alpn_protocols.clear();
    let (client, task) = raw(gateway.address, &config).await.unwrap();
    let end = client.unary(METHOD1, &[], &text("x")).await.unwrap();
    assert_eq!(end.reason().0, "WRONG_PORT");
    assert!(end.message().contains("ALPN"), "{}", end.message());
    drop(client);
    task.abort();
    // And who offers something else ends with an alert.
    config.alpn_protocols = vec![b"spdy/3".to_vec()];
    let refused = connect(gateway.address, &config).await.unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    gateway.stop(Vec::new()).await;
}

#[tokio::test]
async fn what_is_no_language_known_here_ends_without_a_word() {
    let certs = Certs::new();
    let (plain, tls) = (TestGateway::start().await, gateway(&certs, |it| it).await);

    for address in [plain.address, tls.address] {
        assert_eq!(answer(tcp(address).await, b"\0\0\0\0hello").await, b"");
    }

    let (client, task) = RawClient::connect(plain.address).await.unwrap();
    assert_eq!(client.unary(METHOD1, &[], &text("x")).await.unwrap().code(), Code::Unavailable as i32);
    drop(client);
    task.abort();
    tls.stop(Vec::new()).await;
    plain.stop(Vec::new()).await;
}
