//! `grpcrouter token` as Ben types it: the token alone on standard output, all else on standard error, the file changed.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// What `grpcrouter token` with these words does to the file.
fn token(file: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grpcrouter"));
    command.env_remove("GRPCROUTER_REGISTRATION").arg("token").args(words).arg("--file").arg(file);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn listed(file: &Path) -> Value {
    serde_json::from_slice(&token(file, &["list", "-o", "json"]).stdout).unwrap()
}

#[test]
fn a_token_is_printed_once_rotated_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registration.toml");

    let words = [
        "create",
        "site-a",
        "--services",
        "shop.*,bank.Accounts",
        "--instances",
        "site-a-*",
        "--max",
        "4",
        "--expires",
        "90d",
    ];
    let made = token(&file, &words);

    assert!(made.status.success(), "{made:?}");
    let secret = text(&made.stdout);
    assert_eq!(secret.lines().count(), 1, "{secret}");
    assert!(secret.starts_with("grt_"), "{secret}");
    assert!(!text(&made.stderr).contains(secret.trim()), "{made:?}");
    assert!(!fs::read_to_string(&file).unwrap().contains(secret.trim()));
    assert!(!text(&token(&file, &["list"]).stdout).contains(secret.trim()));
    let one = &listed(&file)[0];
    assert_eq!(one["name"], "site-a");
    assert_eq!(one["services"], serde_json::json!(["shop.*", "bank.Accounts"]));
    assert_eq!((&one["instances"][0], &one["max_instances"]), (&Value::from("site-a-*"), &Value::from(4)));
    assert_eq!((&one["tokens"][0]["state"], one["tokens"][0]["expires"].is_string()), (&Value::from("live"), true));

    // The same name again: the next token, to replace the first; and no third one.
    let second: Value = serde_json::from_slice(&token(&file, &["create", "site-a", "-o", "json"]).stdout).unwrap();
    assert!(second["token"].as_str().unwrap().starts_with("grt_"), "{second}");
    let third = token(&file, &["create", "site-a"]);
    assert_eq!(third.status.code(), Some(1));
    assert!(text(&third.stderr).contains("grpcrouter token revoke ID"), "{third:?}");
    assert!(third.stdout.is_empty());

    let revoked = token(&file, &["revoke", one["tokens"][0]["id"].as_str().unwrap()]);
    assert!(revoked.status.success(), "{revoked:?}");
    let states: Vec<_> =
        listed(&file)[0]["tokens"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["revoked", "live"]);
    assert!(token(&file, &["revoke", "site-a"]).status.success());
    let nothing = token(&file, &["revoke", "site-a"]);
    assert_eq!(nothing.status.code(), Some(1));
}

#[test]
fn what_cannot_be_done_says_what_can_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registration.toml");
    let fails = |words: &[&str], said: &str| {
        let output = token(&file, words);
        assert!(!output.status.success(), "{output:?}");
        assert!(text(&output.stderr).contains(said), "{words:?} {output:?}");
    };

    fails(&["create", "site-a"], "say what it may register with --services");
    fails(&["create", "site a", "--services", "x"], "the name \"site a\" cannot be used");
    fails(&["create", "site-a", "--services", "x", "--expires", "soon"], "such as 90d");
    fails(&["list"], "cannot read ");
    assert!(!file.exists());

    assert!(token(&file, &["create", "site-a", "--services", "shop.*"]).status.success());
    let before = fs::read_to_string(&file).unwrap();
    fails(&["create", "site-a", "--services", "bank.*"], "with other permissions");
    fails(&["revoke", "site-b"], "its principals are site-a");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    fs::write(&file, before.replace("services", "service")).unwrap();
    fails(&["list"], "registration.toml:6: unknown field `service`");
}
