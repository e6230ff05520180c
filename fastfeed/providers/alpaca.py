"""Alpaca's market data v2: US stocks by several feeds, a test stream, crypto; as JSON. Data only.

Sources: docs.alpaca.markets, and the code of alpacahq/alpaca-py and alpaca-trade-api-go (2026). Often said otherwise:
that the server pings every 15 s. No source has it; the clients ping. Nothing carries a sequence, so no loss can be
told; sizes of stock quotes are in round lots, those of trades in shares. The names with `-msgpack`, and the options,
which come as nothing else, are in alpaca_msgpack.py.

`alpaca` is the consolidated tape (SIP), not IEX: an account without it is told so (409), while the quotes of IEX alone
would look like the market's and are not. A second connection is turned away with 406, and a dead one keeps its place
for about 90 s (the Alpaca forum): that long it is waited. The key is shown in a message; `HEADERS` shows it in the
handshake instead: `dataclasses.replace(provider("alpaca"), auth=alpaca.HEADERS)`. An OAuth token is the secret to the
key "oauth".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fastfeed.credentials import Auth
from fastfeed.dialect import Active, Denial, Dialect, Greeting, Refusal, Reply, Welcome
from fastfeed.failures import Failure
from fastfeed.gaps import Fetched
from fastfeed.providers import Channel, Evidence, Provider, Recipe, tapes
from fastfeed.schema import Message, Schema
from fastfeed.subscriptions import Limits, Render
from fastfeed.text import dumps, loads

_EVIDENCE = Evidence(
    grade="documentation, and the code of official clients",
    samples="the documentation's messages",
    checked_by=("alpaca-py",),
)
_AS_JSON = replace(_EVIDENCE, checked_by=(), unchecked="the official client speaks MessagePack only")
Dump = Callable[[object], str | bytes]
Load = Callable[[bytes], object]  # raises ValueError

# Control ------------------------------------------------------------------------------------------------------------

# By code, what ends a connection; the others refuse a request: 400 a bad symbol, 405 one too many (what was subscribed
# before stays so), 410 and 413 what this feed does not have.
_ENDS: Mapping[object, Failure] = {
    401: Failure.AUTH,
    402: Failure.AUTH,
    404: Failure.UNANSWERED,  # the login took more than 10 s
    406: Failure.EVICTED,
    407: Failure.OVERLOAD,  # too slow a client; it need not be said before the end
    408: Failure.AUTH,  # not enabled for this account
    409: Failure.AUTH,  # not part of the subscription
    411: Failure.AUTH,
    412: Failure.REFUSED,  # options as JSON
    429: Failure.RATE_LIMITED,
    500: Failure.SERVER_ERROR,
}


def _request(action: str, dump: Dump) -> Render:
    def render(_: int, topics: Sequence[str]) -> str | bytes:
        wishes: dict[str, list[str]] = {}
        for topic in topics:
            channel, _colon, symbol = topic.partition(":")
            wishes.setdefault(channel, []).append(symbol)
        return dump({"action": action, **wishes})

    return render


def _replies(messages: Sequence[object]) -> Iterator[Reply]:
    for message in messages:
        if not isinstance(message, dict):
            continue
        code, said = message.get("code"), str(message.get("msg", ""))
        match message.get("T"):
            case "success" if said == "connected":
                yield Greeting()
            case "success" if said == "authenticated":
                yield Welcome()
            case "subscription":  # all that is served on this connection, whatever was asked
                lists = {channel: symbols for channel, symbols in message.items() if isinstance(symbols, list)}
                yield Active(frozenset(f"{name}:{symbol}" for name, symbols in lists.items() for symbol in symbols))
            case "error" if code == 403:  # already authenticated
                yield Welcome()
            case "error" if isinstance(code, int) and code in _ENDS:
                yield Denial(_ENDS[code], f"{said} (code {code})")
            case "error":
                yield Refusal(None, f"{said} (code {code})")


def _dialect(dump: Dump, load: Load) -> Dialect:
    def read(payload: bytes) -> tuple[Reply, ...]:
        try:
            message = load(payload)
        except ValueError:
            return ()
        return tuple(_replies(message if isinstance(message, list) else [message]))

    return Dialect(
        subscribe=_request("subscribe", dump), unsubscribe=_request("unsubscribe", dump), read=read, greets=True
    )


_KEYS = {"api_key": "APCA_API_KEY_ID", "api_secret": "APCA_API_SECRET_KEY"}

# The key in the handshake; nothing is left to say, but the server's "authenticated" is waited for. Whether "connected"
# comes first is not documented, and makes no difference.
_SHOWN = {"APCA-API-KEY-ID": "{api_key}", "APCA-API-SECRET-KEY": "{api_secret}"}
HEADERS = Auth(env=_KEYS, headers=_SHOWN, rest=_SHOWN, login=lambda _: ())


def _by_message(dump: Dump) -> Auth:
    def login(known: Mapping[str, str]) -> tuple[str | bytes, ...]:
        return (dump({"action": "auth", "key": known["api_key"], "secret": known["api_secret"]}),)

    return Auth(env=_KEYS, rest=_SHOWN, login=login)


# Messages -----------------------------------------------------------------------------------------------------------

_TIME = ("t", "iso")  # RFC 3339 with 0 to 9 decimals; as MessagePack a timestamp


def _bar(kind: str, channel: str) -> Message:
    return Message(
        "bar",
        match={"T": kind},
        channel=channel,
        symbol="S",
        open="o",
        high="h",
        low="l",
        close="c",
        volume="v",
        vwap="vw",
        trades="n",
        event_time=_TIME,  # the beginning of the bar
    )


def _trade(*, tape: str | None = None, not_last: tuple[str, ...] = ()) -> Message:
    """`i` names a trade and is no number in a row: ids are ordered neither within an exchange nor between them."""
    return Message(
        "trade",
        match={"T": "t", **({} if tape is None else {"z": tape})},
        symbol="S",
        price="p",
        size="s",
        side="tks",  # crypto
        seq="i",
        sequence="time",
        event_time=_TIME,
        conditions="c" if not_last else None,
        not_last=not_last,
    )


# Both come unasked with the trades: what one of them was in truth, and that one never was.
_CORRECTIONS = (
    Message("correction", match={"T": "c"}, symbol="S", price="cp", size="cs", seq="oi", event_time=_TIME),
    Message("correction", match={"T": "x"}, symbol="S", price="p", seq="i", event_time=_TIME),
)
_QUOTE = Message(
    "quote", match={"T": "q"}, symbol="S", bid="bp", bid_size="bs", ask="ap", ask_size="as", event_time=_TIME
)
# `updated_bar`: a bar of the past that a late trade has changed, half a minute on. `daily_bar`: of today, every minute.
_BARS = (_bar("b", "bar"), _bar("u", "updated_bar"), _bar("d", "daily_bar"))


def _depth(*, snapshot: bool) -> Message:
    """The whole book, or what has changed in it; nothing tells of one that is lost."""
    return Message(
        "depth",
        match={"T": "o", **({"r": True} if snapshot else {})},
        symbol="S",
        bids="b",
        asks="a",
        level=("p", "s"),
        sequence="none",
        snapshot=snapshot,
        event_time=_TIME,
    )


_CONTROL = tuple(Message("control", match={"T": kind}) for kind in ("success", "error", "subscription"))

# What HTTP gives back -----------------------------------------------------------------------------------------------
#
# The last trade and quote of one symbol ("Latest trade (single symbol)" and the same of quotes). Crypto and options
# have them only keyed by the symbol, which no schema names.

_LAST_TRADE = Schema(
    Message(
        "trade",
        has=("symbol", "trade"),
        symbol="symbol",
        price="trade.p",
        size="trade.s",
        seq="trade.i",
        sequence="time",
        event_time=("trade.t", "iso"),
    ),
    name="alpaca latest trade over HTTP",
)
_LAST_QUOTE = Schema(
    Message(
        "quote",
        has=("symbol", "quote"),
        symbol="symbol",
        bid="quote.bp",
        bid_size="quote.bs",
        ask="quote.ap",
        ask_size="quote.as",
        event_time=("quote.t", "iso"),
    ),
    name="alpaca latest quote over HTTP",
)


def _recovery(feed: str) -> dict[str, Recipe]:
    return {
        channel: Recipe(
            path=f"/v2/stocks/{{symbol}}/{channel}s/latest?feed={feed}", schema=schema, fetched=Fetched.LAST
        )
        for channel, schema in (("trade", _LAST_TRADE), ("quote", _LAST_QUOTE))
    }


# Providers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One stream of Alpaca's, whatever it is encoded in. `topics` maps channels to Alpaca's names for them."""

    path: str
    topics: Mapping[str, str]
    messages: tuple[Message, ...]
    symbol: str
    example: str
    not_whole: frozenset[str] = frozenset()  # channels for which `*` is forbidden
    recovery: Mapping[str, Recipe] = field(default_factory=dict)

    def provider(self, name: str, *, encoding: str, dump: Dump, load: Load) -> Provider:
        """It in one encoding: `dump` and `load` write what we say and read the server's control messages."""
        channels = {
            channel: Channel(
                topic=f"{topic}:{{symbol}}", path=self.path, all=None if channel in self.not_whole else f"{topic}:*"
            )
            for channel, topic in self.topics.items()
        }
        return Provider(
            name=name,
            url="wss://stream.data.alpaca.markets",
            channels=channels,
            schema=Schema(*self.messages, *_CONTROL, encoding=encoding, name=name),
            dialect=_dialect(dump, load),
            limits=Limits(
                # No limit is documented; beyond some 3,200 symbols a request has been closed with 1009 or half served
                # (python-legacy#319, csharp#763).
                bytes_per_request=16_000,
                connections=1,
                eviction_cool_down=90.0,
            ),
            auth=_by_message(dump),
            headers={"Content-Type": f"application/{encoding}"},
            recovery=self.recovery,
            rest="https://data.alpaca.markets",
            rest_weight_per_minute=200,  # of the free plan; 10,000 of the next
            symbol=self.symbol,
            example=self.example,
            upper=True,
            # They wait behind the data (python-legacy#591): their lack alone kills no connection.
            pongs_promised=False,
            evidence=_AS_JSON if encoding == "json" else _EVIDENCE,
        )


_PLAIN = {"trade": "trades", "quote": "quotes", "bar": "bars"}
_MORE = {"updated_bar": "updatedBars", "daily_bar": "dailyBars"}


def _stocks(path: str, topics: Mapping[str, str] = _PLAIN | _MORE, example: str = "AAPL") -> Stream:
    feed = path.rpartition("/")[2]
    return Stream(
        path=path,
        topics=topics,
        messages=(_trade(tape="C", not_last=tapes.UTP), _trade(not_last=tapes.CTA), _QUOTE, *_BARS, *_CORRECTIONS),
        symbol=r"[A-Z][A-Z0-9./]*",
        example=example,
        recovery={} if feed == "test" else _recovery(feed),
    )


def _crypto(place: str) -> Stream:
    return Stream(
        path=f"/v1beta3/crypto/{place}",
        topics={**_PLAIN, **_MORE, "depth": "orderbooks"},
        messages=(_trade(), _QUOTE, _depth(snapshot=True), _depth(snapshot=False), *_BARS),
        symbol=r"[A-Z0-9]+/[A-Z0-9]+",
        example="BTC/USD",
    )


def _options(path: str) -> Stream:
    return Stream(
        path=path,
        topics={"trade": "trades", "quote": "quotes"},
        messages=(_trade(not_last=tapes.OPRA), _QUOTE),
        symbol=r"[A-Z0-9]+\d{6}[CP]\d{8}",
        example="AAPL240315C00172500",
        not_whole=frozenset({"quote"}),
    )


# By what follows "alpaca" in the name.
STREAMS: Mapping[str, Stream] = {
    "": _stocks("/v2/sip"),
    "-iex": _stocks("/v2/iex"),  # free: one exchange, 30 symbols for trades and quotes
    "-delayed": _stocks("/v2/delayed_sip"),  # the tape, 15 minutes late
    "-boats": _stocks("/v1beta1/boats"),  # Blue Ocean, at night
    "-overnight": _stocks("/v1beta1/overnight"),
    "-test": _stocks("/v2/test", _PLAIN, "FAKEPACA"),  # at all hours, that one symbol
    "-crypto": _crypto("us"),
    "-crypto-us-1": _crypto("us-1"),  # Kraken's, of the United States
    "-crypto-eu-1": _crypto("eu-1"),  # Kraken's, of the European Union
}

# Only as MessagePack.
OPTIONS: Mapping[str, Stream] = {
    "-options": _options("/v1beta1/opra"),
    "-options-indicative": _options("/v1beta1/indicative"),  # free: derived quotes, trades 15 minutes late
}


def _json(value: object) -> str:
    return dumps(value).decode()


PROVIDERS = {
    f"alpaca{name}": one.provider(f"alpaca{name}", encoding="json", dump=_json, load=loads)
    for name, one in STREAMS.items()
}
