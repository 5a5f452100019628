//! Golden files: what is reviewed is what users get. Each comes out of protoc and, word for word, out of the builder.

use std::{fs, process::Command};

use crate::protoc::{Protoc, crate_dir, directory, golden_dir};

/// Each case, with its package and parameters.
const CASES: &[(&str, &str, bool)] = &[
    ("kinds", "demo.v1", false),
    ("options", "shop.v1", false),
    ("names", "demo.type.v1", false),
    ("bare", "", false),
    ("gateway", "two", true),
];

#[test]
fn protoc_writes_the_golden_files() {
    for (case, _, gateway) in CASES {
        let protoc = Protoc::new(&golden_dir())
            .with_options_proto()
            .opt("paths=source_relative")
            .opt(&format!("gateway={gateway}"));
        let written = protoc.run(&[&format!("{case}.proto")]).unwrap();
        assert_eq!(written.files(), [format!("{case}_router.rs")]);
        // The version stands in the first line, and a new one changes nothing else.
        let text = written.text(&format!("{case}_router.rs")).replacen(env!("CARGO_PKG_VERSION"), "VERSION", 1);

        let golden = golden_dir().join(format!("{case}.rs"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            text == expected,
            "{} is not what the plugin writes; look at the difference after UPDATE_GOLDEN=1 cargo test",
            golden.display()
        );
    }
}

#[test]
fn the_builder_writes_the_same_text_as_the_plugin() {
    for (case, package, gateway) in CASES {
        let out = tempfile::tempdir().unwrap();
        protoc_gen_grpcrouter::configure()
            .out_dir(out.path())
            .gateway(*gateway)
            .emit_rerun_if_changed(false)
            .compile_protos(&[golden_dir().join(format!("{case}.proto"))], &[golden_dir(), crate_dir()])
            .unwrap();
        let module = match *package {
            "" => "_".to_owned(),
            package => package.replace("type", "r#type"),
        };
        let built = fs::read_to_string(out.path().join(format!("{module}.rs"))).unwrap();
        let golden = fs::read_to_string(golden_dir().join(format!("{case}.rs"))).unwrap();

        assert!(
            modules(&built) == modules(&golden),
            "{case}: the builder writes\n{}\nand the plugin\n{}",
            modules(&built).join("\n"),
            modules(&golden).join("\n")
        );
    }
}

#[test]
fn every_compiler_of_proto_files_gives_the_golden_files() {
    let mut compilers = vec![("protoc 36", Protoc::vendored(), "libprotoc 36.")];
    if let Some(debian) = Protoc::of_debian() {
        compilers.push(("Debian's protoc", debian, "libprotoc 3.21."));
    }
    for (name, program, version) in compilers {
        let said = Command::new(&program).arg("--version").output().unwrap();
        assert!(String::from_utf8_lossy(&said.stdout).starts_with(version), "{name}: {said:?}");
        for (case, _, gateway) in CASES {
            let protoc = Protoc::new(&golden_dir())
                .program(&program)
                .with_options_proto()
                .opt("paths=source_relative")
                .opt(&format!("gateway={gateway}"));
            is_golden(case, &protoc.run(&[&format!("{case}.proto")]).unwrap().text(&format!("{case}_router.rs")), name);
        }
    }
}

#[test]
fn buf_gives_the_golden_files() {
    // Comes with `make install-deps`; where it does not, the other compilers show as much.
    let Some(buf) = std::env::var_os("BUF") else { return };
    let cases = CASES.iter().filter(|(_, _, gateway)| !gateway);
    let names = cases.clone().map(|(case, ..)| *case).chain(["names_common"]);
    let protos: Vec<(String, String)> = names
        .map(|case| format!("{case}.proto"))
        .map(|name| (name.clone(), fs::read_to_string(golden_dir().join(name)).unwrap()))
        .collect();
    let mut files: Vec<(&str, &str)> = protos.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let template = format!(
        "{{\"version\": \"v2\", \"plugins\": [{{\"local\": {:?}, \"out\": \"out\", \"opt\": [\"paths=source_relative\"]}}]}}",
        env!("CARGO_BIN_EXE_protoc-gen-grpcrouter")
    );
    files.extend([("proto/options.proto", protoc_gen_grpcrouter::OPTIONS_PROTO), ("buf.yaml", "version: v2\n")]);
    let directory = directory(&files);

    let done = Command::new(buf)
        .current_dir(directory.path())
        .args(["generate", "--template", &template])
        .env("HOME", directory.path())
        .output()
        .unwrap();

    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for (case, ..) in cases {
        let text = fs::read_to_string(directory.path().join(format!("out/{case}_router.rs"))).unwrap();
        is_golden(case, &text, "buf");
    }
}

fn is_golden(case: &str, text: &str, who: &str) {
    let golden = fs::read_to_string(golden_dir().join(format!("{case}.rs"))).unwrap();
    let text = text.replacen(env!("CARGO_PKG_VERSION"), "VERSION", 1);
    // An option that is set field by field has several encodings that mean the same; each compiler chooses its own.
    assert!(without_descriptors(&text) == without_descriptors(&golden), "{who} gives another {case}:\n{text}");
}

fn without_descriptors(text: &str) -> Vec<&str> {
    let literal = "pub static FILE_DESCRIPTOR_SET: &[u8] = b\"";
    text.lines().map(|line| line.find(literal).map_or(line, |at| &line[..at + literal.len()])).collect()
}

/// What the generator wrote in a file, cut out as it stands: the modules of routers, and the gateway.
pub(crate) fn modules(text: &str) -> Vec<&str> {
    let heads = ["/// Generated router implementations.\n", "/// A gateway with every", "/// A whole gateway program"];
    let mut starts: Vec<usize> = heads.iter().flat_map(|head| text.match_indices(head)).map(|(at, _)| at).collect();
    starts.sort_unstable();
    let end = |start: usize| text[start..].find("\n}\n").map_or(text.len(), |length| start + length + "\n}\n".len());
    starts.into_iter().map(|start| &text[start..end(start)]).collect()
}
