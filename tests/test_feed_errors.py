"""What the feed refuses before any network, and what it says of every way a dial can fail: host, cause, retry rule."""

import asyncio
import inspect
import math
import pickle
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from exchange import PEM, Exchange, quote, until

import fastfeed
from fastfeed import Backoff, Feed, Heartbeat, Message, Provider, Schema, Subscription, endpoint, errors, events
from fastfeed.errors import AuthError, ConfigError, ConnectError, FastFeedError, GaveUp, HandshakeError
from fastfeed.providers import Auth, Channel, provider
from fastfeed.records import Gap

SWIFT = Backoff(base=0.02, cap=0.05)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to reach for the network fails the test."""

    def reached(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was reached for")

    for name in ("getaddrinfo", "socket", "create_connection"):
        monkeypatch.setattr(socket, name, reached)


# Before any network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"provider": "nope"}, r"no provider 'nope'; there are .*'binance', .*'tradermade'"),
        ({"channels": ["nope"]}, r"no channel 'nope'; it has 'quote', 'trade'"),
        ({"channels": []}, "channels is empty"),
        ({"channels": "quote"}, r"channels='quote': write a list, \['quote'\]"),
        ({"channels": [7]}, "channels holds 7"),
        ({"symbols": []}, "symbols is empty"),
        ({"symbols": "BTCUSDT"}, r"symbols='BTCUSDT': write a list"),
        ({"symbols": [""]}, "no symbol ''"),
        ({"symbols": ["BTC-USDT"]}, "no symbol 'BTC-USDT'"),
        ({"symbols": [7]}, "symbols holds 7"),
        ({"symbols": None}, "symbols=None: write a list"),
        ({"symbols": [Subscription("BTCUSDT", "depth", speed="1ms")]}, r"speed='1ms' must be one of '100ms'"),
        ({"symbols": [Subscription("BTCUSDT", "depth", deep=5)]}, r"no parameter 'deep'"),
        ({"symbols": ["BTCUSDT", "ETHUSDT"], "max_symbols": 1}, "max_symbols"),
        ({"url": "http://127.0.0.1"}, r"must begin with ws:// or wss://"),
        ({"url": "127.0.0.1:9000"}, r"'127.0.0.1:9000'"),
        ({"url": "ws://"}, "and a host"),
        ({"url": ""}, "url=''"),
        ({"url": "ws://host:port"}, "is not a URL"),
        ({"url": "ws://host:99999"}, "is not a URL"),
        ({"url": 7}, "url=7 is not a URL"),
        ({"url": "ws://host/path"}, "write 'ws://host'"),
        ({"connect_timeout": 0}, "connect_timeout=0"),
        ({"connect_timeout": math.nan}, "connect_timeout=nan"),
        ({"connect_timeout": "5"}, "connect_timeout='5'"),
        ({"close_timeout": -1.0}, "close_timeout=-1.0"),
        ({"receive_buffer": "1 MiB"}, "receive_buffer='1 MiB'"),
        ({"ring_capacity": 0}, "ring.capacity 0"),
        ({"ring_capacity": -1}, "ring.capacity -1"),
        ({"max_symbols": 0}, "max_symbols"),
        ({"symbols": [Subscription(7, "quote")]}, "no symbol 7"),  # type: ignore[arg-type]
        ({"symbols": [Subscription("BTCUSDT", 7)]}, "no channel 7"),  # type: ignore[arg-type]
        ({"symbols": [Subscription("BTCUSDT", "depth", speed=[1])]}, r"speed=\[1\] must be one of"),
        ({"receive_buffer": 1}, "receive_buffer=1"),
        ({"max_message": 0}, "max_message=0"),
        ({"heartbeat": 5.0}, "heartbeat=5.0: must be a Heartbeat"),
        ({"backoff": 5.0}, "backoff=5.0: must be a Backoff"),
        ({"ssl": False}, "ssl=False: must be a SSLContext"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("no_network")
def test_what_cannot_work_is_refused_by_name_and_value(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Feed(**{"provider": "binance-usdm", "symbols": ["BTCUSDT"], **arguments})


@pytest.mark.parametrize(
    ("consumer", "message"),
    [
        (lambda feed: feed.batches(window=-1.0), "window=-1.0"),
        (lambda feed: feed.batches(window=math.inf), "window=inf"),
        (lambda feed: feed.batches(max_age=0.0), "max_age=0.0"),
        (lambda feed: feed.on_batch(print, max_age=-1.0), "max_age=-1.0"),
        (lambda feed: feed.subscribe([]), None),
        (lambda feed: feed.subscribe(["SOLUSDT"], channels=["nope"]), "nope"),
        (lambda feed: feed.unsubscribe(["SOLUSDT"]), "not subscribed: .*SOLUSDT"),
        (lambda feed: feed.unsubscribe(["BTCUSDT"], channels=["trade"]), "not subscribed: .*trade"),
    ],
)
def test_impossible_options_of_a_consumer_are_refused(consumer: Callable[[Feed], Any], message: str | None) -> None:
    feed = Feed("binance-usdm", ["BTCUSDT"])
    if message is None:
        consumer(feed)
        return
    with pytest.raises(ConfigError, match=message):
        consumer(feed)
    assert list(feed.subscriptions) == [Subscription("BTCUSDT", "quote")], "nothing was half done"


def test_a_url_with_a_secret_in_it_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError) as raised:
        Feed("binance-usdm", ["BTCUSDT"], url="wss://user:hunter2@host:1/?token=hunter2")
    assert "hunter2" not in str(raised.value)
    assert "hunter2" not in repr(raised.value)


# Nobody there -------------------------------------------------------------------------------------------------------


async def entering(url: str, **options: Any) -> FastFeedError:
    """The error of entering a feed, and that nothing is left behind."""
    options = {"connect_timeout": 0.4, "backoff": SWIFT, **options}
    feed = Feed("binance-usdm", ["BTCUSDT"], url=url, **options)
    with pytest.raises(FastFeedError) as raised:
        async with feed:
            pass
    assert feed.state in ("CLOSED", "FAILED")
    coroutines = [task.get_coro() for task in asyncio.all_tasks()]
    assert not [c for c in coroutines if c.__qualname__.startswith(("Feed.", "Connection."))], "a task is left"
    return raised.value


async def test_a_refused_dial_is_retried_until_the_timeout_and_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody can be there
        port = taken.getsockname()[1]
        error = await entering(f"ws://127.0.0.1:{port}")
    assert isinstance(error, ConnectError)
    assert error.host == f"127.0.0.1:{port}"
    assert "refused" in error.cause.lower()
    assert error.retryable


async def test_an_exchange_that_comes_up_late_is_found() -> None:
    exchange = Exchange()
    await exchange.start()
    port, url = exchange.port, exchange.url
    await exchange.stop()
    feed = Feed("binance-usdm", ["BTCUSDT"], url=url, backoff=SWIFT)
    stream = feed.events()

    async def appear() -> None:
        async for event in stream:
            if isinstance(event, events.Reconnecting) and event.attempt >= 3:
                await exchange.start(port)
                return

    appearing = asyncio.create_task(appear())
    async with feed:
        await appearing
        assert feed.stats()["dials"] >= 4
        assert feed.stats()["reconnects"] == 0
    await exchange.stop()


async def test_a_name_that_does_not_exist_is_named() -> None:
    error = await entering("wss://no-such-exchange.invalid:9443", connect_timeout=2.0)
    assert isinstance(error, ConnectError)
    assert error.host == "no-such-exchange.invalid:9443"


# Somebody there, but not an exchange --------------------------------------------------------------------------------


@asynccontextmanager
async def answering(answer: bytes | None, *, hang_up: bool = True) -> AsyncIterator[str]:
    """A TCP server that answers the first bytes of anybody with `answer` (None: never) and hangs up or not."""
    writers = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read(1024)
        if answer is not None:
            writer.write(answer)
            if hang_up:
                writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 101",
    ],
    ids=["nothing", "ssh", "tls alert", "wrong accept", "half an answer"],
)
async def test_an_answer_that_is_no_handshake_is_one_clear_error(answer: bytes) -> None:
    async with answering(answer) as url:
        error = await entering(url)
    assert isinstance(error, ConnectError)
    assert not isinstance(error, HandshakeError)
    assert error.host in url


async def test_no_answer_at_all_ends_a_dial_by_its_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "DIAL_TIMEOUT", 0.1)
    async with answering(None) as url:
        error = await entering(url)
    assert isinstance(error, ConnectError)
    assert "no answer within 0.1 s" in str(error)


async def test_closing_while_dialling_leaves_nothing_behind() -> None:
    async with answering(None) as url:
        feed = Feed("binance-usdm", ["BTCUSDT"], url=url)
        entered = asyncio.create_task(feed.__aenter__())
        await until(lambda: feed.stats()["dials"] == 1, "the dial")
        await asyncio.sleep(0.01)
        entered.cancel()
        with pytest.raises(asyncio.CancelledError):
            await entered
        assert feed.state == "CLOSED"
        await feed.close()


# HTTP instead of WebSocket ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
async def test_authentication_failure_is_dialled_once(status: int) -> None:
    async with Exchange() as exchange:
        exchange.status, exchange.body = status, "API key expired"
        error = await entering(exchange.url, connect_timeout=10.0)
        assert exchange.dials == 1
    assert isinstance(error, AuthError)
    assert f"HTTP {status}: API key expired" in str(error)
    assert "api_key=" in error.hint
    assert not error.retryable


async def test_rate_limiting_with_a_wait_beyond_the_timeout_is_dialled_once() -> None:
    async with Exchange() as exchange:
        exchange.status, exchange.headers = 429, {"Retry-After": "120"}
        error = await entering(exchange.url, connect_timeout=10.0)
        assert exchange.dials == 1
    assert isinstance(error, HandshakeError)
    assert (error.status, error.headers["retry-after"]) == (429, "120")
    assert error.retryable
    assert "120" in error.hint


async def test_rate_limiting_with_a_short_wait_is_waited_for() -> None:
    async with Exchange() as exchange:
        exchange.status, exchange.headers = 429, {"Retry-After": "1"}
        feed = Feed("binance-usdm", ["BTCUSDT"], url=exchange.url, backoff=SWIFT)
        stream = feed.events()
        entered = asyncio.create_task(feed.__aenter__())
        async for event in stream:
            if isinstance(event, events.RateLimited):
                assert event.retry_after == 1.0
                break
        exchange.status = None
        await entered
        assert exchange.dials == 2
        await feed.close()


async def test_the_longer_of_two_waits_asked_for_is_kept() -> None:
    async with Exchange() as exchange:
        exchange.status, exchange.headers = 418, {"Retry-After": "1"}
        exchange.body = '{"code": -1003, "retryAfter": 90}'
        feed = Feed("binance-usdm", ["BTCUSDT"], url=exchange.url, backoff=SWIFT)
        stream = feed.events()
        entered = asyncio.create_task(feed.__aenter__())
        async for event in stream:
            if isinstance(event, events.RateLimited):
                assert event.retry_after == 90.0
                break
        with pytest.raises(HandshakeError):
            await entered


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_broken_server_is_retried_and_named(status: int) -> None:
    async with Exchange() as exchange:
        exchange.status = status
        error = await entering(exchange.url)
        assert exchange.dials > 3
    assert isinstance(error, HandshakeError)
    assert error.status == status
    assert error.retryable
    assert error.host == f"127.0.0.1:{exchange.port}"


async def test_a_server_that_recovers_is_connected_to() -> None:
    async with Exchange() as exchange:
        exchange.status = 503
        feed = Feed("binance-usdm", ["BTCUSDT"], url=exchange.url, backoff=SWIFT)
        entered = asyncio.create_task(feed.__aenter__())
        await until(lambda: exchange.dials > 2, "some dials")
        exchange.status = None
        await entered
        await exchange.send(quote())
        await feed.wait_live()
        await feed.close()


@pytest.mark.parametrize(
    ("answer", "status", "retryable"),
    [
        (b"HTTP/1.1 520 Web Server Returned an Unknown Error\r\nServer: edge\r\n\r\n", 520, True),
        (b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, False),
        (b"HTTP/1.1 503\r\n\r\n", 503, True),
    ],
)
async def test_statuses_outside_the_standard_and_old_http_are_read_too(
    answer: bytes, status: int, retryable: bool
) -> None:
    async with answering(answer) as url:
        error = await entering(url)
    assert isinstance(error, HandshakeError)
    assert (error.status, error.retryable) == (status, retryable)


@pytest.mark.parametrize("status", [400, 404, 410])
async def test_what_retrying_cannot_mend_is_told_at_once(status: int) -> None:
    async with Exchange() as exchange:
        exchange.status = status
        error = await entering(exchange.url, connect_timeout=60.0, backoff=Backoff(base=30.0))
        assert exchange.dials == 1
    assert isinstance(error, HandshakeError)
    assert not error.retryable


async def test_a_redirect_is_not_followed_but_shown() -> None:
    async with Exchange() as other, Exchange() as exchange:
        exchange.status, exchange.headers = 302, {"Location": f"{other.url}/stream?token=hunter2"}
        error = await entering(exchange.url, connect_timeout=60.0)
        assert (exchange.dials, other.dials) == (1, 0)
    assert isinstance(error, HandshakeError)
    assert other.url in error.hint
    assert "hunter2" not in str(error)


# Control messages that make no sense --------------------------------------------------------------------------------


async def test_nonsense_acks_and_pongs_are_counted_where_everybody_can_see_them() -> None:
    async with Exchange() as exchange, Feed("binance-usdm", ["BTCUSDT"], url=exchange.url) as feed:
        await exchange.send('{"result":null,"id":"x"}', '{"result":null,"id":999}', '{"error":[],"id":{}}')
        await exchange.line.socket.pong(b"nobody asked")
        await exchange.send(quote())
        await feed.wait_live()
        await until(lambda: feed.stats()["strays"] == 2, "the ack and the pong to be counted")
        stats = feed.stats()
        assert (stats["unreadable"], stats["control"], stats["reconnects"]) == (2, 4, 0)


# TLS ----------------------------------------------------------------------------------------------------------------


async def test_a_certificate_nobody_vouches_for_is_refused_at_once() -> None:
    async with Exchange(tls=True) as exchange:
        error = await entering(exchange.url, connect_timeout=60.0, backoff=Backoff(base=30.0))
    assert isinstance(error, ConnectError)
    assert "certificate" in error.cause
    assert "SSL_CERT_FILE" in error.hint
    assert not error.retryable


async def test_a_context_that_trusts_the_certificate_connects() -> None:
    async with Exchange(tls=True) as exchange:
        trusting = ssl.create_default_context(cafile=str(PEM))
        async with Feed("binance-usdm", ["BTCUSDT"], url=exchange.url, ssl=trusting) as feed:
            await exchange.send(quote())
            await feed.wait_live()


async def test_the_default_context_honours_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
    async with Exchange(tls=True) as exchange, Feed("binance-usdm", ["BTCUSDT"], url=exchange.url) as feed:
        assert feed.state == "LIVE"


async def test_a_certificate_for_another_name_is_refused() -> None:
    async with Exchange(tls=True) as exchange:
        trusting = ssl.create_default_context(cafile=str(PEM))
        error = await entering(f"wss://127.0.0.1:{exchange.port}", ssl=trusting, connect_timeout=60.0)
    assert "certificate" in str(error)


async def test_tls_to_a_port_that_speaks_none_is_named() -> None:
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        error = await entering(url.replace("ws://", "wss://"), connect_timeout=60.0)
    assert isinstance(error, ConnectError)
    assert "TLS failed" in error.cause
    assert not error.retryable


# Secrets ------------------------------------------------------------------------------------------------------------

KEYED = Provider(
    name="keyed",
    url="wss://keyed.example",
    channels={"quote": Channel(topic="{symbol}", path="/feed")},
    schema=Schema(
        Message("quote", match={"e": "bookTicker"}, symbol="s", bid="b", ask="a"),
        Message("control", has=("id",)),
        envelope="data",
    ),
    dialect=provider("binance").dialect,
    auth=Auth(env={"api_key": "KEYED_API_KEY"}, headers={"X-Key": "{api_key}"}),
)


def test_a_missing_key_is_asked_for_before_any_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYED_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="api_key= or set KEYED_API_KEY"):
        Feed(KEYED, ["BTCUSDT"])


@pytest.mark.parametrize("how", ["argument", "credentials", "environment"])
async def test_the_key_is_shown_to_the_provider_and_to_nobody_else(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    options: dict[str, Any] = {}
    if how == "argument":
        options["api_key"] = "hunter2"
    elif how == "credentials":
        options["credentials"] = {"api_key": "hunter2"}
    else:
        monkeypatch.setenv("KEYED_API_KEY", "hunter2")
    async with Exchange() as exchange:
        exchange.answer = lambda request: (
            f'{{"id":{request["id"]},"error":{{"code":1,"msg":"hunter2 may not see {request["params"][0]}"}}}}'
        )
        feed = Feed(KEYED, ["BTCUSDT"], url=exchange.url, backoff=SWIFT, **options)
        stream = feed.events()
        async with feed:
            assert exchange.line.headers["X-Key"] == "hunter2"
            with pytest.raises(errors.SubscriptionRejected) as raised:
                await feed.wait_live()
            await exchange.line.socket.close(4001, "hunter2 has expired")
            seen = [await anext(stream) for _ in range(4)]
            shown = [repr(feed), repr(raised.value), repr(seen), repr(feed.stats()), repr(vars(feed.provider))]
        exchange.status, exchange.body, exchange.headers = 401, "bad key hunter2", {"X-Echo": "hunter2"}
        feed = Feed(KEYED, ["BTCUSDT"], url=exchange.url, backoff=SWIFT, **options)
        with pytest.raises(AuthError) as refused:
            async with feed:
                pass
        shown += [repr(refused.value), str(refused.value), repr(vars(refused.value))]
    assert "*** may not see BTCUSDT" in shown[2]
    assert not [text for text in shown if "hunter2" in text]
    ours = [record for record in caplog.records if not record.name.startswith("websockets")]
    assert not [record.getMessage() for record in ours if "hunter2" in record.getMessage()]


# The errors themselves ----------------------------------------------------------------------------------------------

SAMPLES = [
    ConfigError("x=1: must be 2"),
    ConnectError("host:1", "refused", retryable=False, hint="do this"),
    HandshakeError(429, {"Retry-After": "7"}, host="host:1"),
    HandshakeError(599),
    AuthError("host:1", "HTTP 401"),
    errors.SubscriptionRejected("BTCUSDT", "no such symbol"),
    errors.DecodeError(7, b'{"a":', "unexpected end"),
    errors.GapError(Gap("trade", "BTCUSDT", 3, 4, 0)),
    errors.StaleError(["A", "B"], "no data"),
    GaveUp("refused", 3),
]


def test_every_error_is_sampled_here() -> None:
    found = {kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FastFeedError)}
    assert found - {FastFeedError} == {type(sample) for sample in SAMPLES}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_says_what_and_survives_a_process_boundary(error: FastFeedError) -> None:
    assert isinstance(error.retryable, bool)
    assert isinstance(error.hint, str)
    assert error.hint in str(error)
    assert type(error).__name__ in repr(error)
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_many_stale_symbols_are_not_all_listed() -> None:
    error = errors.StaleError([f"S{n}" for n in range(500)], "no data")
    assert str(error).endswith("S9 and 490 more")
    assert len(error.symbols) == 500


def test_configuration_errors_are_value_errors() -> None:
    with pytest.raises(ValueError, match="nope"):
        fastfeed.Feed("nope", ["BTCUSDT"])


def test_options_are_frozen() -> None:
    for options in (Heartbeat(), Backoff()):
        with pytest.raises(AttributeError):
            options.timeout = 1.0  # type: ignore[union-attr,misc]
