"""Intrinio's real-time equities: trades and one-sided quotes as binary records, in batches. Data only.

Sources: the code of Intrinio's Python, C#, Java and Node SDKs (2025 and 2026); there is no public specification. Often
said otherwise: that the server beats every 30 s. No source has it, and the heartbeat that clients once sent is gone
since 2023: silence is judged by the data alone. Nothing is acknowledged and nothing numbered. Prices are 32-bit floats,
widened and not rounded: beyond 131,072 they skip whole cents. What an error says is not documented, so TEXT is counted
and no more, unless it is JSON with an `error`.

One join brings trades and quotes alike; the names with `-trades` ask for trades only, about a hundredth of the volume.
Every dial asks for a token first, as the C# and Java SDKs do. No source knows a state that a later connection could
resume from: where a token of your own is configured (INTRINIO_TOKEN, or `credentials=`), it is used as it is, with
`dataclasses.replace(provider("intrinio"), auth=intrinio.TOKEN)`. What was missed is in the replay file of the day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import BinaryIO

from fastfeed.backoff import Backoff
from fastfeed.binary import Binary, Number, Skip, Text
from fastfeed.credentials import Auth, Token
from fastfeed.dialect import Dialect, Refusal, Reply
from fastfeed.errors import DecodeError
from fastfeed.providers import Channel, Evidence, Provider, tapes
from fastfeed.schema import Message, Schema
from fastfeed.subscriptions import Limits, Render
from fastfeed.text import mapping

# Control ------------------------------------------------------------------------------------------------------------


def _join(trades_only: bool) -> Render:
    def render(_: int, topics: Sequence[str]) -> bytes:
        (symbol,) = topics
        return b"J" + bytes([trades_only]) + symbol.encode()

    return render


def _leave(_: int, topics: Sequence[str]) -> bytes:
    (symbol,) = topics
    return b"L" + symbol.encode()


def _read(payload: bytes) -> tuple[Reply, ...]:
    message = mapping(payload)
    return (Refusal(None, str(message["error"])),) if "error" in message else ()


# Records ------------------------------------------------------------------------------------------------------------

# The market centre is one UTF-16 character, which nobody here reads.
_HEAD = (Text("symbol", prefix="u8"), Number("subprovider", "u8"), Skip(2), Number("price", "f32"))
_BODY = (*_HEAD, Number("size", "u32"), Number("time", "u64"))
_CONDITION = Text("condition", prefix="u8")
_TRADE, _ASK, _BID = range(3)

_RECORDS = Binary(
    {_TRADE: (*_BODY, Number("total_volume", "u32"), _CONDITION), (_ASK, _BID): (*_BODY, _CONDITION)},
    header=(Number("type", "u8"), Number("length", "u8")),
    select="type",
    length="length",
    count="u8",
)


_TIME = ("time", "ns")
_CTA_A, _CTA_B = 1, 2  # sub-providers


def _trade(subprovider: int | None = None, not_last: tuple[str, ...] = ()) -> Message:
    return Message(
        "trade",
        match={"type": _TRADE, **({} if subprovider is None else {"subprovider": subprovider})},
        symbol="symbol",
        price="price",
        size="size",
        event_time=_TIME,
        conditions=("condition", "chars") if not_last else None,
        not_last=not_last,
    )


# Letters, as the tapes have them. Only the tapes' own source tells whose they are; elsewhere one message is one record,
# which is read without a look at its values. Of Cboe One they are a number whose bits are documented nowhere.
_TRADES: Mapping[str, tuple[Message, ...]] = {
    "-delayed-sip": (_trade(_CTA_A, tapes.CTA), _trade(_CTA_B, tapes.CTA), _trade(not_last=tapes.UTP)),
    "-cboe-one": (_trade(),),
}
_LETTERED = (_trade(not_last=tapes.UTP),)
_MESSAGES = (
    # Each side of the best bid and offer comes alone; the table joins them.
    Message("quote", match={"type": _ASK}, symbol="symbol", ask="price", ask_size="size", event_time=_TIME),
    Message("quote", match={"type": _BID}, symbol="symbol", bid="price", bid_size="size", event_time=_TIME),
    Message("control", has=("error",)),
)

# Providers ----------------------------------------------------------------------------------------------------------

_WHO = {"Client-Information": "fastfeed"}
TOKEN = Auth(env={"token": "INTRINIO_TOKEN"}, query={"token": "{token}"})  # one that is there already


def _feed(name: str, host: str, trades: tuple[Message, ...], *, trades_only: bool) -> Provider:
    channel = Channel(topic="{symbol}", path="/socket/websocket?vsn=1.0.0", all="$FIREHOSE")
    return Provider(
        name=name,
        url=f"wss://{host}",
        channels={"trade": channel} if trades_only else {"quote": channel, "trade": channel},
        schema=Schema(*trades, *_MESSAGES, encoding=_RECORDS, name=name),
        dialect=Dialect(subscribe=_join(trades_only), unsubscribe=_leave, read=_read, acks=False),
        limits=Limits(streams_per_request=1),
        auth=Auth(
            env={"api_key": "INTRINIO_API_KEY"},
            query={"token": "{token}"},
            token=Token(
                url=f"https://{host}/auth?api_key={{api_key}}",
                read=lambda body: (body.decode().strip(), None),
                headers=_WHO,
                lifetime=0.0,
            ),
        ),
        # Without the first, records of before 2023 come, which differ.
        headers={"UseNewEquitiesFormat": "v2", **_WHO},
        backoff=Backoff(ladder=(10.0, 30.0, 60.0, 300.0, 600.0)),
        pongs_promised=False,
        symbol=r"[A-Z][A-Z0-9./-]*",
        example="AAPL",
        upper=True,
        evidence=Evidence(
            grade="the code of official clients; there is no public specification",
            samples="records laid out as those clients read them",
            checked_by=("intriniorealtime",),
        ),
    )


_HOSTS: Mapping[str, str] = {
    "": "realtime-mx.intrinio.com",  # IEX
    "-delayed-sip": "realtime-delayed-sip.intrinio.com",
    "-nasdaq-basic": "realtime-nasdaq-basic.intrinio.com",
    "-cboe-one": "cboe-one.intrinio.com",
    "-equities-edge": "equities-edge.intrinio.com",
}

PROVIDERS = {
    f"intrinio{source}{kinds}": _feed(
        f"intrinio{source}{kinds}", host, _TRADES.get(source, _LETTERED), trades_only=bool(kinds)
    )
    for source, host in _HOSTS.items()
    for kinds in ("", "-trades")
}

# Replay files -------------------------------------------------------------------------------------------------------


def replay(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The records of a day's replay file (`get_security_replay_file` of the SDKs), as (frame, receive time in ns).

    For `decoder.decode(frame, recv_ns)`. The file is each record followed by its receive time, u64.

    Raises:
        DecodeError: the file breaks off, or a record says a length that none can have; with the offset of the record.
    """
    offset = 0
    while head := file.read(2):
        size = head[1] if len(head) == 2 else 0
        rest = file.read(size - 2 + 8) if size > 2 else b""
        if len(rest) != size + 6:
            raise DecodeError(offset, head + rest, "a replay file that ends within a record, or none")
        yield b"\x01" + head + rest[:-8], int.from_bytes(rest[-8:], "little")
        offset += size + 8
