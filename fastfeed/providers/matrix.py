"""The providers as a table for people, made from their data alone: what `docs/providers.md` holds and a test compares.

Only writes text. It knows no provider by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastfeed.gaps import Fetched
from fastfeed.providers import Evidence, Provider, names, provider

_FETCHED = {Fetched.MISSING: "what is missing", Fetched.SNAPSHOT: "a snapshot", Fetched.LAST: "the last value"}
_RULES = {
    "contiguous": "numbers without holes",
    "range": "ranges of numbers",
    "linked": "each names the one before",
    "connection": "one counter a connection",
    "rising": "order and repeats",
    "time": "order by time",
    "none": "none",
}


def matrix() -> str:
    """Two Markdown tables: what each provider is like, and how that is known."""
    rows = list(_families())
    behaviour = [
        (
            ", ".join(f"`{name}`" for name in called),
            ", ".join(one.channels),
            _auth(one),
            _heartbeat(one),
            _sequence(one),
            _recovery(one),
            _limits(one),
        )
        for called, one in rows
    ]
    known: dict[Evidence | None, list[str]] = {}
    for called, one in rows:
        known.setdefault(one.evidence, []).extend(called)
    evidence = [(", ".join(f"`{name}`" for name in called), *_known(found)) for found, called in known.items()]
    first = _table(
        ("provider", "channels", "login", "heartbeat", "sequence", "after a gap", "limits and eviction"), behaviour
    )
    second = _table(("provider", "source of its rules", "sample messages", "its venue was read by"), evidence)
    return f"{first}\n\n{second}"


def _families() -> Iterable[tuple[list[str], Provider]]:
    """Every provider once, with all the names it goes by: those that differ in nothing but the name share channels."""
    found: dict[int, tuple[list[str], Provider]] = {}
    for name in names():
        one = provider(name)
        found.setdefault(id(one.channels), ([], one))[0].append(name)
    return found.values()


def _known(evidence: Evidence | None) -> tuple[str, str, str]:
    if evidence is None:
        return "-", "-", "-"
    return evidence.grade, evidence.samples, ", ".join(evidence.checked_by) or f"none: {evidence.unchecked}"


def _auth(one: Provider) -> str:
    auth = one.auth
    if auth is None:
        return "none"
    where = [
        text
        for text, there in (
            ("a token over HTTP", auth.token is not None),
            ("in a header", bool(auth.headers)),
            ("in the URL", bool(auth.query)),
            ("in a message", auth.login is not None),
            ("in every request", bool(auth.stamps)),
        )
        if there
    ]
    return ", then ".join(where) + (", or none" if auth.optional else "")


def _heartbeat(one: Provider) -> str:
    said = ["protocol pings" + ("" if one.pongs_promised else ", whose answer counts once one has been seen")]
    if one.beats.interval is not None:
        given_up = "" if one.beats.timeout is None else f", given up after {one.beats.timeout:g} s"
        said.append(f"a ping of its own every {one.beats.interval:g} s{given_up}")
    if one.beats.expected is not None:
        said.append(f"the server speaks at least every {one.beats.expected:g} s")
    return "; ".join(said)


def _sequence(one: Provider) -> str:
    """The rule of each channel, channels of one rule together."""
    by_rule: dict[str, list[str]] = {}
    for message in one.schema.messages:
        channel = message.channel or message.kind
        if message.kind != "control" and channel in one.channels:
            channels = by_rule.setdefault(_RULES[message.rule], [])
            if channel not in channels:
                channels.append(channel)
    if len(by_rule) == 1:
        return next(iter(by_rule))
    return "; ".join(f"{', '.join(channels)}: {rule}" for rule, channels in by_rule.items())


def _recovery(one: Provider) -> str:
    fetched: dict[str, list[str]] = {}
    for channel, recipe in one.recovery.items():
        if recipe.path is not None:
            fetched.setdefault(_FETCHED[recipe.fetched], []).append(channel)
    told = [f"{', '.join(channels)}: {what} over HTTP" for what, channels in fetched.items()]
    rest = "others are asked for anew" if told else "asked for anew"
    return "; ".join([*told, rest])


def _limits(one: Provider) -> str:
    limits = one.limits
    numbers = (
        (limits.connections, "{} connection(s) an account"),
        (limits.streams_per_connection, "{} subscriptions a connection"),
        (limits.streams_per_request, "{} a request"),
        (limits.bytes_per_request, "{} bytes a request"),
        (limits.messages_per_second, "{} messages a second"),
        (limits.dials_per_five_minutes, "{} dials in five minutes"),
    )
    told = [text.format(f"{number:,}") for number, text in numbers if number is not None]
    if limits.lifetime is not None:
        told.append(f"{limits.lifetime / 3600:g} h a connection")
    if limits.connections is not None:
        told.append(f"evicted: {limits.eviction_cool_down:g} s of rest")
    return "; ".join(told) or "none known"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
