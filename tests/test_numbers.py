"""Prices are float(text), bit for bit, as a number and as a string; times and sequences are exact integers.

The judge is CPython's float, never orjson's values (it rounds some halfway cases of more than 768 digits wrongly).
"""

import math
import random
import struct
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction

import kernels
import pytest
from corpus import BAD_NUMBERS, GOOD_NUMBERS, OVERFLOWS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastfeed.schema import Message, Schema


def bits(value: float) -> bytes:
    return struct.pack("<d", value)


class Prices:
    """Reads one text as price of a trade, in every way the wire may write it, with every kernel."""

    def __init__(self) -> None:
        schema = Schema(Message("trade", symbol="s", price="p", size="q"))
        self.decoders = kernels.decoders(schema)
        self.decoder = next(iter(self.decoders.values()))
        self.readers = [(decoder, decoder.ring.reader()) for decoder in self.decoders.values()]

    def decode(self, payload: bytes) -> float | None:
        """The price of the one tick, or None where the frame made none; the same for all kernels."""
        prices = []
        for decoder, reader in self.readers:
            made = decoder.decode(payload)
            ticks = reader.read()
            assert len(ticks) == made <= 1
            prices.append(float(ticks["price"][0]) if made else None)
        assert len({None if price is None else bits(price) for price in prices}) == 1, (payload[:200], prices)
        return prices[0]

    def ways(self, text: str) -> dict[str, float | None]:
        number = text.encode()
        return {
            "string": self.decode(b'{"s":"A","p":"%s","q":"1"}' % number),
            "number": self.decode(b'{"s":"A","p":%s,"q":1}' % number),
            "last": self.decode(b'{"s":"A","q":1,"p":"%s"}' % number),
            "spaced": self.decode(b'{"s":"A","p": %s , "q":1}' % number),
            "end": self.decode(b'{"s":"A","q":1,"p":%s}' % number),
        }

    def hold(self, text: str) -> None:
        expected = float(text)
        for way, got in self.ways(text).items():
            assert got is not None, (way, text[:120], len(text))
            assert bits(got) == bits(expected), (way, text[:120], len(text), got, expected)


@pytest.fixture(scope="module")
def prices() -> Prices:
    return Prices()


def test_the_corpus_of_good_numbers_is_read_exactly(prices):
    for text in GOOD_NUMBERS:
        prices.hold(text)


def test_what_is_no_number_is_never_a_price(prices):
    for text in BAD_NUMBERS:
        for way, got in prices.ways(text).items():
            assert got is None, (way, text[:100], got)


def test_a_string_that_is_no_number_makes_the_message_unknown(prices):
    before = prices.decoder.stats()
    texts = [t for t in BAD_NUMBERS if t.isascii()] + [
        "",
        " ",
        " 1",
        "1 ",
        "1\\n",
        "x",
        "1x",
        "0x10",
        "1,5",
        "1'000",
        "½",
    ]
    for text in texts:
        assert prices.decode(b'{"s":"A","p":"%s","q":1}' % text.encode()) is None, text[:100]
    after = prices.decoder.stats()
    assert after["unknown"] - before["unknown"] == len(texts)
    assert after["malformed"] == before["malformed"]


def test_an_infinite_string_makes_the_message_unknown(prices):
    before = prices.decoder.stats()
    for text in OVERFLOWS:
        assert prices.decode(b'{"s":"A","p":"%s","q":1}' % text.encode()) is None
    assert prices.decoder.stats()["unknown"] - before["unknown"] == len(OVERFLOWS)


def test_escaped_digits_are_digits(prices):
    assert prices.decode(rb'{"s":"A","p":"\u0031\u0032.5","q":1}') == 12.5
    assert prices.decode(rb'{"s":"A","p":"\u0031x","q":1}') is None


@pytest.mark.parametrize("text", ["-0", "-0.0", "-0e5", "-0.000", "-0e-400"])
def test_minus_zero_keeps_its_sign(prices, text):
    prices.hold(text)
    assert math.copysign(1, prices.ways(text)["number"]) == -1


def test_every_length_of_mantissa_and_place_of_the_point_is_read_exactly(prices):
    digits = "9876543210123456789012345"
    for length in range(1, 26):
        for whole in range(1, length + 1):
            text = digits[:whole] + ("." + digits[whole:length] if whole < length else "")
            prices.hold(text)
            prices.hold("-" + text)
            prices.hold("0." + "0" * whole + digits[:length])
            prices.hold(text + "0" * 7)
            prices.hold(("9" * whole) + ("." + "9" * (length - whole) if whole < length else ""))


def test_every_power_of_ten_is_read_exactly(prices):
    for exponent in range(-345, 309):
        for mantissa in ("1", "9", "1.7", "123456789", "9007199254740993", "18446744073709551615"):
            text = f"{mantissa}e{exponent}"
            if math.isfinite(float(text)):
                prices.hold(text)


def exact(value: Fraction, exponent: bool) -> str:
    """All digits of a dyadic fraction."""
    with localcontext() as context:
        context.prec = 1200
        decimal = Decimal(value.numerator) / Decimal(value.denominator)
        return format(decimal, "e" if exponent else "f")


def with_digits_appended(text: str, digits: str) -> str:
    mantissa, e, exponent = text.partition("e")
    return mantissa + ("" if "." in mantissa else ".") + digits + e + exponent


@given(
    pattern=st.integers(1, 0x7FEFFFFFFFFFFFFE),
    tail=st.sampled_from(["", "0", "1", "000000000000000000001", "0" * 800, "0" * 800 + "1"]),
)
@settings(max_examples=250, deadline=None)
@example(pattern=1, tail="")
@example(pattern=0x000FFFFFFFFFFFFF, tail="1")
@example(pattern=0x0010000000000000, tail="0" * 800)
@example(pattern=0x7FEFFFFFFFFFFFFE, tail="1")
def test_halfway_between_two_doubles_is_rounded_as_float_rounds_it(prices, pattern, tail):
    low = struct.unpack("<d", struct.pack("<Q", pattern))[0]
    high = math.nextafter(low, math.inf)
    halfway = (Fraction(low) + Fraction(high)) / 2
    scientific = exact(halfway, exponent=True)
    prices.hold(with_digits_appended(scientific, tail))
    if len(scientific) < 60:
        prices.hold(with_digits_appended(exact(halfway, exponent=False), tail))
    # One unit of the last digit below: just under halfway.
    mantissa, _, exponent = scientific.partition("e")
    just_below = str(int(mantissa.replace(".", "")) - 1)
    prices.hold(f"{just_below}e{int(exponent) - len(mantissa.partition('.')[2])}")


@given(value=st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=300, deadline=None)
def test_what_repr_writes_is_read_back(prices, value):
    prices.hold(repr(value))
    prices.hold(f"{value:.17e}")


@given(value=st.floats(1e-9, 1e12), decimals=st.integers(0, 12))
@settings(max_examples=300, deadline=None)
def test_prices_as_venues_write_them_are_read_exactly(prices, value, decimals):
    prices.hold(f"{value:.{decimals}f}")


@given(text=st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True))
@settings(max_examples=600, deadline=None)
def test_any_json_number_is_read_exactly_or_not_at_all(prices, text):
    if math.isfinite(float(text)):
        prices.hold(text)
    else:
        assert set(prices.ways(text).values()) == {None}


@given(value=st.floats(0, 2.2250738585072014e-308, allow_subnormal=True))
@settings(max_examples=200, deadline=None)
def test_subnormals_are_read_exactly(prices, value):
    prices.hold(repr(value))
    prices.hold(f"{value:.400f}")


def test_many_random_prices_are_read_exactly(prices):
    choose = random.Random(20240808)
    for _ in range(20_000):
        whole, fraction = choose.randint(1, 10), choose.randint(0, 10)
        text = str(choose.randrange(10**whole)) + (
            f".{choose.randrange(10**fraction):0{fraction}d}" if fraction else ""
        )
        got = prices.decode(b'{"s":"A","p":"%s","q":1}' % text.encode())
        assert got is not None
        assert bits(got) == bits(float(text)), text


def test_an_exponent_too_long_to_count_is_still_right(prices):
    zeros = 100_018
    assert set(prices.ways("0." + "0" * zeros + "1e1000190").values()) == {None}
    prices.hold("0." + "0" * zeros + "1e100019")
    prices.hold("1" + "0" * zeros + f"e-{zeros}")
    prices.hold("1e-1000190")


def test_a_position_of_the_number_in_its_frame_does_not_change_it(prices):
    for filler in range(80):
        payload = b'{"x":"%s","s":"A","p":12345.678901,"q":"1"}' % (b"f" * filler)
        assert prices.decode(payload) == 12345.678901
        assert prices.decode(payload.replace(b"12345.678901", b'"12345.678901"')) == 12345.678901


# ---- integers ----

SEQUENCES = Schema(Message("quote", symbol="s", bid="b", seq="u", sequence="none"))


def only(schema: Schema, payload: bytes, name: str) -> int | None:
    """This field of the one tick made of the payload, the same for all kernels and on every repeat."""
    found = set()
    for decoder in kernels.decoders(schema, max_symbols=4, ring_capacity=16).values():
        ticks = decoder.ring.reader()
        for _ in range(3):
            found.add(int(ticks.read()[name][-1]) if decoder.decode(payload) else None)
    (value,) = found
    return value


def sequence_of(text: str) -> int | None:
    return only(SEQUENCES, b'{"s":"A","b":1,"u":%s}' % text.encode(), "seq")


@given(value=st.integers(0, 2**63 - 1))
@example(value=2**53 + 1)
@example(value=2**63 - 1)
@settings(max_examples=300, deadline=None)
def test_sequences_are_exact_integers(value):
    assert sequence_of(str(value)) == value
    assert sequence_of(f'"{value}"') == value


@pytest.mark.parametrize(
    "text", [str(2**63), str(2**64 - 1), str(2**64), str(10**30), "1.5", "1.0", "1e3", '"x"', '"1.5"', '""', '"01"']
)
def test_a_sequence_that_is_no_int64_makes_the_message_unknown(text):
    assert sequence_of(text) is None


@pytest.mark.parametrize("text", ["true", "[]", "{}", "[1]", '{"a":1}'])
def test_a_sequence_of_another_type_makes_the_message_unknown(text):
    assert sequence_of(text) is None


# ---- times ----


def event_ns_of(unit: str, text: str) -> int | None:
    schema = Schema(Message("quote", symbol="s", bid="b", event_time=("T", unit)))
    return only(schema, b'{"s":"A","b":1,"T":%s}' % text.encode(), "event_ns")


@pytest.mark.parametrize(("unit", "scale"), [("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1)])
@pytest.mark.parametrize("time_s", [0, 1, 1_723_161_256, 4_102_444_800])
def test_integer_times_are_nanoseconds_exactly(unit, scale, time_s):
    value = time_s * 10**9 // scale + (7 if scale < 10**9 else 0)
    assert event_ns_of(unit, str(value)) == value * scale
    assert event_ns_of(unit, f'"{value}"') == value * scale


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("1723161256", 1723161256 * 10**9),
        ("1723161256313", 1723161256313 * 10**6),
        ("1723161256313123", 1723161256313123 * 10**3),
        ("1723161256313123456", 1723161256313123456),
    ],
)
def test_the_magnitude_tells_the_unit_of_an_auto_time(text, expected_ns):
    assert event_ns_of("auto", text) == expected_ns


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("1618678133.365913", 1618678133365913000),
        ("1618678133.3", 1618678133300000000),
        ("1618678133.123456789", 1618678133123456789),
        ("1618678133.000000001", 1618678133000000001),
    ],
)
def test_fractions_of_seconds_are_exact(text, expected_ns):
    assert event_ns_of("s", f'"{text}"') == expected_ns
    assert event_ns_of("s", text) == expected_ns


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2021-04-17T16:43:30.244075Z", 1618677810244075000),
        ("2026-01-05T14:30:00.123456789Z", 1767623400123456789),
        ("2019-07-05T15:49:15.157000+00:00", 1562341755157000000),
        ("2019-01-30T13:33:45.383129126-05:00", 1548873225383129126),
        ("2017-09-02T17:05:49.25Z", 1504371949250000000),
        ("2014-11-07T08:19:28Z", 1415348368000000000),
        ("2024-02-29T23:59:59.999999999Z", 1709251199999999999),
        ("2000-02-29T12:00:00+05:30", 951805800000000000),
    ],
)
def test_iso_times_are_nanoseconds_exactly(text, expected_ns):
    assert event_ns_of("iso", f'"{text}"') == expected_ns


@given(
    moment=st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1)),
    offset=st.integers(-14 * 60, 14 * 60),
    digits=st.integers(0, 9),
)
@settings(max_examples=300, deadline=None)
def test_any_iso_time_is_read_exactly(moment, offset, digits):
    fraction = f"{moment.microsecond:06d}000"[:digits]
    sign, hours, minutes = "-" if offset < 0 else "+", *divmod(abs(offset), 60)
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") if moment.year >= 1000 else ""
    text += ("." + fraction if fraction else "") + f"{sign}{hours:02d}:{minutes:02d}"
    whole = (moment.replace(microsecond=0, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    expected_ns = (whole - offset * 60) * 10**9 + int((fraction or "0").ljust(9, "0"))
    assert event_ns_of("iso", f'"{text}"') == expected_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2021",
        "2021-04-17",
        "2021-13-01T00:00:00Z",
        "2021-00-01T00:00:00Z",
        "2021-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2021-04-31T00:00:00Z",
        "2021-04-00T00:00:00Z",
        "2021-04-17T24:00:00Z",
        "2021-04-17T16:60:00Z",
        "2021-04-17T16:43:30.Z",
        "2021-04-17T16:43:30Zx",
        "2021-04-17T16:43:30+5:00",
        "2021-04-17T16:43:30+05:60",
        "2021-04-17T16:43",
        "20210417T164330Z",
        "+021-04-17T16:43:30Z",
        "2021-4-17T16:43:30Z",
        " 2021-04-17T16:43:30Z",
        "2021-04-17T16:43:30.12a4Z",
        "2021-04-17T16:43:6 Z",
    ],
)
def test_what_is_no_iso_time_makes_the_message_unknown(text):
    assert event_ns_of("iso", f'"{text}"') is None


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "auto"])
@pytest.mark.parametrize("text", ["true", '"x"', '""', "[]", "{}", str(10**19), str(10**25)])
def test_what_is_no_time_makes_the_message_unknown(unit, text):
    assert event_ns_of(unit, text) is None


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "auto", "iso"])
def test_a_null_time_is_no_time(unit):
    assert event_ns_of(unit, "null") == 0


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_a_time_beyond_int64_nanoseconds_makes_the_message_unknown(unit):
    scale = {"s": 10**9, "ms": 10**6, "us": 10**3}[unit]
    largest = (2**63 - 1) // scale - 1
    assert event_ns_of(unit, str(largest)) == largest * scale
    assert event_ns_of(unit, str(largest + 2)) is None
