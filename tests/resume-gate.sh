#!/usr/bin/env bash
# Builds what is shipped, optimised, and counts what it costs a call that its tunnel could be resumed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
command -v valgrind >/dev/null || { echo "resume-gate: no valgrind: run 'make install-deps' first" >&2; exit 1; }
cargo build --release -p myservice -p grpcrouter --bin myservice-backend --bin grpcrouter
cargo build -p grpcrouter-tests --bin speed_gate
exec "$target/debug/speed_gate" "$target/release" resume
