"""The feed in a thread of its own: the same contract from any thread, and a busy strategy that delays nothing.

The exchange runs in another thread. A strategy that blocks waits for what the feed does meanwhile, never for a time.
"""

import asyncio
import gc
import inspect
import os
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from exchange import DEADLINE, Exchange, balances, quote, trade

import fastfeed
from fastfeed import ConfigError, ConnectError, GaveUp, StaleError, ThreadedFeed
from fastfeed.events import Connected, EventsLost
from fastfeed.feed import Feed
from fastfeed.streams import EVENTS_KEPT

T = TypeVar("T")


class Venue:
    """An Exchange in a thread and loop of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="exchange")
        self._thread.start()
        self.exchange = Exchange()
        self.run(self.exchange.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)

    def send(self, *messages: str) -> None:
        self.run(self.exchange.send(*messages))

    def send_together(self, *messages: str) -> None:
        self.loop.call_soon_threadsafe(self.exchange.line.send_together, *messages)

    def close(self) -> None:
        self.run(self.exchange.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(DEADLINE)
        self.loop.close()

    def feed(self, symbols: list[str] | None = None, **options: Any) -> ThreadedFeed:
        options.setdefault("url", self.exchange.url)
        return ThreadedFeed("binance-usdm", symbols or ["BTCUSDT"], **options)


@pytest.fixture
def venue() -> Iterator[Venue]:
    venue = Venue()
    yield venue
    venue.close()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what other threads bring about."""
    give_up_at = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < give_up_at, f"waited {DEADLINE:g} s for {what}"
        time.sleep(0.002)


def feed_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fastfeed")]


# Reading ------------------------------------------------------------------------------------------------------------


def test_batches_are_an_ordinary_iterator(venue: Venue) -> None:
    with venue.feed() as feed, feed.batches(timeout=DEADLINE) as batches:
        for update in range(1, 4):
            venue.send(quote(update=update, bid=update))
            batch = next(batches)
            assert batch["bid"].tolist() == [update]
            assert feed.prices.symbols[batch["symbol_id"][0]] == "BTCUSDT"
        assert float(feed.prices["BTCUSDT"]["bid"]) == 3
        assert feed.prices.is_fresh("BTCUSDT", max_age=60)
        assert feed.prices.fresh(60).tolist() == [True]
        assert feed.state == "LIVE"
        assert feed.health()["state"] == "LIVE"
        feed.refresh(["BTCUSDT"])
        assert repr(feed).startswith("<ThreadedFeed binance-usdm LIVE, 1/1")


def test_ticks_come_in_order_and_completely(venue: Venue) -> None:
    with venue.feed() as feed:
        ticks = feed.ticks(timeout=DEADLINE)
        seen: list[int] = []
        for start in range(1, 301, 20):
            venue.send_together(*(quote(update=update) for update in range(start, start + 20)))
        while len(seen) < 300:
            seen += next(ticks)["seq"].tolist()
        assert seen == list(range(1, 301))
        assert balances(ticks.ledger())
        assert ticks.lost == 0


def test_events_reach_another_thread(venue: Venue) -> None:
    feed = venue.feed()
    events = feed.events(timeout=DEADLINE)
    with feed:
        assert isinstance(next(events), Connected)


def test_an_event_stream_nobody_reads_stays_bounded_and_says_what_it_lost(venue: Venue) -> None:
    with venue.feed(channels=["trade"]) as feed:
        events = feed.events(name="mine", timeout=DEADLINE)
        for start in range(1, 6001, 100):  # every other number is missing
            venue.send_together(*(trade(number=number) for number in range(start, start + 100, 2)))
        until(lambda: feed.stats()["gaps"] == 2999, "all gaps")
        until(lambda: events.ledger()["received"] == 2999, "the sweep that tells them")
        assert balances(events.ledger())
        assert feed.stats()["consumers"]["mine"] == events.ledger()
        assert next(events) == EventsLost(2999 - EVENTS_KEPT)
        assert next(events).gap.first == 2 * (2999 - EVENTS_KEPT + 1)
        assert balances(events.ledger())


def test_a_stream_that_waits_too_long_says_so_and_goes_on(venue: Venue) -> None:
    with venue.feed() as feed, feed.batches(timeout=0.01) as batches:
        with pytest.raises(TimeoutError, match=r"nothing within 0\.01 s"):
            next(batches)
        batches.timeout = 0
        with pytest.raises(TimeoutError):
            next(batches)
        venue.send(quote(update=1, bid=5))
        batches.timeout = DEADLINE
        assert next(batches)["bid"].tolist() == [5]


def test_a_window_holds_batches_back_until_the_feed_closes(venue: Venue) -> None:
    feed = venue.feed()
    with feed:
        batches = feed.batches(window=3600.0, timeout=DEADLINE)
        venue.send(quote(update=1))
        assert len(next(batches)) == 1
        venue.send(quote(update=2, bid=7))
        until(lambda: feed.prices["BTCUSDT"]["bid"] == 7, "the second quote")
        batches.timeout = 0.01
        with pytest.raises(TimeoutError):
            next(batches)
        batches.timeout = DEADLINE
    assert [batch["bid"].tolist() for batch in batches] == [[7]]


def test_a_callback_is_called_in_the_threads_own_read_and_may_be_cancelled(venue: Venue) -> None:
    seen: list[tuple[str, float]] = []
    with venue.feed() as feed:
        handle = feed.on_batch(lambda rows: seen.append((threading.current_thread().name, float(rows["bid"][0]))))
        venue.send(quote(update=1, bid=5))
        until(lambda: seen, "the callback")
        handle.cancel()
        venue.send(quote(update=2, bid=6))
        until(lambda: feed.prices["BTCUSDT"]["bid"] == 6, "the second quote")
        assert seen == [("fastfeed binance-usdm", 5.0)]
        assert handle.cancelled
        assert balances(handle.ledger())


def test_a_late_consumer_gets_the_newest_and_its_books_balance(venue: Venue) -> None:
    with venue.feed() as feed:
        batches, ticks = feed.batches(timeout=DEADLINE, name="rows"), feed.ticks(timeout=DEADLINE, name="ticks")
        for start in range(1, 1001, 50):
            venue.send_together(*(quote(update=update, bid=update) for update in range(start, start + 50)))
        until(lambda: feed.prices["BTCUSDT"]["bid"] == 1000, "the last quote")
        batch = next(batches)
        assert batch["bid"].tolist() == [1000]
        assert batch["conflated"].tolist() == [999]
        assert len(next(ticks)) == 1000
        stats = feed.stats()
        assert stats["data"] == 1000
        assert {"rows", "ticks"} <= stats["consumers"].keys()
        assert all(balances(ledger) for ledger in stats["consumers"].values())


def test_several_threads_share_a_stream_and_each_item_goes_to_one(venue: Venue) -> None:
    taken: list[int] = []
    with venue.feed() as feed:
        ticks = feed.ticks()

        def take() -> None:
            for part in ticks:
                taken.extend(part["seq"].tolist())

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for start in range(1, 1001, 10):
            venue.send_together(*(quote(update=update) for update in range(start, start + 10)))
        until(lambda: len(taken) == 1000, "all ticks")
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(taken) == list(range(1, 1001))


# A busy strategy ----------------------------------------------------------------------------------------------------


def prove_alive(venue: Venue, feed: ThreadedFeed, done: threading.Event) -> None:
    """From the exchange's thread: the feed answers a ping and reads on while its user is busy."""

    async def prove() -> None:
        async with asyncio.timeout(DEADLINE):
            for update in range(1, 6):
                await (await venue.exchange.line.socket.ping())
                await venue.exchange.send(quote(update=update, bid=update))
                while feed.prices["BTCUSDT"]["bid"] != update:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)

    asyncio.run_coroutine_threadsafe(prove(), venue.loop).add_done_callback(
        lambda proof: done.set() if proof.exception() is None else None
    )


def test_a_strategy_that_sleeps_delays_neither_pongs_nor_reads(venue: Venue) -> None:
    done = threading.Event()
    with venue.feed() as feed:
        batches = feed.batches(timeout=DEADLINE)
        venue.send(quote())
        assert len(next(batches)) == 1
        prove_alive(venue, feed, done)
        assert done.wait(DEADLINE), "the feed stood still while its strategy slept"
        assert feed.stats()["pings_answered"] >= 5


def test_a_strategy_that_computes_delays_neither_pongs_nor_reads(venue: Venue) -> None:
    done = threading.Event()
    with venue.feed() as feed:
        prove_alive(venue, feed, done)
        give_up_at = time.monotonic() + DEADLINE
        while not done.is_set() and time.monotonic() < give_up_at:
            sum(range(1000))  # never lets go of the interpreter by itself
        assert done.is_set(), "the feed stood still while its strategy computed"
        assert feed.stats()["pings_answered"] >= 5


# What is wanted -----------------------------------------------------------------------------------------------------


def test_many_threads_subscribe_and_unsubscribe_at_once(venue: Venue) -> None:
    with venue.feed() as feed:

        def work(number: int) -> None:
            mine = [f"S{number}X{i}USDT" for i in range(10)]
            for symbol in mine:
                feed.subscribe([symbol])
            feed.unsubscribe(mine[5:])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        wanted = {"BTCUSDT"} | {f"S{number}X{i}USDT" for number in range(8) for i in range(5)}
        assert {subscription.symbol for subscription in feed.subscriptions} == wanted
        until(
            lambda: {topic.split("@")[0].upper() for line in venue.exchange.lines for topic in line.topics} == wanted,
            "the exchange to know",
        )
        assert balances(feed.batches().ledger())


def test_waiting_for_data_names_what_stays_silent(venue: Venue) -> None:
    with venue.feed(["BTCUSDT", "ETHUSDT"]) as feed:
        venue.send(quote())
        feed.wait_live(["BTCUSDT"], timeout=DEADLINE)
        with pytest.raises(StaleError) as raised:
            feed.wait_live(timeout=0.05)
        assert list(raised.value.symbols) == ["ETHUSDT"]


def test_it_has_every_option_method_and_property_of_a_feed() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    options = set(inspect.signature(Feed).parameters)
    assert set(inspect.signature(ThreadedFeed).parameters) == options | {"loop_factory"}
    # What the feed's own parts ask of it and tell it is not for users.
    assert public(Feed) <= public(ThreadedFeed)


# Errors -------------------------------------------------------------------------------------------------------------


def test_what_cannot_work_is_refused_where_it_is_asked_for(venue: Venue) -> None:
    with pytest.raises(ConfigError, match="symbols is empty"):
        ThreadedFeed("binance-usdm", [])
    with pytest.raises(TypeError, match="unexpected keyword"):
        ThreadedFeed("binance-usdm", ["BTCUSDT"], wrong=1)
    with venue.feed() as feed:
        with pytest.raises(ConfigError, match="nothing"):
            feed.subscribe(["ETHUSDT"], channels=["nothing"])
        with pytest.raises(ConfigError, match="not subscribed"):
            feed.unsubscribe(["ETHUSDT"])
        with pytest.raises(ConfigError, match="plain function"):
            feed.on_batch(print_later)
        with pytest.raises(ConfigError, match="timeout=-1"):
            feed.batches(timeout=-1)
        with pytest.raises(ConfigError, match="entered once"), feed:
            pass
        assert feed.state == "LIVE"


async def print_later(rows: Any) -> None:
    raise AssertionError("never called")


def test_an_exchange_that_is_not_there_is_named_and_the_thread_ends(venue: Venue) -> None:
    feed = venue.feed(url="ws://127.0.0.1:1", connect_timeout=0.2)
    with pytest.raises(ConnectError, match=r"127\.0\.0\.1:1"), feed:
        pass
    assert feed_threads() == []


def test_a_loop_that_cannot_be_made_is_told_where_the_feed_is_entered(venue: Venue) -> None:
    def broken() -> asyncio.AbstractEventLoop:
        raise OSError("no more files")

    with pytest.raises(OSError, match="no more files"), venue.feed(loop_factory=broken):
        pass


def test_a_terminal_failure_is_raised_in_every_thread_that_reads(venue: Venue) -> None:
    raised: list[type] = []
    with venue.feed(backoff=fastfeed.Backoff(max_retries=0)) as feed:
        streams = [feed.batches(), feed.ticks(), feed.events()]

        def read(stream: Any) -> None:
            try:
                for _ in stream:
                    pass
            except GaveUp as error:
                raised.append(type(error))

        threads = [threading.Thread(target=read, args=(stream,)) for stream in streams]
        for thread in threads:
            thread.start()
        venue.run(venue.exchange.stop())
        for thread in threads:
            thread.join(DEADLINE)
        assert raised == [GaveUp] * 3
        assert feed.state == "FAILED"


# The end ------------------------------------------------------------------------------------------------------------


def test_closing_from_any_thread_lets_every_reader_go(venue: Venue) -> None:
    feed = venue.feed()
    with feed:
        streams = [feed.batches(), feed.ticks(), feed.events(), feed.batches(window=60.0)]
        threads = [threading.Thread(target=lambda stream=stream: [*stream]) for stream in streams]
        for thread in threads:
            thread.start()
        closer = threading.Thread(target=feed.close)
        closer.start()
        for thread in [*threads, closer]:
            thread.join(DEADLINE)
            assert not thread.is_alive()
        assert feed.state == "CLOSED"
    assert feed_threads() == []
    feed.close()
    assert feed.stats()["frames"] >= 0
    assert list(feed.batches()) == []
    with pytest.raises(ConfigError, match="closed"):
        feed.subscribe(["ETHUSDT"])
    with pytest.raises(ConfigError, match="closed"):
        feed.wait_live()


def test_a_callback_may_call_the_feed_and_close_it(venue: Venue) -> None:
    seen: list[int] = []

    def act(rows: Any) -> None:
        feed.subscribe(["ETHUSDT"])
        seen.append(len(feed.subscriptions))
        try:
            feed.wait_live()
        except ConfigError:
            seen.append(-1)
        feed.close()

    with venue.feed() as feed:
        feed.on_batch(act)
        batches = feed.batches(timeout=DEADLINE)
        venue.send(quote(update=1))
        assert [len(batch) for batch in batches] == [1]
        assert seen == [2, -1]
        assert feed.state == "CLOSED"


def test_closing_while_it_connects_ends_the_entering(venue: Venue) -> None:
    venue.exchange.answer = lambda request: None
    feed = venue.feed(connect_timeout=None)
    closer = threading.Timer(0.0, lambda: (until(lambda: venue.exchange.lines, "the dial"), feed.close()))
    closer.start()
    with pytest.raises(ConfigError, match="closed"), feed:
        pass
    closer.join(DEADLINE)
    assert feed_threads() == []


def test_closing_a_stream_lets_go_of_whoever_waits_on_it(venue: Venue) -> None:
    with venue.feed() as feed:
        batches = feed.batches(name="mine")
        thread = threading.Thread(target=lambda: [*batches])
        thread.start()
        batches.close()
        thread.join(DEADLINE)
        assert not thread.is_alive()
        assert batches.closed
        assert "mine" not in feed.stats()["consumers"]
        assert balances(batches.ledger())


def test_a_feed_nobody_holds_any_more_ends_its_thread(venue: Venue) -> None:
    feed = venue.feed()
    feed.__enter__()
    gone = weakref.ref(feed)
    stream = feed.batches(timeout=DEADLINE)
    del feed
    gc.collect()
    assert gone() is not None, "a stream that is read keeps its feed"
    venue.send(quote())
    assert len(next(stream)) == 1
    del stream
    gc.collect()
    assert gone() is None
    until(lambda: not feed_threads(), "the thread to end")


def in_a_program(venue: Venue, code: str) -> str:
    program = f"""
import fastfeed, os, sys, threading
feed = fastfeed.ThreadedFeed("binance-usdm", ["BTCUSDT"], url={venue.exchange.url!r})
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    return done.stdout


def test_a_program_that_forgets_to_close_ends_all_the_same(venue: Venue) -> None:
    told = in_a_program(
        venue,
        """
        feed.__enter__()
        feed.on_batch(lambda rows: feed.prices)  # keeps the feed alive from its own thread
        waiting = threading.Thread(target=lambda: [*feed.batches()], daemon=True)
        waiting.start()
        print(feed.state)
        """,
    )
    assert told == "LIVE\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_told_no_and_leaves_the_feed_of_its_parent_alone(venue: Venue) -> None:
    told = in_a_program(
        venue,
        """
        with feed:
            stream = feed.batches(timeout=0.05)
            child = os.fork()
            if child == 0:
                for call in (feed.stats, feed.wait_live, feed.batches, lambda: next(stream)):
                    try:
                        call()
                    except fastfeed.ConfigError as error:
                        assert "forked" in str(error)
                    else:
                        os._exit(3)
                feed.close()
                sys.exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            feed.subscribe(["ETHUSDT"])
            print(feed.state, len(feed.subscriptions))
        """,
    )
    assert told == "LIVE 2\n"


# Another loop -------------------------------------------------------------------------------------------------------


async def test_it_is_used_from_a_loop_of_its_user(venue: Venue) -> None:
    async with venue.feed() as feed:
        batches = feed.batches()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(batches)
        for update in range(1, 4):
            await asyncio.to_thread(venue.send, quote(update=update, bid=update))
            async with asyncio.timeout(DEADLINE):
                assert (await anext(batches))["bid"].tolist() == [update]
        await asyncio.to_thread(feed.wait_live)
        ended = asyncio.create_task(drain(batches))
        await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE):
        assert await ended == 0
    assert feed_threads() == []


async def drain(stream: Any) -> int:
    return sum([1 async for _ in stream])


async def test_a_cancelled_entering_closes_the_feed(venue: Venue) -> None:
    venue.exchange.answer = lambda request: None
    feed = venue.feed(connect_timeout=None)
    entering = asyncio.create_task(feed.__aenter__())
    await asyncio.to_thread(until, lambda: venue.exchange.lines, "the dial")
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert feed.state == "CLOSED"
    assert feed_threads() == []


def test_the_thread_runs_the_loop_it_is_given(venue: Venue) -> None:
    uvloop = pytest.importorskip("uvloop")
    kinds: list[type] = []
    with venue.feed(loop_factory=uvloop.new_event_loop) as feed:
        feed.on_batch(lambda rows: kinds.append(type(asyncio.get_running_loop())))
        batches = feed.batches(timeout=DEADLINE)
        venue.send(quote())
        assert len(next(batches)) == 1
        assert kinds == [uvloop.Loop]
