//! Golden files: what is reviewed is what users get. Each comes out of protoc and, word for word, out of the builder.

use std::{collections::BTreeMap, fs};

use crate::protoc::{Protoc, crate_dir, golden_dir};

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

        let built = items(&built);
        for (name, text) in items(&golden) {
            assert!(
                built.get(&name) == Some(&text),
                "{case}: {name} differs:\n{}\n{text}",
                built.get(&name).cloned().unwrap_or_default()
            );
        }
        let routers = |items: &BTreeMap<String, String>| items.keys().filter(|name| name.ends_with("_router")).count();
        assert_eq!(routers(&built), routers(&items(&golden)), "{case}");
    }
}

/// Modules and functions of a file by name, as text.
fn items(text: &str) -> BTreeMap<String, String> {
    let items = syn::parse_file(text).unwrap().items.into_iter();
    let named = items.filter_map(|item| match &item {
        syn::Item::Mod(module) => Some((module.ident.to_string(), item)),
        syn::Item::Fn(function) => Some((function.sig.ident.to_string(), item)),
        _ => None,
    });
    named
        .map(|(name, item)| {
            let file = syn::File { shebang: None, attrs: Vec::new(), items: vec![item] };
            (name, prettyplease::unparse(&file))
        })
        .collect()
}
