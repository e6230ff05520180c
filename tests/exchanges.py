"""Declared binary exchanges for the tests: Binance's SBE streams and Intrinio's equities, as their protocols have them.

Declarations only, written from the protocols; the providers of the package are declared on their own.
"""

from fastfeed.binary import Binary, Group, Number, Skip, Text
from fastfeed.schema import Message, Schema

_LEVEL = (Number("price", "i64", exponent="price_exponent"), Number("size", "i64", exponent="size_exponent"))
_EXPONENTS = (Number("price_exponent", "i8"), Number("size_exponent", "i8"))
_BOOK = (Group("bids", _LEVEL), Group("asks", _LEVEL), Text("symbol", prefix="u8"))
# spot_stream 1:0. Trade groups count in four bytes, the others in two; the symbol is always last.
SBE_LAYOUT = Binary(
    {
        10000: (
            Number("event_time", "i64"),
            Number("transact_time", "i64"),
            *_EXPONENTS,
            Group("trades", (Number("id", "i64"), *_LEVEL, Number("is_buyer_maker", "bool")), count="u32"),
            Text("symbol", prefix="u8"),
        ),
        10001: (
            Number("event_time", "i64"),
            Number("update_id", "i64"),
            *_EXPONENTS,
            Number("bid", "i64", exponent="price_exponent"),
            Number("bid_size", "i64", exponent="size_exponent"),
            Number("ask", "i64", exponent="price_exponent"),
            Number("ask_size", "i64", exponent="size_exponent"),
            Text("symbol", prefix="u8"),
        ),
        10002: (Number("event_time", "i64"), Number("update_id", "i64"), *_EXPONENTS, *_BOOK),
        10003: (
            Number("event_time", "i64"),
            Number("first_update_id", "i64"),
            Number("update_id", "i64"),
            *_EXPONENTS,
            *_BOOK,
        ),
    },
    header=(Number("block", "u16"), Number("template", "u16"), Number("schema", "u16"), Number("version", "u16")),
    select="template",
    block="block",
    version=("version", 0),
)
# As the JSON schema of binance-spot reads them: its bookTicker has no time.
SBE_MESSAGES = (
    Message(
        "quote",
        match={"template": 10001},
        symbol="symbol",
        bid="bid",
        bid_size="bid_size",
        ask="ask",
        ask_size="ask_size",
        seq="update_id",
    ),
    Message(
        "trade",
        match={"template": 10000},
        each="trades",
        symbol="^.symbol",
        price="price",
        size="size",
        side="is_buyer_maker",
        seq="id",
        event_time=("^.transact_time", "us"),
    ),
    Message(
        "depth",
        match={"template": 10003},
        symbol="symbol",
        bids="bids",
        asks="asks",
        level=("price", "size"),
        first_seq="first_update_id",
        seq="update_id",
        event_time=("event_time", "us"),
    ),
    Message(
        "depth",
        match={"template": 10002},
        channel="book",
        symbol="symbol",
        bids="bids",
        asks="asks",
        level=("price", "size"),
        seq="update_id",
        event_time=("event_time", "us"),
        snapshot=True,
    ),
    Message("control", has=("result", "id")),
)
SBE = Schema(*SBE_MESSAGES, encoding=SBE_LAYOUT, name="binance-sbe-like")

_HEAD = (Text("symbol", prefix="u8"), Number("subprovider", "u8"), Skip(2), Number("price", "f32"))
_SIDE = (*_HEAD, Number("size", "u32"), Number("time", "u64"), Text("condition", prefix="u8"))
INTRINIO_LAYOUT = Binary(
    {
        0: (*_SIDE[:-1], Number("total_volume", "u32"), _SIDE[-1]),
        (1, 2): _SIDE,
    },
    header=(Number("type", "u8"), Number("length", "u8")),
    select="type",
    length="length",
    count="u8",
)
INTRINIO = Schema(
    Message("trade", match={"type": 0}, symbol="symbol", price="price", size="size", event_time=("time", "ns")),
    Message("quote", match={"type": 1}, symbol="symbol", ask="price", ask_size="size", event_time=("time", "ns")),
    Message("quote", match={"type": 2}, symbol="symbol", bid="price", bid_size="size", event_time=("time", "ns")),
    encoding=INTRINIO_LAYOUT,
    name="intrinio-like",
)
