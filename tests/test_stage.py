"""The lab's stage and its desks without a feed: what any other client sees of limits, shapes and faults."""

import asyncio
import base64
import json
import subprocess
import sys
from typing import Any

import aiohttp
import pytest
from exchange import until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fastfeed.errors import ConfigError
from fastfeed.lab import desks
from fastfeed.lab.stage import BAR, DEPTH, QUOTE, TRADE, Asked, Desk, Event, Said, Stage

DEADLINE = 5.0


class Echo(Desk):
    """Says what it hears and tells of quotes by number."""

    def hear(self, message: Said) -> list[Said]:
        self.subscribed[QUOTE, "*"] = None
        return [message]

    def render(self, events: Any) -> list[Said]:
        return [json.dumps([event.number for event in events])]


async def said(socket: ClientConnection, count: int = 1) -> list[Any]:
    async with asyncio.timeout(DEADLINE):
        return [json.loads(await socket.recv()) for _ in range(count)]


async def closed(socket: ClientConnection) -> int | None:
    async with asyncio.timeout(DEADLINE):
        await socket.wait_closed()
    return socket.close_code


@pytest.mark.parametrize("name", desks.names())
def test_every_desk_is_found_with_symbols_of_its_own(name: str) -> None:
    offer = desks.find(name)
    assert issubclass(offer.desk, Desk)
    assert len(offer.symbols) == len(set(offer.symbols)) >= (1 if "alpaca-test" in name else 2)  # it has no other


def test_a_desk_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no desk 'nope'; there are polygon, .*cme"):
        Stage("nope")
    with pytest.raises(ConfigError, match="name a symbol"):
        Stage(Echo)
    with pytest.raises(ConfigError, match="a finite rate"):
        Stage("cme", rate=float("inf"))


@pytest.mark.parametrize("name", desks.names())
@pytest.mark.parametrize("message", ["", "{", "7", "null", "[]", "{}", '{"action":7}', '{"cmd":"subscribe"}', b"\xff"])
def test_a_desk_survives_whatever_it_hears(name: str, message: Said) -> None:
    offer = desks.find(name)
    stage = Stage(name)
    path = "/stocks" if offer.desk.__name__ == "PolygonDesk" else "/"
    desk = offer.desk(stage, Asked("GET", path, {}, {}))
    assert isinstance(desk.hear(message), list)
    assert not desk.subscribed


# The stage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", ["[" + "1," * 300 + "1]", b"\x00" * 70_000])
async def test_fragments_are_joined_to_the_same_message_by_any_client(payload: Said) -> None:
    async with Stage(Echo, symbols=["A"]) as stage, connect(stage.url, max_size=None) as socket:
        for piece in (1000, 20, 66_000):
            stage.fragments(piece)
            await socket.send(payload)
            async with asyncio.timeout(DEADLINE):
                assert await socket.recv() == payload
        stage.joins()
        await socket.send("last")
        async with asyncio.timeout(DEADLINE):
            assert await socket.recv() == "last"


async def test_a_client_above_its_quota_is_told_and_closed() -> None:
    async with Stage(Echo, symbols=["A"], quota=3) as stage, connect(stage.url) as socket:
        for number in range(5):
            await socket.send(str(number))
        assert await closed(socket) == 1008
        assert stage.busiest == 4
        assert stage.heard == ["0", "1", "2"]


async def test_a_client_that_does_not_read_is_cut_off_and_the_others_are_not_kept_waiting() -> None:
    async with Stage(Echo, symbols=["A"], patience=0.2) as stage, connect(stage.url) as reader:
        await reader.send("1")
        slow = await connect(stage.url, max_queue=1)
        await slow.send("1")
        slow.transport.pause_reading()
        await until(lambda: len(stage.subscribed) == 1 and len(stage.seats) == 2, "both")
        load = "[" + "7," * 200_000 + "7]"
        async with asyncio.timeout(DEADLINE):
            while len(stage.seats) > 1:
                await stage.says(load)
                await reader.recv()
        assert next(iter(stage.seats.values())).counts["overwhelmed"] == 0
        slow.transport.abort()


async def test_a_half_open_connection_says_nothing_and_new_ones_work() -> None:
    async with Stage(Echo, symbols=["A"]) as stage, connect(stage.url) as first:
        await first.send("1")
        assert await said(first) == [1]
        stage.half_opens()
        await first.send("2")
        async with connect(stage.url) as second:
            await second.send("3")
            assert await said(second) == [3]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await first.recv()
        first.transport.abort()


async def test_skipped_and_repeated_events_are_those_of_the_record() -> None:
    async with Stage(Echo, symbols=["A"]) as stage, connect(stage.url) as socket:
        await socket.send("0")
        assert await said(socket) == [0]
        stage.skips(2)
        for _ in range(4):
            await stage.plays(kind=QUOTE)
        await stage.repeats(1)
        assert await said(socket, 3) == [[3], [4], [4]]
        assert [event.number for event in stage.events] == [1, 2, 3, 4]


async def test_a_session_that_broke_off_counts_for_as_long_as_it_lingers() -> None:
    async with Stage("tickdb", lingers=30.0, keys={"api_key": "k"}) as stage:
        url = f"{stage.url}/v1/realtime?api_key=k"
        first = await connect(url)
        first.transport.abort()
        await until(lambda: stage.ghosts, "it to be gone")
        async with connect(url) as second:
            assert (await said(second))[0]["code"] == 3003
            assert await closed(second) == 1008
        http = stage.url.replace("ws", "http", 1) + "/v1/connections"
        async with aiohttp.ClientSession(headers={"X-API-Key": "k"}) as session:
            async with session.get(http) as answer:
                assert len((await answer.json())["data"]) == 1
            async with session.delete(f"{http}/1") as answer:
                assert answer.status == 200
        async with connect(url) as third:
            await third.send('{"cmd":"ping"}')
            assert (await said(third))[0]["cmd"] == "pong"


async def test_a_polite_goodbye_leaves_no_ghost() -> None:
    async with Stage("tickdb", lingers=30.0) as stage:
        async with connect(f"{stage.url}/v1/realtime?api_key=k"):
            pass
        await until(lambda: not stage.seats, "it to be gone")
        assert not stage.ghosts


# TickDB -------------------------------------------------------------------------------------------------------------

WHOLE = '{"cmd":"subscribe","data":{"universes":["US_Stock"],"channels":["ticker"]}}'


async def test_a_whole_market_needs_compression_and_comes_in_arrays() -> None:
    symbols = [f"S{number}.US" for number in range(700)]
    async with Stage("tickdb", symbols=[*symbols, "700.HK"]) as stage:
        url = f"{stage.url}/v1/realtime?api_key=k"
        async with connect(url, compression=None) as plain:
            await plain.send(WHOLE)
            assert (await said(plain))[0]["code"] == 2008
        await until(lambda: not stage.seats, "the first to be gone")
        async with connect(url) as socket:
            await socket.send('{"cmd":"subscribe","data":{"channel":"ticker","symbols":["S1.US","700.HK"]}}')
            await socket.send(WHOLE)
            assert [answer["code"] for answer in await said(socket, 2)] == [0, 0]
            assert stage.subscribed == {(QUOTE, "700.HK")}, "those of that market alone end with it"
            happened = await stage.plays(700, kind=QUOTE)
            told = [event.symbol for event in happened if event.symbol.endswith(".US")]
            arrays = await said(socket, 2)
            assert [len(array) for array in arrays] == [500, len(told) - 500]
            assert [message["data"]["symbol"] for array in arrays for message in array] == told


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ('{"cmd":"ping","id":7}', 4002),
        ('{"cmd":"dance"}', 4001),
        ("7", 4002),
        ('{"cmd":"subscribe","data":{"channel":"gossip","symbols":["A"]}}', 2001),
        ('{"cmd":"subscribe","data":{"channel":"ticker","symbols":["NOPE"]}}', 2002),
        ('{"cmd":"subscribe","data":{"channel":"trade","symbols":["EURUSD"]}}', 4004),
        ('{"cmd":"subscribe","data":{"channel":"depth","symbols":["EURUSD"]}}', 4003),
    ],
)
async def test_tickdb_says_by_code_what_is_wrong(request_: str, code: int) -> None:
    async with Stage("tickdb") as stage, connect(f"{stage.url}/v1/realtime?api_key=k") as socket:
        await socket.send(request_)
        assert (await said(socket))[0]["code"] == code


# The others ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [("finnhub", "/?token=wrong"), ("finnhub", "/"), ("tickdb", "/v1/realtime"), ("iex", "/v1/stream?token=x")],
)
async def test_a_wrong_key_in_the_url_is_refused_in_the_handshake(name: str, path: str) -> None:
    async with Stage(name, keys={"api_key": "right"}) as stage:
        with pytest.raises(InvalidStatus) as refused:
            await connect(stage.url + path)
        assert refused.value.response.status_code == 401


async def test_cmes_token_is_had_for_the_secret_and_is_the_only_way_in() -> None:
    form = {"grant_type": "client_credentials", "client_id": "me", "client_secret": "s"}
    async with Stage("cme", keys={"client_id": "me", "client_secret": "s"}) as stage, aiohttp.ClientSession() as http:
        page = stage.url.replace("ws", "http", 1) + "/as/token.oauth2"
        async with http.post(page, data={**form, "client_secret": "wrong"}) as answer:
            assert answer.status == 401
        async with http.post(page, data={**form, "grant_type": "password"}) as answer:
            assert answer.status == 400
        basic = {"Authorization": "Basic " + base64.b64encode(b"me:s").decode()}
        async with http.post(page, data={"grant_type": "client_credentials"}, headers=basic) as answer:
            assert answer.status == 200
        async with http.post(page, data=form) as answer:
            token = (await answer.json())["access_token"]
        url = f"{stage.url}/marketdatastream/v1"
        with pytest.raises(InvalidStatus):
            await connect(url, additional_headers={"Authorization": "Bearer forged"})
        async with connect(url, additional_headers={"Authorization": f"Bearer {token}"}) as socket:
            assert (await said(socket))[0]["payload"] == {"status": "authenticated"}
            await stage.expires()
            assert await closed(socket) == 1008
        with pytest.raises(InvalidStatus):
            await connect(url, additional_headers={"Authorization": f"Bearer {token}"})


def test_cmes_counter_counts_every_message_of_a_session() -> None:
    stage = Stage("cme")
    desk = desks.find("cme").desk(stage, Asked("GET", "/marketdatastream/v1", {}, {}))
    wish = {"productType": "FUT", "productCode": "CL"}
    bad = {"productType": "FUT", "productCode": "XX"}

    def ask(*wishes: dict[str, str]) -> Said:
        header = {"messageType": "SUBSCRIBE", "version": "1.0", "requestId": "1", "token": ""}
        payload = {"subscriptionMessageTypes": ["TRD", "TOB"], "subscriptions": list(wishes)}
        return json.dumps({"header": header, "payload": payload})

    event = Event(QUOTE, "CLG6", 1, 1_767_623_400_123_456_789, bid=70.14, bid_size=21, ask=70.15, ask_size=34)
    messages = [*desk.greet(), *desk.hear(ask(wish, bad)), *desk.hear(ask(wish)), *desk.beat(), *desk.render([event])]
    read = [json.loads(message) for message in messages]
    assert [message["header"]["sequenceNumber"] for message in read] == ["0", "1", "2", "3", "4"]
    kinds = ["LOGINSTATUS", "SUBSCRIPTION_ERROR", "SUBSCRIPTION_STATUS", "HEARTBEAT", "TOB"]
    assert [message["header"]["messageType"] for message in read] == kinds
    assert set(desk.subscribed) == {(kind, symbol) for kind in (QUOTE, TRADE) for symbol in ("CLG6", "CLH6")}
    assert read[-1]["header"]["sentTime"] == "2026-01-05T14:30:00.123456789Z"
    assert read[-1]["payload"][0]["instrument"]["periodCode"] == "202602"


def test_polygons_options_have_no_wildcard_and_a_thousand_contracts() -> None:
    stage = Stage("polygon-options")
    desk = desks.find("polygon-options").desk(stage, Asked("GET", "/options", {}, {}))
    desk.hear('{"action":"auth","params":"k"}')

    def ask(param: str) -> str:
        (answer,) = desk.hear(json.dumps({"action": "subscribe", "params": param}))
        status: str = json.loads(answer)[0]["status"]
        return status

    assert ask("Q.*") == "error"
    assert ask("T.*") == "success"
    assert [ask(f"Q.O:A{number}") for number in range(1001)].count("success") == 1000


@pytest.mark.parametrize(("name", "kind"), [("stocks", BAR), ("forex", BAR), ("crypto", BAR), ("crypto", DEPTH)])
def test_polygon_tells_of_bars_and_books_too(name: str, kind: str) -> None:
    desk = desks.find("polygon").desk(Stage("polygon"), Asked("GET", f"/{name}", {}, {}))
    (text,) = desk.render([Event(kind, "X", 1, 1_700_000_000_000_000_000, bid=1.5, ask=2.5, price=2.0)])
    told = json.loads(text)[0]
    assert told["ev"] == {"stocks": "AM", "forex": "CA", "crypto": "XA"}[name] if kind == BAR else told["ev"] == "XL2"


async def test_finnhubs_second_connection_ends_both() -> None:
    async with Stage("finnhub") as stage:
        first = await connect(f"{stage.url}/?token=k")
        second = await connect(f"{stage.url}/?token=k")
        assert [await closed(first), await closed(second)] == [1008, 1008]


async def test_polygon_evicts_only_after_the_login() -> None:
    async with Stage("polygon") as stage:
        first = await connect(f"{stage.url}/stocks")
        await first.send('{"action":"auth","params":"k"}')
        assert [message[0]["status"] for message in await said(first, 2)] == ["connected", "auth_success"]
        second = await connect(f"{stage.url}/stocks")
        assert (await said(second))[0][0]["status"] == "connected"
        await second.send('{"action":"auth","params":"k"}')
        assert (await said(second))[0][0]["status"] == "auth_success"
        assert (await said(first))[0][0]["status"] == "max_connections"
        assert await closed(first) == 1008
        await second.close()
        with pytest.raises(ConnectionClosed):
            await first.recv()


# The process --------------------------------------------------------------------------------------------------------


def test_a_desk_runs_as_a_process_and_takes_commands() -> None:
    arguments = ["finnhub", "--named", "A,B", "--rate", "50", "--keys", '{"api_key":"k"}']
    commands = '{"cmd":"mutes","kind":"trade","symbol":"A"}\n{"cmd":"closes","code":1001}\n{"cmd":"drips"}\n'
    done = subprocess.run(
        [sys.executable, "-m", "fastfeed.lab", *arguments],
        input=commands,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    first, *answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["venue"] == "finnhub"
    assert [answer.get("result", "error") for answer in answers] == [None, None, "error"]
    assert done.returncode == 0


@pytest.mark.parametrize("option", [["--speed", "3"], ["--max-streams", "5"], ["--rate", "max"]])
def test_what_a_desk_cannot_do_is_refused(option: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastfeed.lab", "cme", *option], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fastfeed lab: ")
