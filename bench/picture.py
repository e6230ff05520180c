"""The picture for the README: what a frame costs, decoded in memory and through a whole client, each beside its rivals.

Draws a report that run.py has written and measures nothing: `python bench/picture.py bench/result.json OUT.png`.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib
import promises

matplotlib.use("Agg")
import matplotlib.pyplot as plt

OURS_COLOUR, THEIRS = "#0b7a75", "#b8bec4"
PANELS = {
    "decode, made": "decode and conflate, in memory",
    "loopback": "whole client over loopback",
    "age in bursts, p99": "age of the price at the callback, bursts, p99",
}


def draw(report: Mapping, path: Path) -> None:
    panels = {question: title for question, title in PANELS.items() if question in report["results"]}
    if not panels:
        return
    bars = [
        sorted(
            (
                (name, found["median"])
                for name, found in report["results"][question].items()
                if not promises.is_variant(name)
            ),
            key=lambda item: -item[1],
        )
        for question in panels
    ]
    figure, axes = plt.subplots(
        len(panels), 1, figsize=(8, 0.9 + sum(0.3 * len(panel) + 0.7 for panel in bars)), squeeze=False,
        height_ratios=[len(panel) + 1 for panel in bars],
    )  # fmt: skip
    for axis, panel, (question, title) in zip(axes[:, 0], bars, panels.items(), strict=True):
        names, values = zip(*panel, strict=True)
        colours = [OURS_COLOUR if name.startswith("fastfeed") else THEIRS for name in names]
        drawn = axis.barh(names, values, color=colours)
        unit = "us" if "age" in question else "ns a frame"
        axis.bar_label(drawn, [f" {value:,.0f}" for value in values], fontsize=8)
        axis.set_xscale("log")
        axis.set_xlim(left=min(values) / 3, right=max(values) * 3)
        axis.set_title(f"{title} ({unit}, log scale, less is better)", fontsize=10, loc="left")
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    host = report["host"]
    figure.text(
        0.01, 0.005, f"{host['cpu']}, {host['cpus']} CPUs, {host['python'].split(' (')[0]}, {host['when'][:10]}; "
        "medians of interleaved rounds", fontsize=7,
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0.02, 1, 1))
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
