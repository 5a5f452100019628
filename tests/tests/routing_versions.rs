//! Calls that are split between versions of a backend's software, over real sockets: shares, promotion, the way back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeMap, time::Duration};

use grpcrouter_runtime::{LoadBalancing, SplitError};
use grpcrouter_tests::{
    raw::{RawClient, frame},
    world::{TestBackend, TestGateway},
};
use myservice::proto::{Method1Request, my_service_client::MyServiceClient};
use tonic::{Code, Request, transport::Channel};

const SERVICE: &str = "myservice.MyService";

/// A gateway with instances of these ids and versions, and a client.
struct Fleet {
    gateway: TestGateway,
    backends: Vec<TestBackend>,
    client: MyServiceClient<Channel>,
}

impl Fleet {
    async fn new(instances: &[(&str, &str)]) -> Self {
        let gateway = TestGateway::start().await;
        let mut backends = Vec::new();
        for (id, version) in instances {
            let settings = |builder: grpcrouter_runtime::BackendBuilder| {
                builder.software_version(*version).routing_key("both").routing_key(format!("only-{version}"))
            };
            backends.push(TestBackend::start_with(&gateway, id, settings).await);
        }
        let client = gateway.client().await;
        Self { gateway, backends, client }
    }

    fn split(&self, shares: &[(&str, u32)]) {
        self.gateway.gateway.split(SERVICE, shares.iter().copied()).unwrap();
    }

    async fn ask(&mut self, key: Option<&str>) -> Result<String, Code> {
        let mut request = Request::new(Method1Request { text: "t".into() });
        request.set_timeout(Duration::from_secs(20));
        if let Some(key) = key {
            request.metadata_mut().insert("instanceid", key.parse().unwrap());
        }
        let answer = self.client.method1(request).await;
        answer.map(|answer| answer.into_inner().instance_id).map_err(|status| status.code())
    }

    /// Who answers so many calls without a key.
    async fn shares(&mut self, calls: usize) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..calls {
            *shares.entry(self.ask(None).await.unwrap()).or_default() += 1;
        }
        shares
    }

    async fn stop(self) {
        drop(self.client);
        self.gateway.stop(self.backends).await;
    }
}

/// Each has so many calls, give or take `slack`.
#[track_caller]
fn near(got: &BTreeMap<String, usize>, meant: &[(&str, usize)], slack: usize) {
    let fits = |(id, calls): &(&str, usize)| got.get(*id).is_some_and(|got| got.abs_diff(*calls) <= slack);
    assert!(got.len() == meant.len() && meant.iter().all(fits), "{got:?} instead of {meant:?}");
}

#[tokio::test]
async fn a_canary_gets_its_share_is_promoted_and_rolled_back_while_calls_come() {
    let mut fleet = Fleet::new(&[("a", "v1"), ("b", "v1"), ("new", "v2")]).await;
    near(&fleet.shares(30).await, &[("a", 10), ("b", 10), ("new", 10)], 0);

    fleet.split(&[("v1", 90), ("v2", 10)]);
    near(&fleet.shares(1_000).await, &[("a", 450), ("b", 450), ("new", 100)], 10);
    fleet.split(&[("v2", 1)]);
    near(&fleet.shares(20).await, &[("new", 20)], 0);
    fleet.split(&[("v1", 100), ("v2", 0)]);
    near(&fleet.shares(20).await, &[("a", 10), ("b", 10)], 0);

    fleet.split(&[]);
    near(&fleet.shares(30).await, &[("a", 10), ("b", 10), ("new", 10)], 1);
    fleet.stop().await;
}

#[tokio::test]
async fn the_share_of_a_version_that_nobody_has_goes_to_the_others_and_without_any_nobody_serves() {
    let mut fleet = Fleet::new(&[("a", "v1"), ("new", "v2")]).await;
    fleet.split(&[("v1", 50), ("v3", 50)]);
    near(&fleet.shares(20).await, &[("a", 20)], 0);

    fleet.split(&[("v3", 1)]);
    let refused = fleet.client.method1(Method1Request { text: "t".into() }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("its calls are split between versions"), "{refused:?}");
    // The gateway's health says the same of the service: 2 is NOT_SERVING.
    let (raw, connection) = RawClient::connect(fleet.gateway.address).await.unwrap();
    let question = tonic_health::pb::HealthCheckRequest { service: SERVICE.into() };
    let mut call = raw.call("/grpc.health.v1.Health/Check", &[]).await.unwrap();
    call.request.send_data(frame(&question), true).unwrap();
    assert_eq!(call.end().await.unwrap().body.as_ref(), [0, 0, 0, 0, 2, 8, 2]);
    drop(raw);
    connection.abort();

    // One that comes takes them.
    let settings = |builder: grpcrouter_runtime::BackendBuilder| builder.software_version("v3");
    fleet.backends.push(TestBackend::start_with(&fleet.gateway, "newest", settings).await);
    near(&fleet.shares(5).await, &[("newest", 5)], 0);
    fleet.stop().await;
}

#[tokio::test]
async fn a_routing_key_goes_to_those_that_claim_it_and_stays_with_one_version() {
    let mut fleet = Fleet::new(&[("a", "v1"), ("new", "v2")]).await;
    fleet.split(&[("v1", 1)]);
    assert_eq!(fleet.ask(Some("new")).await, Ok("new".to_owned()));
    assert_eq!(fleet.ask(Some("only-v2")).await, Ok("new".to_owned()));
    assert_eq!(fleet.ask(Some("both")).await, Ok("a".to_owned()));
    assert_eq!(fleet.ask(Some("nobodys")).await, Err(Code::Unavailable));

    fleet.split(&[("v1", 50), ("v2", 50)]);
    let first = fleet.ask(Some("both")).await;
    for _ in 0..20 {
        assert_eq!(fleet.ask(Some("both")).await, first);
    }

    // Hashed keys fall to both, each always to the same; and only to versions that are named.
    fleet.gateway.gateway.balance(SERVICE, LoadBalancing::ConsistentHash).unwrap();
    let mut owners = BTreeMap::<_, usize>::new();
    for number in 0..200 {
        let key = format!("tenant-{number}");
        let owner = fleet.ask(Some(&key)).await.unwrap();
        assert_eq!(fleet.ask(Some(&key)).await.unwrap(), owner);
        *owners.entry(owner).or_default() += 1;
    }
    near(&owners, &[("a", 100), ("new", 100)], 40);
    fleet.split(&[("v1", 1)]);
    assert_eq!(fleet.ask(Some("tenant-1")).await, Ok("a".to_owned()));
    assert_eq!(fleet.ask(Some("new")).await, Ok("a".to_owned()));
    fleet.stop().await;
}

#[tokio::test]
async fn a_client_may_ask_for_a_version_also_for_one_without_a_share() {
    let mut fleet = Fleet::new(&[("a", "v1"), ("new", "v2"), ("old", "v0")]).await;
    let of = async |fleet: &mut Fleet, version: &str| {
        let mut request = Request::new(Method1Request { text: "t".into() });
        request.metadata_mut().insert("x-grpcrouter-version", version.parse().unwrap());
        let answer = fleet.client.method1(request).await.map_err(|status| status.code())?;
        // The service tells which metadata it saw.
        assert!(!answer.metadata().get("x-keys").unwrap().to_str().unwrap().contains("x-grpcrouter"));
        Ok(answer.into_inner().instance_id)
    };
    // Where calls are not split it means nothing.
    let mut owners = Vec::new();
    for _ in 0..3 {
        owners.push(of(&mut fleet, "v2").await.unwrap());
    }
    owners.sort();
    assert_eq!(owners, ["a", "new", "old"]);

    fleet.split(&[("v1", 100), ("v2", 0)]);
    for _ in 0..5 {
        assert_eq!(of(&mut fleet, "v2").await, Ok("new".to_owned()));
        assert_eq!(of(&mut fleet, "v1").await, Ok("a".to_owned()));
    }
    for version in ["v0", "v9", ""] {
        assert_eq!(of(&mut fleet, version).await, Err(Code::Unavailable), "{version:?}");
    }
    near(&fleet.shares(10).await, &[("a", 10)], 0);
    fleet.stop().await;
}

#[tokio::test]
async fn shares_that_cannot_be_meant_are_refused() {
    let fleet = Fleet::new(&[]).await;
    let refused = |service: &str, shares: &[(&str, u32)]| -> SplitError {
        fleet.gateway.gateway.split(service, shares.iter().copied()).unwrap_err()
    };

    assert!(matches!(refused("shop.Orders", &[("v1", 1)]), SplitError::UnknownService(_)));
    assert_eq!(
        refused(SERVICE, &[("v1", 1), ("v2", 1), ("v1", 2)]).to_string(),
        "the calls of myservice.MyService cannot be split like this: the version v1 is named twice; name each once"
    );
    assert!(refused(SERVICE, &[("v1", 0), ("v2", 0)]).to_string().contains("every share is 0"));
    fleet.stop().await;
}
