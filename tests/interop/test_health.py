"""Python's gRPC asks a gateway for its health, and lets its own channels depend on it."""

import json

import grpc
import pytest

import programs

SERVICE = "myservice.MyService"
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


class Health:
    """grpc.health.v1.Health, whose messages have one field each: a stub without generated code."""

    def __init__(self, channel):
        codec = {"request_serializer": question, "response_deserializer": status}
        self.check = channel.unary_unary("/grpc.health.v1.Health/Check", **codec)
        self.watch = channel.unary_stream("/grpc.health.v1.Health/Watch", **codec)


def question(service):
    name = service.encode()
    return b"\x0a" + bytes([len(name)]) + name if name else b""


def status(answer):
    assert answer[:1] == b"\x08" and len(answer) == 2, answer
    return answer[1]


def test_a_gateway_tells_its_health_and_that_of_its_services(gateway, connect):
    health = Health(connect(gateway.address))
    watch = health.watch(SERVICE, timeout=programs.PATIENCE)
    unknown = health.watch("shop.Nothing", timeout=programs.PATIENCE)
    assert (health.check("", timeout=10), next(watch), next(unknown)) == (SERVING, NOT_SERVING, SERVICE_UNKNOWN)
    with pytest.raises(grpc.RpcError) as caught:
        health.check("shop.Nothing", timeout=10)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    backend = programs.Backend("a", gateway=gateway)
    try:
        assert next(watch) == SERVING
        backend.terminate()
        assert next(watch) == NOT_SERVING
    finally:
        backend.kill()
    watch.cancel()
    unknown.cancel()


@pytest.mark.parametrize("service", ["", SERVICE])
def test_grpcs_own_health_checks_hold_a_channel_back_until_the_service_serves(gateway, service):
    config = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": service}}
    options = [("grpc.service_config", json.dumps(config)), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(gateway.address, options=options) as channel:
        ready = grpc.channel_ready_future(channel)
        if service:
            with pytest.raises(grpc.FutureTimeoutError):
                ready.result(0.5)  # waits because that it is held back is nothing to wait for
            backend = programs.Backend("a", gateway=gateway)
            ready.result(programs.PATIENCE)
            backend.terminate()
        else:
            ready.result(programs.PATIENCE)


def test_a_backend_answers_for_itself_at_its_own_port(connect):
    address = programs.free_address()
    backend = programs.Backend("a", listen=address)
    try:
        health = Health(connect(address))
        watch = health.watch("", timeout=programs.PATIENCE)
        assert (next(watch), health.check(SERVICE, timeout=10)) == (SERVING, SERVING)
        backend.terminate()
        assert next(watch) == NOT_SERVING
        with pytest.raises(grpc.RpcError) as caught:
            next(watch)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        backend.kill()
