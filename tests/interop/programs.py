"""The programs under test: started on free ports, watched by what they print, and ended."""

import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("GRPCROUTER_BIN", ROOT / "target" / "debug"))
# Longer than anything here takes on a busy machine.
PATIENCE = 20


class Program:
    """A child process and the lines that it has printed to either output."""

    def __init__(self, name, *arguments, env=None):
        path = BIN / name
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there: 'make interop' builds it, or set GRPCROUTER_BIN")
        self.name = name
        self.lines = []
        self._printed = threading.Condition()
        self._ended = False
        self.process = subprocess.Popen(
            [str(path), *arguments],
            env=os.environ | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            with self._printed:
                self.lines.append(line.rstrip("\n"))
                self._printed.notify_all()
        with self._printed:
            self._ended = True
            self._printed.notify_all()

    def says(self, *parts, since=0):
        """The first line from number `since` on that holds all parts; waits for it."""

        def found():
            return next((line for line in self.lines[since:] if all(part in line for part in parts)), None)

        with self._printed:
            self._printed.wait_for(lambda: found() is not None or self._ended, PATIENCE)
            line = found()
        assert line is not None, f"{self.name} did not say {parts}, but:\n" + "\n".join(self.lines)
        return line

    def terminate(self):
        """SIGTERM; the program must end by itself, with code 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert code == 0, f"{self.name} ended with {code}:\n" + "\n".join(self.lines)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stdout.close()


class Gateway(Program):
    """The example's gateway on a free port."""

    def __init__(self):
        super().__init__("myservice-gateway", "--listen", "127.0.0.1:0")
        self.address = self.says("listening on 127.0.0.1:").split()[-1]


class Backend(Program):
    """The example's backend; `gateway` to dial out to, `listen` to be called directly, or both."""

    def __init__(self, instance_id, gateway=None, listen=None):
        mode = "both" if gateway and listen else "router" if gateway else "direct"
        arguments = ["--mode", mode, "--instance-id", instance_id]
        if gateway:
            arguments += ["--gateway", f"http://{gateway.address}"]
        if listen:
            arguments += ["--listen", listen]
        known = len(gateway.lines) if gateway else 0
        super().__init__("myservice-backend", *arguments)
        if gateway:
            gateway.says(instance_id, since=known)
        if listen:
            self.says(listen)


class DevGateway(Program):
    """The ready-made gateway, which takes any service, on a free port."""

    def __init__(self):
        free = "127.0.0.1:0"
        super().__init__("grpcrouter", "gateway", "--dev", "--listen", free, "--admin-listen", free)
        self.address = self.says("listening on ").partition("listening on ")[2].split(",")[0]


class Agent(Program):
    """The ready-made backend in front of a server that knows nothing of us; ready when the gateway has it."""

    def __init__(self, gateway, upstream, services=()):
        flags = [flag for service in services for flag in ("--service", service)]
        super().__init__("grpcrouter", "agent", "--gateway", f"http://{gateway.address}", "--upstream", upstream, *flags)
        self.says("registered at")


def free_address():
    """An address that nothing listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % probe.getsockname()[1]


def eventually(check, what):
    """Asks again until it is so: for what can only be asked, not waited for."""
    end = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < end, f"never came true: {what}"
        time.sleep(0.01)  # waits because there is nothing to be woken by
