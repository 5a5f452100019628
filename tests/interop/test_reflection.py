"""Clients that know nothing but the gateway's address: they ask for the services, and call what they find."""

import json
import os
import subprocess

import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import programs

SERVICES = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "myservice.MyService",
]


@pytest.fixture
def address(gateway):
    """A gateway with one backend."""
    backend = programs.Backend("a", gateway=gateway)
    try:
        yield gateway.address
        backend.terminate()
    finally:
        backend.kill()


def test_python_lists_the_services_and_calls_one_that_it_learned(address, connect):
    channel = connect(address)
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)

    assert sorted(database.get_services()) == SERVICES
    method = pool.FindServiceByName("myservice.MyService").FindMethodByName("Method1")
    request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    call = channel.unary_unary(
        "/myservice.MyService/Method1", request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )
    answer = call(request(text="learned"), timeout=programs.PATIENCE)

    assert answer.instance_id == "a"
    assert "learned" in answer.text


def test_python_learns_the_routing_options(address, connect):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(connect(address)))

    option = pool.FindExtensionByName("grpcrouter.routes_to")
    options = GetMessageClass(pool.FindMessageTypeByName("google.protobuf.ServiceOptions"))
    told = options.FromString(pool.FindServiceByName("myservice.MyService").GetOptions().SerializeToString())

    assert option.number == 50311
    assert told.Extensions[option].routing_key == "instanceid"
    assert [extension.number for extension in pool.FindAllExtensions(option.containing_type)] == [50311]


def test_python_reads_the_files_of_the_gateways_own_services(address, connect):
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(connect(address)))

    for name in SERVICES:
        assert pool.FindServiceByName(name).full_name == name


@pytest.mark.skipif("BUF" not in os.environ, reason="buf comes with npm, see .ci/install-deps")
def test_buf_lists_the_services_and_calls_one(address, tmp_path):
    def buf(*arguments):
        done = subprocess.run(
            [os.environ["BUF"], "curl", "--http2-prior-knowledge", "--protocol", "grpc", *arguments],
            cwd=tmp_path,
            env={**os.environ, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=programs.PATIENCE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    listed = buf("--list-services", f"http://{address}").split()
    answer = json.loads(buf("--data", '{"text": "from buf"}', f"http://{address}/myservice.MyService/Method1"))

    assert "myservice.MyService" in listed
    assert answer["instanceId"] == "a"
