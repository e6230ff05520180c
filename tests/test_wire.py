"""The wire against a loopback server that writes WebSocket bytes by hand: whatever a read ends in, its batch is
delivered in that read; fragments are joined; every violation is closed with its code; pings are answered.

The decoder behind it is a real one; the session is not here.
"""

import asyncio
import base64
import hashlib
import itertools
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import exchanges
import picows
import pytest
from corpus import ACK, DEPTH, QUOTE, TRADE

import fastfeed
from fastfeed._wire import Wire
from fastfeed.schema import Message, Schema

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
SBE_QUOTE = bytes.fromhex(
    "320011270100000040222246484706007940e51700000000fefbf8bf850000000000f049020000000000f9bf85000000"
    "0000d8590000000000000742544355534454"
)
DEADLINE = 10.0


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, length_bytes: int | None = None
) -> bytes:
    """One server frame. `length_bytes` (0, 2, 8) forces how the length is written."""
    size = len(payload)
    if length_bytes is None:
        length_bytes = 0 if size < 126 else 2 if size < 65536 else 8
    head = bytes([fin << 7 | rsv << 4 | opcode])
    if length_bytes == 0:
        return head + bytes([size]) + payload
    if length_bytes == 2:
        return head + b"\x7e" + struct.pack(">H", size) + payload
    return head + b"\x7f" + struct.pack(">Q", size) + payload


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack(">H", code) + reason)


def quote(update: int, symbol: str = "BTCUSDT", filler: int = 0) -> bytes:
    return (
        f'{{"e":"bookTicker","u":{update},"s":"{symbol}","b":"{update}.5","B":"1","a":"{update}.75","A":"2",'
        f'"T":1,"E":1,"x":"{"x" * filler}"}}'
    ).encode()


def frame_count(data: bytes) -> int:
    """How many frames lie in these server bytes."""
    count = 0
    while data:
        size, head = data[1], 2
        if size == 126:
            size, head = struct.unpack(">H", data[2:4])[0], 4
        data, count = data[head + size :], count + 1
    return count


class Handler:
    """Notes what the wire calls, in order, and what the consumers could read at the end of each read."""

    def __init__(self, decoder: fastfeed.Decoder) -> None:
        self.prices = decoder.prices
        self.reader = decoder.ring.reader()
        self.found: list[int] = []  # updates of the first row when something was told within a read
        self.calls: list[tuple] = []
        self.reads: list[list[int]] = []
        self.called = asyncio.Event()

    def _note(self, *call: object) -> None:
        self.calls.append(call)
        self.called.set()

    def wire_connected(self, wire: Wire) -> None:
        self._note("connected")

    def wire_control(self, wire: Wire, payload: bytes) -> None:
        self._note("control", bytes(payload))
        self.found.append(int(self.prices.array["updates"][:1].sum()))

    def wire_pong(self, wire: Wire, payload: bytes) -> None:
        self._note("pong", bytes(payload))
        self.found.append(int(self.prices.array["updates"][:1].sum()))

    def wire_read(self, wire: Wire, ticked: bool) -> None:
        ticks = [int(seq) for seq in self.reader.read()["seq"]]
        self.reads.append(ticks)
        self._note("read", ticked, ticks)

    def wire_closed(self, wire: Wire, code: int, reason: str) -> None:
        self._note("closed", code, reason)

    @property
    def closed(self) -> tuple[int, str] | None:
        found = [call[1:] for call in self.calls if call[0] == "closed"]
        assert len(found) <= 1, f"wire_closed was called {len(found)} times"
        return found[0] if found else None

    def named(self, name: str) -> list[tuple]:
        return [call[1:] for call in self.calls if call[0] == name]

    @property
    def ticks(self) -> list[int]:
        return list(itertools.chain.from_iterable(self.reads))


async def until(handler: Handler, condition: Callable[[], object], what: str) -> None:
    """Wait for what the wire's calls bring about."""
    try:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                handler.called.clear()
                await handler.called.wait()
    except TimeoutError:
        pytest.fail(f"waited {DEADLINE} s for {what}; the wire called: {handler.calls[-8:]}")


class Line:
    """One open connection, seen from both ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder: fastfeed.Decoder
        self.handler: Handler
        self.wire: Wire

    async def write(self, data: bytes) -> None:
        """Write as one segment and let the client read it before anything else is written."""
        self.writer.write(data)
        for _ in range(4):
            await asyncio.sleep(0)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await until(self.handler, condition, what)

    async def until_ticks(self, count: int) -> None:
        await self.until(lambda: len(self.handler.ticks) >= count, f"{count} ticks")

    async def until_closed(self) -> tuple[int, str]:
        await self.until(lambda: self.handler.closed, "wire_closed")
        assert self.handler.closed
        return self.handler.closed

    async def client_frame(self) -> tuple[int, bytes]:
        """The next frame the client sent, unmasked."""
        async with asyncio.timeout(DEADLINE):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            assert second & 0x80, "a client frame must be masked"
            if size == 126:
                (size,) = struct.unpack(">H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", await self.reader.readexactly(8))
            mask = await self.reader.readexactly(4)
            payload = await self.reader.readexactly(size)
        return first & 0x0F, bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))

    async def close_code(self) -> int:
        """The code of the CLOSE frame the client sends, whatever it sends before."""
        while True:
            opcode, payload = await self.client_frame()
            if opcode == CLOSE:
                return struct.unpack(">H", payload[:2])[0] if payload else 1005


@asynccontextmanager
async def connected(provider="binance-usdm", **options) -> AsyncIterator[Line]:
    accepted: asyncio.Future[Line] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b":", 1)[1].strip()
            for line in request.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writer.write(answer + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        accepted.set_result(Line(reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    transport = line = None
    try:
        decoder = fastfeed.Decoder(provider)
        handler = Handler(decoder)
        wire = Wire(decoder, handler, **options)
        async with asyncio.timeout(DEADLINE):
            transport, _ = await picows.ws_connect(
                lambda: wire,
                f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/",
                enable_auto_ping=False,
                enable_auto_pong=False,
                max_redirects=0,
                max_frame_size=options.get("max_message", 10 * 2**20),
            )
            line = await accepted
        line.decoder, line.handler, line.wire = decoder, handler, wire
        yield line
    finally:
        if transport is not None:
            transport.disconnect()
            with suppress(picows.WSError):  # the violation, told once more to whoever waits
                await transport.wait_disconnected()
        if line is not None:
            line.writer.close()
        server.close()


# ---- the batch of a read is delivered in that read ----

ENDINGS = {
    "nothing": b"",
    "a ping": frame(PING, b"hi"),
    "an empty ping": frame(PING),
    "a pong": frame(PONG, b"hi"),
    "two pings": frame(PING, b"1") + frame(PING, b"2"),
    "an ack": frame(TEXT, ACK),
    "an unknown message": frame(TEXT, b'{"x":1}'),
    "a malformed message": frame(TEXT, b'{"x":'),
    "an empty message": frame(TEXT),
    "the first byte of a frame": frame(TEXT, quote(99))[:1],
    "half a header": frame(TEXT, quote(99, filler=200))[:3],
    "a header": frame(TEXT, quote(99, filler=200))[:4],
    "half a frame": frame(TEXT, quote(99))[:40],
    "all but the last byte": frame(TEXT, quote(99))[:-1],
    "half a ping": frame(PING, b"hello")[:4],
    "a first fragment": frame(TEXT, quote(99)[:30], fin=False),
    "a fragment and a half": frame(TEXT, quote(99)[:30], fin=False)
    + frame(CONTINUATION, quote(99)[30:60], fin=False)[:10],
    "a ping and half a frame": frame(PING, b"hi") + frame(TEXT, quote(99))[:40],
    "a pong and half a header": frame(PONG, b"hi") + frame(TEXT, quote(99, filler=200))[:2],
}


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_read_delivers_its_batch_whatever_it_ends_in(ending):
    async with connected() as line:
        await line.write(frame(TEXT, quote(1)) + frame(TEXT, quote(2)) + frame(TEXT, quote(3)) + ENDINGS[ending])
        await line.until_ticks(3)
        assert line.handler.reads[0] == [1, 2, 3], "one wake-up, at the end of the read that brought them"
        assert ("read", True, [1, 2, 3]) in line.handler.calls
        assert line.handler.closed is None


@pytest.mark.parametrize("code", [1000, 1001, 1012, 4000])
async def test_a_read_that_ends_in_close_delivers_its_batch_first(code):
    async with connected() as line:
        await line.write(frame(TEXT, quote(1)) + frame(TEXT, quote(2)) + closing(code, b"bye"))
        assert await line.until_closed() == (code, "bye")
        assert line.handler.ticks == [1, 2]
        names = [call[0] for call in line.handler.calls]
        assert names.index("read") < names.index("closed")


async def test_a_read_that_ends_in_a_violation_delivers_what_came_before_it():
    async with connected() as line:
        await line.write(frame(TEXT, quote(1)) + frame(TEXT, quote(2)) + frame(TEXT, quote(3), rsv=4))
        assert (await line.until_closed())[0] == 1002
        assert line.handler.ticks == [1, 2]


async def test_a_connection_cut_after_a_batch_delivers_it():
    async with connected() as line:
        line.writer.write(frame(TEXT, quote(1)) + frame(TEXT, quote(2)))
        line.writer.close()
        assert (await line.until_closed())[0] == 1006
        assert line.handler.ticks == [1, 2]


async def test_there_is_one_wake_up_per_read():
    async with connected() as line:
        for start in range(0, 300, 100):
            await line.write(b"".join(frame(TEXT, quote(start + i + 1)) for i in range(100)))
            await line.until_ticks(start + 100)
        assert line.handler.reads == [list(range(s + 1, s + 101)) for s in range(0, 300, 100)]


async def test_whoever_is_told_something_finds_all_that_came_before_it():
    quotes = [frame(TEXT, quote(number)) for number in range(1, 41)]
    read = [*quotes[:5], frame(PONG, b"a"), *quotes[5:10], frame(TEXT, ACK), *quotes[10:30], frame(PONG, b"b")]
    async with connected() as line:
        await line.write(b"".join([*read, *quotes[30:], frame(TEXT, ACK)]))
        await line.until_ticks(40)
        assert line.handler.reads == [list(range(1, 41))]
        assert line.handler.found == [5, 10, 30, 40]


async def test_a_read_without_data_says_so():
    async with connected() as line:
        await line.write(frame(TEXT, ACK))
        await line.until(lambda: line.handler.named("control"), "a control message")
        await line.until(lambda: line.handler.named("read"), "the end of the read")
        assert line.handler.named("read") == [(False, [])]
        assert line.handler.named("control") == [(ACK,)]


async def test_frames_that_came_with_the_handshake_are_not_lost():
    accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b":", 1)[1].strip()
            for line in request.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        answer = (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        )
        writer.write(
            answer + accept + b"\r\n\r\n" + frame(TEXT, quote(1)) + frame(TEXT, quote(2)) + frame(PING, b"now")
        )
        accepted.set_result(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    decoder = fastfeed.Decoder("binance-usdm")
    handler = Handler(decoder)
    wire = Wire(decoder, handler)
    transport, _ = await picows.ws_connect(
        lambda: wire,
        f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/",
        enable_auto_ping=False,
        enable_auto_pong=False,
    )
    writer = await accepted
    await until(handler, lambda: handler.ticks == [1, 2], "the two ticks behind the handshake")
    assert handler.calls[0] == ("connected",)
    transport.disconnect()
    writer.close()
    server.close()


# ---- every tricky frame at every split point ----

FRAGMENTED = (
    frame(TEXT, quote(20)[:7], fin=False)
    + frame(CONTINUATION, quote(20)[7:50], fin=False)
    + frame(CONTINUATION, quote(20)[50:])
)
INTERRUPTED = (
    frame(TEXT, quote(21)[:20], fin=False)
    + frame(PING, b"between")
    + frame(CONTINUATION, b"", fin=False)
    + frame(PONG)
    + frame(CONTINUATION, quote(21)[20:])
)
CHINESE = quote(15, symbol="币A")
INSIDE = CHINESE.index("币".encode()) + 1
TRICKY = {
    "a quote": (frame(TEXT, quote(10)), 1),
    "a recorded quote": (frame(TEXT, QUOTE), 1),
    "a recorded trade": (frame(TEXT, TRADE), 1),
    "a depth message": (frame(TEXT, DEPTH), 3),
    "an array of quotes": (frame(TEXT, b"[" + b",".join(quote(number) for number in range(30, 35)) + b"]"), 5),
    "an array of one": (frame(TEXT, b"[" + quote(36) + b"]"), 1),
    "a long frame": (frame(TEXT, quote(11, filler=300)), 1),
    "a long length for a short frame": (frame(TEXT, quote(13, filler=0)[:-1] + b" " * 20 + b"}"), 1),
    "non-ASCII text": (frame(TEXT, quote(14, symbol="币安人生USDT")), 1),
    "fragments": (FRAGMENTED, 1),
    "fragments around control frames": (INTERRUPTED, 1),
    "a UTF-8 character across fragments": (
        frame(TEXT, CHINESE[:INSIDE], fin=False) + frame(CONTINUATION, CHINESE[INSIDE:]),
        1,
    ),
    "pings all over": (
        frame(PING) + frame(TEXT, quote(16)) + frame(PING, b"x" * 125) + frame(TEXT, quote(17)) + frame(PONG),
        2,
    ),
    "an ack between quotes": (frame(TEXT, quote(18)) + frame(TEXT, ACK) + frame(TEXT, quote(19)), 2),
    "an empty fragment first": (frame(TEXT, b"", fin=False) + frame(CONTINUATION, quote(22)), 1),
    "an empty fragment last": (frame(TEXT, quote(23), fin=False) + frame(CONTINUATION, b""), 1),
    "an empty frame": (frame(TEXT) + frame(TEXT, quote(24)), 1),
}


@pytest.mark.parametrize("name", TRICKY)
async def test_a_frame_may_be_cut_anywhere(name):
    data, made = TRICKY[name]
    pings = data.count(frame(PING, b"between")) + (2 if name == "pings all over" else 0)
    async with connected() as line:
        for count, split in enumerate(range(1, len(data)), 1):
            await line.write(data[:split])
            await line.write(data[split:])
            await line.until(
                lambda count=count: line.decoder.stats()["ticks"] == made * count, f"the ticks of split {split}"
            )
        assert line.handler.closed is None
        stats = line.decoder.stats()
        assert stats["malformed"] == (len(data) - 1 if name == "an empty frame" else 0)
        await line.until(lambda: line.wire.pings_answered == pings * (len(data) - 1), "every ping answered")
        assert len(line.handler.ticks) == made * (len(data) - 1), "every tick was delivered at the end of some read"


@pytest.mark.parametrize("name", ["a quote", "fragments around control frames"])
async def test_a_frame_may_come_byte_by_byte(name):
    data, made = TRICKY[name]
    async with connected() as line:
        for byte in data:
            await line.write(bytes([byte]))
        await line.until_ticks(made)
        assert line.handler.closed is None


async def test_any_stream_cut_at_random_gives_the_same_ticks():
    choose = random.Random(7)
    whole = {data: frame_count(data) for data, _ in TRICKY.values()}
    chosen = choose.choices(list(whole), k=300)
    stream, frames = b"".join(chosen), sum(whole[data] for data in chosen)
    async with connected() as smooth:
        await smooth.write(stream)
        await smooth.until(lambda: smooth.wire.frames_received == frames, "the whole stream in one go")
        expected = smooth.decoder.stats()
        ticks = smooth.handler.ticks
    async with connected() as line:
        place = 0
        while place < len(stream):
            step = choose.choice([1, 2, 3, 7, 50, 200, 1000])
            await line.write(stream[place : place + step])
            place += step
        await line.until(lambda: line.decoder.stats()["ticks"] == expected["ticks"], "the same number of ticks")
        await line.until_ticks(len(ticks))
        assert line.decoder.stats() == expected
        assert line.handler.ticks == ticks


# ---- large messages ----


@pytest.mark.parametrize("size", [125, 126, 127, 65535, 65536, 65537, 300_000])
async def test_every_length_encoding_is_read(size):
    async with connected() as line:
        payload = quote(1)
        payload = payload[:-1] + b" " * (size - len(payload)) + b"}" if size > len(payload) else payload
        await line.write(frame(TEXT, payload) + frame(TEXT, quote(2)))
        await line.until_ticks(2)
        assert line.handler.ticks == [1, 2]


async def test_an_oversized_message_is_closed_with_1009():
    async with connected(max_message=1000) as line:
        await line.write(frame(TEXT, quote(1)) + frame(TEXT, quote(2, filler=2000)))
        assert await line.close_code() == 1009
        assert (await line.until_closed())[0] == 1009
        assert line.handler.ticks == [1]


async def test_an_oversized_message_is_refused_before_it_has_come():
    """The length in the header is enough: nobody is made to buffer what will be refused."""
    async with connected(max_message=1000) as line:
        await line.write(frame(TEXT, quote(1)) + b"\x81\x7f" + struct.pack(">Q", 1 << 40) + b'{"x":"')
        assert (await line.until_closed())[0] == 1009
        assert line.handler.ticks == [1]


async def test_fragments_that_together_are_too_large_are_closed_with_1009():
    async with connected(max_message=1000) as line:
        await line.write(frame(TEXT, quote(1)) + frame(TEXT, b'{"x":"', fin=False))
        for _ in range(11):
            await line.write(frame(CONTINUATION, b"x" * 100, fin=False))
        assert await line.close_code() == 1009
        assert (await line.until_closed())[0] == 1009


async def test_a_message_of_exactly_the_limit_is_read():
    payload = quote(1, filler=500)
    async with connected(max_message=len(payload)) as line:
        await line.write(frame(TEXT, payload))
        await line.write(
            frame(TEXT, payload[:100].replace(b'"u":1,', b'"u":2,'), fin=False) + frame(CONTINUATION, payload[100:])
        )
        await line.until_ticks(2)


# ---- violations ----

VIOLATIONS = {
    "rsv1 without an extension": (frame(TEXT, quote(9), rsv=4), 1002),
    "rsv2": (frame(TEXT, quote(9), rsv=2), 1002),
    "rsv3": (frame(TEXT, quote(9), rsv=1), 1002),
    "rsv on a ping": (frame(PING, b"x", rsv=4), 1002),
    "rsv on a close": (frame(CLOSE, b"\x03\xe8", rsv=2), 1002),
    "an unknown data opcode": (frame(0x3, quote(9)), 1002),
    "an unknown control opcode": (frame(0xB, b""), 1002),
    "the last opcode": (frame(0xF, b""), 1002),
    "a continuation of nothing": (frame(CONTINUATION, quote(9)), 1002),
    "an unfinished continuation of nothing": (frame(CONTINUATION, quote(9), fin=False), 1002),
    "text inside a fragmented message": (frame(TEXT, quote(9)[:9], fin=False) + frame(TEXT, quote(9)), 1002),
    "binary inside a fragmented message": (frame(TEXT, quote(9)[:9], fin=False) + frame(BINARY, quote(9)), 1002),
    "a fragmented ping": (frame(PING, b"x", fin=False), 1002),
    "a fragmented close": (frame(CLOSE, b"\x03\xe8", fin=False), 1002),
    "a ping too long": (frame(PING, b"x" * 126), 1002),
    "a close too long": (closing(1000, b"x" * 124), 1002),
    "a close of one byte": (frame(CLOSE, b"\x03"), 1002),
    "a close reason that is no UTF-8": (closing(1000, b"\xff\xfe"), 1007),
    "invalid UTF-8 in text": (frame(TEXT, b'{"s":"\xff"}'), 1007),
    "a surrogate in text": (frame(TEXT, b'{"s":"\xed\xa0\x80"}'), 1007),
    "an overlong form in text": (frame(TEXT, b'{"s":"\xc0\x80"}'), 1007),
    "text ending inside a character": (frame(TEXT, b'{"s":"\xe2\x82'), 1007),
    "invalid UTF-8 in a fragment": (frame(TEXT, b'{"s":"', fin=False) + frame(CONTINUATION, b'\xff"}'), 1007),
    "invalid UTF-8 outside any string": (frame(TEXT, b"\xff{}"), 1007),
    "a length with the top bit set": (b"\x81\x7f" + b"\xff" * 8 + b"{}", 1002),
}
BAD_CLOSE_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_violation_closes_the_connection_with_its_code(name):
    data, code = VIOLATIONS[name]
    async with connected() as line:
        await line.write(frame(TEXT, quote(1)) + data + frame(TEXT, quote(2)))
        closed = await line.until_closed()
        assert closed[0] == code
        assert line.handler.ticks == [1], "what came before the violation counts, what came after it does not"
        assert await line.close_code() == code
        assert [call[0] for call in line.handler.calls].count("closed") == 1


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_a_violation_is_seen_wherever_the_read_cuts_it(name):
    data, code = VIOLATIONS[name]
    for split in range(1, min(len(data), 12)):
        async with connected() as line:
            await line.write(data[:split])
            await line.write(data[split:])
            assert (await line.until_closed())[0] == code, f"cut at {split}"
            assert line.decoder.stats()["ticks"] == 0


@pytest.mark.parametrize("code", BAD_CLOSE_CODES)
async def test_a_close_code_that_may_not_be_sent_is_a_violation(code):
    async with connected() as line:
        await line.write(closing(code))
        assert (await line.until_closed())[0] == 1002


async def test_a_masked_server_frame_is_a_violation():
    masked = b"\x81\x85\x01\x02\x03\x04" + bytes(a ^ b for a, b in zip(b"hello", b"\x01\x02\x03\x04\x01", strict=True))
    async with connected() as line:
        await line.write(frame(TEXT, quote(1)) + masked)
        assert (await line.until_closed())[0] in (1002, 1006)
        assert line.handler.ticks == [1]


async def test_malformed_json_in_valid_utf8_is_counted_and_the_connection_goes_on():
    async with connected() as line:
        await line.write(frame(TEXT, b'{"s":"\\ud800"}') + frame(TEXT, b"{") + frame(TEXT, b"") + frame(TEXT, quote(1)))
        await line.until_ticks(1)
        assert line.decoder.stats()["malformed"] == 3
        assert line.handler.closed is None


async def test_binary_frames_need_no_utf8():
    async with connected() as line:
        await line.write(frame(BINARY, b"\xff\xfe\x00") + frame(TEXT, quote(1)))
        await line.until_ticks(1)
        assert line.handler.closed is None
        stats = line.decoder.stats()
        assert stats["frames"] == 2
        assert stats["malformed"] == 1


# ---- closing and pinging ----


async def test_a_ping_is_answered_with_its_payload_in_order():
    async with connected() as line:
        payloads = [b"", b"x", b"\x00\xff binary", b"y" * 125]
        await line.write(
            b"".join(frame(PING, payload) + frame(TEXT, quote(i + 1)) for i, payload in enumerate(payloads))
        )
        assert [await line.client_frame() for _ in payloads] == [(PONG, payload) for payload in payloads]
        assert line.wire.pings_answered == 4


async def test_a_ping_between_fragments_is_answered_at_once():
    async with connected() as line:
        await line.write(frame(TEXT, quote(1)[:10], fin=False) + frame(PING, b"now"))
        assert await line.client_frame() == (PONG, b"now")
        await line.write(frame(CONTINUATION, quote(1)[10:]))
        await line.until_ticks(1)


async def test_a_pong_is_handed_up():
    async with connected() as line:
        line.wire.ping(b"12345")
        assert await line.client_frame() == (PING, b"12345")
        await line.write(frame(PONG, b"12345"))
        await line.until(lambda: line.handler.named("pong"), "the pong")
        assert line.handler.named("pong") == [(b"12345",)]


async def test_a_close_is_answered_with_its_code():
    async with connected() as line:
        await line.write(closing(1001, b"going away"))
        assert await line.close_code() == 1001
        assert await line.until_closed() == (1001, "going away")


async def test_a_close_without_a_code_is_1005():
    async with connected() as line:
        await line.write(frame(CLOSE))
        assert (await line.until_closed())[0] == 1005


async def test_nothing_after_a_close_is_read():
    async with connected() as line:
        await line.write(frame(TEXT, quote(1)) + closing(1000) + frame(TEXT, quote(2)) + frame(PING, b"late"))
        assert (await line.until_closed())[0] == 1000
        assert line.handler.ticks == [1]
        assert line.wire.pings_answered == 0


async def test_a_lost_connection_is_1006():
    async with connected() as line:
        line.writer.transport.abort()
        assert (await line.until_closed())[0] == 1006


async def test_a_connection_lost_inside_a_frame_is_1006():
    async with connected() as line:
        await line.write(frame(TEXT, quote(1)) + frame(TEXT, quote(2))[:30])
        line.writer.close()
        assert (await line.until_closed())[0] == 1006
        assert line.handler.ticks == [1]


async def test_closing_sends_the_code_and_ends_the_connection():
    async with connected() as line:
        line.wire.close(1000, "done")
        opcode, payload = await line.client_frame()
        assert (opcode, payload) == (CLOSE, b"\x03\xe8done")
        await line.until_closed()


async def test_aborting_ends_the_connection_without_a_frame():
    async with connected() as line:
        line.wire.abort()
        await line.until_closed()
        async with asyncio.timeout(DEADLINE):
            assert await line.reader.read() == b""


async def test_text_is_sent_as_one_masked_text_frame():
    async with connected() as line:
        line.wire.send('{"method":"SUBSCRIBE","params":["币@trade"],"id":1}')
        assert await line.client_frame() == (TEXT, '{"method":"SUBSCRIBE","params":["币@trade"],"id":1}'.encode())
        line.wire.send("x" * 70_000)
        assert await line.client_frame() == (TEXT, b"x" * 70_000)


async def test_the_wire_counts_frames_and_the_bytes_of_their_payloads():
    data = frame(TEXT, quote(1)) + frame(PING, b"x") + frame(TEXT, ACK)
    size = len(quote(1)) + 1 + len(ACK)
    async with connected() as line:
        await line.write(data)
        await line.until(lambda: line.wire.bytes_received == size, f"{size} bytes counted")
        assert line.wire.frames_received == 3
        assert line.wire.last_read_mono_ns > 0


async def test_ticks_of_a_read_share_its_receive_time():
    async with connected() as line:
        reader = line.decoder.ring.reader()
        await line.write(frame(TEXT, quote(1)) + frame(TEXT, quote(2)) + frame(TEXT, quote(3)))
        await line.until_ticks(3)
        ticks = reader.read()
        assert len(set(ticks["recv_ns"])) == 1
        assert ticks["recv_ns"][0] > 1_600_000_000 * 10**9


async def test_a_source_marks_its_ticks():
    async with connected(source=7) as line:
        reader = line.decoder.ring.reader()
        await line.write(frame(TEXT, quote(1)))
        await line.until_ticks(1)
        assert list(reader.read()["source"]) == [7]


# ---- any bytes ----


def damaged(choose: random.Random) -> bytes:
    """Some frames with a few bytes changed, dropped or doubled, or no frames at all."""
    if choose.random() < 0.1:
        return choose.randbytes(choose.randint(1, 200))
    pieces = [data for data, _ in TRICKY.values()] + [data for data, _ in VIOLATIONS.values()] + [closing(1000)]
    stream = bytearray(b"".join(choose.choices(pieces, k=choose.randint(1, 6))))
    for _ in range(choose.randint(1, 4)):
        place = choose.randrange(len(stream))
        change = choose.random()
        if change < 0.5:
            stream[place] = choose.randrange(256)
        elif change < 0.75:
            del stream[place : place + choose.randint(1, 9)]
        else:
            stream[place:place] = stream[place : place + choose.randint(1, 9)]
        if not stream:
            return b"\x00"
    return bytes(stream)


@pytest.mark.parametrize("seed", range(10))
async def test_any_bytes_after_the_handshake_end_in_one_close_with_the_books_balanced(seed):
    choose = random.Random(seed)
    for _ in range(25):
        async with connected(max_message=100_000) as line:
            stream = damaged(choose)
            cut = choose.randrange(len(stream))
            await line.write(stream[:cut])
            await line.write(stream[cut:])
            line.writer.close()
            code, _ = await line.until_closed()
            assert code in (1000, 1001, 1002, 1005, 1006, 1007, 1009) or 3000 <= code < 5000 or 1003 <= code <= 1014
            stats = line.decoder.stats()
            assert stats["frames"] == stats["data"] + stats["control"] + stats["unknown"] + stats["malformed"]
            assert len(line.handler.ticks) == stats["ticks"], "every tick made was announced by a wake-up"
            assert len(line.handler.named("closed")) == 1


async def test_binary_messages_are_in_the_encoding_of_the_schema_and_text_messages_are_json():
    """As on Binance's SBE sockets: prices in BINARY frames, here in fragments, acknowledgements in TEXT frames."""
    async with connected(exchanges.SBE) as line:
        await line.write(frame(TEXT, b'{"result":null,"id":1}'))
        await line.until(lambda: line.handler.named("control"), "the acknowledgement")
        assert line.handler.named("control") == [(b'{"result":null,"id":1}',)]
        await line.write(frame(BINARY, SBE_QUOTE[:30], fin=False) + frame(CONTINUATION, SBE_QUOTE[30:]))
        await line.write(frame(BINARY, SBE_QUOTE))
        await line.until_ticks(2)
        assert line.decoder.prices["BTCUSDT"]["bid"] == 87654.32
        await line.write(frame(TEXT, SBE_QUOTE[:8].replace(b"\x11'", b"xx")) + frame(BINARY, b'{"result":null,"id":2}'))
        await line.until(lambda: line.decoder.stats()["malformed"] == 2, "two malformed messages")
        assert len(line.handler.named("control")) == 1


async def test_a_plain_text_the_schema_knows_is_handed_up():
    async with connected(Schema(Message("quote", symbol="s", bid="b"), plain=("pong",))) as line:
        await line.write(frame(TEXT, b"pong"))
        await line.until(lambda: line.handler.named("control"), "the pong")
        assert line.handler.named("control") == [(b"pong",)]
