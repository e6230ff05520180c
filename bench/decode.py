"""How long does one frame take to decode and conflate? Against orjson, msgspec, pysimdjson, json, and simdjson in C++.

Four kinds of frames: made, recorded, a random mix of two layouts, and the keys of every frame in an order of its own.
Everybody's result is compared with fastfeed's before anybody is timed. Nothing is read from a network.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import frames
import measure
import rivals

import fastfeed

ONDEMAND = "simdjson on-demand, C++"  # the fastest of the ways to write it
OURS = "fastfeed decode_many"


def sources() -> dict[str, list[bytes]]:
    """The frames by kind; no recorded ones where there is no recording."""
    made = frames.quotes()
    found = {
        "made": made,
        "recorded": frames.recorded_quotes(),
        "mixed": frames.mixed(made),
        "shuffled": frames.shuffled(made),
    }
    return {name: payloads for name, payloads in found.items() if payloads}


def check(payloads: Sequence[bytes], lead: Sequence[bytes], ondemand: rivals.OnDemand) -> None:
    expected: rivals.Table | None = None
    for name, make in rivals.DECODERS.items():
        decoder = make(lead, payloads)
        decoder.take(payloads)
        if expected is not None and decoder.table != expected:
            raise ValueError(f"{name} does not do the same job")
        expected = decoder.table
    rivals.check_ondemand(payloads, ondemand)


def measured(payloads: Sequence[bytes], rounds: int) -> measure.Results:
    """ns a frame, by decoder."""
    lead = frames.lead(70_000)
    if payloads[0].startswith(b'{"stream"'):
        lead = [frames.enveloped(frame) for frame in lead]
    ondemand = rivals.OnDemand(payloads)
    check(payloads, lead, ondemand)

    def once(name: str) -> float:
        way = name.removeprefix(f"{ONDEMAND}, ")
        if way in rivals.OnDemand.WAYS:
            return measure.timed(lambda: ondemand.read(way)) / len(payloads)
        decoder = rivals.DECODERS[name](lead, payloads)
        return measure.timed(lambda: decoder.take(payloads)) / len(payloads)

    names = [*rivals.DECODERS, *(f"{ONDEMAND}, {way}" for way in rivals.OnDemand.WAYS)]
    results = {name: measure.summary(values) for name, values in measure.in_turns(names, rounds, once).items()}
    ways = [name for name in results if name.startswith(ONDEMAND)]
    fastest = min(ways, key=lambda name: results[name]["median"])
    return results | {ONDEMAND: results[fastest]}


def by_kernel(rounds: int) -> dict[str, measure.Results]:
    """ns a frame with every kernel of this one build, made and shuffled frames; each in a process of its own."""

    def once(kernel: str) -> dict[str, float]:
        command = [sys.executable, str(Path(__file__)), "--alone"]
        environment = os.environ | {"FASTFEED_SIMD": kernel}
        said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
        return {"made": float(said[0]), "shuffled": float(said[1])}

    samples = measure.in_turns(fastfeed.kernels(), rounds, once)
    return {f"kernels, {what}": measure.by_measure(samples, what) for what in ("made", "shuffled")}


def alone() -> None:
    """Prints ns a frame of fastfeed alone: made, then shuffled; the better of three."""
    made, lead = frames.quotes(), frames.lead(70_000)
    for payloads in (made, frames.shuffled(made)):
        decoders = [rivals.DECODERS[OURS](lead, payloads) for _ in range(3)]
        took = [measure.timed(functools.partial(decoder.take, payloads)) for decoder in decoders]
        print(min(took) / len(payloads))


def run(rounds: int, scale: float) -> dict[str, measure.Results]:
    found = {}
    for source, payloads in sources().items():
        found[f"decode, {source}"] = results = measured(payloads, rounds)
        size = sum(map(len, payloads)) / len(payloads)
        title = f"decode and conflate, {len(payloads):,} {source} frames of {size:.0f} bytes"
        print(measure.table(title, results, "ns/frame", OURS), flush=True)
    found |= (kernels := by_kernel(max(2, rounds // 2)))
    for title, results in kernels.items():
        print(measure.table(title, results, "ns/frame", fastfeed.kernels()[0]), flush=True)
    return found


if __name__ == "__main__":
    alone() if "--alone" in sys.argv else run(5, 1.0)
