"""The four clients that practice articles on market data show, each done with a feed and a declared provider.

They talk to a real server whose heartbeat is its own: `{"cmd":"ping","id":7}` is answered
`{"type":"pong","id":7,"server_time":...}`. What such a client promises, and the tests named for it show:

* **The feed client with timestamped heartbeats and restore**: a ping with an id on an interval; from each pong the
  round trip and the offset of the clocks; pongs that are not data; no pong in time is a dead connection; backoff that
  doubles, is spread and has a cap; after the reconnect every subscription is asked for again, with its parameters, and
  data flows.
* **The connection manager with states, retries and a silence monitor**: a state that can be asked for at any time;
  retries that are bounded, and an alert and an error when they are spent; a count that a server which accepts and
  hangs up does not reset; wishes made while disconnected; silence behind a live socket found, probed, and dialled for.
* **The production client**: a close code decides what is done (1000, 1001, 1006, 1008, 1011, 1012, 1013, the
  provider's own); 429 waits for as long as Retry-After says, in seconds or as a date; 401 and 403 stop and tell; a
  token is renewed once, and not again when the new one is refused too.
* **The message-age watchdog with external health**: an age limit of its own for each symbol; age by the clock of
  arrival and, where the message says it, of the event; heartbeats that keep nothing fresh; one silent symbol found
  while the others flow; an answer for a health check, over HTTP, that turns with it.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

import pytest
from exchange import Exchange, Line, until
from test_feed import event_of
from websockets.http11 import Request

from fastfeed import Backoff, Feed, Heartbeat, Message, Provider, Schema, Staleness, Status, Subscription, events
from fastfeed import staleness as staleness_room
from fastfeed.credentials import Auth
from fastfeed.dialect import Ack, Dialect, PongSaid, Refusal, Reply
from fastfeed.errors import AuthError, GaveUp
from fastfeed.failures import Failure
from fastfeed.heartbeat import Beats
from fastfeed.providers import Channel

SWIFT = Backoff(base=0.02, cap=0.1, stable_after=0.05)
NO_PINGS = Heartbeat(interval=None)  # of the protocol's: the application's must do
EURUSD = Subscription("EURUSD", "quote")
DEEP = Subscription("GBPUSD", "quote", depth=5)
TRADES = Subscription("EURUSD", "trade")


def read(payload: bytes) -> tuple[Reply, ...]:
    said = json.loads(payload)
    match said["type"]:
        case "ack":
            return (Ack(said["id"]),)
        case "error":
            return (Refusal(said["id"], said["message"]),)
        case "pong":
            return (PongSaid(said["id"], said["server_time"]),)
    return ()


def ask(command: str) -> Any:
    return lambda number, topics: json.dumps({"cmd": command, "id": number, "topics": list(topics)})


def ping(number: int, utc: float) -> str:
    return json.dumps({"cmd": "ping", "id": number, "client_time": utc})


def provider(**changes: Any) -> Provider:
    options: dict[str, Any] = {
        "name": "practice",
        "url": "wss://practice.example",
        "channels": {
            "quote": Channel(topic="quote:{symbol}:{depth}", path="/stream", params={"depth": {1: "1", 5: "5"}}),
            "trade": Channel(topic="trade:{symbol}", path="/stream"),
        },
        "schema": Schema(
            Message("quote", match={"type": "quote"}, symbol="symbol", bid="bid", ask="ask", event_time=("time", "ms")),
            Message("trade", match={"type": "trade"}, symbol="symbol", price="price", event_time=("time", "ms")),
            Message("control", has=("type",)),
        ),
        "dialect": Dialect(subscribe=ask("subscribe"), unsubscribe=ask("unsubscribe"), read=read, ping=ping),
        "beats": Beats(interval=0.05, timeout=0.3),
    }
    return Provider(**{**options, **changes})


class Desk(Exchange):
    """The server: `flows` sends a message of every topic that the newest connection asked for, again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = self._reply
        self.clock = 0.0  # seconds its clock is ahead of ours
        self.late = 0.0  # seconds its messages are old when it sends them
        self.is_ponging = True
        self.muted: set[str] = set()  # topics
        self.pings: list[dict[str, Any]] = []
        self.dialled_at: list[float] = []  # epoch seconds
        self._number = 0

    def _reply(self, request: dict[str, Any]) -> str | None:
        if request["cmd"] != "ping":
            return json.dumps({"type": "ack", "id": request["id"]})
        self.pings.append(request)
        pong = {"type": "pong", "id": request["id"], "server_time": time.time() + self.clock}
        return json.dumps(pong) if self.is_ponging else None

    def _receive(self, connection: Any, request: Request) -> Any:
        self.dialled_at.append(time.time())
        return super()._receive(connection, request)

    @contextlib.asynccontextmanager
    async def flows(self) -> AsyncIterator[None]:
        async def send() -> None:
            while True:
                with contextlib.suppress(Exception):  # a connection that is just closing
                    for topic in set(topics(self.line)) - self.muted:
                        await self.send(self.message(topic))
                await asyncio.sleep(0.01)

        sending = asyncio.create_task(send())
        try:
            yield
        finally:
            sending.cancel()

    def message(self, topic: str) -> str:
        kind, symbol, *_ = topic.split(":")
        self._number += 1
        body = {"bid": self._number, "ask": self._number + 1} if kind == "quote" else {"price": self._number}
        event_ms = round((time.time() + self.clock - self.late) * 1000)
        return json.dumps({"type": kind, "symbol": symbol, "time": event_ms, **body})


def topics(line: Line) -> list[str]:
    """What this connection has asked for, in order."""
    wanted: dict[str, None] = {}
    for request in line.requests:
        for topic in request.get("topics", ()):
            wanted.update({topic: None}) if request["cmd"] == "subscribe" else wanted.pop(topic, None)
    return list(wanted)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with Desk() as running:
        yield running


def feed_of(desk: Desk, *wishes: str | Subscription, declared: Provider | None = None, **options: Any) -> Feed:
    options = {"heartbeat": NO_PINGS, "backoff": SWIFT, **options}
    return Feed(declared or provider(), wishes or [EURUSD], url=desk.url, **options)


def status(feed: Feed, symbol: str) -> Status:
    return Status(int(feed.prices[symbol]["status"]))


# The feed client with timestamped heartbeats and restore ------------------------------------------------------------


async def test_feed_client_pings_with_an_id_and_measures_the_round_trip(desk: Desk) -> None:
    async with feed_of(desk) as feed:
        await until(lambda: len(desk.pings) >= 3, "three pings")
        assert [request["id"] for request in desk.pings[:3]] == [1, 2, 3]
        assert all(abs(request["client_time"] - time.time()) < 10 for request in desk.pings)
        await until(lambda: feed.stats()["rtt_ms"]["p50"] > 0, "a round trip")
        assert feed.stats()["rtt_ms"]["max"] < 10_000


@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
async def test_feed_client_judges_age_by_the_servers_clock(desk: Desk, ahead: float) -> None:
    desk.clock = ahead
    async with feed_of(desk) as feed, desk.flows():
        await feed.wait_live()
        await until(lambda: feed.prices.is_fresh("EURUSD", max_age=5.0), "the offset of the clocks to be known")
        desk.late = 10.0
        await until(lambda: not feed.prices.is_fresh("EURUSD", max_age=5.0), "a message that is late by its own clock")


async def test_feed_client_takes_no_pong_for_data(desk: Desk) -> None:
    async with feed_of(desk) as feed:
        async with desk.flows():
            await feed.wait_live()
        pings = len(desk.pings)
        await until(lambda: len(desk.pings) >= pings + 4, "more pings, and nothing else")
        assert not feed.prices.is_fresh("EURUSD", max_age=0.1)


@pytest.mark.parametrize("dead", ["frozen", "no pongs"])
async def test_feed_client_leaves_a_connection_whose_pong_does_not_come(desk: Desk, dead: str) -> None:
    async with feed_of(desk) as feed, desk.flows():
        told = feed.events()
        await feed.wait_live()
        if dead == "frozen":
            desk.line.freeze()
        else:
            desk.is_ponging = False
        lost = await event_of(told, events.Disconnected)
        assert lost.cause == "no answer to an application ping within 0.3 s"
        desk.is_ponging = True
        await event_of(told, events.Restored)
        assert feed.stats()["reconnects"] >= 1


async def test_feed_client_backs_off_exponentially_with_jitter_up_to_a_cap(desk: Desk) -> None:
    backoff = Backoff(base=0.02, cap=0.2, jitter=0.3)
    feed = feed_of(desk, backoff=backoff)
    told = feed.events()
    desk.status = 503
    entering = asyncio.create_task(feed.__aenter__())
    delays = [(await event_of(told, events.Reconnecting)).delay for _ in range(7)]
    for failures, delay in enumerate(delays):
        wait = min(0.2, 0.02 * 2**failures)
        assert wait * 0.7 <= delay <= min(0.2, wait * 1.3)
    assert len(set(delays)) > 1
    desk.status = None
    await entering
    await feed.close()


async def test_feed_client_restores_every_subscription_with_its_parameters(desk: Desk) -> None:
    async with feed_of(desk, EURUSD, DEEP, TRADES) as feed, desk.flows():
        told = feed.events()
        ticks = feed.ticks()
        feed.subscribe([Subscription("USDJPY", "quote", depth=5)])
        feed.unsubscribe([TRADES])
        await feed.wait_live()
        wanted = ["quote:EURUSD:1", "quote:GBPUSD:5", "quote:USDJPY:5"]
        await until(lambda: sorted(topics(desk.line)) == wanted, "what is wanted")
        for lines in (2, 3):
            desk.cut()
            restored = await event_of(told, events.Restored)
            assert restored.missing == ()
            assert restored.duration >= 0
            assert len(desk.lines) == lines
            assert sorted(topics(desk.line)) == wanted
        await feed.wait_live()
        assert len(await anext(ticks)) > 0, "the stream of before is the stream of after"


# The connection manager with states, retries and a silence monitor --------------------------------------------------


async def test_connection_manager_says_its_state_all_the_way(desk: Desk) -> None:
    feed = feed_of(desk, backoff=Backoff(base=0.2, cap=0.2, stable_after=0.05))
    assert feed.state == "CONNECTING"
    async with feed, desk.flows():
        await feed.wait_live()
        assert feed.state == "LIVE"
        states = [feed.health()["state"]]
        desk.status = 503
        desk.cut()
        await until(lambda: feed.state == "WAITING", "the wait before a redial")
        desk.status, desk.answer = None, lambda request: None  # connected, but nothing is acked
        await until(lambda: feed.state == "RECOVERING", "a connection that is not restored yet")
        assert feed.health()["since"] <= time.time()
        desk.answer = desk._reply
        desk.cut()
        await until(lambda: feed.state == "LIVE", "the restore")
        states.append(feed.health()["state"])
    assert feed.state == "CLOSED"
    assert states == ["LIVE", "LIVE"]


async def test_connection_manager_gives_up_after_its_retries_and_tells(desk: Desk) -> None:
    alerts: list[dict[str, Any]] = []
    async with feed_of(desk, backoff=Backoff(base=0.01, cap=0.02, max_retries=3), on_alert=alerts.append) as feed:
        told, ticks = feed.events(), feed.ticks()
        dials = desk.dials
        desk.status = 503
        desk.cut()
        gave_up = await event_of(told, events.GaveUp)
        assert gave_up.attempts == 4
        assert "HTTP 503" in gave_up.reason
        assert desk.dials - dials == 3
        assert feed.state == "FAILED"
        with pytest.raises(GaveUp):
            await anext(ticks)
        assert [alert["severity"] for alert in alerts] == ["error"]
        assert "gave up" in alerts[0]["cause"]
        assert status(feed, "EURUSD") is Status.CLOSED
    assert desk.dials - dials == 3, "nothing is dialled after the end"


async def test_connection_manager_counts_retries_on_against_a_server_that_accepts_and_hangs_up(desk: Desk) -> None:
    async def hang_up(socket: Any) -> None:
        await socket.close(1000)

    async with feed_of(desk, backoff=Backoff(base=0.01, cap=0.02, max_retries=4)) as feed:
        told = feed.events()
        dials = desk.dials
        desk._talk = hang_up  # type: ignore[method-assign]
        await desk.stop()
        await desk.start(desk.port)
        await event_of(told, events.GaveUp)
        assert desk.dials - dials <= 4


async def test_connection_manager_asks_on_return_for_what_was_wished_meanwhile(desk: Desk) -> None:
    async with feed_of(desk) as feed, desk.flows():
        await feed.wait_live()
        desk.status = 503
        desk.cut()
        await until(lambda: feed.state == "WAITING", "the loss")
        feed.subscribe([DEEP])
        feed.unsubscribe(["EURUSD"])
        desk.status = None
        await feed.wait_live()
        assert topics(desk.line) == ["quote:GBPUSD:5"]


async def test_connection_manager_finds_silence_behind_a_live_socket(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staleness_room, "PATIENCE", 0.2)
    alerts: list[dict[str, Any]] = []
    options = Staleness(threshold=0.2)
    async with feed_of(desk, EURUSD, DEEP, staleness=options, on_alert=alerts.append) as feed:
        told = feed.events()
        async with desk.flows():
            await feed.wait_live()
        steps = [(await event_of(told, events.Escalated)).step for _ in range(3)]
        assert steps == ["probe", "resubscribe all", "redial"]
        assert (await event_of(told, events.Disconnected)).cause == "no data, whatever was tried"
        assert "EURUSD" in alerts[0]["cause"]
        assert desk.pings, "the heartbeat was answered all the while"
        async with desk.flows():
            await feed.wait_live()
            await until(lambda: status(feed, "EURUSD") is Status.LIVE, "the row to be live again")


# The production client ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "at_once"),
    [(1000, True), (1001, True), (1006, True), (1012, True), (1013, True), (1008, False), (1011, False), (4000, False)],
)
async def test_production_client_lets_the_close_code_decide(desk: Desk, code: int, at_once: bool) -> None:
    async with feed_of(desk) as feed, desk.flows():
        told = feed.events()
        await feed.wait_live()
        await asyncio.sleep(SWIFT.stable_after)
        if code == 1006:
            desk.cut()
        else:
            await desk.line.socket.close(code, "because")
        lost = await event_of(told, events.Disconnected)
        assert lost.code == code
        assert (lost.reason == "because") is (code != 1006)
        assert ((await event_of(told, events.Reconnecting)).delay == 0) is at_once
        assert (await event_of(told, events.Restored)).missing == ()


async def test_production_client_stops_at_a_code_of_the_providers_own(desk: Desk) -> None:
    declared = provider(close_codes={4401: Failure.AUTH})
    async with feed_of(desk, declared=declared) as feed, desk.flows():
        told = feed.events()
        await feed.wait_live()
        await desk.line.socket.close(4401, "token expired")
        assert "4401 (token expired)" in (await event_of(told, events.AuthFailed)).reason
        await event_of(told, events.GaveUp)
    assert desk.dials == 1


@pytest.mark.parametrize("said", ["seconds", "date"])
async def test_production_client_waits_for_as_long_as_retry_after_says(desk: Desk, said: str) -> None:
    async with feed_of(desk) as feed, desk.flows():
        told = feed.events()
        await feed.wait_live()
        date = formatdate(time.time() + 1.5, usegmt=True)
        desk.status, desk.headers = 429, {"Retry-After": "1" if said == "seconds" else date}
        desk.cut()
        limited = await event_of(told, events.RateLimited)
        desk.status = None
        await event_of(told, events.Restored)
        _, refused_at, again_at = desk.dialled_at
        assert again_at >= (refused_at + 1.0 if said == "seconds" else parsedate_to_datetime(date).timestamp())
        assert limited.retry_after > 0


@pytest.mark.parametrize("status", [401, 403])
async def test_production_client_stops_when_it_is_not_accepted(desk: Desk, status: int) -> None:
    alerts: list[dict[str, Any]] = []
    async with feed_of(desk, on_alert=alerts.append) as feed:
        told = feed.events()
        desk.status, desk.body = status, "key revoked"
        desk.cut()
        assert f"HTTP {status}: key revoked" in (await event_of(told, events.AuthFailed)).reason
        await event_of(told, events.GaveUp)
        assert desk.dials == 2, "the key is shown once more, and then never again"
        assert {alert["severity"] for alert in alerts} == {"error"}
        assert "api_key=" in alerts[0]["hint"]
    with pytest.raises(AuthError):
        async with feed_of(desk):
            pass


class Vault:
    """Hands out a new token each time."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> dict[str, str]:
        self.asked += 1
        return {"token": f"token-{self.asked}"}


KEYED = Auth(env={"token": "PRACTICE_TOKEN"}, headers={"Authorization": "Bearer {token}"})


def accepts(desk: Desk, *tokens: str) -> None:
    def judge(request: Request) -> tuple[int, str] | None:
        return None if request.headers["Authorization"] in [f"Bearer {token}" for token in tokens] else (401, "expired")

    desk.http = judge


async def test_production_client_renews_its_token_once_when_it_lapses(desk: Desk) -> None:
    vault = Vault()
    accepts(desk, "token-1")
    async with feed_of(desk, declared=provider(auth=KEYED), credentials=vault) as feed, desk.flows():
        told = feed.events()
        await feed.wait_live()
        assert vault.asked == 1
        accepts(desk, "token-2")
        desk.cut()
        assert (await event_of(told, events.Restored)).missing == ()
        assert vault.asked == 2
        assert desk.line.headers["Authorization"] == "Bearer token-2"
        assert len(desk.dialled_at) == 3, "with the old one once, with the new one once"


async def test_production_client_stops_when_the_renewed_token_is_refused_too(desk: Desk) -> None:
    vault = Vault()
    accepts(desk, "token-1")
    async with feed_of(desk, declared=provider(auth=KEYED), credentials=vault) as feed:
        told = feed.events()
        accepts(desk)
        desk.cut()
        await event_of(told, events.AuthFailed)
        await event_of(told, events.GaveUp)
        assert vault.asked == 2
        assert len(desk.dialled_at) == 3


async def test_production_client_renews_a_token_that_has_lapsed_before_it_began(desk: Desk) -> None:
    vault = Vault()
    accepts(desk, "token-2")
    async with feed_of(desk, declared=provider(auth=KEYED), credentials=vault) as feed:
        assert feed.state == "LIVE"
        assert vault.asked == 2


# The message-age watchdog with external health ----------------------------------------------------------------------


async def test_age_watchdog_has_a_limit_of_its_own_for_each_symbol(desk: Desk) -> None:
    async with feed_of(desk, EURUSD, DEEP) as feed, desk.flows():
        await feed.wait_live()
        limits = {"EURUSD": 0.2, "GBPUSD": 60.0}
        desk.muted = {"quote:EURUSD:1", "quote:GBPUSD:5"}
        await until(lambda: not feed.prices.is_fresh("EURUSD", max_age=limits["EURUSD"]), "the first to be too old")
        assert feed.prices.is_fresh("GBPUSD", max_age=limits["GBPUSD"])


async def test_age_watchdog_counts_from_arrival_and_from_the_event(desk: Desk) -> None:
    async with feed_of(desk) as feed, desk.flows():
        await feed.wait_live()
        await until(lambda: feed.prices.is_fresh("EURUSD", max_age=5.0), "a fresh price")
        desk.late = 30.0  # still arrives all the time
        await until(lambda: not feed.prices.is_fresh("EURUSD", max_age=5.0), "the event time to count")
        arrived = int(feed.prices.arrived("quote")[0])
        await until(lambda: int(feed.prices.arrived("quote")[0]) > arrived, "more to arrive")
        assert feed.stats()["lag_ms"]["max"] >= 25_000


async def test_age_watchdog_is_not_fooled_by_heartbeats_or_other_channels(desk: Desk) -> None:
    async with feed_of(desk, EURUSD, TRADES) as feed, desk.flows():
        await feed.wait_live()
        desk.muted = {"quote:EURUSD:1"}
        pings = len(desk.pings)
        await until(lambda: not feed.prices.is_fresh("EURUSD", max_age=0.3), "the quote to be too old")
        await until(lambda: len(desk.pings) > pings, "heartbeats")
        assert feed.prices.is_fresh("EURUSD", max_age=5.0, channel="trade")


async def test_age_watchdog_finds_one_silent_symbol_and_tells(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staleness_room, "PATIENCE", 0.2)
    alerts: list[dict[str, Any]] = []
    wishes = [EURUSD, DEEP, Subscription("USDJPY", "quote")]
    async with feed_of(desk, *wishes, staleness=Staleness(threshold=0.3), on_alert=alerts.append) as feed, desk.flows():
        told = feed.events()
        await feed.wait_live()
        desk.muted = {"quote:GBPUSD:5"}
        step = await event_of(told, events.Escalated)
        assert (step.step, step.subscriptions) == ("resubscribe", (DEEP,))
        assert (await event_of(told, events.Stale)).symbols == ("GBPUSD",)
        assert "quote of GBPUSD is stale" in alerts[0]["cause"]
        assert feed.prices.fresh(max_age=5.0).tolist() == [True, False, True]
        assert len(desk.lines) == 1, "the others go on undisturbed"
        desk.muted = set()
        assert (await event_of(told, events.Fresh)).symbols == ("GBPUSD",)


@contextlib.asynccontextmanager
async def health_check(feed: Feed) -> AsyncIterator[str]:
    """What stands before a feed in production: its health over HTTP, 200 or 503."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        health = feed.health(max_age=0.5)
        body = json.dumps(health, allow_nan=False).encode()
        status = b"200 OK" if health["healthy"] else b"503 Service Unavailable"
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def get(host: str) -> tuple[int, dict[str, Any]]:
    name, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)


async def answers(host: str, status: int) -> dict[str, Any]:
    """The health once the check answers with `status`."""
    async with asyncio.timeout(10.0):
        while True:
            found, health = await get(host)
            if found == status:
                return health
            await asyncio.sleep(0.01)


async def test_age_watchdog_turns_an_external_health_check(desk: Desk) -> None:
    backoff = Backoff(base=0.01, cap=0.05, max_retries=2, stable_after=0.05)
    async with feed_of(desk, EURUSD, DEEP, backoff=backoff) as feed, health_check(feed) as host:
        nothing_yet = (await get(host))[1]
        assert (nothing_yet["oldest_age"], nothing_yet["symbols"]) == (None, 2)
        async with desk.flows():
            well = await answers(host, 200)
            assert (well["state"], well["fresh"], well["error"], well["provider"]) == ("LIVE", 2, None, "practice")
            assert 0 <= well["oldest_age"] < 0.5
            desk.muted = {"quote:GBPUSD:5"}
            ill = await answers(host, 503)
            assert (ill["state"], ill["fresh"], ill["oldest"]) == ("LIVE", 1, "GBPUSD")
            assert ill["oldest_age"] >= 0.5
            assert ill["since"] == well["since"], "the state has not changed, the data has"
            desk.muted = set()
            await answers(host, 200)
            desk.cut()
            await until(lambda: feed.stats()["reconnects"] == 1, "the reconnect")
            assert (await answers(host, 200))["reconnects"] == 1
        desk.status = 503
        desk.cut()
        await until(lambda: feed.state == "FAILED", "the end of the retries")
        over = (await get(host))[1]
        assert (over["healthy"], over["state"], over["fresh"]) == (False, "FAILED", 0)
        assert "gave up after 3 failed attempts" in over["error"]
        assert over["since"] > well["since"]
    assert "FAILED" in repr(feed)
