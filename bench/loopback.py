"""What does a frame cost a whole client, end to end? Wall and CPU time of every client, plain and with TLS, flat out.

Client and source are a process each and are alone; clients take turns. The no-op listener shows what any client of
picows pays for the socket, the frames and nothing else; ours with nobody watching, what heartbeat and staleness cost.
"""

import clients
import measure
import prepare
from source import Source

FRAMES = 4_000_000  # for the compiled clients; the others get a part of it, since the rate is what counts
PART = 10
COMPILED = (clients.OURS, clients.UNWATCHED, clients.NOOP)
TLS = (clients.OURS, clients.NOOP, "picows + orjson", "websockets + orjson")
LOOPS = (clients.OURS, "picows + orjson")


def frames_for(name: str, scale: float) -> int:
    return max(100_000, int(FRAMES * scale) // (1 if name in COMPILED else PART))


def names() -> list[str]:
    return [name for name in clients.CLIENTS if name != clients.NAUTILUS or prepare.nautilus_python() is not None]


def run(rounds: int, scale: float) -> dict[str, measure.Results]:
    found = {}
    with Source() as plain, Source(tls=True) as secure:
        samples = measure.in_turns(names(), rounds, lambda name: clients.measured(name, plain, frames_for(name, scale)))
        found["loopback"] = measure.by_measure(samples, "ns")
        found["loopback, client CPU"] = measure.by_measure(samples, "cpu_ns")
        samples = measure.in_turns(TLS, rounds, lambda name: clients.measured(name, secure, frames_for(name, scale)))
        found["TLS"] = measure.by_measure(samples, "ns")
        found["TLS, client CPU"] = measure.by_measure(samples, "cpu_ns")
        on_uvloop = measure.in_turns(
            LOOPS, rounds, lambda name: clients.measured(name, plain, frames_for(name, scale), loop="uvloop")
        )
        found["loopback on uvloop"] = measure.by_measure(on_uvloop, "ns")
    for title, results in found.items():
        print(measure.table(f"{title}, {500} symbols, flat out", results, "ns/frame", clients.OURS), flush=True)
    return found


if __name__ == "__main__":
    run(2, 0.2)
