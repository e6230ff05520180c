"""The rules of the house, held by reading the source tree: who may import whom, what the lower rooms never do, names.

A new file needs a row in the tables below: that is where its place in the house is decided. Nothing is imported here
but the public package, to pin its names.
"""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

import fastfeed

pytestmark = pytest.mark.tree

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "fastfeed"

# Python rooms, from the ground up: room -> the rooms it may import.
BRAIN = {
    "backoff",
    "dialect",
    "door",
    "events",
    "failures",
    "gaps",
    "heartbeat",
    "retries",
    "rotation",
    "signals",
    "staleness",
    "subscriptions",
}
CORE = {"errors", "records", "_core", "binary", "schema"}
ROOMS: dict[str, set[str]] = {
    "records": set(),
    "errors": {"records"},
    "backoff": {"errors"},
    "calendars": {"errors"},
    "failures": {"errors"},
    "heartbeat": {"errors"},
    "staleness": {"errors", "subscriptions"},
    "subscriptions": {"errors"},
    "gaps": {"errors", "records"},
    "events": {"records", "subscriptions"},
    "retries": {"backoff", "failures"},
    "rotation": {"errors", "staleness"},
    "dialect": {"failures", "subscriptions"},
    "door": {"subscriptions"},
    "signals": {"errors", "events", "failures", "staleness", "subscriptions"},
    "session": {"errors", *BRAIN},
    "binary": {"errors"},
    "schema": {"errors", "_core", "binary"},
    "rest": {"errors"},
    "text": set(),
    "credentials": {"errors", "rest"},
    "providers": {"binary", "credentials", "errors", "schema", "text", *BRAIN},
    "decoder": CORE | {"providers"},
    "streams": {"errors", "events", "records", "_core"},
    "endpoint": CORE | BRAIN | {"credentials", "providers", "_wire"},
    "connection": CORE | BRAIN | {"session", "decoder", "endpoint", "_wire"},
    "confirm": {"subscriptions"},
    "legs": CORE | BRAIN | {"session", "connection"},
    "lookout": CORE | BRAIN | {"session", "connection", "legs"},
    "repair": CORE | BRAIN | {"providers", "connection", "rest"},
    "engine": CORE
    | BRAIN
    | {"session", "providers", "decoder", "endpoint", "streams", "connection", "legs", "lookout", "repair"},
    "feed": CORE
    | BRAIN
    | {"session", "providers", "credentials", "decoder", "endpoint", "streams", "engine", "confirm"},
    "threaded": CORE | BRAIN | {"confirm", "decoder", "feed", "providers", "streams"},
    "lab": {"errors"},  # never a provider's file: a desk is written from the protocol
    "screen": {"errors"},
    "demo": CORE | BRAIN | {"", "providers", "feed", "lab", "screen"},
    "cli": CORE | BRAIN | {"", "session", "providers", "decoder", "streams", "feed", "lab", "screen", "demo"},
    "__main__": {"cli"},
}
# The commands, and what only they may import.
COMMANDS = {"__main__", "cli", "demo", "screen"}
TOP = COMMANDS | {"serve", "lab"}
# Rooms that talk to the world: the feed with its sockets and its waiting side, and what stands above it. The others do
# not sleep, log, roll dice or open sockets: time and chance are arguments.
SHELLS = {"feed", "engine", "connection", "credentials", "endpoint", "repair", "rest", "streams", "threaded"} | TOP
WORLD = {"asyncio", "logging", "picows", "random", "secrets", "selectors", "socket", "ssl", "threading", "time"}
# The session and its parts need nothing installed, so a simulated week of faults runs anywhere.
STDLIB_ONLY = BRAIN | {"errors", "session"}

# The machine room: header -> the headers it may cimport. `_core` is the compiled module's shipped face.
HEADERS: dict[str, set[str]] = {
    "tick": set(),
    "order": set(),
    "scan": set(),
    "number": set(),
    "layout": set(),
    "liveness": {"order"},
    "sequence": set(),
    "histogram": set(),
    "symbols": {"scan", "order"},
    "ring": {"tick", "order"},
    "table": {"tick", "order"},
    "schema": {"scan"},
    "slots": {"layout", "scan", "schema"},
    "message": {"layout", "number", "scan", "schema", "slots", "tick"},
    "hold": {"tick"},
    "arbiter": {"hold", "sequence"},
    "streams": {"layout", "schema", "sequence", "symbols", "tick"},
    "watch": {
        "arbiter",
        "histogram",
        "hold",
        "layout",
        "liveness",
        "ring",
        "schema",
        "sequence",
        "streams",
        "table",
        "tick",
    },
    "splice": {
        "arbiter",
        "hold",
        "layout",
        "ring",
        "schema",
        "sequence",
        "streams",
        "table",
        "tick",
        "watch",
    },
    "json": {"layout", "message", "scan", "schema", "slots", "tick"},
    "msgpack": {"layout", "message", "number", "scan", "schema", "slots", "tick"},
    "binary": {"layout", "message", "number", "scan", "schema", "slots", "tick"},
}
# Where they all meet: behind the parsers, and with them.
HEADERS["decoder"] = set(HEADERS) - {"json", "binary"}
HEADERS["frame"] = set(HEADERS)

PUBLIC = """
    AuthError Backoff Calendar Clock ConfigError ConnectError DecodeError Decoder FastFeedError Feed Flag GIVEN Gap
    GapError GaveUp HandshakeError Heartbeat Jitter Kind MARK_DTYPE MISSING Message PRICE_DTYPE Period PriceReader
    PriceTable Provider Recovery Rotation Schema Spliced StaleError Staleness Status Strategy Subscription
    SubscriptionRejected Symbol TICK_DTYPE TICK_DTYPE_PLAIN ThreadedFeed TickReader TickRing Week bars check corrections
    fx_week kernels levels marks quotes trades
"""

ROOM_FILES = sorted(p for p in HOUSE.rglob("*.py") if p != HOUSE / "__init__.py")
HEADER_FILES = sorted((ROOT / "ext").glob("*.pxd"))
GENERATED = {ROOT / "ext" / "_core.c", ROOT / "ext" / "_wire.c"}
SOURCES = sorted(
    path
    for folder in ("ext", "fastfeed", "tests", "bench", "examples", ".ci")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".pyx", ".pxd", ".pyi", ".h", ".c"} and path not in GENERATED
)

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def imports_of(path: Path, *, even_for_types: bool = True) -> set[str]:
    """Absolute dotted names of everything a file imports, wherever in the file it does so."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if not even_for_types:
        tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if TYPE_CHECKING:")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def rooms_imported(path: Path) -> set[str]:
    """The rooms of this package a file imports; "" stands for a public name taken from the package itself."""
    names = [name.split(".") for name in imports_of(path) if name.split(".")[0] == "fastfeed"]
    known = {p.name.split(".")[0] for p in HOUSE.iterdir()}
    return {name[1] if len(name) > 1 and name[1] in known else "" for name in names}


@pytest.mark.parametrize("path", ROOM_FILES, ids=named)
def test_imports_between_rooms_only_point_down(path: Path) -> None:
    room = room_of(path)
    assert room in ROOMS, f"{named(path)}: no row in ROOMS says what this room may import"
    wrong = rooms_imported(path) - ROOMS[room] - {room}
    assert not wrong, f"{named(path)} imports {sorted(wrong)}; {room} may import {sorted(ROOMS[room])}"


@pytest.mark.parametrize("table", [ROOMS, HEADERS], ids=["rooms", "headers"])
def test_a_table_of_imports_has_no_circle(table: dict[str, set[str]]) -> None:
    settled = {"", "_core", "_wire"}
    left = dict(table)
    while left:
        ready = {room for room, below in left.items() if below <= settled}
        assert ready, f"these import each other in a circle: {sorted(left)}"
        settled |= ready
        left = {room: below for room, below in left.items() if room not in ready}


@pytest.mark.parametrize("path", [HOUSE / "__init__.py", *ROOM_FILES], ids=named)
def test_only_the_commands_import_commands_or_the_lab(path: Path) -> None:
    allowed = TOP if room_of(path) in COMMANDS else {room_of(path)}
    assert not (rooms_imported(path) & TOP) - allowed


@pytest.mark.parametrize("path", [p for p in ROOM_FILES if room_of(p) not in SHELLS], ids=named)
def test_below_the_feed_nothing_sleeps_logs_rolls_dice_or_opens_a_socket(path: Path) -> None:
    world = {name.split(".")[0] for name in imports_of(path)} & WORLD
    assert not world, f"{named(path)} imports {sorted(world)}"


@pytest.mark.parametrize("path", [p for p in ROOM_FILES if room_of(p) in STDLIB_ONLY], ids=named)
def test_the_session_and_its_parts_import_only_the_standard_library(path: Path) -> None:
    packages = {name.split(".")[0] for name in imports_of(path, even_for_types=False)}
    outside = packages - sys.stdlib_module_names - {"fastfeed"}
    assert not outside, f"{named(path)} imports {sorted(outside)}"


@pytest.mark.parametrize("path", [p for p in ROOM_FILES if room_of(p) != "text"], ids=named)
def test_json_is_read_and_written_through_one_room(path: Path) -> None:
    assert not any(name.split(".")[0] == "orjson" for name in imports_of(path)), "orjson locks a free interpreter"


def cimports_of(path: Path) -> set[str]:
    found = re.findall(r"^\s*(?:from\s+([\w.]+)\s+cimport\b|cimport\s+([\w.]+))", path.read_text("utf-8"), re.M)
    return {module or name for module, name in found}


@pytest.mark.parametrize("path", HEADER_FILES, ids=named)
def test_cimports_between_headers_only_point_down(path: Path) -> None:
    assert path.stem in HEADERS, f"{named(path)}: no row in HEADERS says what this header may cimport"
    headers = {p.stem for p in HEADER_FILES}
    wrong = {name for name in cimports_of(path) if name in headers} - HEADERS[path.stem]
    assert not wrong, f"{named(path)} cimports {sorted(wrong)}; it may {sorted(HEADERS[path.stem])}"


def test_the_shipped_declarations_cimport_nothing_that_is_not_installed() -> None:
    assert not cimports_of(HOUSE / "_core.pxd") & {p.stem for p in HEADER_FILES}


def test_only_the_wire_cimports_picows() -> None:
    users = {p.name for p in (ROOT / "ext").glob("*.p[xy][dx]") if any("picows" in name for name in cimports_of(p))}
    assert users == {"_wire.pyx"}


@pytest.mark.parametrize("path", HEADER_FILES, ids=named)
def test_headers_hold_no_python_objects_and_do_not_wait_for_the_interpreter_lock(path: Path) -> None:
    code = re.sub(r'"""(.|\n)*?"""|#.*', "", path.read_text(encoding="utf-8"))
    assert not re.findall(r"^cdef class .*|\bwith gil\b|\bcpdef\b|^\s*(?:import|from \S+ import) .*", code, re.M)
    functions = re.findall(r"^cdef inline [^:]*?\)[^:\n]*:", code, re.M)
    assert [f for f in functions if "noexcept nogil" not in f] == []


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_every_file_opens_by_saying_what_it_is_for(path: Path) -> None:
    text = re.sub(r"\A(?:#!.*\n|# (?:cython|distutils):.*\n|\s)+", "", path.read_text("utf-8"))
    assert text.startswith(('"""', "# ", "/*", "//")), f"{named(path)} opens with code"


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=named)
def test_no_file_holds_a_note_to_self_or_a_path_of_one_machine(path: Path) -> None:
    if path == Path(__file__):
        return
    found = re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b|(?<![\w.])/(?:home|root|work|Users)/\w+", path.read_text("utf-8"))
    assert not found, f"{named(path)}: {found}"


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_no_module_has_a_name_that_means_nothing(path: Path) -> None:
    assert not set(path.stem.strip("_").split("_")) & {"utils", "util", "common", "helpers", "manager", "misc"}


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(fastfeed.__all__) == sorted(PUBLIC.split())
    assert [name for name in fastfeed.__all__ if not hasattr(fastfeed, name)] == []


def test_every_package_is_listed_for_installation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = {".".join(p.parent.relative_to(ROOT).parts) for p in HOUSE.rglob("__init__.py")}
    assert set(project["tool"]["setuptools"]["packages"]) == packages
