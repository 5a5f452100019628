#!/usr/bin/env bash
# Counts the instructions of one pick among 10 and among 10,000 instances, for each balancing. What it takes to make the
# instances is the same for few picks and for many, so the difference is the picks alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
command -v valgrind >/dev/null || { echo "pick-gate: no valgrind: run 'make install-deps' first" >&2; exit 1; }
program="$(cargo test -p grpcrouter-runtime --lib --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1)"
[ -x "$program" ] || { echo "pick-gate: the tests of grpcrouter-runtime do not build" >&2; exit 1; }

few=1000
many=6000
counted() {
    local out
    out="$(BALANCING="$1" AMONG="$2" PICKS="$3" valgrind --tool=callgrind --callgrind-out-file=/dev/null "$program" \
        --exact gateway::balancer::tests::as_many_picks_as_are_asked_for_find_somebody --test-threads=1 2>&1)"
    case "$out" in
    *'1 passed'*) sed -n 's/.*Collected : \([0-9]*\).*/\1/p' <<<"$out" ;;
    *) echo "pick-gate: $out" >&2; return 1 ;;
    esac
}

failed=0
for balancing in ROUND_ROBIN WEIGHTED_ROUND_ROBIN LEAST_REQUEST PEAK_EWMA CONSISTENT_HASH RANDOM; do
    costs=()
    for among in 10 10000; do
        costs+=($((($(counted $balancing $among $many) - $(counted $balancing $among $few)) / (many - few))))
    done
    # The logarithm of 10,000 is four times that of 10.
    verdict=passed
    if [ "${costs[1]}" -gt $((4 * costs[0])) ]; then verdict=FAILED failed=1; fi
    echo "pick-gate: $balancing: ${costs[0]} instructions among 10, ${costs[1]} among 10,000: $verdict"
done
exit "$failed"
