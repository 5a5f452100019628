//! docs/OBSERVABILITY.md says what is so: its table is what is registered, its lines are lines that come.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use grpcrouter_tests::{
    lines::Lines,
    pages::{blocks, root},
    world::{TestBackend, TestGateway, eventually},
};
use metrics_exporter_prometheus::PrometheusBuilder;
use myservice::proto::Method1Request;
use tonic::Request;
use tracing_subscriber::filter::LevelFilter;

use crate::recorded::Recorded;

fn page() -> String {
    fs::read_to_string(root().join("docs/OBSERVABILITY.md")).unwrap()
}

/// The first table: name, labels, what it tells.
fn told() -> Vec<(String, BTreeSet<String>, String)> {
    let page = page();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `grpc"));
    let rows = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    // The next table has rows of labels.
    rows.filter(|cells| ["counter", "gauge"].contains(&cells[1]))
        .map(|cells| {
            let labels = cells[2].split(", ").filter(|label| !label.is_empty()).map(|label| label.replace('`', ""));
            (format!("grpc{}", cells[0].trim_end_matches('`')), labels.collect(), cells[3].to_owned())
        })
        .collect()
}

#[tokio::test]
async fn the_table_is_what_is_registered() {
    let mut recorded = Recorded::new();
    {
        let _guard = recorded.record();
        let gateway = TestGateway::start().await;
        let backend = TestBackend::start(&gateway, "a").await;
        gateway.stop(vec![backend]).await;
    }
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for series in recorded.series().keys() {
        let (name, rest) = series.split_once('{').unwrap();
        let names = rest.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        labels.entry(name.to_owned()).or_default().extend(names.map(|(name, _)| name.to_owned()));
    }
    let descriptions = recorded.descriptions();

    let registered: Vec<_> =
        labels.into_iter().map(|(name, labels)| (name.clone(), labels, descriptions[&name].clone())).collect();

    assert_eq!(told(), registered);
}

#[tokio::test]
async fn each_value_of_a_label_stands_on_the_page() {
    let page = page();
    let mut recorded = Recorded::new();
    {
        let _guard = recorded.record();
        let gateway = TestGateway::start().await;
        let backend = TestBackend::start(&gateway, "a").await;
        gateway.stop(vec![backend]).await;
    }

    for series in recorded.series().keys() {
        let labels = series.split_once('{').unwrap().1.trim_end_matches('}');
        let values = labels.split(',').filter_map(|label| label.split_once('='));
        for (label, value) in values.filter(|(_, value)| !value.contains("yservice") && !value.contains("Method")) {
            let value = format!("`{}`", value.replace('"', ""));
            let rows = page.lines().filter(|line| line.starts_with("| ") && line.contains(&format!("`{label}`")));
            assert!(rows.into_iter().any(|row| row.contains(&value)), "{label} = {value} is not on the page");
        }
    }
}

/// With what differs from run to run taken out.
fn same(line: &str) -> String {
    let words = line.split(' ').map(|word| match word.split_once('=') {
        Some((name @ ("took_us" | "peer" | "gateway"), _)) => name,
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_lines_are_lines_that_come() {
    let lines = Lines::default();
    let _guard = lines.listen(LevelFilter::DEBUG);
    let gateway = TestGateway::start().await;
    let backend = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;
    client.method1(Method1Request { text: "x".to_owned() }).await.unwrap();
    let mut nobody = Request::new(Method1Request::default());
    nobody.metadata_mut().insert("instanceid", "z".parse().unwrap());
    client.method1(nobody).await.unwrap_err();
    eventually("three ends", || lines.with(&["call ended"]).len() == 3).await;
    drop(client);
    gateway.stop(vec![backend]).await;

    let came: BTreeSet<_> = lines.all().iter().map(|line| same(line)).collect();
    let example = blocks(&page(), "text").pop().unwrap().text;
    assert_eq!(example.lines().count(), 5);
    for line in example.lines() {
        assert!(came.contains(&same(line)), "{line}\ndid not come; what came: {came:#?}");
    }
}

#[tokio::test]
async fn prometheus_shows_a_call_under_the_names_of_go_grpc_prometheus() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let gateway = {
        let _guard = metrics::set_default_local_recorder(&recorder);
        TestGateway::start().await
    };
    let backend = TestBackend::start(&gateway, "a").await;
    let mut client = gateway.client().await;
    client.method1(Method1Request { text: "x".to_owned() }).await.unwrap();
    drop(client);
    gateway.stop(vec![backend]).await;

    let shown = handle.render();

    let labels = r#"grpc_type="unary",grpc_service="myservice.MyService",grpc_method="Method1""#;
    for line in [
        "# HELP grpc_server_handled_total Calls that have ended, by the code that their client was told.",
        "# TYPE grpc_server_handled_total counter",
        &format!("grpc_server_started_total{{{labels}}} 1"),
        &format!("grpc_server_handled_total{{{labels},grpc_code=\"OK\"}} 1"),
        &format!("grpc_server_handled_total{{{labels},grpc_code=\"Unavailable\"}} 0"),
        "grpcrouter_instances 0",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "no line {line}\n{shown}");
    }
}
