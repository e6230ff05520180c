"""The providers that come with fastfeed, as data: names, topics, requests, answers, every documented message decoded.

The message texts are the documented samples (values sometimes shortened). No network.
"""

import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import fastfeed
from fastfeed import Flag, Kind, Subscription
from fastfeed.dialect import Ack, Notice, Refusal
from fastfeed.errors import ConfigError
from fastfeed.failures import Failure
from fastfeed.providers import Auth, Channel, Evidence, Provider, names, provider
from fastfeed.providers.matrix import matrix
from fastfeed.retries import Retries
from fastfeed.subscriptions import ALL

SPOT = provider("binance-spot")
USDM = provider("binance-usdm")
COINM = provider("binance-coinm")
MARKETS = [SPOT, USDM, COINM]


def wrapped(stream: str, message: str) -> bytes:
    return f'{{"stream":"{stream}","data":{message}}}'.encode()


# Looking up ---------------------------------------------------------------------------------------------------------


def test_an_unknown_provider_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'nope'.*'binance'.*'binance-usdm'"):
        provider("nope")


@pytest.mark.parametrize("name", names())
def test_every_name_leads_to_a_provider(name: str) -> None:
    found = provider(name)
    assert found.name in names()
    assert provider(found) is found


def test_binance_is_the_spot_market() -> None:
    assert provider("binance") is SPOT


@pytest.mark.parametrize("market", MARKETS, ids=lambda market: market.name)
def test_every_channel_is_one_the_schema_speaks_of(market: Provider) -> None:
    assert set(market.channels) <= set(market.schema.channels)
    assert set(market.aliases.values()) <= set(market.channels)


# Wishes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("market", "wish", "path", "topic"),
    [
        (SPOT, Subscription("BTCUSDT", "quote"), "/stream", "btcusdt@bookTicker"),
        (SPOT, Subscription("btcusdt", "trade"), "/stream", "btcusdt@trade"),
        (SPOT, Subscription("BTCUSDT", "agg_trade"), "/stream", "btcusdt@aggTrade"),
        (SPOT, Subscription("BTCUSDT", "depth"), "/stream", "btcusdt@depth@100ms"),
        (SPOT, Subscription("BTCUSDT", "depth", speed="1000ms"), "/stream", "btcusdt@depth"),
        (SPOT, Subscription("BTCUSDT", "depth", levels=20), "/stream", "btcusdt@depth20@100ms"),
        (SPOT, Subscription("币安人生USDT", "quote"), "/stream", "币安人生usdt@bookTicker"),
        (USDM, Subscription("BTCUSDT", "quote"), "/public/stream", "btcusdt@bookTicker"),
        (USDM, Subscription("BTCUSDT", "trade"), "/market/stream", "btcusdt@aggTrade"),
        (USDM, Subscription("BTCUSDT", "agg_trade"), "/market/stream", "btcusdt@aggTrade"),
        (USDM, Subscription("BTCUSDT", "raw_trade"), "/public/stream", "btcusdt@trade"),
        (USDM, Subscription("BTCUSDT", "mark"), "/market/stream", "btcusdt@markPrice@1s"),
        (USDM, Subscription("BTCUSDT", "mark", speed="3s"), "/market/stream", "btcusdt@markPrice"),
        (USDM, Subscription("BTCUSDT", "depth"), "/public/stream", "btcusdt@depth@100ms"),
        (USDM, Subscription("BTCUSDT", "depth", speed="250ms"), "/public/stream", "btcusdt@depth"),
        (USDM, Subscription("BTCUSDT_250926", "quote"), "/public/stream", "btcusdt_250926@bookTicker"),
        (COINM, Subscription("BTCUSD_PERP", "quote"), "/stream", "btcusd_perp@bookTicker"),
    ],
)
def test_a_wish_becomes_the_stream_on_the_path_that_carries_it(
    market: Provider, wish: Subscription, path: str, topic: str
) -> None:
    subscription = market.subscription(wish)
    assert market.topic(subscription) == topic
    assert market.channels[subscription.channel].path == path
    assert subscription.symbol == wish.symbol.upper()


def test_spelling_and_defaults_make_no_second_subscription() -> None:
    assert USDM.subscription(Subscription("btcusdt", "agg_trade")) == Subscription("BTCUSDT", "trade")
    default = Subscription("BTCUSDT", "depth", speed="100ms")
    assert USDM.subscription(default) == Subscription("BTCUSDT", "depth")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Subscription("BTC-USDT", "quote"), r"'BTC-USDT'.*BTCUSDT"),
        (Subscription("BTC/USDT", "quote"), r"'BTC/USDT'"),
        (Subscription("", "quote"), r"no symbol ''"),
        (Subscription("btcusdt@depth", "quote"), r"no symbol"),
        (Subscription("BTCUSDT", "nope"), r"no channel 'nope'.*'quote'.*'agg_trade'"),
        (Subscription("BTCUSDT", "depth", levels=7), r"levels=7 must be one of None, 5, 10, 20"),
        (Subscription("BTCUSDT", "depth", deep=1), r"no parameter 'deep'; it has 'levels', 'speed'"),
        (Subscription("BTCUSDT", "quote", levels=5), r"no parameter 'levels'; it has none"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_with_what_can(wish: Subscription, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SPOT.subscription(wish)


def test_a_provider_of_ones_own_needs_no_more_than_its_data() -> None:
    mine = Provider(
        name="mine",
        url="wss://mine.example",
        channels={"quote": Channel(topic="q:{symbol}", path="/feed")},
        schema=fastfeed.Schema(fastfeed.Message("quote", symbol="s", bid="b", ask="a")),
        dialect=SPOT.dialect,
        auth=Auth(env={"api_key": "MINE_KEY"}, headers={"X-Key": "{api_key}"}),
    )
    assert mine.topic(mine.subscription(Subscription("eur/usd", "quote"))) == "q:eur/usd"


# Requests and answers -----------------------------------------------------------------------------------------------


def test_a_request_carries_all_topics_and_its_id() -> None:
    assert json.loads(SPOT.dialect.subscribe(7, ["a@trade", "b@trade"])) == {
        "method": "SUBSCRIBE",
        "params": ["a@trade", "b@trade"],
        "id": 7,
    }
    assert json.loads(SPOT.dialect.unsubscribe(8, ["a@trade"]))["method"] == "UNSUBSCRIBE"


@pytest.mark.parametrize(
    ("payload", "replies"),
    [
        (b'{"result":null,"id":1}', (Ack(1),)),
        (b'{"result":["btcusdt@aggTrade"],"id":3}', (Ack(3),)),
        (b'{"code":0,"msg":"Unknown property","id":1}', (Refusal(1, "Unknown property (code 0)"),)),
        (
            b'{"code":2,"msg":"Invalid request: too many parameters"}',
            (Refusal(None, "Invalid request: too many parameters (code 2)"),),
        ),
        (
            b'{"error":{"code":4,"msg":"Too many subscriptions"},"id":19}',
            (Refusal(19, "Too many subscriptions (code 4)"),),
        ),
        (b'{"e":"serverShutdown","E":1770123456789}', (Notice("the server announces its shutdown"),)),
        (
            b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
            (Notice("the server announces its shutdown"),),
        ),
        (b'{"result":null,"id":null}', ()),
        (b'{"result":null,"id":"text"}', ()),
        (b'{"error":7,"id":1}', ()),
        (b"{}", ()),
        (b"[]", ()),
        (b"[1]", ()),
        (b"7", ()),
        (b"", ()),
        (b"\xff", ()),
    ],
)
def test_every_answer_is_read_and_nonsense_is_none(payload: bytes, replies: tuple[object, ...]) -> None:
    assert SPOT.dialect.read(payload) == replies


@pytest.mark.parametrize("market", MARKETS, ids=lambda market: market.name)
@pytest.mark.parametrize(
    "payload",
    [
        b'{"result":null,"id":1}',
        b'{"code":2,"msg":"Invalid request"}',
        b'{"error":{"code":4,"msg":"Too many subscriptions"},"id":19}',
        b'{"e":"serverShutdown","E":1770123456789}',
        b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
    ],
)
def test_answers_are_control_and_never_data(market: Provider, payload: bytes) -> None:
    decoder = fastfeed.Decoder(market)
    assert decoder.decode(payload) == 0
    assert decoder.stats()["control"] == 1


# Messages -----------------------------------------------------------------------------------------------------------

SPOT_QUOTE = '{"u":400900217,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000","a":"25.36520000","A":"40.66000000"}'
USDM_QUOTE = (
    '{"e":"bookTicker","u":400900217,"E":1568014460893,"T":1568014460891,"s":"BNBUSDT","b":"25.35190000",'
    '"B":"31.21000000","a":"25.36520000","A":"40.66000000","st":1,"ps":"BNBUSDT"}'
)
SPOT_TRADE = (
    '{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782130,"m":true,"M":true}'
)
AGG_TRADE = (
    '{"e":"aggTrade","E":1767225600136,"s":"BTCUSDT","a":5933014,"p":"87654.30","q":"0.120","nq":"0.100","f":100,'
    '"l":105,"T":1767225600120,"m":false,"st":1}'
)
MARK = (
    '{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15000000","ap":"11793.90000000",'
    '"i":"11784.62659091","P":"11784.25641265","r":"0.00038167","T":1562306400000,"st":1}'
)
SPOT_DEPTH = (
    '{"e":"depthUpdate","E":1672515782136,"s":"BNBBTC","U":157,"u":160,"b":[["0.0024","10"]],"a":[["0.0026","100"]]}'
)
USDM_DEPTH = (
    '{"e":"depthUpdate","E":123456789,"T":123456788,"s":"BTCUSDT","ps":"BTCUSDT","st":1,"U":157,"u":160,"pu":149,'
    '"b":[["0.0024","10"]],"a":[["0.0026","100"]]}'
)


def decoded(market: Provider, *payloads: bytes) -> tuple[fastfeed.Decoder, np.ndarray]:
    decoder = fastfeed.Decoder(market)
    reader = decoder.ring.reader()
    for payload in payloads:
        decoder.decode(payload, recv_ns=1_700_000_000_000_000_000)
    return decoder, reader.read()


@pytest.mark.parametrize("combined", [False, True], ids=["bare", "combined"])
@pytest.mark.parametrize(
    ("market", "message", "event_ns"),
    [(SPOT, SPOT_QUOTE, None), (USDM, USDM_QUOTE, 1568014460891_000_000), (COINM, USDM_QUOTE, 1568014460891_000_000)],
)
def test_a_quote(market: Provider, message: str, event_ns: int | None, combined: bool) -> None:
    payload = wrapped("bnbusdt@bookTicker", message) if combined else message.encode()
    decoder, [tick] = decoded(market, payload)
    assert tick["kind"] == Kind.QUOTE
    assert [tick[name] for name in ("bid", "bid_size", "ask", "ask_size")] == [25.3519, 31.21, 25.3652, 40.66]
    assert tick["seq"] == 400900217
    if event_ns is not None:
        assert tick["event_ns"] == event_ns
    assert decoder.prices["BNBUSDT"]["bid"] == 25.3519
    assert not math.isnan(decoder.prices.ages("quote")[0])


@pytest.mark.parametrize("combined", [False, True], ids=["bare", "combined"])
@pytest.mark.parametrize(
    ("market", "message", "channel", "seq", "price", "sold"),
    [
        (SPOT, SPOT_TRADE, "trade", 12345, 0.001, True),
        (SPOT, AGG_TRADE, "agg_trade", 5933014, 87654.3, False),
        (USDM, AGG_TRADE, "trade", 5933014, 87654.3, False),
        (USDM, SPOT_TRADE, "raw_trade", 12345, 0.001, True),
    ],
)
def test_a_trade(
    market: Provider, message: str, channel: str, seq: int, price: float, sold: bool, combined: bool
) -> None:
    payload = wrapped("x@trade", message) if combined else message.encode()
    decoder, [tick] = decoded(market, payload)
    assert tick["kind"] == Kind.TRADE
    assert (tick["seq"], tick["price"]) == (seq, price)
    assert bool(tick["flags"] & Flag.SELL) is sold
    assert tick["event_ns"] == json.loads(message)["T"] * 1_000_000
    assert not math.isnan(decoder.prices.ages(channel)[0])


@pytest.mark.parametrize("combined", [False, True], ids=["bare", "combined"])
def test_a_mark_price_alone_and_in_an_array(combined: bool) -> None:
    other = MARK.replace("BTCUSDT", "ETHUSDT_250926").replace('"0.00038167"', '""')
    message = f"[{MARK},{other}]"
    payload = wrapped("!markPrice@arr", message) if combined else message.encode()
    decoder, ticks = decoded(USDM, payload)
    assert list(ticks["kind"]) == [Kind.MARK, Kind.MARK]
    assert list(ticks["price"]) == [11794.15, 11794.15]
    assert list(ticks["index"]) == [11784.62659091, 11784.62659091]
    assert ticks["funding"][0] == 0.00038167
    assert math.isnan(ticks["funding"][1]), "an empty text is no funding rate"
    assert ticks["event_ns"][0] == 1562305380000_000_000
    assert decoder.prices.symbols[1] == "ETHUSDT_250926"


@pytest.mark.parametrize("combined", [False, True], ids=["bare", "combined"])
@pytest.mark.parametrize(("market", "message"), [(SPOT, SPOT_DEPTH), (USDM, USDM_DEPTH)])
def test_a_depth_update(market: Provider, message: str, combined: bool) -> None:
    payload = wrapped("x@depth@100ms", message) if combined else message.encode()
    _, ticks = decoded(market, payload)
    assert list(ticks["kind"]) == [Kind.LEVEL, Kind.LEVEL]
    assert list(ticks["price"]) == [0.0024, 0.0026]
    assert list(ticks["flags"]) == [0, Flag.SELL | Flag.LAST_LEVEL]


def test_partial_depth_of_the_spot_market_has_its_symbol_from_the_stream() -> None:
    message = '{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}'
    decoder, ticks = decoded(SPOT, wrapped("bnbbtc@depth5@100ms", message))
    assert list(decoder.prices.symbols) == ["BNBBTC"]
    assert list(ticks["price"]) == [0.0024, 0.0026]
    assert all(flag & Flag.SNAPSHOT for flag in ticks["flags"])


def test_spot_depth_is_linked_by_the_next_number_and_futures_depth_by_the_previous() -> None:
    def spot(first: int, last: int) -> bytes:
        return SPOT_DEPTH.replace('"U":157,"u":160', f'"U":{first},"u":{last}').encode()

    def usdm(previous: int, last: int) -> bytes:
        text = USDM_DEPTH.replace('"U":157,"u":160,"pu":149', f'"U":{last - 3},"u":{last},"pu":{previous}')
        return text.encode()

    decoder, _ = decoded(SPOT, spot(157, 160), spot(161, 161), spot(165, 170))
    [gap] = decoder.gaps()
    assert (gap.symbol, gap.stream, gap.first, gap.last) == ("BNBBTC", "depth", 162, 164)
    decoder, _ = decoded(USDM, usdm(149, 160), usdm(160, 200), usdm(200, 220))
    assert list(decoder.gaps()) == []
    decoder, _ = decoded(USDM, usdm(149, 160), usdm(200, 220))
    assert len(decoder.gaps()) == 1


@pytest.mark.parametrize(("market", "message"), [(SPOT, SPOT_TRADE), (USDM, AGG_TRADE)])
def test_trade_ids_rise_by_one(market: Provider, message: str) -> None:
    key = "t" if '"t":' in message else "a"
    seq = json.loads(message)[key]

    def trade(number: int) -> bytes:
        return message.replace(f'"{key}":{seq}', f'"{key}":{number}').encode()

    decoder, _ = decoded(market, trade(10), trade(11), trade(14))
    [gap] = decoder.gaps()
    assert (gap.first, gap.last) == (12, 13)


def test_book_ticker_ids_only_rise() -> None:
    decoder, _ = decoded(USDM, *(USDM_QUOTE.replace("400900217", str(u)).encode() for u in (5, 9, 100)))
    assert decoder.stats()["gaps"] == 0


@pytest.mark.parametrize("stream", ["24hrTicker", "kline", "forceOrder", "somethingNew"])
def test_other_streams_are_unknown_and_make_no_price(stream: str) -> None:
    payload = f'{{"e":"{stream}","E":1,"s":"BTCUSDT","b":"1","a":"2","B":"3","A":"4","u":5,"p":"6","q":"7"}}'.encode()
    for market in MARKETS:
        decoder, ticks = decoded(market, payload)
        assert len(ticks) == 0
        assert decoder.stats()["unknown"] == 1


# What an account may have -------------------------------------------------------------------------------------------


def test_more_than_an_account_may_have_is_refused_before_any_network() -> None:
    with pytest.raises(ConfigError, match="51 subscriptions need 2 connections, finnhub allows 1 of 50"):
        fastfeed.Feed("finnhub", [f"S{number}" for number in range(51)], channels=["trade"], api_key="k")
    feed = fastfeed.Feed("finnhub", [f"S{number}" for number in range(50)], channels=["trade"], api_key="k")
    with pytest.raises(ConfigError, match="51 subscriptions need 2 connections"):
        feed.subscribe(["ONE_MORE"])
    assert len(feed.subscriptions) == 50


# What a session of CME counts ----------------------------------------------------------------------------------------

CME = provider("cme")


def _cme(kind: str, number: int, payload: object = None) -> str:
    header = {"messageType": kind, "sentTime": "2026-01-05T14:30:00.123456789Z", "version": "1.0"}
    return json.dumps({"header": {**header, "sequenceNumber": str(number)}, "payload": payload})


def _cme_quote(symbol: str) -> dict[str, object]:
    level = {"orderCnt": "12", "price": "70.15", "qty": "34"}
    return {"askLevel": [level], "bidLevel": [{**level, "price": "70.14"}], "instrument": {"symbol": symbol}}


def test_every_message_of_a_cme_session_counts_and_a_payload_of_many_once() -> None:
    decoder, ticks = decoded(
        CME,
        _cme("LOGINSTATUS", 0, {"status": "authenticated"}).encode(),
        _cme("SUBSCRIPTION_STATUS", 1, {"status": "SUBSCRIBED"}).encode(),
        _cme("TOB", 2, [_cme_quote("CLG6"), _cme_quote("CLH6"), _cme_quote("CLG6")]).encode(),
        _cme("HEARTBEAT", 3).encode(),
        _cme("TOB", 4, [_cme_quote("CLG6")]).encode(),
    )
    assert decoder.gaps() == []
    assert list(ticks["flags"]) == [0, 0, 0, 0]
    assert decoder.stats()["duplicates"] == 0


def test_a_hole_in_a_cme_session_is_a_gap_whatever_shows_it() -> None:
    decoder, ticks = decoded(
        CME,
        _cme("TOB", 2, [_cme_quote("CLG6")]).encode(),
        _cme("HEARTBEAT", 5).encode(),
        _cme("TOB", 8, [_cme_quote("CLG6"), _cme_quote("CLG6")]).encode(),
    )
    assert [(gap.stream, gap.symbol, gap.first, gap.last) for gap in decoder.gaps()] == [
        ("", "", 3, 4),
        ("", "", 6, 7),
    ]
    assert list(ticks["flags"]) == [0, Flag.AFTER_GAP, Flag.AFTER_GAP]


def test_a_whole_market_of_tickdb_is_asked_for_as_a_universe_and_comes_in_arrays() -> None:
    market = provider("tickdb")
    wish = market.subscription(Subscription(ALL, "quote", market="HK"))
    topic = market.topic(wish)
    asked = json.loads(market.dialect.subscribe(1, [topic]))
    assert asked == {"cmd": "subscribe", "data": {"universes": ["HK_Stock"], "channels": ["ticker"]}}
    done = {"cmd": "subscribe", "code": 0, "message": "universe subscription successful", "data": asked["data"]}
    assert market.dialect.read(json.dumps(done).encode()) == (Ack(topics=(topic,)),)
    assert market.dialect.group(topic) != market.dialect.group(market.topic(Subscription("700.HK", "quote")))
    assert market.compression
    tickers = [
        {"cmd": "ticker", "data": {"symbol": f"{n}.HK", "last_price": f"{n}.5", "timestamp": 1}} for n in range(500)
    ]
    decoder, ticks = decoded(market, json.dumps(tickers).encode())
    assert len(ticks) == len(decoder.prices) == 500


# What is told of them -----------------------------------------------------------------------------------------------


@pytest.mark.tree
def test_the_page_of_providers_is_what_their_data_says() -> None:
    page = (Path(__file__).parent.parent / "docs" / "providers.md").read_text(encoding="utf-8")
    assert page.endswith(f"\n\n{matrix()}\n"), "write what `fastfeed providers --matrix` prints below the page's text"


@pytest.mark.parametrize("name", names())
def test_of_every_provider_it_is_told_how_it_is_known(name: str) -> None:
    evidence = provider(name).evidence
    assert evidence is not None
    assert evidence.grade
    assert evidence.samples
    assert bool(evidence.checked_by) is not bool(evidence.unchecked)


@pytest.mark.tree
def test_the_clients_named_are_those_that_are_asked() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
    asked = {wanted.partition(">")[0] for wanted in project["project"]["optional-dependencies"]["interop"]}
    named = {client for name in names() for client in provider(name).evidence.checked_by}
    assert named == asked | {"nautilus_trader"}  # which has an environment of its own


def test_evidence_names_clients_or_says_why_there_are_none() -> None:
    with pytest.raises(ConfigError, match="say in unchecked= why none"):
        Evidence(grade="a page", samples="a page")


# What is waited between dials ----------------------------------------------------------------------------------------


def waits(name: str, failure: Failure, count: int) -> list[float | None]:
    """Seconds before each of so many redials in a row, the first after a stable connection; without jitter."""
    found = provider(name)
    retries = Retries(replace(found.backoff, jitter=0.0), cool_down=60.0, random=lambda: 0.5)
    return [retries.wait(failure, None, stable=number == 0) for number in range(count)]


def test_iex_is_redialled_after_1_to_32_seconds_and_given_up_after_ten() -> None:
    assert waits("iex", Failure.TRANSPORT, 11) == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0, 32.0, 32.0, None]


@pytest.mark.parametrize(("name", "first"), [("finnhub", 3.0), ("intrinio", 10.0), ("tickdb", 1.0), ("binance", 0.0)])
def test_where_a_provider_wants_a_pause_the_first_redial_keeps_it_too(name: str, first: float) -> None:
    assert waits(name, Failure.TRANSPORT, 1) == [first]


def test_an_error_of_tickdbs_may_have_a_word_for_a_code() -> None:
    read = provider("tickdb").dialect.read
    said = {"cmd": "subscribe", "code": "AMBIGUOUS_SYMBOL", "message": "name its type"}
    assert read(json.dumps(said).encode()) == (Refusal(None, "name its type (code AMBIGUOUS_SYMBOL)"),)
    assert read(json.dumps({**said, "code": "0"}).encode()) == (Ack(),)


def test_more_symbols_than_one_connection_of_tickdbs_plan_may_have_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="allows 1 of 50 subscriptions"):
        fastfeed.Feed("tickdb", [f"{number}.HK" for number in range(51)], channels=["quote"], api_key="k")
