"""How fast, against whom: the questions of QUESTIONS in one run, then what is promised and whether it holds.

`make bench` and `fastfeed bench` run it; `--quick` for a look. Exits with 1 if a promise that was measured is not
kept. Numbers go into bench/result.json, the picture into bench/result.png.
"""

import argparse
import json
import os
import sys
import sysconfig
from pathlib import Path

import prepare

HERE = Path(__file__).parent
QUESTIONS = ("decode", "loopback", "age", "symbols", "buffers", "own")
ROUNDS = {"decode": 9, "loopback": 5, "age": 7, "symbols": 9, "buffers": 5, "own": 9}
QUICK = 0.1  # of the frames and seconds, in two rounds


def flags() -> dict:
    """How many flags in use name a CPU: a build for one machine would prove nothing about a wheel."""
    import promises

    settings = [str(sysconfig.get_config_var(name) or "") for name in ("CC", "CFLAGS", "OPT", "PY_CFLAGS")]
    settings += [os.environ.get(name, "") for name in ("CC", "CFLAGS")]
    settings.append((HERE.parent / "setup.py").read_text())
    found = promises.cpu_flags(*settings)
    if found:
        print(f"\nbuilt with flags that name a CPU: {' '.join(found)}")
    return {"build": {"CPU flags": {"median": len(found), "min": len(found), "max": len(found), "rounds": 1}}}


def main() -> int:
    parser = argparse.ArgumentParser(prog="fastfeed bench", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=HERE / "result.json", help="where to write the numbers")
    parser.add_argument("--picture", type=Path, default=HERE / "result.png", help="where to draw them")
    parser.add_argument("--rounds", type=int, help=f"of each question (default {ROUNDS})")
    parser.add_argument("--quick", action="store_true", help="two rounds and a tenth of the frames: for a look")
    parser.add_argument("--only", choices=QUESTIONS, action="append", help="may be repeated; default all")
    options = parser.parse_args()
    prepare.main()

    # Only now: they need what has just been made.
    import importlib

    import clients
    import measure
    import picture
    import promises
    import rivals

    asked = options.only or QUESTIONS
    report: dict = {
        "host": measure.host(),
        "rounds": 2 if options.quick else options.rounds or max(ROUNDS.values()),
        "quick": options.quick,
        "left_out": prepare.left_out(),
        "not_done": rivals.SPARED | clients.NOT_DONE,
        "flags": {"simdjson_ondemand.cpp": prepare.CXX_FLAGS, "noop.pyx": prepare.C_FLAGS},
        "results": {},
    }
    host = report["host"]
    print(f"{host['cpu']}, {host['cpus']} CPUs, load {host['load_average'][0]:.1f}, {host['python']}")
    for question in asked:
        rounds = 2 if options.quick else options.rounds or ROUNDS[question]
        report["results"] |= importlib.import_module(question).run(rounds, QUICK if options.quick else 1.0)
    report["results"] |= flags()

    print("\nwhat the rivals do not do")
    for name, what in report["not_done"].items():
        print(f"  {name}: {what}")
    for name, why in report["left_out"].items():
        print(f"  {name} is left out: {why}")

    report["promises"] = list(promises.verdicts(report["results"]))
    print("\nwhat is promised")
    for verdict in report["promises"]:
        value = "not measured" if verdict["value"] is None else f"{verdict['value']:.2f}"
        missed = "" if verdict["kept"] or verdict["value"] is None else "   MISSED"
        print(f"  {verdict['what']:72} {value:>12}  ({verdict['bound']}){missed}")
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    picture.draw(report, options.picture)
    print(f"\nwritten to {options.json} and {options.picture}")
    return 0 if all(verdict["kept"] or verdict["value"] is None for verdict in report["promises"]) else 1


if __name__ == "__main__":
    sys.exit(main())
