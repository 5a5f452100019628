//! Lines: one for each call at each end, one for each dial, with ids and without what is in a call.

use grpcrouter_tests::{
    lines::Lines,
    probe::say,
    world::{TestBackend, TestGateway, eventually, no_task_left},
};
use myservice::proto::Method1Request;
use tonic::{Request, metadata::MetadataValue};
use tracing_subscriber::filter::LevelFilter;

const SECRET: &str = "tell-nobody";

fn secret(text: &str) -> Request<Method1Request> {
    let mut request = Request::new(Method1Request { text: text.to_owned() });
    let metadata = request.metadata_mut();
    metadata.insert("x-echo", SECRET.parse().unwrap());
    metadata.insert("authorization", SECRET.parse().unwrap());
    metadata.insert_bin("x-echo-bin", MetadataValue::from_bytes(SECRET.as_bytes()));
    request
}

#[tokio::test]
async fn each_call_has_one_line_at_each_end_with_its_id_and_its_end() {
    let lines = Lines::default();
    let _guard = lines.listen(LevelFilter::DEBUG);
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;

    client.method1(secret("x")).await.unwrap();
    client.method1(secret(say::FAIL)).await.unwrap_err();
    let mut nobody = secret("x");
    nobody.metadata_mut().insert("instanceid", "z".parse().unwrap());
    client.method1(nobody).await.unwrap_err();
    gateway.raw().await.unary("/no.Such/Method", &[], &Method1Request::default()).await.unwrap();
    gateway.idle().await;

    eventually("a line for each call at each end", || lines.with(&["call ended"]).len() >= 5).await;
    assert_eq!(lines.with(&["call ended"]).len(), 5);
    let both = |parts: &[&str]| {
        ["gateway::way", "backend::meters"].map(|end| lines.with(&[parts, &[end, "call ended"]].concat()).len())
    };
    let method = r#"method="/myservice.MyService/Method1""#;
    assert_eq!(both(&["call=1/0", "instance=a", method, r#"code="OK""#, "took_us="]), [1, 1], "{:#?}", lines.all());
    assert_eq!(both(&["call=2/0", "instance=a", method, r#"code="FailedPrecondition""#, "took_us="]), [1, 1]);
    let nobody = [method, r#"code="Unavailable""#, r#"reason="NO_INSTANCE_FOR_KEY""#, r#"outcome="NOT_SENT""#];
    assert_eq!(both(&nobody), [1, 0]);
    // Its name is whatever somebody sent.
    let unknown = lines.with(&["call refused", r#"code="Unimplemented""#, r#"reason="UNKNOWN_SERVICE""#]);
    assert_eq!(unknown.len(), 1);
    assert!(lines.with(&["no.Such"]).is_empty());
    drop(client);
    gateway.stop(vec![backend]).await;
}

#[tokio::test]
async fn no_metadata_value_and_no_message_is_ever_logged_whatever_the_level() {
    let lines = Lines::default();
    let _guard = lines.listen(LevelFilter::TRACE);
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;

    let answer = client.method1(secret(SECRET)).await.unwrap();
    assert_eq!(answer.metadata().get("x-echo").unwrap(), SECRET);
    // The status text, the details and the metadata of a failure, and a key that nobody has.
    client.method1(secret(say::FAIL)).await.unwrap_err();
    let mut nobody = secret(SECRET);
    nobody.metadata_mut().insert("instanceid", SECRET.parse().unwrap());
    client.method1(nobody).await.unwrap_err();
    drop(client);
    gateway.stop(vec![backend]).await;

    let ours: Vec<_> = lines.all().into_iter().filter(|line| line.contains(" grpcrouter_")).collect();
    for what in ["batch sent", "batch received", "part of a response", "delivered"] {
        assert!(ours.iter().any(|line| line.contains(what)), "no {what:?} at TRACE");
    }
    for told in [SECRET, "dGVsbC1ub2JvZHk", "no: ü", "because"] {
        let leaks: Vec<_> = ours.iter().filter(|line| line.contains(told)).collect();
        assert!(leaks.is_empty(), "{told} is in {leaks:#?}");
    }
}

#[tokio::test]
async fn at_info_a_call_says_nothing_and_an_instance_that_comes_and_goes_says_it_once() {
    let lines = Lines::default();
    let _guard = lines.listen(LevelFilter::INFO);
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;
    client.method1(secret("x")).await.unwrap();
    drop(client);
    gateway.stop(vec![backend]).await;

    assert!(lines.with(&["call"]).iter().all(|line| line.contains("stopping") || line.contains("instance left")));
    for once in ["registered", "instance joined", "instance drains", "instance left"] {
        assert_eq!(lines.with(&[once]).len(), 1, "{once}");
    }
    // What is not known has no field, and no name of our own code is in what people read.
    for never in [r#"version="""#, "NoError", "Shutdown", "CloseCode"] {
        assert!(lines.with(&[never]).is_empty(), "{never}: {:#?}", lines.with(&[never]));
    }
}

#[tokio::test]
async fn each_dial_in_vain_has_one_line() {
    let lines = Lines::default();
    let _guard = lines.listen(LevelFilter::INFO);
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();

    let backend = TestBackend::dial(&format!("http://{gone}"), "a");

    eventually("two dials", || !lines.with(&["tries=2"]).is_empty()).await;
    let told = lines.with(&[&gone.to_string()]);
    for (line, number) in told.iter().zip(1..) {
        assert!(line.contains(&format!("tries={number} wait_ms=")), "{told:#?}");
    }
    backend.kill().await;
    no_task_left().await;
}
