"""How everything here is measured: rivals take turns in every round, medians count, and the spread is told.

Knows no rival and no question. Times are wall nanoseconds unless a name says otherwise.
"""

import datetime
import gc
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import fastfeed

Summary = dict[str, float]
Results = dict[str, Summary]  # by competitor

PACKAGES = (
    "fastfeed", "numpy", "orjson", "msgspec", "pysimdjson", "picows", "websockets", "aiohttp", "uvloop", "massive",
    "python-binance", "Cython",
)  # fmt: skip


def host() -> dict:
    """What the numbers depend on."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()} ({platform.python_compiler()})",
        "kernels": list(fastfeed.kernels()),
        "FASTFEED_SIMD": os.environ.get("FASTFEED_SIMD", ""),
        "versions": {name: version(name) for name in PACKAGES},
    }


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def summary(samples: Sequence[float]) -> Summary:
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples), "rounds": len(samples)}


def in_turns(names: Sequence[str], rounds: int, once: Callable[[str], float | Mapping[str, float]]) -> dict[str, list]:
    """`rounds` samples of each. Everybody comes once a round, and begins a round as often as the others."""
    samples: dict[str, list] = {name: [] for name in names}
    order = list(names)
    for _ in range(rounds):
        order.append(order.pop(0))
        for name in order:
            samples[name].append(once(name))
    return samples


def timed(job: Callable[[], object]) -> float:
    """Wall nanoseconds of one run, the garbage of those before collected."""
    gc.collect()
    began = time.perf_counter_ns()
    result = job()
    took = time.perf_counter_ns() - began
    del result
    return took


def by_measure(samples: Mapping[str, Sequence[Mapping[str, float]]], measure: str) -> Results:
    """One of several measures that each sample holds."""
    return {name: summary([sample[measure] for sample in all_of]) for name, all_of in samples.items()}


def table(title: str, results: Results, unit: str, ours: str | None = None) -> str:
    """The slowest first; how many times slower than `ours` in the last column."""
    lines = [f"\n{title}"]
    for name, result in sorted(results.items(), key=lambda item: -item[1]["median"]):
        spread = f"({result['min']:,.1f} to {result['max']:,.1f})"
        ratio = f"{result['median'] / results[ours]['median']:8.2f}x" if ours else ""
        lines.append(f"  {name:42} {result['median']:11,.1f} {unit:9} {spread:>24} {ratio}")
    return "\n".join(lines)
