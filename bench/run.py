"""How fast, against whom: decode and conflate in memory, whole clients over loopback. Ratios on screen, JSON in a file.

`make bench` runs it; `--quick` for a look. Rivals take turns in every round, medians count; each does the same job on
the same frames (rivals.py, clients.py say exactly what), and their results are compared before they are timed.
"""

import argparse
import datetime
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import frames
import rivals
from clients import CLIENTS, SYMBOLS

import fastfeed
from fastfeed.lab import VenueProcess

HERE = Path(__file__).parent
# What the project promises: (what, fastfeed, rival) -> at least so many times faster. Frames of one socket read are
# decoded together, so decode_many is the measure; `decode` shows what a call from Python and its clock readings add.
FLOORS = {
    ("decode, made", "fastfeed decode_many", "orjson + float + dict"): 10,
    ("decode, made", "fastfeed decode_many", "msgspec.Struct + dict"): 5,
    ("loopback", "fastfeed.Feed", "picows + orjson"): 8,
    ("loopback", "fastfeed.Feed", "websockets + orjson"): 25,
}
PACKAGES = ("fastfeed", "numpy", "orjson", "msgspec", "picows", "websockets", "aiohttp")
CLIENT_SECONDS = 300.0


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
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def summary(samples: Sequence[float]) -> dict:
    return {"median": statistics.median(samples), "min": min(samples), "max": max(samples), "rounds": len(samples)}


def table_of(result: rivals.Table | fastfeed.Decoder) -> rivals.Table:
    return result if isinstance(result, dict) else rivals.as_table(result)


def bench_decode(payloads: Sequence[bytes], rounds: int) -> dict[str, dict]:
    """ns a frame, by decoder. Every decoder must have made the same table."""
    expected = table_of(rivals.DECODERS["orjson + float + dict"](payloads))
    for name, run in rivals.DECODERS.items():
        assert table_of(run(payloads)) == expected, f"{name} does not do the same job"
    samples: dict[str, list[float]] = {name: [] for name in rivals.DECODERS}
    order = list(rivals.DECODERS.items())
    for _ in range(rounds):
        order.append(order.pop(0))
        for name, run in order:
            gc.collect()
            began = time.perf_counter_ns()
            result = run(payloads)
            samples[name].append((time.perf_counter_ns() - began) / len(payloads))
            del result
    return {name: summary(values) for name, values in samples.items()}


def run_client(name: str, count: int) -> dict:
    """One client in a fresh process against a fresh venue, each with the machine to themselves."""
    limits = {"max_streams": 1024, "messages_per_second": 1000}
    with VenueProcess("binance-usdm", symbols=SYMBOLS, **limits) as venue:
        command = [sys.executable, str(HERE / "clients.py"), name, venue.url, str(count)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as client:
            try:
                assert client.stdout is not None
                said = client.stdout.readline().strip()
                assert said == "ready", f"{name} said {said!r} instead of subscribing"
                venue.plays(frames=count)
                answer = json.loads(client.stdout.readline())
                client.wait(CLIENT_SECONDS)
            finally:
                client.kill()
    per_frame = 1e9 / answer["frames"]
    return {"ns": answer["seconds"] * per_frame, "cpu_ns": answer["cpu_seconds"] * per_frame}


def bench_loopback(count: int, rounds: int) -> tuple[dict[str, dict], dict[str, dict]]:
    """ns and client CPU ns a frame, by client; slow ones get fewer frames, the rate is what counts."""
    samples: dict[str, list[dict]] = {name: [] for name in CLIENTS}
    order = list(CLIENTS)
    for _ in range(rounds):
        order.append(order.pop(0))
        for name in order:
            samples[name].append(run_client(name, count if name == "fastfeed.Feed" else max(count // 8, 100_000)))
    return tuple(  # type: ignore[return-value]
        {name: summary([sample[what] for sample in all_of]) for name, all_of in samples.items()}
        for what in ("ns", "cpu_ns")
    )


def show(title: str, results: dict[str, dict], ours: Sequence[str], print_line: Callable[[str], None] = print) -> None:
    print_line(f"\n{title}")
    for name, result in sorted(results.items(), key=lambda item: -item[1]["median"]):
        ratios = "  ".join(f"{result['median'] / results[own]['median']:6.1f}x" for own in ours)
        spread = f"{result['min']:.0f}-{result['max']:.0f}"
        print_line(f"  {name:24} {result['median']:9.1f} ns/frame  ({spread:>13})   {ratios}")
    print_line(f"  (last columns: times slower than {', then '.join(ours)})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=HERE / "result.json", help="where to write the numbers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--frames", type=int, default=4_000_000, help="loopback frames for fastfeed; rivals get an eighth"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds, few loopback frames")
    parser.add_argument("--only", choices=("decode", "loopback"))
    options = parser.parse_args()
    rounds, count = (2, 400_000) if options.quick else (options.rounds, options.frames)
    report: dict = {"host": host(), "rounds": rounds, "results": {}, "ratios": {}}
    print(f"{report['host']['cpu']}, {report['host']['cpus']} CPUs, {report['host']['python']}")
    if options.only != "loopback":
        sources = {"made": frames.quotes(), "mixed layouts": frames.mixed(), "recorded": frames.recorded_quotes()}
        for source, payloads in sources.items():
            if not payloads:
                print(f"\ndecode, {source}: skipped, FASTFEED_FRAMES names no folder")
                continue
            size = sum(map(len, payloads)) / len(payloads)
            results = report["results"][f"decode, {source}"] = bench_decode(payloads, rounds)
            show(
                f"decode and conflate, {len(payloads):,} {source} frames of {size:.0f} bytes",
                results,
                ("fastfeed decode", "fastfeed decode_many"),
            )
    if options.only != "decode":
        wall, cpu = bench_loopback(count, max(2, rounds // 2))
        report["results"] |= {"loopback": wall, "loopback, client CPU": cpu}
        show(f"end to end over loopback, {SYMBOLS} symbols, flat out", wall, ("fastfeed.Feed",))
        show("the same, CPU of the client process", cpu, ("fastfeed.Feed",))
    kept = True
    print("\nwhat is promised")
    for (what, own, rival), floor in FLOORS.items():
        if what in report["results"]:
            results = report["results"][what]
            ratio = results[rival]["median"] / results[own]["median"]
            report["ratios"][f"{what}: {own} vs {rival}"] = {"ratio": ratio, "at_least": floor}
            kept = kept and ratio >= floor
            print(
                f"  {what:14} {own} vs {rival}: {ratio:.1f}x, at least {floor}x{'' if ratio >= floor else '   MISSED'}"
            )
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nwritten to {options.json}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
