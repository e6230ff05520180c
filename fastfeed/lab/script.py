"""A script of faults: which command a venue carries out when, read from a TOML file and checked before anything runs.

It knows no command by name; what there is, and which arguments fit, is read off the venue's methods.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import tomllib
import types
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastfeed.errors import ConfigError
from fastfeed.lab.venue import Venue

NOT_FOR_SCRIPTS = {"count"}  # it only answers, and nobody is there to be answered


@dataclass(frozen=True)
class Step:
    """One command, `at` so many seconds after the beginning."""

    at: float
    command: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{self.at:g} s: {self.command}({said})"


def read_script(path: str | Path, commands: Collection[str]) -> list[Step]:
    """The steps of a file, in the order of their times.

    Each is a `[[fault]]` with `at` (seconds from the beginning), `do` (one of `commands`) and the command's arguments.

    Raises:
        ConfigError: for a file that cannot be read or is no TOML, and for a step that could not be carried out; it
            says which one, what is wrong with it and what would be right.
    """
    try:
        script = tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is no TOML: {error}") from None
    faults = script.pop("fault", [])
    if script or not faults or not isinstance(faults, list) or not all(isinstance(fault, dict) for fault in faults):
        alien = f", not {', '.join(map(repr, script))}" if script else ""
        raise ConfigError(f"{path}: must be a list of [[fault]] tables, each with at= and do={alien}")
    known = sorted(set(commands) - NOT_FOR_SCRIPTS)
    steps = [_step(fault, f"{path}, fault {number}", known) for number, fault in enumerate(faults, 1)]
    return sorted(steps, key=lambda step: step.at)


def _step(fault: dict[str, Any], place: str, known: Sequence[str]) -> Step:
    arguments = dict(fault)
    at, command = arguments.pop("at", None), arguments.pop("do", None)
    if command not in known:
        raise ConfigError(f"{place}: do={command!r} is none of {', '.join(known)}")
    if not _fits(at, float) or not 0 <= at < math.inf:
        raise ConfigError(f"{place} ({command}): at={at!r} must be seconds from the beginning, 0 or more")
    method = getattr(Venue, command)
    taken = [parameter for parameter in inspect.signature(method).parameters.values() if parameter.name != "self"]
    kinds = get_type_hints(method)
    for name, value in arguments.items():
        if name not in {parameter.name for parameter in taken}:
            takes = ", ".join(parameter.name for parameter in taken) or "no arguments"
            raise ConfigError(f"{place}: {command} has no {name!r}; it takes {takes}")
        if not _fits(value, kinds[name]):
            raise ConfigError(f"{place}: {command} cannot take {name}={value!r}; it wants {_told(kinds[name])}")
    missing = [one.name for one in taken if one.default is inspect.Parameter.empty and one.name not in arguments]
    if missing:
        raise ConfigError(f"{place}: {command} needs {', '.join(missing)}")
    return Step(float(at), command, arguments)


def _fits(value: object, kind: Any) -> bool:
    origin, inside = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        return any(_fits(value, one) for one in inside)
    if origin is Literal:
        return value in inside
    if origin in (Sequence, Iterable):
        return isinstance(value, list) and all(_fits(one, inside[0]) for one in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _told(kind: Any) -> str:
    inside = get_args(kind)
    if get_origin(kind) is types.UnionType:
        return " or ".join(_told(one) for one in inside if one is not types.NoneType)
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, inside))
    if inside:
        return f"a list of {_told(inside[0])}"
    return {int: "a whole number", float: "a number", str: "text"}.get(kind, str(kind))


async def follow(venue: Venue, steps: Iterable[Step], say: Callable[[str], object]) -> None:
    """Carry out the steps at their times from now on, saying each; one that fails is said too, and the rest go on."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for step in steps:
        await asyncio.sleep(began + step.at - loop.time())
        try:
            getattr(venue, step.command)(**step.arguments)
            say(str(step))
        except ConfigError as error:
            say(f"{step} failed: {error}")
