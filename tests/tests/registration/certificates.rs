//! Certificates: one URI says who it is, and nothing else of them does.

use std::time::Duration;

use grpcrouter_protocol::RejectReason::{PermissionDenied, Unauthenticated};
use grpcrouter_runtime::{GatewayTls, RegistrationPolicy};
use grpcrouter_tests::{
    by_hand::ByHand,
    certs::{Certs, Pair},
    world::TestGateway,
};

use crate::{end, hello, rule, said};

async fn start(certs: &Certs) -> TestGateway {
    let server = certs.server();
    let rules = [
        rule("site-a").instances(["a*"]).certificate("spiffe://hospital.example/site-a"),
        rule("wards").certificate("spiffe://hospital.example/ward/*"),
    ];
    TestGateway::start_with(|builder| {
        builder
            .tls(GatewayTls::files(server.cert, server.key).client_ca(certs.ca()))
            .registration(RegistrationPolicy::rules(rules))
            .drain_timeout(Duration::ZERO)
    })
    .await
}

async fn knock(
    gateway: &TestGateway,
    certs: &Certs,
    pair: Option<&Pair>,
    id: &str,
) -> anyhow::Result<Result<ByHand, grpcrouter_protocol::Rejected>> {
    ByHand::knock(gateway.address, Some(&certs.trusting(pair)), &[], &hello(id)).await
}

#[tokio::test]
async fn a_certificate_is_the_principal_of_its_uri_and_of_a_pattern_each_uri_is_one() {
    let certs = Certs::new();
    let gateway = start(&certs).await;
    let exact = certs.client_with("exact", &["spiffe://hospital.example/site-a"]);
    let ward =
        |nth: u32| certs.client_with(&format!("ward-{nth}"), &[&format!("spiffe://hospital.example/ward/{nth}")]);
    let (one, two) = (ward(1), ward(2));

    let _exact = knock(&gateway, &certs, Some(&exact), "a").await.unwrap().unwrap();
    let _one = knock(&gateway, &certs, Some(&one), "w").await.unwrap().unwrap();

    let principals: Vec<_> = gateway.gateway.instances().into_iter().filter_map(|one| one.principal).collect();
    assert_eq!(principals, ["site-a", "spiffe://hospital.example/ward/1"]);
    let (reason, message) = said(knock(&gateway, &certs, Some(&two), "w").await.unwrap());
    assert_eq!(reason, PermissionDenied);
    assert!(message.starts_with("the instance id w belongs to another principal: "), "{message}");
    let (reason, message) = said(knock(&gateway, &certs, Some(&exact), "w").await.unwrap());
    assert_eq!((reason, message.as_str()), (PermissionDenied, "site-a may not have the instance id w; it may have a*"));
    end(gateway).await;
}

#[tokio::test]
async fn a_certificate_that_does_not_say_who_it_is_is_refused_in_its_own_words() {
    let certs = Certs::new();
    let gateway = start(&certs).await;
    let site_a = "spiffe://hospital.example/site-a";

    for (pair, said_reason, text) in [
        // Its common name is that of a principal.
        (
            Some(certs.client_with("site-a", &[])),
            Unauthenticated,
            "the client certificate cannot be used to register: it names no URI: ",
        ),
        (
            Some(certs.client_with("two", &[site_a, "spiffe://hospital.example/ward/1"])),
            Unauthenticated,
            "the client certificate cannot be used to register: it names more than one URI",
        ),
        (
            Some(certs.client_with("other", &["spiffe://hospital.example/site-ab"])),
            PermissionDenied,
            "no rule of the gateway lets spiffe://hospital.example/site-ab register: ",
        ),
        (
            Some(certs.client_with("evil", &["spiffe://evil.example/site-a"])),
            PermissionDenied,
            "no rule of the gateway lets spiffe://evil.example/site-a register: ",
        ),
        (None, Unauthenticated, "this gateway lets in only instances that it knows, "),
    ] {
        let (reason, message) = said(knock(&gateway, &certs, pair.as_ref(), "a").await.unwrap());
        assert_eq!(reason, said_reason, "{message}");
        assert!(message.starts_with(text), "{message}");
    }
    // These do not get through the handshake.
    let others = Certs::new();
    for pair in [certs.expired_client(site_a), certs.not_a_client(site_a), others.client(site_a)] {
        assert!(knock(&gateway, &certs, Some(&pair), "a").await.is_err());
    }
    assert_eq!(gateway.gateway.stats().tunnels, 0);
    end(gateway).await;
}
