#!/usr/bin/env bash
# Builds what is shipped, optimised, and has speed_gate count its instructions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
command -v valgrind >/dev/null || { echo "speed-gate: no valgrind: run 'make install-deps' first" >&2; exit 1; }
cargo build --release -p myservice --bin myservice-gateway --bin myservice-backend
cargo build -p grpcrouter-tests --bin speed_gate
exec "$target/debug/speed_gate" "$target/release"
