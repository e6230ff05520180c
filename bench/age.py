"""How old is a price when the user's code sees it? In bursts, and at a steady rate.

Bursts: 1,000 frames come to be at once, 200 times a second: 200,000 a second on average. Steady: one frame at a time,
10,000 a second. A price's age is CLOCK_MONOTONIC in the user's callback less that at which the source made the frame;
what the client does not take waits in the source and grows old there. The first tenth of a run is not counted.
"""

import tempfile
from pathlib import Path

import clients
import measure
from source import Source, time_file

RIVALS = (clients.OURS, "picows + orjson", "picows + msgspec", "websockets + orjson")
PACES = {
    "age in bursts": {"size": 1000, "rate": 200_000, "seconds": 3.0},
    "age, steady": {"size": 1, "rate": 10_000, "seconds": 3.0},
}
MEASURES = ("p50_us", "p90_us", "p99_us")


def measured(name: str, source: Source, times: Path, pace: dict, **options: int | str) -> dict[str, float]:
    frames = int(pace["rate"] * pace["seconds"]) // pace["size"] * pace["size"]
    return clients.measured(name, source, frames, times=times, **options, **pace)


def run(rounds: int, scale: float) -> dict[str, measure.Results]:
    found = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        time_file(Path(folder)) as times,
        Source(times=times) as source,
    ):
        for what, usual in PACES.items():
            pace = usual | {"seconds": max(1.0, usual["seconds"] * scale)}
            samples = measure.in_turns(RIVALS, rounds, lambda name, pace=pace: measured(name, source, times, pace))
            for percentile in MEASURES:
                key = f"{what}, {percentile.removesuffix('_us')}"
                found[key] = measure.by_measure(samples, percentile)
                print(measure.table(f"{key} of the prices shown", found[key], "us", clients.OURS), flush=True)
    return found


if __name__ == "__main__":
    run(3, 0.5)
