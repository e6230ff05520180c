"""How large should the kernel's receive buffer be? Throughput flat out and age in bursts, by SO_RCVBUF.

Small buffers stop the sender early: what it holds back grows old there. Large ones let old prices queue in the kernel.
The kernel doubles what it is given and caps it at net.core.rmem_max.
"""

import tempfile
from pathlib import Path

import age
import clients
import loopback
import measure
from source import Source, time_file

SIZES = {"64 KiB": 1 << 16, "256 KiB": 1 << 18, "1 MiB (default)": 1 << 20, "4 MiB": 1 << 22}


def run(rounds: int, scale: float) -> dict[str, measure.Results]:
    frames = loopback.frames_for(clients.OURS, scale)
    pace = age.PACES["age in bursts"] | {"seconds": max(1.0, 2.0 * scale)}
    found = {}
    with tempfile.TemporaryDirectory() as folder, time_file(Path(folder)) as times, Source(times=times) as source:

        def flat_out(size: str) -> dict[str, float]:
            return clients.measured(clients.OURS, source, frames, receive_buffer=SIZES[size])

        def in_bursts(size: str) -> dict[str, float]:
            return age.measured(clients.OURS, source, times, pace, receive_buffer=SIZES[size])

        found["receive buffer"] = measure.by_measure(measure.in_turns(list(SIZES), rounds, flat_out), "ns")
        samples = measure.in_turns(list(SIZES), rounds, in_bursts)
    for percentile in ("p50_us", "p99_us"):
        key = f"receive buffer, age in bursts, {percentile.removesuffix('_us')}"
        found[key] = measure.by_measure(samples, percentile)
    for title, results in found.items():
        print(measure.table(title, results, "us" if "age" in title else "ns/frame"), flush=True)
    return found


if __name__ == "__main__":
    run(2, 0.2)
