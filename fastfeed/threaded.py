"""A Feed in a thread and loop of its own, for strategies that compute or block: they never delay heartbeats or reading.

What changes the feed is carried to its thread and waited for. Prices and streams are read where the caller is, so a
slow consumer conflates as it does with a Feed. It decides nothing and knows no provider.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from fastfeed._core import PriceTable
from fastfeed.confirm import Confirmation
from fastfeed.decoder import Decoder
from fastfeed.errors import ConfigError
from fastfeed.events import Event
from fastfeed.feed import Feed
from fastfeed.providers import Provider
from fastfeed.records import Gap
from fastfeed.streams import BatchCallback, Events, Ledger, Records, Stream, resolve
from fastfeed.subscriptions import Subscription

T = TypeVar("T")

_SLACK = 2.0  # seconds a closing thread may take beyond the feed's close_timeout
_OPTIONS = inspect.signature(Feed).parameters


class _Bell:
    """Rung in the feed's thread, waited for in any other. Whoever waits is woken once, by a call of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[object, Callable[[], object]] = {}

    def ring(self) -> None:
        # The lock is taken even when nobody waits: between it and `expect`, one of the two sees what the other did.
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        for wake in waiting.values():
            wake()

    def expect(self, key: object, wake: Callable[[], object]) -> None:
        with self._lock:
            self._waiting[key] = wake

    def forget(self, key: object) -> None:
        with self._lock:
            self._waiting.pop(key, None)


class _Feed(Feed):
    """The feed inside: rings for other threads too."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.bell = _Bell()
        super().__init__(*arguments, **options)
        self._readers.also = self.bell.ring

    def events(self, *, name: str | None = None) -> Events:
        return self._readers.keep(_Events(self._readers.named("events", name), self._readers.ending))


class _Events(Events):
    """Filled in the feed's thread, emptied in another."""

    def __init__(self, *arguments: Any) -> None:
        self._lock = threading.Lock()
        super().__init__(*arguments)

    def push(self, event: Event) -> None:
        with self._lock:
            super().push(event)

    def _take(self) -> Event | None:
        with self._lock:
            return super()._take()

    def _ledger(self) -> Ledger:
        with self._lock:
            return super()._ledger()


class _Runner:
    """The thread, its loop and the feed in it. Knows nothing of the ThreadedFeed, so that one can be forgotten."""

    def __init__(self, feed: _Feed, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None, grace: float) -> None:
        self.feed = feed
        self._loop_factory = loop_factory
        self._grace: float = grace  # seconds
        self._lock = threading.RLock()  # around whether the loop takes calls, and calls made without it
        self._takes_calls = False
        self._loop: asyncio.AbstractEventLoop
        self._over: asyncio.Event
        self._entering: Future[Any] | None = None
        self._closing = False
        # A daemon, so that the program's end does not wait for it before `_close_all` can end it.
        self._thread = threading.Thread(target=self._run, name=f"fastfeed {feed.provider.name}", daemon=True)
        self._started = threading.Event()
        self._failure: BaseException | None = None  # of the loop itself
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """The caller is the feed's own thread."""
        return threading.current_thread() is self._thread

    @property
    def is_foreign(self) -> bool:
        """This process has inherited the feed by a fork: there is no thread here."""
        return os.getpid() != self._pid

    def enter(self) -> None:
        """Start the thread and return once the feed is entered, or raise what entering raised."""
        self.check_process()
        with self._lock:
            if self._thread.ident is not None or self._closing:
                raise ConfigError("a feed is entered once: make a new ThreadedFeed")
            _RUNNING.add(self)
            self._thread.start()
            self._started.wait()
            if self._failure is not None:
                raise self._failure
            self._entering = asyncio.run_coroutine_threadsafe(self.feed.__aenter__(), self._loop)
        try:
            self._entering.result()
        except CancelledError:
            self.close()
            raise ConfigError("the feed is closed") from None
        except BaseException:
            self.close()
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Run it in the feed's thread and return what it returns, or raise what it raises."""
        self.check_process()
        with self._lock:
            if not self._takes_calls or self.is_here:
                return function()
            answer: Future[T] = Future()
            self._loop.call_soon_threadsafe(_answer, answer, function)
        return answer.result()

    def wait(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine there; interrupting the wait cancels it."""
        self.check_process()
        if self.is_here:
            raise ConfigError("this waits for the feed, so it cannot be called in the feed's own thread (a callback)")
        with self._lock:
            if not self._takes_calls:
                raise ConfigError("the feed is closed" if self._closing else "enter the feed first: `with feed:`")
            answer = asyncio.run_coroutine_threadsafe(make(), self._loop)
        try:
            return answer.result()
        except BaseException:
            answer.cancel()
            raise

    def begin_close(self) -> None:
        """Let the feed close and the thread end; does not wait, so anybody may say it, a collector too."""
        if self.is_foreign:
            return
        with self._lock:
            first, self._closing = not self._closing, True
            if first and self._takes_calls:
                if self._entering is not None:
                    self._entering.cancel()
                self._loop.call_soon_threadsafe(self._over.set)

    def close(self) -> None:
        """As `begin_close`, and wait for the thread, unless this is it."""
        self.begin_close()
        if self.is_foreign or self.is_here or self._thread.ident is None:
            return
        self._thread.join(self._grace)

    def check_process(self) -> None:
        if self.is_foreign:
            raise ConfigError("this process was forked from the one the feed runs in: make a ThreadedFeed of its own")

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._live())
        except BaseException as error:
            self._failure = error
            if self._started.is_set():
                raise
        finally:
            self._started.set()
            _RUNNING.discard(self)

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._takes_calls = True
        self._started.set()
        await self._over.wait()
        await self.feed.close()
        with self._lock:
            self._takes_calls = False
        await asyncio.sleep(0)  # what was asked before that is still answered


_RUNNING: weakref.WeakSet[_Runner] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for runner in list(_RUNNING):
        runner.close()


def _answer(answer: Future[T], function: Callable[[], T]) -> None:
    try:
        answer.set_result(function())
    except BaseException as error:
        answer.set_exception(error)


class ThreadedFeed:
    """A `Feed` in a thread of its own: `with ThreadedFeed("binance-usdm", ["BTCUSDT"]) as feed: for batch in ...`.

    It takes what `Feed` takes. Every method may be called from any thread and raises what Feed's raises. Streams are
    ordinary iterators here; `async with` and `async for` work too, on any loop. Callbacks (`on_batch`, `on_alert`) are
    called in the feed's thread: what they do delays reading, what other threads do does not, beyond the milliseconds
    for which the interpreter's lock may be held (`sys.getswitchinterval()`).

    It ends with `close()`, when nobody holds it any more and at the end of the program. A forked process cannot use it.

    Args:
        loop_factory: makes the event loop of the thread; `uvloop.new_event_loop` for uvloop. None: asyncio's.
    """

    _LOOP = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY, default=None)
    __signature__ = inspect.Signature([*_OPTIONS.values(), _LOOP])

    def __init__(
        self,
        provider: str | Provider | Sequence[str | Provider],
        symbols: Iterable[str | Subscription],
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        **options: Any,
    ) -> None:
        feed = _Feed(provider, symbols, **options)
        close_timeout = options.get("close_timeout", _OPTIONS["close_timeout"].default)
        grace = threading.TIMEOUT_MAX if close_timeout is None else close_timeout + _SLACK
        self._runner = _Runner(feed, loop_factory, grace)
        self._finalizer = weakref.finalize(self, self._runner.begin_close)
        self._finalizer.atexit = False  # _close_all does it, and waits

    # Reading -------------------------------------------------------------------------------------------------------

    @property
    def provider(self) -> Provider:
        """As in Feed."""
        return self._runner.feed.provider

    @property
    def decoder(self) -> Decoder:
        """The feed's decoder, to look at: what changes it belongs to the feed's thread."""
        return self._runner.feed.decoder

    @property
    def prices(self) -> PriceTable:
        """The newest row of every symbol. To be read from any thread: a row by its symbol is never torn."""
        return self._runner.feed.prices

    def gaps(self) -> Sequence[Gap]:
        """The newest gaps, oldest first: a sequence of Gap."""
        return self._runner.call(self._runner.feed.gaps)

    def batches(
        self,
        *,
        window: float = 0.0,
        max_age: float | None = None,
        name: str | None = None,
        timeout: float | None = None,
    ) -> ThreadedStream[Records]:
        """As `Feed.batches`, to iterate over; `timeout` as in ThreadedStream."""
        feed = self._runner.feed
        return self._stream(lambda: feed.batches(window=window, max_age=max_age, name=name), timeout)

    def ticks(self, *, name: str | None = None, timeout: float | None = None) -> ThreadedStream[Records]:
        """As `Feed.ticks`, to iterate over; `timeout` as in ThreadedStream."""
        return self._stream(lambda: self._runner.feed.ticks(name=name), timeout)

    def events(self, *, name: str | None = None, timeout: float | None = None) -> ThreadedStream[Event]:
        """As `Feed.events`, to iterate over; `timeout` as in ThreadedStream."""
        return self._stream(lambda: self._runner.feed.events(name=name), timeout)

    def _stream(self, make: Callable[[], Stream[T]], timeout: float | None) -> ThreadedStream[T]:
        _check_timeout(timeout)
        return ThreadedStream(self, self._runner.call(make), timeout)

    def on_batch(
        self, callback: Callable[[Records], Any], *, max_age: float | None = None, name: str | None = None
    ) -> ThreadedCallback:
        """As `Feed.on_batch`: called in the feed's thread, in the socket read."""
        feed = self._runner.feed
        handle = self._runner.call(lambda: feed.on_batch(callback, max_age=max_age, name=name))
        return ThreadedCallback(self._runner, handle)

    def stats(self) -> dict[str, Any]:
        """As `Feed.stats`."""
        return self._runner.call(self._runner.feed.stats)

    def confirms(self, symbol: str, *, max_age: float = 2.0, tolerance: float = 0.001) -> Confirmation:
        """As `Feed.confirms`."""
        feed = self._runner.feed
        return self._runner.call(lambda: feed.confirms(symbol, max_age=max_age, tolerance=tolerance))

    def health(self, max_age: float | None = None) -> dict[str, Any]:
        """As `Feed.health`."""
        return self._runner.call(lambda: self._runner.feed.health(max_age))

    @property
    def state(self) -> str:
        """As `Feed.state`, at this moment."""
        return self._runner.feed.state

    @property
    def subscriptions(self) -> dict[Subscription, str]:
        """As `Feed.subscriptions`."""
        return self._runner.call(lambda: self._runner.feed.subscriptions)

    # What is wanted ------------------------------------------------------------------------------------------------

    def subscribe(self, symbols: Iterable[str | Subscription], *, channels: Iterable[str] | None = None) -> None:
        """As `Feed.subscribe`."""
        self._runner.call(lambda: self._runner.feed.subscribe(symbols, channels=channels))

    def unsubscribe(self, symbols: Iterable[str | Subscription], *, channels: Iterable[str] | None = None) -> None:
        """As `Feed.unsubscribe`."""
        self._runner.call(lambda: self._runner.feed.unsubscribe(symbols, channels=channels))

    def refresh(self, symbols: Iterable[str] | None = None, *, channels: Iterable[str] | None = None) -> None:
        """As `Feed.refresh`."""
        self._runner.call(lambda: self._runner.feed.refresh(symbols, channels=channels))

    # Life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._runner.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await _in_a_thread(self._runner.enter, self._runner.begin_close)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await _in_a_thread(self.close)

    def close(self) -> None:
        """As `Feed.close`: ends every stream and the thread. Idempotent; from a callback it does not wait."""
        self._runner.close()

    def wait_live(
        self,
        symbols: Iterable[str] | None = None,
        *,
        channels: Iterable[str] | None = None,
        timeout: float | None = 10.0,
    ) -> None:
        """As `Feed.wait_live`. From a coroutine: `await asyncio.to_thread(feed.wait_live)`."""
        feed = self._runner.feed
        self._runner.wait(lambda: feed.wait_live(symbols, channels=channels, timeout=timeout))

    def __repr__(self) -> str:
        return f"<Threaded{repr(self._runner.feed).removeprefix('<')}"


async def _in_a_thread(function: Callable[[], None], cancel: Callable[[], None] | None = None) -> None:
    """Run what blocks beside the caller's loop. A cancelled wait says `cancel` and sees it through."""
    running = asyncio.ensure_future(asyncio.to_thread(function))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        if cancel is not None:
            cancel()
        with suppress(Exception):
            await running
        raise


class ThreadedStream(Generic[T]):
    """An iterator over batches, ticks or events of a ThreadedFeed: `for`, `async for`, `with`, `close()`.

    What is pending when the feed closes is still delivered; then the iteration ends, or raises GaveUp if the feed
    failed. Any number of threads may take from one stream; each item goes to one of them.

    `timeout` (seconds; may be set at any time) is how long one step of `for` or `next()` waits at most. It then raises
    TimeoutError; nothing is lost, and the iteration can go on. None waits for ever. `async for` has asyncio.timeout.
    """

    def __init__(self, feed: ThreadedFeed, stream: Stream[T], timeout: float | None) -> None:
        self.timeout = timeout
        self._feed = feed  # lives as long as somebody reads
        self._runner = feed._runner
        self._stream = stream

    @property
    def name(self) -> str:
        """Its name in `stats()["consumers"]`."""
        return self._stream.name

    @property
    def closed(self) -> bool:
        """`close()` was called."""
        return self._stream.closed

    @property
    def lost(self) -> int:
        """As in the streams of a Feed: what this consumer will never see."""
        return self._stream.lost

    def ledger(self) -> Ledger:
        """received == delivered + conflated + dropped + pending, from when the stream was made until it was closed."""
        return self._runner.call(self._stream.ledger)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        _check_timeout(self.timeout)
        give_up_at = None if self.timeout is None else time.monotonic() + self.timeout
        while True:
            woken = threading.Lock()
            woken.acquire()
            self._runner.feed.bell.expect(woken, woken.release)
            try:
                item, seconds = self._step()
                if item is not None:
                    return item
                left = -1.0 if give_up_at is None else max(0.0, give_up_at - time.monotonic())
                if left == 0.0:
                    raise TimeoutError(f"{self.name}: nothing within {self.timeout} s")
                if seconds is not None and (left < 0 or seconds < left):
                    left = seconds
                woken.acquire(timeout=left)
            finally:
                self._runner.feed.bell.forget(woken)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        loop = asyncio.get_running_loop()
        while True:
            woken: asyncio.Future[None] = loop.create_future()
            self._runner.feed.bell.expect(woken, lambda woken=woken: _wake(loop, woken))  # type: ignore[misc]
            try:
                try:
                    item, seconds = self._step()
                except StopIteration:
                    raise StopAsyncIteration from None
                if item is not None:
                    return item
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await woken
            finally:
                self._runner.feed.bell.forget(woken)

    def _step(self) -> tuple[T | None, float | None]:
        """The next item, or None and for how many seconds it is held back (None: until there is one)."""
        self._runner.check_process()
        return self._stream.step()

    def close(self) -> None:
        """Stop reading: the cursor and its place in `stats()` are gone. Whoever waits on the stream is let go."""
        self._runner.call(self._stream.close)
        self._runner.feed.bell.ring()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Threaded{repr(self._stream).lstrip('<_')}"


class ThreadedCallback:
    """What `ThreadedFeed.on_batch` returns: the callback's name, ledger and `cancel()`, for any thread."""

    def __init__(self, runner: _Runner, handle: BatchCallback) -> None:
        self._runner = runner
        self._handle = handle

    @property
    def name(self) -> str:
        """Its name in `stats()["consumers"]`."""
        return self._handle.name

    @property
    def failed(self) -> int:
        """Calls that raised."""
        return self._handle.failed

    @property
    def cancelled(self) -> bool:
        """`cancel()` was called."""
        return self._handle.cancelled

    def cancel(self) -> None:
        """Never call the callback again: it is not running any more when this returns, unless called from inside it."""
        self._runner.call(self._handle.cancel)

    def ledger(self) -> Ledger:
        """As in Feed: received == delivered + conflated + dropped + pending."""
        return self._runner.call(self._handle.ledger)

    def __repr__(self) -> str:
        return repr(self._handle)


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # that loop has been closed
        loop.call_soon_threadsafe(resolve, woken)


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not timeout >= 0:
        raise ConfigError(f"timeout={timeout!r}: must be a number of seconds, at least 0, or None")
