"""Whole recordings against the oracle, every bit; and every gap cut into them is found, no other.

Skipped unless FASTFEED_FRAMES names the folder of recordings.
"""

import random

import numpy as np
import orjson
import pytest
from exchanges import SBE
from oracle import Decoder as Oracle
from oracle import assert_same

import fastfeed
from fastfeed import Flag, Kind
from fastfeed.schema import MISSING, Message, Schema, Symbol

RING = 1 << 20

# Recorded in 2021: the exchanges' older public formats.
COINBASE = Schema(
    Message(
        "quote",
        match={"type": "ticker"},
        symbol="product_id",
        bid="best_bid",
        ask="best_ask",
        seq="sequence",
        event_time=("time", "iso"),
    ),
    Message(
        "trade",
        match={"type": "match"},
        symbol="product_id",
        price="price",
        size="size",
        side="side",
        seq="trade_id",
        event_time=("time", "iso"),
    ),
    Message(
        "depth",
        match={"type": "snapshot"},
        symbol="product_id",
        bids="bids",
        asks="asks",
        snapshot=True,
        channel="book",
    ),
    Message(
        "depth",
        match={"type": "l2update"},
        channel="book",
        symbol="product_id",
        bids="changes",
        level=(1, 2),
        event_time=("time", "iso"),
    ),
    Message("control", match={"type": "subscriptions"}),
    name="coinbase-2021",
)
KRAKEN = Schema(
    Message("depth", match={2: "book-1000", "1.as": MISSING}, symbol=3, bids="1.b", asks="1.a"),
    Message("depth", match={2: "book-1000"}, channel="snapshot", symbol=3, bids="1.bs", asks="1.as", snapshot=True),
    Message("control", has=("event",)),
    name="kraken-2021",
)
DERIBIT = Schema(
    Message(
        "quote",
        match={"params.data.best_bid_price": 0, "id": MISSING},
        channel="one sided",
        symbol="params.data.instrument_name",
        ask="params.data.best_ask_price",
        ask_size="params.data.best_ask_amount",
        event_time=("params.data.timestamp", "ms"),
    ),
    Message(
        "quote",
        has=("params.data.best_bid_price",),
        symbol="params.data.instrument_name",
        bid="params.data.best_bid_price",
        bid_size="params.data.best_bid_amount",
        ask="params.data.best_ask_price",
        ask_size="params.data.best_ask_amount",
        event_time=("params.data.timestamp", "ms"),
    ),
    Message(
        "depth",
        match={"params.data.type": "snapshot"},
        symbol=Symbol("params.data.instrument_name"),
        bids="params.data.bids",
        asks="params.data.asks",
        level=(1, 2),
        seq="params.data.change_id",
        snapshot=True,
    ),
    Message(
        "depth",
        match={"params.data.type": "change"},
        channel="changes",
        symbol="params.data.instrument_name",
        bids="params.data.bids",
        asks="params.data.asks",
        level=(1, 2),
        seq="params.data.change_id",
        prev_seq="params.data.prev_change_id",
        event_time=("params.data.timestamp", "ms"),
    ),
    Message("control", has=("id", "result")),
    name="deribit-2021",
)
RECORDED = {
    "binance-usdm_btcusdt_20240808": ("binance-usdm", 93_954),
    "binance-spot_btcusdt_20240808": ("binance-spot", 41_249),
    "cf_binance-usdm": ("binance-usdm", 1535),
    "cf_binance": ("binance-spot", 265),
    "cf_coinbase": (COINBASE, 9946),
    "cf_kraken": (KRAKEN, 4321),
    "cf_deribit": (DERIBIT, 136),
}


def run(decoder: fastfeed.Decoder, frames: list[tuple[int, bytes]]) -> np.ndarray:
    """All ticks of the frames."""
    ring = decoder.ring.reader()
    ticks = []
    for number, (recv_ns, payload) in enumerate(frames):
        decoder.decode(payload, recv_ns=recv_ns)
        if number % 5000 == 0:
            ticks.append(ring.read().tobytes())
    ticks.append(ring.read().tobytes())
    assert ring.lost == 0
    return np.frombuffer(b"".join(ticks), fastfeed.TICK_DTYPE)


@pytest.mark.parametrize("name", RECORDED)
def test_a_whole_recording_is_read_as_the_oracle_reads_it(recordings, name):
    provider, count = RECORDED[name]
    frames = recordings.frames(name)
    assert len(frames) == count
    decoder = fastfeed.Decoder(provider, ring_capacity=RING)
    ticks = run(decoder, frames)
    oracle = Oracle(decoder.schema)
    for recv_ns, payload in frames:
        oracle.decode(payload, recv_ns)
    assert_same(decoder, ticks, oracle)
    stats = decoder.stats()
    assert stats["malformed"] == 0
    assert stats["frames"] == count == stats["data"] + stats["control"] + stats["unknown"]


@pytest.mark.parametrize(
    ("name", "unknown"), [("binance-usdm_btcusdt_20240808", 1), ("binance-spot_btcusdt_20240808", 1)]
)
def test_nothing_in_the_recordings_is_a_false_alarm(recordings, name, unknown):
    """All but the one REST snapshot is data; no gap, no duplicate, no reset, nothing malformed."""
    provider, _ = RECORDED[name]
    decoder = fastfeed.Decoder(provider, ring_capacity=RING)
    run(decoder, recordings.frames(name))
    stats = decoder.stats()
    assert {key: stats[key] for key in ("unknown", "control", "malformed", "gaps", "duplicates", "resets")} == {
        "unknown": unknown,
        "control": 0,
        "malformed": 0,
        "gaps": 0,
        "duplicates": 0,
        "resets": 0,
    }


@pytest.mark.parametrize("name", ["binance-usdm_btcusdt_20240808", "binance-spot_btcusdt_20240808"])
def test_the_recorded_prices_are_in_the_table_at_the_end(recordings, name):
    """Told without the oracle's decoder: the last quote and trade, straight from the text."""
    provider, _ = RECORDED[name]
    decoder = fastfeed.Decoder(provider, ring_capacity=RING)
    frames = recordings.frames(name)
    assert sum(decoder.decode(payload, recv_ns=recv_ns) for recv_ns, payload in frames) == decoder.stats()["ticks"]
    bodies = [orjson.loads(payload).get("data", {}) for _, payload in frames]
    quote = [b for b in bodies if "B" in b][-1]
    trade = [b for b in bodies if b.get("e") == "trade"][-1]
    row = decoder.prices["BTCUSDT"]
    assert [row["bid"], row["bid_size"], row["ask"], row["ask_size"]] == [float(quote[k]) for k in "bBaA"]
    assert [row["last"], row["last_size"]] == [float(trade[k]) for k in "pq"]
    assert (row["quote_seq"], row["trade_seq"]) == (quote["u"], trade["t"])
    assert row["updates"] == sum("B" in b or b.get("e") == "trade" for b in bodies)


def test_the_recording_as_sbe_gives_what_it_gives_as_json(recordings):
    """The spot recording, re-encoded by an independent codec: the same prices, sizes and numbers, bit for bit."""
    json_decoder = fastfeed.Decoder("binance-spot", ring_capacity=RING)
    sbe_decoder = fastfeed.Decoder(SBE, ring_capacity=RING)
    as_json = run(json_decoder, recordings.frames("binance-spot_btcusdt_20240808"))
    as_sbe = run(sbe_decoder, recordings.messages("binance-sbe_btcusdt_20240808"))
    assert len(as_json) == len(as_sbe) > 160_000
    plain = [ticks.view(fastfeed.TICK_DTYPE_PLAIN) for ticks in (as_json, as_sbe)]
    for name in ("kind", "flags", "seq", "recv_ns", "value0", "value1", "value2", "value3"):
        assert plain[0][name].tobytes() == plain[1][name].tobytes(), name
    # SBE counts microseconds, the JSON streams milliseconds
    assert (as_json["event_ns"] // 1_000_000 == as_sbe["event_ns"] // 1_000_000).all()
    stats = sbe_decoder.stats()
    assert {name: stats[name] for name in ("unknown", "malformed", "gaps", "duplicates", "resets")} == dict.fromkeys(
        ("unknown", "malformed", "gaps", "duplicates", "resets"), 0
    )
    for name in ("bid", "bid_size", "ask", "ask_size", "last", "last_size", "quote_seq", "trade_seq", "updates"):
        assert json_decoder.prices["BTCUSDT"][name] == sbe_decoder.prices["BTCUSDT"][name], name


def kind_of(payload: bytes) -> str:
    for name in ("trade", "depthUpdate"):
        if b'"e":"%s"' % name.encode() in payload:
            return name
    return "quote"


@pytest.mark.parametrize("name", ["binance-usdm_btcusdt_20240808", "binance-spot_btcusdt_20240808"])
@pytest.mark.parametrize("kind", ["trade", "depthUpdate"])
@pytest.mark.parametrize("k", [1, 7, 100])
def test_k_deleted_frames_are_k_gaps(recordings, name, kind, k):
    provider, _ = RECORDED[name]
    frames = recordings.frames(name)
    places = [i for i, (_, payload) in enumerate(frames) if kind_of(payload) == kind]
    # Never two neighbours, never the first or last of the stream: each hole stands alone and shows.
    chosen = random.Random(k).sample(range(2, len(places) - 2, 2), k)
    deleted = sorted(places[i] for i in chosen)
    gone = set(deleted)
    decoder = fastfeed.Decoder(provider, ring_capacity=RING)
    ticks = run(decoder, [frame for i, frame in enumerate(frames) if i not in gone])
    stats = decoder.stats()
    assert (stats["gaps"], stats["duplicates"], stats["resets"]) == (k, 0, 0)
    channel = "depth" if kind == "depthUpdate" else None
    expected = []
    for i in deleted:
        body = orjson.loads(frames[i][1])["data"]
        after = next(p for p in places if p > i)
        expected.append(
            (body["t"], body["t"], frames[after][0]) if kind == "trade" else (None, body["u"], frames[after][0])
        )
    for gap, (first, last, recv_ns) in zip(decoder.gaps(), expected, strict=True):
        assert gap.symbol == "BTCUSDT"
        assert channel is None or gap.stream == channel
        assert first is None or gap.first == first
        assert gap.last == last
        assert gap.recv_ns == recv_ns
    flagged = ticks[(ticks["flags"] & Flag.AFTER_GAP) != 0]
    assert len(np.unique(flagged["seq"])) == k
    assert set(flagged["kind"]) == {Kind.TRADE if kind == "trade" else Kind.LEVEL}


def test_a_long_hole_is_one_gap(recordings):
    frames = recordings.frames("binance-usdm_btcusdt_20240808")
    places = [i for i, (_, payload) in enumerate(frames) if kind_of(payload) == "trade"]
    gone = set(places[1000:1500])
    decoder = fastfeed.Decoder("binance-usdm", ring_capacity=RING)
    run(decoder, [frame for i, frame in enumerate(frames) if i not in gone])
    (gap,) = decoder.gaps()
    assert gap.missing == 500


def test_a_replayed_stretch_is_duplicates_and_no_gap(recordings):
    """Seven repeats in a row, as after a redial that overlaps: flagged, and the table goes on with the newest."""
    frames = recordings.frames("binance-usdm_btcusdt_20240808")
    trades = [frame for frame in frames if kind_of(frame[1]) == "trade"]
    decoder = fastfeed.Decoder("binance-usdm", ring_capacity=RING)
    run(decoder, trades[:1000] + trades[993:1000] + trades[1000:2000])
    stats = decoder.stats()
    assert (stats["gaps"], stats["duplicates"], stats["resets"]) == (0, 7, 0)
    assert decoder.prices["BTCUSDT"]["updates"] == 2000


def test_decode_many_reads_a_recording_as_decode_does(recordings):
    frames = recordings.frames("binance-usdm_btcusdt_20240808")[:20_000]
    one, many = (fastfeed.Decoder("binance-usdm", ring_capacity=RING) for _ in range(2))
    first, second = one.ring.reader(), many.ring.reader()
    for _, payload in frames:
        one.decode(payload, recv_ns=5)
    many.decode_many([payload for _, payload in frames], recv_ns=5)
    assert first.read().tobytes() == second.read().tobytes()
    assert one.stats() == many.stats()


def test_a_recording_cut_at_any_byte_never_makes_a_wrong_price(recordings, guarded):
    """Truncated frames of every kind, behind the whole frame, against unreadable memory: all malformed."""
    choose = random.Random(11)
    decoder = fastfeed.Decoder("binance-usdm", ring_capacity=RING)
    frames = [payload for _, payload in choose.sample(recordings.frames("binance-usdm_btcusdt_20240808"), 3000)]
    cut = 0
    for payload in frames:
        decoder.decode(payload)
        for end in choose.sample(range(len(payload)), 5):
            assert decoder.decode(guarded.before_the_end(payload[:end])) == 0
            cut += 1
    assert decoder.stats()["malformed"] == cut
