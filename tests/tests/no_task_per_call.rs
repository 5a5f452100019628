//! A waiting call costs the gateway no task: the first half of the speed gate. The second half counts instructions:
//! `make speed-gate`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use grpcrouter_runtime::Gateway;
use grpcrouter_tests::{
    probe::say,
    world::{TestBackend, eventually},
};
use myservice::proto::{Method1Request, my_service_client::MyServiceClient, my_service_router::MyServiceRouter};

const CALLS: usize = 1_000;

#[test]
fn live_tasks_do_not_grow_with_a_thousand_waiting_unary_calls() {
    // The gateway has a runtime of its own, so that its tasks can be told from the client's and the backend's.
    let gateway_runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (address, gateway) = gateway_runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = Gateway::builder().add_router::<MyServiceRouter>().build().unwrap();
        tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.serve(listener, std::future::pending::<()>()).await }
        });
        (address, gateway)
    });
    let tasks = || gateway_runtime.metrics().num_alive_tasks();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let backend = TestBackend::dial(&format!("http://{address}"), "a");
        eventually("one instance", || gateway.stats().instances == 1).await;
        let uri = format!("http://{address}");
        let mut clients = Vec::new();
        for _ in 0..CALLS / 200 {
            clients.push(MyServiceClient::connect(uri.clone()).await.unwrap());
        }
        let call = |client: &MyServiceClient<_>| {
            let mut client = client.clone();
            async move { client.method1(Method1Request { text: say::STALL.to_owned() }).await }
        };
        let mut calls = tokio::task::JoinSet::new();
        for client in &clients {
            calls.spawn(call(client));
        }
        backend.probe.saw("method1 begins", clients.len()).await;
        let with_few = tasks();

        for client in &clients {
            for _ in 1..200 {
                calls.spawn(call(client));
            }
        }

        backend.probe.saw("method1 begins", CALLS).await;
        assert_eq!(gateway.stats().calls, CALLS);
        assert_eq!(tasks(), with_few, "tasks with {CALLS} waiting calls and with {}", clients.len());
        calls.abort_all();
        while calls.join_next().await.is_some() {}
        eventually("no open call", || gateway.stats().calls == 0).await;
        assert_eq!(gateway.stats().queued_bytes, 0);
        backend.kill().await;
    });
}
