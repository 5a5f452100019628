//! Who may use whom: one way only. The tables are the rules; each says why.

use crate::rust::{Mention, Source};
use crate::tree::{File, Finding, Tree, keys};

/// What a room must not name.
struct Wall {
    /// Modules and folders, without `.rs`: `a/src/b` is `a/src/b.rs` and all of `a/src/b/`.
    room: &'static [&'static str],
    /// Rooms inside of it that may.
    but: &'static [&'static str],
    never: &'static [&'static str],
    /// Whether its test code may: to play a peer that breaks the rules, or to look behind the door.
    but_tests: bool,
    because: &'static str,
}

/// The only crates that a crate's code may name.
struct Door {
    room: &'static str,
    crates: &'static [&'static str],
    /// The same for its test code, on top.
    in_tests: &'static [&'static str],
    because: &'static str,
}

const PROTOCOL: &str = "grpcrouter-protocol/src";

const WALLS: &[Wall] = &[
    Wall {
        room: &[PROTOCOL],
        but: &[],
        never: &["std::time::Instant", "std::time::SystemTime", "std::thread", "std::net", "std::fs", "std::process"],
        but_tests: false,
        because: "the core is fed: time and bytes are arguments, so a schedule can be run again",
    },
    Wall {
        room: &[PROTOCOL, "grpcrouter-protocol/tests"],
        but: &[],
        never: &["std::collections::HashMap", "std::collections::HashSet", "std::collections::hash_map"],
        but_tests: false,
        because: "its order is random: the same seed must give the same trace",
    },
    Wall {
        room: &[PROTOCOL],
        // Which fault a test has switched on is not the core's state.
        but: &["grpcrouter-protocol/src/mutants"],
        never: &["std::sync::Mutex", "std::sync::RwLock", "std::sync::mpsc", "std::cell"],
        but_tests: false,
        because: "the core has one owner; locks belong to the shell",
    },
    Wall {
        room: &[PROTOCOL],
        but: &["grpcrouter-protocol/src/pool"],
        never: &["std::sync::atomic"],
        but_tests: false,
        because: "tunnels share nothing but the counter of their windows' memory",
    },
    Wall {
        room: &[PROTOCOL],
        but: &["grpcrouter-protocol/src/lib", "grpcrouter-protocol/src/tunnel"],
        never: &["crate::tunnel"],
        but_tests: false,
        because: "the tunnel hands work down; what is below does not know it",
    },
    Wall {
        room: &[PROTOCOL],
        but: &["grpcrouter-protocol/src/codec", "grpcrouter-protocol/src/wire"],
        never: &["crate::wire"],
        but_tests: true,
        because: "the codec alone sees the types of the wire; all else sees checked values",
    },
    Wall {
        room: &[
            "grpcrouter-protocol/src/id",
            "grpcrouter-protocol/src/time",
            "grpcrouter-protocol/src/window",
            "grpcrouter-protocol/src/frame",
        ],
        but: &[],
        never: &[
            "crate::call",
            "crate::calls",
            "crate::control",
            "crate::outbox",
            "crate::inbox",
            "crate::schedule",
            "crate::timer",
            "crate::handshake",
        ],
        but_tests: false,
        because: "values are at the bottom",
    },
    Wall {
        room: &["grpcrouter-protocol/src/codec", "grpcrouter-protocol/src/handshake"],
        but: &[],
        never: &[
            "crate::call",
            "crate::calls",
            "crate::control",
            "crate::outbox",
            "crate::inbox",
            "crate::schedule",
            "crate::timer",
        ],
        but_tests: false,
        because: "bytes to values and back, with no state",
    },
    Wall {
        room: &["grpcrouter-protocol/src/outbox", "grpcrouter-protocol/src/inbox"],
        but: &[],
        never: &["crate::call", "crate::calls", "crate::control", "crate::window", "crate::schedule", "crate::timer"],
        but_tests: false,
        because: "they count batches and know nothing of calls",
    },
    Wall {
        room: &["grpcrouter-protocol/src/call"],
        but: &[],
        never: &[
            "crate::outbox",
            "crate::inbox",
            "crate::schedule",
            "crate::timer",
            "crate::codec",
            "crate::handshake",
        ],
        but_tests: false,
        because: "one call knows its window and nothing of the others",
    },
    Wall {
        room: &["grpcrouter-runtime/src/tunnel"],
        but: &[],
        never: &["crate::gateway", "crate::backend", "crate::codegen", "crate::run"],
        but_tests: false,
        because: "both ends use the tunnel; it knows neither",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway"],
        but: &[],
        never: &["crate::backend"],
        but_tests: false,
        because: "the two sides meet on the wire only",
    },
    Wall {
        room: &["grpcrouter-runtime/src/backend"],
        but: &[],
        never: &["crate::gateway", "crate::codegen", "crate::run"],
        but_tests: false,
        because: "the two sides meet on the wire only; a backend serves any service, generated for us or not",
    },
    Wall {
        room: &[
            "grpcrouter-runtime/src/error",
            "grpcrouter-runtime/src/status",
            "grpcrouter-runtime/src/metadata",
            "grpcrouter-runtime/src/backoff",
            "grpcrouter-runtime/src/clock",
            "grpcrouter-runtime/src/metrics",
            "grpcrouter-runtime/src/accept_log",
            "grpcrouter-runtime/src/h2_body",
            "grpcrouter-runtime/src/health",
            "grpcrouter-runtime/src/descriptors",
            "grpcrouter-runtime/src/tls",
        ],
        but: &[],
        never: &["crate::gateway", "crate::backend", "crate::tunnel", "crate::run"],
        but_tests: false,
        because: "a leaf is used by all and uses none",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway"],
        // A service of the gateway's own, whose messages nobody else gets.
        but: &["grpcrouter-runtime/src/gateway/reflection/service"],
        never: &["prost", "tonic::Streaming", "tonic::codec"],
        but_tests: false,
        because: "the gateway forwards bytes and decodes no message",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway/forward"],
        but: &[],
        never: &["std::sync::Mutex", "std::sync::RwLock", "std::sync::atomic", "std::cell", "tokio", "dashmap"],
        but_tests: false,
        because: "forward is five steps and keeps no state",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway/strategy"],
        but: &[],
        never: &["crate::gateway::route", "crate::gateway::registry", "crate::gateway::balancer", "crate::tunnel"],
        but_tests: false,
        because: "a strategy reads a key from a request and nothing else",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway/route"],
        but: &[],
        never: &["crate::gateway::registry", "crate::gateway::balancer", "crate::tunnel"],
        but_tests: false,
        because: "a route is a rule; who is there does not change it",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway/parking"],
        but: &[],
        never: &[
            "crate::gateway::registry",
            "crate::gateway::balancer",
            "crate::gateway::client_call",
            "crate::tunnel",
        ],
        but_tests: false,
        because: "who waits is woken and looks for itself",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway/balancer"],
        but: &[],
        never: &["crate::gateway::route", "crate::gateway::registry", "crate::tunnel", "tokio"],
        but_tests: false,
        because: "a picker looks at a snapshot: no lock and no await",
    },
    Wall {
        room: &[
            "grpcrouter-runtime/src/gateway/registry/ejection",
            "grpcrouter-runtime/src/gateway/registry/takeover",
            "grpcrouter-runtime/src/gateway/admission/claims",
            "grpcrouter-runtime/src/gateway/admission/failures",
            "grpcrouter-runtime/src/gateway/admission/rules",
        ],
        but: &[],
        never: &["crate::clock", "std::sync::Mutex", "std::time::Instant", "tokio", "crate::tunnel"],
        but_tests: false,
        because: "rules about time are told the time, so that a test can play a year",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway/registration"],
        but: &[],
        never: &["crate::gateway::admission", "crate::gateway::registry", "crate::clock", "crate::tunnel", "tokio"],
        but_tests: false,
        because: "what is written of who may register is a text; who is here is not its business",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway/connection/frames"],
        but: &[],
        never: &["std::time::Instant", "tokio::time::Instant::now", "tokio::net", "h2", "crate"],
        but_tests: true,
        because: "what is a flood is a rule about bytes and times that it is told",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway/registry"],
        but: &[],
        never: &["crate::gateway::register", "crate::gateway::admission", "crate::gateway::strategy::KeyReader"],
        but_tests: false,
        because: "the registry knows who is here; who comes in, and how, is decided before",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway"],
        but: &[
            "grpcrouter-runtime/src/gateway/front",
            "grpcrouter-runtime/src/gateway/client_call",
            "grpcrouter-runtime/src/gateway/embed",
        ],
        never: &["crate::gateway::forward"],
        but_tests: false,
        because: "forward is called where calls come in, and by nothing that it uses",
    },
    Wall {
        room: &[
            "grpcrouter-runtime/src/gateway/own",
            "grpcrouter-runtime/src/gateway/bridge",
            "grpcrouter-runtime/src/gateway/health",
            "grpcrouter-runtime/src/gateway/admin",
        ],
        but: &[],
        never: &["crate::gateway::client_call", "crate::gateway::way", "crate::gateway::strategy"],
        but_tests: false,
        because: "what the gateway answers itself is no call that it forwards",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway/client_call", "grpcrouter-runtime/src/gateway/forward"],
        but: &[],
        never: &["crate::gateway::own", "crate::gateway::bridge", "crate::health"],
        but_tests: false,
        because: "what a call is forwarded by knows nothing of the services that are the gateway's own",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway/callers"],
        but: &[],
        never: &[
            "crate::gateway::admission",
            "crate::gateway::registration",
            "crate::gateway::registry",
            "crate::gateway::route",
            "crate::gateway::forward",
            "crate::tunnel",
            "tokio",
        ],
        but_tests: true,
        because: "whether a call is let in is told from its head alone, and nobody is waited for",
    },
    Wall {
        room: &[
            "grpcrouter-runtime/src/gateway/bridge",
            "grpcrouter-runtime/src/gateway/client_call",
            "grpcrouter-runtime/src/gateway/connection",
            "grpcrouter-runtime/src/gateway/embed",
            "grpcrouter-runtime/src/gateway/forward",
            "grpcrouter-runtime/src/gateway/intake",
            "grpcrouter-runtime/src/gateway/pass",
            "grpcrouter-runtime/src/gateway/way",
        ],
        but: &[],
        never: &["crate::gateway::callers"],
        but_tests: false,
        because: "a call is let in by a gate; who is behind it is a feature, and the way of a call does not know it",
    },
    Wall {
        room: &["grpcrouter-runtime/src/gateway/meters"],
        but: &[],
        never: &["crate::gateway::forward", "crate::gateway::way", "crate::tunnel", "std::collections"],
        but_tests: false,
        because: "what is counted of a call has its handle ready: nothing is looked up",
    },
    Wall {
        room: &["protoc-gen-grpcrouter/src"],
        but: &[],
        never: &["grpcrouter_runtime", "grpcrouter_protocol"],
        but_tests: false,
        because: "the generator writes text; it needs nothing of what the text will use",
    },
    Wall {
        room: &["examples", "tests/consumers"],
        but: &[],
        never: &["grpcrouter_protocol", "grpcrouter_runtime::codegen"],
        but_tests: true,
        because: "examples use the front door, as their readers will",
    },
    Wall {
        room: &["grpcrouter/src"],
        but: &[],
        never: &["grpcrouter_protocol", "grpcrouter_runtime::codegen", "h2", "hyper"],
        but_tests: false,
        because: "the binary turns flags into builders, by the front door: whoever writes a program has what it has",
    },
    Wall {
        room: &["grpcrouter-runtime/src/backend/upstream"],
        but: &[],
        never: &["crate::tunnel", "crate::gateway", "grpcrouter_protocol"],
        but_tests: false,
        because: "an upstream is a service like any other: what brings a call to it is not its matter",
    },
];

const DOORS: &[Door] = &[Door {
    room: PROTOCOL,
    crates: &["std", "core", "alloc", "bytes", "prost", "slab", "subtle", "thiserror"],
    in_tests: &["proptest"],
    because: "the core is pure",
}];

/// The public modules that a crate's root may have: one public path to each item.
const PUBLIC_MODULES: &[(&str, &[&str])] =
    &[("grpcrouter-protocol/src/lib.rs", &[]), ("grpcrouter-runtime/src/lib.rs", &["codegen"])];

/// What generated code may name of ours.
const GENERATED_USES: &[&str] = &["codegen", "Gateway", "GatewayBuilder", "run"];

/// Crates that the dependencies of a crate must not name, or the only ones that they may.
const MANIFESTS: &[(&str, Manifest)] = &[
    ("grpcrouter-protocol/Cargo.toml", Manifest::Only(&["bytes", "prost", "slab", "subtle", "thiserror"])),
    ("grpcrouter/Cargo.toml", Manifest::Never(&["grpcrouter-protocol", "h2", "hyper"])),
    ("grpcrouter-runtime/Cargo.toml", Manifest::Never(&["protoc-gen-grpcrouter", "prost-build", "tonic-prost-build"])),
    (
        "protoc-gen-grpcrouter/Cargo.toml",
        Manifest::Never(&["grpcrouter-runtime", "grpcrouter-protocol", "tokio", "h2"]),
    ),
];

enum Manifest {
    Only(&'static [&'static str]),
    Never(&'static [&'static str]),
}

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in tree.written() {
        for wall in WALLS.iter().filter(|wall| wall.holds_for(&file.path)) {
            let test = |mention: &Mention| file.is_test() || mention.test;
            let broken = source.mentions.iter().filter(|m| wall.forbids(&m.path) && !(wall.but_tests && test(m)));
            findings.extend(broken.map(|m| file.finding(m.line, format!("names {}: {}", m.path, wall.because))));
        }
        for door in DOORS.iter().filter(|door| is_in(&file.path, door.room)) {
            let broken = source.mentions.iter().filter(|mention| !door.lets_in(mention, file.is_test(), tree));
            findings.extend(broken.map(|m| file.finding(m.line, format!("names {}: {}", m.path, door.because))));
        }
        if is_in(&file.path, PROTOCOL) {
            let waits = source.tokens.iter().filter(|token| matches!(token.text.as_str(), "async" | "await"));
            findings
                .extend(waits.map(|token| file.finding(token.line, format!("{}: the core never waits", token.text))));
        }
        public_modules(file, source, &mut findings);
    }
    for (file, source) in tree.generated() {
        let ours = source.mentions.iter().filter(|m| !generated_may_name(&m.path));
        findings.extend(ours.map(|m| {
            file.finding(m.line, format!("generated code names {}: its door is grpcrouter_runtime::codegen", m.path))
        }));
    }
    for (path, rule) in MANIFESTS {
        let Some(file) = tree.file(path) else { continue };
        for (line, name) in keys(&file.text, "[dependencies]") {
            let breaks = match rule {
                Manifest::Only(names) => !names.contains(&name.as_str()),
                Manifest::Never(names) => names.contains(&name.as_str()),
            };
            if breaks {
                findings.push(file.finding(line, format!("must not depend on {name}")));
            }
        }
    }
    findings
}

/// Rules whose rooms are gone: they would guard nothing and say nothing.
pub(crate) fn rules_without_a_room(tree: &Tree) -> Vec<Finding> {
    let rooms =
        WALLS.iter().flat_map(|wall| wall.room.iter().chain(wall.but)).chain(DOORS.iter().map(|door| &door.room));
    let files = PUBLIC_MODULES.iter().map(|(path, _)| path).chain(MANIFESTS.iter().map(|(path, _)| path));
    let gone = rooms
        .filter(|room| !tree.files.iter().any(|file| is_in(&file.path, room)))
        .chain(files.filter(|path| tree.file(path).is_none()));
    gone.map(|room| Finding {
        path: (*room).into(),
        line: 0,
        what: "a rule names it and it is not there: mend the rule".into(),
    })
    .collect()
}

impl Wall {
    fn holds_for(&self, path: &str) -> bool {
        self.room.iter().any(|room| is_in(path, room)) && !self.but.iter().any(|room| is_in(path, room))
    }

    fn forbids(&self, path: &str) -> bool {
        self.never.iter().any(|never| match path.strip_suffix("::*") {
            // A glob of another crate's module brings in all that is below.
            Some(above) => begins(path, never) || (begins(never, above) && !begins(above, "crate")),
            None => begins(path, never),
        })
    }
}

impl Door {
    fn lets_in(&self, mention: &Mention, test: bool, tree: &Tree) -> bool {
        let head = mention.path.split("::").next().unwrap_or_default();
        let known = self.crates.contains(&head) || ((test || mention.test) && self.in_tests.contains(&head));
        known || !tree.crates.contains(head)
    }
}

fn public_modules(file: &File, source: &Source, findings: &mut Vec<Finding>) {
    let Some((_, allowed)) = PUBLIC_MODULES.iter().find(|(path, _)| *path == file.path) else { return };
    for window in source.tokens.windows(3).filter(|window| window[0].text == "pub" && window[1].text == "mod") {
        let name = &window[2].text;
        if !allowed.contains(&name.as_str()) {
            findings.push(
                file.finding(window[2].line, format!("pub mod {name}: an item has one public path, at the root")),
            );
        }
    }
}

fn generated_may_name(path: &str) -> bool {
    let mut words = path.split("::");
    match words.next() {
        Some("grpcrouter_runtime") => words.next().is_some_and(|word| GENERATED_USES.contains(&word)),
        head => head != Some("grpcrouter_protocol"),
    }
}

/// Whether a file is the room, or in it.
fn is_in(path: &str, room: &str) -> bool {
    path.strip_prefix(room).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// Whether a path is this one or below it.
fn begins(path: &str, with: &str) -> bool {
    path.strip_prefix(with).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many breaches one file has.
    fn breaches(path: &str, text: &str) -> usize {
        check(&Tree::sample(&[(path, text)])).len()
    }

    #[test]
    fn a_clock_in_the_core_is_found_however_it_is_named() {
        let path = "grpcrouter-protocol/src/timer.rs";
        for text in [
            "use std::time::Instant;",
            "use std::time::{Duration, Instant};",
            "fn f() { std::time::Instant::now(); }",
            "use std::time as t;\nfn f() { t::Instant::now(); }",
            "use std::time::*;",
        ] {
            assert!(breaches(path, text) > 0, "{text}");
        }
        assert_eq!(breaches(path, "use std::time::Duration;\n// std::time::Instant is not for us"), 0);
    }

    #[test]
    fn the_core_names_no_crate_but_its_own_and_never_waits() {
        let path = "grpcrouter-protocol/src/call.rs";
        assert_eq!(breaches(path, "use tokio::sync::Notify;"), 1);
        assert_eq!(breaches(path, "async fn f() {}"), 1);
        assert_eq!(breaches(path, "use std::collections::HashMap;"), 1);
        assert_eq!(breaches(path, "use proptest::option;"), 1);
        assert_eq!(breaches(path, "#[cfg(test)]\nmod tests { use proptest::option; }"), 0);
        assert_eq!(breaches("grpcrouter-protocol/src/call/tests.rs", "use proptest::option;"), 0);
        assert_eq!(breaches(path, "use bytes::Bytes;\nuse crate::window::Window;\nenum A { B }\nuse A::B;"), 0);
    }

    #[test]
    fn the_rooms_of_the_core_are_used_one_way() {
        assert_eq!(breaches("grpcrouter-protocol/src/outbox.rs", "use crate::tunnel::Tunnel;"), 1);
        assert_eq!(breaches("grpcrouter-protocol/src/call/send.rs", "use crate::schedule::Schedule;"), 1);
        assert_eq!(breaches("grpcrouter-protocol/src/window.rs", "use super::call::Call;"), 1);
        assert_eq!(breaches("grpcrouter-protocol/src/call.rs", "use crate::wire::RpcCall;"), 1);
        assert_eq!(breaches("grpcrouter-protocol/src/tunnel/tests/peer.rs", "use crate::wire::RpcCall;"), 0);
        assert_eq!(breaches("grpcrouter-protocol/src/tunnel/calls.rs", "use crate::tunnel::Tunnel;"), 0);
    }

    #[test]
    fn the_two_sides_do_not_know_each_other_and_the_tunnel_knows_neither() {
        assert_eq!(breaches("grpcrouter-runtime/src/gateway/front.rs", "use crate::backend::Backend;"), 1);
        assert_eq!(breaches("grpcrouter-runtime/src/backend.rs", "use crate::gateway::route;"), 1);
        assert_eq!(breaches("grpcrouter-runtime/src/tunnel/handle.rs", "fn f() { crate::gateway::g(); }"), 1);
        assert_eq!(breaches("grpcrouter-runtime/src/status.rs", "use crate::tunnel::TunnelHandle;"), 1);
        assert_eq!(breaches("grpcrouter-runtime/src/gateway/front.rs", "use crate::tunnel::TunnelHandle;"), 0);
    }

    #[test]
    fn forward_keeps_no_state_and_is_called_where_calls_come_in() {
        assert_eq!(breaches("grpcrouter-runtime/src/gateway/forward.rs", "use std::sync::{Arc, Mutex};"), 1);
        assert_eq!(breaches("grpcrouter-runtime/src/gateway/route.rs", "use super::forward::forward;"), 1);
        assert_eq!(breaches("grpcrouter-runtime/src/gateway/front.rs", "use super::forward::forward;"), 0);
    }

    #[test]
    fn the_generator_and_the_examples_keep_to_their_doors() {
        assert_eq!(breaches("protoc-gen-grpcrouter/src/emit.rs", "use grpcrouter_runtime::Gateway;"), 1);
        assert_eq!(
            breaches("protoc-gen-grpcrouter/src/emit.rs", "fn f() { quote!(::grpcrouter_runtime::codegen::x()) }"),
            0
        );
        assert_eq!(breaches("examples/myservice/src/service.rs", "use grpcrouter_runtime::codegen::Kind;"), 1);
        assert_eq!(
            breaches("examples/myservice/src/generated/a.rs", "fn f() { ::grpcrouter_runtime::codegen::x() }"),
            0
        );
        assert_eq!(breaches("examples/myservice/src/generated/a.rs", "use grpcrouter_runtime::Backend;"), 1);
    }

    #[test]
    fn a_public_module_or_a_dependency_too_many_is_found() {
        assert_eq!(breaches("grpcrouter-runtime/src/lib.rs", "pub mod gateway;\npub mod codegen;"), 1);
        assert_eq!(breaches("grpcrouter-protocol/Cargo.toml", "[dependencies]\ntokio = \"1\"\nbytes = \"1\"\n"), 1);
        assert_eq!(
            breaches("protoc-gen-grpcrouter/Cargo.toml", "[dependencies]\ngrpcrouter-runtime.workspace = true\n"),
            1
        );
    }

    #[test]
    fn a_rule_for_a_room_that_is_gone_is_found() {
        assert!(!rules_without_a_room(&Tree::sample(&[])).is_empty());
    }
}
