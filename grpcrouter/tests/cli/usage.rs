//! Help, completions, colours and exit codes.

use crate::world::{program, run};

#[tokio::test]
async fn every_subcommand_tells_what_it_is_for() {
    let help = run(&["--help"]).await.ok();
    for name in ["gateway", "agent", "check", "call", "instances", "services", "token", "certs", "completions"] {
        assert!(help.contains(&format!("\n  {name} ")), "{name}: {help}");
        let own = run(&[name, "--help"]).await.ok();
        assert!(own.contains("Usage: grpcrouter "), "{own}");
    }
    assert_eq!(run(&["--version"]).await.ok(), concat!("grpcrouter ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn a_wrong_flag_has_its_own_exit_code_and_a_suggestion() {
    let said = run(&["agent", "--gatway", "x"]).await.failed(2);
    assert!(said.contains("'--gateway'"), "{said}");
    let said = run(&["agnet"]).await.failed(2);
    assert!(said.contains("'agent'"), "{said}");
}

#[tokio::test]
async fn completions_are_a_script_of_the_shell() {
    for (shell, has) in [("bash", "_grpcrouter()"), ("zsh", "#compdef grpcrouter"), ("fish", "complete -c grpcrouter")]
    {
        let script = run(&["completions", shell]).await.ok();
        assert!(script.contains(has), "{shell}");
    }
}

#[tokio::test]
async fn a_pipe_has_no_colours_unless_they_are_forced_and_never_where_no_color_is_set() {
    let colours = async |name: &str| {
        let mut command = program(&["call", "--gateway", "http://127.0.0.1:1", "a.A/B"]);
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env(name, "1");
        String::from_utf8(command.output().await.unwrap().stderr).unwrap().contains('\u{1b}')
    };
    assert!(!colours("GRPCROUTER_TEST_NOTHING").await);
    assert!(colours("CLICOLOR_FORCE").await);
    assert!(!colours("NO_COLOR").await);
}
