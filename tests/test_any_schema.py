"""Schemas nobody would write, against the oracle: random references, matches, envelopes and arrays, random documents.

What the declared combinations mean is told by example in test_schema; here none may be read otherwise than the
oracle reads it. A schema may be refused, never misread.
"""

import json
import random

import kernels
import pytest
from oracle import Decoder as Oracle
from oracle import arrays, assert_same, steps_of

import fastfeed
from fastfeed.schema import MISSING, Message, Schema, Symbol

KEYS = ["a", "b", "c", "data", "e", "a longer key 1", "a longer key 2", "é"]
LEAVES = ["x", "y", "A", "B", "0", "1.5", "7", "", 1, 2, 3, 4, 7.25, 2.5, True, False, None, "s", "btc@x", "1e5"]
LEAVES += ["2021-04-17T16:43:30Z", "1700000000", 100, 101, 102]
NUMBERS = ["1.5", "2", "61800.20", 3, 4.5, "0", 7, 1e5, 12]
FIELDS = {
    "quote": ["bid", "bid_size", "ask", "ask_size"],
    "trade": ["price", "size", "side"],
    "correction": ["price", "size"],
    "depth": ["bids", "asks"],
    "mark": ["price", "index", "funding"],
    "bar": ["open", "high", "low", "close", "volume", "vwap", "trades", "start"],
}


class Maker:
    """Makes schemas, and documents aimed at their messages, from one seed."""

    def __init__(self, seed: int) -> None:
        self.choose = random.Random(seed)

    def chance(self, probability: float) -> bool:
        return self.choose.random() < probability

    # -- schemas --

    def reference(self, out: int = 0) -> str | int:
        """A key, a path or a position; up to `out` levels out."""
        steps = [self.choose.choice(KEYS) if self.chance(0.8) else str(self.choose.randrange(4)) for _ in range(3)]
        steps = steps[: self.choose.choice([1, 1, 1, 2, 2, 3])]
        outwards = self.choose.randint(1, out) if out and self.chance(0.3) else 0
        if not outwards and len(steps) == 1 and steps[0].isdigit():
            return int(steps[0])
        return "^." * outwards + ".".join(steps)

    def message(self, has_envelope: bool) -> Message:
        choice, out = self.choose.choice, int(has_envelope)
        kind = choice([*FIELDS, "quote", "trade", "control"])
        options: dict = {}
        if self.chance(0.6):
            values = ["x", "x", "y", 1, 2.5, True, False, None, MISSING]
            options["match"] = {self.reference(out): choice(values) for _ in range(choice([1, 2]))}
        if self.chance(0.3) or (kind == "control" and not options):
            options["has"] = (self.reference(),)
        if kind == "control":
            return Message(kind, **options, seq=self.reference(out) if self.chance(0.5) else None)
        if self.chance(0.3):
            options["each"] = choice([choice(KEYS), "data.a", f"{choice(KEYS)}[].{choice(KEYS)}"])
            out += 1 + ("[]" in options["each"])
        options["symbol"] = self.reference(out)
        if self.chance(0.2):
            options["symbol"] = Symbol(options["symbol"], until=choice([None, "@"]), upper=self.chance(0.5))
        fields = [name for name in FIELDS[kind] if self.chance(0.6)] or FIELDS[kind][:1]
        options |= {name: self.reference(out) for name in fields}
        if "side" in options and self.chance(0.4):
            options["side"] = (options["side"], "x")
        if kind == "depth":
            options["level"] = choice([(0, 1), (0, 1), (1, 2), ("a", "b"), ("a.b", 0)])
        options |= {name: self.reference(out) for name in ("seq", "first_seq", "prev_seq") if self.chance(0.3)}
        if self.chance(0.4):
            options["event_time"] = (self.reference(out), choice(["s", "ms", "us", "ns", "auto", "iso"]))
        if self.chance(0.3):
            options["sequence"] = choice(["rising", "contiguous", "range", "linked", "connection", "time", "none"])
        if self.chance(0.3):
            options["null"] = ("", "x", "0")
        if self.chance(0.2):
            options |= {"channel": choice(["one", "two"]), "snapshot": True}
        if kind in ("quote", "trade") and self.chance(0.3):
            options["whole"] = True
        if kind == "trade" and self.chance(0.5):
            options["conditions"] = choice([self.reference(out), "c", "c", "é"])
            options["not_last"] = choice([("x", 7, "btc@x"), (1, 2, "A"), ("A", "y")])
            if options["not_last"] == ("A", "y") and self.chance(0.5):
                options["conditions"] = (options["conditions"], "chars")
        return Message(kind, **options)

    def schema(self) -> Schema:
        envelope = self.choose.choice([None, None, "data", "env"])
        return Schema(
            *[self.message(envelope is not None) for _ in range(self.choose.randint(1, 5))], envelope=envelope
        )

    # -- documents --

    def value(self, depth: int) -> object:
        kind = self.choose.random()
        if depth == 0 or kind < 0.55:
            return self.choose.choice(LEAVES)
        if kind < 0.75:
            return {key: self.value(depth - 1) for key in self.choose.sample(KEYS, self.choose.randint(0, 5))}
        return [self.value(depth - 1) for _ in range(self.choose.randint(0, 4))]

    def field(self, message: Message, name: str) -> object:
        number = lambda: self.choose.choice(NUMBERS)  # noqa: E731
        if self.chance(0.05):
            return self.value(2)
        if name in ("bids", "asks"):
            if isinstance(message.level[0], str):
                return [{"a": self.choose.choice([number(), {"b": number()}]), "b": number()} for _ in range(2)]
            return [[number(), number(), number()] for _ in range(self.choose.randint(0, 3))]
        if name in ("seq", "first_seq", "prev_seq"):
            return self.choose.randint(1, 30)
        given = {"symbol": ["A", "B", "c@d"], "side": ["x", "s", True, False]}
        given["event_time"] = [1_700_000_000, "2021-04-17T16:43:30Z", 5, 6]
        return self.choose.choice(given.get(name, NUMBERS))

    def conditions(self) -> object:
        one = lambda: self.choose.choice(["x", "A", "y", "B", "btc@x", "AB", "B y", "", 1, 2, 7, 7.0, "7", None])  # noqa: E731
        if self.chance(0.3):
            return one()
        return self.value(2) if self.chance(0.1) else [one() for _ in range(self.choose.randint(0, 3))]

    def document(self, schema: Schema) -> object:
        """A document that has what one of the messages wants, mostly."""
        message = self.choose.choice(schema.messages)
        references = [*message.match, *message.has, *([] if message.each else dict(message.references()).values())]
        body: object = [None] * 4 if any(isinstance(ref, int) for ref in references) else {}
        envelope: dict = {}
        self.fill(message, arrays(message), [envelope, body])
        for ref, value in message.match.items():
            if value is not MISSING and self.chance(0.95):
                place([envelope, body], ref, value)
        for ref in message.has:
            place([envelope, body], ref, self.choose.choice(LEAVES))
        if schema.envelope is not None and self.chance(0.7):
            envelope[schema.envelope] = body if self.chance(0.85) else [body, self.value(2)]
            return dict(reversed(envelope.items())) if self.chance(0.5) else envelope
        return body if self.chance(0.9) else [body, self.value(1), body]

    def fill(self, message: Message, walk: list[str], stack: list) -> None:
        if not walk:
            for name, ref in message.references():
                if self.chance(0.9):
                    place(stack, ref, self.field(message, name))
            if message.conditions_ref is not None and self.chance(0.8):
                place(stack, message.conditions_ref, self.conditions())
            return
        found = []
        for _ in range(self.choose.randint(0, 3)):
            found.append(self.choose.choice([{}, {}, [None] * 4]))
            self.fill(message, walk[1:], [*stack, found[-1]])
        place(stack, walk[0], found)

    def payload(self, document: object) -> bytes:
        """The document as text, now and then with other digits: what was learned must not stick."""
        text = bytearray(json.dumps(document, ensure_ascii=False).encode())
        if self.chance(0.4):
            for i, byte in enumerate(text):
                if byte in b"123456789" and self.chance(0.3):
                    text[i] = self.choose.choice(b"123456789")
        return bytes(text)


def place(stack: list, ref: str | int, value: object) -> None:
    """Put a value where a reference leads, making the way there; where something else stands, nothing happens."""
    out, steps = steps_of(ref)
    if out >= len(stack):
        return
    here = stack[-1 - out]
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if not isinstance(here, list if isinstance(step, int) else dict) or (
            isinstance(step, int) and step >= len(here)
        ):
            return
        if following is None:
            here[step] = value
            return
        inner: object = [None] * 4 if isinstance(following, int) else {}
        if (here[step] if isinstance(step, int) else here.get(step)).__class__ is not inner.__class__:
            here[step] = inner
        here = here[step]


@pytest.mark.parametrize("seed", range(400))
def test_a_random_schema_reads_random_documents_as_the_oracle_does(seed):
    maker = Maker(seed)
    try:
        schema = maker.schema()
        decoders = kernels.decoders(schema, max_symbols=256)
    except fastfeed.ConfigError:
        return
    oracle = Oracle(schema)
    rings = {kernel: decoder.ring.reader() for kernel, decoder in decoders.items()}
    documents = [maker.document(schema) if maker.chance(0.8) else maker.value(3) for _ in range(6)]
    for recv_ns in range(50):
        document = maker.choose.choice(documents) if maker.chance(0.7) else maker.document(schema)
        payload = maker.payload(document)
        expected = oracle.decode(payload, recv_ns)
        for kernel, decoder in decoders.items():
            assert decoder.decode(payload, recv_ns=recv_ns) == expected, (kernel, schema.messages, payload.decode())
    for kernel, decoder in decoders.items():
        assert_same(decoder, rings[kernel].read(), oracle)


def test_enough_random_schemas_are_accepted_and_read():
    """Else the test above would be empty."""
    accepted = data = 0
    for seed in range(400):
        maker = Maker(seed)
        try:
            schema = maker.schema()
        except fastfeed.ConfigError:
            continue
        accepted += 1
        oracle = Oracle(schema)
        for _ in range(5):
            oracle.decode(maker.payload(maker.document(schema)))
        data += oracle.counts["data"] > 0
    assert accepted > 200
    assert data > 100
