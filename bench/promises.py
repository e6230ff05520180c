"""What the project promises of its speed, and whether a run's results keep it. Pure: knows numbers, not how they came.

A ratio is of the medians of one run, in which the competitors took turns.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

OURS_DECODE = "fastfeed decode_many"
OURS = "fastfeed.Feed"
ONDEMAND = "simdjson on-demand, C++"

Results = Mapping[str, Mapping[str, Mapping[str, float]]]  # by question, by competitor


@dataclass(frozen=True, kw_only=True)
class Promise:
    """`upper / lower` of the medians under `question` is at least, or at most, so much; without `lower`, `upper` is."""

    what: str
    question: str
    upper: str
    lower: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    stretch: float | None = None  # hoped for, not promised

    def value(self, results: Results) -> float | None:
        """None if it was not measured."""
        found = results.get(self.question)
        if found is None or self.upper not in found or (self.lower is not None and self.lower not in found):
            return None
        upper = found[self.upper]["median"]
        return upper if self.lower is None else upper / found[self.lower]["median"]

    def is_kept(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    @property
    def bound(self) -> str:
        bound = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        return bound + (f", hoped for {self.stretch:g}" if self.stretch is not None else "")


def _decode(rival: str, name: str, source: str, at_least: float, stretch: float | None = None) -> Promise:
    return Promise(
        what=f"decode {source} frames, times faster than {name}",
        question=f"decode, {source}",
        upper=rival,
        lower=OURS_DECODE,
        at_least=at_least,
        stretch=stretch,
    )


def _client(what: str, question: str, rival: str, at_least: float) -> Promise:
    return Promise(what=what, question=question, upper=rival, lower=OURS, at_least=at_least)


FLOORS = (
    *(_decode("orjson + float + dict", "orjson", source, 20) for source in ("made", "recorded")),
    *(_decode("msgspec.Struct + dict", "msgspec", source, 8) for source in ("made", "recorded")),
    _decode(ONDEMAND, "simdjson in C++", "made", 2.2, 3),
    _decode(ONDEMAND, "simdjson in C++", "recorded", 2.5, 4),
    _decode(ONDEMAND, "simdjson in C++", "mixed", 2),
    _decode(ONDEMAND, "simdjson in C++", "shuffled", 1),
    _client("end to end, times faster than picows + orjson", "loopback", "picows + orjson", 12),
    _client("end to end, times faster than websockets + orjson", "loopback", "websockets + orjson", 35),
    Promise(
        what="client CPU a message, times that of a no-op Cython picows listener",
        question="loopback, client CPU",
        upper=OURS,
        lower="no-op picows listener, Cython",
        at_most=2.5,
    ),
    _client("end to end over TLS, times faster than picows + orjson", "TLS", "picows + orjson", 4),
    _client("age in bursts, p99, times younger than picows + orjson", "age in bursts, p99", "picows + orjson", 5),
    _client("age in bursts, p99, times younger than websockets", "age in bursts, p99", "websockets + orjson", 50),
    _client("age at 10,000/s, p50, times younger than picows + orjson", "age, steady, p50", "picows + orjson", 1),
    Promise(
        what="a tick at 10,000 symbols, times that at 100", question="symbols", upper="10000", lower="100", at_most=1.5
    ),
    Promise(
        what="a tick at 50,000 symbols, times that at 100", question="symbols", upper="50000", lower="100", at_most=2.5
    ),
    Promise(
        what="a drain of 10 changed among 50,000, us", question="drain", upper="10 of 50000", at_most=20
    ),
    *(
        Promise(
            what=f"own declaration vs built-in, {source} frames",
            question=f"own, {source}",
            upper="own declaration",
            lower="provider binance-usdm",
            at_most=1.1,
        )
        for source in ("made", "shuffled")
    ),
    Promise(
        what="compiler flags that name a CPU (kernels are dispatched)", question="build", upper="CPU flags", at_most=0
    ),
)  # fmt: skip


def cpu_flags(*texts: str) -> list[str]:
    """Flags of a compiler that choose instructions beyond the architecture's own: -march=..., -mavx2 and so on."""
    found = re.findall(r"(?<![\w-])-m(?!tune=generic|no-|64\b|arch=x86-64(?![\w-]))[a-z][\w.=+-]*", " ".join(texts))
    return sorted(set(found))


def is_variant(name: str) -> bool:
    """One of the ways to write simdjson's reader: of these, the fastest is shown as the competitor."""
    return name.startswith(f"{ONDEMAND}, ")


def verdicts(results: Results) -> Iterator[dict]:
    """For every promise: what, the bound, the value or None, and whether it is kept; not measured is not kept."""
    for promise in FLOORS:
        value = promise.value(results)
        yield {
            "what": promise.what,
            "bound": promise.bound,
            "value": value,
            "kept": value is not None and promise.is_kept(value),
        }
