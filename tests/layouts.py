"""A slow twin of the binary decoder: reads bytes by a declared layout into the documents the oracle understands.

Shares nothing with the compiled interpreter but the declaration. Every read is a slice that must be whole.
"""

import struct
from collections.abc import Callable

from oracle import Number as Digits
from oracle import Real

from fastfeed.binary import Binary, Group, Number, Skip, Text

SIZES = {"u8": 1, "u16": 2, "u32": 4}


class Span:
    """Bytes not yet read; ValueError where there are too few."""

    def __init__(self, data: bytes, order: str) -> None:
        self.data = data
        self.order = order

    def take(self, size: int) -> bytes:
        if size > len(self.data):
            raise ValueError("too short")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def count(self, type_: str) -> int:
        return int.from_bytes(self.take(SIZES[type_]), self.order)


def size_of(item: Number | Text | Skip) -> int:
    if isinstance(item, Number):
        return 1 if item.type == "bool" else int(item.type[1:]) // 8
    return item.size


def number(item: Number, data: bytes, order: str, known: dict) -> object:
    if item.type == "bool":
        return {0: False, 1: True}.get(data[0], b"neither")
    if item.type[0] == "f":
        return Real.of(struct.unpack(("<" if order == "little" else ">") + {4: "f", 8: "d"}[len(data)], data)[0])
    value = int.from_bytes(data, order, signed=item.type[0] == "i")
    if value == item.null:
        return None
    if item.exponent is None:
        return Digits(value)
    exponent = known.get(item.exponent) if isinstance(item.exponent, str) else item.exponent
    return b"no exponent" if exponent is None else Real(f"{value}e{exponent}")


def read_items(items: tuple, span: Span, into: dict, block: Span | None, outside: dict) -> None:
    """Add the items to `into`. Where a block ends before its items do, the rest of those of fixed size are absent."""
    for item in items:
        if isinstance(item, Group):
            block = None
            size = span.count(item.block) if item.block else sum(size_of(inner) for inner in item.items)
            elements = []
            count = span.count(item.count)
            if count and (size == 0 or size * count > len(span.data)):
                raise ValueError("a group that does not fit")
            for _ in range(count):
                whole = Span(span.take(size), span.order)
                elements.append({})
                read_items(item.items, whole, elements[-1], whole, {**outside, **into})
            into[item.name] = elements
            continue
        if not isinstance(item, Number) and item.prefix is not None:
            block = None
            data = span.take(span.count(item.prefix))
        else:
            source = span if block is None else block
            if block is not None and size_of(item) > len(block.data):
                block.data = b""
                continue
            data = source.take(size_of(item))
        if isinstance(item, Text):
            text = data.decode("utf-8")
            into[item.name] = text if item.prefix else text.rstrip("\0 ")
        elif isinstance(item, Number):
            into[item.name] = number(item, data, span.order, {**outside, **into})


def reader(layout: Binary) -> Callable[[bytes], object]:
    """payload -> the document (a list of them for a counted batch); ValueError if it is malformed."""
    records = {
        value: items for key, items in layout.records.items() for value in (key if isinstance(key, tuple) else (key,))
    }

    def read_record(span: Span) -> dict:
        start = span.data
        document: dict = {}
        read_items(layout.header, span, document, None, {})
        header = len(start) - len(span.data)
        body = span
        if layout.length is not None:
            size = int(document[layout.length])
            if size < header:
                raise ValueError("shorter than its header")
            body = Span(span.take(size - header), span.order)
        items = records.get(int(document[layout.select]))
        if layout.block is not None:
            block = Span(body.take(int(document[layout.block])), span.order)
        if items is None:
            body.data = b""
        elif layout.block is not None:
            read_items(items, body, document, block, {})
        else:
            read_items(items, body, document, None, {})
        if layout.version is not None and int(document[layout.version[0]]) > layout.version[1]:
            body.data = b""
        return document

    def read(payload: bytes) -> object:
        span = Span(payload, layout.order)
        if layout.count is None:
            if not payload:
                raise ValueError("empty")
            document: object = read_record(span)
        else:
            document = [read_record(span) for _ in range(span.count(layout.count))]
        if span.data:
            raise ValueError("bytes left over")
        return document

    return read
