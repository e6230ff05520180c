"""Intrinio: its records, the traps its own SDKs fell into, its words out, a feed against its side, a replay file.

The judges are the frame of the protocol page, a writer of records of this file, and the events of the lab's market.
"""

import asyncio
import dataclasses
import io
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exchange import until

import fastfeed
from fastfeed import Backoff, Feed, Flag, Kind, Subscription, events
from fastfeed.dialect import Refusal
from fastfeed.errors import AuthError, ConfigError, DecodeError, GaveUp
from fastfeed.lab.stage import QUOTE, TRADE, Event, Stage
from fastfeed.providers import intrinio, provider

KEYS = {"api_key": "hunter2"}
SWIFT = Backoff(base=0.02, cap=0.05)
DEADLINE = 10.0
TRADED, ASK, BID = range(3)
T = 1636395583000000000
BATCH = bytes.fromhex(
    "03"
    "0022044141504c065600004016436400000000b6bbdc1ca5b51687d6120003402049"
    "011b044141504c0656008f4216432c01000000b6bbdc1ca5b51600"
    "021b044141504c065600713d1643c800000000b6bbdc1ca5b51600"
)


def record(
    type_: int,
    symbol: str,
    price: float,
    size: int,
    time: int,
    *,
    condition: str = "",
    centre: str = "V",
    subprovider: int = 6,
) -> bytes:
    name = symbol.encode()
    body = bytes([len(name)]) + name + bytes([subprovider]) + centre.encode("utf-16-le")
    body += struct.pack("<fIQ", price, size, time)
    body += (struct.pack("<I", 1_234_567) if type_ == TRADED else b"") + bytes([len(condition)]) + condition.encode()
    return bytes([type_, 2 + len(body)]) + body


def batch(*records: bytes) -> bytes:
    return bytes([len(records)]) + b"".join(records)


def read(*payloads: bytes, name: str = "intrinio") -> tuple[fastfeed.Decoder, np.ndarray]:
    decoder = fastfeed.Decoder(name)
    ring = decoder.ring.reader()
    for payload in payloads:
        decoder.decode(payload, recv_ns=1)
    return decoder, ring.read()


# Records ------------------------------------------------------------------------------------------------------------


def test_the_frame_of_the_protocol_page() -> None:
    decoder, [trade, ask, bid] = read(BATCH)
    assert [trade[name] for name in ("kind", "price", "size", "event_ns")] == [Kind.TRADE, 150.25, 100, T]
    assert [ask[name] for name in ("kind", "ask", "ask_size", "event_ns")] == [Kind.QUOTE, 150.25999450683594, 300, T]
    assert [bid[name] for name in ("kind", "bid", "bid_size", "event_ns")] == [Kind.QUOTE, 150.24000549316406, 200, T]
    assert [tick["flags"] for tick in (trade, ask, bid)] == [Flag.NOT_LAST, 0, 0]  # an odd lot
    row = decoder.prices["AAPL"]
    assert [row[name] for name in ("bid", "bid_size", "ask", "ask_size")] == [
        150.24000549316406, 200, 150.25999450683594, 300,
    ]  # fmt: skip
    assert math.isnan(row["last"])
    assert (
        batch(
            record(TRADED, "AAPL", 150.25, 100, T, condition="@ I"),
            record(ASK, "AAPL", 150.26, 300, T),
            record(BID, "AAPL", 150.24, 200, T),
        )
        == BATCH
    ), "and this file writes records as the page does"


def test_one_side_of_a_quote_leaves_the_other() -> None:
    decoder, ticks = read(
        batch(record(BID, "AAPL", 1.5, 100, T)),
        batch(record(ASK, "AAPL", 2.0, 200, T + 1)),
        batch(record(BID, "AAPL", 1.75, 300, T + 2)),
    )
    assert [math.isnan(tick["ask"]) for tick in ticks] == [True, False, True]
    row = decoder.prices["AAPL"]
    assert [row["bid"], row["bid_size"], row["ask"], row["ask_size"]] == [1.75, 300, 2.0, 200]


@pytest.mark.parametrize("count", [127, 128, 129, 200, 254, 255])
def test_a_count_is_not_signed(count: int) -> None:
    """Java's SDK skips frames of 128 records and more."""
    _, ticks = read(batch(*(record(TRADED, f"S{n}", n + 0.5, n, T + n) for n in range(count))))
    assert list(ticks["price"]) == [n + 0.5 for n in range(count)]


@pytest.mark.parametrize("length", [127, 128, 200, 255])
def test_a_length_is_not_signed(length: int) -> None:
    symbol = "A" * 40
    condition = "@" * (length - 27 - len(symbol))
    decoder, ticks = read(batch(record(TRADED, symbol, 1.5, 1, T, condition=condition), record(BID, "NEXT", 2.5, 1, T)))
    assert len(ticks) == 2
    assert decoder.prices["NEXT"]["bid"] == 2.5


@pytest.mark.parametrize("count", [1, 2, 255])
def test_a_record_of_no_length_is_read_once_and_not_as_often_as_the_count_says(count: int) -> None:
    """Python's SDK reads it `count` times."""
    spoiled = bytearray(record(BID, "AAPL", 1.5, 1, T))
    spoiled[1] = 0
    decoder, ticks = read(bytes([count]) + bytes(spoiled))
    assert len(ticks) == 0
    assert decoder.stats()["malformed"] == 1


def test_letters_leave_the_last_price_alone_as_their_tape_has_it() -> None:
    """Average price is B on tapes A and B and W on C; what Cboe One says is no letters."""
    conditions = ["", "@", "@F", "@ B", "@ W", "47", "@ T"]
    payload = [record(TRADED, "AAPL", 1.5, 1, T, subprovider=one, condition=c) for one in (1, 2, 3) for c in conditions]
    _, ticks = read(batch(*payload), name="intrinio-delayed-sip")
    by_tape = (ticks["flags"] & Flag.NOT_LAST != 0).reshape(3, -1).tolist()
    of_cta = [False, False, False, True, False, True, True]
    assert by_tape == [of_cta, of_cta, [False, False, False, False, True, True, True]]
    _, ticks = read(batch(*payload), name="intrinio-cboe-one")
    assert not ticks["flags"].any()
    _, ticks = read(batch(*payload))
    assert (ticks["flags"] & Flag.NOT_LAST != 0).reshape(3, -1).tolist() == [by_tape[2]] * 3


def test_the_last_byte_of_a_record_is_read() -> None:
    """Python's SDK drops it from raw records: here it is the end of the condition, and of the frame."""
    whole = batch(record(TRADED, "AAPL", 1.5, 1, T, condition="@ I"))
    assert len(read(whole)[1]) == 1
    decoder, ticks = read(whole[:-1])
    assert len(ticks) == 0
    assert decoder.stats()["malformed"] == 1


@pytest.mark.parametrize("centre", ["V", "\ufeff", "\ufffe", "\0", " "])
def test_a_market_centre_that_looks_like_a_byte_order_mark_changes_nothing(centre: str) -> None:
    """Python's SDK lets such a one turn the byte order."""
    decoder, _ = read(batch(record(TRADED, "AAPL", 1.5, 7, T, centre=centre)))
    assert [decoder.prices["AAPL"][name] for name in ("last", "last_size", "event_ns")] == [1.5, 7, T]


def test_a_price_is_the_float_that_was_sent() -> None:
    """Node's SDK rounds to four decimals and makes negative prices zero."""
    for price in (150.26, 0.00012345, 723_456.78, -37.63, 3.4e38):
        _, [tick] = read(batch(record(TRADED, "AAPL", price, 1, T)))
        assert tick["price"] == float(np.float32(price))


@pytest.mark.parametrize("price", [math.nan, math.inf, -math.inf])
def test_a_price_that_is_no_number_makes_the_record_unknown(price: float) -> None:
    decoder, [tick] = read(batch(record(BID, "AAPL", price, 1, T), record(ASK, "AAPL", 2.5, 1, T)))
    assert tick["ask"] == 2.5
    assert math.isnan(decoder.prices["AAPL"]["bid"])


def test_a_record_of_the_old_format_is_never_read_as_a_price() -> None:
    old = bytes([TRADED, 4]) + b"AAPL" + struct.pack("<fIQI", 1.5, 100, T, 5)
    decoder, ticks = read(b"\x01" + old, b"\x02" + old + old)
    assert len(ticks) == 0
    assert decoder.stats()["malformed"] == 2


def test_size_and_time_are_unsigned() -> None:
    _, [tick] = read(batch(record(TRADED, "AAPL", 1.5, 2**32 - 1, 2**62)))
    assert [tick["size"], tick["event_ns"]] == [2**32 - 1, 2**62]


# Words --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "action", "topic", "frame"),
    [
        ("intrinio", "subscribe", "AAPL", "4a004141504c"),
        ("intrinio-trades", "subscribe", "$FIREHOSE", "4a012446495245484f5345"),
        ("intrinio", "unsubscribe", "AAPL", "4c4141504c"),
        ("intrinio-delayed-sip-trades", "unsubscribe", "AAPL", "4c4141504c"),
    ],
)
def test_joins_and_leaves_are_the_bytes_of_the_sdks(name: str, action: str, topic: str, frame: str) -> None:
    assert getattr(provider(name).dialect, action)(1, [topic]) == bytes.fromhex(frame)


def test_every_symbol_is_the_firehose() -> None:
    market = provider("intrinio")
    for channel in ("quote", "trade"):
        assert market.topic(market.subscription(Subscription("*", channel))) == "$FIREHOSE"
    with pytest.raises(ConfigError, match="no symbol"):
        market.subscription(Subscription("$FIREHOSE", "trade"))


@pytest.mark.parametrize(
    ("payload", "replies", "count"),
    [
        (b'{"error":"too many symbols"}', (Refusal(None, "too many symbols"),), "control"),
        (b'{"warning":"slow"}', (), "unknown"),
        (b"[1]", (), "unknown"),
        (b"Warning: you are slow", (), "malformed"),
    ],
)
def test_text_makes_no_price_and_is_counted(payload: bytes, replies: tuple[object, ...], count: str) -> None:
    decoder = fastfeed.Decoder("intrinio")
    assert decoder.decode(payload, text=True) == 0
    assert decoder.stats()[count] == 1
    assert provider("intrinio").dialect.read(payload) == replies


@pytest.mark.parametrize("payload", [b"", b"\xff", b"7", b"{}", b"[[]]"])
def test_nonsense_is_no_reply(payload: bytes) -> None:
    assert provider("intrinio").dialect.read(payload) == ()


def test_the_waits_between_dials_are_those_of_the_sdks() -> None:
    backoff = provider("intrinio").backoff
    assert [backoff.delay(failures, 0.5) for failures in range(7)] == [10, 30, 60, 300, 600, 600, 600]


# A feed against the lab ---------------------------------------------------------------------------------------------


def feed_of(stage: Stage, name: str | fastfeed.Provider = "intrinio", **options: Any) -> Feed:
    options = {"symbols": stage.symbols, "channels": ["quote", "trade"], "backoff": SWIFT, **KEYS, **options}
    return Feed(name, url=stage.url, **options)


def joined(stage: Stage) -> bool:
    return stage.subscribed >= {(kind, symbol) for kind in (QUOTE, TRADE) for symbol in stage.symbols}


async def collect(feed: Feed, count: int, stage: Stage, events_: int, **play: Any) -> tuple[list[Event], list[Any]]:
    """Let so many events happen and read so many ticks."""
    found: list[Any] = []
    async with feed.ticks() as stream, asyncio.timeout(DEADLINE):
        happened = await stage.plays(events_, **play)
        async for ticks in stream:
            found += list(ticks)
            if len(found) >= count:
                return happened, found
    raise AssertionError("the stream ended")


def same(event: Event, ticks: list[Any]) -> None:
    """The next one or two of `ticks`, which are taken, tell of `event`."""
    price = float(np.float32(event.price))
    if event.kind == TRADE:
        tick = ticks.pop(0)
        assert [tick["kind"], tick["price"], tick["size"]] == [Kind.TRADE, price, event.size]
    else:
        ask, bid = ticks.pop(0), ticks.pop(0)
        assert [ask["ask"], ask["ask_size"]] == [float(np.float32(event.ask)), event.ask_size]
        assert [bid["bid"], bid["bid_size"]] == [float(np.float32(event.bid)), event.bid_size]


def ticks_of(happened: list[Event]) -> int:
    return sum(2 if event.kind == QUOTE else 1 for event in happened)


@pytest.mark.parametrize("piece", [None, 1, 1000])
async def test_a_feed_reads_what_the_market_did_however_it_is_fragmented(piece: int | None) -> None:
    """C#'s SDK takes a fragmented message for two, Python's joins it wrongly."""
    async with Stage("intrinio", keys=KEYS) as stage, feed_of(stage) as feed:
        await until(lambda: joined(stage), "the joins")
        if piece is not None:
            stage.fragments(piece)
        found: list[Any] = []
        async with feed.ticks() as stream, asyncio.timeout(DEADLINE):
            happened = await stage.plays(600)
            while len(found) < ticks_of(happened):
                found += list(await anext(stream))
        for event in happened:
            same(event, found)
        assert found == []
        stats = feed.stats()
        assert [stats["unknown"], stats["malformed"], stats["frames"]] == [0, 0, -(-ticks_of(happened) // 255)]


async def test_half_a_message_of_a_lost_connection_does_not_spoil_the_next() -> None:
    """Python's SDK kept the fragments of one connection for the next."""
    async with Stage("intrinio", symbols=["AAPL"], keys=KEYS) as stage, feed_of(stage) as feed:
        await until(lambda: joined(stage), "the join")
        [seat] = stage.seats.values()
        before = feed.stats()["bytes"]
        seat._request.transport.write(b"\x02\x0a" + BATCH[:10])  # of a BINARY message, and not the last fragment
        await until(lambda: feed.stats()["bytes"] > before, "half a message")
        stage.cuts()
        await until(lambda: stage.dials == 2 and joined(stage), "a redial")
        _, [tick] = await collect(feed, 1, stage, 1, kind=TRADE)
        assert tick["kind"] == Kind.TRADE
        assert feed.stats()["malformed"] == 0


async def test_the_handshake_shows_a_fresh_token_and_asks_for_the_new_records() -> None:
    async with Stage("intrinio", keys=KEYS) as stage, feed_of(stage):
        [asked] = stage.asked
        assert (asked.path, asked.query) == ("/auth", {"api_key": "hunter2"})
        assert asked.headers["client-information"] == "fastfeed"
        [seat] = stage.seats.values()
        assert seat.desk.asked.path == "/socket/websocket"
        assert seat.desk.asked.query == {"vsn": "1.0.0", "token": next(iter(stage.tokens))}
        assert seat.desk.asked.headers["usenewequitiesformat"] == "v2"
        assert seat.desk.asked.headers["client-information"] == "fastfeed"


async def test_a_symbol_is_joined_once_for_both_channels_and_left_with_the_last() -> None:
    async with Stage("intrinio", symbols=["AAPL"], keys=KEYS) as stage, feed_of(stage) as feed:
        await until(lambda: joined(stage), "the join")
        assert stage.heard == [b"J\x00AAPL"]
        feed.unsubscribe(["AAPL"], channels=["quote"])
        _, [tick] = await collect(feed, 1, stage, 1, kind=TRADE)
        assert tick["kind"] == Kind.TRADE
        assert stage.heard == [b"J\x00AAPL"], "the trades still want it"
        feed.unsubscribe(["AAPL"])
        await until(lambda: stage.heard[-1] == b"LAAPL", "the leave")
        assert stage.subscribed == set()


async def test_trades_alone_can_be_asked_for() -> None:
    async with (
        Stage("intrinio", symbols=["AAPL"], keys=KEYS) as stage,
        feed_of(stage, "intrinio-trades", channels=["trade"]) as feed,
    ):
        await until(lambda: stage.subscribed == {(TRADE, "AAPL")}, "the join")
        assert stage.heard == [b"J\x01AAPL"]
        await stage.plays(5, kind=QUOTE)
        _, [tick] = await collect(feed, 1, stage, 1, kind=TRADE)
        assert tick["kind"] == Kind.TRADE


async def test_the_firehose_brings_every_symbol() -> None:
    async with Stage("intrinio", keys=KEYS) as stage, feed_of(stage, symbols=["*"], max_symbols=100) as feed:
        await until(lambda: stage.heard == [b"J\x00$FIREHOSE"], "the join")
        await until(lambda: stage.subscribed, "the join")
        _, ticks = await collect(feed, 100, stage, 100, kind=TRADE)
        assert {feed.prices.symbols[tick["symbol_id"]] for tick in ticks} == set(stage.symbols)


async def test_a_wrong_key_is_not_shown_again_and_again() -> None:
    async with Stage("intrinio", keys={"api_key": "another"}) as stage:
        with pytest.raises((AuthError, GaveUp), match="no token: HTTP 401"):
            async with feed_of(stage):
                pass
        assert stage.dials == 0
        assert len(stage.asked) <= 2, "once, and once more for a fresh token"


async def test_a_redial_asks_for_a_new_token_and_joins_again() -> None:
    async with Stage("intrinio", keys=KEYS) as stage, feed_of(stage) as feed:
        await until(lambda: joined(stage), "the joins")
        stage.tokens.clear()
        stage.cuts()
        await until(lambda: stage.dials == 2 and joined(stage), "a redial")
        assert len(stage.asked) == 2
        happened, ticks = await collect(feed, 20, stage, 20, kind=TRADE)
        for event in happened:
            same(event, ticks)


async def test_a_token_that_is_there_already_is_used_as_it_is() -> None:
    market = dataclasses.replace(provider("intrinio"), auth=intrinio.TOKEN)
    async with Stage("intrinio", symbols=["AAPL"], keys=KEYS) as stage:
        token = stage.issue()
        async with feed_of(stage, market, credentials={"token": token}):
            await until(lambda: joined(stage), "the join")
            assert stage.asked == []


async def test_an_error_text_is_counted_and_does_not_end_the_connection() -> None:
    async with Stage("intrinio", symbols=["AAPL"], keys=KEYS) as stage, feed_of(stage) as feed:
        await until(lambda: joined(stage), "the join")
        await stage.says("too many symbols: MSFT", '{"error":"slow client"}')
        happened, ticks = await collect(feed, 3, stage, 3, kind=TRADE)
        same(happened[0], ticks)
        stats = feed.stats()
        assert [stats["malformed"], stats["control"]] == [1, 1]
        assert stage.dials == 1


async def test_what_a_cut_missed_is_a_window_of_time() -> None:
    async with Stage("intrinio", symbols=["AAPL"], keys=KEYS) as stage, feed_of(stage, channels=["trade"]) as feed:
        await until(lambda: joined(stage), "the join")
        await collect(feed, 1, stage, 1, kind=TRADE)
        news = feed.events()
        stage.cuts()
        await until(lambda: stage.dials == 2 and joined(stage), "a redial")
        await collect(feed, 1, stage, 1, kind=TRADE)
        async with asyncio.timeout(DEADLINE):
            async for event in news:
                if isinstance(event, events.Gap):
                    break
        assert (event.gap.symbol, event.gap.stream, event.gap.cause) == ("AAPL", "trade", "window")
        assert 0 < event.gap.from_ns < event.gap.to_ns


# Replay files -------------------------------------------------------------------------------------------------------


def replay_file(*records: tuple[bytes, int]) -> bytes:
    return b"".join(one + struct.pack("<Q", recv_ns) for one, recv_ns in records)


RECORDED = [
    (record(TRADED, "AAPL", 150.25, 100, T, condition="@ I"), T + 5),
    (record(ASK, "AAPL", 150.26, 300, T + 1), T + 6),
    (record(BID, "BRK.A", 723_456.78, 1, T + 2), 2**63 - 1),
]


def test_a_replay_file_gives_the_same_ticks_as_the_stream(tmp_path: Path) -> None:
    path = tmp_path / "iex-2021-11-08"
    path.write_bytes(replay_file(*RECORDED))
    decoder = fastfeed.Decoder("intrinio")
    ring = decoder.ring.reader()
    with path.open("rb") as file:
        for frame, recv_ns in intrinio.replay(file):
            assert decoder.decode(frame, recv_ns=recv_ns) == 1
    ticks = ring.read()
    assert list(ticks["recv_ns"]) == [recv_ns for _, recv_ns in RECORDED]
    _, streamed = read(batch(*(one for one, _ in RECORDED)))
    streamed["recv_ns"] = ticks["recv_ns"]
    assert ticks.tobytes() == streamed.tobytes()
    assert decoder.prices["BRK.A"]["bid"] == float(np.float32(723_456.78))


def test_a_replay_file_may_be_empty() -> None:
    assert list(intrinio.replay(io.BytesIO())) == []


@pytest.mark.parametrize("kept", range(1, 41))
def test_a_replay_file_that_breaks_off_says_where(kept: int) -> None:
    whole = replay_file(*RECORDED[:1])
    reading = intrinio.replay(io.BytesIO(whole + whole[:kept]))
    next(reading)
    with pytest.raises(DecodeError, match=f"ends within a record, or none at byte {len(whole)},"):
        next(reading)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_a_replay_record_too_short_to_be_one_ends_the_reading(length: int) -> None:
    with pytest.raises(DecodeError):
        list(intrinio.replay(io.BytesIO(bytes([TRADED, length]) + bytes(100))))
