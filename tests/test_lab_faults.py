"""How the lab's venue misbehaves on command, seen by an independent client (`websockets`) and counted by the feed.

Each fault is shown to do what it says, to leave everything else as it was, to be counted, and to end when told.
"""

import asyncio

import pytest
from test_lab import DEADLINE, NAMES, QUOTES, ask, collect, meeting, receive, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import fastfeed
from fastfeed.errors import ConfigError
from fastfeed.lab import Venue, VenueProcess
from fastfeed.lab.process import COMMANDS


async def test_a_dripping_venue_writes_crumbs_and_loses_nothing() -> None:
    async with Venue("binance-usdm", symbols=["BTCUSDT"]) as venue, meeting(venue, "/public/ws") as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@trade"])
        venue.drips(bytes_per_s=2_000)
        venue.plays(frames=40)
        frames = [await receive(client, "a frame in crumbs") for _ in range(2)]
        written = venue.count()["bytes"]
        assert venue.count()["data"] < 40
        assert venue.connections[1].waiting() > 0
        await until(lambda: venue.count()["bytes"] > written, "another crumb")
        venue.flows_again()
        frames += await collect(client, 38)
        assert [frame["t"] for frame in frames] == list(range(frames[0]["t"], frames[0]["t"] + 40))
        assert venue.count()["data"] == 40


@pytest.mark.parametrize("pace", [0, -1, float("inf"), float("nan")])
def test_a_drip_that_is_none_is_refused(pace: float) -> None:
    with pytest.raises(ConfigError, match="bytes_per_s"):
        Venue("binance-usdm", symbols=1).drips(pace)


async def test_a_frozen_venue_reads_and_writes_nothing_and_goes_on_where_it_was() -> None:
    async with Venue("binance-usdm", symbols=["BTCUSDT"]) as venue, meeting(venue, "/public/ws") as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@trade"])
        venue.plays(rate=2000)
        before = (await collect(client, 5))[-1]["t"]
        venue.freezes()
        sent, place = venue.count(), venue.present()
        pong = await client.ping()
        await client.send('{"method":"LIST_SUBSCRIPTIONS","id":9}')
        dialled = asyncio.create_task(connect(venue.url + "/public/ws", compression=None).__aenter__())
        await until(lambda: venue.present() >= place + 100, "a hundred events to fall due")
        assert venue.count() == sent
        assert not pong.done()
        assert not dialled.done()
        venue.thaws()
        await asyncio.wait_for(pong, DEADLINE)
        second = await asyncio.wait_for(dialled, DEADLINE)
        await second.close()
        ids = [frame["t"] for frame in await collect(client, 150) if "t" in frame]
        assert ids == list(range(before + 1, before + 1 + len(ids)))


async def test_what_a_frozen_venue_would_have_done_is_done_when_it_thaws() -> None:
    async with (
        Venue("binance-usdm", symbols=NAMES, ping_interval=0.01, pong_timeout=30.0) as venue,
        meeting(venue) as client,
    ):
        venue.freezes()
        pinged = venue.count()["ping"]
        await asyncio.sleep(0.05)
        assert venue.count()["ping"] == pinged
        venue.thaws()
        await until(lambda: venue.count()["ping"] > pinged, "the overdue ping")
        assert client.state.name == "OPEN"


async def test_a_frozen_venue_can_be_closed() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue, meeting(venue) as client:
        venue.freezes()
        await venue.close()
        with pytest.raises(ConnectionClosed):
            await receive(client, "the close")


async def test_repeated_frames_come_again_byte_for_byte_and_are_counted_apart() -> None:
    async with Venue("binance-usdm", symbols=["BTCUSDT"]) as venue, meeting(venue, "/public/ws") as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@trade"])
        for _ in range(3):
            venue.plays(frames=4)
            frames = await collect(client, 4)
        venue.repeats(6)
        again = await collect(client, 6)
        assert again[2:] == frames
        assert [frame["t"] for frame in again] == list(range(again[0]["t"], again[0]["t"] + 6))
        count = venue.count()
        assert (count["data"], count["repeated"], count["frames"]) == (12, 6, 12 + 6 + 1)


async def test_no_more_is_repeated_than_was_sent() -> None:
    async with Venue("binance-usdm", symbols=["BTCUSDT"]) as venue, meeting(venue, "/public/ws") as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@trade"])
        venue.repeats(5)
        venue.plays(frames=2)
        frames = await collect(client, 2)
        venue.repeats(5)
        assert await collect(client, 2) == frames
        assert venue.count()["repeated"] == 2


async def test_what_can_be_repeated_is_bounded_however_much_was_sent() -> None:
    async with Venue("binance-usdm", symbols=["BTCUSDT"]) as venue, meeting(venue, "/public/ws") as client:
        await ask(client, "SUBSCRIBE", ["btcusdt@trade"])
        venue.plays(frames=5_000)
        ids = [frame["t"] for frame in await collect(client, 5_000)]
        venue.repeats(1_000)
        assert [frame["t"] for frame in await collect(client, 1_000)] == ids[-1_000:]


@pytest.mark.parametrize("frames", [0, -1, 1001])
async def test_repeating_what_is_not_kept_is_refused(frames: int) -> None:
    async with Venue("binance-usdm", symbols=1) as venue:
        with pytest.raises(ConfigError, match="1 to 1000"):
            venue.repeats(frames)


async def test_the_older_connection_is_evicted_when_a_new_one_comes() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue:
        venue.evicts()
        async with meeting(venue) as older, meeting(venue) as newer:
            with pytest.raises(ConnectionClosed) as closed:
                await receive(older, "the eviction")
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008
            assert await ask(newer, "LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}
        assert venue.count()["evicted"] == 1


async def test_a_silent_eviction_is_a_reset() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue:
        venue.evicts(code=None)
        async with meeting(venue) as older, meeting(venue):
            with pytest.raises(ConnectionClosed) as closed:
                await receive(older, "the eviction")
            assert closed.value.rcvd is None


async def test_a_venue_that_evicts_the_newest_accepts_and_closes_until_it_tolerates_all() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue:
        venue.evicts("newest", beyond=0, code=1013)
        for _ in range(2):
            async with meeting(venue) as client:
                with pytest.raises(ConnectionClosed) as closed:
                    await receive(client, "the eviction")
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1013
        venue.tolerates_all()
        async with meeting(venue) as client:
            assert await ask(client, "LIST_SUBSCRIPTIONS") == {"result": [], "id": 1}
        assert venue.count()["evicted"] == 2


@pytest.mark.parametrize(("whom", "beyond"), [("eldest", 1), ("oldest", 0), ("newest", -1)])
def test_an_eviction_that_makes_no_sense_is_refused(whom: str, beyond: int) -> None:
    with pytest.raises(ConfigError, match=f"evicts.*{whom}"):
        Venue("binance-usdm", symbols=1).evicts(whom, beyond=beyond)  # type: ignore[arg-type]


async def test_muted_streams_stop_while_others_acks_and_pongs_flow() -> None:
    both = ["btcusdt@bookTicker", "btcusdt@trade"]
    async with Venue("binance-usdm", symbols=["BTCUSDT"], rate=5_000) as venue, meeting(venue) as client:
        await ask(client, "SUBSCRIBE", both)
        await collect(client, 100)
        venue.mutes("*@bookTicker")
        count = venue.count()["streams"]
        assert await ask(client, "LIST_SUBSCRIPTIONS") == {"result": both, "id": 1}
        await asyncio.wait_for(await client.ping(), DEADLINE)
        await until(lambda: venue.count()["streams"][both[1]] > count[both[1]] + 50, "trades to go on")
        assert venue.count()["streams"][both[0]] == count[both[0]]
        venue.speaks_again()
        await until(lambda: venue.count()["streams"][both[0]] > count[both[0]] + 50, "quotes after the silence")


async def test_a_stream_subscribed_while_it_is_muted_is_acked_and_silent() -> None:
    async with Venue("binance-usdm", symbols=NAMES, rate=5_000) as venue, meeting(venue) as client:
        venue.mutes([QUOTES[0], QUOTES[1]])
        assert await ask(client, "SUBSCRIBE", QUOTES) == {"result": None, "id": 1}
        assert {frame["stream"] for frame in await collect(client, 100)} == {QUOTES[2]}


def test_muting_what_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dogeusdt@\*.*btcusdt"):
        Venue("binance-usdm", symbols=NAMES).mutes("dogeusdt@*")


async def test_withheld_acks_are_counted_and_what_was_asked_is_done() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue, meeting(venue) as client:
        venue.withholds_acks()
        await client.send('{"method":"SUBSCRIBE","params":["btcusdt@bookTicker"],"id":1}')
        await until(lambda: venue.count()["withheld"] == 1, "the request to be read")
        venue.plays(frames=1)
        assert (await receive(client, "data"))["stream"] == "btcusdt@bookTicker"
        venue.acks_again()
        assert await ask(client, "LIST_SUBSCRIPTIONS", number=2) == {"result": ["btcusdt@bookTicker"], "id": 2}
        assert venue.count()["control"] == 1


async def test_unanswered_pings_leave_data_and_acks_flowing() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue, meeting(venue) as client:
        venue.stops_ponging()
        pong = await client.ping()
        assert await ask(client, "SUBSCRIBE", QUOTES) == {"result": None, "id": 1}
        venue.plays(frames=20)
        await collect(client, 20)
        assert not pong.done()
        venue.pongs_again()
        await asyncio.wait_for(await client.ping(), DEADLINE)
        assert (venue.count()["pings_received"], venue.count()["pong"]) == (2, 1)


async def test_the_feed_counts_garbage_apart_and_the_books_balance() -> None:
    async with (
        Venue("binance-usdm", symbols=NAMES, rate=1_000) as venue,
        fastfeed.Feed("binance-usdm", NAMES, url=venue.url) as feed,
    ):
        await feed.wait_live(timeout=DEADLINE)
        venue.sends_garbage(frames=3)
        venue.sends_garbage("unknown", frames=2)
        venue.rests()
        await until(lambda: feed.decoder.stats()["frames"] == venue.count()["frames"], "every frame to be read")
        stats = feed.decoder.stats()
        assert (stats["malformed"], stats["unknown"], venue.count()["garbage"]) == (3, 2, 5)
        assert stats["data"] == venue.count()["data"]


async def test_garbage_of_an_unknown_kind_is_refused() -> None:
    async with Venue("binance-usdm", symbols=1) as venue:
        with pytest.raises(ConfigError, match="malformed and unknown"):
            venue.sends_garbage("rude")  # type: ignore[arg-type]


async def test_the_feed_sees_repeats_as_duplicates() -> None:
    async with (
        Venue("binance-usdm", symbols=["BTCUSDT"]) as venue,
        fastfeed.Feed("binance-usdm", ["BTCUSDT"], channels=["raw_trade"], url=venue.url) as feed,
    ):
        venue.plays(frames=10)
        await until(lambda: feed.decoder.stats()["data"] == 10, "ten trades")
        venue.repeats(4)
        await until(lambda: feed.decoder.stats()["duplicates"] == 4, "four duplicates")
        assert not feed.gaps()


def test_every_command_of_the_venue_is_one_of_its_process() -> None:
    """All public methods of a Venue that are no commands are named here."""
    others = {"start", "close", "retire", "seat", "present", "due_until", "event_ms", "grant", "give_back", "answer"}
    others |= {"is_at_rest", "shared_pieces", "utc_ms"}
    methods = {name for name, member in vars(Venue).items() if callable(member) and not name.startswith("_")}
    assert methods - others == set(COMMANDS)
    assert [command for command in COMMANDS if not hasattr(VenueProcess, command)] == []


async def test_faults_are_commanded_over_the_pipe() -> None:
    with VenueProcess("binance-usdm", symbols=3) as venue:
        async with connect(venue.url + "/public/stream", compression=None) as client:
            venue.mutes([QUOTES[0]])
            venue.withholds_acks()
            venue.acks_again()
            await ask(client, "SUBSCRIBE", QUOTES)
            venue.drips(1e6)
            venue.flows_again()
            venue.plays(frames=5)
            frames = await collect(client, 5)
            assert QUOTES[0] not in {frame["stream"] for frame in frames}
            venue.repeats(2)
            assert await collect(client, 2) == frames[-2:]
            venue.sends_garbage("unknown")
            assert (await receive(client, "garbage"))["e"] == "somethingNew"
            venue.stops_ponging()
            venue.pongs_again()
            venue.freezes()
            pong = await client.ping()
            assert venue.count()["pings_received"] == 0
            venue.thaws()
            await asyncio.wait_for(pong, DEADLINE)
            venue.evicts()
            venue.tolerates_all()
            with pytest.raises(ConfigError, match="bytes_per_s"):
                venue.drips(0)
