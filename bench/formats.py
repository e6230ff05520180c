"""One quote in each wire format, the content being equal: JSON, MessagePack and an SBE record; and as stocks come.

Makes bytes only. Needs msgpack.
"""

import json
import random
import struct
from dataclasses import replace
from decimal import Decimal

import frames
import msgpack

from fastfeed.binary import Binary, Number, Text
from fastfeed.schema import Message, Schema

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


FORMATS = {
    "json": (Schema(MESSAGE), lambda quote: json.dumps(quote, separators=(",", ":")).encode()),
    "msgpack": (Schema(MESSAGE, encoding="msgpack"), as_msgpack),
    "sbe": (Schema(replace(MESSAGE, match={"e": 10001}), encoding=SBE), as_sbe),
}


def array(name: str, packed: list[bytes]) -> bytes:
    """Messages of a format as one array of them; there is none of records."""
    if name == "json":
        return b"[" + b",".join(packed) + b"]"
    return b"\xdc" + struct.pack(">H", len(packed)) + b"".join(packed)


def stock_quotes(count: int) -> list[bytes]:
    """Polygon's quotes of 500 stocks, about 130 bytes, without the array they come in."""
    choose = random.Random(5)
    names = [name.removesuffix("USDT")[:4] for name in frames.symbols()]
    weights = [1 / rank for rank in range(1, len(names) + 1)]
    made = []
    for number, name in enumerate(choose.choices(names, weights, k=count)):
        bid, exchanges, lots = (
            choose.uniform(5, 900),
            choose.choices(range(1, 22), k=2),
            choose.choices(range(1, 40), k=2),
        )
        quote = {
            "ev": "Q", "sym": name, "bx": exchanges[0], "bp": round(bid, 2), "bs": lots[0], "ax": exchanges[1],
            "ap": round(bid + 0.01, 2), "as": lots[1], "c": 1, "i": [604], "t": frames.TIME_MS + number // 4,
            "q": 50_000_000 + 3 * number, "z": choose.randint(1, 3),
        }  # fmt: skip
        made.append(json.dumps(quote, separators=(",", ":")).encode())
    return made
