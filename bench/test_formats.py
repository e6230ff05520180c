"""What does one quote cost in each wire format, the content being equal? JSON, MessagePack and an SBE record."""

import json
import struct
from decimal import Decimal

import frames
import msgpack
import pytest

import fastfeed
from fastfeed.binary import Binary, Number, Text
from fastfeed.schema import Message, Schema

COUNT = 20_000
MESSAGE = Message(
    "quote",
    match={"e": "bookTicker"},
    symbol="s",
    bid="b",
    bid_size="B",
    ask="a",
    ask_size="A",
    seq="u",
    event_time=("T", "ms"),
)
SBE = Binary(
    {
        10001: (
            Number("T", "i64"),
            Number("u", "i64"),
            Number("price_exponent", "i8"),
            Number("size_exponent", "i8"),
            Number("b", "i64", exponent="price_exponent"),
            Number("B", "i64", exponent="size_exponent"),
            Number("a", "i64", exponent="price_exponent"),
            Number("A", "i64", exponent="size_exponent"),
            Text("s", prefix="u8"),
        )
    },
    header=(Number("block", "u16"), Number("e", "u16"), Number("schema", "u16"), Number("version", "u16")),
    select="e",
    block="block",
)


def as_msgpack(quote: dict) -> bytes:
    numbers = {key: float(quote[key]) for key in "bBaA"}
    return msgpack.packb({**quote, **numbers})


def as_sbe(quote: dict) -> bytes:
    mantissas = [int(Decimal(quote[key]).scaleb(8)) for key in "bBaA"]
    symbol = quote["s"].encode()
    head = struct.pack("<HHHHqqbb4q", 50, 10001, 1, 0, quote["T"], quote["u"], -8, -8, *mantissas)
    return head + bytes([len(symbol)]) + symbol


def quotes() -> list[dict]:
    return [json.loads(frame) for frame in frames.quotes(COUNT)]


FORMATS = {
    "json": (Schema(MESSAGE), lambda quote: json.dumps(quote, separators=(",", ":")).encode()),
    "msgpack": (Schema(MESSAGE, encoding="msgpack"), as_msgpack),
    "sbe": (
        Schema(
            Message(
                "quote",
                match={"e": 10001},
                **{name: getattr(MESSAGE, name) for name in ("symbol", "bid", "bid_size", "ask", "ask_size", "seq")},
                event_time=MESSAGE.event_time,
            ),
            encoding=SBE,
        ),
        as_sbe,
    ),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("batch", [1, 50], ids=["single", "arrays of 50"])
def test_decode_cost(benchmark, name, batch):
    schema, pack = FORMATS[name]
    made = quotes()
    if batch == 1:
        payloads = [pack(quote) for quote in made]
    elif name == "sbe":
        pytest.skip("an SBE frame is one quote")
    else:
        packed = [made[i : i + batch] for i in range(0, COUNT, batch)]
        payloads = [b"[" + b",".join(map(pack, part)) + b"]" if name == "json" else
                    b"\xdc" + struct.pack(">H", len(part)) + b"".join(map(pack, part)) for part in packed]  # fmt: skip
    decoder = fastfeed.Decoder(schema)
    benchmark.extra_info["quotes"] = COUNT
    assert benchmark.pedantic(decoder.decode_many, args=(payloads,), rounds=15, warmup_rounds=2) == COUNT
