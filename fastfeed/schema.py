"""Declarative message schemas: what an exchange sends, said in Python, compiled to the program the decoder runs.

Only describes. It parses no frame, knows no provider, and refuses a declaration it cannot compile with a `ConfigError`
that names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Final

from fastfeed import _core
from fastfeed.errors import ConfigError

Ref = str | int
"""A key, a dotted path (`"data.p"`, numbers are positions: `"data.0"`), or a position in an array (`3`).

`"^."` in front looks one level out: from an element to its message, from a message to the envelope.
"""


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""As a `match` value: the key must not be there. Tells apart shapes of which one has a key more."""


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
    "mark": ("price", "index", "funding"),
    "depth": (),
    "bar": ("open", "high", "low", "close", "volume", "vwap", "trades", "start"),
    "control": (),
}
_KINDS: Final = {"quote": 1, "trade": 2, "depth": 3, "mark": 4, "bar": 5, "control": 255}
_INTEGERS: Final = {"seq": 8, "first_seq": 9, "prev_seq": 10}
_TEXTS: Final = {"event_time": 11, "symbol": 12, "side": 13}
_LEVELS: Final = {"bids": 14, "asks": 15}
_PRICE, _INTEGER, _TEXT, _LEVEL = range(4)  # field actions, as in ext/schema.pxd
_PAYLOAD, _ENVELOPE, _ELEMENT = range(3)  # scopes, likewise
_UNITS: Final = {"s": 0, "ms": 1, "us": 2, "ns": 3, "auto": 4, "iso": 5}
_RULES: Final = {"none": 0, "rising": 1, "contiguous": 2, "range": 3, "linked": 4, "connection": 5, "time": 6}
_SNAPSHOT: Final = 1
MAX_NODES: Final = 512
MAX_CHANNELS: Final = 32


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
    range, linked, connection, time or none; by default what the fields suggest. Strings in `null` mean "explicitly no
    value" wherever a number is expected. `channel` names the channel, by default its kind.
    """

    kind: str
    match: Mapping[Ref, Any] = field(default_factory=dict, kw_only=True)
    has: tuple[Ref, ...] = field(default=(), kw_only=True)
    each: str | None = field(default=None, kw_only=True)
    channel: str | None = field(default=None, kw_only=True)
    symbol: Ref | Symbol | None = field(default=None, kw_only=True)
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
    null: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ConfigError(f"unknown message kind {self.kind!r}: use one of {', '.join(_KINDS)}")
        allowed = {*_NUMBERS[self.kind], *_INTEGERS, "symbol", "event_time"}
        allowed |= {"trade": {"side"}, "depth": {*_LEVELS}}.get(self.kind, set())
        if self.kind == "control":
            allowed = set()
        given = {f.name for f in fields(self) if f.name in _FIELD_NAMES and getattr(self, f.name) is not None}
        if wrong := sorted(given - allowed):
            usable = ", ".join(sorted(allowed)) or "match and has only"
            raise ConfigError(f"a {self.kind} message has no field {wrong[0]!r}: use {usable}")
        if self.kind == "control":
            if not self.match and not self.has:
                raise ConfigError("a control message needs match or has, else every frame would be one")
        elif self.symbol is None:
            raise ConfigError(f"a {self.kind} message needs symbol: every tick belongs to one")
        elif not given - {"symbol", "event_time", *_INTEGERS}:
            wanted = ", ".join(_NUMBERS[self.kind]) or "bids, asks"
            raise ConfigError(f"a {self.kind} message needs at least one of {wanted}")
        if self.sequence is not None and self.sequence not in _RULES:
            raise ConfigError(f"unknown sequence rule {self.sequence!r}: use one of {', '.join(_RULES)}")
        if self.unit not in _UNITS:
            raise ConfigError(f"unknown time unit {self.unit!r}: use one of {', '.join(_UNITS)}")

    @property
    def unit(self) -> str:
        """The unit of `event_time`."""
        return self.event_time[1] if isinstance(self.event_time, tuple) else "auto"

    @property
    def rule(self) -> str:
        """The sequence rule in force: the one given, else what kind and fields suggest."""
        if self.sequence is not None:
            return self.sequence
        if self.seq is None:
            return "time" if self.event_time is not None else "none"
        if self.kind == "trade":
            return "contiguous"
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
            if value is not None:
                yield name, value


_FIELD_NAMES: Final = (*dict.fromkeys(n for names in _NUMBERS.values() for n in names), *_INTEGERS, *_TEXTS, *_LEVELS)


class _Node:
    """A place in a message tree: what is known below it, and its number once the tree is complete."""

    def __init__(self) -> None:
        self.keys: dict[str, _Node] = {}
        self.positions: dict[int, _Node] = {}
        self.level: tuple[Ref, Ref] | None = None
        self.level_tree: _Level | None = None
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

    def copy(self) -> _Node:
        twin = _Node()
        twin.level, twin.level_tree, twin.matched = self.level, self.level_tree, self.matched
        twin.keys = {k: n.copy() for k, n in self.keys.items()}
        twin.positions = {k: n.copy() for k, n in self.positions.items()}
        return twin

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
    """Collects the trees of all messages, then numbers them and writes the program down."""

    def __init__(self, messages: tuple[Message, ...], envelope: str | None) -> None:
        self.messages = messages
        self.envelope = envelope
        self.payload = _Node()
        self.outer: dict[int, tuple[_Node, list[str | int]]] = {}  # by id: a stand-in node, its path in the envelope
        self.outer_nodes: dict[int, _Node] = {}  # by the same id: the node of the frame it stands for
        self.elements: list[_Node] = []
        self.levels: dict[tuple[Ref, Ref], _Level] = {}
        self.channels = list(dict.fromkeys(m.channel or m.kind for m in messages if m.kind != "control"))

    def resolve(self, ref: Ref, chain: list[_Node]) -> tuple[int, _Node]:
        """The scope and node of a reference made from the innermost of `chain` (payload, element, element of that)."""
        out, steps = _path(ref)
        if out < len(chain):
            node = chain[len(chain) - 1 - out].at(steps)
            return (_PAYLOAD if out == len(chain) - 1 else _ELEMENT), node
        if out == len(chain) and self.envelope is not None:
            node = _Node()
            self.outer[id(node)] = node, steps
            return _ENVELOPE, node
        raise ConfigError(
            f"reference {ref!r} looks further out than the message goes: remove a '^.' or declare the envelope"
        )

    def each(self, message: Message, chain: list[_Node]) -> list[tuple[int, _Node, _Node]]:
        """The arrays to walk, outermost first, each with the tree of its elements; extends `chain` by those."""
        links = []
        for part in (message.each or "").split("[]"):
            if steps := part.strip("."):
                scope, array = self.resolve(steps, chain)
                chain.append(_Node())
                self.elements.append(chain[-1])
                links.append((scope, array, chain[-1]))
        return links

    def match(self, message: Message) -> list[tuple[int, _Node, int, bytes, float]]:
        """What must hold for a message; references count from the message itself."""
        wanted: list[tuple[int, _Node, int, bytes, float]] = []
        for ref, value in (*message.match.items(), *((ref, ...) for ref in message.has)):
            scope, node = self.resolve(ref, [self.payload])
            node.matched = node.matched or value is not ...
            if isinstance(value, str):
                wanted.append((scope, node, 0, value.encode(), 0.0))
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                wanted.append((scope, node, 1, b"", float(value)))
            elif any(value is v for v in (True, False, None, MISSING, ...)):
                wanted.append((scope, node, (True, False, None, MISSING, ...).index(value) + 2, b"", 0.0))
            else:
                raise ConfigError(f"match value {value!r} of {ref!r}: use str, int, float, bool, None or MISSING")
        return wanted

    def fields(self, message: Message, chain: list[_Node]) -> list[tuple[int, _Node, int, int]]:
        taken = []
        for name, ref in message.references():
            scope, node = self.resolve(ref, chain)
            if name in _LEVELS:
                if node.level not in (None, message.level):
                    raise ConfigError(f"{ref!r} holds levels as {node.level} and as {message.level}: name it once")
                node.level = message.level
                node.level_tree = self.levels.setdefault(message.level, _Level(*message.level))
                taken.append((scope, node, _LEVELS[name], _LEVEL))
            elif name in _TEXTS:
                taken.append((scope, node, _TEXTS[name], _TEXT))
            elif name in _INTEGERS:
                taken.append((scope, node, _INTEGERS[name], _INTEGER))
            else:
                taken.append((scope, node, _NUMBERS[message.kind].index(name), _PRICE))
        return taken

    def number(self) -> tuple[list[_Node], int | None]:
        """Number every node.

        The envelope's copy of the payload keeps its order, so one offset leads from one to the other.
        """
        nodes: list[_Node] = []
        envelope = None
        if self.envelope is not None:
            if self.envelope in self.payload.keys:
                raise ConfigError(
                    f"envelope {self.envelope!r} is also a key of a message: refer to its fields by path instead"
                )
            count = len(_preorder(self.payload))
            twin = self.payload.copy()
            envelope_node = self.payload.keys.setdefault(self.envelope, twin)
            for stand_in, steps in self.outer.values():
                node = self.outer_nodes[id(stand_in)] = self.payload.at(steps)
                node.matched = node.matched or stand_in.matched
            self.payload.enumerate(nodes)
            envelope = envelope_node.number
            if envelope != count:
                paths = sorted(str(steps) for _, steps in self.outer.values())
                raise ConfigError(f"a '^.' reference leads into a key that messages use themselves: {paths}")
        else:
            self.payload.enumerate(nodes)
        for root in (*self.elements, *(level.root for level in self.levels.values())):
            root.enumerate(nodes)
        if len(nodes) > MAX_NODES:
            raise ConfigError(f"the schema names {len(nodes)} places, more than {MAX_NODES}: split it into several")
        return nodes, envelope

    def run(self) -> _core.Program:
        if len(self.channels) > MAX_CHANNELS:
            raise ConfigError(f"the schema has {len(self.channels)} channels, more than {MAX_CHANNELS}")
        drafts = []
        for message in self.messages:
            chain = [self.payload]
            links = self.each(message, chain)
            drafts.append((message, self.match(message), links, self.fields(message, chain)))
        nodes, envelope = self.number()

        def number(node: _Node) -> int:
            return self.outer_nodes[id(node)].number if id(node) in self.outer else node.number

        messages = []
        for stream, (message, matches, links, taken) in enumerate(drafts):
            symbol = message.symbol if isinstance(message.symbol, Symbol) else Symbol("")
            until = (symbol.until or "\0").encode()
            if len(until) != 1:
                raise ConfigError(f"Symbol(until={symbol.until!r}): use one ASCII character")
            messages.append(
                {
                    "kind": _KINDS[message.kind],
                    "flags": _SNAPSHOT if message.snapshot else 0,
                    "rule": _RULES[message.rule],
                    "channel": self.channels.index(message.channel or message.kind) if message.kind != "control" else 0,
                    "stream": stream,
                    "unit": _UNITS[message.unit],
                    "until": until[0],
                    "upper": symbol.upper,
                    "sell": message.side[1].encode() if isinstance(message.side, tuple) else None,
                    "null": [text.encode() for text in message.null],
                    "by_shape": not message.match and not message.has,
                    "matches": [(scope, number(node), kind, text, value) for scope, node, kind, text, value in matches],
                    "fields": [(scope, number(node), what, action) for scope, node, what, action in taken],
                    "each": [(scope, number(array), root.number) for scope, array, root in links],
                }
            )
        rows = []
        for node in nodes:
            tree = node.level_tree
            if tree is not None and node.children():
                raise ConfigError(f"bids and asks hold levels {node.level}: other references may not lead into them")
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
                    "matched": node.matched,
                }
            )
        return _core.Program(rows, messages, envelope, len(self.channels), bool(self.payload.positions))


def _preorder(node: _Node) -> list[_Node]:
    found = [node]
    for child in node.children():
        found += _preorder(child)
    return found


class Schema:
    """All the messages of one feed, in the order they are tried.

    `envelope` names the key under which a payload may be wrapped (`{"stream": ..., "data": {...}}`); bare payloads are
    read alike. A frame that is an array is its elements. Compiled once, on first use; raises `ConfigError` for what
    cannot be compiled.
    """

    def __init__(self, *messages: Message, envelope: str | None = None, name: str | None = None) -> None:
        for message in messages:
            if not isinstance(message, Message):
                raise ConfigError(f"Schema takes Message objects, not {message!r}")
        if not any(m.kind != "control" for m in messages):
            raise ConfigError("a schema needs at least one message that carries data")
        self.messages = messages
        self.envelope = envelope
        self.name = name
        self.channels: tuple[str, ...] = tuple(
            dict.fromkeys(m.channel or m.kind for m in messages if m.kind != "control")
        )

    @cached_property
    def program(self) -> _core.Program:
        """The compiled form the decoder runs."""
        return _Compiler(self.messages, self.envelope).run()

    def __repr__(self) -> str:
        name = self.name or ", ".join(self.channels)
        return f"Schema({name}, messages={len(self.messages)}, envelope={self.envelope!r})"
