//! Two versions of one file: told to whoever asks the gateway, and the healthy majority's is served.

use grpcrouter_tests::{
    lines::Lines,
    world::{TestBackend, TestGateway, eventually},
};
use tracing_subscriber::filter::LevelFilter;

use crate::{Asker, by_symbol, service_file, unknowing};

#[tokio::test]
async fn of_two_versions_the_healthy_majoritys_is_served_and_both_are_reported() {
    let (old, new) = (service_file("mine.proto", ""), service_file("mine.proto", "string shiny = 2;"));
    let gateway = TestGateway::of(unknowing()).await;
    let asker = Asker::of(&gateway).await;
    let start = async |id: &str, set: &bytes::Bytes| {
        TestBackend::start_with(&gateway, id, |builder| builder.descriptors(set.clone())).await
    };
    let is_new = |file: Option<&[u8]>| file.is_some_and(|file| file.windows(5).any(|bytes| bytes == b"shiny"));

    let a = start("a", &old).await;
    let b = start("b", &old).await;
    asker.comes("myservice.MyService", "the old one", |file| file.is_some() && !is_new(file)).await;
    assert!(gateway.gateway.descriptor_conflicts().is_empty());

    let log = Lines::default();
    let _listening = log.listen(LevelFilter::INFO);
    let c = start("c", &new).await;
    eventually("a conflict", || !gateway.gateway.descriptor_conflicts().is_empty()).await;
    let conflicts = gateway.gateway.descriptor_conflicts();
    assert_eq!((conflicts.len(), conflicts[0].file.as_str()), (1, "mine.proto"));
    let told: Vec<_> = conflicts[0]
        .versions
        .iter()
        .map(|version| (version.instances.join(","), version.healthy, version.is_own))
        .collect();
    assert_eq!(told, [("a,b".to_owned(), 2, false), ("c".to_owned(), 1, false)]);
    assert!(conflicts[0].versions.iter().all(|version| version.hash.len() == 16));
    assert!(!is_new(asker.files(by_symbol("myservice.MyService")).await.first().map(Vec::as_slice)));

    // The line names both, the one that is served first, and who offers which.
    let [old, new] = [0, 1].map(|index| &conflicts[0].versions[index].hash);
    let line = format!("versions=\"{old} (served, 2 healthy: a, b); {new} (not served, 1 healthy: c)\"");
    log.has(&line).await;

    // The old ones go, one by one: first it is one against one, then only the new one is left.
    a.stop().await;
    b.stop().await;
    asker.comes("myservice.MyService", "the new one", is_new).await;
    eventually("no conflict", || gateway.gateway.descriptor_conflicts().is_empty()).await;
    drop(asker);
    gateway.stop(vec![c]).await;
}

#[tokio::test]
async fn an_instances_version_comes_before_the_gateways_own_which_comes_back_when_it_goes() {
    let gateway = TestGateway::start().await;
    let asker = Asker::of(&gateway).await;
    let own = asker.files(by_symbol("myservice.MyService")).await.remove(0);
    let newer = service_file("service.proto", "string shiny = 2;");
    // By the name of the file that the gateway's code was generated from.
    let newer = renamed(&newer, "examples/myservice/service.proto");
    let is_own = |file: Option<&[u8]>| file == Some(own.as_slice());

    let backend = TestBackend::start_with(&gateway, "a", |builder| builder.descriptors(newer)).await;

    asker.comes("myservice.MyService", "the instance's", |file| !is_own(file)).await;
    let conflicts = gateway.gateway.descriptor_conflicts();
    let told: Vec<_> = conflicts[0].versions.iter().map(|version| (version.healthy, version.is_own)).collect();
    assert_eq!(told, [(1, false), (0, true)]);
    backend.stop().await;
    asker.comes("myservice.MyService", "the gateway's own", is_own).await;
    drop(asker);
    gateway.stop(Vec::new()).await;
}

/// The set of one file with another name for it.
fn renamed(set: &[u8], name: &str) -> Vec<u8> {
    use prost::Message as _;
    use protox::prost_reflect::prost_types::FileDescriptorSet;
    let mut set = FileDescriptorSet::decode(set).unwrap();
    set.file[0].name = Some(name.to_owned());
    set.encode_to_vec()
}
