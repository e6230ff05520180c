"""The lab's venue, seen by an independent client (`websockets`): protocol, loads, counts, commands, its own process.

The feed has its own tests against the venue; here nothing of the feed takes part.
"""

import asyncio
import contextlib
import gzip
import json
import math
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exchange import DEADLINE, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fastfeed.errors import ConfigError
from fastfeed.lab import Recording, Synthetic, Venue, VenueProcess
from fastfeed.lab.binance import SPOT, USDM, Desk
from fastfeed.lab.load import PIECE, AsRecorded, FlatOut, Phases, symbol_names, without_speed

NAMES = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
QUOTES = [f"{name.lower()}@bookTicker" for name in NAMES]


async def receive(client: ClientConnection, what: str) -> Any:
    """The next message, parsed."""
    try:
        async with asyncio.timeout(DEADLINE):
            return json.loads(await client.recv())
    except TimeoutError:
        pytest.fail(f"waited {DEADLINE} s for {what}")


async def ask(client: ClientConnection, method: str, params: list[Any] | None = None, number: Any = 1) -> Any:
    """Send one control request; returns the reply, skipping data frames before it."""
    request: dict[str, Any] = {"method": method, "id": number}
    if params is not None:
        request["params"] = params
    await client.send(json.dumps(request))
    while True:
        answer = await receive(client, f"the answer to {method}")
        if not {"stream", "s"} & set(answer):
            return answer


@contextlib.asynccontextmanager
async def meeting(venue: Venue, path: str = "/public/stream", **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(venue.url + path, compression=None, max_queue=None, **options) as client:
        yield client


async def collect(client: ClientConnection, frames: int) -> list[Any]:
    return [await receive(client, f"frame {number} of {frames}") for number in range(frames)]


# ----------------------------------------------------------------------------------------------- paths, routes,
# requests


@pytest.mark.parametrize(
    "path", ["/public/ws", "/market/ws/btcusdt@aggTrade", "/ws", "/stream", "/public/stream?streams=a/b"]
)
async def test_a_usdm_path_is_accepted(path: str) -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue, meeting(venue, path) as client:
        assert await ask(client, "LIST_SUBSCRIPTIONS") == {
            "result": {
                "/market/ws/btcusdt@aggTrade": ["btcusdt@aggTrade"],
                "/public/stream?streams=a/b": ["a", "b"],
            }.get(path, []),
            "id": 1,
        }


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("binance-usdm", "/private/ws"),
        ("binance-usdm", "/"),
        ("binance-spot", "/public/ws"),
        ("binance-spot", "/stream/a"),
    ],
)
async def test_an_unknown_path_is_404(name: str, path: str) -> None:
    async with Venue(name, symbols=NAMES) as venue:
        with pytest.raises(InvalidStatus) as refused:
            async with meeting(venue, path):
                pass
        assert refused.value.response.status_code == 404


async def test_a_request_that_is_no_websocket_handshake_is_400() -> None:
    async with Venue("binance-spot", symbols=NAMES) as venue:
        reader, writer = await asyncio.open_connection("127.0.0.1", venue.port)
        writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), DEADLINE)).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_data_is_wrapped_on_stream_and_bare_on_ws_and_acks_are_always_bare() -> None:
    async with (
        Venue("binance-usdm", symbols=NAMES) as venue,
        meeting(venue, "/public/stream") as wrapped,
        meeting(venue, "/public/ws") as bare,
    ):
        assert await ask(wrapped, "SUBSCRIBE", QUOTES, 7) == {"result": None, "id": 7}
        assert await ask(bare, "SUBSCRIBE", QUOTES, 8) == {"result": None, "id": 8}
        venue.plays(rate=2000)
        assert (await receive(wrapped, "a wrapped frame"))["stream"] in QUOTES
        assert (await receive(bare, "a bare frame"))["e"] == "bookTicker"


async def test_set_property_switches_the_shape() -> None:
    async with Venue("binance-spot", symbols=NAMES) as venue, meeting(venue, "/ws") as client:
        assert await ask(client, "GET_PROPERTY", ["combined"]) == {"result": False, "id": 1}
        assert await ask(client, "SET_PROPERTY", ["combined", True]) == {"result": None, "id": 1}
        assert await ask(client, "GET_PROPERTY", ["combined"], 2) == {"result": True, "id": 2}
        await ask(client, "SUBSCRIBE", QUOTES)
        venue.plays(frames=1)
        assert set(await receive(client, "data")) == {"stream", "data"}


async def test_only_subscribed_streams_are_sent() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue, meeting(venue) as client:
        await ask(client, "SUBSCRIBE", QUOTES[:2])
        venue.plays(frames=200)
        assert {frame["stream"] for frame in await collect(client, 200)} == set(QUOTES[:2])
        await ask(client, "UNSUBSCRIBE", QUOTES[:1])
        venue.plays(frames=50)
        assert {frame["stream"] for frame in await collect(client, 50)} == {QUOTES[1]}


async def test_an_unknown_stream_is_acked_like_a_good_one_and_stays_mute() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue, meeting(venue) as client:
        assert await ask(client, "SUBSCRIBE", ["nosuch@bookTicker"]) == {"result": None, "id": 1}
        venue.plays(rate=10_000)
        assert await ask(client, "LIST_SUBSCRIPTIONS") == {"result": ["nosuch@bookTicker"], "id": 1}
        assert venue.count()["data"] == 0


async def test_an_unrouted_usdm_connection_acks_everything_and_delivers_only_public_streams() -> None:
    wanted = ["btcusdt@bookTicker", "btcusdt@aggTrade"]
    async with Venue("binance-usdm", symbols=["BTCUSDT"]) as venue, meeting(venue, "/stream") as client:
        assert await ask(client, "SUBSCRIBE", wanted) == {"result": None, "id": 1}
        venue.plays(frames=500)
        assert {frame["stream"] for frame in await collect(client, 500)} == {"btcusdt@bookTicker"}


@pytest.mark.parametrize(
    ("route", "carried"),
    [("/public/stream", {"btcusdt@bookTicker", "btcusdt@trade"}), ("/market/stream", {"btcusdt@aggTrade"})],
)
async def test_a_usdm_route_carries_its_own_streams(route: str, carried: set[str]) -> None:
    async with Venue("binance-usdm", symbols=["BTCUSDT"]) as venue, meeting(venue, route) as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@bookTicker", "btcusdt@trade", "btcusdt@aggTrade"])
        venue.plays(frames=500)
        assert {frame["stream"] for frame in await collect(client, 500)} == carried


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", 3),
        ('{"id":1}', 2),
        ('{"method":"SUB","id":1}', 2),
        ('{"method":"SUBSCRIBE","params":["a"],"id":"x"}', 2),
        ('{"method":"SUBSCRIBE","params":["a"],"id":-1}', 2),
        ('{"method":"SUBSCRIBE","params":"a","id":1}', 2),
        ('{"method":"GET_PROPERTY","params":[1],"id":1}', 2),
        ('{"method":"GET_PROPERTY","params":["combined",1],"id":1}', 2),
        ('{"method":"GET_PROPERTY","params":["speed"],"id":1}', 0),
        ('{"method":"SET_PROPERTY","params":["combined",1],"id":1}', 1),
        ("[]", 2),
        ("\ufffd", 3),
    ],
)
def test_a_wrong_request_gets_the_documented_error(text: str, code: int) -> None:
    answer = json.loads(Desk(USDM, "/ws").answer(text))
    assert answer["code"] == code
    assert answer["msg"]


def test_too_many_streams_get_the_nested_error_and_change_nothing() -> None:
    desk = Desk(USDM, "/ws")
    streams = [f"s{number}@bookTicker" for number in range(1025)]
    full = json.dumps({"method": "SUBSCRIBE", "params": streams, "id": 19})
    assert json.loads(desk.answer(full)) == {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 19}
    assert not desk.streams
    assert json.loads(desk.answer(json.dumps({"method": "SUBSCRIBE", "params": streams[:1024], "id": 20}))) == {
        "result": None,
        "id": 20,
    }


def test_spot_takes_text_ids_and_usdm_does_not() -> None:
    request = '{"method":"LIST_SUBSCRIPTIONS","id":"a1"}'
    assert json.loads(Desk(SPOT, "/ws").answer(request)) == {"result": [], "id": "a1"}
    assert json.loads(Desk(USDM, "/ws").answer(request))["code"] == 2


@pytest.mark.parametrize(("name", "allowed"), [("binance-spot", 5), ("binance-usdm", 10)])
async def test_one_message_too_many_in_a_second_closes_with_1008(name: str, allowed: int) -> None:
    async with Venue(name, symbols=NAMES) as venue, meeting(venue, "/ws") as client:
        for number in range(allowed):
            assert "result" in await ask(client, "LIST_SUBSCRIPTIONS", number=number)
        await client.send('{"method":"LIST_SUBSCRIPTIONS","id":99}')
        with pytest.raises(ConnectionClosed) as closed:
            await receive(client, "the close")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


# ----------------------------------------------------------------------------------------------------------- heartbeat


async def test_the_venue_pings_with_a_payload_and_keeps_who_answers() -> None:
    async with (
        Venue("binance-usdm", symbols=NAMES, ping_interval=0.02, pong_timeout=0.3, messages_per_second=1000) as venue,
        meeting(venue) as client,
    ):
        await until(lambda: venue.count()["pongs_received"] >= 20, "twenty pongs")
        assert client.state.name == "OPEN"


async def test_who_does_not_pong_is_disconnected() -> None:
    async with Venue("binance-usdm", symbols=NAMES, ping_interval=0.02, pong_timeout=0.1) as venue:
        mute = socket.create_connection(("127.0.0.1", venue.port))
        with mute:
            mute.sendall(
                b"GET /ws HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            await until(lambda: len(venue.count()["connections"]) == 1, "the connection")
            await until(lambda: venue.count()["connections"][0]["ended"] == "no pong", "the disconnect")


# ---------------------------------------------------------------------------------------------------------------- loads


@pytest.mark.parametrize("market", [SPOT, USDM], ids=lambda market: market.name)
async def test_a_flat_out_run_sends_exactly_the_frames_asked_for(market: Any) -> None:
    """Sequences hold across passes of the load, and the venue's counts are what arrived."""
    load = Synthetic(market, symbols=40, events=1)
    frames = 3 * load.events
    streams = [stream for stream in load.streams if stream.endswith(("@bookTicker", "@trade"))]
    async with Venue(market.name, load=load) as venue, meeting(venue, "/stream") as client:
        await ask(client, "SUBSCRIBE", streams)
        venue.plays(frames=frames)
        received = await collect(client, frames)
        count = venue.count()
        assert count["is_at_rest"]
        assert (count["data"], count["control"], count["frames"]) == (frames, 1, frames + 1)
        assert Counter(frame["stream"] for frame in received) == count["streams"]
        last: dict[str, dict[str, Any]] = {}
        book_ids, trade_ids = Counter[str](), dict[str, int]()
        for frame in received:
            data = frame["data"]
            symbol = data["s"]
            assert frame["stream"].partition("@")[0] == symbol.lower()
            entry = last.setdefault(symbol, {})
            if "b" in data:
                assert data["u"] > book_ids[symbol]
                book_ids[symbol] = data["u"]
                assert float(data["b"]) < float(data["a"])
                entry |= {
                    name: data[key] for name, key in zip(("bid", "bid_size", "ask", "ask_size"), "bBaA", strict=True)
                }
                entry["book_id"] = data["u"]
            else:
                assert data["t"] == trade_ids.get(symbol, data["t"] - 1) + 1
                trade_ids[symbol] = data["t"]
                entry |= {"last": data["p"], "last_size": data["q"], "trade_id": data["t"]}
        assert last == count["last"]
        assert len(last) == 40


async def test_two_connections_share_the_budget_of_frames() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue, meeting(venue) as one, meeting(venue) as two:
        for client in (one, two):
            await ask(client, "SUBSCRIBE", QUOTES)
        venue.plays(frames=1001)
        await until(lambda: venue.count()["is_at_rest"], "the end of the play")
        count = venue.count()
        assert count["data"] == 1001
        assert [connection["data"] for connection in count["connections"]] == [
            len(await collect(client, connection["data"]))
            for client, connection in zip((one, two), count["connections"], strict=True)
        ]


async def test_an_aggregate_is_the_trade_before_it() -> None:
    async with Venue("binance-spot", symbols=["BTCUSDT"]) as venue, meeting(venue, "/ws") as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@trade", "btcusdt@aggTrade"])
        venue.plays(frames=400)
        frames = await collect(client, 400)
        for trade, aggregate in zip(frames[::2], frames[1::2], strict=True):
            assert [trade[key] for key in "tpqm"] == [aggregate[key] for key in "apqm"]
            assert aggregate["f"] == aggregate["l"] == aggregate["a"]


@pytest.mark.parametrize("market", [SPOT, USDM], ids=lambda market: market.name)
async def test_depth_messages_form_an_unbroken_chain_across_passes(market: Any) -> None:
    load = Synthetic(market, symbols=3, events=1)
    streams = [f"{name.lower()}@depth@100ms" for name in load.symbols]
    async with Venue(market.name, load=load) as venue, meeting(venue, "/stream") as client:
        await ask(client, "SUBSCRIBE", streams)
        venue.plays(frames=load.events // 4)
        last: dict[str, int] = {}
        levels = 0
        for frame in await collect(client, load.events // 4):
            data = frame["data"]
            assert frame["stream"] == f"{data['s'].lower()}@depth@100ms"
            before = last.get(data["s"], data["U"] - 1)
            assert data["U"] == before + 1
            assert data["U"] <= data["u"]
            assert data.get("pu", before) == before
            last[data["s"]] = data["u"]
            levels += len(data["b"]) + len(data["a"])
        assert levels > load.events // 4


async def test_marks_come_on_the_market_route_at_the_speed_asked_for() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue, meeting(venue, "/market/stream") as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@markPrice@1s", "ethusdt@markPrice"])
        venue.plays(frames=50)
        frames = await collect(client, 50)
        assert {frame["stream"] for frame in frames} == {"btcusdt@markPrice@1s", "ethusdt@markPrice"}
        assert frames[-1]["data"]["p"] == venue.count()["last"][frames[-1]["data"]["s"]]["mark"]


async def test_event_times_are_the_time_of_the_event() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue, meeting(venue) as client:
        await ask(client, "SUBSCRIBE", QUOTES)
        before = venue.utc_ms()
        venue.plays(rate=2000)
        times = [frame["data"]["E"] for frame in await collect(client, 200)]
        assert times == sorted(times)
        assert before <= times[0] <= times[-1] <= venue.utc_ms()
        assert len(set(times)) > 5


def test_the_same_seed_makes_the_same_market_and_another_seed_another() -> None:
    def block(seed: int) -> bytes:
        load = Synthetic(USDM, symbols=50, seed=seed, events=1)
        piece = load.piece(0, dict(enumerate(load.streams)), True)
        load.stamp(piece, 0, len(piece), 0, 1_700_000_000_000)
        return piece.data.tobytes()

    assert block(5) == block(5)
    assert block(5) != block(6)


def test_a_pass_holds_a_hundred_thousand_quotes_of_every_symbol_busy_ones_first() -> None:
    load = Synthetic(USDM)
    quotes = Counter(
        int(stream)
        for number in range(load.events // PIECE)
        for stream in load.piece(number, dict(enumerate(load.streams[:500])), False).stream
    )
    assert quotes.total() >= 100_000
    assert len(quotes) == 500
    assert quotes[0] > 5 * quotes[20]
    assert quotes[0] > 50 * min(quotes.values())


def test_every_symbol_quotes_within_four_rounds() -> None:
    load = Synthetic(USDM, symbols=500)
    piece = load.piece(0, dict(enumerate(load.streams[:500])), False)
    assert len(set(piece.stream[piece.event < 4 * 500].tolist())) == 500


def test_symbol_names_are_distinct_and_as_many_as_asked() -> None:
    names = symbol_names(12_000)
    assert len(set(names)) == 12_000
    assert "币安人生USDT" in names


def test_stamping_part_of_a_piece_leaves_the_rest_as_it_was() -> None:
    load = Synthetic(SPOT, symbols=30, events=1)
    piece = load.piece(0, dict(enumerate(load.streams)), False)
    load.stamp(piece, 0, len(piece), 0, 1_700_000_000_000)
    before = piece.data.copy()
    load.stamp(piece, 100, 200, 3, 1_800_000_000_000)
    changed = np.flatnonzero(before != piece.data)
    assert len(changed)
    assert piece.bounds[100] <= changed.min() <= changed.max() < piece.bounds[200]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 248, 255, 256, 300, 65_535, 65_536, 70_000])
async def test_a_frame_of_any_length_arrives_whole(tmp_path: Path, size: int) -> None:
    text = '{"stream":"a@bookTicker","data":{"x":"' + "y" * max(0, size - 40) + '"}}'
    bare = text[len('{"stream":"a@bookTicker","data":') : -1]
    file = tmp_path / "frames"
    file.write_text(f"1 {text}\n2 {text}\n")
    async with Venue("binance-usdm", load=Recording(file)) as venue, meeting(venue, "/ws/a@bookTicker") as client:
        venue.plays()
        assert [await client.recv(), await client.recv()] == [bare, bare]


def test_phases_say_what_is_due_when() -> None:
    pace = Phases([(100, 2), (0, 1), (1000, 1)])
    assert [pace.reached(at) for at in (0, 1, 2, 2.9, 3.5, 4, 99)] == [0, 100, 200, 200, 700, 1200, 1200]
    assert pace.due(99, 0.0) == pytest.approx(1.0)
    assert pace.due(200, 0.0) == pytest.approx(3.001)
    assert not pace.ended(3.9)
    assert pace.ended(4.0)
    assert FlatOut().reached(0.0) == math.inf


@pytest.mark.parametrize("phases", [[], [(-1, 1)], [(1, 0)], [(math.inf, 1)], [(1,)]])
def test_impossible_phases_are_refused(phases: list[tuple[float, float]]) -> None:
    with pytest.raises(ConfigError, match="phases"):
        Phases(phases)


# ------------------------------------------------------------------------------------------------------------
# recordings


def recorded(name: str, at: int, number: int) -> str:
    data = {
        "e": "bookTicker",
        "u": number,
        "s": name.upper(),
        "b": f"{number}.5",
        "B": "1",
        "a": f"{number}.6",
        "A": "2",
    }
    return f"{at} " + json.dumps({"stream": f"{name}@bookTicker", "data": data}, separators=(",", ":"))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A second of two symbols, a line each 10 ms, with a snapshot among them."""
    lines = [recorded("btcusdt" if number % 3 else "ethusdt", 10**18 + number * 10**7, number) for number in range(100)]
    lines.insert(50, f'{10**18 + 5 * 10**8} {{"lastUpdateId":1,"bids":[],"asks":[]}}')
    file = tmp_path / "recorded.gz"
    with gzip.open(file, "wt") as text:
        text.write("\n".join(lines) + "\n")
    return file


async def test_a_recording_is_played_byte_for_byte_and_ends(recording: Path) -> None:
    async with Venue("binance-usdm", load=Recording(recording)) as venue, meeting(venue) as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@bookTicker", "ethusdt@bookTicker"])
        venue.plays(speed=math.inf)
        received = [await client.recv() for _ in range(100)]
        with gzip.open(recording, "rt") as lines:
            sent = [frame for _, _, frame in (line.rstrip("\n").partition(" ") for line in lines) if "stream" in frame]
        assert received == sent
        count = venue.count()
        assert count["is_at_rest"]
        assert count["last"]["BTCUSDT"]["bid"] == "98.5"
        assert count["last"]["ETHUSDT"] == {
            "bid": "99.5",
            "bid_size": "1",
            "ask": "99.6",
            "ask_size": "2",
            "book_id": 99,
        }


async def test_a_paced_recording_is_at_rest_only_when_it_has_ended(recording: Path) -> None:
    async with Venue("binance-usdm", load=Recording(recording)) as venue, meeting(venue) as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@bookTicker", "ethusdt@bookTicker"])
        assert venue.count()["is_at_rest"]
        venue.plays(speed=4)
        for number in range(100):
            assert number > 98 or not venue.count()["is_at_rest"]
            await receive(client, f"frame {number}")
        await until(lambda: venue.count()["is_at_rest"], "the end of the recording")


async def test_a_recording_keeps_its_own_pace(recording: Path) -> None:
    load = Recording(recording)
    pace = AsRecorded(load.recv_ns, [(2.0, math.inf)])
    assert [pace.reached(at) for at in (0.0, 0.1, 0.4951, 9.0)] == [1, 21, 100, 100]
    assert pace.due(20, 0.0) == pytest.approx(0.1)
    assert pace.ended(0.5)
    slow_then_fast = AsRecorded(load.recv_ns, [(1.0, 0.5), (10.0, 9.0)])
    assert [slow_then_fast.reached(at) for at in (0.2051, 0.5051, 0.5251)] == [21, 56, 76]
    assert slow_then_fast.due(75, 0.0) == pytest.approx(0.525)


async def test_a_recorded_stream_is_sent_to_whoever_asked_for_another_speed_of_it(tmp_path: Path) -> None:
    file = tmp_path / "depth"
    file.write_text('1 {"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate"}}\n')
    async with Venue("binance-usdm", load=Recording(file)) as venue, meeting(venue) as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@depth@100ms"])
        venue.plays()
        assert await receive(client, "depth") == {"stream": "btcusdt@depth@100ms", "data": {"e": "depthUpdate"}}


@pytest.mark.parametrize(
    ("stream", "plain"),
    [
        ("a@depth@100ms", "a@depth"),
        ("a@markPrice@1s", "a@markPrice"),
        ("a@bookTicker", "a@bookTicker"),
        ("!a@b@s", "!a@b@s"),
    ],
)
def test_only_a_speed_is_taken_off_a_stream_name(stream: str, plain: str) -> None:
    assert without_speed(stream) == plain


async def test_a_retimed_recording_differs_in_its_event_times_only(tmp_path: Path) -> None:
    file = tmp_path / "old"
    data = '{"e":"aggTrade","E":1500000000000,"a":7,"s":"A","p":"1","q":"2","T":1500000000001,"n":1500000000002}'
    file.write_text(f'1 {{"stream":"a@aggTrade","data":{data}}}\n')
    async with (
        Venue("binance-usdm", load=Recording(file, retimed=True)) as venue,
        meeting(venue, "/market/ws/a@aggTrade") as client,
    ):
        before = venue.utc_ms()
        venue.plays(speed=1)
        played = await receive(client, "the trade")
        assert before <= played["E"] == played["T"] <= venue.utc_ms()
        assert played | {"E": 1500000000000, "T": 1500000000001} == json.loads(data)
        assert venue.count()["last"] == {"A": {"last": "1", "last_size": "2", "trade_id": 7}}


@pytest.mark.parametrize(("text", "says"), [("hello\n", "line 1"), ('1 {"a":1}\n', "no combined-stream frame")])
def test_a_file_that_is_no_recording_is_refused_by_name(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "wrong"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as refused:
        Recording(file)
    assert "wrong" in str(refused.value)


@pytest.mark.parametrize("name", ["binance-usdm_btcusdt_20240808", "binance-spot_btcusdt_20240808"])
async def test_real_recordings_are_played_byte_for_byte(recordings: Any, name: str) -> None:
    sent = [payload.decode() for _, payload in recordings.frames(name) if payload.startswith(b'{"stream"')]
    load = Recording(recordings.folder / f"{name}.gz")
    streams = sorted({json.loads(text)["stream"] for text in sent})
    async with Venue(name.partition("_")[0], load=load) as venue, meeting(venue, "/stream") as client:
        await ask(client, "SUBSCRIBE", streams)
        venue.plays()
        received = [await client.recv() for _ in sent]
        assert received == sent
        assert venue.count()["is_at_rest"]


# ------------------------------------------------------------------------------------------------------------- commands


async def test_a_cut_is_a_reset_without_a_close_frame_and_the_count_knows_it() -> None:
    async with Venue("binance-usdm", symbols=NAMES, rate=1000) as venue, meeting(venue) as one, meeting(venue) as two:
        await ask(one, "SUBSCRIBE", QUOTES)
        await ask(two, "SUBSCRIBE", QUOTES)
        (cut,) = venue.cuts(1)
        assert cut["connection"] == 1
        assert set(cut["streams"]) == set(QUOTES)
        with pytest.raises(ConnectionClosed) as closed:
            await collect(one, 100_000)
        assert closed.value.rcvd is None
        await receive(two, "data on the other connection")
        assert [connection["ended"] for connection in venue.count()["connections"]] == ["cut", None]


async def test_a_frame_the_kernel_never_took_is_not_counted_as_sent() -> None:
    """A client that does not read: what is counted at the cut is what the client can read in the end, to the frame."""
    async with Venue("binance-usdm", symbols=NAMES) as venue:
        reader, writer = await asyncio.open_connection("127.0.0.1", venue.port, limit=1 << 16)
        writer.write(
            b"GET /public/ws/btcusdt@bookTicker HTTP/1.1\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)
        transport = writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        venue.plays()
        connection = venue.connections[1]
        await until(lambda: connection.is_blocked, "the socket to fill up")
        sent = venue.count()["data"]
        connection.end("ended by the test")  # an orderly end of TCP: nothing the kernel has is lost
        assert venue.count()["data"] >= sent
        whole, size = 0, 0
        data = bytearray()
        transport.resume_reading()
        while more := await asyncio.wait_for(reader.read(1 << 20), DEADLINE):
            data += more
        writer.close()
        while size + 4 <= len(data):
            length = int.from_bytes(data[size + 2 : size + 4], "big") + 4
            if size + length > len(data):
                break
            size += length
            whole += 1
        assert venue.count()["data"] == whole


async def test_a_client_that_does_not_read_costs_no_memory_and_loses_nothing() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue, meeting(venue, max_size=None) as client:
        await ask(client, "SUBSCRIBE", QUOTES)
        client.transport.pause_reading()
        venue.plays(frames=60_000)
        connection = venue.connections[1]
        await until(lambda: connection.is_blocked, "the socket to fill up")
        assert connection.waiting() <= 600_000
        client.transport.resume_reading()
        frames = await collect(client, 60_000)
        ids = [frame["data"]["u"] for frame in frames]
        assert ids == sorted(set(ids))
        assert venue.count()["data"] == 60_000


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1012, 1013, 4001])
async def test_a_close_carries_its_code_and_reason_after_whole_frames(code: int) -> None:
    async with Venue("binance-usdm", symbols=NAMES, rate=5000) as venue, meeting(venue) as client:
        await ask(client, "SUBSCRIBE", QUOTES)
        venue.closes(code, "see you")
        with pytest.raises(ConnectionClosed) as closed:
            await collect(client, 100_000)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "see you")
        await until(lambda: venue.count()["connections"][0]["ended"] == f"closed {code}", "the end of the connection")


async def test_a_client_that_leaves_is_answered_and_counted() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue:
        async with meeting(venue) as client:
            await client.close(1000)
            assert client.close_code == 1000
        await until(lambda: venue.count()["connections"][0]["ended"] == "left 1000", "the end of the connection")


async def test_silence_stops_data_but_not_answers_and_what_fell_due_is_never_sent() -> None:
    async with Venue("binance-usdm", symbols=NAMES, rate=2000) as venue, meeting(venue) as client:
        await ask(client, "SUBSCRIBE", QUOTES)
        await collect(client, 10)
        venue.falls_silent()
        at = venue.present()
        sent = venue.count()["data"]
        await until(lambda: venue.present() >= at + 100, "a hundred events to fall due")
        assert await ask(client, "LIST_SUBSCRIPTIONS") == {"result": QUOTES, "id": 1}
        await asyncio.wait_for(await client.ping(), DEADLINE)
        assert venue.count()["data"] == sent
        venue.speaks_again()
        place = venue.connections[1].place
        assert place >= at + 100
        await until(lambda: venue.count()["data"] > sent, "data after the silence")


async def test_refused_handshakes_carry_status_and_retry_after_until_accepted_again() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue:
        venue.refuses(429, retry_after=1)
        with pytest.raises(InvalidStatus) as refused:
            async with meeting(venue):
                pass
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["Retry-After"] == "1"
        assert venue.count()["refused"] == 1
        venue.accepts_again()
        async with meeting(venue) as client:
            assert await ask(client, "LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}


@pytest.mark.parametrize(("path", "wrapped"), [("/ws", False), ("/stream", True)])
async def test_the_shutdown_notice_comes_bare_or_wrapped_and_closes_nothing(path: str, wrapped: bool) -> None:
    async with Venue("binance-spot", symbols=NAMES) as venue, meeting(venue, path) as client:
        await ask(client, "LIST_SUBSCRIPTIONS")
        venue.announces_shutdown()
        notice = await receive(client, "the notice")
        if wrapped:
            assert notice["stream"] == "!serverShutdown"
            notice = notice["data"]
        assert notice["e"] == "serverShutdown"
        assert await ask(client, "LIST_SUBSCRIPTIONS", number=2) == {"result": [], "id": 2}


async def test_skipped_frames_are_missing_and_counted() -> None:
    async with Venue("binance-usdm", symbols=["BTCUSDT"]) as venue, meeting(venue, "/public/ws") as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@trade"])
        venue.plays(frames=10)
        before = (await collect(client, 10))[-1]["t"]
        venue.skips(3)
        venue.plays(frames=10)
        assert [frame["t"] for frame in await collect(client, 10)] == list(range(before + 4, before + 14))
        assert venue.count()["skipped"] == 3


async def test_resting_ends_the_play_and_playing_goes_on_from_there() -> None:
    async with Venue("binance-usdm", symbols=["BTCUSDT"], rate=5000) as venue, meeting(venue, "/public/ws") as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@trade"])
        await collect(client, 20)
        venue.rests()
        await until(lambda: venue.count()["is_at_rest"], "the venue to come to rest")
        venue.plays(rate=5000)
        sent = venue.count()["data"]
        ids = [frame["t"] for frame in await collect(client, sent + 50 - 20)]
        assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_a_command_to_a_connection_that_is_not_there_is_refused() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue:
        with pytest.raises(ConfigError, match="no open connection 7"):
            venue.cuts(7)


@pytest.mark.parametrize("name", ["binance", "kraken", ""])
def test_an_unknown_venue_is_refused_naming_the_known_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="binance-spot, binance-usdm"):
        Venue(name)


@pytest.mark.parametrize("symbols", [0, -1, [], ["A", "a"]])
def test_symbols_that_make_no_market_are_refused(symbols: Any) -> None:
    with pytest.raises(ConfigError, match="symbols"):
        Venue("binance-usdm", symbols=symbols)


def test_an_unknown_limit_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="pong_timeout"):
        Venue("binance-usdm", symbols=1, pongs=3)


# -------------------------------------------------------------------------------------------------------- own process


async def test_the_process_serves_obeys_and_ends() -> None:
    with VenueProcess("binance-usdm", symbols=3) as venue:
        async with connect(venue.url + "/public/stream", compression=None) as client:
            await ask(client, "SUBSCRIBE", QUOTES)
            venue.plays(frames=100)
            await collect(client, 100)
            count = venue.count()
            assert (count["data"], count["is_at_rest"]) == (100, True)
            with pytest.raises(ConfigError, match="no command 'dances'"):
                venue.ask("dances")
            with pytest.raises(ConfigError, match="codes"):
                venue.ask("closes", codes=3)
            venue.closes(1012)
            with pytest.raises(ConnectionClosed):
                await receive(client, "the close")
    assert venue.wait(0.0) == 0


def test_the_process_ends_when_its_pipe_does() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "fastfeed.lab", "binance-spot", "--symbols", "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["url"].startswith("ws://127.0.0.1:")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(DEADLINE) == 0


def test_the_process_ends_at_sigterm() -> None:
    with VenueProcess("binance-spot", symbols=2) as venue:
        venue.terminate()
        assert venue.wait(DEADLINE) == 0


def test_a_process_that_cannot_start_says_why() -> None:
    with pytest.raises(ConfigError, match="ended with status 2"):
        VenueProcess("binance-usdm", frames="/nowhere")
