"""Declared binary records: numbers, texts and repeating groups in fixed order, as SBE and older feeds have them.

Only describes, and refuses with a `ConfigError` what no frame could be read by. `fastfeed.schema` gives the items their
meaning; bytes are read by the machine room alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

from fastfeed.errors import ConfigError

_SIGNED, _UNSIGNED, _REAL, _BOOL, _TEXT, _SKIP, _GROUP = range(7)  # as in ext/schema.pxd
_NUMBERS: Final[dict[str, tuple[int, int]]] = {
    **{f"i{8 * size}": (_SIGNED, size) for size in (1, 2, 4, 8)},
    **{f"u{8 * size}": (_UNSIGNED, size) for size in (1, 2, 4, 8)},
    "f32": (_REAL, 4),
    "f64": (_REAL, 8),
    "bool": (_BOOL, 1),
}
_STEP_KEEP, _STEP_MANTISSA, _STEP_DECIMAL, _STEP_FLOAT, _STEP_WHOLE, _STEP_COUNT, _STEP_SIDE, _STEP_ITEM = range(8)
_PRICE, _INTEGER, _TIME, _SIDE = 0, 1, 11, 13  # two actions and two fields
_LENGTHS: Final = {"u8": 1, "u16": 2, "u32": 4}
_NO_NODE: Final = 0xFFFF
_NO_MESSAGE: Final = 0xFFFF
_NO_REGISTER: Final = 0xFF
_REGISTERS: Final = 32
_WHOLE: Final = (_SIGNED, _UNSIGNED)


def _length(type_: str | None, what: str) -> int:
    if type_ is None:
        return 0
    if type_ not in _LENGTHS:
        raise ConfigError(f"{what} is {type_!r}: use one of {', '.join(_LENGTHS)}")
    return _LENGTHS[type_]


def _check_extent(what: str, size: int | None, prefix: str | None) -> None:
    if (size is None) == (prefix is None):
        raise ConfigError(f"{what} needs either size, in bytes, or prefix, the type of the length in front of it")
    if size is not None and not 1 <= size < 2**32:
        raise ConfigError(f"{what} of size={size!r}: use at least one byte")
    _length(prefix, f"prefix of {what}")


@dataclass(frozen=True)
class Number:
    """A number called `name`, of `type` i8 to i64, u8 to u64, f32, f64 or bool (one byte, 0 or 1).

    An f32 is widened to a double, which is exact: 150.26 as f32 is the price 150.25999450683594. With `exponent`, ten's
    power or the name of an earlier whole number that holds it, the number is a mantissa: mantissa times ten to the
    exponent, correctly rounded, the same double that `float` gives for those digits. `null` is the value that means
    "explicitly no value".
    """

    name: str
    type: str
    exponent: int | str | None = field(default=None, kw_only=True)
    null: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.type not in _NUMBERS:
            raise ConfigError(f"Number {self.name!r} of type {self.type!r}: use one of {', '.join(_NUMBERS)}")
        if _NUMBERS[self.type][0] not in _WHOLE and (self.exponent is not None or self.null is not None):
            raise ConfigError(f"Number {self.name!r}: exponent and null are for whole numbers, not for {self.type}")
        if isinstance(self.exponent, int) and not -400 <= self.exponent <= 400:
            raise ConfigError(f"Number {self.name!r}: exponent {self.exponent} is beyond what a double holds")


@dataclass(frozen=True)
class Text:
    """UTF-8 text called `name`: of a fixed `size`, NULs and spaces at its end cut off, or with its length in front.

    `prefix` is the type of that length: u8, u16 or u32. Text that is no UTF-8 makes its frame malformed.
    """

    name: str
    size: int | None = field(default=None, kw_only=True)
    prefix: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_extent(f"Text {self.name!r}", self.size, self.prefix)


@dataclass(frozen=True)
class Skip:
    """Bytes nobody reads: `size` of them, or as many as the length in front of them, of type `prefix`, says."""

    size: int | None = None
    prefix: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_extent("Skip", self.size, self.prefix)


@dataclass(frozen=True)
class Group:
    """A repeating group called `name`: in front the length of one element and how many there are, then the elements.

    `block` is the type of that length, None where there is none and an element is as long as its `items`; `count` is
    the type of the number of elements. Elements longer than their items are read all the same; in shorter ones the last
    items are absent. `items` are of fixed size.
    """

    name: str
    items: tuple[Number | Text | Skip, ...]
    block: str | None = field(default="u16", kw_only=True)
    count: str = field(default="u16", kw_only=True)

    def __post_init__(self) -> None:
        _length(self.block, f"block of Group {self.name!r}")
        _length(self.count, f"count of Group {self.name!r}")
        if not self.items:
            raise ConfigError(f"Group {self.name!r} has no items")
        for item in self.items:
            if not isinstance(item, (Number, Text, Skip)) or getattr(item, "prefix", None) is not None:
                raise ConfigError(f"{item!r} in Group {self.name!r}: its items must be of fixed size")


Item = Number | Text | Skip | Group


@dataclass(frozen=True)
class Binding:
    """A record that is known, without a look at its values, to be one message: which field each item is.

    `targets` maps (group or "", item) to (field, action) as in ext/schema.pxd; `group` is the one whose elements are
    ticks; `is_iso`: the time is a text.
    """

    message: int
    group: str | None
    is_iso: bool
    targets: Mapping[tuple[str, str], tuple[int, int]]


@dataclass(frozen=True)
class Binary:
    """The layout of binary frames, for `Schema(encoding=...)`.

    `records` maps the values of the header number `select` to what such a record has after the `header`; a tuple of
    values stands for each of them. A frame is one record, or, with `count`, the number of records (of that type) and
    then these. `length` names the header number that tells how long a whole record is, `block` the one that tells how
    long its part up to the first group or text with its length in front is. `order` of the bytes is little or big.

    What the header's lengths cover and the items do not is passed over: newer versions append. Where the last items of
    a block are missing, as in an older version, they are absent. Bytes behind a record or a batch make the frame
    malformed, except behind a single record of a version later than `version=(header number, newest known)`. A record
    of a type that is not declared is unknown. Nothing reads beyond the end of what its length says.
    """

    records: Mapping[int | tuple[int, ...], tuple[Item, ...]]
    header: tuple[Number | Text | Skip, ...] = field(kw_only=True)
    select: str = field(kw_only=True)
    count: str | None = field(default=None, kw_only=True)
    length: str | None = field(default=None, kw_only=True)
    block: str | None = field(default=None, kw_only=True)
    version: tuple[str, int] | None = field(default=None, kw_only=True)
    order: str = field(default="little", kw_only=True)

    def __post_init__(self) -> None:
        _length(self.count, "count")
        if self.order not in ("little", "big"):
            raise ConfigError(f"byte order {self.order!r}: use little or big")
        if not self.records:
            raise ConfigError("a Binary needs at least one record")
        whole = {item.name for item in self.header if isinstance(item, Number) and _NUMBERS[item.type][0] in _WHOLE}
        version = None if self.version is None else self.version[0]
        named = {"select": self.select, "length": self.length, "block": self.block, "version": version}
        for option, name in named.items():
            if name is not None and name not in whole:
                raise ConfigError(f"{option} is {name!r}: name a whole number of the header, {sorted(whole)}")
        seen: set[int] = set()
        for value in (value for key in self.records for value in _values(key)):
            if value in seen:
                raise ConfigError(f"two records for {self.select} {value}")
            seen.add(value)
        _Layout(self, {}).compile()  # refuses what cannot be compiled now, not on first use

    @cached_property
    def names(self) -> frozenset[str]:
        """What a message may refer to: the names of the header and of all records."""
        return frozenset(item.name for items in (self.header, *self.records.values()) for item in _named(items))

    @cached_property
    def groups(self) -> dict[str, frozenset[str]]:
        """The names in the elements of each group."""
        found: dict[str, frozenset[str]] = {}
        for group in (item for items in self.records.values() for item in items if isinstance(item, Group)):
            names = {item.name for item in _named(group.items)}
            found[group.name] = found.get(group.name, frozenset()) | names
        return found

    def program(self, children: list[dict[str, int]], bindings: Mapping[int, Binding]) -> dict[str, Any]:
        """What the machine room runs.

        `children`: per node of the schema, the node each name leads to. `bindings`: the records, by the value of
        `select`, that are known to be one message.
        """
        layout = _Layout(self, bindings).compile()
        columns: dict[str, int] = layout["columns"]
        width = len(columns) + 1
        flat = [_NO_NODE] * (len(children) * width)
        for number, below in enumerate(children):
            for name, child in below.items():
                if name in columns:
                    flat[number * width + columns[name]] = child
        return {**layout, "columns": flat, "width": width}


def _values(key: int | tuple[int, ...]) -> tuple[int, ...]:
    return key if isinstance(key, tuple) else (key,)


def _named(items: Iterable[Item]) -> Iterator[Number | Text | Group]:
    return (item for item in items if not isinstance(item, Skip))


class _Layout:
    """Items in one row, numbers that others need in registers, a column per name; column 0 has no name."""

    def __init__(self, binary: Binary, bindings: Mapping[int, Binding]) -> None:
        self.binary = binary
        self.bindings = bindings
        self.targets: Mapping[tuple[str, str], tuple[int, int]] = {}
        self.items: list[dict[str, Any]] = []
        self.columns: dict[str, int] = {}
        self.registers: dict[tuple[str, str], int] = {}
        self.steps: list[dict[str, Any]] = []
        self.parts: list[tuple[int, int, int, int]] = []
        self.is_iso = False

    def compile(self) -> dict[str, Any]:
        b = self.binary
        lengths = (b.select, b.length, b.block, None if b.version is None else b.version[0])
        needed = {*lengths, *(exponent for items in b.records.values() for exponent in _exponents(items))}
        header: dict[str, int] = {}
        self.items = self.row(b.header, "", header, needed)
        _, header_parts = self.divide(0, len(b.header))
        is_plain = header_parts == 1 and all(step["what"][0] == _STEP_KEEP for step in self.steps)
        records = [
            self.record(value, items, dict(header), needed)
            for key, items in b.records.items()
            for value in _values(key)
        ]
        if len(self.registers) > _REGISTERS:
            raise ConfigError(f"{len(self.registers)} lengths and exponents, more than {_REGISTERS}")
        return {
            "items": self.items,
            "records": records,
            "columns": self.columns,
            "parts": self.parts,
            "steps": self.steps,
            "header": (len(b.header), header_parts, is_plain and self.parts[0][3] == _NO_NODE),
            "count": _length(b.count, "count"),
            "registers": tuple(_NO_REGISTER if n is None else self.registers["", n] for n in lengths),
            "newest": 0 if b.version is None else b.version[1],
            "is_big": b.order == "big",
        }

    def record(
        self, value: int, items: tuple[Item, ...], known: dict[str, int], needed: set[str | None]
    ) -> dict[str, Any]:
        """The record of one value of `select`; its items are appended."""
        binding = self.bindings.get(value)
        self.targets = {} if binding is None else binding.targets
        self.is_iso = binding is not None and binding.is_iso
        first = len(self.items)
        self.items += self.row(items, "", known, needed)
        for at, item in enumerate(items, first):
            if isinstance(item, Group):
                self.items[at] = self.group(item, known)
        start = len(self.parts)
        present, parts = self.divide(first, len(items))
        bound = (_NO_MESSAGE, False, 0) if binding is None else (binding.message, binding.group is not None, present)
        return {"shape": (value, first, len(items)), "bound": bound, "parts": (start, parts)}

    def divide(self, first: int, items: int) -> tuple[int, int]:
        """Append the parts and steps of a row of items: the fields it always gives as bits, and how many parts."""
        present = size = 0
        before, start = len(self.parts), len(self.steps)
        for at in range(first, first + items):
            item = self.items[at]
            if item["shape"][2]:
                self.parts.append((size, start, len(self.steps) - start, at))
                size, start = 0, len(self.steps)
                continue
            present |= self.step(at, size)
            size += item["shape"][1]
        if size or len(self.parts) == before:
            self.parts.append((size, start, len(self.steps) - start, _NO_NODE))
        return present, len(self.parts) - before

    def step(self, at: int, offset: int) -> int:
        """Append the step that reads an item at this offset of its part, if any; the field it gives, as a bit."""
        item = self.items[at]
        (type_, size, *_), (field_, action) = item["shape"], item["bound"]
        kept, scale, scaled, exponent = item["number"]
        # An unsigned number of eight bytes may be beyond a signed one: it is read the long way.
        whole = type_ == _SIGNED or (type_ == _UNSIGNED and size < 8)
        operation = _STEP_ITEM
        if item["null"] is None and (kept == _NO_REGISTER or field_ == _NO_FIELD[0]):
            if kept != _NO_REGISTER:
                operation = _STEP_KEEP
            elif action == _PRICE and type_ == _REAL:
                operation = _STEP_FLOAT
            elif action == _PRICE and whole:
                operation = _STEP_WHOLE if not scaled else _STEP_DECIMAL if type_ == _SIGNED else _STEP_ITEM
            elif whole and not scaled and (action == _INTEGER or (field_ == _TIME and not self.is_iso)):
                operation = _STEP_COUNT
            elif type_ == _BOOL and field_ == _SIDE:
                operation = _STEP_SIDE
        if field_ == _NO_FIELD[0] and kept == _NO_REGISTER and type_ != _TEXT:
            return 0
        if operation == _STEP_DECIMAL and size == 8 and scale != _NO_REGISTER and self.binary.order == "little":
            operation = _STEP_MANTISSA
        what = (operation, max(0, 64 - 8 * size), type_ == _SIGNED, kept, scale, field_)
        self.steps.append({"what": what, "where": (at, offset, exponent)})
        return 0 if operation in (_STEP_ITEM, _STEP_KEEP) else 1 << field_

    def column(self, name: str) -> int:
        return self.columns.setdefault(name, len(self.columns) + 1)

    def group(self, group: Group, outside: dict[str, int]) -> dict[str, Any]:
        """The group itself; its items are appended."""
        first = len(self.items)
        inside: dict[str, int] = {}
        items = self.row(group.items, group.name, inside, set(_exponents(group.items)), outside)
        self.items += items
        start, present, offset = len(self.steps), 0, 0
        for at, item in enumerate(items, first):
            present |= self.step(at, offset)
            offset += item["shape"][1]
        size = sum(item["shape"][1] for item in items)
        prefix, block = _LENGTHS[group.count], _length(group.block, "block")
        shape = (_GROUP, size, prefix, block, self.column(group.name), first, len(items))
        bound = self.targets.get(("", group.name), _NO_FIELD)
        steps = (start, len(self.steps) - start, present)
        has_text = any(isinstance(item, Text) for item in group.items)
        return {**_NOTHING, "shape": shape, "bound": bound, "steps": steps, "has_text": has_text}

    def row(
        self,
        items: tuple[Item, ...],
        scope: str,
        known: dict[str, int],
        needed: set[str | None],
        outside: Mapping[str, int] = MappingProxyType({}),
    ) -> list[dict[str, Any]]:
        """Items compiled; their names and registers are added to `known`."""
        row = []
        for item in items:
            if not isinstance(item, Skip) and item.name in known:
                raise ConfigError(f"two items called {item.name!r} in one record")
            row.append(self.item(item, scope, {**outside, **known}, needed))
            if not isinstance(item, Skip):
                known[item.name] = row[-1]["number"][0]
        return row

    def item(self, item: Item, scope: str, earlier: dict[str, int], needed: set[str | None]) -> dict[str, Any]:
        if isinstance(item, Group):
            return _NOTHING
        if not isinstance(item, Number):
            prefix = _length(item.prefix, "prefix")
            if isinstance(item, Skip):
                return {**_NOTHING, "shape": (_SKIP, item.size or 0, prefix, 0, 0, 0, 0)}
            shape = (_TEXT, item.size or 0, prefix, 0, self.column(item.name), 0, 0)
            return {**_NOTHING, "shape": shape, "bound": self.targets.get((scope, item.name), _NO_FIELD)}
        type_, size = _NUMBERS[item.type]
        kept = scale = _NO_REGISTER
        if isinstance(item.exponent, str):
            scale = earlier.get(item.exponent, _NO_REGISTER)
            if scale == _NO_REGISTER:
                raise ConfigError(f"exponent {item.exponent!r} of {item.name!r}: name an earlier whole number")
        if item.name in needed and type_ in _WHOLE:
            kept = self.registers.setdefault((scope, item.name), len(self.registers))
        exponent = item.exponent if isinstance(item.exponent, int) else 0
        return {
            "shape": (type_, size, 0, 0, self.column(item.name), 0, 0),
            "number": (kept, scale, item.exponent is not None, exponent),
            "null": item.null,
            "bound": self.targets.get((scope, item.name), _NO_FIELD),
            "steps": (0, 0, 0),
            "has_text": False,
        }


_NO_FIELD: Final = (0xFF, 0)
_NOTHING: Final[dict[str, Any]] = {
    "shape": (),
    "number": (_NO_REGISTER, _NO_REGISTER, False, 0),
    "null": None,
    "bound": _NO_FIELD,
    "steps": (0, 0, 0),
    "has_text": False,
}


def _exponents(items: Iterable[Item]) -> Iterator[str]:
    """The names that hold the exponent of another number among items or their groups' items."""
    for item in items:
        if isinstance(item, Group):
            yield from _exponents(item.items)
        elif isinstance(item, Number) and isinstance(item.exponent, str):
            yield item.exponent
