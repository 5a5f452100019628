"""What docs/DEPLOY.md says of an upgrade: two gateways, each instance at both, one restarted after the other, no call lost."""

import threading

import grpc

import languages
import programs

SERVICE = "user.UserService"
CLIENTS = 4
# Answered between two steps, so that each step is taken under load.
CALLS = 50


class Gateway(programs.Program):
    """One that lets calls wait for an instance: after a restart clients may be back before instances are."""

    def __init__(self, folder, address):
        config = folder / f"{address}.toml"
        config.write_text(f'listen = "{address}"\n[services."{SERVICE}".routes]\nwait_for_instance = true\n')
        super().__init__("grpcrouter", "gateway", "--config", config, env={"GRPCROUTER_LOG": "debug"})
        self.says("listening on")


class Load:
    """Clients that call without a pause, and what became of it."""

    def __init__(self, call):
        self.answered = 0
        self.failed = []
        self._call = call
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while not self._stop.is_set():
            try:
                self._call()
                self.answered += 1
            except grpc.RpcError as error:
                self.failed.append((error.code(), error.details()))

    def go_on(self):
        wanted = self.answered + CALLS
        programs.eventually(lambda: self.failed or self.answered >= wanted, f"{CALLS} calls more are answered")
        assert self.failed == []

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(programs.PATIENCE)


def test_gateways_that_are_restarted_one_after_the_other_fail_no_call(tmp_path, protos, users):
    user_pb2, user_pb2_grpc = users
    addresses = [programs.free_address() for _ in range(2)]
    running = [languages.Go(protos).server().program]
    try:
        gateways = [Gateway(tmp_path, address) for address in addresses]
        running += gateways
        flags = [flag for address in addresses for flag in ("--gateway", f"http://{address}")]
        upstream = "localhost:" + running[0].lines[0].split()[-1]
        agent = programs.Program("grpcrouter", "agent", *flags, "--upstream", upstream, "--service", SERVICE)
        running.append(agent)
        agent.says("registered at")
        options = [
            ("grpc.lb_policy_name", "round_robin"),
            # Python makes a list of addresses into one authority, which HTTP/2 libraries refuse as none.
            ("grpc.default_authority", "gateways"),
        ]
        with grpc.insecure_channel("ipv4:" + ",".join(addresses), options=options) as channel:
            stub = user_pb2_grpc.UserServiceStub(channel)
            load = Load(lambda: list(stub.ListUsers(user_pb2.ListUsersRequest(), timeout=programs.PATIENCE)))
            try:
                load.go_on()
                for index, address in enumerate(addresses):
                    gateways[index].terminate()
                    load.go_on()
                    gateways[index] = Gateway(tmp_path, address)
                    running.append(gateways[index])
                    # The instance is back, and the client too.
                    gateways[index].says("call ended", "OK")
                    load.go_on()
            finally:
                load.stop()
        agent.terminate()
    finally:
        for program in running:
            program.kill()

    assert load.failed == []
