"""Whether a price may be acted on: ages on the monotonic clock, per channel, per status, after gaps, by event-time lag.

All on a manual clock; nothing here waits.
"""

import math

import numpy as np
import pytest

import fastfeed
from fastfeed._core import Clock
from fastfeed.schema import Message, Schema

SECOND = 10**9
START_UTC = 1_700_000_000 * SECOND

SCHEMA = Schema(
    Message("quote", match={"e": "q"}, symbol="s", bid="b", ask="a", seq="u", event_time=("T", "ns")),
    Message("trade", match={"e": "t"}, symbol="s", price="p", size="z", seq="t", event_time=("T", "ns")),
    Message("depth", match={"e": "d"}, symbol="s", bids="b", asks="a", first_seq="U", seq="u", event_time=("T", "ns")),
    Message("control", has=("result", "id")),
    name="freshness",
)


class World:
    """A decoder under a manual clock; what it receives, it receives now."""

    def __init__(self) -> None:
        self.clock = Clock.manual(mono_ns=1000 * SECOND, utc_ns=START_UTC)
        self.decoder = fastfeed.Decoder(SCHEMA, clock=self.clock)
        self.prices = self.decoder.prices
        self.seq = 0

    def receive(self, text: str) -> int:
        return self.decoder.decode(text.encode(), recv_ns=self.clock.utc_ns())

    def quote(self, symbol: str = "A", lag: float = 0.0) -> int:
        self.seq += 1
        event_ns = self.clock.utc_ns() - int(lag * SECOND)
        return self.receive(f'{{"e":"q","s":"{symbol}","u":{self.seq},"b":"1","a":"2","T":{event_ns}}}')

    def trade(self, trade_id: int, symbol: str = "A") -> int:
        return self.receive(f'{{"e":"t","s":"{symbol}","t":{trade_id},"p":"1","z":"2","T":{self.clock.utc_ns()}}}')

    def depth(self, first: int, last: int, symbol: str = "A") -> int:
        now_ns = self.clock.utc_ns()
        return self.receive(f'{{"e":"d","s":"{symbol}","U":{first},"u":{last},"b":[["1","1"]],"a":[],"T":{now_ns}}}')

    def advance(self, seconds: float) -> None:
        self.clock.advance(round(seconds * SECOND))


@pytest.fixture
def world() -> World:
    return World()


def test_an_unknown_symbol_is_not_fresh(world):
    assert world.prices.is_fresh("A", max_age=10.0) is False
    assert world.prices.is_fresh("A", max_age=10.0, channel="quote") is False


def test_a_symbol_without_data_is_not_fresh(world):
    world.decoder.add_symbol("A")
    assert not world.prices.is_fresh("A", max_age=10.0)
    assert not world.prices.fresh(max_age=10.0).any()
    assert math.isnan(world.prices.ages()[0])


def test_a_price_is_fresh_until_max_age_and_not_after(world):
    world.quote()
    assert world.prices.is_fresh("A", max_age=0.5)
    world.advance(0.5)
    assert world.prices.is_fresh("A", max_age=0.5)
    world.clock.advance(1)
    assert not world.prices.is_fresh("A", max_age=0.5)
    assert world.prices.is_fresh("A", max_age=0.6)
    world.quote()
    assert world.prices.is_fresh("A", max_age=0.5)


def test_fresh_agrees_with_is_fresh_row_by_row(world):
    for number in range(20):
        world.quote(f"S{number}")
        world.advance(0.1)
    mask = world.prices.fresh(max_age=1.05)
    assert mask.dtype == np.bool_
    assert len(mask) == len(world.prices.array)
    assert list(mask) == [world.prices.is_fresh(symbol, max_age=1.05) for symbol in world.prices.symbols]
    assert mask.sum() == 10


def test_ages_are_seconds_on_the_monotonic_clock(world):
    world.quote("A")
    world.advance(2.5)
    world.quote("B")
    world.advance(0.25)
    ages = world.prices.ages()
    assert ages.dtype == np.float64
    assert list(ages) == pytest.approx([2.75, 0.25])


@pytest.mark.parametrize("step", [-3600 * SECOND, 3600 * SECOND])
def test_a_stepped_wall_clock_makes_nothing_fresh_and_nothing_stale(world, step):
    world.quote("A")
    world.advance(1.0)
    world.quote("B")
    world.clock.step_utc(step)
    assert not world.prices.is_fresh("A", max_age=0.5)
    assert world.prices.is_fresh("B", max_age=0.5)
    assert list(world.prices.ages()) == pytest.approx([1.0, 0.0])


def test_trades_flowing_never_keep_a_dead_quote_fresh(world):
    world.decoder.add_symbol("A")
    world.prices.require("A", ["quote", "trade"])
    world.quote()
    for trade_id in range(1, 20):
        world.trade(trade_id)
        world.advance(0.1)
    assert not world.prices.is_fresh("A", max_age=1.0)
    assert not world.prices.fresh(max_age=1.0)[0]
    assert world.prices.is_fresh("A", max_age=1.0, channel="trade")
    assert not world.prices.is_fresh("A", max_age=1.0, channel="quote")
    world.quote()
    assert world.prices.is_fresh("A", max_age=1.0)


def test_a_required_channel_that_never_came_is_not_fresh(world):
    world.decoder.add_symbol("A")
    world.prices.require("A", ["quote", "trade"])
    world.quote()
    assert not world.prices.is_fresh("A", max_age=10.0)
    world.trade(1)
    assert world.prices.is_fresh("A", max_age=10.0)


def test_only_the_required_channels_count(world):
    world.decoder.add_symbol("A")
    world.prices.require("A", ["quote"])
    world.trade(1)
    world.advance(5.0)
    world.quote()
    assert world.prices.is_fresh("A", max_age=1.0)
    assert not world.prices.is_fresh("A", max_age=1.0, channel="trade")


def test_ages_are_told_per_channel(world):
    world.quote()
    world.advance(1.0)
    world.trade(1)
    world.advance(1.0)
    assert world.prices.ages(channel="quote")[0] == pytest.approx(2.0)
    assert world.prices.ages(channel="trade")[0] == pytest.approx(1.0)
    assert math.isnan(world.prices.ages(channel="depth")[0])


def test_a_channel_without_prices_is_never_required(world):
    world.decoder.add_symbol("A")
    world.prices.require("A", ["quote", "depth"])
    world.quote()
    assert world.prices.is_fresh("A", max_age=1.0)


def test_depth_keeps_its_own_channel_fresh_only(world):
    world.decoder.add_symbol("A")
    world.prices.require("A", ["quote"])
    world.quote()
    world.advance(2.0)
    world.depth(1, 2)
    assert world.prices.is_fresh("A", max_age=1.0, channel="depth")
    assert not world.prices.is_fresh("A", max_age=1.0)


def test_a_symbol_with_several_channels_is_as_fresh_as_its_oldest_required_one(world):
    world.decoder.add_symbol("A")
    world.prices.require("A", ["quote", "trade", "depth"])
    for age, receive in ((0.3, world.quote), (0.2, lambda: world.trade(1)), (0.1, lambda: world.depth(1, 2))):
        receive()
        assert age
        world.advance(0.1)
    assert world.prices.is_fresh("A", max_age=0.31)
    assert not world.prices.is_fresh("A", max_age=0.29)


@pytest.mark.parametrize("channel", ["nope", "", "Quote"])
def test_an_unknown_channel_is_a_config_error_naming_the_valid_ones(world, channel):
    world.quote()
    for ask in (
        lambda: world.prices.is_fresh("A", max_age=1.0, channel=channel),
        lambda: world.prices.fresh(max_age=1.0, channel=channel),
        lambda: world.prices.ages(channel=channel),
        lambda: world.prices.require("A", [channel]),
    ):
        with pytest.raises(fastfeed.ConfigError, match="quote"):
            ask()


NO_DATA = ['{"result":null,"id":1}', '{"e":"?","s":"A"}', '{"e":"q","s":"A"', '{"e":"q","s":"A","u":9,"b":"x"}', "[]"]


@pytest.mark.parametrize("frame", NO_DATA)
def test_what_is_not_data_refreshes_nothing(world, frame):
    world.quote()
    world.advance(2.0)
    assert world.receive(frame) == 0
    assert not world.prices.is_fresh("A", max_age=1.0)
    assert world.prices.ages()[0] == pytest.approx(2.0)


@pytest.mark.parametrize("status", list(fastfeed.Status))
def test_only_live_and_quiet_symbols_are_fresh(world, status):
    world.quote()
    world.prices.set_status("A", status)
    allowed = status in (fastfeed.Status.LIVE, fastfeed.Status.QUIET)
    assert world.prices.is_fresh("A", max_age=10.0) is allowed
    assert bool(world.prices.fresh(max_age=10.0)[0]) is allowed
    assert world.prices["A"]["status"] == status
    assert world.prices.array["status"][0] == status


def test_the_first_data_make_a_symbol_live(world):
    world.decoder.add_symbol("A")
    assert world.prices["A"]["status"] == 0
    world.quote()
    assert world.prices["A"]["status"] == fastfeed.Status.LIVE


def test_a_row_after_a_gap_is_not_fresh_until_repaired(world):
    world.trade(1)
    assert world.prices.is_fresh("A", max_age=10.0)
    world.trade(5)
    assert world.prices["A"]["flags"] & fastfeed.Flag.AFTER_GAP
    assert not world.prices.is_fresh("A", max_age=10.0)
    world.trade(6)
    assert not world.prices.is_fresh("A", max_age=10.0)
    assert not world.prices.fresh(max_age=10.0)[0]
    world.prices.repaired("A")
    assert not world.prices["A"]["flags"] & fastfeed.Flag.AFTER_GAP
    assert world.prices.is_fresh("A", max_age=10.0)


def test_a_late_price_is_not_fresh(world):
    for _ in range(20):
        world.quote(lag=0.05)
        world.advance(0.1)
    world.quote(lag=5.0)
    assert not world.prices.is_fresh("A", max_age=1.0)
    assert not world.prices.fresh(max_age=1.0)[0]
    assert world.prices.is_fresh("A", max_age=10.0)
    world.quote(lag=0.05)
    assert world.prices.is_fresh("A", max_age=1.0)


def test_repeats_and_older_messages_refresh_nothing(world):
    world.quote()
    world.trade(5)
    world.advance(2.0)
    world.seq -= 1
    world.quote()
    world.trade(5)
    world.trade(4)
    assert world.decoder.stats()["duplicates"] == 3
    assert not world.prices.is_fresh("A", max_age=1.0, channel="quote")
    assert not world.prices.is_fresh("A", max_age=1.0, channel="trade")


def test_symbols_do_not_share_their_clocks(world):
    world.quote("A")
    world.advance(2.0)
    world.quote("B")
    assert list(world.prices.fresh(max_age=1.0)) == [False, True]


@pytest.mark.parametrize("max_age", [math.nan, -1.0])
def test_within_an_impossible_age_nothing_is_fresh(world, max_age):
    world.quote()
    assert not world.prices.is_fresh("A", max_age=max_age)
    assert not world.prices.fresh(max_age=max_age).any()


def test_infinite_patience_still_wants_data_and_status(world):
    world.decoder.add_symbol("B")
    world.quote("A")
    world.advance(10**6)
    assert world.prices.is_fresh("A", max_age=math.inf)
    assert not world.prices.is_fresh("B", max_age=math.inf)


@pytest.mark.parametrize("symbol", ["Z", ""])
def test_what_is_said_of_an_unknown_symbol_is_a_key_error(world, symbol):
    for say in (lambda: world.prices.set_status(symbol, fastfeed.Status.LIVE), lambda: world.prices.repaired(symbol)):
        with pytest.raises(KeyError):
            say()


def test_a_real_clock_moves():
    clock = Clock()
    first = clock.mono_ns()
    assert clock.mono_ns() >= first
    assert clock.utc_ns() > START_UTC
    with pytest.raises((TypeError, ValueError, fastfeed.FastFeedError)):
        clock.advance(1)
