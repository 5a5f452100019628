"""An instance of a service, by hand: it speaks Register as proto/router.proto says and nothing helps it.

The tests say what it answers and when; it only keeps the rules that hold for every instance: a Hello first, batches
numbered from 1, each numbered batch of the gateway acked, each ping answered, and a call refused, if at all, before
the batch with its start is acked.
"""

import os
import queue
import struct
import threading

import grpc

import programs

# What a data part costs beside its bytes; proto/router.proto tells it at max_data.
PART_OVERHEAD = 32
VERSION = 1


class Instance:
    """One tunnel to a gateway."""

    def __init__(self, router, stub, address, instance_id, services=(("myservice.MyService", ()),), hello=None):
        self.router = router
        self.instance_id = instance_id
        self.batches = []
        self.frames = []
        self.acked = 0
        self.ended = None
        # Refuse every call that starts from now on.
        self.refusing = False
        self._next_seq = 1
        self._taken = 0
        self._sending = threading.Lock()
        self._outgoing = queue.Queue()
        self._came = threading.Condition()
        # A Register stream has a TCP connection for itself.
        self._channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._call = stub(self._channel).Register(iter(self._outgoing.get, None))
        offers = [router.Service(name=name, methods=methods) for name, methods in services]
        fields = {
            "min_version": VERSION,
            "max_version": VERSION,
            "instance_id": instance_id,
            "incarnation": os.urandom(16),
            "services": offers,
            "software_version": "python-by-hand",
            "max_calls": 1000,
            "health": router.SERVING,
        }
        self._put(0, [router.InstanceFrame(hello=router.Hello(**(fields | (hello or {}))))])
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def welcome(self):
        """The gateway's answer to Hello."""
        frame = self.frame(lambda frame: frame.WhichOneof("kind") == "welcome")
        return frame.welcome

    def refusal(self):
        """The text with which the gateway refuses a Hello, as its answer or as the status of the stream."""

        def found():
            rejected = [frame.welcome.rejected for frame in self.frames if frame.welcome.HasField("rejected")]
            if rejected:
                return rejected[0].message
            return self.ended[1] if self.ended and self.ended[0] not in (None, grpc.StatusCode.OK) else None

        return self._wait(found, "a refusal")

    # ---- sending

    def say(self, **kind):
        """One numbered batch with one frame."""
        return self.send(self.router.InstanceFrame(**kind))

    def send(self, *frames):
        """One numbered batch; returns its number."""
        with self._sending:
            seq = self._next_seq
            self._next_seq += 1
            self._put(seq, frames)
        return seq

    def send_as(self, seq, *frames):
        """A batch with a number of the test's choice."""
        with self._sending:
            self._put(seq, frames)

    def state(self, *frames):
        """A batch of state alone: not numbered, never replayed."""
        self.send_as(0, *frames)

    def respond(self, call, **parts):
        return self.say(response=self.router.RpcResponse(id=call, **parts))

    def grant(self, call, max_data):
        """So many charged bytes the gateway may send in all for this call."""
        self.state(self.router.InstanceFrame(response=self.router.RpcResponse(id=call, max_data=max_data)))

    def message(self, message):
        """A gRPC message as it stands in a body: flag, length, bytes."""
        body = message.SerializeToString()
        return struct.pack(">BI", 0, len(body)) + body

    def headers(self, *metadata):
        return self.router.Headers(metadata=self.metadata(*metadata))

    def trailers(self, status=0, message="", details=b"", metadata=()):
        return self.router.Trailers(
            status=status, message=message, details=details, metadata=self.metadata(*metadata)
        )

    def metadata(self, *entries):
        return [self.router.Metadata(key=key.encode(), value=value) for key, value in entries]

    def answer(self, call, message):
        """A small unary answer: one frame."""
        return self.respond(call, headers=self.headers(), data=self.message(message), trailers=self.trailers())

    def _put(self, seq, frames):
        self._outgoing.put(self.router.RegisterRequest(seq=seq, ack=self._taken, frames=frames))

    # ---- what came

    def frame(self, wanted, what="a frame"):
        """The first frame that is as wanted; waits for it."""
        return self._wait(lambda: next((frame for frame in self.frames if wanted(frame)), None), what)

    def started(self, path, after=0):
        """The first frame of the next call of this method, with a higher id than `after`."""

        def found(frame):
            return frame.call.HasField("start") and frame.call.start.path == path and frame.call.id > after

        return self.frame(found, f"a call of {path}").call

    def calls(self):
        """All frames of calls up to now."""
        return [frame.call for frame in list(self.frames) if frame.WhichOneof("kind") == "call"]

    def of(self, call):
        """All frames of one call up to now."""
        return [part for part in self.calls() if part.id == call]

    def until(self, call, wanted, what="more of the call"):
        """Waits until the frames of a call are as wanted; returns them."""

        def found():
            frames = self.of(call)
            return frames if frames and wanted(frames) else None

        return self._wait(found, what)

    def data_of(self, call):
        return b"".join(part.data for part in self.of(call))

    def charged(self, call):
        """What the gateway has spent of this call's window."""
        return sum(len(part.data) + PART_OVERHEAD for part in self.of(call) if part.data)

    def wait_acked(self, seq):
        self._wait(lambda: True if self.acked >= seq else None, f"an ack of batch {seq}")

    def wait_end(self):
        """Waits until the stream is over; returns its status."""
        self._wait(lambda: self.ended, "the end of the stream")
        return self.ended

    def _wait(self, found, what):
        with self._came:
            self._came.wait_for(lambda: found() is not None or self.ended is not None, programs.PATIENCE)
            result = found()
        assert result is not None, f"{what} never came; ended: {self.ended}; frames:\n{self.frames[-5:]}"
        return result

    def _read(self):
        try:
            for batch in self._call:
                self._take(batch)
            ended = (grpc.StatusCode.OK, "")
        except grpc.RpcError as error:
            ended = (error.code(), error.details())
        except AssertionError as broken:
            ended = (None, str(broken))
        with self._came:
            self.ended = ended
            self._came.notify_all()

    def _take(self, batch):
        with self._came:
            if batch.seq:
                assert batch.seq == self._taken + 1, f"batch {batch.seq} after {self._taken}"
                self._taken = batch.seq
            assert batch.ByteSize() <= 64 * 1024, "a batch is at most 64 KiB"
            assert batch.ack >= self.acked or not batch.ack, "acks do not go back"
            self.batches.append(batch)
            self.frames.extend(batch.frames)
            self.acked = max(self.acked, batch.ack)
            self._came.notify_all()
        pongs = []
        for frame in batch.frames:
            if frame.WhichOneof("kind") == "ping":
                pongs.append(self.router.InstanceFrame(pong=self.router.Pong(opaque=frame.ping.opaque)))
            elif frame.call.HasField("start") and self.refusing:
                self.respond(frame.call.id, refused=self.router.Refused())
        if pongs or batch.seq:
            self.state(*pongs)

    # ---- the end

    def drop(self):
        """Gone without a word."""
        self._call.cancel()
        self._channel.close()
        # Wakes grpcio's own thread, which waits for the next batch.
        self._outgoing.put(None)
        self._reader.join(programs.PATIENCE)


def messages_in(body):
    """The gRPC messages that a body holds so far: (compressed, bytes)."""
    found = []
    while len(body) >= 5:
        flag, length = struct.unpack(">BI", body[:5])
        if len(body) < 5 + length:
            break
        found.append((flag, body[5 : 5 + length]))
        body = body[5 + length :]
    return found
