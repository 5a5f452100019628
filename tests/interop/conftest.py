"""Fixtures: the generated Python code, and the programs that the tests talk to."""

import importlib
import sys

import grpc
import pytest
from grpc_tools import protoc
from importlib import resources

import languages
import programs


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """A folder with what grpcio-tools makes of the .proto files; on the path for imports."""
    out = tmp_path_factory.mktemp("generated")
    files = ["proto/options.proto", "proto/router.proto", "examples/myservice/service.proto"]
    arguments = [
        "protoc",
        f"-I{programs.ROOT}",
        f"-I{resources.files('grpc_tools') / '_proto'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        *files,
    ]
    assert protoc.main(arguments) == 0, "protoc failed, see above"
    for folder in ("proto", "examples", "examples/myservice"):
        (out / folder / "__init__.py").touch()
    sys.path.insert(0, str(out))
    yield out
    sys.path.remove(str(out))


@pytest.fixture(scope="session")
def router(generated):
    """The messages of proto/router.proto."""
    return importlib.import_module("proto.router_pb2")


@pytest.fixture(scope="session")
def router_grpc(generated):
    """The stub of proto/router.proto."""
    return importlib.import_module("proto.router_pb2_grpc")


@pytest.fixture(scope="session")
def service(generated):
    """The messages of the example."""
    return importlib.import_module("examples.myservice.service_pb2")


@pytest.fixture(scope="session")
def service_grpc(generated):
    """The stub of the example."""
    return importlib.import_module("examples.myservice.service_pb2_grpc")


@pytest.fixture(scope="session")
def protos(tmp_path_factory):
    """The .proto files of the services that several languages serve."""
    return languages.Protos(tmp_path_factory.mktemp("protos"))


@pytest.fixture(scope="session")
def users(protos, tmp_path_factory):
    """The messages and the stub of the user service."""
    out = tmp_path_factory.mktemp("users")
    protos.generate(f"--python_out={out}", f"--grpc_python_out={out}")
    sys.path.insert(0, str(out))
    yield importlib.import_module("user_pb2"), importlib.import_module("user_pb2_grpc")
    sys.path.remove(str(out))


@pytest.fixture
def gateway():
    """A gateway of one test's own; it must end well however the test used it."""
    program = programs.Gateway()
    try:
        yield program
        program.terminate()
    finally:
        program.kill()


@pytest.fixture
def connect():
    """Opens channels, each with a connection of its own, and closes them at the end."""
    channels = []

    def open_channel(address):
        channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        channels.append(channel)
        grpc.channel_ready_future(channel).result(programs.PATIENCE)
        return channel

    yield open_channel
    for channel in channels:
        channel.close()


@pytest.fixture
def client(gateway, connect, service_grpc):
    """An ordinary client of the example, which knows a gateway's address and nothing else."""
    return service_grpc.MyServiceStub(connect(gateway.address))
