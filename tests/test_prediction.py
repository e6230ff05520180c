"""A frame or element like one seen before is not parsed, yet read as the oracle reads it: damaged, lengthened, its keys
reordered, anywhere in an array.

Every frame under test follows one of its layout, so that it is prediction that decides, and is read where it lies: as a
bytes object at the end of readable memory, or as in a connection's buffer, at its beginning and at its end.
"""

import random
import re
from itertools import pairwise

import kernels
import numpy as np
import pytest
from conftest import BEHIND
from corpus import BAD_NUMBERS, BAD_STRINGS, GOOD_NUMBERS, GOOD_STRINGS, QUOTE, SPOT_QUOTE, TRADE
from oracle import Decoder as Oracle
from oracle import assert_same

from fastfeed.records import TICK_DTYPE_PLAIN

BARE_QUOTE = (
    b'{"e":"bookTicker","u":400900241,"E":1767225600004,"T":1767225600001,"s":"BOOYJUSDT","b":"54467.2968",'
    b'"B":"5771.479","a":"54472.7436","A":"9930.486","st":1,"ps":"BOOYJUSDT"}'
)
BARE_TRADE = (
    b'{"e":"trade","E":1723161256322,"T":1723161256322,"s":"BTCUSDT","t":5266583935,"p":"61800.30","q":"0.006",'
    b'"X":"MARKET","m":false}'
)
LONG_NUMBER_QUOTE = (  # the number is for layout_take, and nothing is behind it
    b'{"e":"bookTicker","s":"BTCUSDT","b":"1.50","B":"2.5","a":"1.75","A":"3.5","T":1767225600001,"u":12345678901234560}'
)
BARE = [("binance-usdm", BARE_QUOTE), ("binance-usdm", BARE_TRADE), ("binance-spot", SPOT_QUOTE)]
ARRAY = b"[" + b",".join([BARE_QUOTE, BARE_TRADE, BARE_QUOTE]) + b"]"
KNOWN = [*BARE, *(("binance-usdm", frame) for frame in (LONG_NUMBER_QUOTE, QUOTE, TRADE, ARRAY))]


@pytest.fixture(params=["object", *(pytest.param(where, marks=pytest.mark.tree) for where in ("first", "last"))])
def read(request, guarded):
    """(decoder, payload) -> the ticks made, read from one of those places."""
    if request.param == "object":
        return lambda decoder, payload: decoder.decode(guarded.object_before_the_end(payload), recv_ns=7)
    module, at_the_end = request.getfixturevalue("inplace"), request.param == "last"
    return lambda decoder, payload: module.decode(
        decoder, guarded.lent(payload, at_the_end=at_the_end), len(payload), BEHIND, 7
    )


class Primed:
    """A decoder per kernel that has just read `like`, and the oracle."""

    def __init__(self, source: str, like: bytes, read) -> None:
        self.like, self.read = like, read
        self.decoders = kernels.decoders(source, max_symbols=4096)
        self.readers = [decoder.ring.reader() for decoder in self.decoders.values()]
        self.ticks = [np.empty(0, TICK_DTYPE_PLAIN) for _ in self.readers]
        self.oracle = Oracle(next(iter(self.decoders.values())).schema)

    def judge(self, *frames: bytes) -> None:
        for frame in frames:
            for payload in (self.like, frame):
                expected = self.oracle.decode(payload, 7)
                for kernel, decoder in self.decoders.items():
                    assert self.read(decoder, payload) == expected, (kernel, payload)
        for i, (decoder, reader) in enumerate(zip(self.decoders.values(), self.readers, strict=True)):
            assert reader.lost == 0
            self.ticks[i] = np.concatenate([self.ticks[i], reader.read().view(TICK_DTYPE_PLAIN)])
            assert_same(decoder, self.ticks[i], self.oracle)

    def predicted(self) -> list[int]:
        return [decoder.stats()["predicted"] for decoder in self.decoders.values()]


@pytest.fixture(params=KNOWN, ids=lambda known: known[1][:25].decode())
def primed(request, read) -> Primed:
    return Primed(*request.param, read)


@pytest.fixture(params=BARE, ids=lambda known: known[1][:24].decode())
def flat(request, read) -> Primed:
    return Primed(*request.param, read)


def members(frame: bytes) -> list[bytes]:
    return frame[1:-1].split(b",")


def joined(parts: list[bytes]) -> bytes:
    return b"{" + b",".join(parts) + b"}"


def test_any_bit_may_flip(primed):
    frame = primed.like
    primed.judge(
        *(frame[:i] + bytes([frame[i] ^ 1 << bit]) + frame[i + 1 :] for i in range(len(frame)) for bit in range(8))
    )


def test_any_byte_may_become_one_that_means_something(primed):
    frame = primed.like
    primed.judge(
        *(frame[:i] + bytes([byte]) + frame[i + 1 :] for i in range(len(frame)) for byte in b'\x00\x1f "\\,:{}.-0e\x80')
    )


def test_a_byte_may_be_missing_or_doubled(primed):
    frame = primed.like
    primed.judge(*(frame[:i] + frame[i + 1 :] for i in range(len(frame))))
    primed.judge(*(frame[:i] + frame[i : i + 1] + frame[i:] for i in range(len(frame))))


def test_a_frame_may_end_anywhere(primed):
    primed.judge(*(primed.like[:i] for i in range(len(primed.like))))
    primed.judge(*(primed.like + more for more in (b" ", b"}", b",", b"\0", primed.like)))


def test_a_text_may_be_shorter_than_a_vector(primed):
    """And have as many commas as the layout, which then lead anywhere but into it."""
    choose = random.Random(5)
    frames = []
    for size in range(40):
        for commas in range(min(size, 15) + 1):
            text = ["x"] * (size - commas) + [","] * commas
            choose.shuffle(text)
            frames += ["".join(text), "{" + "".join(text) + "}", '[{"u":' + "".join(text) + "},1]"]
    primed.judge(*(frame.encode() for frame in frames))


def test_a_value_may_be_anything(primed):
    """In the place of every number and every text: what is one, and what is not."""
    frame = primed.like
    quotes = [i for i, byte in enumerate(frame) if byte == 0x22]
    colons = [i for i, byte in enumerate(frame) if byte == 0x3A and frame[i + 1 : i + 2] not in (b'"', b"{")]
    # what has an exponent of six digits is too much for the oracle's times, and test_numbers' business
    numbers = [n.encode() for n in GOOD_NUMBERS + BAD_NUMBERS if len(n) < 40 and not re.search("[eE][+-]?[0-9]{6}", n)]
    strings = [s for s in GOOD_STRINGS + BAD_STRINGS if len(s) < 40]
    for at in colons:
        end = min(i for i in (frame.find(b",", at), frame.find(b"}", at)) if i > 0)
        primed.judge(*(frame[: at + 1] + number + frame[end:] for number in numbers))
    for start, end in pairwise(quotes):
        if frame[start - 1 : start] == b":":
            primed.judge(*(frame[: start + 1] + text + frame[end:] for text in [*numbers, *strings]))


@pytest.mark.parametrize("length", [*range(20), 31, 32, 33, 64, 200])
def test_values_of_any_length_are_read(primed, length):
    frame = primed.like
    for symbol in (b"BOOYJUSDT", b"BTCUSDT", b"BNBUSDT"):
        primed.judge(frame.replace(b'"' + symbol + b'"', b'"' + b"S" * length + b'"'))
    for price in (b"54467.2968", b"61800.30", b"25.35190000"):
        for digits in (b"7" * length, b"7" * length + b".5", b"0." + b"7" * length, b"1" + b"0" * length):
            primed.judge(frame.replace(price, digits))
    for number in (b"400900241", b"5266583935", b"12345678901234560"):
        primed.judge(frame.replace(number, b"7" * length))


@pytest.mark.parametrize("learned", [0, 15, 16, 17, 32, 33, 60, 120])
def test_frames_of_any_length_are_read(read, learned):
    """Those that lie in registers and those that are too long for it, whatever the length of the one they are like."""

    def padded(size: int, truth: bytes = b"true") -> bytes:
        return (
            b'{"e":"trade","x":"' + b"p" * size + b'","E":1723161256322,"T":1723161256322,"s":"BTCUSDT","t":5266583935,'
            b'"p":"61800.30","q":"0.006","y":12.50,"n":' + truth + b',"m":' + truth + b"}"
        )

    primed = Primed("binance-usdm", padded(learned), read)
    before = primed.predicted()
    sizes = [*range(40), *range(80, 124), 240, 700]
    primed.judge(*(padded(size) for size in sizes))
    assert all(now - then > 1.9 * len(sizes) for now, then in zip(primed.predicted(), before, strict=True))
    words = (b"false", b"true", b"null", b"tru", b"truee", b"xtrue", b"fals", b"falsee", b"True", b'"true"', b"1", b"")
    primed.judge(*(padded(learned, word) for word in words))


def test_members_in_any_order_are_predicted(flat):
    choose = random.Random(1)
    flat.judge(flat.like)
    before = flat.predicted()
    parts = members(flat.like)
    shuffled = [choose.sample(parts, len(parts)) for _ in range(300)]
    flat.judge(*map(joined, shuffled))
    names = list(flat.decoders)
    for kernel, was, now in zip(names, before, flat.predicted(), strict=True):
        if kernel not in ("scalar", "neon"):  # those know one order only
            # in place, frames are copied only once a layout has been learned that wants bytes in front
            assert 2 * len(shuffled) - 8 <= now - was <= 2 * len(shuffled), kernel


def test_members_in_another_order_must_all_be_there_once_and_be_the_same(flat):
    choose = random.Random(2)
    parts = members(flat.like)
    frames = []
    for _ in range(400):
        order = choose.sample(parts, len(parts))
        at = choose.randrange(len(order))
        other = choose.randrange(len(order))
        order[at] = choose.choice(
            [
                order[other],
                order[at][:-1],
                order[at] + b'"',
                order[at] + b"0",
                order[at].replace(b":", b": "),
                order[at].replace(b":", b":["),
                b"",
                b'"zz":1',
                order[at][1:],
                b" " + order[at],
                order[at].replace(b'"', b""),
                order[at].replace(b'"', b"'"),
                order[at].replace(b"e", b"f"),
            ]
        )
        frames.append(joined(order))
    frames += [joined(parts[1:]), joined([*parts, parts[0]]), joined(parts) + b"}", b"[" + joined(parts)[1:]]
    flat.judge(*frames)


def test_damage_is_seen_in_any_order(flat):
    choose = random.Random(3)
    parts = members(flat.like)
    frames = []
    for _ in range(1500):
        frame = bytearray(joined(choose.sample(parts, len(parts))))
        frame[choose.randrange(len(frame))] ^= 1 << choose.randrange(8)
        frames.append(bytes(frame))
    flat.judge(*frames)


def test_more_layouts_than_are_remembered_are_all_read(read):
    primed = Primed("binance-usdm", BARE_QUOTE, read)
    parts = members(BARE_QUOTE)
    strangers = [b'"z%d":%d' % (n, n) for n in range(20)]
    for number in range(2, 20):
        primed.judge(joined(parts + strangers[:number]), joined(strangers[:number] + parts), BARE_TRADE)


def test_elements_are_predicted(read):
    primed = Primed("binance-usdm", ARRAY, read)
    primed.judge(ARRAY)
    before = primed.predicted()
    primed.judge(b"[" + b", ".join([BARE_TRADE, BARE_QUOTE] * 300) + b"]", b"[" + BARE_QUOTE + b"]")
    for kernel, was, now in zip(primed.decoders, before, primed.predicted(), strict=True):
        assert now - was == 600 + 1 + 2 * 3, kernel


STRANGERS = [
    b'{"e":"bookTicker","u":400900241,"E":1767225600004,"T":1767225600001,"s":"BOO,JUSDT","b":"54467.2968",'
    b'"B":"5771.479","a":"54472.7436","A":"9930.486","st":1,"ps":"BOOYJUSDT"}',
    b'{"e":"bookTicker","s":"BTCUSDT"}',
    b'{"stream":"btcusdt@bookTicker","data":' + BARE_QUOTE + b"}",
    b'{"result":null,"id":7}',
    b'{"e":"unheard of","s":"a,b,c","x":[1,2,{"y":[]}]}',
    b"[" + BARE_QUOTE + b"]",
    BARE_QUOTE.replace(b":", b": ", 1),
    BARE_QUOTE.replace(b"BOOYJUSDT", b"B\\u004fOYJUSDT"),
    b"1",
    b'"a,b"',
    b"{}",
    b"null",
    b'{"z":"' + b",x" * 400 + b'"}',
]


def elements(choose: random.Random, count: int) -> list[bytes]:
    """So many that are alike, each with numbers of its own, and a stranger now and then."""
    made = []
    for number in range(count):
        like = choose.choice([BARE_QUOTE, BARE_QUOTE, BARE_TRADE])
        like = like.replace(b"400900241", b"%d" % (400900241 + number)).replace(b"5266583935", b"%d" % number)
        like = like.replace(b"54467", b"%d" % choose.randrange(10 ** choose.randrange(1, 7)))
        made.append(choose.choice(STRANGERS) if choose.random() < 0.04 else like)
    return made


@pytest.mark.parametrize("seed", range(6))
def test_arrays_of_any_length_are_read(read, seed):
    """Beyond the commas that are found at a time, and beyond what a place can tell; whole frames in between."""
    choose = random.Random(seed)
    primed = Primed("binance-usdm", ARRAY, read)
    for count in (1, 2, 44, 45, 46, 150, 700):
        gap = choose.choice([b",", b", ", b" ,\n  "])
        ends = choose.choice([(b"[", b"]"), (b"[", b" ]"), (b"[ ", b"]"), (b"[", b"]\n"), (b" [", b"]")])
        primed.judge(gap.join(elements(choose, count)).join(ends), BARE_QUOTE, b"[]", STRANGERS[2])


def test_of_a_damaged_array_nothing_is_left(read):
    choose = random.Random(4)
    primed = Primed("binance-usdm", ARRAY, read)
    frames = []
    for _ in range(300):
        frame = bytearray(b"[" + b",".join(elements(choose, 12)) + b"]")
        frame[choose.randrange(len(frame))] ^= 1 << choose.randrange(8)
        frames.append(bytes(frame))
    primed.judge(*frames)


def test_nothing_is_predicted_of_a_damaged_array(read):
    primed = Primed("binance-usdm", ARRAY, read)
    primed.judge(ARRAY)
    before = primed.predicted()
    for decoder in primed.decoders.values():
        read(decoder, ARRAY[:-1] + b",")
        assert decoder.stats()["malformed"] == 1
    assert primed.predicted() == before


def test_a_layout_is_learned_though_others_come_in_step_with_it(read):
    """More of them than are remembered, one of which always comes at the same place among frames that are parsed."""
    for decoder in kernels.decoders("binance-usdm").values():
        for number in range(8):
            decoder.decode_many([joined([*members(BARE_QUOTE), b'"z%d":%d' % (number, number)])] * 3)
        before = decoder.stats()["predicted"]
        ack = b'{"result":null,"id":7}'
        for _ in range(200):
            for frame in (ack, ack, BARE_TRADE, ack):
                read(decoder, frame)
        assert decoder.stats()["predicted"] - before > 100
