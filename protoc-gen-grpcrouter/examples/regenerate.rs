//! Writes the checked-in generated code again from the proto files: the wire types and the example's code.
//! With `--check` nothing is written; it fails and names each file that is not what would be generated now.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("regenerate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mode = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => Mode::Write,
        [flag] if flag == "--check" => Mode::Check,
        _ => bail!("usage: regenerate [--check]"),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("this crate is in no repository")?;
    let scratch = tempfile::tempdir().context("no place for what is generated")?;
    let admin_client = admin(root, scratch.path(), Side::Client)?;
    let generated = [
        (wire(root, scratch.path())?, "grpcrouter-protocol/src/wire.rs"),
        (example(root, scratch.path())?, "examples/myservice/src/generated/myservice.rs"),
        (routing(root, scratch.path())?, "tests/src/generated/routing.rs"),
        (admin(root, scratch.path(), Side::Server)?, "grpcrouter-runtime/src/generated/admin.rs"),
        (admin_client.clone(), "grpcrouter/src/generated/admin.rs"),
        (admin_client, "tests/src/generated/admin.rs"),
        (known(root, scratch.path())?, "grpcrouter-runtime/src/gateway/reflection/known.bin"),
        // The plugin's package is published alone, so it has a copy of its own.
        (root.join("proto/options.proto"), "protoc-gen-grpcrouter/proto/options.proto"),
    ];
    let mut stale = Vec::new();
    for (from, to) in generated {
        let new = fs::read(&from).with_context(|| format!("{} was not generated", from.display()))?;
        let path = root.join(to);
        if fs::read(&path).is_ok_and(|old| old == new) {
            continue;
        }
        match mode {
            Mode::Check => stale.push(to),
            Mode::Write => {
                let parent = path.parent().context("a file is in no directory")?;
                fs::create_dir_all(parent)
                    .and_then(|()| fs::write(&path, new))
                    .with_context(|| format!("{to} cannot be written"))?;
                println!("regenerate: wrote {to}");
            }
        }
    }
    if !stale.is_empty() {
        bail!("not what would be generated now: {}; run `make proto` and commit what it writes", stale.join(", "));
    }
    println!("regenerate: everything is what the proto files say");
    Ok(())
}

#[derive(Clone, Copy)]
enum Mode {
    Write,
    Check,
}

/// The messages of the wire: no services, no comments, bytes that are slices of what was received, ordered maps.
fn wire(root: &Path, scratch: &Path) -> anyhow::Result<PathBuf> {
    let files = protox::compile(["proto/router.proto"], [root]).context("proto/router.proto")?;
    let out = scratch.join("wire");
    fs::create_dir(&out)?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        .disable_comments(["."])
        .out_dir(&out)
        .compile_fds(files)
        .context("proto/router.proto")?;
    Ok(out.join("grpcrouter.rs"))
}

/// The example's messages, client, server, router and gateway, as a build script would have them in its `OUT_DIR`.
fn example(root: &Path, scratch: &Path) -> anyhow::Result<PathBuf> {
    let out = scratch.join("example");
    protoc_gen_grpcrouter::configure()
        .gateway(true)
        .emit_rerun_if_changed(false)
        .out_dir(&out)
        .compile_protos(&[root.join("examples/myservice/service.proto")], &[root])?;
    Ok(out.join("myservice.rs"))
}

/// The descriptors that every gateway has: Google's own files and the options.
fn known(root: &Path, scratch: &Path) -> anyhow::Result<PathBuf> {
    let google = [
        "any",
        "api",
        "descriptor",
        "duration",
        "empty",
        "field_mask",
        "source_context",
        "struct",
        "timestamp",
        "type",
        "wrappers",
    ];
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_imports(true);
    for name in google {
        compiler.open_file(format!("google/protobuf/{name}.proto"))?;
    }
    compiler.open_file("proto/options.proto")?;
    let out = scratch.join("known.bin");
    fs::write(&out, compiler.encode_file_descriptor_set())?;
    Ok(out)
}

enum Side {
    Client,
    Server,
}

/// The service of a gateway's owner, by tonic's generator alone: the runtime has the server, the binary and the tests the client.
fn admin(root: &Path, scratch: &Path, side: Side) -> anyhow::Result<PathBuf> {
    let files = protox::compile(["proto/admin.proto"], [root]).context("proto/admin.proto")?;
    let (out, client) = match side {
        Side::Client => (scratch.join("admin-client"), true),
        Side::Server => (scratch.join("admin-server"), false),
    };
    fs::create_dir(&out)?;
    tonic_prost_build::configure()
        .build_client(client)
        .build_server(!client)
        .btree_map(".")
        .out_dir(&out)
        .compile_fds(files)
        .context("proto/admin.proto")?;
    Ok(out.join("grpcrouter.rs"))
}

/// The services of the tests of routing.
fn routing(root: &Path, scratch: &Path) -> anyhow::Result<PathBuf> {
    let out = scratch.join("routing");
    protoc_gen_grpcrouter::configure()
        .gateway(true)
        .emit_rerun_if_changed(false)
        .out_dir(&out)
        .compile_protos(&[root.join("tests/proto/routing.proto")], &[root])?;
    Ok(out.join("routing.rs"))
}
