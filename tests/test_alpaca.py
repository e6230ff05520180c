"""Alpaca: every sample of its protocol decoded in both encodings, its words in and out, a feed against its side.

The judges are the values the samples state, the `msgpack` package, and the events of the lab's market.
"""

import asyncio
import dataclasses
import json
import math
import random
from typing import Any

import msgpack
import numpy as np
import pytest
from exchange import until

import fastfeed
from fastfeed import Backoff, Feed, Flag, Kind, Subscription, events
from fastfeed.dialect import Active, Denial, Greeting, Refusal, Welcome
from fastfeed.errors import AuthError, ConfigError, GaveUp
from fastfeed.failures import Failure
from fastfeed.lab.alpaca import AlpacaDesk
from fastfeed.lab.stage import DEPTH, QUOTE, TRADE, Event, Stage
from fastfeed.providers import alpaca, provider

KEYS = {"api_key": "KEY_ID", "api_secret": "SECRET"}
SWIFT = Backoff(base=0.02, cap=0.05)
DEADLINE = 10.0


def ns(seconds: int, rest: int) -> int:
    return seconds * 1_000_000_000 + rest


def read(name: str, *payloads: str | bytes) -> tuple[fastfeed.Decoder, np.ndarray]:
    decoder = fastfeed.Decoder(name)
    ring = decoder.ring.reader()
    for payload in payloads:
        decoder.decode(payload.encode() if isinstance(payload, str) else payload, recv_ns=1)
    return decoder, ring.read()


def repacked(text: str) -> bytes:
    """The same message as MessagePack, its times as timestamps."""
    messages = json.loads(text)
    for message in messages:
        if "t" in message:
            whole, _, decimals = message["t"].rstrip("Z").partition(".")
            seconds = int(np.datetime64(whole, "s").astype(np.int64))
            message["t"] = msgpack.Timestamp(seconds, int(decimals.ljust(9, "0")))
    return msgpack.packb(messages)


# Messages -----------------------------------------------------------------------------------------------------------

TRADES = (
    '[{"T":"t","S":"AAPL","i":628,"x":"K","p":162.92,"s":3,"c":["@","F","T","I"],"z":"C",'
    '"t":"2023-04-06T11:54:26.838232225Z"},{"T":"t","S":"AAPL","i":75,"x":"Z","p":162.92,"s":3,'
    '"c":["@","F","T","I"],"z":"C","t":"2023-04-06T11:54:26.838562809Z"}]'
)
CORRECTED = (
    '[{"T":"c","S":"EEM","x":"M","oi":52983525033527,"op":39.1582,"os":440000,"oc":[" ","7"],"ci":52983525034326,'
    '"cp":39.1809,"cs":440000,"cc":[" ","7"],"z":"B","t":"2023-04-06T14:25:06.542305024Z"}]'
)
CANCELLED = (
    '[{"T":"x","S":"GOOGL","i":465,"x":"D","p":105.31,"s":300,"a":"C","z":"C","t":"2023-04-06T13:15:42.83540958Z"}]'
)
QUOTES = (
    '[{"T":"q","S":"AMD","bx":"K","bp":91.95,"bs":2,"ax":"Q","ap":91.98,"as":1,"c":["R"],"z":"C",'
    '"t":"2023-04-06T11:54:21.670905508Z"}]'
)
BAR = (
    '[{"T":"b","S":"SPY","o":388.985,"h":389.13,"l":388.975,"c":389.12,"v":49378,"n":461,"vw":389.062639,'
    '"t":"2021-02-22T19:15:00Z"}]'
)
TEST_QUOTE = (
    '[{"T":"q","S":"FAKEPACA","bx":"O","bp":133.85,"bs":4,"ax":"R","ap":135.77,"as":5,"c":["R"],"z":"A",'
    '"t":"2024-07-24T07:56:53.639713735Z"}]'
)
TEST_BAR = (
    '[{"T":"b","S":"FAKEPACA","o":132.65,"h":136,"l":132.12,"c":134.65,"v":205,"t":"2024-07-24T07:56:00Z","n":16,'
    '"vw":133.7}]'
)
CRYPTO_TRADE = (
    '[{"T":"t","S":"AVAX/USD","p":47.299,"s":29.205707815,"t":"2024-03-12T10:27:48.858228144Z",'
    '"i":3447222699101865076,"tks":"S"}]'
)
CRYPTO_QUOTE = (
    '[{"T":"q","S":"BAT/USD","bp":0.35718,"bs":13445.46,"ap":0.3581,"as":13561.902,'
    '"t":"2024-03-12T10:29:43.111588173Z"}]'
)
CRYPTO_BAR = (
    '[{"T":"b","S":"BTC/USD","o":71856.1435,"h":71856.1435,"l":71856.1435,"c":71856.1435,"v":0,'
    '"t":"2024-03-12T10:37:00Z","n":0,"vw":0}]'
)
BOOK = (
    '[{"T":"o","S":"BTC/USD","t":"2024-03-12T10:38:50.79613221Z","b":[{"p":71859.53,"s":0.27994},'
    '{"p":71849.4,"s":0.553986}],"a":[{"p":71939.7,"s":0.83953},{"p":71940.4,"s":0.28025}],"r":true}]'
)
ASK_SET = '[{"T":"o","S":"MKR/USD","t":"2024-03-12T10:39:39.445492807Z","b":[],"a":[{"p":2614.587,"s":12.5308}]}]'
BID_GONE = '[{"T":"o","S":"CRV/USD","t":"2024-03-12T10:39:40.501160019Z","b":[{"p":0.7904,"s":0}],"a":[]}]'
OPTION_TRADE = (
    '[{"T":"t","S":"AAPL240315C00172500","t":"2024-03-11T13:35:35.13312256Z","p":2.84,"s":1,"x":"N","c":"S"}]'
)
OPTION_QUOTE = (
    '[{"T":"q","S":"SPXW240327P04925000","t":"2024-03-12T11:59:38.897261568Z","bx":"C","bp":9.46,"bs":53,"ax":"C",'
    '"ap":9.66,"as":38,"c":"A"}]'
)
NAN = math.nan
NO_ID = 0
LAST, SELL, SNAPSHOT, NOT_LAST = (int(flag) for flag in (Flag.LAST_LEVEL, Flag.SELL, Flag.SNAPSHOT, Flag.NOT_LAST))

# provider, text, symbol, (kind, id, flags, values, event time) of each tick
GOLDEN = [
    ("alpaca", TRADES, "AAPL", [
        (Kind.TRADE, 628, NOT_LAST, (162.92, 3, NAN, NAN), ns(1680782066, 838232225)),
        (Kind.TRADE, 75, NOT_LAST, (162.92, 3, NAN, NAN), ns(1680782066, 838562809)),
    ]),
    ("alpaca", CORRECTED, "EEM", [
        (Kind.CORRECTION, 52983525033527, 0, (39.1809, 440000, NAN, NAN), ns(1680791106, 542305024)),
    ]),
    ("alpaca-iex", CANCELLED, "GOOGL", [
        (Kind.CORRECTION, 465, 0, (105.31, NAN, NAN, NAN), ns(1680786942, 835409580)),
    ]),
    ("alpaca-iex", QUOTES, "AMD", [
        (Kind.QUOTE, NO_ID, 0, (91.95, 2, 91.98, 1), ns(1680782061, 670905508)),
    ]),
    ("alpaca", BAR, "SPY", [
        (Kind.BAR, NO_ID, 0, (388.985, 389.13, 388.975, 389.12), ns(1614021300, 0)),
        (Kind.BAR_VOLUME, NO_ID, 0, (49378, 389.062639, 461, NAN), ns(1614021300, 0)),
    ]),
    ("alpaca-test", TEST_QUOTE, "FAKEPACA", [
        (Kind.QUOTE, NO_ID, 0, (133.85, 4, 135.77, 5), ns(1721807813, 639713735)),
    ]),
    ("alpaca-test", TEST_BAR, "FAKEPACA", [
        (Kind.BAR, NO_ID, 0, (132.65, 136, 132.12, 134.65), ns(1721807760, 0)),
        (Kind.BAR_VOLUME, NO_ID, 0, (205, 133.7, 16, NAN), ns(1721807760, 0)),
    ]),
    ("alpaca-crypto", CRYPTO_TRADE, "AVAX/USD", [
        (Kind.TRADE, 3447222699101865076, SELL, (47.299, 29.205707815, NAN, NAN), ns(1710239268, 858228144)),
    ]),
    ("alpaca-crypto", CRYPTO_QUOTE, "BAT/USD", [
        (Kind.QUOTE, NO_ID, 0, (0.35718, 13445.46, 0.3581, 13561.902), ns(1710239383, 111588173)),
    ]),
    ("alpaca-crypto", CRYPTO_BAR, "BTC/USD", [
        (Kind.BAR, NO_ID, 0, (71856.1435, 71856.1435, 71856.1435, 71856.1435), ns(1710239820, 0)),
        (Kind.BAR_VOLUME, NO_ID, 0, (0, 0, 0, NAN), ns(1710239820, 0)),
    ]),
    ("alpaca-crypto", BOOK, "BTC/USD", [
        (Kind.LEVEL, NO_ID, SNAPSHOT, (71859.53, 0.27994, NAN, NAN), ns(1710239930, 796132210)),
        (Kind.LEVEL, NO_ID, SNAPSHOT, (71849.4, 0.553986, NAN, NAN), ns(1710239930, 796132210)),
        (Kind.LEVEL, NO_ID, SNAPSHOT | SELL, (71939.7, 0.83953, NAN, NAN), ns(1710239930, 796132210)),
        (Kind.LEVEL, NO_ID, SNAPSHOT | SELL | LAST, (71940.4, 0.28025, NAN, NAN), ns(1710239930, 796132210)),
    ]),
    ("alpaca-crypto", ASK_SET, "MKR/USD", [
        (Kind.LEVEL, NO_ID, SELL | LAST, (2614.587, 12.5308, NAN, NAN), ns(1710239979, 445492807)),
    ]),
    ("alpaca-crypto", BID_GONE, "CRV/USD", [
        (Kind.LEVEL, NO_ID, LAST, (0.7904, 0, NAN, NAN), ns(1710239980, 501160019)),
    ]),
    ("alpaca-options", OPTION_TRADE, "AAPL240315C00172500", [
        (Kind.TRADE, NO_ID, 0, (2.84, 1, NAN, NAN), ns(1710164135, 133122560)),
    ]),
    ("alpaca-options", OPTION_QUOTE, "SPXW240327P04925000", [
        (Kind.QUOTE, NO_ID, 0, (9.46, 53, 9.66, 38), ns(1710244778, 897261568)),
    ]),
]  # fmt: skip


def told(decoder: fastfeed.Decoder, ticks: np.ndarray) -> list[tuple[Any, ...]]:
    """Per tick symbol, kind, id, flags, the four values and the event time."""
    return [
        (
            decoder.prices.symbols[tick["symbol_id"]],
            Kind(tick["kind"]),
            int(tick["seq"]),
            int(tick["flags"]),
            tuple(float(tick[f"value{place}"]) for place in range(4)),
            int(tick["event_ns"]),
        )
        for tick in ticks.view(fastfeed.TICK_DTYPE_PLAIN)
    ]


def in_both_encodings() -> list[Any]:
    cases = []
    for name, text, symbol, ticks in GOLDEN:
        expected = [(symbol, kind, seq, flags, tuple(map(float, values)), at) for kind, seq, flags, values, at in ticks]
        if name != "alpaca-options":
            cases.append(pytest.param(name, text.encode(), expected, id=f"{name} {text[6]} {symbol}"))
            name += "-msgpack"
        cases.append(pytest.param(name, repacked(text), expected, id=f"{name} {text[6]} {symbol}"))
    return cases


@pytest.mark.parametrize(("name", "payload", "expected"), in_both_encodings())
def test_every_sample_is_read_to_the_values_it_states(name: str, payload: bytes, expected: list[Any]) -> None:
    decoder, ticks = read(name, payload)
    assert repr(told(decoder, ticks)) == repr(expected)  # NaN equals itself only so
    assert [decoder.stats()[count] for count in ("data", "unknown", "malformed")] == [1, 0, 0]


AAPL = bytes.fromhex(
    "9189a154a174a153a44141504ca169cd0274a178a14ba170cb40645d70a3d70a3d"
    "a17303a16394a140a146a154a149a17aa143a174d7ffc7d9a284642eb2f2"
)


def test_the_golden_frames_of_messagepack() -> None:
    decoder, [tick] = read("alpaca-msgpack", AAPL)
    assert told(decoder, np.array([tick]))[0][:4] == ("AAPL", Kind.TRADE, 628, NOT_LAST)
    assert [tick["price"], tick["size"], tick["event_ns"]] == [162.92, 3.0, 1680782066838232225]


@pytest.mark.parametrize(
    ("stamp", "event_ns"),
    [
        ("d6ff" "642eb2f2", ns(1680782066, 0)),
        ("d7ff" "c7d9a284642eb2f2", ns(1680782066, 838232225)),
        ("c70cff" "31f67ea1" "00000000642eb2f2", ns(1680782066, 838237857)),
    ],
)  # fmt: skip
def test_all_three_forms_of_a_timestamp_are_read_to_the_nanosecond(stamp: str, event_ns: int) -> None:
    at = AAPL.index(bytes.fromhex("d7ff"))
    _, [tick] = read("alpaca-msgpack", AAPL[:at] + bytes.fromhex(stamp))
    assert tick["event_ns"] == event_ns


@pytest.mark.parametrize(
    ("text", "event_ns"),
    [
        ("2021-02-22T19:15:00Z", ns(1614021300, 0)),
        ("2021-02-22T19:15:00.123Z", ns(1614021300, 123_000_000)),
        ("2021-02-22T19:15:00.79613221Z", ns(1614021300, 796_132_210)),
        ("2021-02-22T19:15:00.000000001Z", ns(1614021300, 1)),
    ],
)
def test_a_time_may_have_any_number_of_decimals(text: str, event_ns: int) -> None:
    _, [tick] = read("alpaca", QUOTES.replace("2023-04-06T11:54:21.670905508Z", text))
    assert tick["event_ns"] == event_ns


@pytest.mark.parametrize("name", ["alpaca", "alpaca-msgpack"])
def test_what_this_library_has_no_place_for_is_unknown_and_never_a_price(name: str) -> None:
    others = [
        '[{"T":"l","S":"IONM","u":3.24,"d":2.65,"i":"B","t":"2023-04-06T13:34:45.565004401Z","z":"C"}]',
        '[{"T":"s","S":"AAPL","sc":"H","sm":"Trading Halt","rc":"T12","rm":"Trading Halted; For information requested '
        'by NASDAQ","t":"2021-02-22T19:15:00Z","z":"C"}]',
        '[{"T":"i","S":"INAQU","p":9.12,"z":"C","t":"2024-12-13T19:58:09.242138635Z"}]',
    ]
    payloads = [repacked(text) if "msgpack" in name else text for text in others]
    decoder, ticks = read(name, *payloads)
    assert len(ticks) == 0
    assert decoder.stats()["unknown"] == len(others)


def test_a_trade_that_comes_late_does_not_replace_a_newer_one() -> None:
    late = TRADES.replace("26.838562809Z", "25.0Z").replace('"i":75,"x":"Z","p":162.92', '"i":75,"x":"Z","p":1.0')
    decoder, ticks = read("alpaca", late.replace('"F","T","I"', '"F"'))
    assert len(ticks) == 2
    assert decoder.prices["AAPL"]["last"] == 162.92


@pytest.mark.parametrize(
    ("name", "tape", "conditions", "leaves_last"),
    [
        ("alpaca", "A", ["@"], False),
        ("alpaca", "A", ["@", "I"], True),
        ("alpaca", "B", [" ", "B"], True),
        ("alpaca", "B", [" ", "W"], False),
        ("alpaca", "C", ["@", "B"], False),
        ("alpaca", "C", ["@", "W"], True),
        ("alpaca", "C", ["@", "F", "T"], True),
        ("alpaca", "C", [], False),
        ("alpaca-options", None, "S", False),
        ("alpaca-options", None, "D", False),  # late, but in its place
        ("alpaca-options", None, "A", True),
        ("alpaca-options", None, "v", True),
    ],
)
def test_conditions_leave_the_last_price_alone_as_their_tape_has_it(
    name: str, tape: str | None, conditions: object, leaves_last: bool
) -> None:
    trade = {"T": "t", "S": "AAPL", "i": 1, "p": 10.5, "s": 200, "c": conditions, "t": "2024-03-11T13:35:35Z"}
    text = json.dumps([trade if tape is None else {**trade, "z": tape}])
    payloads = {"alpaca": text, "alpaca-msgpack": repacked(text)} if tape else {name: repacked(text)}
    for one, payload in payloads.items():
        decoder, [tick] = read(one, payload)
        assert bool(tick["flags"] & Flag.NOT_LAST) is leaves_last
        assert math.isnan(decoder.prices["AAPL"]["last"]) is leaves_last


def test_corrections_come_with_the_trades_and_move_no_row() -> None:
    trade = TRADES.replace('["@","F","T","I"]', '["@"]')
    gone = CANCELLED.replace("GOOGL", "AAPL").replace("465", "628")
    decoder, ticks = read("alpaca", trade, gone)
    assert list(fastfeed.corrections(ticks)["seq"]) == [628]
    assert [decoder.prices["AAPL"][field] for field in ("last", "last_size", "updates")] == [162.92, 3, 2]


# Words --------------------------------------------------------------------------------------------------------------

DIALECTS = {
    name: (provider(name).dialect, load) for name, load in (("alpaca", json.loads), ("alpaca-msgpack", msgpack.unpackb))
}


@pytest.fixture(params=DIALECTS)
def spoken(request: pytest.FixtureRequest) -> Any:
    """A dialect, and how to write and read what it reads and writes."""
    name = request.param
    dump = (lambda value: json.dumps(value).encode()) if name == "alpaca" else msgpack.packb
    return provider(name), dump, DIALECTS[name][1]


def test_a_request_names_its_symbols_by_channel(spoken: Any) -> None:
    market, _, load = spoken
    text = market.dialect.subscribe(1, ["trades:AAPL", "quotes:AMD", "quotes:CLDR", "bars:*"])
    assert isinstance(text, bytes if "msgpack" in market.name else str)
    wished = {"action": "subscribe", "trades": ["AAPL"], "quotes": ["AMD", "CLDR"], "bars": ["*"]}
    assert load(text) == wished
    assert load(market.dialect.unsubscribe(2, ["bars:*"])) == {"action": "unsubscribe", "bars": ["*"]}


def test_the_login_shows_key_and_secret_in_the_encoding_of_the_connection(spoken: Any) -> None:
    market, _, load = spoken
    [text] = market.auth.login(KEYS)
    assert isinstance(text, bytes if "msgpack" in market.name else str)
    assert load(text) == {"action": "auth", "key": "KEY_ID", "secret": "SECRET"}


@pytest.mark.parametrize(
    ("message", "replies"),
    [
        ({"T": "success", "msg": "connected"}, (Greeting(),)),
        ({"T": "success", "msg": "authenticated"}, (Welcome(),)),
        (
            {"T": "subscription", "trades": ["AAPL"], "quotes": ["AMD", "CLDR"], "bars": ["*"], "updatedBars": [],
             "dailyBars": None, "statuses": [], "lulds": [], "corrections": ["AAPL"], "cancelErrors": ["AAPL"]},
            (Active(frozenset({
                "trades:AAPL", "quotes:AMD", "quotes:CLDR", "bars:*", "corrections:AAPL", "cancelErrors:AAPL",
            })),),
        ),
        (
            {"T": "error", "code": 405, "msg": "symbol limit exceeded"},
            (Refusal(None, "symbol limit exceeded (code 405)"),),
        ),
        ({"T": "error", "code": 403, "msg": "already authenticated"}, (Welcome(),)),
        ({"T": "error"}, (Refusal(None, " (code None)"),)),
        ({"T": "news"}, ()),
        ({}, ()),
    ],
)  # fmt: skip
def test_every_answer_is_read(spoken: Any, message: dict[str, Any], replies: tuple[object, ...]) -> None:
    market, dump, _ = spoken
    assert market.dialect.read(dump([message])) == replies
    assert market.dialect.read(dump(message)) == replies


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        (401, Failure.AUTH),
        (402, Failure.AUTH),
        (404, Failure.UNANSWERED),
        (406, Failure.EVICTED),
        (407, Failure.OVERLOAD),
        (408, Failure.AUTH),
        (409, Failure.AUTH),
        (411, Failure.AUTH),
        (412, Failure.REFUSED),
        (429, Failure.RATE_LIMITED),
        (500, Failure.SERVER_ERROR),
        (400, None),
        (405, None),
        (410, None),
        (413, None),
    ],
)
def test_an_error_ends_the_connection_or_refuses_a_request(spoken: Any, code: int, failure: Failure | None) -> None:
    market, dump, _ = spoken
    said = f"words (code {code})"
    expected = Refusal(None, said) if failure is None else Denial(failure, said)
    assert market.dialect.read(dump([{"T": "error", "code": code, "msg": "words"}])) == (expected,)


@pytest.mark.parametrize("text", ["connected", "406"])
def test_the_golden_control_frames_of_messagepack_are_control_and_read(text: str) -> None:
    frames = {
        "connected": ("9182a154a773756363657373a36d7367a9636f6e6e6563746564", Greeting()),
        "406": (
            "9183a154a56572726f72a4636f6465cd0196a36d7367b9636f6e6e656374696f6e206c696d6974206578636565646564",
            Denial(Failure.EVICTED, "connection limit exceeded (code 406)"),
        ),
    }
    payload, reply = bytes.fromhex(frames[text][0]), frames[text][1]
    assert read("alpaca-msgpack", payload)[0].stats()["control"] == 1
    assert provider("alpaca-msgpack").dialect.read(payload) == (reply,)


def test_nonsense_is_no_reply(spoken: Any) -> None:
    market, dump, _ = spoken
    dice = random.Random(1)
    good = dump([{"T": "error", "code": 406, "msg": "connection limit exceeded"}])
    for payload in (b"", b"[1]", b"7", b"\xc1", good[:-1], good + good, dump([[{"T": "error"}], 7, None])):
        assert market.dialect.read(payload) == ()
    for _ in range(2000):
        spoiled = bytearray(good)
        spoiled[dice.randrange(len(spoiled))] = dice.randrange(256)
        assert isinstance(market.dialect.read(bytes(spoiled)), tuple)


def test_the_encoding_is_asked_for_in_the_handshake() -> None:
    assert provider("alpaca").headers == {"Content-Type": "application/json"}
    assert provider("alpaca-crypto-msgpack").headers == {"Content-Type": "application/msgpack"}
    assert provider("alpaca-options").headers == {"Content-Type": "application/msgpack"}


def test_not_all_quotes_of_options_can_be_asked_for_at_once() -> None:
    options = provider("alpaca-options")
    assert options.topic(options.subscription(Subscription("*", "trade"))) == "trades:*"
    with pytest.raises(ConfigError, match="no stream of all symbols"):
        options.subscription(Subscription("*", "quote"))


# A feed against the lab ---------------------------------------------------------------------------------------------


def feed_of(stage: Stage, name: str | fastfeed.Provider = "alpaca", **options: Any) -> Feed:
    options = {"symbols": stage.symbols, "channels": ["quote", "trade"], "backoff": SWIFT, **options}
    return Feed(name, url=stage.url, credentials=KEYS, **options)


async def collect(feed: Feed, stage: Stage, count: int, **play: Any) -> tuple[list[Event], list[Any]]:
    """Let so many events happen and read as many ticks."""
    found: list[Any] = []
    async with feed.ticks() as stream, asyncio.timeout(DEADLINE):
        happened = await stage.plays(count, **play)
        async for ticks in stream:
            found += list(ticks)
            if len(found) >= count:
                return happened, found
    raise AssertionError("the stream ended")


def same(feed: Feed, event: Event, tick: Any) -> None:
    assert feed.prices.symbols[tick["symbol_id"]] == event.symbol
    assert tick["event_ns"] == event.utc_ns
    if event.kind == QUOTE:
        seen = [tick[name] for name in ("bid", "bid_size", "ask", "ask_size")]
        assert seen == [event.bid, event.bid_size, event.ask, event.ask_size]
    else:
        assert [tick["price"], tick["size"], tick["seq"]] == [event.price, event.size, event.number]


@pytest.mark.parametrize("name", ["alpaca", "alpaca-msgpack"])
async def test_a_feed_reads_what_the_market_did_in_either_encoding(name: str) -> None:
    async with Stage("alpaca", keys=KEYS) as stage, feed_of(stage, name) as feed:
        happened, ticks = await collect(feed, stage, 300)
        for event, tick in zip(happened, ticks, strict=True):
            same(feed, event, tick)
        stats = feed.stats()
        assert [stats["unknown"], stats["malformed"]] == [0, 0]
        assert all(isinstance(message, bytes if "msgpack" in name else str) for message in stage.heard)
        others = stage.symbols[1:]
        feed.unsubscribe(others)
        await until(lambda: stage.subscribed == {(QUOTE, stage.symbols[0]), (TRADE, stage.symbols[0])}, "leaving")


@pytest.mark.parametrize("name", ["alpaca", "alpaca-msgpack"])
async def test_a_key_in_the_headers_needs_no_login(name: str) -> None:
    market = dataclasses.replace(provider(name), auth=alpaca.HEADERS)
    async with Stage("alpaca", keys=KEYS) as stage, feed_of(stage, market) as feed:
        happened, ticks = await collect(feed, stage, 20)
        same(feed, happened[-1], ticks[-1])
        assert not [message for message in stage.heard if b"SECRET" in str(message).encode()]


async def test_options_come_as_messagepack() -> None:
    async with Stage("alpaca-options", keys=KEYS) as stage, feed_of(stage, "alpaca-options") as feed:
        happened, ticks = await collect(feed, stage, 50, kind=QUOTE)
        for event, tick in zip(happened, ticks, strict=True):
            same(feed, event, tick)


@pytest.mark.parametrize("name", ["alpaca-crypto", "alpaca-crypto-msgpack"])
async def test_crypto_has_ids_beyond_two_to_the_53_and_a_book(name: str) -> None:
    async with (
        Stage("alpaca-crypto", keys=KEYS) as stage,
        feed_of(stage, name, channels=["trade", "depth"]) as feed,
    ):
        [event], [tick] = await collect(feed, stage, 1, kind=TRADE)
        assert tick["seq"] == 3_447_222_699_101_865_000 + event.number
        assert bool(tick["flags"] & Flag.SELL) is event.sells
        [event], levels = await collect(feed, stage, 1, kind=DEPTH, symbol="BTC/USD")
        assert [int(one["flags"]) & SNAPSHOT for one in levels] == [SNAPSHOT] * 4
        [event], levels = await collect(feed, stage, 1, kind=DEPTH, symbol="BTC/USD")
        assert [(one["price"], one["size"], int(one["flags"])) for one in levels] == [
            (event.bid, event.bid_size, 0),
            (event.ask, 0.0, SELL | LAST),
        ]


@pytest.mark.parametrize("auth", ["message", "headers"])
async def test_a_wrong_key_is_shown_once(auth: str) -> None:
    market = provider("alpaca")
    if auth == "headers":
        market = dataclasses.replace(market, auth=alpaca.HEADERS)
    async with Stage("alpaca", keys={**KEYS, "api_secret": "another"}) as stage:
        with pytest.raises((AuthError, GaveUp), match=r"auth failed \(code 402\)"):
            async with feed_of(stage, market):
                pass
        assert stage.dials == 1


async def test_a_connection_that_does_not_log_in_is_told_so_and_ended() -> None:
    class Hasty(AlpacaDesk):
        login_within = 0.05

    mute = dataclasses.replace(provider("alpaca"), auth=alpaca.HEADERS)
    mute = dataclasses.replace(mute, auth=dataclasses.replace(alpaca.HEADERS, headers={}))
    async with Stage(Hasty, symbols=["AAPL"], keys=KEYS, beat_every=0.01) as stage:
        feed = feed_of(stage, mute, connect_timeout=0.5)
        news = feed.events()
        with pytest.raises(fastfeed.ConnectError):
            async with feed:
                pass
        causes = [event.cause async for event in news if isinstance(event, events.Disconnected)]
        assert causes[0] == "auth timeout (code 404)"


async def test_a_second_connection_is_turned_away_and_waits_its_turn() -> None:
    async with Stage("alpaca", keys=KEYS) as stage, feed_of(stage) as first:
        second = feed_of(stage, connect_timeout=0.5)
        news = second.events()
        with pytest.raises(fastfeed.ConnectError):
            async with second:
                pass
        told = [event async for event in news]
        [reconnecting] = [event for event in told if isinstance(event, events.Reconnecting)]
        assert reconnecting.delay >= 90.0
        assert "connection limit exceeded (code 406)" in reconnecting.cause
        assert stage.dials == 2
        happened, ticks = await collect(first, stage, 5)
        same(first, happened[-1], ticks[-1])


async def test_a_place_that_becomes_free_is_taken_after_the_cool_down() -> None:
    market = provider("alpaca")
    market = dataclasses.replace(market, limits=dataclasses.replace(market.limits, eviction_cool_down=0.2))
    async with Stage("alpaca", keys=KEYS) as stage:
        first = feed_of(stage)
        await first.__aenter__()
        async with asyncio.TaskGroup() as tasks:
            second = feed_of(stage, market)
            entering = tasks.create_task(second.__aenter__())
            await until(lambda: stage.dials >= 2, "the second dial")
            await first.close()
            await entering
        happened, ticks = await collect(second, stage, 5)
        same(second, happened[-1], ticks[-1])
        await second.close()


async def test_a_lost_connection_is_dialled_again_and_asks_for_everything() -> None:
    async with Stage("alpaca", keys=KEYS, lingers=0.0) as stage, feed_of(stage) as feed:
        await collect(feed, stage, 20)
        before = stage.dials
        stage.cuts()
        await until(lambda: stage.dials > before and len(stage.subscribed) == 2 * len(stage.symbols), "a redial")
        happened, ticks = await collect(feed, stage, 20)
        for event, tick in zip(happened, ticks, strict=True):
            same(feed, event, tick)


async def test_symbols_beyond_the_limit_are_rejected_and_the_others_served() -> None:
    symbols = [f"S{number}" for number in range(40)]
    symbols = [symbol.translate(str.maketrans("0123456789", "ABCDEFGHIJ")) for symbol in symbols]
    async with Stage("alpaca", symbols=symbols, keys=KEYS) as stage:
        feed = feed_of(stage, "alpaca-iex", channels=["quote"])
        news = feed.events()
        async with feed:
            assert len(stage.subscribed) == 30
        rejected = [event async for event in news if isinstance(event, events.Rejected)]
        assert len(rejected) == 10
        assert {event.reason for event in rejected} == {"symbol limit exceeded (code 405)"}


async def test_many_symbols_are_asked_for_in_messages_of_at_most_16_kilobytes() -> None:
    letters = "ABCDEFGHIJ"
    symbols = ["".join(letters[int(digit)] for digit in f"{number:04d}") for number in range(4000)]
    async with (
        Stage("alpaca", symbols=symbols, keys=KEYS) as stage,
        feed_of(stage, channels=["quote"], max_symbols=5000),
    ):
        assert len(stage.subscribed) == 4000
        assert max(len(message) for message in stage.heard) <= 16_000
        assert len(stage.heard) >= 3


async def test_what_a_full_ack_leaves_out_is_asked_for_again() -> None:
    class Forgetful(AlpacaDesk):
        def hear(self, message: Any) -> list[Any]:
            replies = super().hear(message)
            if len(self.stage.heard) == 2:  # the first request: half of it is lost
                self._unsubscribe({"quotes": ["MSFT"]})
                return [self._said([self._active()])]
            return replies

    async with (
        Stage(Forgetful, symbols=["AAPL", "MSFT"], keys=KEYS) as stage,
        feed_of(stage, channels=["quote"]),
    ):
        assert stage.subscribed == {(QUOTE, "AAPL"), (QUOTE, "MSFT")}
        assert json.loads(stage.heard[2]) == {"action": "subscribe", "quotes": ["MSFT"]}


async def test_a_slow_client_is_an_overload() -> None:
    async with Stage("alpaca", keys=KEYS) as stage:
        feed = feed_of(stage)
        news = feed.events()
        async with feed:
            await stage.finds_slow()
            async with asyncio.timeout(DEADLINE):
                async for event in news:
                    if isinstance(event, events.Disconnected):
                        break
            assert event.cause == "slow client (code 407)"
            await until(lambda: stage.dials == 2, "a redial")


async def test_a_whole_market_is_one_word() -> None:
    async with (
        Stage("alpaca", keys=KEYS) as stage,
        feed_of(stage, symbols=["*"], channels=["trade"], max_symbols=100) as feed,
    ):
        assert json.loads(stage.heard[-1]) == {"action": "subscribe", "trades": ["*"]}
        happened, ticks = await collect(feed, stage, 30, kind=TRADE)
        for event, tick in zip(happened, ticks, strict=True):
            same(feed, event, tick)


@pytest.mark.parametrize("name", ["alpaca", "alpaca-iex-msgpack"])
@pytest.mark.parametrize("kind", [TRADE, QUOTE])
async def test_a_last_value_can_be_fetched(name: str, kind: str) -> None:
    async with Stage("alpaca", keys=KEYS) as stage, feed_of(stage, name) as feed:
        [before], _ = await collect(feed, stage, 1, kind=kind, symbol="AAPL")
        stage.falls_silent()
        await until(lambda: stage.utc_ns() > before.utc_ns + 1_000_000, "a later time")
        [event] = await stage.plays(1, kind=kind, symbol="AAPL")
        feed.refresh(["AAPL"], channels=[kind])
        await until(lambda: feed.prices["AAPL"][f"{kind}_event_ns"] == event.utc_ns, "the last value")
        row = feed.prices["AAPL"]
        if kind == TRADE:
            assert [row["last"], row["last_size"], row["trade_seq"]] == [event.price, event.size, event.number]
        else:
            assert [row["bid"], row["bid_size"], row["ask"]] == [event.bid, event.bid_size, event.ask]
        [asked] = stage.asked
        source = "sip" if name == "alpaca" else "iex"
        assert (asked.path, asked.query) == (f"/v2/stocks/AAPL/{kind}s/latest", {"feed": source})
        assert asked.headers["apca-api-key-id"] == "KEY_ID"
