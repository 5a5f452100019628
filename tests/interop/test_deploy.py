"""docs/DEPLOY.md and deploy/ are true: the page's commands run in its order, and each file names only what there is."""

import configparser
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import grpc
import pytest
import yaml

import languages
import programs

PAGE = programs.ROOT / "docs" / "DEPLOY.md"
DEPLOY = programs.ROOT / "deploy"
PROGRAM = programs.BIN / "grpcrouter"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
PROBES = ["livenessProbe", "readinessProbe"]
# The ports that the page uses, each for another one that is free.
PORTS = ["8443", "8444", "9090", "50051"]
# What the programs say when what was started in the background is there.
READY = ["listening on", "registered at"]


def text_blocks(language):
    """The fenced blocks of the page in one language, with the line of each."""
    text = PAGE.read_text()
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, match.start()) + 2, match.group(1)) for match in found]


def help_of(*subcommand):
    done = subprocess.run([PROGRAM, *subcommand, "--help"], capture_output=True, text=True, timeout=programs.PATIENCE)
    assert done.returncode == 0, f"grpcrouter {' '.join(subcommand)}: {done.stderr}"
    return done.stdout


def check_command(words):
    """That a command line of the program names a subcommand and flags that it has."""
    depth = 2 if words[0] in ("token", "certs") else 1
    known = help_of(*words[:depth])
    for word in words[depth:]:
        flag = word.partition("=")[0]
        if flag.startswith("--"):
            assert re.search(rf"{flag}(?![\w-])", known), f"{' '.join(words[:depth])} has no {flag}:\n{known}"


def commands(text):
    """The command lines of the program in a shell text."""
    subcommands = "gateway|agent|check|call|token|certs|instances|services"
    for line in text.replace("\\\n", " ").splitlines():
        found = re.search(rf"(?:^|\s|/)grpcrouter ((?:{subcommands})(?:\s.*|$))", line)
        if found and not line.lstrip().startswith("#"):
            yield shlex.split(re.split(r"[|>&;]", found.group(1))[0])


# ---- the page


class Machine:
    """A folder in which the blocks of the page are run, one after the other, and what they leave running."""

    def __init__(self, folder, ports, generated):
        self.folder = folder
        self.ports = ports
        self.log = folder / "log"
        self.log.touch()
        self.seen = 0
        self.sessions = []
        bin = folder / "bin"
        bin.mkdir()
        (bin / "grpcrouter").symlink_to(PROGRAM)
        self.env = os.environ | {
            "PATH": f"{bin}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(generated),
            "NO_COLOR": "1",
        }
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            self.env.pop(name, None)

    def here(self, text):
        for printed, free in self.ports.items():
            text = re.sub(rf"\b{printed}\b", free, text)
        return text

    def write(self, block):
        """A block whose first line is `# NAME` is a file of that name."""
        name = block.splitlines()[0].removeprefix("# ")
        (self.folder / name).write_text(self.here(block))

    def run(self, line, block):
        with self.log.open("a") as log:
            shell = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", self.here(block)],
                cwd=self.folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.sessions.append(shell.pid)
        code = shell.wait(2 * programs.PATIENCE)
        assert code == 0, f"{PAGE.name}:{line} ended with {code}:\n{block}\n{self.log.read_text()}"
        if re.search(r"&$", block, re.MULTILINE):
            programs.eventually(self.is_ready, f"what {PAGE.name}:{line} starts is ready:\n{self.log.read_text()}")

    def is_ready(self):
        """One more program has said that it is there."""
        ready = sum(self.log.read_text().count(text) for text in READY)
        if ready > self.seen:
            self.seen = ready
            return True
        return False

    def end(self):
        for session in self.sessions:
            try:
                os.killpg(session, signal.SIGKILL)
            except ProcessLookupError:
                pass


def free_ports():
    ports = set()
    while len(ports) < len(PORTS):
        ports.add(programs.free_address().rpartition(":")[2])
    return dict(zip(PORTS, ports))


def test_every_command_of_the_page_runs_as_it_stands(protos, tmp_path):
    for tool in ("curl", "openssl"):
        languages.need(tool)
    generated = tmp_path / "generated"
    generated.mkdir()
    protos.generate(f"--python_out={generated}", f"--grpc_python_out={generated}")
    server = languages.Go(protos).server()
    folder = tmp_path / "machine"
    folder.mkdir()
    machine = Machine(folder, free_ports() | {"50051": server.address.rpartition(":")[2]}, generated)
    try:
        for _, block in text_blocks("toml") + text_blocks("python"):
            machine.write(block)
        for line, block in text_blocks("sh"):
            machine.run(line, block)
        said = machine.log.read_text()
        codes = codes_with_and_without_a_key(machine)
    finally:
        machine.end()
        server.program.kill()

    assert re.search(r'"name": ?"Ada"', said), said
    assert "Created user: 2" in said, said
    for secret in ("site-a.token", "cy.key"):
        assert (folder / secret).read_text().strip() not in said, f"{secret} was shown"
    # Nobody brings the service there: who is let in is told that.
    assert codes == (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED)


def codes_with_and_without_a_key(machine):
    """What a gateway with the settings that the page ends with says to Cy, and to somebody else. Probes need no key."""
    folder = machine.folder
    free = [f for flag in ("--listen", "--admin-listen", "--metrics-listen") for f in (flag, "127.0.0.1:0")]
    gateway = programs.Program("grpcrouter", "gateway", "--config", folder / "gateway.toml", *free)
    try:
        port = gateway.says("listening on ").partition("listening on 127.0.0.1:")[2].split(",")[0]
        ca = grpc.ssl_channel_credentials((folder / "pki" / "ca.pem").read_bytes())
        with grpc.secure_channel(f"localhost:{port}", ca) as channel:
            call = channel.unary_unary("/user.UserService/GetUser")
            known = [("x-api-key", (folder / "cy.key").read_text().strip())]
            codes = tuple(code_of(call, metadata) for metadata in (known, None))
        for probe in probes():
            command = shlex.join(probe).replace("gateway.example.com:8443", f"localhost:{port}")
            machine.run(0, f"grpcrouter {command} --ca-file pki/ca.pem | grep SERVING")
        gateway.terminate()
    finally:
        gateway.kill()
    return codes


def code_of(call, metadata):
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", metadata=metadata, timeout=programs.PATIENCE)
    return caught.value.code()


def test_every_command_and_variable_that_is_named_exists():
    texts = [PAGE, *DEPLOY.rglob("*")]
    texts = {path: path.read_text() for path in texts if path.is_file()}
    known = " ".join(help_of(name) for name in ("gateway", "agent", "check", "call")) + help_of()
    found = 0
    for path, text in texts.items():
        for words in commands(text):
            check_command(words)
            found += 1
        for variable in set(re.findall(r"GRPCROUTER_[A-Z_]+", text)):
            assert variable in known, f"{path.name} names {variable}, which no --help knows"
    assert found >= 15


def test_every_file_that_the_page_links_to_exists():
    for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target


def test_the_example_of_who_may_register_takes_a_token(tmp_path):
    shutil.copy(DEPLOY / "registration.toml", tmp_path)

    def token(*words):
        command = [PROGRAM, "token", *words, "--file", tmp_path / "registration.toml", "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=programs.PATIENCE)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert token("create", "site-a")["token"].startswith("grt_")
    assert [(principal["name"], len(principal["tokens"])) for principal in token("list")] == [("site-a", 1), ("site-b", 0)]


# ---- systemd


def unit(path):
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read_string(path.read_text())
    return parser


def test_the_units_are_hardened_and_leave_time_to_drain():
    assert [path.name for path in UNITS] == ["grpcrouter-agent.service", "grpcrouter-gateway.service"]
    for path in UNITS:
        service = unit(path)["Service"]
        wanted = {"DynamicUser": "yes", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "KillSignal": "SIGTERM"}
        assert {key: service[key] for key in wanted} == wanted, path.name
        assert int(service["TimeoutStopSec"]) > 30, f"{path.name}: the default drain timeout is 30 s"
        check_command(service["ExecStart"].split()[1:])
    assert int(unit(UNITS[1])["Service"]["LimitNOFILE"]) >= 65536


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_finds_no_mistake_in_the_units(tmp_path):
    for path in UNITS:
        # The program is not installed where the unit expects it.
        copy = tmp_path / path.name
        copy.write_text(path.read_text().replace("/usr/local/bin/grpcrouter", str(PROGRAM)))
        done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, timeout=programs.PATIENCE)
        # It also speaks of the units of the machine itself.
        assert path.name not in done.stdout + done.stderr, done.stderr


# ---- containers


def test_the_image_is_small_runs_as_nobody_and_holds_no_secret():
    lines = [line.split(maxsplit=1) for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line and line[0] != "#"]
    stages = [rest for word, rest in lines if word == "FROM"]
    rust = re.search(r'^rust-version = "(.*)"', (programs.ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)

    assert stages[0].startswith(f"rust:{rust}-") and stages[0].endswith(" AS build")
    assert "distroless" in stages[1] and stages[1].endswith(":nonroot")
    assert ["USER", "nonroot"] in lines
    assert not [word for word, _ in lines if word in ("ENV", "ARG", "ADD")]
    # Only the program crosses from the first stage to the second.
    crosses = "--from=build /src/target/release/grpcrouter /usr/local/bin/grpcrouter"
    assert [rest for word, rest in lines if word == "COPY"] == [". .", crosses]
    entry = json.loads(next(rest for word, rest in lines if word == "ENTRYPOINT"))
    assert entry == ["/usr/local/bin/grpcrouter"]


def resources():
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def workloads():
    return [resource for resource in resources() if "template" in resource.get("spec", {})]


def test_the_manifests_fit_together():
    found = resources()
    labels = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads()]
    for resource in found:
        kind, spec = resource["kind"], resource.get("spec", {})
        selector = spec.get("selector", {})
        selector = selector.get("matchLabels", selector)
        selector = {key: value for key, value in selector.items() if not key.startswith("statefulset.kubernetes.io/")}
        assert any(selector.items() <= one.items() for one in labels), f"{kind} selects nothing"
    kinds = {resource["kind"] for resource in found}
    assert kinds == {"ConfigMap", "StatefulSet", "Deployment", "Service", "PodDisruptionBudget"}, "secrets are only named"
    services = {resource["metadata"]["name"] for resource in found if resource["kind"] == "Service"}
    for workload in workloads():
        assert workload["spec"].get("serviceName", "grpcrouter") in services
        pod = workload["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        ports = set()
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
            ports |= {port["name"] for port in container.get("ports", [])}
        assert "grpc" in ports
        hooks = [container["lifecycle"]["preStop"] for container in pod["containers"] if "lifecycle" in container]
        stop = max(hook["sleep"]["seconds"] for hook in hooks)
        assert pod["terminationGracePeriodSeconds"] > stop + 30, "the drain timeout is 30 s"


def test_the_pods_are_hardened_and_probed():
    for workload in workloads():
        pod = workload["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert any("readinessProbe" in container for container in pod["containers"])
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]


def probes():
    """The command lines by which the pods of the gateway are probed."""
    pods = [workload["spec"]["template"]["spec"] for workload in workloads()]
    named = [container.get(name, {}) for pod in pods for container in pod["containers"] for name in PROBES]
    found = [probe["exec"]["command"] for probe in named if "exec" in probe]
    assert len(found) == 2 and all(command[0] == "/usr/local/bin/grpcrouter" for command in found)
    return [command[1:] for command in found]


def test_the_pods_start_and_probe_the_program_with_what_it_has():
    started = [
        container["args"]
        for workload in workloads()
        for container in workload["spec"]["template"]["spec"]["containers"]
        if container["image"].startswith("grpcrouter:")
    ]
    assert [words[0] for words in started] == ["agent", "gateway"]
    for words in started + probes():
        check_command(words)


def test_the_configuration_of_the_pods_is_one_that_the_gateway_takes(tmp_path):
    config = next(resource for resource in resources() if resource["kind"] == "ConfigMap")["data"]["gateway.toml"]

    def program(*words):
        return subprocess.run([PROGRAM, *words], cwd=tmp_path, capture_output=True, text=True, timeout=programs.PATIENCE)

    assert program("certs", "dev", "pki").returncode == 0
    assert program("token", "create", "a", "--file", "registration.toml", "--services", "*").returncode == 0
    (tmp_path / "api-keys.toml").write_text(f'[[key]]\nname = "cy"\nid = "1"\nhash = "sha256:{"0" * 64}"\n')
    mounts = {"tls/tls.crt": "pki/server.pem", "tls/tls.key": "pki/server-key.pem", "registration/": "", "callers/": ""}
    for mounted, file in mounts.items():
        config = languages.replaced(config, f"/etc/grpcrouter/{mounted}", f"{tmp_path}/{file}")
    (tmp_path / "gateway.toml").write_text(config)

    done = program("gateway", "--config", "gateway.toml", "--check-config")

    assert done.returncode == 0, done.stderr
