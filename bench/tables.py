"""The README's tables, from a report that run.py has written: `python bench/tables.py bench/result.json`.

Prints Markdown and measures nothing, so that no number in the README is typed.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import promises

TABLES = {
    "decode, made": ("decode and conflate, in memory", "ns a frame", promises.OURS_DECODE),
    "decode, recorded": ("the same, recorded frames", "ns a frame", promises.OURS_DECODE),
    "loopback": ("whole client over loopback, flat out", "ns a frame", promises.OURS),
    "TLS": ("whole client over TLS, flat out", "ns a frame", promises.OURS),
    "age in bursts, p99": ("age of a price at the callback in bursts, p99", "us", promises.OURS),
}


def tables(report: Mapping) -> Iterator[str]:
    """Markdown lines: every table, the slowest first, and on which machine."""
    for question, (title, unit, ours) in TABLES.items():
        results = report["results"].get(question, {})
        if ours not in results:
            continue
        yield f"| {title} | {unit} | spread | times fastfeed's |"
        yield "|---|---|---|---|"
        for name, found in sorted(results.items(), key=lambda item: -item[1]["median"]):
            if not promises.is_variant(name):
                ratio = f"{found['median'] / results[ours]['median']:.1f}x"
                spread = f"{found['min']:,.0f} to {found['max']:,.0f}"
                yield f"| {name} | {found['median']:,.0f} | {spread} | {'' if name == ours else ratio} |"
        yield ""
    host = report["host"]
    yield (
        f"{host['cpu']}, {host['cpus']} CPUs, {host['python'].split(' (')[0]}, {host['when'][:10]}; medians of "
        "interleaved rounds, the spread is of the rounds."
    )


if __name__ == "__main__":
    print("\n".join(tables(json.loads(Path(sys.argv[1]).read_text()))))
