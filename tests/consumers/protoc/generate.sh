#!/bin/sh
# Generates src/gen with protoc and three plugins: prost's, tonic's and ours. Needs cargo and the first two plugins;
# protoc is $PROTOC, the one on PATH, or the one that comes with the plugin's own tests.
set -eu
cd "$(dirname "$0")"
root=$(cd ../../.. && pwd)
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target/consumers}
export CARGO_TARGET_DIR

fail() {
    echo "generate.sh: $*" >&2
    exit 1
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust (https://rustup.rs)"
for plugin in protoc-gen-prost protoc-gen-tonic; do
    command -v "$plugin" >/dev/null ||
        fail "$plugin is not on PATH: run 'make install-deps' and then 'make consumers', or 'cargo install $plugin@0.5.0'"
done

(cd "$root" && cargo build --quiet -p protoc-gen-grpcrouter) || fail "protoc-gen-grpcrouter cannot be built"
router_plugin=$CARGO_TARGET_DIR/debug/protoc-gen-grpcrouter
if [ -z "${PROTOC:-}" ]; then
    PROTOC=$(command -v protoc) ||
        PROTOC=$(cd "$root" && cargo run --quiet -p protoc-gen-grpcrouter --example vendored-protoc) ||
        fail "protoc is missing: install protobuf-compiler, or set PROTOC"
fi

rm -rf src/gen
mkdir -p src/gen/inserted src/gen/include/proto
"$router_plugin" --print-options-proto >src/gen/include/proto/options.proto

# The router beside its proto file's path; main.rs includes it.
"$PROTOC" -I proto -I src/gen/include --plugin="protoc-gen-grpcrouter=$router_plugin" \
    --prost_out=src/gen --tonic_out=src/gen \
    --grpcrouter_out=src/gen --grpcrouter_opt=paths=source_relative \
    proto/orders.proto

# The router in prost's own file, as protoc-gen-tonic does it.
"$PROTOC" -I proto -I src/gen/include --plugin="protoc-gen-grpcrouter=$router_plugin" \
    --prost_out=src/gen/inserted --tonic_out=src/gen/inserted \
    --grpcrouter_out=src/gen/inserted --grpcrouter_opt=insert_include \
    proto/orders.proto
