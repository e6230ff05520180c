"""Malformed is exactly what orjson refuses: whatever the bytes, the schema, the buffer, and without a read outside it.

The judge is orjson; what the decoder makes of well-formed frames is test_decode's business.
"""

import array

import kernels
import orjson
import pytest
from corpus import (
    BAD_NUMBERS,
    BAD_STRINGS,
    DEPTH,
    FRAMES,
    GOOD_NUMBERS,
    GOOD_STRINGS,
    MALFORMED,
    OVERFLOWS,
    QUOTE,
    SPOT_QUOTE,
    WELL_FORMED,
    in_every_place,
    nested,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import fastfeed
from fastfeed.schema import Message, Schema

SHAPES = Schema(
    Message("trade", symbol="s", price="p", size="q", side="m", seq="t", event_time=("T", "ms")),
    Message("quote", symbol="s", bid="b", ask="a", seq="u", event_time=("I", "iso")),
)
SCHEMAS = {
    "binance-usdm": "binance-usdm",
    "binance-spot": "binance-spot",
    "nothing it knows": Schema(Message("quote", match={"no": "match"}, symbol="no", bid="no")),
    "everything it reads": Schema(Message("trade", symbol="s", price="zz", size="a", seq="u", event_time=("T", "ms"))),
    "an array of levels": Schema(Message("depth", symbol="s", bids="zz", asks="a", seq="u")),
    "an array of trades": Schema(Message("trade", each="zz", symbol="^.s", price="a", size="b")),
    "shapes": SHAPES,
    "positions": Schema(Message("quote", each="zz", symbol="^.s", bid=0, ask=1)),
}


def is_well_formed(payload: bytes) -> bool:
    try:
        orjson.loads(payload)
    except orjson.JSONDecodeError:
        return False
    return True


class Decoders:
    """A decoder per schema and kernel, given the same payloads; each frame is counted once, and on the right side."""

    def __init__(self, names=SCHEMAS) -> None:
        self.decoders = {
            (name, kernel): decoder
            for name in names
            for kernel, decoder in kernels.decoders(SCHEMAS[name], max_symbols=1 << 14).items()
        }
        self.readers = [decoder.ring.reader() for decoder in self.decoders.values()]

    def judge(self, payload: bytes, buffer=None) -> None:
        well_formed = is_well_formed(payload)
        given_buffer = payload if buffer is None else buffer
        for name, decoder in self.decoders.items():
            before, published = decoder.stats(), decoder.ring.published
            made = decoder.decode(given_buffer)
            after = decoder.stats()
            counted = {key: after[key] - before[key] for key in ("data", "control", "unknown", "malformed")}
            shown = payload if len(payload) < 400 else payload[:200] + b" ... " + payload[-200:]
            assert after["frames"] - before["frames"] == 1, (name, shown)
            assert sum(counted.values()) == 1, (name, shown, counted)
            assert counted["malformed"] == (not well_formed), (name, shown, counted, f"orjson accepts: {well_formed}")
            assert made == after["ticks"] - before["ticks"] == decoder.ring.published - published, (name, shown)
            if not counted["data"]:
                assert made == 0, (name, shown, counted)


@pytest.fixture(scope="module")
def decoders() -> Decoders:
    return Decoders()


def test_the_corpus_is_what_it_says():
    assert [document[:200] for document in WELL_FORMED if not is_well_formed(document)] == []
    assert [document[:200] for document in MALFORMED if is_well_formed(document)] == []
    assert len(WELL_FORMED) > 1000
    assert len(MALFORMED) > 2000


def test_a_well_formed_document_is_never_malformed(decoders):
    for document in WELL_FORMED:
        decoders.judge(document)


def test_a_malformed_document_is_always_malformed(decoders):
    for document in MALFORMED:
        decoders.judge(document)


def test_a_number_that_overflows_anywhere_makes_the_document_malformed(decoders):
    for number in OVERFLOWS:
        for document in in_every_place(number.encode()):
            assert not is_well_formed(document)
            decoders.judge(document)


def test_the_same_digits_in_a_string_are_not_malformed(decoders):
    for number in BAD_NUMBERS + GOOD_NUMBERS:
        for document in in_every_place(b'"' + number.encode() + b'"'):
            assert is_well_formed(document)
            decoders.judge(document)


@pytest.mark.parametrize("depth", [1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257, 1022, 1023, 1024, 1025, 1026, 5000])
def test_depth_is_limited_as_orjson_limits_it(decoders, depth):
    for opener, closer in ((b"[", b"]"), (b'{"zz":', b"}"), (b'[{"zz":', b"}]"), (b'[0,{"a":1,"zz":', b"}]")):
        for inner in (b"", b"1", b'"x"', b"[]", b"{}"):
            document = nested(depth, inner, opener, closer)
            decoders.judge(document)
            decoders.judge(SPOT_QUOTE[:-1] + b',"zz":' + document + b"}")
            decoders.judge(document[:-1])


def test_a_frame_cut_anywhere_is_malformed(decoders, guarded):
    for frame in FRAMES:
        for end in range(len(frame)):
            decoders.judge(frame[:end], guarded.before_the_end(frame[:end]))
            decoders.judge(frame[end:], guarded.after_the_start(frame[end:]))


def test_every_bit_of_a_frame_may_flip(decoders, guarded):
    for frame in FRAMES:
        for position in range(len(frame)):
            for bit in range(8):
                damaged = bytearray(frame)
                damaged[position] ^= 1 << bit
                decoders.judge(bytes(damaged), guarded.before_the_end(bytes(damaged)))


def test_every_byte_of_a_frame_may_be_any_of_the_dangerous_ones(decoders):
    dangerous = b'\x00\x1f "\\/{}[]:,.-+0eEnt\x7f\x80\xc2\xed\xf4\xff'
    for frame in (QUOTE, DEPTH):
        for position in range(len(frame)):
            for byte in dangerous:
                decoders.judge(frame[:position] + bytes([byte]) + frame[position + 1 :])


def test_a_byte_may_be_missing_or_doubled(decoders):
    for frame in FRAMES:
        for position in range(len(frame)):
            decoders.judge(frame[:position] + frame[position + 1 :])
            decoders.judge(frame[:position] + frame[position : position + 1] + frame[position:])


@pytest.mark.parametrize("shift", range(0, 65, 7))
def test_faults_are_found_at_every_alignment(decoders, guarded, shift):
    padding = b" " * shift
    for string in BAD_STRINGS + GOOD_STRINGS:
        for filler in range(0, 40, 3):
            document = padding + b'{"s":"' + b"f" * filler + string + b'"}'
            decoders.judge(document, guarded.before_the_end(document))


def test_no_byte_outside_the_payload_is_read(decoders, guarded):
    for document in [d for d in WELL_FORMED + MALFORMED if len(d) < 200_000]:
        decoders.judge(document, guarded.before_the_end(document))
        decoders.judge(document, guarded.after_the_start(document))


def test_no_byte_outside_the_payload_decides(guarded):
    """A document cut short is malformed also where the missing bytes still lie in memory behind it."""
    decoders = Decoders(["binance-usdm", "everything it reads"])
    for frame in FRAMES:
        whole = memoryview(frame)
        for end in range(len(frame)):
            decoders.judge(frame[:end], whole[:end])
    for cut, rest in (
        (b"[1", b"]"),
        (b"12", b"3"),
        (b'"a', b'"'),
        (b"tru", b"e"),
        (b"1.", b"5"),
        (b"1e", b"5"),
        (b"-", b"1"),
    ):
        decoders.judge(cut, memoryview(cut + rest)[: len(cut)])
    number = memoryview(b"1234567890")
    for end in range(1, 10):
        decoders.judge(bytes(number[:end]), number[:end])


def test_a_layout_that_could_not_be_learned_accepts_nothing():
    """Frames of few known shapes teach the decoder; then one too long to be learned; then all its beginnings."""
    decoder = fastfeed.Decoder(Schema(Message("quote", symbol="s", bid="b")))
    learned = [b'{"s":"A","b":"1"%s}' % (b',"x%d":"y"' % number * number) for number in range(8)]
    for keys in (30, 40, 50, 63):
        long = b'{"s":"A","b":"1",' + b",".join(b'"a key of twenty bytes %02d":"v"' % n for n in range(keys)) + b"}"
        for frame in learned * 3 + [long]:
            assert decoder.decode(frame) == 1
        for end in range(len(long)):
            decoder.decode(learned[end % 4])
            assert decoder.decode(long[:end]) == 0, long[:end]


TAUGHT = [
    '{"s":%s,"p":%s,"q":%s,"m":%s,"t":%s,"T":%s}',
    '{"T":%s,"t":%s,"m":%s,"q":%s,"p":%s,"s":%s}',
    '{"s":%s,"b":%s,"a":%s,"zz":%s,"u":%s,"I":%s}',
]
VALUES = ['"A"', "7", "1.5", '"1.5"', "true", "false", "null", '"2021-04-17T16:43:30Z"', '""', "-1", "0", "1e2"]
BAD_VALUES = [
    '"A',
    "tru",
    "01",
    "1.",
    "[1",
    '"\\x"',
    "nul",
    "-",
    "+1",
    "1e",
    '"\x00"',
    "nan",
    '"a""',
    "1 1",
    "truefalse",
    "[",
    "{}}",
]


@pytest.mark.parametrize("template", TAUGHT)
def test_whatever_types_were_learned_bad_values_are_found(template):
    """Each place of a frame, learned with a value of each type, then given bad values and values of other types."""
    usual = ['"A"', '"1.5"', '"2.5"', "true", "7", "1700000000000"]
    for place in range(6):
        for learned in VALUES:
            decoders = Decoders(["shapes"])
            values = [*usual[:place], learned, *usual[place + 1 :]]
            for _ in range(3):
                decoders.judge((template % tuple(values)).encode())
            for other in VALUES + BAD_VALUES:
                for _ in range(2):
                    decoders.judge((template % tuple(values)).encode())
                decoders.judge((template % (*usual[:place], other, *usual[place + 1 :])).encode())


@pytest.mark.parametrize("kernel", fastfeed.kernels())
def test_numbers_as_symbols_are_learned_as_strictly(kernel):
    decoder = kernels.with_kernel(kernel, SHAPES)
    for number in range(50):
        decoder.decode(b'{"s":%d,"p":"1","q":"2","m":true,"t":%d,"T":1}' % (number % 5, number))
    assert decoder.decode(b'{"s":"nan","p":"1","q":"2","m":true,"t":99,"T":1}') == 1
    assert decoder.prices.symbols[-1] == "nan"
    for bad in (b"tru", b"01", b"[1", b'"x', b"nan", b"1.", b'x"'):
        assert decoder.decode(b'{"s":%s,"p":"1","q":"2","m":true,"t":99,"T":1}' % bad) == 0, bad
    assert decoder.stats()["malformed"] == 7


def test_what_was_learned_from_good_frames_accepts_no_bad_one(decoders):
    """Every frame damaged in every way right after the decoder has seen it whole, many times."""
    for frame in FRAMES:
        for position in range(len(frame)):
            for damaged in (
                frame[:position] + b"\x00" + frame[position + 1 :],
                frame[:position] + b'"' + frame[position:],
                frame[:position] + b" " + frame[position:],
                frame[:position] + b"0" + frame[position:],
                frame[:position] + frame[position + 1 :],
            ):
                decoders.judge(frame)
                decoders.judge(damaged)


def test_a_malformed_frame_leaves_no_tick_behind():
    """Not even those before the fault: neither in the ring, nor in the table, nor as a symbol or sequence."""
    schema = Schema(Message("trade", each="trades", symbol="s", price="p", seq="t"))
    decoder = fastfeed.Decoder(schema)
    ticks, rows = decoder.ring.reader(), decoder.prices.reader()
    fine = b'{"trades":[{"s":"A","p":1,"t":1},{"s":"B","p":2,"t":1},{"s":"C","p":3,"t":1}]'
    for fault in (
        b"",
        b"]",
        b"}}",
        b',"x":1e400}',
        b',"x":"\xff"}',
        b',"x":"\\ud800"}',
        b',"x":tru}',
        b',"x":01}',
        b'} "',
    ):
        assert decoder.decode(fine + fault) == 0
    assert decoder.stats()["malformed"] == 9
    assert decoder.stats()["ticks"] == 0
    assert decoder.ring.published == 0
    assert len(ticks.read()) == 0
    assert len(rows.read()) == 0
    assert len(decoder.prices) == 0
    assert decoder.decode(fine + b"}") == 3
    assert decoder.stats()["duplicates"] == 0
    assert list(decoder.prices.symbols) == ["A", "B", "C"]


@pytest.mark.parametrize(
    "document", [b"", b" ", b"{", b'{"b":"\xff"}', b"[1e400]", b"[1,]", nested(1025), b'{"a":"\\x"}']
)
def test_check_says_why_and_where(document):
    with pytest.raises(fastfeed.DecodeError) as raised:
        fastfeed.check(document)
    assert 0 <= raised.value.offset <= len(document)
    assert bytes(raised.value.window) in document


def test_check_agrees_with_orjson():
    for document in WELL_FORMED:
        assert fastfeed.check(document) is None
    for document in MALFORMED:
        with pytest.raises(fastfeed.DecodeError):
            fastfeed.check(document)


def test_check_names_the_offset_of_the_fault():
    with pytest.raises(fastfeed.DecodeError) as raised:
        fastfeed.check(b'{"a":1,"b":tru}')
    assert 11 <= raised.value.offset <= 14
    with pytest.raises(fastfeed.DecodeError) as raised:
        fastfeed.check(b'{"a":"' + b"x" * 500 + b'\xff","b":1}')
    assert raised.value.offset == 506
    assert len(raised.value.window) <= 128


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda b: array.array("B", b)])
def test_any_contiguous_buffer_is_taken(wrap):
    decoder = fastfeed.Decoder("binance-usdm")
    assert decoder.decode(wrap(QUOTE)) == 1
    assert decoder.prices["BTCUSDT"]["bid"] == 61800.20


def test_a_buffer_of_wider_items_is_taken_as_its_bytes():
    decoder = fastfeed.Decoder("binance-usdm")
    padded = QUOTE + b" " * (-len(QUOTE) % 8)
    assert decoder.decode(array.array("Q", padded)) == 1


@pytest.mark.parametrize("payload", [memoryview(QUOTE)[::2], memoryview(QUOTE)[::-1]])
def test_a_buffer_with_holes_is_refused(payload):
    with pytest.raises((BufferError, ValueError)):
        fastfeed.Decoder("binance-usdm").decode(payload)


@pytest.mark.parametrize("payload", ["text", 5, None, [b"{}"]])
def test_what_is_no_buffer_is_refused(payload):
    with pytest.raises(TypeError):
        fastfeed.Decoder("binance-usdm").decode(payload)


def test_decode_many_counts_as_decode_does():
    one, many = fastfeed.Decoder("binance-usdm"), fastfeed.Decoder("binance-usdm")
    documents = [d for d in WELL_FORMED + MALFORMED if len(d) < 1000] + list(FRAMES)
    made = sum(one.decode(document, recv_ns=7) for document in documents)
    assert many.decode_many(documents, recv_ns=7) == made > 0
    assert many.stats() == one.stats()


# ---- hypothesis: mutations of real frames, and JSON of any shape ----

PIECES = st.sampled_from(
    [
        *FRAMES,
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"\\",
        b"\\u",
        b"\\ud800",
        b"0",
        b"-",
        b".",
        b"e",
        b"1e400",
        b"null",
        b"true",
        b'"b"',
        b'"b":',
        b" ",
        b"\n",
        b"\x00",
        b"\xff",
        b"\xc3",
        b"\xc3\xa9",
        b"\xed\xa0\x80",
    ]
)


@st.composite
def spliced_frames(draw) -> bytes:
    """Real frames cut, joined, repeated and overwritten."""
    frame = draw(st.sampled_from(FRAMES))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(frame)))
        stop = draw(st.integers(start, min(len(frame), start + draw(st.sampled_from([0, 1, 4, 40])))))
        piece = draw(st.one_of(PIECES, st.binary(max_size=8), st.just(frame[start:stop] * 2)))
        frame = frame[:start] + piece + frame[stop:]
    return frame


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)


@given(payload=spliced_frames())
@settings(max_examples=600, deadline=None)
def test_spliced_frames_are_judged_as_orjson_judges_them(decoders, guarded, payload):
    decoders.judge(payload, guarded.before_the_end(payload))


@given(payload=st.binary(max_size=64))
@settings(max_examples=250, deadline=None)
def test_any_bytes_are_judged_as_orjson_judges_them(decoders, guarded, payload):
    decoders.judge(payload, guarded.before_the_end(payload))


@given(value=JSON_VALUES, cut=st.integers(0, 3))
@settings(max_examples=250, deadline=None)
def test_json_of_any_shape_is_judged_as_orjson_judges_it(decoders, guarded, value, cut):
    import json

    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        payload = text.encode("utf-8", "surrogatepass")
        payload = payload[: max(0, len(payload) - cut)]
        decoders.judge(payload, guarded.before_the_end(payload))


@given(text=st.from_regex(r"-?[0-9]{0,25}\.?[0-9]{0,25}([eE][+-]?[0-9]{0,4})?", fullmatch=True))
@settings(max_examples=300, deadline=None)
def test_anything_like_a_number_is_judged_as_orjson_judges_it(decoders, guarded, text):
    for document in (text.encode(), b'{"zz":' + text.encode() + b"}"):
        decoders.judge(document, guarded.before_the_end(document))
