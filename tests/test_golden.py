"""Every sample message of the providers' documentation, decoded to the values it states; and the traps of their wires.

Where a sample is not the provider's own it is said: "observed" (somebody's log), "client" (the code or the recorded
data of an independent client), "made" (from the documented table of fields). No network.
"""

import json
import math
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import fastfeed
from fastfeed import Flag, Kind
from fastfeed.dialect import Ack, Beat, Denial, Greeting, PingAsked, PongSaid, Refusal, Welcome
from fastfeed.failures import Failure
from fastfeed.providers import provider

NAN = math.nan
MS = 1_000_000


@dataclass(frozen=True)
class Golden:
    """A message of `provider` and what it says: per tick kind, symbol, values, event time (ns; None: none), and seq."""

    provider: str
    text: str
    ticks: list[tuple[Any, ...]]
    flags: list[int] = field(default_factory=list)
    channel: str | None = None

    def __str__(self) -> str:
        return f"{self.provider}: {self.text[:60]}"


def quote(symbol: str, values: tuple[float, ...], event_ns: int | None, seq: int = 0) -> tuple[Any, ...]:
    return Kind.QUOTE, symbol, values, event_ns, seq


def trade(symbol: str, price: float, size: float, event_ns: int | None, seq: int = 0) -> tuple[Any, ...]:
    return Kind.TRADE, symbol, (price, size, NAN, NAN), event_ns, seq


def mark(symbol: str, price: float, event_ns: int) -> tuple[Any, ...]:
    return Kind.MARK, symbol, (price, NAN, NAN, NAN), event_ns, 0


def level(symbol: str, price: float, size: float, event_ns: int | None, seq: int = 0) -> tuple[Any, ...]:
    return Kind.LEVEL, symbol, (price, size, NAN, NAN), event_ns, seq


def bar(symbol: str, prices: tuple[float, ...], volume: tuple[float, ...], start_ms: int) -> list[tuple[Any, ...]]:
    """`prices` open, high, low, close; `volume` volume and vwap."""
    head = (Kind.BAR, symbol, prices, start_ms * MS, 0)
    return [head, (Kind.BAR_VOLUME, symbol, (*volume, NAN, float(start_ms)), start_ms * MS, 0)]


SELL, SNAPSHOT, LAST = int(Flag.SELL), int(Flag.SNAPSHOT), int(Flag.LAST_LEVEL)

POLYGON = [
    Golden(
        "polygon",
        '[{"ev":"T","sym":"AAPL","i":"5096","x":10,"p":161.87,"s":300,"c":[14,41],"t":1651684192462,"q":4009402,"z":3}]',
        [trade("AAPL", 161.87, 300.0, 1651684192462 * MS, 4009402)],
    ),
    Golden(
        "polygon",
        '[{"ev":"T","sym":"AMZN","i":"72815","x":12,"p":161.87,"s":1,"c":[14,37,41],"t":1651684192536,"q":4009408,'
        '"z":3},{"ev":"T","sym":"AMZN","i":"799","x":4,"p":161.87,"s":100,"t":1651684192717,"q":4009434,"z":3}]',
        [
            trade("AMZN", 161.87, 1.0, 1651684192536 * MS, 4009408),
            trade("AMZN", 161.87, 100.0, 1651684192717 * MS, 4009434),
        ],
    ),
    Golden(
        "polygon",
        '[{"ev":"Q","sym":"MSFT","bx":4,"bp":114.125,"bs":100,"ax":7,"ap":114.128,"as":160,"c":0,"i":[604],'
        '"t":1536036818784,"q":50385480,"z":3}]',
        [quote("MSFT", (114.125, 100.0, 114.128, 160.0), 1536036818784 * MS, 50385480)],
    ),
    Golden(
        "polygon",
        '[{"ev":"AM","sym":"GTE","v":4110,"av":9470157,"op":0.4372,"vw":0.4488,"o":0.4488,"c":0.4486,"h":0.4489,'
        '"l":0.4486,"a":0.4352,"z":685,"s":1610144640000,"e":1610144700000}]',
        bar("GTE", (0.4488, 0.4489, 0.4486, 0.4486), (4110.0, 0.4488), 1610144640000),
        channel="bar",
    ),
    Golden(
        "polygon",
        '[{"ev":"A","sym":"SPCE","v":200,"av":8642007,"op":25.66,"vw":25.3981,"o":25.39,"c":25.39,"h":25.39,"l":25.39,'
        '"a":25.3714,"z":50,"s":1610144868000,"e":1610144869000}]',
        bar("SPCE", (25.39, 25.39, 25.39, 25.39), (200.0, 25.3981), 1610144868000),
        channel="second_bar",
    ),
    # 13 digits, although the documentation says nanoseconds; and 19.
    Golden(
        "polygon",
        '[{"ev":"FMV","fmv":189.22,"sym":"AAPL","t":1678220098130}]',
        [mark("AAPL", 189.22, 1678220098130 * MS)],
        channel="fair_value",
    ),
    Golden(
        "polygon-options",
        '[{"ev":"FMV","fmv":7.2,"sym":"O:TSLA210903C00700000","t":1401715883806000000}]',
        [mark("O:TSLA210903C00700000", 7.2, 1401715883806000000)],
        channel="fair_value",
    ),
    Golden(
        "polygon-options",
        '[{"ev":"T","sym":"O:AMC210827C00037000","x":65,"p":1.54,"s":1,"c":[233],"t":1629820676333,"q":651921857}]',
        [trade("O:AMC210827C00037000", 1.54, 1.0, 1629820676333 * MS, 651921857)],
    ),
    Golden(
        "polygon-options",
        '[{"ev":"Q","sym":"O:SPY241220P00720000","bx":302,"ax":302,"bp":9.71,"ap":9.81,"bs":17,"as":24,'
        '"t":1644506128351,"q":844090872}]',
        [quote("O:SPY241220P00720000", (9.71, 17.0, 9.81, 24.0), 1644506128351 * MS, 844090872)],
    ),
    # No sizes; the exchange is text here.
    Golden(
        "polygon-forex",
        '[{"ev":"C","p":"USD/CNH","x":"44","a":6.83366,"b":6.83363,"t":1536036818784}]',
        [quote("USD/CNH", (6.83363, NAN, 6.83366, NAN), 1536036818784 * MS)],
    ),
    Golden(
        "polygon-forex",
        '[{"ev":"CA","pair":"USD/EUR","o":0.8687,"c":0.86889,"h":0.86889,"l":0.8686,"v":20,"s":1539145740000}]',
        bar("USD/EUR", (0.8687, 0.86889, 0.8686, 0.86889), (20.0, NAN), 1539145740000),
        channel="bar",
    ),
    Golden(
        "polygon-crypto",
        '[{"ev":"XT","pair":"BTC-USD","p":33021.9,"t":1610462007425,"s":0.01616617,"c":[2],"i":14272084,"x":3,'
        '"r":1610462007576}]',
        [trade("BTC-USD", 33021.9, 0.01616617, 1610462007425 * MS)],
        [0],
    ),
    Golden(
        "polygon-crypto",
        '[{"ev":"XQ","pair":"BTC-USD","bp":33052.79,"bs":0.48,"ap":33073.19,"as":0.601,"t":1610462411115,"x":1,'
        '"r":1610462411128}]',
        [quote("BTC-USD", (33052.79, 0.48, 33073.19, 0.601), 1610462411115 * MS)],
    ),
    Golden(
        "polygon-crypto",
        '[{"ev":"XL2","pair":"BTC-USD","t":1610462411115,"r":1610462411128,"x":1,"b":[[33712.71,0.18635],'
        '[33712.7,0.134]],"a":[[33718.23,3.5527483],[33718.24,0.1]]}]',
        [
            level("BTC-USD", 33712.71, 0.18635, 1610462411115 * MS),
            level("BTC-USD", 33712.7, 0.134, 1610462411115 * MS),
            level("BTC-USD", 33718.23, 3.5527483, 1610462411115 * MS),
            level("BTC-USD", 33718.24, 0.1, 1610462411115 * MS),
        ],
        [SNAPSHOT, SNAPSHOT, SNAPSHOT | SELL, SNAPSHOT | SELL | LAST],
    ),
    Golden(
        "polygon-crypto",
        '[{"ev":"XA","pair":"BCD-USD","v":951.6112,"vw":0.7756,"z":73,"o":0.772,"c":0.784,"h":0.784,"l":0.771,'
        '"s":1610463240000,"e":1610463300000}]',
        bar("BCD-USD", (0.772, 0.784, 0.771, 0.784), (951.6112, 0.7756), 1610463240000),
        channel="bar",
    ),
    Golden(
        "polygon-indices",
        '[{"ev":"V","val":3988.5,"T":"I:SPX","t":1678220098130}]',
        [mark("I:SPX", 3988.5, 1678220098130 * MS)],
    ),
    Golden(
        "polygon-futures",
        '[{"ev":"Q","sym":"ESZ4","bp":114.125,"bs":100,"bt":1734103628360,"ap":114.128,"as":160,"at":1734103628350,'
        '"t":1536036818784}]',
        [quote("ESZ4", (114.125, 100.0, 114.128, 160.0), 1536036818784 * MS)],
    ),
]

FINNHUB = [
    Golden(
        "finnhub",
        '{"data":[{"c":["1","8","24","12"],"p":122.1,"s":"TSLA","t":1672348887195,"v":1},'
        '{"c":["1","24","12"],"p":129.58,"s":"AAPL","t":1672348887666,"v":1}],"type":"trade"}',
        [trade("TSLA", 122.1, 1.0, 1672348887195 * MS), trade("AAPL", 129.58, 1.0, 1672348887666 * MS)],
    ),
    Golden(
        "finnhub",
        '{"data":[{"p":284.45,"s":"AAPL","t":1586876152227,"v":300}],"type":"trade"}',
        [trade("AAPL", 284.45, 300.0, 1586876152227 * MS)],
    ),
]

TICKDB = [
    # A ticker without bid and ask is a last price, without a size.
    Golden(
        "tickdb",
        '{"cmd":"ticker","data":{"symbol":"BTCUSDT","last_price":"70480.57000000","volume_24h":"23737.52989000",'
        '"high_24h":"71321.00000000","low_24h":"69205.91000000","price_change_24h":"-362.06000000",'
        '"price_change_percent_24h":"-0.511","timestamp":1773335135026}}',
        [trade("BTCUSDT", 70480.57, NAN, 1773335135026 * MS)],
        channel="quote",
    ),
    Golden(
        "tickdb",
        '{"cmd":"ticker","data":{"symbol":"EURUSD","last_price":"1.15200","ask_price":"1.15202","bid_price":"1.15199",'
        '"spread":"0.00003","exchange":48,"timestamp":1773334426000}}',
        [quote("EURUSD", (1.15199, NAN, 1.15202, NAN), 1773334426000 * MS)],
    ),
    Golden(
        "tickdb",
        '{"cmd":"depth","data":{"symbol":"BTCUSDT","bids":[["43250.50","0.125"],["43250.00","0.250"]],'
        '"asks":[["43251.00","0.180"]],"timestamp":1703123456789}}',
        [
            level("BTCUSDT", 43250.5, 0.125, 1703123456789 * MS),
            level("BTCUSDT", 43250.0, 0.25, 1703123456789 * MS),
            level("BTCUSDT", 43251.0, 0.18, 1703123456789 * MS),
        ],
        [SNAPSHOT, SNAPSHOT, SNAPSHOT | SELL | LAST],
    ),
    Golden(
        "tickdb",
        '{"cmd":"trade","data":{"symbol":"700.HK","type":"stock","trades":[{"id":"20950","price":"553.000",'
        '"quantity":"100","side":"buy","timestamp":1773371154000}]}}',
        [trade("700.HK", 553.0, 100.0, 1773371154000 * MS)],
        [0],
    ),
    Golden(
        "tickdb",
        '{"cmd":"trade","data":{"symbol":"600519.SH","type":"stock","price":"1252.48","quantity":"7","side":"sell",'
        '"timestamp":1789958062000}}',
        [trade("600519.SH", 1252.48, 7.0, 1789958062000 * MS)],
        [SELL],
    ),
    Golden(
        "tickdb",
        '{"cmd":"trade","data":{"symbol":"BU2609","type":"futures","price":"4309","quantity":"1","side":"sell",'
        '"timestamp":1784012398000,"open_interest_change":0,"position_effect":"short_transfer"}}',
        [trade("BU2609", 4309.0, 1.0, 1784012398000 * MS)],
        [SELL],
    ),
]

# All of a client: the recorded data of iextrading4j.
IEX = [
    Golden(
        "iex",
        '{"symbol":"AAPL","sector":"technologyhardwareequipment","securityType":"commonstock","bidPrice":185.5900,'
        '"bidSize":100,"askPrice":185.6400,"askSize":100,"lastUpdated":1529689042490,"lastSalePrice":185.6300,'
        '"lastSaleSize":100,"lastSaleTime":1529689042476,"volume":312038,"marketPercent":0.03250,"seq":102528}',
        [quote("AAPL", (185.59, 100.0, 185.64, 100.0), 1529689042490 * MS, 102528)],
    ),
    Golden(
        "iex",
        '{"symbol":"AAPL","price":185.8350,"size":100,"time":1529689336332,"seq":2926}',
        [trade("AAPL", 185.835, 100.0, 1529689336332 * MS, 2926)],
    ),
    Golden(
        "iex",
        '{"symbol":"AAPL","messageType":"trades","data":{"price":185.8100,"size":100,"tradeId":517936386,"isISO":true,'
        '"isOddLot":false,"isOutsideRegularHours":false,"isSinglePriceCross":false,"isTradeThroughExempt":false,'
        '"timestamp":1529689623331},"seq":2964}',
        [trade("AAPL", 185.81, 100.0, 1529689623331 * MS, 2964)],
        channel="deep_trade",
    ),
    Golden(
        "iex",
        '{"symbol":"AAPL","messageType":"book","data":{"bids":[{"price":185.76,"size":100,"timestamp":1529689655974}],'
        '"asks":[{"price":190.34,"size":100,"timestamp":1529688635926}]},"seq":5458}',
        [level("AAPL", 185.76, 100.0, None, 5458), level("AAPL", 190.34, 100.0, None, 5458)],
        [SNAPSHOT, SNAPSHOT | SELL | LAST],
    ),
]

# Made: names from the tables, that the payload is an array from clients.
INSTRUMENT = (
    '"instrument":{"definitionSource":"E","exchangeMic":"XNYM","id":"12345","marketSegmentId":"80",'
    '"periodCode":"202602","productCode":"CL","productGroup":"CL","productType":"FUT","symbol":"CLG6"}'
)
CME = [
    Golden(
        "cme",
        '{"header":{"messageType":"TOB","sentTime":"2026-01-05T14:30:00.123456789Z","version":"1.0",'
        '"sequenceNumber":"17"},"payload":[{"askLevel":[{"lastUpdateTime":"2026-01-05T14:30:00.123000000Z",'
        '"orderCnt":"12","price":"70.15","qty":"34"}],"bidLevel":[{"lastUpdateTime":"2026-01-05T14:30:00.122000000Z",'
        f'"orderCnt":"9","price":"70.14","qty":"21"}}],{INSTRUMENT}}}]}}',
        [quote("CLG6", (70.14, 21.0, 70.15, 34.0), 1767623400123456789, 17)],
    ),
    Golden(
        "cme",
        '{"header":{"messageType":"TRD","sentTime":"2026-01-05T14:30:00.123456789Z","version":"1.0",'
        f'"sequenceNumber":"18"}},"payload":[{{{INSTRUMENT},"lastUpdateTime":"2026-01-05T14:30:00.100000001Z",'
        '"tradeSummary":{"aggressorSide":"BUY","mdTradeEntryId":"1001","tradePrice":"70.15","tradeQty":"2"}}]}',
        [trade("CLG6", 70.15, 2.0, 1767623400100000001, 18)],
        [0],
    ),
]

FOREX = [
    Golden(
        "tiingo-fx",
        '{"messageType":"A","service":"fx","data":["Q","eurnok","2019-07-05T15:49:15.157000+00:00",5000000.0,9.6764,'
        "9.678135,5000000.0,9.67987]}",
        [quote("EURNOK", (9.6764, 5e6, 9.67987, 5e6), 1562341755157000000)],
    ),
    # Both of clients; the second is of the documented first version of the stream, its time in seconds, as text.
    Golden(
        "tradermade",
        '{"a":"1.162720000","av":"100000","b":"1.162700000","bv":"100000","s":"EURUSD","t":"QUOTE",'
        '"ts":"20260515-12:36:35.588"}',
        [quote("EURUSD", (1.1627, 1e5, 1.16272, 1e5), 1778848595588000000)],
    ),
    Golden(
        "tradermade",
        '{"symbol":"GBPUSD","ts":"1614084164","bid":1.40,"ask":1.41,"mid":1.405}',
        [quote("GBPUSD", (1.4, NAN, 1.41, NAN), 1614084164000 * MS)],
    ),
]

GOLDEN = [*POLYGON, *FINNHUB, *TICKDB, *IEX, *CME, *FOREX]


def decoded(name: str, *payloads: str) -> tuple[fastfeed.Decoder, np.ndarray]:
    decoder = fastfeed.Decoder(name)
    reader = decoder.ring.reader()
    for payload in payloads:
        decoder.decode(payload.encode(), recv_ns=1_800_000_000_000_000_000)
    return decoder, reader.read()


def told(decoder: fastfeed.Decoder, ticks: np.ndarray) -> list[tuple[Any, ...]]:
    """As `Golden.ticks`: values that a kind does not have are NaN."""
    found = []
    for tick in ticks:
        values = np.frombuffer(tick.tobytes()[32:], "<f8")
        event_ns = int(tick["event_ns"])
        symbol = decoder.prices.symbols[int(tick["symbol_id"])]
        found.append((Kind(int(tick["kind"])), symbol, tuple(values.tolist()), event_ns or None, int(tick["seq"])))
    return found


def same(found: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> None:
    assert [row[:2] + row[3:] for row in found] == [row[:2] + row[3:] for row in wanted]
    np.testing.assert_array_equal([row[2] for row in found], [row[2] for row in wanted])


@pytest.mark.parametrize("golden", GOLDEN, ids=str)
def test_a_documented_message_decodes_to_what_it_states(golden: Golden) -> None:
    decoder, ticks = decoded(golden.provider, golden.text)
    same(told(decoder, ticks), golden.ticks)
    if golden.flags:
        assert ticks["flags"].tolist() == golden.flags
    stats = decoder.stats()
    assert (stats["frames"], stats["data"], stats["unknown"], stats["malformed"]) == (1, 1, 0, 0)
    channel = golden.channel or {Kind.LEVEL: "depth"}.get(golden.ticks[0][0], golden.ticks[0][0].name.lower())
    assert not math.isnan(decoder.prices.ages(channel)[0])


def shuffled(value: Any, dice: random.Random) -> Any:
    """The same JSON with its keys in another order and one more of them in every object."""
    if isinstance(value, list):
        return [shuffled(item, dice) for item in value]
    if not isinstance(value, dict):
        return value
    items = [(key, shuffled(item, dice)) for key, item in value.items()]
    items.append(("aNewKey", {"deep": [1, None, "x"]}))
    dice.shuffle(items)
    return dict(items)


@pytest.mark.parametrize("golden", GOLDEN, ids=str)
def test_order_of_keys_space_and_keys_that_nobody_knows_change_nothing(golden: Golden) -> None:
    dice = random.Random(5)
    for _ in range(20):
        text = json.dumps(shuffled(json.loads(golden.text), dice), indent=dice.choice([None, 1]))
        decoder, ticks = decoded(golden.provider, text)
        same(told(decoder, ticks), golden.ticks)


# What is no price ---------------------------------------------------------------------------------------------------


def cme(kind: str, rest: str) -> str:
    return f'{{"header":{{"messageType":"{kind}","sentTime":"2023-11-21T16:47:52.155000000Z","version":"1.0",{rest}}}}}'


@pytest.mark.parametrize(
    ("name", "text", "replies"),
    [
        (
            "polygon",
            '[{"ev":"status","status":"connected","message":"Connected Successfully"}]',
            (Greeting(),),
        ),
        ("polygon", '[{"ev":"status","status":"auth_success","message":"authenticated"}]', (Welcome(),)),
        (
            "polygon",
            '[{"ev":"status","status":"auth_success","message":"authenticated"},'
            '{"ev":"status","status":"success","message":"subscribed to: T.AAPL"},'
            '{"ev":"status","status":"success","message":"subscribed to: Q.AAPL"}]',
            (Welcome(), Ack(topics=("T.AAPL",)), Ack(topics=("Q.AAPL",))),
        ),
        (
            "polygon",
            '[{"ev":"status","status":"success","message":"unsubscribed to: T.AAPL"}]',
            (Ack(topics=("T.AAPL",)),),
        ),
        (
            "polygon",
            '[{"ev":"status","status":"auth_failed","message":"authentication failed"}]',
            (Denial(Failure.AUTH, "authentication failed"),),
        ),
        (
            "polygon",
            '[{"ev":"status","status":"auth_timeout","message":"No authentication request received."}]',
            (Denial(Failure.UNANSWERED, "No authentication request received."),),
        ),
        (
            "polygon",
            '[{"ev":"status","status":"max_connections","message":"Maximum number of websocket connections"}]',
            (Denial(Failure.EVICTED, "Maximum number of websocket connections"),),
        ),
        ("polygon", '[{"ev":"status","status":"error","message":"no"}]', (Refusal(None, "no"),)),
        ("polygon", '[{"ev":"status","status":"something new","message":"hello"}]', ()),
        (
            "polygon",
            '[{"action":"ping","timestamp":1700000000000}]',
            (PingAsked('{"action":"pong","timestamp":1700000000000}'),),
        ),
        (
            "polygon",
            '{"action":"ping","timestamp":1700000000000}',
            (PingAsked('{"action":"pong","timestamp":1700000000000}'),),
        ),
        ("finnhub", '{"type":"ping"}', (Beat(),)),
        (
            "finnhub",
            '{"type":"error","msg":"Subscribing to too many symbols"}',
            (Refusal(None, "Subscribing to too many symbols"),),
        ),
        (
            "finnhub",
            '{"msg":"Subscribing to too many symbols","type":"error"}',
            (Refusal(None, "Subscribing to too many symbols"),),
        ),
        (
            "tickdb",
            '{"cmd":"pong","code":0,"message":"pong","data":{"timestamp":1768976158541}}',
            (PongSaid(None, 1768976158.541),),
        ),
        ("tickdb", '{"type":"pong","id":7,"server_time":1768976158541}', (PongSaid(7, 1768976158.541),)),
        (
            "tickdb",
            '{"cmd":"subscribe","code":0,"message":"success","data":{"channel":"ticker","symbols":["AAPL.US","BTCUSDT"]}}',
            (Ack(topics=("ticker:AAPL.US", "ticker:BTCUSDT")),),
        ),
        (
            "tickdb",
            '{"cmd":"subscribe","code":4002,"message":"Invalid message format"}',
            (Refusal(None, "Invalid message format (code 4002)"),),
        ),
        (
            "tickdb",
            '{"code":3001,"message":"Rate limit exceeded"}',
            (Denial(Failure.RATE_LIMITED, "Rate limit exceeded (code 3001)"),),
        ),
        (
            "tickdb",
            '{"cmd":"error","code":"3001","message":"Rate limit exceeded","retry_after":7}',
            (Denial(Failure.RATE_LIMITED, "Rate limit exceeded (code 3001)", 7.0),),
        ),
        (
            "tickdb",
            '{"cmd":"subscribe","code":1001,"message":"Invalid or expired token"}',
            (Denial(Failure.AUTH, "Invalid or expired token (code 1001)"),),
        ),
        ("iex", '{"op":"pong"}', (PongSaid(),)),
        ("iex", '{"code":429,"retryAfter":5}', (Denial(Failure.RATE_LIMITED, "429", 5),)),
        (
            "cme",
            cme("LOGINSTATUS", '"sequenceNumber":"0"')[:-1] + ',"payload":{"status":"authenticated"}}',
            (Greeting(),),
        ),
        (
            "cme",
            cme("SUBSCRIPTION_STATUS", '"requestId":"1","sequenceNumber":"2"')[:-1]
            + ',"payload":{"status":"SUBSCRIBED","subscriptionMessageTypes":["TRD"],'
            '"subscriptions":[{"productType":"FUT","productCode":"CL"}]}}',
            (Ack(1),),
        ),
        ("cme", cme("HEARTBEAT", '"sequenceNumber":"3"'), (Beat(),)),
        (
            "tiingo-fx",
            '{"messageType":"I","response":{"code":200,"message":"Success"},"data":{"subscriptionId":2563396}}',
            (Ack(number=2563396),),
        ),
        (
            "tiingo-fx",
            '{"data":{"tickers":["*","uso","msft","tnk"],"thresholdLevel":"0"},"messageType":"I",'
            '"response":{"code":200,"message":"Success"}}',
            (Ack(),),
        ),
        ("tiingo-fx", '{"messageType":"H","response":{"code":200,"message":"HeartBeat"}}', (Beat(),)),
        (
            "tiingo-fx",
            '{"messageType":"E","response":{"code":403,"message":"Not authorized for service: boats"}}',
            (Denial(Failure.AUTH, "Not authorized for service: boats (code 403)"),),
        ),
        ("tradermade", "Connected", ()),
        ("tradermade", "User Key Used to many times", (Denial(Failure.EVICTED, "User Key Used to many times"),)),
        ("tradermade", '{"type":"login_ok","symbol_limit":54}', (Welcome(),)),
        ("tradermade", '{"type":"login_reject","reason":"no"}', (Denial(Failure.AUTH, "no"),)),
        (
            "tradermade",
            '{"type":"sub_ack","accepted":["EURUSD:QUOTE"],"denied":["ABCXYZ:QUOTE"],"denied_reasons":{"ABCXYZ:QUOTE":"?"}}',
            (Ack(topics=("EURUSD:QUOTE",)), Refusal(None, "?", topics=("ABCXYZ:QUOTE",))),
        ),
    ],
)
def test_a_documented_control_message_is_read_and_makes_no_price(
    name: str, text: str, replies: tuple[object, ...]
) -> None:
    decoder, ticks = decoded(name, text)
    assert len(ticks) == 0
    stats = decoder.stats()
    assert (stats["data"], stats["unknown"], stats["malformed"]) == (0, 0, 0)
    assert stats["control"] == 1
    assert provider(name).dialect.read(text.encode()) == replies


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "polygon",
            '[{"ev":"LULD","T":"MSFT","h":218.96,"l":198.11,"i":[21],"z":3,"t":1601316752683746,"q":290317}]',
        ),
        (
            "polygon",
            '[{"ev":"NOI","T":"NTEST.Q","t":1601318039223013600,"at":930,"a":"M","i":44,"x":10,"o":480,"p":440,"b":25.03}]',
        ),
        ("polygon-crypto", '[{"ev":"XS","pair":"BTC-USD","as":1,"ap":2,"bs":3,"bp":4,"t":1610462411115}]'),
        # The shape of another Tiingo service: other numbers at the same places.
        (
            "tiingo-fx",
            '{"messageType":"A","service":"iex","data":["Q","2019-01-30T13:33:45.383129126-05:00",1548873225383129126,'
            '"vym",100,81.58,81.585,81.59,100,null,null,0,0,null,null,null]}',
        ),
    ],
)
def test_a_message_that_is_no_channel_of_ours_makes_no_price(name: str, text: str) -> None:
    decoder, ticks = decoded(name, text)
    assert len(ticks) == 0
    assert decoder.stats()["malformed"] == 0


def test_finnhubs_news_makes_no_price() -> None:
    news = '{"type":"news","data":[{"category":"company","datetime":1,"headline":"x","id":7,"related":"AAPL"}]}'
    assert len(decoded("finnhub", news)[1]) == 0


# Traps --------------------------------------------------------------------------------------------------------------


def share(**changes: Any) -> dict[str, Any]:
    quote = {"ev": "Q", "sym": "MSFT", "bp": 114.125, "bs": 100, "ap": 114.128, "as": 160, "t": 1536036818784, "q": 5}
    return {name: value for name, value in {**quote, **changes}.items() if value is not ...}


def test_ids_beyond_the_exact_range_of_a_float_are_exact() -> None:
    for seq in (2**53 + 1, 2**63 - 1):
        _, [tick] = decoded("polygon", json.dumps([share(q=seq)]))
        assert tick["seq"] == seq
    counter = CME[0].text.replace('"17"', f'"{2**53 + 1}"')
    _, [tick] = decoded("cme", counter)
    assert tick["seq"] == 2**53 + 1


def test_whole_numbers_stand_for_prices_and_floats_for_counts() -> None:
    _, ticks = decoded("polygon", json.dumps([share(bp=136, ap=137, bs=100.0)]))
    assert [ticks[0][name] for name in ("bid", "bid_size", "ask")] == [136.0, 100.0, 137.0]
    text = '[{"ev":"AM","sym":"GTE","v":4110,"vw":136,"o":136,"c":136,"h":136,"l":135.5,"z":12.0,"s":1610144640000}]'
    _, ticks = decoded("polygon", text)
    assert [ticks[0][name] for name in ("open", "high", "low", "close")] == [136.0, 136.0, 135.5, 136.0]


@pytest.mark.parametrize("left_out", [..., None])
def test_a_side_that_polygon_leaves_out_is_not_there(left_out: Any) -> None:
    """What is empty or zero is left out: the bid of before would stand crossed beside the new ask, and fresh."""
    first, second = share(), share(bp=left_out, bs=left_out, ap=113.0, q=6)
    decoder, ticks = decoded("polygon", json.dumps([first]), json.dumps([second]))
    assert math.isnan(ticks[1]["bid"])
    row = decoder.prices["MSFT"]
    assert math.isnan(row["bid"])
    assert math.isnan(row["bid_size"])
    assert row["ask"] == 113.0


def test_a_book_of_cmes_with_one_side_has_no_other() -> None:
    tob = json.loads(next(golden.text for golden in CME if '"TOB"' in golden.text))
    one_sided = json.loads(json.dumps(tob))
    one_sided["payload"][0]["bidLevel"] = []
    one_sided["header"]["sequenceNumber"] = str(int(tob["header"]["sequenceNumber"]) + 1)
    decoder, _ = decoded("cme", json.dumps(tob), json.dumps(one_sided))
    row = decoder.prices["CLG6"]
    assert [math.isnan(row[name]) for name in ("bid", "bid_size", "ask", "ask_size")] == [True, True, False, False]


def test_polygons_numbers_begin_anew_each_day() -> None:
    """Seven quotes of the next morning were taken for repeats, and a contract with fewer had yesterday's price."""
    evening, morning = share(q=50385480), share(q=1, bp=99.0, t=share()["t"] + 8 * 3600 * 1000)
    decoder, ticks = decoded("polygon", json.dumps([evening]), json.dumps([morning]))
    assert decoder.prices["MSFT"]["bid"] == 99.0
    assert not ticks["flags"].any()


@pytest.mark.parametrize(
    ("name", "echo", "symbol"), [("forex", "C:EURUSD", "EUR/USD"), ("crypto", "X:BTC-USD", "BTC-USD")]
)
def test_polygons_fair_values_spell_pairs_in_a_way_of_their_own(name: str, echo: str, symbol: str) -> None:
    feed = fastfeed.Feed(f"polygon-{name}", [symbol], channels=["fair_value"], api_key="k")
    feed.decoder.decode(json.dumps([{"ev": "FMV", "fmv": 1.0631, "sym": echo, "t": 1678220098130}]).encode())
    assert list(feed.prices.symbols) == [symbol]
    assert feed.prices.marks[0]["price"] == 1.0631


@pytest.mark.parametrize("condition", ['"c":["1"],', '"c":[],', '"c":null,', ""])
def test_finnhubs_conditions_may_be_a_list_empty_null_or_missing(condition: str) -> None:
    _, ticks = decoded("finnhub", f'{{"data":[{{{condition}"p":1.5,"s":"A","t":1672348887195,"v":0}}],"type":"trade"}}')
    assert (ticks["price"].tolist(), ticks["size"].tolist()) == ([1.5], [0.0])


@pytest.mark.parametrize("symbol", ["BRK.É", "币安人生", "IC MARKETS:1", 'a"b', "x" * 300])
def test_a_symbol_may_be_any_text(symbol: str) -> None:
    for ascii_only in (True, False):
        decoder, ticks = decoded("polygon", json.dumps([share(sym=symbol)], ensure_ascii=ascii_only))
        assert decoder.prices.symbols[int(ticks[0]["symbol_id"])] == symbol


def test_one_array_mixes_kinds_control_and_the_unknown() -> None:
    members = [json.loads(golden.text) for golden in POLYGON if golden.provider == "polygon"]
    unknown = {"ev": "LULD", "T": "MSFT", "h": 218.96, "l": 198.11, "t": 1601316752683746, "q": 1}
    status = {"ev": "status", "status": "success", "message": "subscribed to: T.AAPL"}
    array = [unknown, *(member for message in members for member in message), status, unknown]
    decoder, ticks = decoded("polygon", json.dumps(array))
    wanted = [tick for golden in POLYGON if golden.provider == "polygon" for tick in golden.ticks]
    same(told(decoder, ticks), wanted)
    stats = decoder.stats()
    assert (stats["frames"], stats["data"], stats["messages"]) == (1, 1, len(array))


@pytest.mark.parametrize(
    ("time", "event_ns"),
    [
        (1678220098130, 1678220098130_000_000),
        (1601316752683746, 1601316752683746_000),
        (1601318039223013600, 1601318039223013600),
    ],
)
def test_the_unit_of_a_time_is_told_by_its_digits(time: int, event_ns: int) -> None:
    _, [tick] = decoded("polygon", json.dumps([share(t=time)]))
    assert tick["event_ns"] == event_ns
    _, [tick] = decoded("polygon", json.dumps([{"ev": "FMV", "fmv": 1.5, "sym": "A", "t": time}]))
    assert tick["event_ns"] == event_ns


def test_the_side_of_a_crypto_trade_is_its_first_condition() -> None:
    text = next(golden.text for golden in POLYGON if '"XT"' in golden.text)
    sides = [
        decoded("polygon-crypto", text.replace('"c":[2]', f'"c":{c}'))[1][0]["flags"] for c in ("[1]", "[]", "null")
    ]
    assert sides == [SELL, 0, 0]


def test_polygons_numbers_tell_order_and_repeats_and_never_a_loss() -> None:
    numbers = (1, 2, 6, 9, 10, 11)
    decoder, ticks = decoded("polygon", *(json.dumps([share(q=number)]) for number in (*numbers, 11)))
    assert decoder.stats()["gaps"] == 0
    assert bool(ticks[-1]["flags"] & Flag.DUPLICATE)
    assert decoder.stats()["duplicates"] == 1


def test_trades_of_one_message_need_not_be_in_the_order_of_time() -> None:
    text = '{"data":[{"p":2,"s":"A","t":1672348887666,"v":1},{"p":1,"s":"A","t":1672348887195,"v":1}],"type":"trade"}'
    decoder, ticks = decoded("finnhub", text)
    assert ticks["price"].tolist() == [2.0, 1.0]
    assert decoder.prices["A"]["last"] == 2.0, "an older trade never overwrites a newer one"


def test_a_whole_market_comes_as_one_array() -> None:
    one = json.loads(TICKDB[0].text)
    array = [{**one, "data": {**one["data"], "symbol": f"S{number}.US"}} for number in range(500)]
    decoder, ticks = decoded("tickdb", json.dumps(array))
    assert len(ticks) == 500
    assert decoder.prices.symbols[499] == "S499.US"


def test_one_payload_of_cmes_may_tell_of_several_contracts() -> None:
    message = json.loads(CME[0].text)
    other = json.loads(CME[0].text.replace("CLG6", "CLH6").replace("70.14", "71.5"))["payload"]
    decoder, ticks = decoded("cme", json.dumps({**message, "payload": message["payload"] + other}))
    assert ticks["bid"].tolist() == [70.14, 71.5]
    assert list(decoder.prices.symbols) == ["CLG6", "CLH6"]
