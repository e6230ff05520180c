"""What a provider is, and where to find the ones that come with fastfeed: addresses, words, limits and schemas as data.

A provider is looked up by name and its module imported only then. Nothing here connects to anything.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from fastfeed.backoff import Backoff
from fastfeed.credentials import Auth
from fastfeed.dialect import Dialect
from fastfeed.errors import ConfigError
from fastfeed.failures import Failure
from fastfeed.gaps import Fetched, Plan, Recovery, Strategy
from fastfeed.heartbeat import Beats
from fastfeed.staleness import Span
from fastfeed.subscriptions import ALL, Limits, Subscription

if TYPE_CHECKING:
    from fastfeed.schema import Schema

_MODULES: Mapping[str, str] = MappingProxyType(
    {
        **{
            f"alpaca{stream}{encoding}": f"fastfeed.providers.alpaca{encoding.replace('-', '_')}"
            for stream in (
                *("", "-iex", "-delayed", "-boats", "-overnight", "-test"),
                *("-crypto", "-crypto-us-1", "-crypto-eu-1"),
            )
            for encoding in ("", "-msgpack")
        },
        "alpaca-options": "fastfeed.providers.alpaca_msgpack",
        "alpaca-options-indicative": "fastfeed.providers.alpaca_msgpack",
        "binance": "fastfeed.providers.binance",
        "binance-spot": "fastfeed.providers.binance",
        "binance-usdm": "fastfeed.providers.binance",
        "binance-coinm": "fastfeed.providers.binance",
        "cme": "fastfeed.providers.cme",
        "finnhub": "fastfeed.providers.finnhub",
        "iex": "fastfeed.providers.iex",
        **{
            f"intrinio{source}{kinds}": "fastfeed.providers.intrinio"
            for source in ("", "-delayed-sip", "-nasdaq-basic", "-cboe-one", "-equities-edge")
            for kinds in ("", "-trades")
        },
        "tickdb": "fastfeed.providers.tickdb",
        "tiingo-fx": "fastfeed.providers.tiingo",
        "tradermade": "fastfeed.providers.tradermade",
        **{
            f"{house}{market}": "fastfeed.providers.polygon"
            for house in ("polygon", "massive")
            for market in ("", "-options", "-forex", "-crypto", "-indices", "-futures")
        },
    }
)


@dataclass(frozen=True, kw_only=True)
class Channel:
    """One kind of stream a provider offers. Its name is that of the schema's messages (`Message(channel=)`).

    `topic` is the provider's name for the stream, a format string over `symbol`, `lower` (the symbol in lower case) and
    the parameters; `all` that of the stream of every symbol, where there is one. `params` maps each parameter to its
    accepted values and the text each stands for in the topic; the first value is the default.
    """

    topic: str
    path: str  # of the connection that carries it
    params: Mapping[str, Mapping[object, str]] = field(default_factory=dict)
    all: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make up for what a channel misses.

    `path` is that of a GET request on the provider's `rest`, a format string over `symbol` (quoted for a URL), `lower`,
    `first` and `last`; `schema` reads the answer, whose messages may have `symbol=GIVEN`. `weight` is what one request
    costs of `rest_weight_per_minute`. `replay` makes the message that asks for numbers first to last again, from
    (topic, first, last). Subscriptions with one of the parameters in `whole` need none of it: each message of theirs is
    a whole picture. `anew`: a stream that is asked for anew begins afresh, with nothing to make up for; not so one of
    deltas whose snapshot has to be fetched.
    """

    path: str | None = None
    schema: Schema | None = None
    fetched: Fetched = Fetched.MISSING
    weight: int = 1
    replay: Callable[[str, int, int], str | bytes] | None = None
    whole: tuple[str, ...] = ()
    anew: bool = True

    def __post_init__(self) -> None:
        if (self.path is None) != (self.schema is None):
            raise ConfigError("Recipe: path and schema go together: one asks, the other reads the answer")

    def plan(self, options: Recovery, *, fetches: bool) -> Plan:
        """What `options` allow of it; `fetches`: HTTP is possible at all."""
        possible = {
            Strategy.REPLAY: self.replay is not None,
            Strategy.REST: fetches and self.path is not None,
            Strategy.RESUBSCRIBE: self.anew,
        }
        ways = options.ways(way for way, is_possible in possible.items() if is_possible)
        return Plan(ways=ways, fetched=self.fetched, weight=self.weight)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """How well a provider's protocol is known, and how that was checked. For people: nothing is decided by it.

    `grade` is the best source of its rules. `samples` is where the messages of its tests come from. `checked_by` names
    the outside clients that have read the lab's venue of it; where there are none, `unchecked` says why.
    """

    grade: str
    samples: str
    checked_by: tuple[str, ...] = ()
    unchecked: str = ""

    def __post_init__(self) -> None:
        if bool(self.checked_by) == bool(self.unchecked):
            raise ConfigError(f"Evidence(checked_by={self.checked_by!r}): name clients, or say in unchecked= why none")


@dataclass(frozen=True, kw_only=True)
class Provider:
    """Everything fastfeed knows about one provider. Pure data; `Feed` takes one of yours as it takes a name."""

    name: str
    url: str  # scheme, host, port
    channels: Mapping[str, Channel]
    schema: Schema
    dialect: Dialect
    limits: Limits = field(default_factory=Limits)
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names of channels
    symbol: str = r"\S+"  # a regular expression every symbol matches
    example: str = ""  # a symbol as the provider writes it
    upper: bool = False  # symbols are upper case, however they are typed
    echoes: Callable[[str], tuple[str, ...]] | None = None  # other spellings of a symbol its messages may have
    compression: bool = False  # offers permessage-deflate (RFC 7692); what is sent to it is never compressed
    pongs_promised: bool = True  # a ping is always answered, so that silence means death
    beats: Beats = field(default_factory=Beats)
    backoff: Backoff = field(default_factory=Backoff)  # where the user names none
    auth: Auth | None = None
    headers: Mapping[str, str] = field(default_factory=dict)  # of the handshake, beside those that show who we are
    close_codes: Mapping[int, Failure] = field(default_factory=dict)  # its own, before the common ones
    hours: Span | None = None  # when the market is open; None: always
    evidence: Evidence | None = None
    recovery: Mapping[str, Recipe] = field(default_factory=dict)  # by channel; without one, it is only asked for anew
    rest: str = ""  # scheme and host of its HTTP side
    rest_weight_per_minute: int | None = None  # what it allows one address there
    numbering: str = ""  # providers that name the same here number the same messages alike: two hosts of one venue

    @property
    def channel_names(self) -> list[str]:
        """Every name a channel can be asked for by."""
        return [*self.channels, *self.aliases]

    def symbol_named(self, text: str) -> str:
        """A symbol in the provider's own spelling. Raises ConfigError for what cannot be one."""
        symbol = text.upper() if self.upper and isinstance(text, str) else text
        if not (isinstance(symbol, str) and re.fullmatch(self.symbol, symbol)):
            like = f": symbols look like {self.example}" if self.example else ""
            raise ConfigError(f"{self.name} has no symbol {text!r}{like}")
        return symbol

    def channel_named(self, text: str) -> str:
        """The name of a channel, aliases resolved. Raises ConfigError for one this provider does not have."""
        name = self.aliases.get(text, text) if isinstance(text, str) else text
        if not isinstance(text, str) or name not in self.channels:
            raise ConfigError(f"{self.name} has no channel {text!r}; it has {_listed(self.channel_names)}")
        return name

    def subscription(self, wish: Subscription) -> Subscription:
        """`wish` in the provider's own spelling, default parameters left out.

        Raises:
            ConfigError: for a symbol, channel, parameter or value this provider does not have.
        """
        name = self.channel_named(wish.channel)
        if wish.symbol == ALL and self.channels[name].all is None:
            with_all = [channel for channel, offer in self.channels.items() if offer.all is not None]
            has = f"channels that have: {_listed(with_all)}" if with_all else "no channel has"
            raise ConfigError(f"{self.name} channel {name!r} has no stream of all symbols ({has}): name the symbols")
        symbol = ALL if wish.symbol == ALL else self.symbol_named(wish.symbol)
        known = self.channels[name].params
        params: dict[str, object] = {}
        for parameter, value in wish.params:
            if parameter not in known:
                valid = f"it has {_listed(known)}" if known else "it has none"
                raise ConfigError(f"{self.name} channel {name!r} has no parameter {parameter!r}; {valid}")
            if value not in list(known[parameter]):  # a list: the value need not be hashable
                valid = _listed(known[parameter])
                raise ConfigError(f"{self.name} channel {name!r}: {parameter}={value!r} must be one of {valid}")
            if value != next(iter(known[parameter])):
                params[parameter] = value
        return Subscription(symbol, name, **params)

    def topic(self, subscription: Subscription) -> str:
        """The provider's name for a subscription that came from `subscription()`."""
        channel = self.channels[subscription.channel]
        chosen = dict(subscription.params)
        words = {
            parameter: values[chosen.get(parameter, next(iter(values)))] for parameter, values in channel.params.items()
        }
        topic = channel.topic if subscription.symbol != ALL or channel.all is None else channel.all
        return topic.format(symbol=subscription.symbol, lower=subscription.symbol.lower(), **words)


def provider(name: str | Provider) -> Provider:
    """The provider called `name`; a Provider is returned as it is.

    Raises:
        ConfigError: no provider has that name; the message lists those there are.
    """
    if isinstance(name, Provider):
        return name
    if name not in _MODULES:
        raise ConfigError(f"there is no provider {name!r}; there are {_listed(_MODULES)}")
    found: Provider = importlib.import_module(_MODULES[name]).PROVIDERS[name]
    return found


def names() -> list[str]:
    """The names `provider` knows."""
    return list(_MODULES)


def _listed(values: Iterable[object]) -> str:
    return ", ".join(repr(value) for value in values)
