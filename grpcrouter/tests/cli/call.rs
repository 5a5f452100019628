//! `grpcrouter call`.

use grpcrouter_runtime::{ApiKey, Callers};

use crate::world::{World, run, run_with};

const METHOD1: &str = "myservice.MyService/Method1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_method_is_called_with_json() {
    let world = World::with_instance("a").await;
    let gateway = world.uri();
    let call = ["call", "--gateway", &gateway];

    let one = run(&[&call[..], &[METHOD1, r#"{"text": "ü"}"#]].concat()).await.ok();
    assert_eq!(one, "{\"text\":\"ü\",\"instanceId\":\"a\"}\n");

    let many = run(&[&call[..], &["MyService/Method2", r#"{"text": "x", "count": 2}"#]].concat()).await.ok();
    assert_eq!(many, "{\"text\":\"x\",\"instanceId\":\"a\"}\n{\"text\":\"x\",\"index\":1,\"instanceId\":\"a\"}\n");

    let texts = r#"{"text": "a"} {"text": "b"}"#;
    let upload = run(&[&call[..], &["Method3", texts]].concat()).await.ok();
    assert_eq!(upload, "{\"count\":2,\"text\":\"a b\",\"instanceId\":\"a\"}\n");

    let both =
        run_with(&[&call[..], &["StreamMethod", "-"]].concat(), "{\"text\": \"1\"}\n{\"text\": \"2\"}\n").await.ok();
    assert_eq!(both, "{\"text\":\"1\",\"instanceId\":\"a\"}\n{\"text\":\"2\",\"index\":1,\"instanceId\":\"a\"}\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_may_come_from_a_file_or_be_left_out() {
    let world = World::with_instance("a").await;
    let gateway = world.uri();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("order.json");
    std::fs::write(&file, "{\"text\": \"from a file\"}\n").unwrap();

    let answer = run(&["call", "--gateway", &gateway, METHOD1, &format!("@{}", file.display())]).await.ok();
    assert_eq!(answer, "{\"text\":\"from a file\",\"instanceId\":\"a\"}\n");

    let answer = run(&["call", "--gateway", &gateway, METHOD1]).await.ok();
    assert_eq!(answer, "{\"instanceId\":\"a\"}\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_tells_its_status_with_details_and_has_its_own_exit_code() {
    let world = World::with_instance("a").await;

    let ran = run(&["call", "--gateway", &world.uri(), METHOD1, "{}", "-H", "instanceid: nobody"]).await;

    let said = ran.failed(3);
    let mut lines = said.lines();
    let first = lines.next().unwrap();
    assert!(
        first.starts_with("grpcrouter: UNAVAILABLE: no instance of myservice.MyService has the routing key "),
        "{said}"
    );
    let detail = lines.next().unwrap();
    assert!(detail.starts_with("  detail google.rpc.ErrorInfo {\"reason\":\"NO_INSTANCE_FOR_KEY\""), "{said}");
    assert!(detail.contains("\"outcome\":\"NOT_SENT\""), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_is_not_there_has_a_nearest_one() {
    let world = World::with_instance("a").await;
    let gateway = world.uri();

    let said = run(&["call", "--gateway", &gateway, "MyServise/Method1"]).await.failed(1);
    assert_eq!(said, "grpcrouter: the gateway has no service MyServise; did you mean myservice.MyService?\n");

    let said = run(&["call", "--gateway", &gateway, "myservice.MyService/Methd1"]).await.failed(1);
    assert_eq!(said, "grpcrouter: myservice.MyService has no method Methd1; did you mean Method1?\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_message_is_told_before_or_instead_of_a_call() {
    let world = World::with_instance("a").await;
    let gateway = world.uri();
    let call = async |data: &'static str| run(&["call", "--gateway", &gateway, METHOD1, data]).await.failed(1);

    let said = call(r#"{"txt": "x"}"#).await;
    assert!(
        said.starts_with("grpcrouter: message 1 is no myservice.Method1Request: unrecognized field name 'txt'"),
        "{said}"
    );
    let said = call("{").await;
    assert!(said.starts_with("grpcrouter: message 1 is no JSON: EOF while parsing"), "{said}");
    let said = call("{} {}").await;
    assert_eq!(said, "grpcrouter: the method takes one message (myservice.Method1Request) and 2 were given\n");

    // The first message of a stream is sent; the service must not take it for all of them.
    let ran = run_with(&["call", "--gateway", &gateway, "Method3", "-"], "{\"text\": \"a\"} no").await;
    assert!(ran.failed(1).starts_with("grpcrouter: message 2 is no JSON: "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn descriptors_may_come_from_a_file() {
    let world = World::with_instance("a").await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("set.bin");
    // Without the options, which protoc would have written as well: prost-reflect wants every import.
    let set =
        protox::compile(["examples/myservice/service.proto"], [concat!(env!("CARGO_MANIFEST_DIR"), "/..")]).unwrap();
    std::fs::write(&file, prost::Message::encode_to_vec(&set)).unwrap();
    let path = file.to_str().unwrap();

    let answer = run(&["call", "--gateway", &world.uri(), "--descriptor-set", path, "Method1", "{}"]).await.ok();

    assert_eq!(answer, "{\"instanceId\":\"a\"}\n");
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_no_failed_call() {
    let said = run(&["call", "--gateway", "http://127.0.0.1:1", METHOD1]).await.failed(1);
    assert!(said.starts_with("grpcrouter: the gateway at http://127.0.0.1:1 cannot be reached: "), "{said}");
    assert_eq!(said.lines().count(), 1);

    let said = run(&["call", "--gateway", "localhost:1", METHOD1]).await.failed(1);
    assert!(said.contains("write http://localhost:1, or https://localhost:1 with TLS"), "{said}");

    let said = run(&["call", "--gateway", "http://127.0.0.1:1", METHOD1, "-H", "no colon"]).await.failed(1);
    assert_eq!(said, "grpcrouter: -H \"no colon\" is no metadata; write 'key: value'\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_callers_need_a_key_reflection_has_it_too_and_a_probe_needs_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.toml");
    let key = ApiKey::generate();
    std::fs::write(&file, key.entry("cy", &[])).unwrap();
    let world = World::start_with(|builder| builder.callers(Callers::new().api_keys_file(&file))).await;
    let gateway = world.uri();
    let call = ["call", "--gateway", &gateway];

    assert_eq!(run(&[&call[..], &["grpc.health.v1.Health/Check"]].concat()).await.ok(), "{\"status\":\"SERVING\"}\n");
    assert!(run(&[&call[..], &[METHOD1]].concat()).await.failed(1).contains("reflection answered Unauthenticated"));
    // Nobody is there to answer; all else went well.
    let header = format!("x-api-key: {}", key.text());
    assert!(
        run(&[&call[..], &[METHOD1, "-H", &header]].concat()).await.failed(3).starts_with("grpcrouter: UNAVAILABLE: ")
    );
}
