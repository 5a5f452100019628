#!/usr/bin/env bash
# A site whose only way out is a proxy, as a network namespace: the agent in it reaches a gateway outside through
# Debian's tinyproxy, with a password, TLS and a token, and calls from outside are answered inside; nothing else gets out.
# Needs root, iproute2, tinyproxy and protoc (`make install-deps`). Its one argument is the folder of the programs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin="$(cd "${1:?the folder of the programs}" && pwd)"

fail() {
    printf 'ways-out: %s\n' "$*" >&2
    for log in "${work:-/nowhere}"/*.log; do
        [ ! -s "$log" ] || { printf -- '---- %s\n' "${log##*/}" && tail -n 15 "$log"; } >&2
    done
    exit 1
}
for tool in ip tinyproxy protoc; do
    command -v "$tool" >/dev/null || fail "no $tool: run 'make install-deps' first"
done
[ "$(id -u)" -eq 0 ] || fail "network namespaces need root: run it as root, or with sudo"

# Both sides are namespaces of their own, so nothing of this machine's network is touched.
site="grpcrouter-site-$$" world="grpcrouter-world-$$"
work="$(mktemp -d)"
pids=()
cleanup() {
    for pid in ${pids[@]+"${pids[@]}"}; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    ip netns del "$site" 2>/dev/null || true
    ip netns del "$world" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

ip netns add "$site" || fail "the kernel gives no network namespaces here"
ip netns add "$world"
ip -n "$site" link add out type veth peer name in netns "$world"
ip -n "$site" addr add 192.0.2.2/30 dev out
ip -n "$world" addr add 192.0.2.1/30 dev in
# Where the gateway is. The site has no route to it: only to the proxy, at the other end of its wire.
ip -n "$world" addr add 198.51.100.7/32 dev lo
for device in "$site lo" "$site out" "$world lo" "$world in"; do
    # shellcheck disable=SC2086
    set -- $device
    ip -n "$1" link set "$2" up
done
gateway="https://198.51.100.7" proxy="http://ana:ge%68eim@192.0.2.1:8888"

# Runs in a namespace, with nothing of this machine's own settings of proxies and tokens.
within() {
    local where="$1"
    shift
    ip netns exec "$where" env -i PATH="$PATH" HOME="$work" "$@"
}
# The same as a process in the background, whose number is that of the program itself: what is killed at the end is it,
# and not a shell before it.
start() {
    local where="$1"
    shift
    exec ip netns exec "$where" env -i PATH="$PATH" HOME="$work" "$@"
}
# Waits until a line of a log says so.
until_log() {
    local log="$1" text="$2" tries=0
    until grep -qF "$text" "$work/$log.log" 2>/dev/null; do
        tries=$((tries + 1))
        [ "$tries" -lt 300 ] || fail "$log never said: $text"
        sleep 0.1 # waits because a log is asked, which does not tell
    done
}
# A command in the site must fail, and say these words.
says() {
    local out="$1"
    shift
    if within "$site" "$@" >"$work/said" 2>&1; then fail "it should have failed: $*"; fi
    grep -qF -- "$out" "$work/said" || fail "it did not say \"$out\" but: $(cat "$work/said")"
    printf 'ways-out: ok: %s\n' "$out"
}

"$bin/grpcrouter" certs dev "$work/certs" --host 198.51.100.7 >/dev/null
"$bin/grpcrouter" token create site-a --file "$work/registration.toml" --services 'myservice.*' >"$work/token" 2>/dev/null
protoc -I . -I examples/myservice --include_imports --descriptor_set_out "$work/set.bin" examples/myservice/service.proto

cat >"$work/tinyproxy.conf" <<CONF
Port 8888
Listen 192.0.2.1
Timeout 600
MaxClients 100
BasicAuth ana geheim
ConnectPort 443
LogLevel Info
CONF
start "$world" tinyproxy -d -c "$work/tinyproxy.conf" >"$work/tinyproxy.log" 2>&1 &
pids+=($!)
start "$world" "$bin/grpcrouter" gateway --any-service --listen 198.51.100.7:443 --registration "$work/registration.toml" \
    --tls-cert "$work/certs/server.pem" --tls-key "$work/certs/server-key.pem" >"$work/gateway.log" 2>&1 &
pids+=($!)
start "$site" "$bin/myservice-backend" --mode direct --listen 127.0.0.1:50051 --instance-id a >"$work/server.log" 2>&1 &
pids+=($!)
until_log tinyproxy "Accepting connections"
until_log gateway "198.51.100.7:443"
until_log server "listening on"

check=("$bin/grpcrouter" check --gateway "$gateway" --service myservice.MyService --instance-id a)
tls=(--ca-file "$work/certs/ca.pem")
token=(--token-file "$work/token")
echo "grt_forged" >"$work/forged"
says "Network is unreachable" "${check[@]}" "${tls[@]}" "${token[@]}"
says "If a proxy is the only way out, name it" "${check[@]}" "${tls[@]}" "${token[@]}"
says "it asks for a user and a password (407)" "${check[@]}" "${tls[@]}" --proxy http://192.0.2.1:8888
says "it does not take the user and the password of its URL (401)" "${check[@]}" --proxy http://ana:wrong@192.0.2.1:8888
says "it refuses to (403" "$bin/grpcrouter" check --gateway https://198.51.100.7:8443 --proxy "$proxy"
says "which is not trusted here" "${check[@]}" --proxy "$proxy"
says "(UNAUTHENTICATED)" "${check[@]}" "${tls[@]}" --proxy "$proxy"
says "(UNAUTHENTICATED)" "${check[@]}" "${tls[@]}" --proxy "$proxy" --token-file "$work/forged"
says "(PERMISSION_DENIED)" "$bin/grpcrouter" check --gateway "$gateway" --service shop.Orders "${tls[@]}" "${token[@]}" --proxy "$proxy"
within "$site" HTTPS_PROXY="$proxy" "${check[@]}" "${tls[@]}" "${token[@]}" >"$work/check.log" 2>&1 || fail "the check failed"
grep -qF 'let in as "a-check"' "$work/check.log" || fail "the check did not register"
cat "$work/check.log"

start "$site" HTTPS_PROXY="$proxy" "$bin/grpcrouter" agent --gateway "$gateway" --upstream 127.0.0.1:50051 \
    --service myservice.MyService --instance-id a "${tls[@]}" "${token[@]}" >"$work/agent.log" 2>&1 &
pids+=($!)
until_log agent "registered at"
call() {
    within "$world" "$bin/grpcrouter" call --gateway "$gateway" --ca-file "$work/certs/ca.pem" \
        --descriptor-set "$work/set.bin" --timeout 20s "$@" 2>"$work/call.log" || fail "the call failed: $*"
}
call myservice.MyService/Method1 '{"text": "through the proxy"}' | grep -qF "through the proxy" || fail "no answer"
answers="$(call myservice.MyService/StreamMethod '{"text": "one"} {"text": "two"}' | wc -l)"
[ "$answers" -eq 2 ] || fail "a stream of two had $answers answers"
for secret in geheim ge%68eim "$(cat "$work/token")"; do
    ! grep -lF -- "$secret" "$work"/{agent,gateway,check}.log || fail "a secret is in that log"
done
echo "ways-out: calls were answered in the site, and nothing else got out of it"
