//! Who gets a call, over real sockets and with several backends: the six balancings, instances that come, change, fail and
//! go, and what the gateway tells of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

#[path = "routing_registry/balancing.rs"]
mod balancing;
#[path = "routing_registry/failing.rs"]
mod failing;
#[path = "routing_registry/limits.rs"]
mod limits;
#[path = "routing_registry/live.rs"]
mod live;
#[path = "routing_registry/takeover.rs"]
mod takeover;

use std::{collections::BTreeMap, time::Duration};

use grpcrouter_runtime::{Gateway, GatewayBuilder, LoadBalancing, MethodRoutes, ServiceRoutes};
use grpcrouter_tests::world::{TestBackend, TestGateway};
use myservice::proto::{Method1Request, my_service_client::MyServiceClient};
use tonic::{Request, Status, transport::Channel};

/// The example's service, said by hand: so with any balancing.
fn balanced(balancing: LoadBalancing) -> GatewayBuilder {
    let routes = ServiceRoutes::new("myservice.MyService")
        .routing_key("instanceid")
        .load_balancing(balancing)
        .unary("Method1")
        .server_streaming("Method2")
        .method_routes("Method2", MethodRoutes::new().load_balancing(LoadBalancing::RoundRobin));
    // Who loses its connection here is gone.
    Gateway::builder().add_service(routes).resume_window(Duration::ZERO)
}

/// A gateway that balances like this, with backends of these ids and weights, and a client.
async fn fleet(balancing: LoadBalancing, ids: &[(&str, u32)]) -> Fleet {
    let gateway = TestGateway::of(balanced(balancing)).await;
    let mut backends = Vec::new();
    for (id, weight) in ids {
        backends.push(TestBackend::start_with(&gateway, id, |builder| builder.weight(*weight)).await);
    }
    let client = gateway.client().await;
    Fleet { gateway, backends, client }
}

struct Fleet {
    gateway: TestGateway,
    backends: Vec<TestBackend>,
    client: MyServiceClient<Channel>,
}

impl Fleet {
    /// Who answers one call with this key and text.
    async fn ask(&mut self, key: Option<&str>, text: &str) -> Result<String, Status> {
        let answer = self.client.method1(request(key, text)).await?;
        Ok(answer.into_inner().instance_id)
    }

    /// Who answers so many calls without a key.
    async fn shares(&mut self, calls: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..calls {
            *shares.entry(self.ask(None, "t").await.unwrap()).or_default() += 1;
        }
        shares
    }

    /// Who has each of so many keys.
    async fn owners(&mut self, keys: usize) -> Vec<String> {
        let mut owners = Vec::new();
        for number in 0..keys {
            owners.push(self.ask(Some(&format!("tenant-{number}")), "t").await.unwrap());
        }
        owners
    }

    async fn stop(self) {
        drop(self.client);
        self.gateway.stop(self.backends).await;
    }
}

fn request(key: Option<&str>, text: &str) -> Request<Method1Request> {
    let mut request = Request::new(Method1Request { text: text.to_owned() });
    request.set_timeout(Duration::from_secs(20));
    if let Some(key) = key {
        request.metadata_mut().insert("instanceid", key.parse().unwrap());
    }
    request
}

fn shares<const N: usize>(shares: [(&str, usize); N]) -> BTreeMap<String, usize> {
    shares.into_iter().map(|(id, calls)| (id.to_owned(), calls)).collect()
}
