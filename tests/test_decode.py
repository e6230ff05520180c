"""The decoder against the oracle: documented frames, the same frames written in every legal way, and frames at random.

What is malformed is test_malformed's business, single numbers test_numbers', whole recordings test_recordings'.
"""

import json
import random
import threading

import kernels
import msgpack
import pytest
from corpus import ACK, DEPTH, FRAMES, QUOTE, SPOT_QUOTE, TRADE
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Decoder as Oracle
from oracle import assert_same

import fastfeed
from fastfeed.schema import MISSING, Message, Schema, Symbol

USDM = [
    QUOTE,
    TRADE,
    DEPTH,
    ACK,
    b'{"e":"aggTrade","E":1767225600136,"s":"BTCUSDT","a":5933014,"p":"87654.30","q":"0.120","nq":"0.100","f":100,"l":105,'
    b'"T":1767225600120,"m":true,"st":1}',
    b'{"e":"bookTicker","u":400900217,"E":1568014460893,"T":1568014460891,"s":"BNBUSDT","b":"25.35190000","B":"31.21000000",'
    b'"a":"25.36520000","A":"40.66000000","st":1,"ps":"BNBUSDT"}',
    b'{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15000000","ap":"11793.90000000","i":"11784.62659091",'
    b'"P":"11784.25641265","r":"0.00038167","T":1562306400000,"st":1}',
    b'{"e":"markPriceUpdate","E":1562305380001,"s":"BTCUSD_200925","p":"1.5","i":"2.5","P":"3","r":"","T":0}',
    b'[{"e":"markPriceUpdate","E":1562305380002,"s":"A","p":"1","i":"2","P":"3","r":"0.1","T":1},'
    b'{"e":"markPriceUpdate","E":1562305380002,"s":"B","p":"4","i":"5","P":"6","r":"","T":1}]',
    b'{"stream":"!markPrice@arr","data":[{"e":"markPriceUpdate","E":1562305380003,"s":"A","p":"1.25","i":"2","P":"3","r":"0","T":1}]}',
    b'{"e":"forceOrder","E":1568014460893,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9910"}}',
    b'{"error":{"code":4,"msg":"Too many subscriptions"},"id":19}',
    b'{"code":2,"msg":"Invalid request: too many parameters"}',
    b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
    b'{"e":"serverShutdown","E":1770123456789}',
    b'{"result":["btcusdt@aggTrade"],"id":3}',
    b"{}",
    b"[]",
]
SPOT = [
    SPOT_QUOTE,
    b'{"stream":"bnbusdt@bookTicker","data":{"u":400900218,"s":"BNBUSDT","b":"25.36","B":"3","a":"25.37","A":"4"}}',
    b'{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782136,"m":true,"M":true}',
    b'{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12346,"p":"0.002","q":"1","b":88,"a":50,"T":1672515782136,"m":false,"M":true}',
    b'{"e":"aggTrade","E":1672515782136,"s":"BNBBTC","a":12345,"p":"0.001","q":"100","f":100,"l":105,"T":1672515782136,"m":true}',
    b'{"e":"depthUpdate","E":1672515782136,"s":"BNBBTC","U":157,"u":160,"b":[["0.0024","10"]],"a":[["0.0026","100"]]}',
    b'{"stream":"bnbbtc@depth5","data":{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}}',
    b'{"lastUpdateId":160,"bids":[["0.0024","10"]],"asks":[["0.0026","100"]]}',
    b'{"e":"trade","E":1672515782136123,"s":"A","t":1,"p":"1","q":"2","T":1672515782136123,"m":true}',
    '{"u":5,"s":"这是测试币456","b":"1","B":"2","a":"3","A":"4"}'.encode(),
    ACK,
    b'{"code":0,"msg":"Unknown property","id":1}',
]
EVERYTHING = Schema(
    Message(
        "quote",
        match={"e": "q"},
        symbol="s",
        bid="b",
        bid_size="B",
        ask="a",
        ask_size="A",
        seq="u",
        event_time=("T", "ms"),
        null=("",),
    ),
    Message("trade", match={"e": "t"}, symbol="s", price="p", size="q", side="m", seq="t", event_time="T"),
    Message(
        "trade",
        match={"e": "ts", "x": MISSING},
        channel="many",
        each="d",
        symbol="^.s",
        price="p",
        size=1,
        seq="t",
        side=("m", "sell"),
    ),
    Message("trade", match={"e": "ps"}, channel="tuples", each="d", symbol=0, price=1, size="2", event_time=(3, "iso")),
    Message("depth", match={"e": "d"}, symbol="s", bids="b", asks="a", first_seq="U", seq="u", event_time=("T", "us")),
    Message(
        "depth",
        match={"e": "o"},
        channel="objects",
        symbol="s",
        bids="x.b",
        asks="x.a",
        level=("p", "q"),
        snapshot=True,
    ),
    Message(
        "mark",
        match={"e": "m"},
        symbol=Symbol("^.stream", until="@", upper=True),
        price="p",
        index="i",
        funding="r",
        null=("", "0"),
    ),
    Message(
        "bar",
        match={"e": "k"},
        symbol="s",
        open="k.o",
        high="k.h",
        low="k.l",
        close="k.c",
        volume="k.v",
        trades="k.n",
        start="k.t",
    ),
    Message("quote", match={"e": MISSING}, channel="bare", symbol="id", bid="bp", ask="ap", has=("bp", "ap")),
    Message("control", match={"e": "c"}),
    Message("control", has=("result",)),
    envelope="data",
    name="everything",
)


class Pair:
    """The compiled decoder, once with every kernel, and the oracle, given the same payloads."""

    def __init__(self, source: str | Schema) -> None:
        self.decoders = kernels.decoders(source, max_symbols=4096)
        self.decoder = next(iter(self.decoders.values()))
        self.rings = [decoder.ring.reader() for decoder in self.decoders.values()]
        self.oracle = Oracle(self.decoder.schema)

    def decode(self, payload: bytes, recv_ns: int = 0) -> int:
        expected = self.oracle.decode(payload, recv_ns)
        for kernel, decoder in self.decoders.items():
            assert decoder.decode(payload, recv_ns=recv_ns) == expected, (kernel, payload[:500])
        return expected

    def hold(self) -> None:
        for decoder, ring in zip(self.decoders.values(), self.rings, strict=True):
            assert_same(decoder, ring.read(), self.oracle)


def rewritten(payload: bytes, choose: random.Random) -> bytes:
    """The same document in other bytes: key order, whitespace, escapes, strangers, repeated keys."""

    def string(text: str) -> str:
        if choose.random() < 0.15:
            text = "".join(
                f"\\u{ord(c):04x}" if ord(c) < 0x10000 and choose.random() < 0.5 else json.dumps(c)[1:-1] for c in text
            )
            return f'"{text}"'
        return json.dumps(text, ensure_ascii=choose.random() < 0.5)

    def space() -> str:
        return choose.choice(["", "", "", "", " ", "\n", "\t \r\n"])

    def write(value: object) -> str:
        if isinstance(value, dict):
            members = [(key, write(inner)) for key, inner in value.items()]
            if choose.random() < 0.5:
                choose.shuffle(members)
            if choose.random() < 0.3:
                members.insert(
                    choose.randrange(len(members) + 1), (f"zz{choose.randrange(9)}", write([1, {"b": "2"}, None]))
                )
            if members and choose.random() < 0.15:
                key, _ = choose.choice(members)
                members.insert(0, (key, choose.choice(['"9"', "9", "null", "[]", '[["9","9"]]', '{"b":"9"}'])))
            return "{" + ",".join(f"{space()}{string(k)}{space()}:{space()}{v}{space()}" for k, v in members) + "}"
        if isinstance(value, list):
            return "[" + ",".join(f"{space()}{write(inner)}{space()}" for inner in value) + "]"
        if isinstance(value, str) and not value.startswith("\0"):
            return string(value)
        return value[1:] if isinstance(value, str) else json.dumps(value)

    keep = json.loads(payload, parse_float=lambda t: "\0" + t, parse_int=lambda t: "\0" + t)
    return (space() + write(keep) + space()).encode()


@pytest.mark.parametrize(
    ("provider", "frames"), [("binance-usdm", USDM), ("binance-coinm", USDM), ("binance-spot", SPOT)]
)
def test_documented_frames_are_read_as_the_oracle_reads_them(provider, frames):
    pair = Pair(provider)
    for round_ in range(3):
        for frame in frames:
            pair.decode(frame, recv_ns=round_)
    pair.hold()
    assert pair.decoder.stats()["malformed"] == 0
    assert pair.decoder.stats()["data"] > len(frames)


def test_a_quote_is_read():
    decoder = fastfeed.Decoder("binance-usdm")
    ring = decoder.ring.reader()
    assert decoder.decode(QUOTE, recv_ns=123) == 1
    (tick,) = ring.read()
    assert [float(tick[name]) for name in ("bid", "bid_size", "ask", "ask_size")] == [61800.20, 2.507, 61800.30, 2.510]
    assert (tick["kind"], tick["flags"], tick["source"]) == (fastfeed.Kind.QUOTE, 0, 0)
    assert (tick["seq"], tick["event_ns"], tick["recv_ns"]) == (5123107839020, 1723161256313000000, 123)
    assert decoder.prices.symbols[tick["symbol_id"]] == "BTCUSDT"


def test_bare_and_combined_frames_are_read_alike():
    bare, combined = fastfeed.Decoder("binance-usdm"), fastfeed.Decoder("binance-usdm")
    for frame in (QUOTE, TRADE, DEPTH):
        assert combined.decode(frame, recv_ns=1) == bare.decode(
            json.dumps(json.loads(frame)["data"]).encode(), recv_ns=1
        )
    assert bare.prices["BTCUSDT"].tobytes() == combined.prices["BTCUSDT"].tobytes()
    assert bare.stats() == combined.stats()


def test_every_frame_is_counted_once():
    decoder = fastfeed.Decoder("binance-usdm")
    for frame in [*USDM, b"", b"{", b"\xff", b'{"e":"bookTicker","s":"A","b":"x"}']:
        decoder.decode(frame)
    stats = decoder.stats()
    assert stats["frames"] == len(USDM) + 4
    assert stats["frames"] == stats["data"] + stats["control"] + stats["unknown"] + stats["malformed"]
    assert stats["malformed"] == 3


def test_frames_of_one_venue_are_unknown_or_right_under_another():
    for provider in ("binance-spot", "binance-usdm"):
        pair = Pair(provider)
        for frame in [*USDM, *SPOT]:
            pair.decode(frame)
        pair.hold()


def test_receive_times_default_to_the_clock():
    clock = fastfeed._core.Clock.manual(mono_ns=5, utc_ns=1_700_000_000_000_000_000)
    decoder = fastfeed.Decoder("binance-usdm", clock=clock)
    ring = decoder.ring.reader()
    decoder.decode(QUOTE)
    clock.advance(7)
    decoder.decode_many([TRADE, DEPTH])
    assert list(ring.read()["recv_ns"]) == [1_700_000_000_000_000_000] + [1_700_000_000_000_000_007] * 4


def test_decode_many_is_decode_many_times():
    choose = random.Random(5)
    frames = [rewritten(choose.choice([*USDM, *SPOT]), choose) for _ in range(2000)]
    one, many = fastfeed.Decoder("binance-usdm"), fastfeed.Decoder("binance-usdm")
    first, second = one.ring.reader(), many.ring.reader()
    made = [one.decode(frame, recv_ns=9) for frame in frames]
    assert many.decode_many(frames, recv_ns=9) == sum(made)
    assert first.read().tobytes() == second.read().tobytes()
    assert one.stats() == many.stats()
    assert many.decode_many([]) == 0
    assert many.decode_many(tuple(frames[:3]), recv_ns=9) == sum(one.decode(frame, recv_ns=9) for frame in frames[:3])


def reads(seed: int) -> list[list[bytes]]:
    """What comes in one read each: quotes and trades alike but for their values, new symbols, holes, repeats, and now
    and then a frame of another sort."""
    choose = random.Random(seed)
    names = ["".join(choose.choices("ABCDEFGHIJ", k=choose.randint(1, 40))) for _ in range(300)] + ["测试币USDT"]
    others = [*USDM, b"{", b'{"e":"bookTicker"}', b"[" + QUOTE + b"," + TRADE + b"]", b"\xff"]
    number = 0
    made: list[list[bytes]] = []
    while sum(map(len, made)) < 6000:
        read: list[bytes] = []
        for _ in range(choose.choice([1, 1, 2, 7, 31, 32, 33, 70, 100])):
            number += choose.choice([1] * 60 + [0, 3, -40])
            name = choose.choice(names[: 2 + len(made)])
            price = f"{choose.uniform(0, 10 ** choose.randint(0, 6)):.4f}"
            quote = f'"u":{number},"E":5,"T":4,"s":"{name}","b":"{price}","B":"1.5","a":"7","A":"2"}}'
            trade = f'"E":5,"T":4,"s":"{name}","t":{number},"p":"{price}","q":"0.006","X":"MARKET","m":true}}'
            copied = (
                f'{{"e":"bookTicker","u":{number},"s":"{name}","b":"1"}}'  # if short, to where the next one goes too
            )
            text = choose.choice(['{"e":"bookTicker",' + quote, '{"e":"trade",' + trade, copied])
            read.append(choose.choice(others) if choose.random() < 0.02 else text.encode())
        made.append(read)
    return made


def packed(frame: bytes) -> bytes:
    try:
        return msgpack.packb(json.loads(frame))
    except ValueError:
        return frame


@pytest.mark.parametrize("is_read", [True, False], ids=["ticks read", "prices only"])
@pytest.mark.parametrize("written", ["alone", "arrays of one", "msgpack"])
@pytest.mark.parametrize("kernel", fastfeed.kernels())
def test_frames_that_come_together_are_read_as_if_alone(kernel, written, is_read):
    """Though their ticks are made together: in order, by the time they came, when a copy of one may be gone."""
    write = {"alone": bytes, "arrays of one": b"[%b]".__mod__, "msgpack": packed}[written]
    schema = fastfeed.Decoder("binance-usdm").schema
    if written == "msgpack":
        schema = Schema(*schema.messages, envelope=schema.envelope, encoding="msgpack")
    one, many = (kernels.with_kernel(kernel, schema, clock=fastfeed.Clock.manual(utc_ns=10**18)) for _ in range(2))
    rings = [decoder.ring.reader() for decoder in (one, many) if is_read]
    for recv_ns, texts in enumerate(reads(8), 1):
        read = list(map(write, texts))
        made = sum(one.decode(frame, recv_ns=recv_ns, source=recv_ns % 3) for frame in read)
        assert many.decode_many(read, recv_ns=recv_ns, source=recv_ns % 3) == made
        for decoder in (one, many):
            decoder.clock.advance(1000)
        assert len({ring.read().tobytes() for ring in rings}) <= 1
        assert one.prices.array.tobytes() == many.prices.array.tobytes()
        assert list(one.prices.fresh(1e-6)) == list(many.prices.fresh(1e-6))
    assert one.stats() == many.stats()
    assert one.stats()["gaps"] > 100
    assert one.stats()["predicted"] > 3000 or kernel == "scalar" or written == "msgpack"
    assert list(one.prices.symbols) == list(many.prices.symbols)
    assert one.gaps() == many.gaps()


def test_whoever_makes_the_frames_finds_all_of_those_before():
    decoder = fastfeed.Decoder("binance-usdm")
    decoder.decode(QUOTE)
    found = []

    def frames():
        for _ in range(4):
            yield QUOTE
            found.append((decoder.stats()["frames"], decoder.stats()["duplicates"]))

    decoder.decode_many(frames())
    assert found == [(2, 1), (3, 2), (4, 3), (5, 4)]


def test_frames_decoded_in_between_are_of_their_own_time():
    """Whoever makes the frames may decode others meanwhile, by another connection."""
    decoder = fastfeed.Decoder("binance-usdm")
    reader = decoder.ring.reader()
    decoder.decode_many([QUOTE, TRADE])

    def frames():
        yield QUOTE
        assert decoder.decode(TRADE, recv_ns=2, source=2) == 1
        yield QUOTE
        yield TRADE

    reader.read()
    assert decoder.decode_many(frames(), recv_ns=1, source=1) == 4
    assert [(int(tick["recv_ns"]), int(tick["source"])) for tick in reader.read()] == [(1, 1), (2, 2), (1, 1), (1, 1)]


def test_frames_of_two_threads_are_each_of_their_own_time():
    decoder = fastfeed.Decoder("binance-usdm")
    reader = decoder.ring.reader()
    decoder.decode_many([QUOTE, TRADE])
    reader.read()
    turns = [threading.Semaphore(0) for _ in range(3)]

    def first():
        yield QUOTE
        turns[1].release()
        assert turns[0].acquire(timeout=10), "the other thread's frame"
        yield QUOTE

    def second():
        assert turns[1].acquire(timeout=10), "the first thread's frame"
        yield TRADE
        turns[0].release()
        assert turns[2].acquire(timeout=10), "the end of the first thread's frames"

    other = threading.Thread(target=decoder.decode_many, args=(second(), 2, 2))
    other.start()
    decoder.decode_many(first(), 1, 1)
    turns[2].release()
    other.join(10)
    assert [(int(tick["recv_ns"]), int(tick["source"])) for tick in reader.read()] == [(1, 1), (2, 2), (1, 1)]


@pytest.mark.parametrize("provider", ["binance-usdm", "binance-spot"])
@pytest.mark.parametrize("kernel", fastfeed.kernels())
def test_prices_are_the_same_whether_anybody_reads_ticks_or_not(kernel, provider):
    choose = random.Random(6)
    names = ["BTCUSDT", "ETHUSDT", "A", "AVERYLONGNAMEOFASYMBOLUSDT", "BVERYLONGNAMEOFASYMBOLUSDT", "这是测试币456USDT"]
    time = 1_700_000_000_000
    frames = []
    for number in range(3000):
        seq = choose.choice([number] * 400 + [number - 1] * 20 + [number - 50] * 10 + [3_000_000 + number // 700])
        quote = {
            "e": "bookTicker", "u": seq, "T": choose.choice([time, time, time + 50, time - 90_000, 0]),
            "s": choose.choice(names[: 3 + number // 500]), "b": f"{choose.uniform(0, 9):.3f}", "B": "1.5",
            "a": choose.choice(["7", "0.00000001", "12345678901234567890"]), "A": "2.25",
        }  # fmt: skip
        for key in choose.choices(["a", "T", "u", "B"], k=choose.choice([0] * 9 + [1])):
            quote.pop(key, None)
        if provider == "binance-spot":
            del quote["e"]
        frames.append(json.dumps(quote, separators=(",", ":"), ensure_ascii=False).encode())
    clocks = [fastfeed.Clock.manual(utc_ns=time * 1_000_000) for _ in range(2)]
    alone, read = (kernels.with_kernel(kernel, provider, clock=clock, max_symbols=8) for clock in clocks)
    ring = read.ring.reader()
    reader, other = alone.prices.reader(), read.prices.reader()
    for begin in range(0, len(frames), 100):
        made = [decoder.decode_many(frames[begin : begin + 100]) for decoder in (alone, read)]
        assert made[0] == made[1] == len(ring.read())
        assert alone.prices.array.tobytes() == read.prices.array.tobytes()
        if begin % 300 == 0:
            assert reader.read().tobytes() == other.read().tobytes()
        for max_age in (0.001, 0.04, 0.2, 80.0):
            assert list(alone.prices.fresh(max_age)) == list(read.prices.fresh(max_age))
        step_ns = choose.randrange(100_000_000)
        for clock in clocks:
            clock.advance(step_ns)
    assert alone.stats() == read.stats()
    assert alone.stats()["duplicates"] > 50
    assert alone.stats()["resets"] > 0
    assert alone.prices.array["updates"].sum() > 2000
    assert alone.lag_quantiles(0, 0.1, 0.5, 0.9, 1) == read.lag_quantiles(0, 0.1, 0.5, 0.9, 1)
    assert list(alone.prices.symbols) == list(read.prices.symbols)


def test_decode_many_refuses_what_is_no_buffer_and_keeps_what_came_before():
    decoder = fastfeed.Decoder("binance-usdm")
    decoder.decode(QUOTE)
    with pytest.raises(TypeError):
        decoder.decode_many([QUOTE, "text", TRADE])
    assert decoder.stats()["ticks"] == 2
    assert decoder.stats()["duplicates"] == 1
    assert decoder.decode(TRADE) == 1


@pytest.mark.parametrize(("schema", "frames"), [("binance-usdm", USDM), ("binance-spot", SPOT)])
def test_frames_written_otherwise_are_read_the_same(schema, frames):
    choose = random.Random(20240808)
    pair = Pair(schema)
    for recv_ns in range(4000):
        pair.decode(rewritten(choose.choice(frames), choose), recv_ns)
    pair.hold()
    assert pair.decoder.stats()["malformed"] == 0


def test_alternating_and_changing_layouts_are_all_read():
    """Stretches of one shape, then another, then a mix: what is learned from one must not colour the next."""
    choose = random.Random(3)
    pair = Pair("binance-usdm")
    number = 0
    for _ in range(150):
        shapes = choose.sample(range(12), choose.choice([1, 1, 2, 3, 12]))
        for _ in range(choose.choice([1, 5, 40, 100])):
            number += 1
            price, shape = f"{choose.randrange(10**7)}.{choose.randrange(100):02d}", choose.choice(shapes)
            keys = [
                f'"u":{number}',
                f'"s":"S{choose.randrange(50)}"',
                f'"b":"{price}"',
                '"B":"1.5"',
                f'"a":"{price}5"',
                '"A":"2"',
            ]
            keys = keys[shape % 6 :] + keys[: shape % 6]
            body = '{"e":"bookTicker",' + ",".join(keys) + f',"T":{number},"E":1' + "}"
            pair.decode((body if shape < 6 else f'{{"stream":"x@bookTicker","data":{body}}}').encode(), number)
    pair.hold()


# ---- hypothesis: values of every type in every field of a schema that uses every feature ----

TEXTS = st.sampled_from(["A", "B", "币", "", "é\u0301", "x" * 20, "btc@depth", "@", "0", "sell", "S", "buy", "q"])
PRICE_TEXTS = st.from_regex(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
NUMBER_TEXTS = st.one_of(PRICE_TEXTS, st.integers(0, 2**64).map(str), st.sampled_from(["0", "-0", "1", "17"]))
ODD = st.one_of(
    st.none(),
    st.booleans(),
    TEXTS,
    NUMBER_TEXTS,
    st.just([]),
    st.just({}),
    st.sampled_from(["1.", ".5", "+1", "nan", "1e999", " 1", "2021-04-17T16:43:30.244075Z", "1723161256.5"]),
    st.integers(-5, 2**65),
    st.floats(allow_nan=False, allow_infinity=False),
)


def mostly(usual):
    """The usual value nine times of ten."""
    return st.one_of(*[usual] * 9, ODD)


NUMBER = mostly(st.one_of(NUMBER_TEXTS, st.floats(0, 1e9, allow_nan=False), st.integers(0, 10**6)))
SEQ = mostly(st.integers(0, 40))
TIME = mostly(st.one_of(st.integers(0, 2 * 10**12), st.integers(0, 50), st.integers(0, 10**12).map(str)))
SYMBOL = mostly(st.sampled_from(["A", "B", "币A", "LONGSYMBOLNAME-USD-PERP"]))
LEVELS = mostly(st.lists(mostly(st.lists(NUMBER, min_size=2, max_size=3)), max_size=4))
OBJECTS = mostly(st.lists(mostly(st.fixed_dictionaries({"p": NUMBER, "q": NUMBER})), max_size=3))
ISO = mostly(st.datetimes().filter(lambda d: 1700 < d.year < 2200).map(lambda d: d.isoformat() + "Z"))


def message(kind: str, required: dict, **optional) -> st.SearchStrategy:
    return st.fixed_dictionaries({"e": st.just(kind), **required}, optional=optional)


MESSAGES = st.one_of(
    message("q", {"s": SYMBOL}, b=NUMBER, B=NUMBER, a=NUMBER, A=NUMBER, u=SEQ, T=TIME),
    message("t", {"s": SYMBOL}, p=NUMBER, q=NUMBER, m=mostly(st.booleans()), t=SEQ, T=TIME),
    message(
        "ts",
        {
            "s": SYMBOL,
            "d": mostly(
                st.lists(mostly(st.fixed_dictionaries({"p": NUMBER}, optional={"t": SEQ, "m": TEXTS})), max_size=3)
            ),
        },
    ),
    message("ps", {"d": mostly(st.lists(mostly(st.tuples(SYMBOL, NUMBER, NUMBER, ISO).map(list)), max_size=3))}),
    message("d", {"s": SYMBOL}, b=LEVELS, a=LEVELS, U=SEQ, u=SEQ, T=TIME),
    message("o", {"s": SYMBOL, "x": mostly(st.fixed_dictionaries({}, optional={"a": OBJECTS, "b": OBJECTS}))}),
    message("m", {}, p=NUMBER, i=NUMBER, r=NUMBER),
    message(
        "k",
        {
            "s": SYMBOL,
            "k": mostly(st.fixed_dictionaries({"o": NUMBER}, optional={"v": NUMBER, "n": NUMBER, "t": NUMBER})),
        },
    ),
    st.fixed_dictionaries({"id": SYMBOL, "bp": NUMBER, "ap": NUMBER}, optional={"x": ODD}),
    message("c", {}, s=SYMBOL),
    st.fixed_dictionaries({"result": ODD}),
    st.dictionaries(TEXTS, ODD, max_size=3),
)
STREAMS = mostly(st.sampled_from(["btcusdt@mark", "eth@x@y", "plain"]))
DOCUMENTS = st.one_of(
    MESSAGES,
    st.fixed_dictionaries({"stream": STREAMS, "data": MESSAGES}),
    st.fixed_dictionaries({"data": mostly(MESSAGES), "stream": STREAMS}),
    st.lists(MESSAGES, max_size=4),
    st.fixed_dictionaries({"stream": STREAMS, "data": st.lists(MESSAGES, max_size=4)}),
    ODD,
)


@given(documents=st.lists(DOCUMENTS, max_size=12), seed=st.integers(0, 2**32))
@settings(max_examples=350, deadline=None)
def test_any_document_is_read_as_the_oracle_reads_it(documents, seed):
    choose = random.Random(seed)
    pair = Pair(EVERYTHING)
    for recv_ns, document in enumerate(documents):
        plain = json.dumps(document, ensure_ascii=False).encode()
        payload = rewritten(plain, choose) if choose.random() < 0.4 else plain
        for _ in range(choose.choice([1, 1, 2])):
            pair.decode(payload, recv_ns)
    pair.hold()


@given(frames=st.lists(st.sampled_from([*FRAMES, *USDM, *SPOT]), max_size=20), seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_known_frames_in_any_order_are_read_as_the_oracle_reads_them(frames, seed):
    choose = random.Random(seed)
    for provider in ("binance-usdm", "binance-spot"):
        pair = Pair(provider)
        for recv_ns, frame in enumerate(frames):
            pair.decode(rewritten(frame, choose) if choose.random() < 0.3 else frame, recv_ns)
        pair.hold()
