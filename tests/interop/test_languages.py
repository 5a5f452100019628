"""Unmodified servers and clients in Python, Go and Node: what they say to each other directly they say through the tunnel."""

import concurrent.futures
import contextlib
import hashlib
import json

import grpc
import pytest
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import languages
import programs

# Of the files as they were printed, so that nobody makes them fit.
PRINTED = {
    "user.proto": "46c797cbd81ddde5950527d0ddc55563f395a9cac7d041262688d30f35d074be",
    "server.py": "b4df3170237790232e875b6b188a88c868ecbd974cffbbba1e3439d73f350704",
    "client.py": "8328c722f2e9bb3712e2ac0f1782273b37ae1b64d3b366781315956eab78bd9e",
}
CONVERSATION = """\
Created user: 1
Listing users:
  - John Doe
Server: Echo: Hello
Server: Echo: How are you?
Server: Echo: Goodbye
"""
ALL = (
    CONVERSATION
    + """\
UploadFile: 3 chunks, 300000 bytes
GetUser: NOT_FOUND: User 42 not found
  details: user 42
  initial x-trace: one,two
  trailing x-blob-bin: 00ff10
Chat with a deadline: set, DEADLINE_EXCEEDED
Chat that the client cancels: CANCELLED
UploadFile that the client cancels: CANCELLED
"""
)
NAMES = ["python", "go", "node"]


@pytest.fixture(scope="module")
def language(protos, tmp_path_factory):
    """Builds what a language needs when it is first asked for."""
    made = {
        "python": lambda: languages.Python(protos, tmp_path_factory.mktemp("python")),
        "go": lambda: languages.Go(protos),
        "node": lambda: languages.Node(protos),
    }
    built = {}

    def get(name):
        if name not in built:
            built[name] = made[name]()
        return built[name]

    return get


@pytest.fixture(params=["directly", "through the tunnel"])
def reach(request):
    """Starts a language's server and gives the address that a client is told, and the server."""
    with contextlib.ExitStack() as stack:

        def start(language):
            served = language.server()
            stack.callback(served.program.kill)
            if request.param == "directly":
                return served.address, served.program
            gateway = programs.DevGateway()
            stack.callback(gateway.kill)
            agent = programs.Agent(gateway, served.address, language.services)
            stack.callback(agent.kill)
            return gateway.address.replace("127.0.0.1", "localhost"), served.program

        yield start


def test_the_printed_files_are_as_they_were_printed():
    for name, digest in PRINTED.items():
        assert hashlib.sha256((languages.HERE / "python" / name).read_bytes()).hexdigest() == digest, name


def test_the_lock_of_the_node_packages_names_no_registry():
    lock = json.loads((languages.HERE / "node" / "package-lock.json").read_text())

    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


@pytest.mark.parametrize("server", NAMES)
@pytest.mark.parametrize("client", NAMES)
def test_a_client_has_its_conversation_with_a_server(language, reach, client, server):
    address, _ = reach(language(server))

    assert languages.run(language(client), address) == CONVERSATION


@pytest.mark.parametrize("server", ["go", "node"])
@pytest.mark.parametrize("client", ["go", "node"])
def test_all_kinds_errors_metadata_deadlines_and_cancels_are_exact(language, reach, client, server):
    address, program = reach(language(server))

    said = languages.run(language(client), address, "all")
    if server == "go":
        # Go's server resets a call whose deadline passed, at times before the client's own clock rings.
        said = said.replace("set, CANCELLED", "set, DEADLINE_EXCEEDED")
    assert said == ALL
    program.says("UploadFile is complete")
    # Node's clients end a stream before they reset it, so a server cannot tell.
    if client == "go":
        program.says("UploadFile was cut off after 1 chunks")
        programs.eventually(lambda: program.lines.count("Chat was cut off") == 2, "both chats were cut off")
        assert program.lines.count("UploadFile is complete") == 1


def test_a_python_server_with_reflection_is_found_and_shown_through_the_gateway(users, connect):
    user_pb2, user_pb2_grpc = users
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=4))
    user_pb2_grpc.add_UserServiceServicer_to_server(user_pb2_grpc.UserServiceServicer(), server)
    reflection.enable_server_reflection(["user.UserService", reflection.SERVICE_NAME], server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop, None)
        gateway = programs.DevGateway()
        stack.callback(gateway.kill)
        # Told nothing but where the server is.
        agent = programs.Agent(gateway, f"localhost:{port}")
        stack.callback(agent.kill)
        database = ProtoReflectionDescriptorDatabase(connect(gateway.address))

        assert "user.UserService" in database.get_services()
        methods = database.FindFileContainingSymbol("user.UserService").service[0].method
        assert [method.name for method in methods] == ["GetUser", "CreateUser", "ListUsers", "Chat"]
        agent.terminate()
