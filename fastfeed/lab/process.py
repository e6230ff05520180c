"""A venue in a process of its own, so that it shares no interpreter with what it tests: commands and answers are JSON
lines.

`main` is the process (`python -m fastfeed.lab`), `VenueProcess` the handle on it. Both need nothing but the core
package, except for the venues of `fastfeed.lab.stage`.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import math
import os
import selectors
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from fastfeed.errors import ConfigError, FastFeedError
from fastfeed.lab import desks
from fastfeed.lab.binance import MARKETS
from fastfeed.lab.load import Recording
from fastfeed.lab.script import follow, read_script
from fastfeed.lab.venue import LIMITS, Venue

COMMANDS = (
    "accepts_again",
    "acks_again",
    "announces_shutdown",
    "answers_again",
    "answers_slowly",
    "closes",
    "count",
    "cuts",
    "drips",
    "evicts",
    "falls_silent",
    "flows_again",
    "freezes",
    "lags",
    "mutes",
    "plays",
    "pongs_again",
    "refuses",
    "refuses_requests",
    "repeats",
    "rests",
    "sends_garbage",
    "shows_old_books",
    "skips",
    "speaks_again",
    "stops_ponging",
    "thaws",
    "tolerates_all",
    "withholds_acks",
)
# Of a provider's desk, which is no Venue.
STAGE_COMMANDS = (
    "accepts_again",
    "acks_again",
    "beats_again",
    "closes",
    "cuts",
    "evicts",
    "evicts_everybody",
    "expires",
    "falls_silent",
    "finds_slow",
    "fragments",
    "freezes",
    "half_opens",
    "joins",
    "limits",
    "mutes",
    "pongs_again",
    "refuses",
    "repeats",
    "skips",
    "speaks_again",
    "stops_beating",
    "stops_ponging",
    "thaws",
    "tolerates_all",
    "withholds_acks",
)
VENUE_ONLY = ("phases", "frames", "retimed", "speed", "script", *LIMITS)  # options that a desk has no use for
VENUES = ", ".join([*sorted(MARKETS), *desks.names()])
ANSWER_SECONDS = 10.0


class VenueProcess:
    """A venue running elsewhere: `with VenueProcess("binance-usdm", symbols=500) as venue: ... venue.url`.

    Takes the options of `fastfeed lab` as keywords (`rate=`, `phases=`, `frames=` a recording's path, `speed=`,
    `seed=`, `script=` a file of faults, `ping_interval=`, ...). Its methods are the commands of `Venue`; each blocks
    until the venue has answered, at most ten seconds. With neither `rate`, `phases` nor `speed` it waits for `plays()`.
    """

    def __init__(self, name: str = "binance-usdm", **options: Any) -> None:
        arguments = [name]
        for option, value in options.items():
            if value is None:
                continue
            if isinstance(value, Sequence) and not isinstance(value, str):
                value = ",".join(f"{rate}:{seconds}" for rate, seconds in value)
            flag = f"--{option.replace('_', '-')}"
            arguments += ([flag] if value else []) if isinstance(value, bool) else [flag, str(value)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastfeed.lab", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._rest = b""
        try:
            self.url: str = self._answer("its address")["url"]
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> VenueProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self, timeout: float) -> int:
        """The exit status, waited for at most `timeout` seconds."""
        return self._process.wait(timeout)

    def terminate(self) -> None:
        self._process.terminate()

    def close(self) -> None:
        """End the process: SIGTERM, and SIGKILL if it has not gone after five seconds."""
        self._process.terminate()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """Have the venue do `command`; returns its answer, raises ConfigError with what it says against it."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"cmd": command, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ConfigError(f"the venue's process has ended with status {self._process.wait(1.0)}") from None
        answer = self._answer(f"the answer to {command!r}")
        if "error" in answer:
            raise ConfigError(answer["error"])
        return answer["result"]

    def _answer(self, what: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        deadline = time.monotonic() + ANSWER_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError(f"the venue's process did not give {what} within {ANSWER_SECONDS:.0f} s")
                more = os.read(self._process.stdout.fileno(), 1 << 16)
                if not more:
                    raise ConfigError(f"the venue's process ended with status {self._process.wait(1.0)} before {what}")
                self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def count(self) -> dict[str, Any]:
        """`Venue.count()`: what the venue has sent."""
        count: dict[str, Any] = self.ask("count")
        return count

    def plays(
        self,
        *,
        rate: float | None = None,
        phases: Sequence[Sequence[float]] | None = None,
        speed: float | Sequence[Sequence[float]] | None = None,
        frames: int | None = None,
    ) -> None:
        self.ask("plays", rate=rate, phases=phases, speed=speed, frames=frames)

    def rests(self) -> None:
        self.ask("rests")

    def cuts(self, connection: int | None = None) -> list[dict[str, Any]]:
        cut: list[dict[str, Any]] = self.ask("cuts", connection=connection)
        return cut

    def closes(self, code: int = 1012, reason: str = "", connection: int | None = None) -> None:
        self.ask("closes", code=code, reason=reason, connection=connection)

    def falls_silent(self, connection: int | None = None) -> None:
        self.ask("falls_silent", connection=connection)

    def lags(self, seconds: float, connection: int | None = None) -> None:
        self.ask("lags", seconds=seconds, connection=connection)

    def speaks_again(self) -> None:
        self.ask("speaks_again")

    def refuses(self, status: int = 503, retry_after: float | str | None = None) -> None:
        self.ask("refuses", status=status, retry_after=retry_after)

    def accepts_again(self) -> None:
        self.ask("accepts_again")

    def announces_shutdown(self, connection: int | None = None) -> None:
        self.ask("announces_shutdown", connection=connection)

    def answers_slowly(self, seconds: float) -> None:
        self.ask("answers_slowly", seconds=seconds)

    def refuses_requests(
        self, status: int = 500, retry_after: float | str | None = None, times: int | None = None
    ) -> None:
        self.ask("refuses_requests", status=status, retry_after=retry_after, times=times)

    def shows_old_books(self, events: int, times: int = 1) -> None:
        self.ask("shows_old_books", events=events, times=times)

    def answers_again(self) -> None:
        self.ask("answers_again")

    def skips(self, frames: int, connection: int | None = None) -> None:
        self.ask("skips", frames=frames, connection=connection)

    def repeats(self, frames: int = 1, connection: int | None = None) -> None:
        self.ask("repeats", frames=frames, connection=connection)

    def sends_garbage(
        self, kind: Literal["malformed", "unknown"] = "malformed", frames: int = 1, connection: int | None = None
    ) -> None:
        self.ask("sends_garbage", kind=kind, frames=frames, connection=connection)

    def mutes(self, streams: str | Iterable[str], connection: int | None = None) -> None:
        self.ask("mutes", streams=streams if isinstance(streams, str) else list(streams), connection=connection)

    def drips(self, bytes_per_s: float = 64.0) -> None:
        self.ask("drips", bytes_per_s=bytes_per_s)

    def flows_again(self) -> None:
        self.ask("flows_again")

    def freezes(self) -> None:
        self.ask("freezes")

    def thaws(self) -> None:
        self.ask("thaws")

    def withholds_acks(self) -> None:
        self.ask("withholds_acks")

    def acks_again(self) -> None:
        self.ask("acks_again")

    def stops_ponging(self) -> None:
        self.ask("stops_ponging")

    def pongs_again(self) -> None:
        self.ask("pongs_again")

    def evicts(self, whom: Literal["oldest", "newest"] = "oldest", *, beyond: int = 1, code: int | None = 1008) -> None:
        self.ask("evicts", whom=whom, beyond=beyond, code=code)

    def tolerates_all(self) -> None:
        self.ask("tolerates_all")


# ---------------------------------------------------------------------------------------------------------- the process


def _phases(text: str) -> list[tuple[float, float]]:
    """'2000:4,200000:3': rate:seconds, ..."""
    pairs = [pair.split(":") for pair in text.split(",")]
    return [(float(rate), float(seconds)) for rate, seconds in pairs]


def _number(text: str) -> float:
    return math.inf if text == "max" else float(text)


def _speed(text: str) -> float | list[tuple[float, float]]:
    return _phases(text) if ":" in text else _number(text)


def _names(text: str) -> list[str]:
    return text.split(",")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastfeed lab",
        description="A venue on this machine that speaks an exchange's protocol. Prints a JSON line with its address, "
        'takes JSON lines such as {"cmd":"count"} or {"cmd":"closes","code":1012}; ends at SIGTERM. '
        f"Commands: {', '.join(COMMANDS)}. The venues other than {', '.join(sorted(MARKETS))} need the http extra and "
        f"take --host, --port, --named, --seed, --rate, --keys; their commands: {', '.join(STAGE_COMMANDS)}.",
    )
    parser.add_argument("venue", choices=[*sorted(MARKETS), *desks.names()], metavar="venue", help=VENUES)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--symbols", type=int, default=500, help="how many (default 500)")
    parser.add_argument("--named", type=_names, metavar="A,B,...", help="these symbols (not for Binance's markets)")
    parser.add_argument(
        "--keys", type=json.loads, metavar="JSON", help='the credentials that are accepted, as {"api_key":"..."}'
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=_number, help="events per second over all streams, or max")
    parser.add_argument("--phases", type=_phases, metavar="RATE:SECONDS,...", help="for example 2000:5,200000:3,2000:5")
    parser.add_argument(
        "--frames", type=Path, metavar="FILE", help="play this recording: lines '<recv ns> <frame>', may be gzip"
    )
    parser.add_argument(
        "--retimed", action="store_true", help="write the time of playing over the recording's event times"
    )
    parser.add_argument("--speed", type=_speed, help="times faster than recorded, or max; also as phases")
    parser.add_argument(
        "--script", type=Path, metavar="FILE", help="a TOML file of faults and when they happen; each is told on stderr"
    )
    for limit, text in (
        ("ping-interval", "seconds between the server's pings"),
        ("pong-timeout", "seconds without a pong until it disconnects"),
        ("max-streams", "per connection"),
        ("messages-per-second", "incoming, per connection"),
        ("lifetime", "seconds until it ends a connection"),
    ):
        parser.add_argument(f"--{limit}", type=float, help=f"{text} (default: as the real venue)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        return asyncio.run(_serve(options) if options.venue in MARKETS else _serve_desk(options))
    except (FastFeedError, OSError) as error:
        print(f"fastfeed lab: {error}", file=sys.stderr)
        return 2


async def _serve(options: argparse.Namespace) -> int:
    limits = {name: getattr(options, name) for name in LIMITS if getattr(options, name) is not None}
    load = Recording(options.frames, retimed=options.retimed) if options.frames is not None else None
    steps = read_script(options.script, COMMANDS) if options.script is not None else []
    ended = _told_to_end()
    async with Venue(
        options.venue,
        load=load,
        symbols=options.symbols,
        seed=options.seed,
        host=options.host,
        port=options.port,
        **limits,
    ) as venue:
        if options.rate is not None or options.phases is not None or options.speed is not None:
            venue.plays(rate=options.rate, phases=options.phases, speed=options.speed)
        _tell_address(venue.url, options.venue)
        tasks = [asyncio.create_task(_listen(venue, ended, COMMANDS)), asyncio.create_task(follow(venue, steps, _say))]
        await ended.wait()
        for task in tasks:
            task.cancel()
    return 0


async def _serve_desk(options: argparse.Namespace) -> int:
    if unused := [name for name in VENUE_ONLY if getattr(options, name)]:
        raise ConfigError(f"--{unused[0].replace('_', '-')} is for {', '.join(sorted(MARKETS))} only")
    try:
        from fastfeed.lab.stage import Stage
    except ModuleNotFoundError:
        raise ConfigError(f"{options.venue} needs the http extra: pip install 'fastfeed[http]'") from None
    ended = _told_to_end()
    async with Stage(
        options.venue,
        symbols=options.named,
        rate=options.rate or 0.0,
        keys=options.keys,
        seed=options.seed,
        host=options.host,
        port=options.port,
    ) as stage:
        _tell_address(stage.url, options.venue)
        listening = asyncio.create_task(_listen(stage, ended, STAGE_COMMANDS))
        await ended.wait()
        listening.cancel()
    return 0


def _told_to_end() -> asyncio.Event:
    """Set at SIGTERM and SIGINT."""
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    return ended


def _tell_address(url: str, venue: str) -> None:
    """The first line on stdout: who waits for it may connect."""
    print(json.dumps({"url": url, "venue": venue, "pid": os.getpid()}), flush=True)


def _say(text: str) -> None:
    print(f"fastfeed lab: {text}", file=sys.stderr, flush=True)


async def _listen(venue: object, ended: asyncio.Event, commands: Sequence[str]) -> None:
    """Carry out the commands on stdin; where it is a pipe, its end is ours, so that nobody is left behind."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty()):
        return
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip():
            print(json.dumps(await _obey(venue, line, commands)), flush=True)
    ended.set()


async def _obey(venue: object, line: bytes, commands: Sequence[str]) -> dict[str, Any]:
    try:
        arguments = json.loads(line)
        command = arguments.pop("cmd")
        if command not in commands:
            raise ConfigError(f"no command {command!r}; there are {', '.join(commands)}")
        result = getattr(venue, command)(**arguments)
        return {"result": await result if inspect.isawaitable(result) else result}
    except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
