//! Flags, environment and file, put together.

#![allow(clippy::unwrap_used, reason = "a failing test may panic")]
use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    args: Args,
}

fn given(flags: &[&str]) -> anyhow::Result<Config> {
    settings(Program::try_parse_from([&["gateway"], flags].concat()).unwrap().args)
}

#[test]
fn flags_come_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(
        &file,
        "listen = \"127.0.0.1:1\"\nadmin_listen = \"127.0.0.1:2\"\ndescriptor_sets = [\"shop.binpb\"]\n[any_service]\nrouting_key = \"x\"",
    )
    .unwrap();
    let file = file.to_str().unwrap();

    let config = given(&["--config", file, "--listen", "127.0.0.1:3", "--any-service-key", "y"]).unwrap();

    assert_eq!(start::address(&config), "127.0.0.1:3");
    assert_eq!(config.admin_listen, Some(Address::parse("127.0.0.1:2").unwrap()));
    assert_eq!(config.any_service.unwrap().routing_key.as_deref(), Some("y"));
    // What the file names is beside the file, wherever the program runs.
    assert_eq!(config.descriptor_sets, [folder.path().join("shop.binpb")]);
}

#[test]
fn the_other_gateways_are_those_of_the_flags_or_else_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, "advertise = \"https://a\"\npeers = [\"https://b\"]").unwrap();
    let file = file.to_str().unwrap();

    let of_file = given(&["--config", file]).unwrap();
    assert_eq!(
        (of_file.advertise.as_deref(), of_file.peers, of_file.peers_dns),
        (Some("https://a"), vec!["https://b".to_owned()], None)
    );
    let of_flags = given(&["--config", file, "--peers-dns", "http://gateways:8080"]).unwrap();
    assert_eq!((of_flags.peers.len(), of_flags.peers_dns.as_deref()), (0, Some("http://gateways:8080")));
    let several = given(&["--config", file, "--peer", "https://c", "--peer", "https://d"]).unwrap();
    assert_eq!(several.peers, ["https://c", "https://d"]);
}

#[test]
fn a_flag_that_needs_another_says_which() {
    let refused = |flags: &[&str]| given(flags).unwrap_err().to_string();

    assert!(refused(&["--client-ca", "ca.pem"]).contains("give --tls-cert and --tls-key too"));
    assert!(refused(&["--any-service-key", "x"]).contains("--any-service"));
}

#[test]
fn dev_serves_any_service_and_has_an_admin() {
    let config = given(&["--dev"]).unwrap();

    assert!(config.any_service.is_some());
    assert_eq!(config.admin_listen, Some(Address::parse(DEV_ADMIN).unwrap()));
    assert_eq!(start::address(&config), "127.0.0.1:8080");
}

#[tokio::test]
async fn without_anything_to_serve_it_says_what_can_be() {
    let error = start::build(&given(&[]).unwrap(), "127.0.0.1:0").unwrap_err().to_string();

    for flag in ["--descriptor-set", "--any-service", "--config"] {
        assert!(error.contains(flag), "{error}");
    }
}

#[tokio::test]
async fn dev_is_for_this_machine_alone() {
    let config = given(&["--dev", "--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"]).unwrap();

    let error = start::serve(&config, true).await.unwrap_err().to_string();

    assert!(error.contains("listen at 127.0.0.1 or leave out --dev"), "{error}");
}
