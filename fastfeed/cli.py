"""The commands: demo, watch, check, bench, doctor, providers, lab. Each asks the library for what it shows; none knows
more than it.

Exit status: 0 all is well, 1 what was looked at is not, 2 the command cannot work as it was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import platform
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import click

import fastfeed
from fastfeed import providers as provided
from fastfeed.demo import Plan
from fastfeed.demo import run as run_demo
from fastfeed.errors import ConfigError, DecodeError, FastFeedError
from fastfeed.lab.load import read_lines
from fastfeed.lab.process import main as run_lab
from fastfeed.providers.matrix import matrix
from fastfeed.screen import Screen

STDIN = Path("-")
SHOWN = 10  # faults a check lists before it only counts


class _Commands(click.Group):
    """A fault of the user's is one line, not a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except FastFeedError as error:
            raise click.UsageError(str(error)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(fastfeed.__version__, prog_name="fastfeed")
def main() -> None:
    """Market data over WebSocket into numpy: the newest price of every symbol, and whether it may be acted on."""


@main.command()
@click.option("--frames", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Play this recording.")
@click.option("--symbols", default=500, show_default=True, type=click.IntRange(1, 1000))
@click.option("--rate", default=2000.0, show_default=True, help="Events per second while it is quiet; a burst is 100x.")
def demo(frames: Path | None, symbols: int, rate: float) -> None:
    """A venue, a feed, a burst, a cut connection, and whether the books balance."""
    logging.getLogger("fastfeed").setLevel(logging.CRITICAL)  # the demo tells of its cut itself
    with Screen() as screen:
        status = asyncio.run(run_demo(Plan(frames=frames, symbols=symbols, rate=rate), screen))
    sys.exit(status)


@main.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def lab(arguments: tuple[str, ...]) -> None:
    """A venue on this machine that speaks an exchange's protocol: see `fastfeed lab --help`."""
    sys.exit(run_lab(arguments))


# ---------------------------------------------------------------------------------------------------------------- watch


@main.command()
@click.argument("provider")
@click.argument("symbols", nargs=-1, required=True)
@click.option("--channel", "channels", multiple=True, default=("quote",), show_default=True, help="May be repeated.")
@click.option("--url", help="Another address, such as that of a local venue.")
@click.option("--seconds", type=float, help="End after so many; else at Ctrl-C.")
def watch(
    provider: str, symbols: tuple[str, ...], channels: tuple[str, ...], url: str | None, seconds: float | None
) -> None:
    """The newest prices of a feed: a live table, or lines where there is no terminal."""
    feed = fastfeed.Feed(provider, symbols, channels=channels, url=url)
    with Screen() as screen, contextlib.suppress(KeyboardInterrupt):
        logging.getLogger("fastfeed").addHandler(_ToScreen(screen))
        asyncio.run(_watch(feed, screen, math.inf if seconds is None else seconds))


class _ToScreen(logging.Handler):
    """What the feed logs, as lines above the table."""

    def __init__(self, screen: Screen) -> None:
        super().__init__(logging.WARNING)
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self._screen.say(self.format(record))


async def _watch(feed: fastfeed.Feed, screen: Screen, seconds: float) -> None:
    end = time.monotonic() + seconds
    columns = ("symbol", "bid", "bid size", "ask", "ask size", "last", "updates", "age", "status")
    async with feed:
        while True:
            array, ages, now = feed.prices.array, feed.prices.ages(), time.monotonic()
            rows = [
                [
                    symbol,
                    *(_number(array[name][place]) for name in ("bid", "bid_size", "ask", "ask_size", "last")),
                    f"{array['updates'][place]:,}",
                    "-" if math.isnan(ages[place]) else f"{ages[place]:.1f} s",
                    fastfeed.Status(int(array["status"][place])).name,
                ]
                for place, symbol in enumerate(feed.prices.symbols)
            ]
            lines = "\n".join("  ".join((row[0], row[1], row[3], row[5], row[7], row[8])) for row in rows)
            screen.draw(repr(feed), columns, rows, lines)
            if now >= end:
                return
            await asyncio.sleep(min(0.25, end - now))


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.10g}"


# ---------------------------------------------------------------------------------------------------------------- check


@main.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--provider", help="Also decode the frames as this provider's and tell what they are.")
def check(files: tuple[Path, ...], provider: str | None) -> None:
    """Look for malformed frames: one frame a line, or a recording's '<recv ns> <frame>' (may be gzip); '-' is stdin."""
    decoder = None if provider is None else fastfeed.Decoder(provider)
    counts: Counter[str] = Counter()
    for file in files or (STDIN,):
        for place, payload in _frames(file):
            counts["frames"] += 1
            if decoder is not None:
                decoder.decode(payload)
            try:
                fastfeed.check(payload)
            except DecodeError as error:
                counts["malformed"] += 1
                if counts["malformed"] <= SHOWN:
                    click.echo(f"{place}: {error}")
    click.echo(f"{counts['frames']:,} frames, {counts['malformed']:,} malformed")
    if decoder is not None:
        stats = decoder.stats()
        kinds = ("data", "control", "unknown", "malformed", "messages", "ticks", "gaps", "duplicates")
        click.echo(f"{provider}: " + ", ".join(f"{stats[kind]:,} {kind}" for kind in kinds))
    sys.exit(1 if counts["malformed"] else 0)


def _frames(file: Path) -> Iterator[tuple[str, bytes]]:
    """`(place, frame)` for each line; the receive time of a recording's line is left off."""
    lines = (line.rstrip(b"\r\n") for line in sys.stdin.buffer) if file == STDIN else read_lines(file)
    for number, line in enumerate(lines, 1):
        stamp, _, frame = line.partition(b" ")
        if line:
            yield f"{file}:{number}", frame if stamp.isdigit() and frame else line


# ---------------------------------------------------------------------------------------------------------------- bench


@main.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """How fast, against whom, with every rival in the same run: see `fastfeed bench --help`. Needs the source tree."""
    script = Path(fastfeed.__file__).parent.parent / "bench" / "run.py"
    if not script.is_file():
        raise click.UsageError(
            "the bench and its rivals are in the source tree, which is not installed with the package: get the sources "
            "(the sdist or the repository) and run `make bench` there; --quick too needs them"
        )
    sys.exit(subprocess.run([sys.executable, str(script), *arguments]).returncode)


# --------------------------------------------------------------------------------------------------- doctor, providers


@main.command()
def doctor() -> None:
    """What this machine and installation are, to paste into a report."""
    for name, value in _findings():
        click.echo(f"{name:<12}{value}")


def _findings() -> Iterator[tuple[str, str]]:
    yield "fastfeed", fastfeed.__version__
    enabled = getattr(sys, "_is_gil_enabled", lambda: True)()
    yield "python", f"{platform.python_implementation()} {platform.python_version()}, GIL {'on' if enabled else 'off'}"
    yield "platform", f"{platform.platform()}, {platform.machine()}, {os.cpu_count()} CPUs"
    yield "picows", f"{metadata.version('picows')} (accepted: anything else fails at import)"
    for name in ("numpy", "orjson", "uvloop"):
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield name, "not installed"
    chosen = os.environ.get("FASTFEED_SIMD")
    yield "kernels", ", ".join(fastfeed.kernels()) + (f" (FASTFEED_SIMD={chosen})" if chosen else "")
    clocks = {"monotonic": time.get_clock_info("monotonic"), "utc": time.get_clock_info("time")}
    for name, clock in clocks.items():
        yield name, f"{clock.implementation}, resolution {clock.resolution * 1e9:.0f} ns"
    limit = Path("/proc/sys/net/core/rmem_max")
    if limit.exists():
        yield "rmem_max", f"{int(limit.read_text()):,} bytes"
    paths = ssl.get_default_verify_paths()
    yield (
        "tls",
        f"{ssl.OPENSSL_VERSION}, certificates {os.environ.get('SSL_CERT_FILE') or paths.cafile or paths.capath}",
    )


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--matrix", "as_matrix", is_flag=True, help="What each is like and how that is known, in Markdown.")
def providers(as_json: bool, as_matrix: bool) -> None:
    """The providers there are, with their channels."""
    if as_matrix:
        click.echo(matrix())
        return
    known: dict[str, provided.Provider | ConfigError] = {}
    for name in provided.names():
        try:
            known[name] = provided.provider(name)
        except ConfigError as error:  # it needs an extra that is not installed
            known[name] = error
    if as_json:
        there = [one for one in known.values() if isinstance(one, provided.Provider)]
        click.echo(json.dumps([{"name": one.name, "url": one.url, "channels": one.channel_names} for one in there]))
        return
    for name, one in known.items():
        if isinstance(one, ConfigError):
            click.echo(f"{name}\n  {one}")
            continue
        alias = "" if name == one.name else f" (the same as {one.name})"
        click.echo(f"{name}{alias}\n  {one.url}\n  {', '.join(one.channel_names)}")
