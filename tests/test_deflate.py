"""permessage-deflate (RFC 7692): agreed in the handshake, inflated whatever the cuts, bounded, and refused when wrong.

The senders are the server of the `websockets` package, and zlib with frames written by hand.
"""

import asyncio
import base64
import hashlib
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from test_wire import CONTINUATION, DEADLINE, PING, TEXT, Line, connected, frame, quote
from websockets.asyncio.server import ServerConnection, serve
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from fastfeed import ConnectError, Feed
from fastfeed._wire import OFFER, agreed
from fastfeed.providers import Provider, provider

COMPRESSED = replace(provider("binance-usdm"), compression=True)
LIMIT = 10_000


class Sender:
    """The other side's compressor: one stream for all messages, or each by itself."""

    def __init__(self, *, anew: bool = False, bits: int = 15) -> None:
        self.anew, self.bits = anew, bits
        self.deflater = zlib.compressobj(wbits=-bits)

    def deflate(self, message: bytes) -> bytes:
        if self.anew:
            self.deflater = zlib.compressobj(wbits=-self.bits)
        return (self.deflater.compress(message) + self.deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def frame(self, message: bytes, opcode: int = TEXT) -> bytes:
        return frame(opcode, self.deflate(message), rsv=4)


@asynccontextmanager
async def inflating(*, anew: bool = False, **options) -> AsyncIterator[Line]:
    async with connected(**options) as line:
        line.wire.inflate(anew=anew)
        yield line


# ---- what was agreed ----


@pytest.mark.parametrize(
    ("answer", "meaning"),
    [
        (None, (False, False)),
        ("", (False, False)),
        ("permessage-deflate", (True, False)),
        ("permessage-deflate; server_no_context_takeover", (True, True)),
        ("permessage-deflate;client_no_context_takeover", (True, False)),
        ("permessage-deflate; server_max_window_bits=9; client_max_window_bits=15", (True, False)),
        ('permessage-deflate; server_max_window_bits = "12"; server_no_context_takeover', (True, True)),
    ],
)
def test_an_answer_to_what_was_offered_is_understood(answer, meaning):
    assert agreed(answer) == meaning


@pytest.mark.parametrize(
    "answer",
    [
        "x-webkit-deflate-frame",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; level=9",
        "permessage-deflate, permessage-deflate",
        "permessage-deflate; ",
    ],
)
def test_an_answer_to_what_was_not_offered_is_refused(answer):
    with pytest.raises(ValueError, match="the server answered"):
        agreed(answer)


# ---- messages ----


@pytest.mark.parametrize("anew", [False, True])
async def test_messages_are_inflated_with_and_without_a_context(anew):
    sender = Sender(anew=anew)
    async with inflating(anew=anew) as line:
        for number in range(1, 40):
            await line.write(sender.frame(quote(number)))
        await line.until_ticks(39)
        assert line.handler.ticks == list(range(1, 40))
        assert line.decoder.prices["BTCUSDT"]["bid"] == 39.5


async def test_a_context_makes_later_messages_smaller_than_they_could_be_alone():
    """Else the test above would show nothing of it."""
    sender, alone = Sender(), Sender(anew=True)
    sizes = [(len(sender.deflate(quote(number))), len(alone.deflate(quote(number)))) for number in range(9)]
    assert all(kept < fresh / 2 for kept, fresh in sizes[1:])


async def test_compressed_and_plain_messages_mix_and_control_frames_come_between():
    sender = Sender()
    async with inflating() as line:
        first, second = sender.deflate(quote(3)), sender.deflate(quote(4))
        await line.write(
            frame(TEXT, quote(1))
            + frame(TEXT, first[:9], fin=False, rsv=4)
            + frame(PING, b"hi")
            + frame(CONTINUATION, first[9:], fin=False)
            + frame(CONTINUATION)
            + frame(TEXT, second, rsv=4)
            + frame(TEXT, quote(5))
            + sender.frame(quote(6))
        )
        await line.until_ticks(5)
        assert line.handler.ticks == [1, 3, 4, 5, 6]
        assert line.wire.pings_answered == 1


async def test_a_compressed_message_may_be_cut_anywhere():
    """By reads at every byte, and in two fragments at every byte."""
    async with inflating() as line:
        sender = Sender()
        for number in range(1, 4):
            for byte in sender.frame(quote(number)):
                await line.write(bytes([byte]))
        await line.until_ticks(3)
        for cut in range(60):
            number += 1
            body = sender.deflate(quote(number))
            cut %= len(body) + 1
            await line.write(frame(TEXT, body[:cut], fin=False, rsv=4) + frame(CONTINUATION, body[cut:]))
        await line.until_ticks(number)
        assert line.handler.ticks == list(range(1, number + 1))


async def test_a_message_may_end_with_a_last_block_and_be_empty():
    deflater = zlib.compressobj(wbits=-15)
    whole = deflater.compress(quote(1)) + deflater.flush(zlib.Z_FINISH)
    async with inflating(anew=True) as line:
        await line.write(frame(TEXT, whole, rsv=4) + frame(TEXT, whole + b"\0", rsv=4))
        await line.write(frame(TEXT, b"\0", rsv=4) + frame(TEXT, rsv=4))  # nothing, as the RFC shows it, and no byte
        await line.write(Sender().frame(quote(2)))
        await line.until_ticks(3)
        assert line.decoder.stats()["malformed"] == 2


async def test_inflated_text_must_be_utf8():
    async with inflating() as line:
        await line.write(Sender().frame(b'{"x":"\xff"}'))
        assert (await line.until_closed())[0] == 1007


# ---- what is wrong ----


def fragments(data: bytes, size: int) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(
        frame(TEXT if n == 0 else CONTINUATION, part, fin=n + 1 == len(parts), rsv=4 if n == 0 else 0)
        for n, part in enumerate(parts)
    )


@pytest.mark.parametrize("size", [LIMIT + 1, 100 * LIMIT, 5_000_000])
@pytest.mark.parametrize("whole", [True, False])
async def test_a_message_that_inflates_beyond_the_limit_is_closed_before_it_has(size, whole):
    body = Sender().deflate(b"0" * size)
    assert len(body) < LIMIT
    async with inflating(max_message=LIMIT) as line:
        await line.write(frame(TEXT, body, rsv=4) if whole else fragments(body, 97))
        assert (await line.until_closed())[0] == 1009
        assert await line.close_code() == 1009
        assert line.decoder.stats()["frames"] == 0


async def test_a_message_of_just_the_limit_is_read():
    message = b'{"x":"' + b"y" * (LIMIT - 8) + b'"}'
    assert len(message) == LIMIT
    async with inflating(max_message=LIMIT) as line:
        sender = Sender()
        await line.write(sender.frame(message) + sender.frame(quote(1)))
        await line.until_ticks(1)
        assert line.decoder.stats()["unknown"] == 1


BODY = Sender().deflate(quote(1))
WRONG = {
    "no deflate at all": (frame(TEXT, b"\xff" * 20, rsv=4), 1007),
    "a stored block whose lengths disagree": (frame(TEXT, b"\0\x05\0\x05\0hello", rsv=4), 1007),
    "more than one last block": (frame(TEXT, b"\x03\0\x03\0\x03\0", rsv=4), 1007),
    "rsv1 on a continuation": (frame(TEXT, BODY[:5], fin=False, rsv=4) + frame(CONTINUATION, BODY[5:], rsv=4), 1002),
    "rsv1 on a ping": (frame(PING, b"x", rsv=4), 1002),
    "rsv2": (frame(TEXT, BODY, rsv=6), 1002),
    "rsv3": (frame(TEXT, BODY, rsv=5), 1002),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_breaks_the_rules_is_closed_with_its_code(name):
    data, code = WRONG[name]
    async with inflating() as line:
        await line.write(data + frame(TEXT, quote(9)))
        assert (await line.until_closed())[0] == code
        assert line.handler.ticks == []


async def test_any_damage_is_survived():
    """A byte of a compressed message changed, at every place: read as something else or closed, never more."""
    for place in range(len(BODY)):
        async with inflating(max_message=LIMIT) as line:
            await line.write(frame(TEXT, BODY[:place] + bytes([BODY[place] ^ 0x55]) + BODY[place + 1 :], rsv=4))
            await line.write(frame(PING, b"end"))
            await line.until(lambda line=line: line.handler.closed or line.wire.pings_answered, "an end")
            assert line.handler.closed is None or line.handler.closed[0] in (1007, 1009)


async def test_compressed_messages_are_refused_where_nothing_was_agreed():
    async with connected() as line:
        await line.write(frame(TEXT, BODY, rsv=4))
        assert (await line.until_closed())[0] == 1002


# ---- against a server that is not ours ----


class Server:
    """A server of the `websockets` package that acks and sends what it is told; `offers` are the handshakes' words."""

    def __init__(self, **deflate: object) -> None:
        self.offers: list[str | None] = []
        self.lines: list[ServerConnection] = []
        self.extensions = [ServerPerMessageDeflateFactory(**deflate)] if deflate else None

    async def _talk(self, line: ServerConnection) -> None:
        assert line.request is not None
        self.offers.append(line.request.headers.get("Sec-WebSocket-Extensions"))
        self.lines.append(line)
        async for message in line:
            number = int(str(message).partition('"id":')[2].partition(",")[0].rstrip("}"))
            await line.send(f'{{"result":null,"id":{number}}}')

    async def __aenter__(self) -> "Server":
        self.server = await serve(self._talk, "127.0.0.1", 0, compression=None, extensions=self.extensions)
        self.url = f"ws://127.0.0.1:{next(iter(self.server.sockets)).getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()


async def ticks(market: Provider, server: Server, count: int) -> list[int]:
    """What a feed makes of that many quotes, the last of them large."""
    found: list[int] = []
    async with asyncio.timeout(DEADLINE), Feed(market, ["BTCUSDT"], channels=["quote"], url=server.url) as feed:
        stream = feed.ticks()
        (line,) = server.lines
        for number in range(1, count + 1):
            await line.send(quote(number, filler=50_000 if number == count else 0).decode())
        async for batch in stream:
            found += batch["seq"].tolist()
            if len(found) >= count:
                break
    return found


@pytest.mark.parametrize(
    "deflate",
    [
        {"server_no_context_takeover": False},
        {"server_no_context_takeover": True},
        {"client_no_context_takeover": True, "client_max_window_bits": 9},
        *({"server_max_window_bits": bits} for bits in (9, 12, 15)),
    ],
)
async def test_a_feed_reads_what_the_websockets_package_compresses(deflate):
    async with Server(**deflate) as server:
        assert await ticks(COMPRESSED, server, 50) == list(range(1, 51))
        assert server.offers == [OFFER]
        assert [extension.name for extension in server.lines[0].protocol.extensions] == ["permessage-deflate"]


async def test_a_server_that_does_not_compress_is_read_all_the_same():
    async with Server() as server:
        assert await ticks(COMPRESSED, server, 5) == [1, 2, 3, 4, 5]
        assert server.offers == [OFFER]


async def test_nothing_is_offered_where_the_provider_does_not_ask_for_it():
    async with Server(server_no_context_takeover=False) as server:
        assert await ticks(provider("binance-usdm"), server, 5) == [1, 2, 3, 4, 5]
        assert server.offers == [None]


async def test_an_answer_that_was_not_offered_ends_the_dial_with_its_words():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        writer.write(b"Sec-WebSocket-Accept: " + accept + b"\r\n")
        writer.write(b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=20\r\n\r\n")
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    feed = Feed(COMPRESSED, ["BTCUSDT"], channels=["quote"], url=url, connect_timeout=1.0)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(ConnectError, match="server_max_window_bits=20"):
            await feed.__aenter__()
    server.close()
    await server.wait_closed()
