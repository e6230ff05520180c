"""The eye on silence with the time in our hand: a real table and real sessions, a manual clock, no socket."""

import json
from collections.abc import Iterable

import pytest
from exchange import ack, quote, trade

from fastfeed import Backoff, Clock, Decoder, Heartbeat, Staleness, Status, Subscription
from fastfeed.lookout import Lookout
from fastfeed.providers import provider
from fastfeed.session import Session
from fastfeed.signals import Control, Delivered, Input, Judge, Opened, Send, Silent, Start, Subscribe

SYMBOLS = [f"S{i}USDT" for i in range(10)]


class Hours:
    """A market that opens and closes when told."""

    is_open = True

    def covers(self, utc: float) -> bool:
        return self.is_open


class World:
    """One connection's session and the table it fills; `look` is what the feed does every `Staleness.interval`."""

    def __init__(
        self, options: Staleness, symbols: Iterable[str] = SYMBOLS, channels: Iterable[str] = ("quote",)
    ) -> None:
        self.clock = Clock.manual()
        binance = provider("binance-usdm")
        self.decoder = Decoder(binance, clock=self.clock)
        self.options = options
        self.hours = Hours()
        self.lookout = Lookout(self.decoder.prices, options, self.hours)
        self.wishes = tuple(Subscription(symbol, channel) for symbol in symbols for channel in channels)
        self.session = Session(
            "line",
            "host:1",
            dialect=binance.dialect,
            limits=binance.limits,
            backoff=Backoff(),
            heartbeat=Heartbeat(interval=None),
            random=lambda: 0.5,
        )
        self.told: list[Input] = []
        self.numbers = 0
        for wish in self.wishes:
            self.decoder.add_symbol(wish.symbol)
        self.lookout.carry(self.wishes, self)  # type: ignore[arg-type]
        for event in (Subscribe(tuple((wish, binance.topic(wish)) for wish in self.wishes)), Start(), Opened()):
            self.handle(event)
        self.speak(*self.wishes)
        self.told.clear()

    @property
    def now(self) -> float:
        return self.clock.mono_ns() / 1e9

    def speaker(self, leg: int | None) -> "World":
        """It is its own shard of one connection."""
        return self

    def handle(self, event: Input) -> None:
        self.told.append(event)
        for action in self.session.handle(event, self.now):
            match action:
                case Judge(subscriptions, standing):
                    for subscription in subscriptions:
                        self.lookout.judge(subscription, standing)
                case Send(text):
                    self.handle(Control(ack(json.loads(text)).encode()))

    def speak(self, *wishes: Subscription) -> None:
        for wish in wishes:
            self.numbers += 1
            make = quote if wish.channel == "quote" else trade
            assert self.decoder.decode(make(wish.symbol, self.numbers).encode())
        if self.session.book.silent:
            self.handle(Delivered(wishes))

    def wait(self, seconds: float, *speaking: Subscription, every: float = 0.1) -> None:
        """Let time pass in the feed's steps; those `speaking` do so `every` so many seconds."""
        until, next_at = self.now + seconds, self.now + every
        while self.now < until:
            self.clock.advance(round(min(self.options.interval, every / 2) * 1e9))
            if self.now >= next_at:
                self.speak(*speaking)
                next_at += every
            self.lookout.look(self.now, 0.0)
            self.lookout.keep()

    def status(self, wish: Subscription) -> Status:
        return Status(int(self.decoder.prices[wish.symbol]["status"]))

    @property
    def silences(self) -> list[Silent]:
        return [event for event in self.told if isinstance(event, Silent)]


@pytest.mark.parametrize("threshold", [0.05, 0.3, 1.0, 30.0])
def test_a_mute_connection_is_found_within_the_threshold_and_a_tenth(threshold: float) -> None:
    world = World(Staleness(threshold=threshold))
    world.wait(threshold * 0.95)
    assert world.silences == []
    world.wait(threshold * 0.15)
    [silent] = world.silences
    assert set(silent.subscriptions) == set(world.wishes)
    assert silent.mute
    assert {world.status(wish) for wish in world.wishes} == {Status.SUSPECT}


def test_one_silent_symbol_is_told_alone_and_heard_again() -> None:
    world = World(Staleness(threshold=1.0))
    world.wait(2.0, *world.wishes[1:])
    assert world.silences == [Silent(world.wishes[:1])]
    assert world.status(world.wishes[0]) is Status.SUSPECT
    world.wait(0.3, *world.wishes)
    assert world.status(world.wishes[0]) is Status.LIVE


def test_a_symbol_is_measured_by_its_own_pace() -> None:
    world = World(Staleness(factor=4.0, floor=2.0, ceiling=60.0), SYMBOLS[:4])
    quick, slow = world.wishes[0], world.wishes[1]
    for _ in range(30):
        world.wait(5.0, quick)
        world.speak(slow)
    world.told.clear()
    world.wait(10.0, *world.wishes[2:])
    assert [event.subscriptions for event in world.silences] == [(quick,)], "two seconds are long for this one"
    world.wait(15.0, *world.wishes[2:])
    assert slow in world.silences[-1].subscriptions


def test_a_symbol_that_rarely_speaks_is_quiet() -> None:
    world = World(Staleness(factor=4.0, floor=2.0, ceiling=60.0), SYMBOLS[:3])
    rare = world.wishes[0]
    for _ in range(3):
        world.wait(50.0, *world.wishes[1:], every=1.0)
        world.speak(rare)
    world.told.clear()
    world.wait(100.0, *world.wishes[1:], every=1.0)
    assert world.silences == [Silent((rare,), usual=True)]
    assert world.status(rare) is Status.QUIET


def test_a_mute_channel_takes_those_with_it_that_should_have_been_heard_soon() -> None:
    world = World(Staleness(factor=4.0, floor=2.0, ceiling=60.0), SYMBOLS[:4])
    quick, brisk, slow = world.wishes[:2], world.wishes[2], world.wishes[3]
    for turn in range(60):
        world.wait(1.0, *quick)
        world.speak(brisk)
        if turn % 10 == 0:
            world.speak(slow)
    world.speak(*quick)
    world.told.clear()
    world.wait(2.5)
    [silent] = world.silences
    assert silent.mute
    assert set(silent.subscriptions) == {*quick, brisk}


def test_trades_do_not_speak_for_quotes() -> None:
    world = World(Staleness(threshold=1.0), SYMBOLS[:2], ("quote", "trade"))
    trades = [wish for wish in world.wishes if wish.channel == "trade"]
    world.wait(2.0, *trades)
    assert world.silences == [Silent(tuple(wish for wish in world.wishes if wish.channel == "quote"), mute=True)]
    world.wait(2.0, *trades)
    assert {world.status(wish) for wish in world.wishes} == {Status.SUSPECT}, "held against the ticks of the trades"


def test_a_closed_market_is_quiet_and_who_misses_the_opening_is_silent() -> None:
    world = World(Staleness(threshold=1.0))
    world.hours.is_open = False
    world.wait(3600.0, every=10.0)
    assert world.silences == [Silent(world.wishes, usual=True)]
    assert {world.status(wish) for wish in world.wishes} == {Status.QUIET}
    world.told.clear()
    world.hours.is_open = True
    world.wait(0.9, *world.wishes[1:])
    assert world.silences == []
    world.wait(0.3, *world.wishes[1:])
    assert world.silences == [Silent(world.wishes[:1])]


def test_what_is_dropped_is_not_missed() -> None:
    world = World(Staleness(threshold=1.0))
    world.lookout.drop(world.wishes[0])
    world.wait(2.0, *world.wishes[1:])
    assert world.silences == []
