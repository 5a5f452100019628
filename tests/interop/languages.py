"""The same two services, served and called from Python, Go and Node by programs that know nothing of grpcrouter.

python/ holds what a guide to gRPC prints, letter for letter: a .proto file, a server and a client. What it takes to run
them is done to a copy: the port of the server, the address of the client, and one import that the .proto file lacks.
"""

import importlib.resources
import os
import shutil
import subprocess
import sys

import pytest
from grpc_tools import protoc

import programs

HERE = programs.ROOT / "tests" / "interop"
TARGET = programs.BIN.parent
PRINTED_PORT = "50051"
PRINTED_ADDRESS = "localhost:50051"
PACKAGE = "package user;\n"
# user.proto names google.protobuf.Timestamp and does not import it; protoc refuses that.
IMPORT = '\nimport "google/protobuf/timestamp.proto";\n'


def need(command):
    """The path of a program; where it is not there the test is skipped, but not in CI."""
    path = shutil.which(command)
    if path is None:
        message = f"{command} is not on the PATH: see .ci/install-deps"
        pytest.fail(message) if "CI" in os.environ else pytest.skip(message)
    return path


def replaced(text, old, new):
    assert old in text, f"{old!r} is not there any more"
    return text.replace(old, new)


class Protos:
    """A folder with the .proto files, and what grpcio-tools and the plugins of Go make of them."""

    def __init__(self, folder):
        self.folder = folder
        text = (HERE / "python" / "user.proto").read_text()
        (folder / "user.proto").write_text(replaced(text, PACKAGE, PACKAGE + IMPORT))
        shutil.copy(HERE / "files.proto", folder)

    def generate(self, *options):
        google = importlib.resources.files("grpc_tools") / "_proto"
        arguments = ["protoc", f"-I{self.folder}", f"-I{google}", *options, "user.proto", "files.proto"]
        assert protoc.main(arguments) == 0, "protoc failed, see above"


class Python:
    """The printed server and client."""

    name = "python"
    # It serves neither reflection nor the second service.
    services = ["user.UserService"]
    serves_all = False

    def __init__(self, protos, folder):
        self.folder = folder
        protos.generate(f"--python_out={folder}", f"--grpc_python_out={folder}")
        self.env = {"PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def _copy(self, file, old, new):
        text = (HERE / "python" / file).read_text()
        path = self.folder / f"{new.rpartition(':')[2]}-{file}"
        path.write_text(replaced(text, old, new))
        return str(path)

    def server(self):
        port = programs.free_address().rpartition(":")[2]
        program = programs.Program(sys.executable, self._copy("server.py", PRINTED_PORT, port), env=self.env)
        return Served(program, port)

    def client(self, address):
        return [sys.executable, self._copy("client.py", PRINTED_ADDRESS, address)], self.env


class Go:
    """The module of go/, with the code that protoc and the plugins of its go.mod generate for it."""

    name = "go"
    # Its server serves reflection: the agent finds the services by itself.
    services = []
    serves_all = True

    def __init__(self, protos):
        go = need("go")
        folder = TARGET / "interop-go"
        shutil.copytree(HERE / "go", folder, dirs_exist_ok=True)
        module = "module=github.com/myorg/user"
        options = []
        for plugin in ("go", "go-grpc"):
            path = TARGET / "tools" / "bin" / f"protoc-gen-{plugin}"
            assert path.exists(), f"{path} is not there: 'make install-deps' brings it"
            options += [f"--plugin=protoc-gen-{plugin}={path}", f"--{plugin}_out={folder}", f"--{plugin}_opt={module}"]
        protos.generate(*options)
        build = [go, "build", "-mod=readonly", "-o", "bin/", "./server", "./client"]
        subprocess.run(build, cwd=folder, check=True, env=os.environ | {"GOFLAGS": "-buildvcs=false"})
        self.bin = folder / "bin"

    def server(self):
        return Served(programs.Program(self.bin / "server", "-port", "0", "-reflection"))

    def client(self, address):
        return [str(self.bin / "client"), address], {}


class Node:
    """The programs of node/, over the packages of its package-lock.json."""

    name = "node"
    services = ["user.UserService", "user.FileService"]
    serves_all = True

    def __init__(self, protos):
        self.node = need("node")
        modules = TARGET / "interop-node" / "node_modules"
        assert modules.is_dir(), f"{modules} is not there: 'make install-deps' brings it"
        self.env = {"NODE_PATH": str(modules), "PROTOS": str(protos.folder)}

    def server(self):
        return Served(programs.Program(self.node, str(HERE / "node" / "server.js"), "0", env=self.env))

    def client(self, address):
        return [self.node, str(HERE / "node" / "client.js"), address], self.env


class Served:
    """A server that has said that it listens, and its address."""

    def __init__(self, program, port=None):
        self.program = program
        try:
            ready = program.says("Server started on port")
            self.address = f"localhost:{port or ready.split()[-1]}"
        except BaseException:
            program.kill()
            raise


def run(language, address, *arguments):
    """What a language's client prints, called at the address."""
    command, env = language.client(address)
    done = subprocess.run(
        [*command, *arguments],
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * programs.PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
