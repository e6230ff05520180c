"""Declarative message schemas: what an exchange sends, said in Python, compiled to the program the decoder runs.

Only describes. It parses no frame, knows no provider, and refuses a declaration it cannot compile with a `ConfigError`
that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final

from fastfeed import _core
from fastfeed.binary import Binary, Binding, Skip
from fastfeed.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Buffer

Ref = str | int
"""A key, a dotted path (`"data.p"`, numbers are positions: `"data.0"`), or a position in an array (`3`).

`"^."` in front looks one level out: from an element to its message, from a message to the envelope.
"""


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""As a `match` value: the key must not be there. Tells apart shapes of which one has a key more."""


class _Given:
    def __repr__(self) -> str:
        return "GIVEN"


GIVEN: Final = _Given()
"""As `symbol`: the message names none; who asked for it knows (a REST reply, see `Decoder.splice`).

A live frame is never recognised as such a message.
"""


@dataclass(frozen=True)
class Symbol:
    """A symbol that has to be cut out of a longer text, as from a stream name.

    `Symbol("^.stream", until="@", upper=True)`.
    """

    ref: Ref
    until: str | None = None
    upper: bool = False


_NUMBERS: Final[dict[str, tuple[str, ...]]] = {
    "quote": ("bid", "bid_size", "ask", "ask_size"),
    "trade": ("price", "size"),
    "correction": ("price", "size"),
    "mark": ("price", "index", "funding"),
    "depth": (),
    "bar": ("open", "high", "low", "close", "volume", "vwap", "trades", "start"),
    "control": (),
}
_KINDS: Final = {"quote": 1, "trade": 2, "depth": 3, "mark": 4, "bar": 5, "correction": 7, "control": 255}
_INTEGERS: Final = {"seq": 8, "first_seq": 9, "prev_seq": 10}
_TEXTS: Final = {"event_time": 11, "symbol": 12, "side": 13}
_LEVELS: Final = {"bids": 14, "asks": 15}
_CONDITIONS: Final = 16  # the field's number, beyond those that have a bit
_PRICE, _INTEGER, _TEXT, _LEVEL, _CONDITION = range(5)  # field actions, as in ext/schema.pxd
_PRESENT: Final = 6  # a match that asks for presence only, likewise
_NO_NODE: Final = 0xFFFF
_UNITS: Final = {"s": 0, "ms": 1, "us": 2, "ns": 3, "auto": 4, "iso": 5}
_RULES: Final = {"none": 0, "rising": 1, "contiguous": 2, "range": 3, "linked": 4, "connection": 5, "time": 6}
_SNAPSHOT: Final = 1
_ENCODINGS: Final = {"json": 0, "msgpack": 1}
_BINARY: Final = 2
MAX_NODES: Final = 512
MAX_CHANNELS: Final = 31
MAX_CONDITIONS: Final = 31


@dataclass(frozen=True)
class Message:
    """One kind of wire message: how to recognise it and where its fields are.

    `kind` is quote, trade, mark, depth, bar or control. `match` maps references to the values they must have (str, int,
    float, bool, None or `MISSING`); `has` names references that must be present. With neither, the message is
    recognised by all its references being present. Messages are tried in the order of the schema. `each` names an array
    of which every element is a tick (`"data"`, `"events[].tickers"`).

    `event_time` is a reference or `(reference, unit)`, unit s, ms, us, ns, iso or auto (by magnitude). `side` is a
    reference or `(reference, value that means the aggressor sold)`; without a value, true and words beginning with s
    mean it. `level` says where price and size are in one level of `bids` and `asks`. `sequence` is rising, contiguous,
    range, linked, connection, time or none; by default what the fields suggest. Elements of an `each` that share their
    message's `seq` share its verdict. A control message has no fields but `seq`: it makes no tick, but counts where the
    rule is connection. Strings in `null` mean "explicitly no value" wherever a number is expected. A quote or trade
    that is `whole` has no value where it leaves a number out; of others the row keeps the one it has. `channel` names
    the channel, by default its kind.

    `conditions` says where a trade's conditions are: an array, or one alone; `(reference, "chars")` reads every
    character of a text as one. A trade any of whose conditions is in `not_last` (texts and whole numbers, compared as
    in `match`) is flagged NOT_LAST: the last price of the row stays. No conditions, or null, is a trade like any other.

    A correction says what the trade told before as `seq` was in truth; one without `size`, that it did not happen. It
    moves no row.
    """

    kind: str
    match: Mapping[Ref, Any] = field(default_factory=dict, kw_only=True)
    has: tuple[Ref, ...] = field(default=(), kw_only=True)
    each: str | None = field(default=None, kw_only=True)
    channel: str | None = field(default=None, kw_only=True)
    symbol: Ref | Symbol | _Given | None = field(default=None, kw_only=True)
    bid: Ref | None = field(default=None, kw_only=True)
    bid_size: Ref | None = field(default=None, kw_only=True)
    ask: Ref | None = field(default=None, kw_only=True)
    ask_size: Ref | None = field(default=None, kw_only=True)
    price: Ref | None = field(default=None, kw_only=True)
    size: Ref | None = field(default=None, kw_only=True)
    side: Ref | tuple[Ref, str] | None = field(default=None, kw_only=True)
    bids: Ref | None = field(default=None, kw_only=True)
    asks: Ref | None = field(default=None, kw_only=True)
    level: tuple[Ref, Ref] = field(default=(0, 1), kw_only=True)
    open: Ref | None = field(default=None, kw_only=True)
    high: Ref | None = field(default=None, kw_only=True)
    low: Ref | None = field(default=None, kw_only=True)
    close: Ref | None = field(default=None, kw_only=True)
    volume: Ref | None = field(default=None, kw_only=True)
    vwap: Ref | None = field(default=None, kw_only=True)
    trades: Ref | None = field(default=None, kw_only=True)
    start: Ref | None = field(default=None, kw_only=True)
    index: Ref | None = field(default=None, kw_only=True)
    funding: Ref | None = field(default=None, kw_only=True)
    seq: Ref | None = field(default=None, kw_only=True)
    first_seq: Ref | None = field(default=None, kw_only=True)
    prev_seq: Ref | None = field(default=None, kw_only=True)
    event_time: Ref | tuple[Ref, str] | None = field(default=None, kw_only=True)
    sequence: str | None = field(default=None, kw_only=True)
    snapshot: bool = field(default=False, kw_only=True)
    whole: bool = field(default=False, kw_only=True)
    null: tuple[str, ...] = field(default=(), kw_only=True)
    conditions: Ref | tuple[Ref, str] | None = field(default=None, kw_only=True)
    not_last: tuple[str | int, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ConfigError(f"unknown message kind {self.kind!r}: use one of {', '.join(_KINDS)}")
        allowed = {*_NUMBERS[self.kind], *_INTEGERS, "symbol", "event_time"}
        allowed |= {"trade": {"side"}, "depth": {*_LEVELS}}.get(self.kind, set())
        if self.kind == "control":
            allowed = {"seq"}
        given = {f.name for f in fields(self) if f.name in _FIELD_NAMES and getattr(self, f.name) is not None}
        if wrong := sorted(given - allowed):
            usable = ", ".join(sorted(allowed)) if self.kind != "control" else "match, has and seq only"
            raise ConfigError(f"a {self.kind} message has no field {wrong[0]!r}: use {usable}")
        if self.kind == "control":
            if not self.match and not self.has:
                raise ConfigError("a control message needs match or has, else every frame would be one")
            if self.sequence not in (None, "none", "connection"):
                raise ConfigError(
                    f"a control message of sequence {self.sequence!r}: it has no stream but its connection"
                )
        elif self.symbol is None:
            raise ConfigError(f"a {self.kind} message needs symbol: every tick belongs to one")
        elif not given - {"symbol", "event_time", *_INTEGERS}:
            wanted = ", ".join(_NUMBERS[self.kind]) or "bids, asks"
            raise ConfigError(f"a {self.kind} message needs at least one of {wanted}")
        if self.sequence is not None and self.sequence not in _RULES:
            raise ConfigError(f"unknown sequence rule {self.sequence!r}: use one of {', '.join(_RULES)}")
        if self.whole and self.kind not in ("quote", "trade"):
            raise ConfigError(f"a {self.kind} message cannot be whole: quotes and trades alone are merged into a row")
        if self.unit not in _UNITS:
            raise ConfigError(f"unknown time unit {self.unit!r}: use one of {', '.join(_UNITS)}")
        self._check_conditions()

    def _check_conditions(self) -> None:
        wanted, found = self.not_last, self.conditions
        if self.kind != "trade" and (wanted or found is not None):
            raise ConfigError(f"a {self.kind} message has no conditions or not_last: trades alone move a last price")
        if not isinstance(wanted, tuple):
            raise ConfigError(f"not_last={wanted!r}: use a tuple of conditions")
        if found is not None and not wanted:
            raise ConfigError(f"conditions={found!r} needs not_last: the conditions that leave the last price alone")
        if found is None and wanted:
            raise ConfigError(f"not_last={wanted!r} needs conditions: where they are")
        if isinstance(found, tuple) and found[1:] != ("chars",):
            raise ConfigError(f'conditions={found!r}: use a reference, or (reference, "chars")')
        for one in wanted:
            if isinstance(one, bool) or not isinstance(one, str | int) or one == "":
                raise ConfigError(f"not_last has {one!r}: use texts and whole numbers")
            if isinstance(found, tuple) and not (isinstance(one, str) and len(one) == 1 and one.isascii()):
                raise ConfigError(f"not_last has {one!r}: where characters are conditions, use single ASCII characters")

    @property
    def unit(self) -> str:
        """The unit of `event_time`."""
        return self.event_time[1] if isinstance(self.event_time, tuple) else "auto"

    @property
    def rule(self) -> str:
        """The sequence rule in force: the one given, else what kind and fields suggest."""
        if self.sequence is not None:
            return self.sequence
        if self.kind == "correction":
            return "none"  # `seq` is that of what is corrected
        if self.seq is None:
            return "time" if self.event_time is not None else "none"
        if self.kind == "trade":
            return "contiguous"
        if self.kind == "control":
            return "connection"
        if self.kind == "depth" and not self.snapshot and self.prev_seq is not None:
            return "linked"
        return "range" if self.kind == "depth" and not self.snapshot and self.first_seq is not None else "rising"

    def references(self) -> Iterator[tuple[str, Ref]]:
        """Every field given with its reference, in the order of the record."""
        for name in _FIELD_NAMES:
            value = getattr(self, name)
            if isinstance(value, Symbol):
                value = value.ref
            if isinstance(value, tuple):
                value = value[0]
            if value is not None and value is not GIVEN:
                yield name, value

    def condition_set(self) -> tuple[bool, tuple[bytes | float, ...]] | None:
        """Whether characters are conditions, and those that leave the last price alone; None without any."""
        if self.conditions is None:
            return None
        found = tuple(one.encode() if isinstance(one, str) else float(one) for one in self.not_last)
        return isinstance(self.conditions, tuple), found

    @property
    def conditions_ref(self) -> Ref | None:
        """Where the conditions are."""
        return self.conditions[0] if isinstance(self.conditions, tuple) else self.conditions


_FIELD_NAMES: Final = (*dict.fromkeys(n for names in _NUMBERS.values() for n in names), *_INTEGERS, *_TEXTS, *_LEVELS)


class _Node:
    """A place in a message tree: what is known below it, and its number once the tree is complete."""

    def __init__(self) -> None:
        self.keys: dict[str, _Node] = {}
        self.positions: dict[int, _Node] = {}
        self.level: tuple[Ref, Ref] | None = None
        self.level_tree: _Level | None = None
        self.conditions = 0  # sets its conditions are compared with, a bit each
        self.walked = False  # each of its elements is a tick
        self.number = -1
        self.end = -1
        self.matched = False

    def at(self, path: list[str | int]) -> _Node:
        node = self
        for step in path:
            children: dict[Any, _Node] = node.positions if isinstance(step, int) else node.keys
            node = children.setdefault(step, _Node())
        return node

    def children(self) -> list[_Node]:
        return [*self.keys.values(), *self.positions.values()]

    def enumerate(self, into: list[_Node]) -> None:
        """Number the subtree in preorder, appending to `into`."""
        self.number = len(into)
        into.append(self)
        for child in self.children():
            child.enumerate(into)
        self.end = len(into)


class _Level:
    """The tree of one depth level, shared by every node that holds such levels."""

    def __init__(self, price: Ref, size: Ref) -> None:
        self.root = _Node()
        self.price = self.root.at(_path(price)[1])
        self.size = self.root.at(_path(size)[1])
        self.pairs = (price, size) == (0, 1)


def _path(ref: Ref) -> tuple[int, list[str | int]]:
    """How many levels out, and the steps from there."""
    if isinstance(ref, int):
        if ref < 0:
            raise ConfigError(f"reference {ref!r}: a position counts from 0")
        return 0, [ref]
    out, rest = 0, ref
    while rest.startswith("^."):
        out, rest = out + 1, rest[2:]
    steps = rest.split(".")
    if not all(steps):
        raise ConfigError(f"reference {ref!r}: write a key, a dotted path like 'data.p', or a position")
    return out, [int(s) if s.isdecimal() else s for s in steps]


class _Compiler:
    """Collects the places all messages refer to in one tree, numbers them and writes the program down.

    With an envelope every message is compiled twice, as it is found bare and as it is found inside.
    """

    def __init__(
        self,
        messages: tuple[Message, ...],
        envelope: str | None,
        encoding: str | Binary = "json",
        plain: tuple[str, ...] = (),
    ) -> None:
        self.messages = messages
        self.envelope = envelope
        self.encoding = encoding
        self.plain = plain
        self.frame = _Node()
        self.elements: list[_Node] = []
        self.levels: dict[tuple[Ref, Ref], _Level] = {}
        self.conditions: list[tuple[bool, tuple[bytes | float, ...]]] = []
        self.trades = sum(message.kind == "trade" for message in messages)
        self.channels = list(dict.fromkeys(m.channel or m.kind for m in messages if m.kind != "control"))

    def resolve(self, ref: Ref, chain: list[_Node], outer: list[_Node]) -> _Node | None:
        """What a reference names, made from the innermost of `chain`: `outer` ([envelope,] payload), element, ...

        None for a look into the envelope of a bare message.
        """
        out, steps = _path(ref)
        bare = len(outer) == 1
        if self.envelope is not None and out == len(chain) - 1 + bare and out > 0:
            if isinstance(steps[0], int) or steps[0] == self.envelope:
                raise ConfigError(f"reference {ref!r} leads out of the message and back in: name a key of the envelope")
            return None if bare else chain[0].at(steps)
        if out < len(chain):
            return chain[len(chain) - 1 - out].at(steps)
        raise ConfigError(
            f"reference {ref!r} looks further out than the message goes: remove a '^.' or declare the envelope"
        )

    def each(self, message: Message, chain: list[_Node], outer: list[_Node]) -> list[tuple[_Node | None, _Node]]:
        """The arrays to walk, outermost first, each with the tree of its elements; extends `chain` by those."""
        links = []
        for part in (message.each or "").split("[]"):
            if steps := part.strip("."):
                array = self.resolve(steps, chain, outer)
                if array is not None:
                    array.walked = True
                chain.append(_Node())
                self.elements.append(chain[-1])
                links.append((array, chain[-1]))
        return links

    def match(self, message: Message, outer: list[_Node]) -> list[tuple[_Node | None, int, bytes, float]]:
        """What must hold for a message; references count from the message itself."""
        wanted: list[tuple[_Node | None, int, bytes, float]] = []
        for ref, value in (*message.match.items(), *((ref, ...) for ref in message.has)):
            node = self.resolve(ref, outer, outer)
            if node is not None:
                node.matched = node.matched or value is not ...
            if isinstance(value, str):
                wanted.append((node, 0, value.encode(), 0.0))
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                wanted.append((node, 1, b"", float(value)))
            elif any(value is v for v in (True, False, None, MISSING, ...)):
                wanted.append((node, (True, False, None, MISSING, ...).index(value) + 2, b"", 0.0))
            else:
                raise ConfigError(f"match value {value!r} of {ref!r}: use str, int, float, bool, None or MISSING")
        return wanted

    def fields(self, message: Message, chain: list[_Node], outer: list[_Node]) -> list[tuple[_Node | None, int, int]]:
        """Where every field is, which it is, and what to make of it."""
        taken = []
        for name, ref in message.references():
            node = self.resolve(ref, chain, outer)
            if name in _LEVELS and node is not None:
                self.hold_levels(node, message.level)
            taken.append((node, *_target(message, name)))
        if message.conditions_ref is not None:
            node = self.resolve(message.conditions_ref, chain, outer)
            if node is not None:
                node.conditions |= 1 << self.condition_set(message)
            taken.append((node, _CONDITIONS, _CONDITION))
        return taken

    def condition_set(self, message: Message) -> int:
        """The number of a message's set of conditions; 0 too where it has none."""
        wanted = message.condition_set()
        if wanted is None:
            return 0
        if wanted not in self.conditions:
            self.conditions.append(wanted)
        return self.conditions.index(wanted)

    def hold_levels(self, node: _Node, level: tuple[Ref, Ref]) -> None:
        if node.level not in (None, level):
            raise ConfigError(f"one key holds levels as {node.level} and as {level}: declare them alike")
        node.level = level
        node.level_tree = self.levels.setdefault(level, _Level(*level))

    def compile(self, outer: list[_Node]) -> list[dict[str, Any]]:
        """Every message as it is found at the innermost of `outer`."""
        return [self.compile_one(stream, message, outer) for stream, message in enumerate(self.messages)]

    def compile_one(self, stream: int, message: Message, outer: list[_Node]) -> dict[str, Any]:
        symbol = message.symbol if isinstance(message.symbol, Symbol) else Symbol("")
        until = (symbol.until or "\0").encode()
        if len(until) != 1:
            raise ConfigError(f"Symbol(until={symbol.until!r}): use one ASCII character")
        chain = list(outer)
        links = self.each(message, chain, outer)
        by_shape = not message.match and not message.has
        out = -1 if message.seq is None else _path(message.seq)[0]
        return {
            "kind": _KINDS[message.kind],
            "flags": _SNAPSHOT if message.snapshot else 0,
            # Where several messages make trades, a number of the row may be of another one's count.
            "spares": message.conditions is not None and (message.rule == "time" or self.trades == 1),
            "whole": sum(
                1 << bit
                for bit, name in enumerate(_NUMBERS[message.kind])
                if message.whole and getattr(message, name) is not None
            ),
            "rule": _RULES[message.rule],
            "channel": self.channels.index(message.channel or message.kind) if message.kind != "control" else 0,
            "stream": stream,
            "unit": _UNITS[message.unit],
            "until": until[0],
            "upper": symbol.upper,
            "sell": message.side[1].encode() if isinstance(message.side, tuple) else None,
            "null": [text.encode() for text in message.null],
            "conditions": self.condition_set(message),
            "shares": bool(links) and out > 0,
            "counts": out >= len(links) and message.rule == "connection",  # no element is needed to tell it
            # recognised by its keys alone, all that belong to the message itself must be there
            "matches": [
                *self.match(message, outer),
                *((node, _PRESENT, b"", 0.0) for node in self.own(message, chain, outer) if by_shape),
            ],
            "fields": self.fields(message, chain, outer),
            "each": links,
        }

    def own(self, message: Message, chain: list[_Node], outer: list[_Node]) -> Iterator[_Node | None]:
        """The places of a message's fields that lie in the message itself, not in an element or the envelope."""
        for _, ref in message.references():
            if _path(ref)[0] == len(chain) - len(outer):
                yield self.resolve(ref, chain, outer)

    def run(self) -> _core.Program:
        if len(self.channels) > MAX_CHANNELS:
            raise ConfigError(f"the schema has {len(self.channels)} channels, more than {MAX_CHANNELS}")
        messages = self.compile([self.frame])
        if len(self.conditions) > MAX_CONDITIONS:
            raise ConfigError(f"the schema has {len(self.conditions)} sets not_last, more than {MAX_CONDITIONS}")
        payload = None
        if self.envelope is not None:
            if self.envelope in self.frame.keys:
                raise ConfigError(
                    f"envelope {self.envelope!r} is also a key of a message: refer to its fields by path instead"
                )
            payload = self.frame.at([self.envelope])
            messages += self.compile([self.frame, payload])
        nodes: list[_Node] = []
        condition = _Node()
        alone = [condition] if self.conditions else []
        for root in (self.frame, *self.elements, *(level.root for level in self.levels.values()), *alone):
            root.enumerate(nodes)
        if len(nodes) > MAX_NODES:
            raise ConfigError(f"the schema names {len(nodes)} places, more than {MAX_NODES}: split it into several")
        for message in messages:
            for part in ("matches", "fields", "each"):
                message[part] = [
                    tuple(_number(cell) if cell is None or isinstance(cell, _Node) else cell for cell in row)
                    for row in message[part]
                ]
        rows = []
        for node in nodes:
            tree = node.level_tree
            if tree is not None and node.children():
                raise ConfigError(f"bids and asks hold levels {node.level}: other references may not lead into them")
            if node.conditions and (tree is not None or node.walked or node.children()):
                raise ConfigError("what holds conditions holds nothing else: other references may not lead into it")
            level = None if tree is None else (tree.root.number, tree.price.number, tree.size.number, tree.pairs)
            rows.append(
                {
                    "end": node.end,
                    "keys": [(key.encode(), child.number) for key, child in node.keys.items()],
                    "positions": [
                        node.positions[i].number if i in node.positions else None
                        for i in range(max(node.positions, default=-1) + 1)
                    ],
                    "level": level,
                    "conditions": node.conditions,
                    "matched": node.matched,
                }
            )
        binary = None
        if isinstance(self.encoding, Binary):
            binary = self.encoding.program(
                [{key: child.number for key, child in node.keys.items()} for node in nodes],
                _bindings(self.messages, self.encoding),
            )
        return _core.Program(
            rows,
            messages,
            len(self.messages),
            None if payload is None else payload.number,
            len(self.channels),
            bool(self.frame.positions),
            _BINARY if isinstance(self.encoding, Binary) else _ENCODINGS[self.encoding],
            binary,
            [text.encode() for text in self.plain],
            condition.number if self.conditions else None,
            self.conditions,
        )


def _target(message: Message, name: str) -> tuple[int, int]:
    """Which field of the record this is, and what to make of its value."""
    for names, action in ((_LEVELS, _LEVEL), (_TEXTS, _TEXT), (_INTEGERS, _INTEGER)):
        if name in names:
            return names[name], action
    return _NUMBERS[message.kind].index(name), _PRICE


def _bindings(messages: tuple[Message, ...], binary: Binary) -> dict[int, Binding]:
    """The records whose type alone says which message they are."""
    header = frozenset(item.name for item in binary.header if not isinstance(item, Skip))
    found = {}
    for key, items in binary.records.items():
        names = header | {item.name for item in items if not isinstance(item, Skip)}
        for value in key if isinstance(key, tuple) else (key,):
            for number, message in enumerate(messages):
                certain = _is_certain(message, names, binary.select, value)
                if certain:
                    targets = _targets(message, names, header)
                    if message.kind != "control" and targets is not None:
                        found[value] = Binding(number, message.each, message.unit == "iso", targets)
                if certain is not False:
                    break
    return found


def _is_certain(message: Message, names: frozenset[str], select: str, value: int) -> bool | None:
    """Is a record with these names, of this type, that message? None where its values decide."""
    if message.each is not None and message.each not in names:
        return False
    wanted: list[bool | None] = [ref in names for ref in message.has]
    for ref, match in message.match.items():
        if ref not in names or match is MISSING:
            wanted.append((ref not in names) == (match is MISSING))
        elif ref == select:
            wanted.append(isinstance(match, (int, float)) and not isinstance(match, bool) and match == value)
        else:
            wanted.append(None)
    if not message.match and not message.has:
        own = 0 if message.each is None else 1
        wanted += [_path(ref)[1][0] in names for _, ref in message.references() if _path(ref)[0] == own]
    return False if False in wanted else None if None in wanted else True


def _targets(
    message: Message, names: frozenset[str], header: frozenset[str]
) -> dict[tuple[str, str], tuple[int, int]] | None:
    """Which field each item is; None where one item is two, or the header has some."""
    targets: dict[tuple[str, str], tuple[int, int]] = {}
    wanted = [(name, ref, _target(message, name)) for name, ref in message.references()]
    if message.conditions_ref is not None:
        wanted.append(("conditions", message.conditions_ref, (_CONDITIONS, _CONDITION)))
    for name, ref, target in wanted:
        out, (item, *_) = _path(ref)
        place = (message.each if message.each is not None and out == 0 else "", str(item))
        if place in targets or (place[0] == "" and item in header):
            return None
        if place[0] != "" or item in names:
            targets[place] = target
        if name in _LEVELS:
            if message.level[0] == message.level[1]:
                return None
            for index, part in enumerate(message.level):
                targets[str(item), str(part)] = (index, _PRICE)
    return targets


def _check_names(messages: tuple[Message, ...], envelope: str | None, binary: Binary) -> None:
    """Every reference of a data message must name an item; control may also come as JSON."""
    if envelope is not None:
        raise ConfigError(f"envelope {envelope!r}: binary records have none")
    for message in (m for m in messages if m.kind != "control"):
        if message.each is not None and message.each not in binary.groups:
            raise ConfigError(f"each={message.each!r} names no group: use one of {sorted(binary.groups)}")
        conditions = [] if message.conditions_ref is None else [("conditions", message.conditions_ref)]
        for name, ref in (*message.references(), *conditions):
            out, steps = _path(ref)
            inside = message.each is not None and out == 0
            names = binary.groups[message.each or ""] if inside else binary.names
            if len(steps) != 1 or steps[0] not in names:
                raise ConfigError(f"{name}={ref!r} names no item there: use one of {sorted(names)}")
            if name == "conditions" and ref in binary.groups:
                raise ConfigError(f"conditions={ref!r} names a group: use a text or a number")
            if name in _LEVELS and not binary.groups.get(str(ref), frozenset()) >= set(message.level):
                raise ConfigError(f"{name}={ref!r}, level={message.level!r}: name a group and two of its items")
        for ref in (*message.match, *message.has):
            if ref not in binary.names:
                raise ConfigError(f"match or has {ref!r} names no item: use one of {sorted(binary.names)}")


def _number(node: _Node | None) -> int:
    return _NO_NODE if node is None else node.number


class Schema:
    """All the messages of one feed, in the order they are tried.

    `envelope` names the key under which a payload may be wrapped (`{"stream": ..., "data": {...}}`); bare payloads are
    read alike. A frame that is an array is its elements. `encoding` is that of BINARY frames: json, msgpack or a
    `fastfeed.binary.Binary`; TEXT frames are always JSON. `plain` lists raw texts that are no JSON and yet control, as
    OKX's `pong`. Compiled once, on first use; raises `ConfigError` for what cannot be compiled.
    """

    def __init__(
        self,
        *messages: Message,
        envelope: str | None = None,
        name: str | None = None,
        encoding: str | Binary = "json",
        plain: tuple[str, ...] = (),
    ) -> None:
        if not isinstance(encoding, Binary) and encoding not in _ENCODINGS:
            raise ConfigError(f"encoding {encoding!r}: use json, msgpack or a fastfeed.binary.Binary")
        if isinstance(plain, str) or not all(isinstance(text, str) and text and "\0" not in text for text in plain):
            raise ConfigError(f"plain={plain!r}: use a tuple of texts")
        for message in messages:
            if not isinstance(message, Message):
                raise ConfigError(f"Schema takes Message objects, not {message!r}")
        if not any(m.kind != "control" for m in messages):
            raise ConfigError("a schema needs at least one message that carries data")
        if isinstance(encoding, Binary):
            _check_names(messages, envelope, encoding)
        self.messages = messages
        self.envelope = envelope
        self.name = name
        self.encoding = encoding
        self.plain = plain
        self.channels: tuple[str, ...] = tuple(
            dict.fromkeys(m.channel or m.kind for m in messages if m.kind != "control")
        )

    @cached_property
    def program(self) -> _core.Program:
        """The compiled form the decoder runs."""
        return _Compiler(self.messages, self.envelope, self.encoding, self.plain).run()

    def __repr__(self) -> str:
        name = self.name or ", ".join(self.channels)
        return f"Schema({name}, messages={len(self.messages)}, envelope={self.envelope!r})"


def check(payload: Buffer, *, encoding: str | Binary = "json") -> None:
    """Raise the `DecodeError` that says where and why a payload is malformed; None if it is not."""
    if not isinstance(encoding, Binary) and encoding not in _ENCODINGS:
        raise ConfigError(f"encoding {encoding!r}: use json, msgpack or a fastfeed.binary.Binary")
    name = "binary record" if isinstance(encoding, Binary) else {"json": "JSON", "msgpack": "MessagePack"}[encoding]
    _core.check(payload, _bare(encoding) if isinstance(encoding, str) else _Compiler((), None, encoding).run(), name)


@cache
def _bare(encoding: str) -> _core.Program:
    return _Compiler((), None, encoding).run()
