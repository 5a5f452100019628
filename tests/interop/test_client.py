"""Python's gRPC as the client of services that only dialled out: it must not notice."""

import queue

import grpc
import pytest

import programs

TIMEOUT = 10


@pytest.fixture(scope="module")
def fleet():
    """A gateway with two backends that only dial out, and one that listens as well."""
    started = []
    try:
        gateway = programs.Gateway()
        started.append(gateway)
        listen = programs.free_address()
        for instance, address in (("a", None), ("b", None), ("c", listen)):
            started.append(programs.Backend(instance, gateway=gateway, listen=address))
        yield gateway.address, listen
        for program in reversed(started):
            program.terminate()
    finally:
        for program in started:
            program.kill()


@pytest.fixture(params=["through the gateway", "direct"])
def stub(request, fleet, connect, service_grpc):
    """The same client, with the same code, at either door."""
    return service_grpc.MyServiceStub(connect(fleet[0] if request.param == "through the gateway" else fleet[1]))


@pytest.fixture
def channel(fleet, connect):
    return connect(fleet[0])


@pytest.fixture
def client(channel, service_grpc):
    return service_grpc.MyServiceStub(channel)


def key(instance):
    return (("instanceid", instance),)


def failure(call, *arguments, **keywords):
    """The error that a unary call ends with."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, timeout=TIMEOUT, **keywords)
    return caught.value


# ---- four kinds


def test_unary(stub, service):
    answer = stub.Method1(service.Method1Request(text="grüße"), timeout=TIMEOUT)
    assert answer.text == "grüße"
    assert answer.instance_id in "abc"


def test_server_streaming(stub, service):
    answers = list(stub.Method2(service.Method2Request(text="x", count=5), timeout=TIMEOUT))
    assert [(answer.text, answer.index) for answer in answers] == [("x", index) for index in range(5)]
    assert len({answer.instance_id for answer in answers}) == 1, "one call is answered by one instance"


def test_server_streaming_without_any_message(stub, service):
    assert list(stub.Method2(service.Method2Request(text="x", count=0), timeout=TIMEOUT)) == []


def test_client_streaming(stub, service):
    messages = (service.Method3Request(text=text) for text in ("one", "two", "three"))
    answer = stub.Method3(messages, timeout=TIMEOUT)
    assert (answer.count, answer.text) == (3, "one two three")


def test_client_streaming_without_any_message(stub, service):
    answer = stub.Method3(iter(()), timeout=TIMEOUT)
    assert (answer.count, answer.text) == (0, "")


def test_bidi_streaming_each_answer_comes_before_the_next_message_goes(stub, service):
    messages = queue.Queue()
    call = stub.StreamMethod(iter(messages.get, None), timeout=TIMEOUT)
    for index, text in enumerate(("ping", "pong", "ping")):
        messages.put(service.StreamRequest(text=text))
        answer = next(call)
        assert (answer.text, answer.index) == (text, index)
    messages.put(None)
    assert list(call) == []
    assert call.code() == grpc.StatusCode.OK


def test_a_big_message_comes_back_whole(stub, service):
    text = "0123456789abcdef" * (3 * 1024 * 64)
    answer = stub.Method1(service.Method1Request(text=text), timeout=TIMEOUT)
    assert answer.text == text


def test_many_calls_at_once_keep_their_answers(stub, service):
    calls = [stub.Method1.future(service.Method1Request(text=str(n)), timeout=TIMEOUT) for n in range(200)]
    assert [call.result().text for call in calls] == [str(n) for n in range(200)]


# ---- who answers


@pytest.mark.parametrize("instance", ["a", "b", "c"])
def test_with_the_key_its_instance_answers_every_kind(client, service, instance):
    keyed = {"timeout": TIMEOUT, "metadata": key(instance)}
    answers = [client.Method1(service.Method1Request(text="x"), **keyed) for _ in range(4)]
    answers += client.Method2(service.Method2Request(text="x", count=3), **keyed)
    answers += [client.Method3(iter([service.Method3Request(text="x")]), **keyed)]
    answers += client.StreamMethod(iter([service.StreamRequest(text="x")] * 2), **keyed)
    assert {answer.instance_id for answer in answers} == {instance}


def test_without_the_key_the_instances_take_turns(client, service):
    answers = [client.Method1(service.Method1Request(text="x"), timeout=TIMEOUT).instance_id for _ in range(9)]
    assert sorted(answers) == list("aaabbbccc")


def test_the_path_prefix_of_the_option_is_served_too(channel, service):
    method = channel.unary_unary(
        "/api/v1/myservice.MyService/Method1",
        request_serializer=service.Method1Request.SerializeToString,
        response_deserializer=service.Method1Response.FromString,
    )
    assert method(service.Method1Request(text="x"), timeout=TIMEOUT, metadata=key("b")).instance_id == "b"


# ---- errors


def test_an_unknown_key_is_unavailable_and_never_another_instance(client, service):
    error = failure(client.Method1, service.Method1Request(text="x"), metadata=key("nobody"))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "instanceid" in error.details() and "nobody" in error.details()


@pytest.mark.parametrize(
    "path, nearest",
    [("/myservice.MyService/Methud1", "Method1"), ("/myservice.MyServise/Method1", "myservice.MyService")],
)
def test_an_unknown_method_or_service_is_unimplemented_and_names_the_nearest(channel, path, nearest):
    error = failure(channel.unary_unary(path), b"")
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert nearest in error.details()


def test_before_any_backend_a_known_service_is_unavailable(gateway, connect, service, service_grpc):
    stub = service_grpc.MyServiceStub(connect(gateway.address))
    error = failure(stub.Method1, service.Method1Request(text="x"))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "no instance of myservice.MyService has registered" in error.details()


def test_a_cancelled_call_harms_no_other(client, service):
    messages = queue.Queue()
    call = client.StreamMethod(iter(messages.get, None), timeout=TIMEOUT, metadata=key("a"))
    messages.put(service.StreamRequest(text="x"))
    assert next(call).text == "x"
    other = client.StreamMethod(iter([service.StreamRequest(text="y")] * 3), timeout=TIMEOUT, metadata=key("a"))
    assert call.cancel()
    messages.put(None)
    assert call.code() == grpc.StatusCode.CANCELLED
    assert [answer.text for answer in other] == ["y"] * 3
    assert client.Method1(service.Method1Request(text="z"), timeout=TIMEOUT, metadata=key("a")).text == "z"


def test_a_deadline_that_passes_on_an_open_stream_is_deadline_exceeded(client, service):
    messages = queue.Queue()
    call = client.StreamMethod(iter(messages.get, None), timeout=0.5, metadata=key("a"))
    messages.put(service.StreamRequest(text="x"))
    assert next(call).text == "x"
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    messages.put(None)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


# ---- those that come and go


def test_a_backend_that_is_stopped_leaves_and_comes_back(gateway, client_of, service):
    stub = client_of(gateway)
    first = programs.Backend("a", gateway=gateway)
    try:
        assert stub.Method1(service.Method1Request(text="x"), timeout=TIMEOUT, metadata=key("a")).instance_id == "a"
        first.terminate()
        programs.eventually(lambda: gone(stub, service), "the instance has left")
        second = programs.Backend("a", gateway=gateway)
        try:
            assert stub.Method1(service.Method1Request(text="x"), timeout=TIMEOUT, metadata=key("a")).instance_id == "a"
            second.terminate()
        finally:
            second.kill()
    finally:
        first.kill()


def gone(stub, service):
    try:
        stub.Method1(service.Method1Request(text="x"), timeout=TIMEOUT, metadata=key("a"))
    except grpc.RpcError as error:
        return error.code() == grpc.StatusCode.UNAVAILABLE
    return False


@pytest.fixture
def client_of(connect, service_grpc):
    return lambda gateway: service_grpc.MyServiceStub(connect(gateway.address))
