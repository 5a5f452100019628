#!/bin/sh
# Builds and runs the crates beside this file as their users would: outside of the workspace. Each one is a gateway, a
# backend and a client, and prints "consumer ok" when a call was answered.
set -eu
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target/consumers}
# The workspace's profile: with the same flags and versions its crates need not be built again.
CARGO_PROFILE_DEV_OPT_LEVEL=${CARGO_PROFILE_DEV_OPT_LEVEL:-1}
CARGO_PROFILE_DEV_DEBUG=${CARGO_PROFILE_DEV_DEBUG:-line-tables-only}
export CARGO_TARGET_DIR CARGO_PROFILE_DEV_OPT_LEVEL CARGO_PROFILE_DEV_DEBUG

fail() {
    echo "consumers: $*" >&2
    exit 1
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust (https://rustup.rs)"
sh protoc/generate.sh

for consumer in buildrs protoc golden; do
    echo "consumers: $consumer"
    cp "$root/Cargo.lock" "$consumer/Cargo.lock"
    output=$(cd "$consumer" && cargo run) || fail "$consumer failed"
    echo "$output"
    case "$output" in
    *"consumer ok") ;;
    *) fail "$consumer did not print 'consumer ok'" ;;
    esac
done

# Comments in proto files are no rustdoc; in the pages of a router they must do no harm.
(cd golden && RUSTDOCFLAGS="-D warnings" cargo doc --lib --no-deps --document-private-items) ||
    fail "the pages of the routers of golden/ have warnings"

# Programs of golden/ that must not compile, each for the reason that its line `//~` names.
for mistake in golden/mistakes/*.rs; do
    name=$(basename "$mistake" .rs)
    wanted=$(sed -n 's,^//~ ,,p' "$mistake")
    [ -n "$wanted" ] || fail "$mistake does not say with //~ why it must not compile"
    if output=$(cd golden && cargo build --example "$name" 2>&1); then
        fail "$mistake compiles, and must not: $wanted"
    fi
    case "$output" in
    *"$wanted"*) echo "consumers: $name does not compile, as it must" ;;
    *) fail "$mistake does not compile, but not because of: $wanted
$output" ;;
    esac
done
