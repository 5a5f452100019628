//! Listeners: none is open to others without TLS and a policy by mistake, and instances may have one of their own.

use grpcrouter_runtime::Gateway;
use grpcrouter_tests::{
    by_hand::ByHand,
    world::{PATIENCE, TestBackend, TestGateway},
};
use myservice::proto::{Method1Request, my_service_router::MyServiceRouter};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{end, hello};

#[tokio::test]
async fn a_listener_that_others_reach_is_not_served_without_tls_and_a_policy_unless_that_is_wanted() {
    let everywhere = async || TcpListener::bind("0.0.0.0:0").await.unwrap();
    let gateway = Gateway::builder().add_router::<MyServiceRouter>().build().unwrap();

    for error in [
        gateway.serve(everywhere().await, std::future::ready(())).await.unwrap_err(),
        gateway.serve_register(everywhere().await, std::future::ready(())).await.unwrap_err(),
    ] {
        let error = error.to_string();
        assert!(error.starts_with("the gateway is not served at 0.0.0.0:"), "{error}");
        for step in [".tls(", ".registration(", ".insecure()", "--insecure"] {
            assert!(error.contains(step), "{step} {error}");
        }
    }

    let insecure = Gateway::builder().add_router::<MyServiceRouter>().insecure().build().unwrap();
    let served = timeout(PATIENCE, insecure.serve(everywhere().await, std::future::ready(()))).await.unwrap();
    assert!(served.is_ok(), "{served:?}");
}

#[tokio::test]
async fn a_gateway_listens_at_the_address_that_it_was_built_with() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = |address: String| Gateway::builder().add_router::<MyServiceRouter>().listen(address).build().unwrap();

    let served =
        timeout(PATIENCE, at("127.0.0.1:0".to_owned()).listen_and_serve(std::future::ready(()))).await.unwrap();
    assert!(served.is_ok(), "{served:?}");
    let address = taken.local_addr().unwrap().to_string();
    let error = at(address.clone()).listen_and_serve(std::future::ready(())).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen at {address}: ")), "{error}");
}

#[tokio::test]
async fn instances_with_a_listener_of_their_own_register_there_alone_and_clients_call_at_the_other() {
    let gateway = TestGateway::start_with(|builder| builder.register_elsewhere()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let for_instances = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn({
        let (gateway, stop) = (gateway.gateway.clone(), stop.clone());
        async move { gateway.serve_register(listener, stop.cancelled()).await }
    });

    let backend = TestBackend::dial(&format!("http://{for_instances}"), "a");
    gateway.instances(1).await;

    let call = || Method1Request { text: "x".to_owned() };
    gateway.client().await.method1(call()).await.unwrap();
    let mut lost =
        myservice::proto::my_service_client::MyServiceClient::connect(format!("http://{for_instances}")).await.unwrap();
    let status = lost.method1(call()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().starts_with("this address is for instances that register: "), "{status:?}");
    let error = ByHand::hello(gateway.address, &hello("b")).await.unwrap_err().to_string();
    assert!(error.contains("instances do not register at this address, but at another one"), "{error}");
    assert_eq!(gateway.gateway.stats().tunnels, 1);
    drop(lost);
    backend.stop().await;
    stop.cancel();
    serving.await.unwrap().unwrap();
    end(gateway).await;
}
