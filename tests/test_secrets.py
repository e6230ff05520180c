"""Secrets stay in: whatever way a key is shown to the provider, and wherever the server echoes it, nobody sees it.

Looked through are reprs, events, alerts, metrics, errors with all they are chained to, tracebacks, and every logger
at its lowest level, picows', aiohttp's and asyncio's included. No test here says what is shown instead, but that
something is.
"""

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote as percent

import pytest
from exchange import Exchange, until

from fastfeed import Backoff, Feed, Message, Provider, Schema
from fastfeed.credentials import Auth, Credentials, Token
from fastfeed.dialect import Ack, Denial, Dialect, Reply, Welcome
from fastfeed.dialect import Refusal as Refused
from fastfeed.errors import AuthError, ConfigError, ConnectError, FastFeedError, GaveUp, HandshakeError
from fastfeed.failures import Failure
from fastfeed.providers import Channel

CORE = "hunter2"  # what no form of quoting changes
SECRET = f'{CORE}/+&"x'
FETCHED = f"{CORE}~fetched=/"
SWIFT = Backoff(base=0.02, cap=0.05)


def read(payload: bytes) -> tuple[Reply, ...]:
    said = json.loads(payload)
    match said.get("op"):
        case "welcome":
            return (Welcome(),)
        case "denied":
            return (Denial(Failure.AUTH, said["why"]),)
        case "refused":
            return (Refused(said["id"], said["why"]),)
    return (Ack(said["id"]),)


def ask(number: int, topics: Any) -> str:
    return json.dumps({"id": number, "topics": list(topics)})


AUTHS = {
    "header": Auth(env={"api_key": "KEY"}, headers={"Authorization": "Bearer {api_key}"}),
    "query": Auth(env={"api_key": "KEY"}, query={"token": "{api_key}"}),
    "login": Auth(env={"api_key": "KEY"}, login=lambda known: (json.dumps({"op": "login", "key": known["api_key"]}),)),
    "token": Auth(
        env={"api_key": "KEY"},
        headers={"Authorization": "Bearer {token}"},
        token=Token(
            url="https://auth.example/token?key={api_key}",
            read=lambda body: (json.loads(body)["token"], 60.0),
            headers={"X-Key": "{api_key}"},
        ),
    ),
}


def provider(auth: Auth) -> Provider:
    return Provider(
        name="keyed",
        url="wss://keyed.example",
        channels={"quote": Channel(topic="{symbol}", path="/feed")},
        schema=Schema(
            Message("quote", match={"e": "quote"}, symbol="s", bid="b", ask="a"),
            Message("control", has=("op",)),
            Message("control", has=("id",)),
        ),
        dialect=Dialect(subscribe=ask, unsubscribe=ask, read=read),
        auth=auth,
    )


def chained(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        yield from chained(error.__context__)
        error = error.__cause__


class Onlooker:
    """Everything anybody outside can see of one feed."""

    def __init__(self, exchange: Exchange, how: str, **options: Any) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.seen: list[str] = []
        self.feed = Feed(
            provider(AUTHS[how]),
            ["BTCUSDT"],
            url=exchange.url,
            api_key=SECRET,
            backoff=SWIFT,
            on_alert=self.alerts.append,
            **options,
        )
        self._events = self.feed.events()

    def looks_at(self, error: BaseException) -> None:
        for each in chained(error):
            self.seen += [repr(each), str(each), repr(vars(each)), repr(each.args)]
        self.seen += traceback.format_exception(error)

    async def finds(self, log: pytest.LogCaptureFixture) -> list[str]:
        """What of all that holds the secret."""
        await self.feed.close()
        try:
            self.seen += [repr(event) async for event in self._events]
        except GaveUp as error:
            self.looks_at(error)
        self.seen += [repr(self.feed), json.dumps(self.feed.stats()), json.dumps(self.feed.health())]
        self.seen += [repr(self.feed.subscriptions), repr(self.feed.provider), repr(vars(self.feed)), repr(self.alerts)]
        formatter = logging.Formatter("%(name)s %(message)s")  # which adds the traceback, where there is one
        self.seen += [formatter.format(record) for record in log.records if not record.name.startswith("websockets")]
        assert (
            "Connected" in "".join(self.seen) or "not authorised" in "".join(self.seen) or "HTTP" in "".join(self.seen)
        )
        return [text for text in self.seen if CORE in text.lower()]


@pytest.fixture
async def exchange(caplog: pytest.LogCaptureFixture) -> AsyncIterator[Exchange]:
    caplog.set_level(0)
    asyncio.get_running_loop().set_debug(True)
    async with Exchange() as running:
        running.http = token_server(200, json.dumps({"token": FETCHED}))
        running.answer = answer
        yield running


def token_server(status: int, body: str) -> Any:
    return lambda request: (status, body) if request.path.startswith("/token") else None


def answer(request: dict[str, Any]) -> str:
    return json.dumps({"op": "welcome"} if request.get("op") == "login" else {"id": request["id"]})


def shown(exchange: Exchange, how: str) -> bool:
    """The newest connection was shown the key, in the way it should be."""
    line = exchange.line
    if how == "login":
        return bool(line.requests[0]["key"] == SECRET)
    if how == "query":
        return line.path == f"/feed?token={percent(SECRET, safe='')}"
    return bool(line.headers["Authorization"] == f"Bearer {FETCHED if how == 'token' else SECRET}")


@pytest.mark.parametrize("how", AUTHS)
async def test_a_close_reason_that_echoes_the_key(
    exchange: Exchange, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    onlooker = Onlooker(exchange, how)
    async with onlooker.feed:
        assert shown(exchange, how)
        echoed = f"{SECRET} and {FETCHED if how == 'token' else SECRET} have expired"
        await exchange.line.socket.close(4001, echoed)
        await until(lambda: len(exchange.lines) == 2, "the redial")
    assert await onlooker.finds(caplog) == []
    assert "*** and *** have expired" in "".join(onlooker.seen)


@pytest.mark.parametrize("how", AUTHS)
async def test_a_refusal_that_echoes_the_key(exchange: Exchange, how: str, caplog: pytest.LogCaptureFixture) -> None:
    key = FETCHED if how == "token" else SECRET

    def refuse(request: dict[str, Any]) -> str:
        if request.get("op") == "login":
            return answer(request)
        return json.dumps({"op": "refused", "id": request["id"], "why": f"{key} may not see it"})

    exchange.answer = refuse
    onlooker = Onlooker(exchange, how)
    async with onlooker.feed:
        with pytest.raises(FastFeedError) as raised:
            await onlooker.feed.wait_live()
        onlooker.looks_at(raised.value)
    assert await onlooker.finds(caplog) == []
    assert "*** may not see it" in "".join(onlooker.seen)


@pytest.mark.parametrize("how", AUTHS)
async def test_a_denial_that_echoes_the_key(exchange: Exchange, how: str, caplog: pytest.LogCaptureFixture) -> None:
    key = FETCHED if how == "token" else SECRET
    onlooker = Onlooker(exchange, how)
    async with onlooker.feed as feed:
        await until(lambda: feed.state == "LIVE", "the feed to be live")
        for _ in range(2):  # a token is fetched anew once
            await exchange.line.send(json.dumps({"op": "denied", "why": f"{key} has expired"}))
            lines = len(exchange.lines)
            await until(lambda: feed.state == "FAILED" or len(exchange.lines) > lines, "the end, or a new connection")  # noqa: B023
            if feed.state == "FAILED":
                break
        assert feed.state == "FAILED"
    assert await onlooker.finds(caplog) == []
    assert "*** has expired" in "".join(onlooker.seen)


@pytest.mark.parametrize("filler", [0, 196, 995])
@pytest.mark.parametrize("how", AUTHS)
async def test_an_error_body_and_headers_that_echo_the_key(
    exchange: Exchange, how: str, filler: int, caplog: pytest.LogCaptureFixture
) -> None:
    key = FETCHED if how == "token" else SECRET
    exchange.status, exchange.body = 401, "x" * filler + key
    exchange.headers = {"X-Echo": f"{key} {percent(key)}"}
    onlooker = Onlooker(exchange, how)
    with pytest.raises(AuthError) as raised:
        async with onlooker.feed:
            pass
    onlooker.looks_at(raised.value)
    assert await onlooker.finds(caplog) == []
    assert exchange.dials == (2 if how == "token" else 1)


@pytest.mark.parametrize("status", [302, 429, 503])
@pytest.mark.parametrize("how", AUTHS)
async def test_a_redirect_and_headers_that_echo_the_key(
    exchange: Exchange, how: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    key = FETCHED if how == "token" else SECRET
    exchange.status = status
    exchange.headers = {
        "Location": f"wss://elsewhere.example/feed?token={percent(key, safe='')}&other=unseen",
        "Retry-After": "60",
        "X-Echo": key,
    }
    onlooker = Onlooker(exchange, how, connect_timeout=0.3)
    with pytest.raises(HandshakeError) as raised:
        async with onlooker.feed:
            pass
    onlooker.looks_at(raised.value)
    assert raised.value.headers["location"] == "wss://elsewhere.example/feed"
    assert await onlooker.finds(caplog) == []
    assert not [text for text in onlooker.seen if "unseen" in text], "a query is shown"


@pytest.mark.parametrize("how", AUTHS)
async def test_an_answer_that_is_no_handshake_and_echoes_what_it_got(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = await reader.read(4096)
        if b"/token" in got.split(b"\r\n")[0]:
            body = json.dumps({"token": FETCHED}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        else:
            writer.write(got + SECRET.encode() + b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        nobody = Exchange()
        nobody.port = server.sockets[0].getsockname()[1]
        onlooker = Onlooker(nobody, how, connect_timeout=0.3)
        with pytest.raises(ConnectError) as raised:
            async with onlooker.feed:
                pass
        onlooker.looks_at(raised.value)
        onlooker.seen.append("HTTP")
        assert await onlooker.finds(caplog) == []


# The token itself ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, f"bad key {SECRET}"),
        (401, "x" * 195 + SECRET),
        (403, json.dumps({"why": SECRET})),
        (302, SECRET),
        (500, SECRET),
        (200, SECRET),
        (200, json.dumps({"nothing": SECRET})),
        (200, json.dumps({"token": [SECRET]})),
    ],
)
async def test_a_token_that_cannot_be_had(
    exchange: Exchange, status: int, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    exchange.http = token_server(status, body)
    onlooker = Onlooker(exchange, "token", connect_timeout=0.3)
    with pytest.raises(ConnectError, match="no token") as raised:
        async with onlooker.feed:
            pass
    onlooker.looks_at(raised.value)
    onlooker.seen.append("HTTP")
    assert exchange.lines == []
    assert await onlooker.finds(caplog) == []


async def test_the_url_of_the_token_is_in_no_error_of_a_server_that_hangs_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        auth = Auth(
            env={"api_key": "KEY"},
            token=Token(url=f"http://me:{{api_key}}@127.0.0.1:{port}?key={{api_key}}", read=lambda body: ("", None)),
        )
        credentials = Credentials("keyed", auth, api_key=SECRET)
        with pytest.raises(ConnectError) as raised:
            await credentials.refresh(0.0)
    assert raised.value.host == f"127.0.0.1:{port}"
    seen = [text for error in chained(raised.value) for text in (str(error), repr(error), repr(vars(error)))]
    assert not [
        text for text in [*seen, *traceback.format_exception(raised.value), caplog.text] if CORE in text.lower()
    ]


async def test_a_function_for_credentials_that_raises_shows_nothing_of_it() -> None:
    def ask_vault() -> dict[str, str]:
        raise RuntimeError(f"the vault says {SECRET}")

    credentials = Credentials("keyed", AUTHS["header"], given=ask_vault)
    with pytest.raises(AuthError, match="credentials= raised RuntimeError") as raised:
        await credentials.refresh(0.0)
    assert not [
        text for error in chained(raised.value) for text in (str(error), repr(vars(error))) if CORE in text.lower()
    ]


# Hiding -------------------------------------------------------------------------------------------------------------


def test_a_secret_is_hidden_however_it_is_quoted() -> None:
    credentials = Credentials("keyed", AUTHS["header"], api_key=SECRET)
    quoted = [
        SECRET,
        percent(SECRET),
        percent(SECRET, safe=""),
        json.dumps(SECRET),
        f'{CORE}\\/+&\\"x',
        f"{CORE}/+&amp;&quot;x",
    ]
    for text in quoted:
        assert credentials.hide(f"key={text};").strip('"') in ("key=***;", 'key="***";')
        assert credentials.hide_bytes(f"key={text};".encode()).strip(b'"') in (b"key=***;", b'key="***";')
    assert repr(credentials) == "<Credentials api_key>"


def test_what_is_too_short_to_be_a_secret_spoils_no_message() -> None:
    credentials = Credentials("keyed", AUTHS["header"], api_key="1")
    assert credentials.hide_bytes(b'{"id":1}') == b'{"id":1}'


@pytest.mark.parametrize("options", [{"api_key": 7}, {"given": {"api_key": 7}}, {"given": SECRET}, {"given": [SECRET]}])
def test_credentials_that_are_none_are_refused_unseen(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="credentials must be a mapping") as raised:
        Credentials("keyed", AUTHS["header"], **options)
    assert CORE not in "".join(traceback.format_exception(raised.value))


def test_a_token_without_the_extra_is_asked_for_before_any_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastfeed.rest.is_possible", lambda: False)
    with pytest.raises(ConfigError, match=r"pip install 'fastfeed\[http\]'"):
        Credentials("keyed", AUTHS["token"], api_key=SECRET)
