"""An instance written from proto/router.proto alone answers a gateway's clients; what each frame holds is looked at."""

import queue

import grpc
import pytest

import programs
from instance import Instance, messages_in

TIMEOUT = 10
METHOD1, METHOD2, METHOD3, STREAM = (
    f"/myservice.MyService/{method}" for method in ("Method1", "Method2", "Method3", "StreamMethod")
)


@pytest.fixture
def register(gateway, router, router_grpc):
    """Starts instances and drops those that a test leaves behind."""
    started = []

    def start(instance_id="python", accepted=True, **keywords):
        instance = Instance(router, router_grpc.RouterStub, gateway.address, instance_id, **keywords)
        started.append(instance)
        if accepted:
            assert instance.welcome().WhichOneof("answer") == "accepted", instance.welcome()
        return instance

    yield start
    for instance in started:
        instance.drop()


@pytest.fixture
def instance(register):
    return register()


class Messages:
    """A client's stream of messages that goes on when the test says so."""

    def __init__(self):
        self._queue = queue.Queue()

    def __iter__(self):
        return iter(self._queue.get, None)

    def send(self, message):
        self._queue.put(message)

    def end(self):
        self._queue.put(None)


def texts(kind, body):
    return [kind.FromString(message).text for _, message in messages_in(body)]


# ---- the handshake


def test_hello_is_answered_with_welcome(register):
    accepted = register().welcome().accepted
    assert accepted.version == 1
    assert len(accepted.tunnel_id) == 16
    assert accepted.limits.initial_max_data >= 16 * 1024
    assert accepted.limits.max_batch_bytes == 64 * 1024
    assert 0 < accepted.limits.max_data_part_bytes <= 16 * 1024
    assert accepted.limits.max_open_calls > 0
    assert 0 < accepted.heartbeat.busy_millis <= accepted.heartbeat.idle_millis
    assert accepted.heartbeat.unanswered > 0


def test_no_common_version_is_rejected_with_the_range(register):
    rejected = register(accepted=False, hello={"min_version": 98, "max_version": 99}).welcome().rejected
    assert rejected.reason == rejected.VERSION
    assert rejected.min_version <= 1 <= rejected.max_version


@pytest.mark.parametrize(
    "hello, about",
    [({"instance_id": ""}, "instance"), ({"instance_id": "x" * 257}, "256"), ({"stream_index": 1}, "stream_index")],
    ids=["no id", "long id", "stream index"],
)
def test_a_hello_that_is_wrong_is_refused_and_the_text_says_how(register, hello, about):
    assert about in register(accepted=False, hello=hello).refusal()


# ---- the flows of the four kinds


def test_a_unary_call_is_one_frame_each_way(client, instance, service):
    ids = []
    for round in range(5):
        text = f"hello {round}"
        future = client.Method1.future(service.Method1Request(text=text), timeout=TIMEOUT)
        call = instance.started(METHOD1, after=max(ids, default=0))
        assert texts(service.Method1Request, call.data) == [text]
        assert call.half_close, "a unary request is one frame: start, data and half_close"
        instance.answer(call.id, service.Method1Response(text=text, instance_id="python"))
        answer = future.result()
        assert (answer.text, answer.instance_id) == (text, "python")
        ids.append(call.id)
    assert sorted(set(ids)) == ids, "call ids rise and are never used again"
    assert [len(instance.of(id)) for id in ids] == [1] * 5


def test_each_message_of_a_server_stream_is_forwarded_at_once(client, instance, service):
    answers = client.Method2(service.Method2Request(text="x", count=3), timeout=TIMEOUT)
    call = instance.started(METHOD2)
    assert call.half_close and len(messages_in(call.data)) == 1
    instance.respond(call.id, headers=instance.headers())
    for index in range(3):
        instance.respond(call.id, data=instance.message(service.Method2Response(text="x", index=index)))
        # The client has it before the next one is sent.
        assert next(answers).index == index
    instance.respond(call.id, trailers=instance.trailers())
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def test_each_message_of_a_client_stream_arrives_before_the_next_is_sent(client, instance, service):
    messages = Messages()
    future = client.Method3.future(iter(messages), timeout=TIMEOUT)
    call = instance.started(METHOD3).id
    for count, text in enumerate(("one", "two", "three"), start=1):
        messages.send(service.Method3Request(text=text))
        instance.until(call, lambda parts: len(messages_in(b"".join(p.data for p in parts))) == count, text)
        assert not any(part.half_close for part in instance.of(call))
    messages.end()
    instance.until(call, lambda parts: parts[-1].half_close, "half_close")
    assert texts(service.Method3Request, instance.data_of(call)) == ["one", "two", "three"]
    instance.answer(call, service.Method3Response(count=3, text="one two three"))
    assert future.result().count == 3


def test_both_directions_of_a_bidi_stream_flow_message_by_message(client, instance, service):
    messages = Messages()
    answers = client.StreamMethod(iter(messages), timeout=TIMEOUT)
    call = instance.started(STREAM).id
    instance.respond(call, headers=instance.headers())
    for count, text in enumerate(("one", "two", "three"), start=1):
        messages.send(service.StreamRequest(text=text))
        instance.until(call, lambda parts: len(messages_in(b"".join(p.data for p in parts))) == count, text)
        instance.respond(call, data=instance.message(service.StreamResponse(text=text, index=count)))
        assert next(answers).text == text
    messages.end()
    instance.until(call, lambda parts: parts[-1].half_close, "half_close")
    # Nothing keeps the instance from going on after the client's half-close.
    instance.respond(call, data=instance.message(service.StreamResponse(text="late")), trailers=instance.trailers())
    assert [answer.text for answer in answers] == ["late"]
    assert answers.code() == grpc.StatusCode.OK


def test_answers_may_come_before_the_first_message(client, instance, service):
    messages = Messages()
    answers = client.StreamMethod(iter(messages), timeout=TIMEOUT)
    call = instance.started(STREAM)
    assert not call.data and not call.half_close
    instance.respond(
        call.id, headers=instance.headers(), data=instance.message(service.StreamResponse(text="first"))
    )
    assert next(answers).text == "first"
    # The status may come while the client is still sending.
    instance.respond(call.id, trailers=instance.trailers())
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK
    messages.end()


# ---- metadata and status


def test_metadata_crosses_both_ways_the_values_of_a_key_in_order(client, instance, service):
    sent = [("x-one", "1"), ("x-raw-bin", b"\x00\xff,\x01"), ("x-one", "2"), ("authorization", "Bearer x")]
    call = client.Method2(service.Method2Request(text="x"), timeout=TIMEOUT, metadata=sent)
    start = instance.started(METHOD2).start
    theirs = [(entry.key.decode(), entry.value) for entry in start.metadata]
    assert [value for key, value in theirs if key == "x-one"] == [b"1", b"2"]
    assert [value for key, value in theirs if key == "x-raw-bin"] == [b"\x00\xff,\x01"]
    assert [value for key, value in theirs if key == "authorization"] == [b"Bearer x"]
    hop = {"te", "content-type", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "host", "connection"}
    assert not [key for key, _ in theirs if key in hop or key.startswith(":")]
    assert start.content_subtype in ("", "proto")

    id = instance.started(METHOD2).id
    instance.respond(id, headers=instance.headers(("x-first", b"a"), ("x-first-bin", b"\x00\x01")))
    # The initial metadata is there before any message.
    initial = dict(call.initial_metadata())
    assert (initial["x-first"], initial["x-first-bin"]) == ("a", b"\x00\x01")
    instance.respond(id, trailers=instance.trailers(metadata=[("x-last", b"z"), ("x-last-bin", b"\xfe\xff")]))
    assert list(call) == []
    trailing = dict(call.trailing_metadata())
    assert (trailing["x-last"], trailing["x-last-bin"]) == ("z", b"\xfe\xff")


def test_headers_of_the_gateways_own_never_come_from_outside(client, instance, service):
    client.Method1.future(
        service.Method1Request(), timeout=TIMEOUT, metadata=[("x-grpcrouter-principal", "root"), ("x-mine", "1")]
    )
    keys = {entry.key for entry in instance.started(METHOD1).start.metadata}
    assert b"x-mine" in keys and b"x-grpcrouter-principal" not in keys


def test_a_status_with_message_and_details_arrives_as_it_was_said(client, instance, service):
    future = client.Method1.future(service.Method1Request(), timeout=TIMEOUT)
    call = instance.started(METHOD1).id
    message = "nicht gefunden: 100 % \t✓"
    details = b"\x08\x05\x12\x00"
    instance.respond(call, trailers=instance.trailers(5, message, details, [("x-why", b"because")]))
    error = future.exception()
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, message)
    trailing = dict(error.trailing_metadata())
    assert trailing["x-why"] == "because"
    assert trailing["grpc-status-details-bin"] == details


def test_a_status_after_messages_keeps_the_messages(client, instance, service):
    answers = client.Method2(service.Method2Request(), timeout=TIMEOUT)
    call = instance.started(METHOD2).id
    body = instance.message(service.Method2Response(text="kept"))
    instance.respond(call, headers=instance.headers(), data=body, trailers=instance.trailers(8, "enough"))
    assert next(answers).text == "kept"
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")


def test_compressed_messages_pass_untouched(client, instance, service):
    text = "a" * 1000
    future = client.Method1.future(
        service.Method1Request(text=text), timeout=TIMEOUT, compression=grpc.Compression.Gzip
    )
    call = instance.started(METHOD1)
    assert call.start.encoding == "gzip"
    [(flag, body)] = messages_in(instance.data_of(call.id))
    assert flag == 1 and len(body) < len(text)
    # Back as it came: the answer has the same shape as the request.
    headers = instance.headers()
    headers.encoding = "gzip"
    instance.respond(call.id, headers=headers, data=instance.data_of(call.id), trailers=instance.trailers())
    assert future.result().text == text


# ---- deadlines and cancel


def test_a_deadline_is_told_and_ends_both_sides(client, instance, service):
    future = client.Method1.future(service.Method1Request(), timeout=0.5)
    call = instance.started(METHOD1)
    # grpcio itself rounds up to whole milliseconds and some.
    assert 0 < call.start.timeout_micros <= 550_000
    # It never answers.
    assert future.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
    cancel = instance.until(call.id, lambda parts: parts[-1].HasField("cancel"), "cancel")[-1].cancel
    assert cancel.reason in (cancel.DEADLINE, cancel.CLIENT_GONE)


def test_a_deadline_holds_after_the_first_answer_too(client, instance, service):
    answers = client.Method2(service.Method2Request(), timeout=0.5)
    call = instance.started(METHOD2).id
    instance.respond(
        call, headers=instance.headers(), data=instance.message(service.Method2Response(text="and then silence"))
    )
    assert next(answers).text == "and then silence"
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    instance.until(call, lambda parts: parts[-1].HasField("cancel"), "cancel")


def test_a_cancel_reaches_the_instance_and_is_never_a_clean_end(client, instance, service):
    messages = Messages()
    future = client.Method3.future(iter(messages), timeout=TIMEOUT)
    call = instance.started(METHOD3).id
    messages.send(service.Method3Request(text="half of it"))
    instance.until(call, lambda parts: any(part.data for part in parts), "the first message")
    future.cancel()
    parts = instance.until(call, lambda parts: parts[-1].HasField("cancel"), "cancel")
    messages.end()
    assert parts[-1].cancel.reason == parts[-1].cancel.CLIENT_GONE
    assert not any(part.half_close for part in parts), "a cancelled upload is never a clean end"
    # What the instance says of it now is late and harms nothing.
    instance.answer(call, service.Method3Response(count=1))
    still_works(client, instance, service)
    assert len(instance.of(call)) == len(parts), "nothing follows a cancel"


def still_works(client, instance, service):
    """A call through the same tunnel succeeds."""
    last = max((part.id for part in instance.calls()), default=0)
    future = client.Method1.future(service.Method1Request(text="ok?"), timeout=TIMEOUT)
    call = instance.started(METHOD1, after=last)
    instance.answer(call.id, service.Method1Response(text="ok"))
    assert future.result().text == "ok"


# ---- credit


def test_an_upload_stays_within_its_window_and_holds_up_nothing_else(client, instance, service):
    window = instance.welcome().accepted.limits.initial_max_data
    largest = instance.welcome().accepted.limits.max_data_part_bytes
    text = "x" * (4 * window)
    future = client.Method3.future(iter([service.Method3Request(text=text)]), timeout=TIMEOUT)
    call = instance.started(METHOD3).id
    # It goes on until less than one part is left, and not a byte further.
    instance.until(call, lambda parts: charge(parts) > window - largest - 32, "a full window")
    still_works(client, instance, service)
    assert instance.charged(call) <= window
    assert max(len(part.data) for part in instance.of(call)) <= largest

    instance.grant(call, 2 * window)
    instance.until(call, lambda parts: charge(parts) > 2 * window - largest - 32, "a second window")
    still_works(client, instance, service)
    assert instance.charged(call) <= 2 * window

    instance.grant(call, 100 * window)
    instance.until(call, lambda parts: parts[-1].half_close, "half_close")
    assert texts(service.Method3Request, instance.data_of(call)) == [text]
    instance.answer(call, service.Method3Response(count=1))
    assert future.result().count == 1


def charge(parts):
    return sum(len(part.data) + 32 for part in parts if part.data)


def test_a_download_gets_credit_as_the_client_reads(client, instance, service):
    answers = client.Method2(service.Method2Request(), timeout=TIMEOUT)
    start = instance.started(METHOD2)
    call, limit, spent = start.id, start.start.max_data, 0
    instance.respond(call, headers=instance.headers())
    body = instance.message(service.Method2Response(text="y" * 1000))
    for _ in range(400):
        spent += len(body) + 32
        while spent > limit:
            parts = instance.until(call, lambda parts: granted(parts) > limit, "more credit")
            limit = granted(parts)
        instance.respond(call, data=body)
        assert len(next(answers).text) == 1000
    instance.respond(call, trailers=instance.trailers())
    assert list(answers) == []
    assert spent > start.start.max_data, "the first window was not enough, so credit came"


def granted(parts):
    return max((part.max_data for part in parts if part.HasField("max_data")), default=0)


def overrun(client, instance, service, router):
    """Sends more than the first window in one batch, which is applied whole; returns how the client's call ended."""
    last = max((part.id for part in instance.calls()), default=0)
    answers = client.Method2(service.Method2Request(), timeout=TIMEOUT)
    start = instance.started(METHOD2, after=last)
    head = router.InstanceFrame(response=router.RpcResponse(id=start.id, headers=instance.headers()))
    part = router.InstanceFrame(response=router.RpcResponse(id=start.id, data=b"\0" * 630))
    parts = 100
    assert parts * (630 + 32) > start.start.max_data
    instance.send(head, *[part] * parts)
    with pytest.raises(grpc.RpcError) as caught:
        list(answers)
    return caught.value.code()


def test_an_overrun_ends_that_call_and_the_third_one_the_tunnel(client, instance, service, router):
    for _ in range(2):
        assert overrun(client, instance, service, router) == grpc.StatusCode.INTERNAL
        still_works(client, instance, service)
    overrun(client, instance, service, router)
    close = instance.frame(lambda frame: frame.WhichOneof("kind") == "close", "close").close
    assert close.code in (close.FLOW_CONTROL_ERROR, close.PROTOCOL_ERROR)


# ---- the tunnel


def test_numbered_batches_are_acked(client, instance, service):
    still_works(client, instance, service)
    instance.wait_acked(1)


def test_a_ping_is_answered_with_its_own_bytes(instance, router):
    instance.state(router.InstanceFrame(ping=router.Ping(opaque=b"are you there")))
    pong = instance.frame(lambda frame: frame.WhichOneof("kind") == "pong", "a pong").pong
    assert pong.opaque == b"are you there"


def test_a_gateway_that_hears_nothing_while_a_call_is_open_pings(client, instance, service):
    future = client.Method1.future(service.Method1Request(), timeout=TIMEOUT)
    call = instance.started(METHOD1).id
    instance.frame(lambda frame: frame.WhichOneof("kind") == "ping", "a ping")
    instance.answer(call, service.Method1Response(text="patience"))
    assert future.result().text == "patience"


def test_a_draining_instance_finishes_what_runs_and_gets_nothing_new(client, instance, service, router, gateway):
    future = client.Method1.future(service.Method1Request(), timeout=TIMEOUT)
    call = instance.started(METHOD1).id
    drain = instance.say(drain=router.Drain())
    instance.wait_acked(drain)
    refused = client.Method1.future(service.Method1Request(), timeout=TIMEOUT).exception()
    assert refused.code() == grpc.StatusCode.UNAVAILABLE
    instance.answer(call, service.Method1Response(text="the last one"))
    assert future.result().text == "the last one"
    instance.state(router.InstanceFrame(close=router.Close(code=router.Close.NO_ERROR)))
    assert instance.wait_end()[0] == grpc.StatusCode.OK


def test_a_refused_call_goes_to_another_instance_whole(client, register, service):
    refuser, taker = register("refuser"), register("taker")
    refuser.refusing, last = True, 0
    # They take turns, so one of two calls comes to the refuser first.
    for round in range(2):
        text = f"whoever {round}"
        future = client.Method1.future(service.Method1Request(text=text), timeout=TIMEOUT)
        call = taker.started(METHOD1, after=last)
        last = call.id
        assert (texts(service.Method1Request, call.data), call.half_close) == ([text], True)
        taker.answer(call.id, service.Method1Response(text=text))
        assert future.result().text == text
    assert refuser.calls()


def test_a_call_that_all_refuse_is_unavailable(client, instance, service):
    instance.refusing = True
    error = client.Method1.future(service.Method1Request(), timeout=TIMEOUT).exception()
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    instance.refusing = False
    still_works(client, instance, service)


def test_a_refusal_after_the_ack_breaks_the_rules_and_ends_that_call_only(client, instance, service, router):
    future = client.Method1.future(service.Method1Request(), timeout=TIMEOUT)
    call = instance.started(METHOD1).id
    # The reader acks by itself; the pong says that the gateway has seen the ack.
    instance.state(router.InstanceFrame(ping=router.Ping(opaque=b"ack?")))
    instance.frame(lambda frame: frame.pong.opaque == b"ack?", "a pong")
    instance.respond(call, refused=router.Refused())
    assert future.exception().code() == grpc.StatusCode.INTERNAL
    still_works(client, instance, service)


def test_a_call_whose_instance_is_lost_is_unavailable_when_another_process_comes_in_its_place(client, register, service):
    instance = register("same")
    future = client.Method1.future(service.Method1Request(), timeout=TIMEOUT)
    instance.started(METHOD1)
    # It may be back on another stream, so its call waits; a new process of the same id is not it.
    instance.drop()
    register("same")
    assert future.exception().code() == grpc.StatusCode.UNAVAILABLE


def test_an_item_of_no_known_kind_ends_the_tunnel(instance, router):
    # A frame with field 99 only.
    instance.send(router.InstanceFrame.FromString(b"\x9a\x06\x01x"))
    close = instance.frame(lambda frame: frame.WhichOneof("kind") == "close", "close").close
    assert close.code == close.PROTOCOL_ERROR
    assert close.reason


def test_a_batch_out_of_order_ends_the_tunnel(instance, router):
    instance.send_as(7, router.InstanceFrame(response=router.RpcResponse(id=1)))
    close = instance.frame(lambda frame: frame.WhichOneof("kind") == "close", "close").close
    assert close.code == close.PROTOCOL_ERROR


def test_the_latest_hello_of_an_instance_takes_the_new_calls(client, register, service):
    old = register("same")
    new = register("same")
    future = client.Method1.future(service.Method1Request(text="to whom"), timeout=TIMEOUT)
    call = new.started(METHOD1)
    new.answer(call.id, service.Method1Response(text="to the new one"))
    assert future.result().text == "to the new one"
    assert not old.calls()
