"""A feed on a network that fails: real packets, in two network namespaces that the tests make and take away.

Needs root, `ip`, `ss`, `tc` (iproute2) and `nft` (nftables); without them it is skipped, and that is a failure where
FASTFEED_REQUIRE_NETWORK=1. Nothing outside the two namespaces is touched. After every fault each symbol must deliver
again.
"""

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from exchange import until

from fastfeed import Backoff, Feed, Heartbeat, events
from fastfeed.lab import VenueProcess
from fastfeed.lab.load import symbol_names

PORT = 9000
VENUE = "10.77.0.2"
SYMBOLS = 50
BACK_SECONDS = 10.0  # a SYN that was lost is sent again after 1 s, then after 2 more: the bound of the dial, and twice
# The timeout of a heartbeat and one interval, by which a dead connection must be found; the rest is a busy machine.
HEARTBEAT = Heartbeat(interval=0.3, timeout=0.6)


def run(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr.strip()}"
    return done.stdout


class Network:
    """A client's and a venue's namespace, joined by a cable; this process works in the client's.

    `enter` moves the calling thread, and with it the sockets and processes it makes from then on.
    """

    def __init__(self, name: str) -> None:
        self.client, self.venue = f"{name}a", f"{name}b"
        for space in (self.client, self.venue):
            run(f"ip netns add {space}")
        run(f"ip -n {self.client} link add cable type veth peer name cable netns {self.venue}")
        for space, address in ((self.client, "10.77.0.1"), (self.venue, VENUE)):
            run(f"ip -n {space} addr add {address}/24 dev cable")
            run(f"ip -n {space} link set cable up")
            run(f"ip -n {space} link set lo up")

    def close(self) -> None:
        for space in (self.client, self.venue):
            subprocess.run(["ip", "netns", "del", space], capture_output=True, timeout=10, check=False)

    @contextlib.contextmanager
    def inside(self, space: str) -> Iterator[None]:
        """The calling thread is in that namespace."""
        with open("/proc/thread-self/ns/net") as before, open(f"/run/netns/{space}") as there:
            _set_namespace(there.fileno())
            try:
                yield
            finally:
                _set_namespace(before.fileno())

    def drop(self, rule: str, verdict: str = "drop") -> None:
        """Do that to packets that come to the venue (`dport`) or leave it (`sport`)."""
        way = "input" if "dport" in rule else "output"
        run(f"ip netns exec {self.venue} nft add table inet lab")
        chain = f"add chain inet lab {way} {{ type filter hook {way} priority 0; }}"
        run(f"ip netns exec {self.venue} nft {chain}")
        run(f"ip netns exec {self.venue} nft add rule inet lab {way} {rule} counter {verdict}")

    def dropped(self) -> int:
        """Packets the rules have caught so far."""
        words = run(f"ip netns exec {self.venue} nft list table inet lab").split()
        return sum(int(words[place + 1]) for place, word in enumerate(words) if word == "packets")

    def release(self) -> None:
        run(f"ip netns exec {self.venue} nft delete table inet lab")

    def cable(self, state: str) -> None:
        run(f"ip -n {self.venue} link set cable {state}")

    @contextlib.contextmanager
    def narrow(self, rate: str) -> Iterator[None]:
        """What the venue sends goes at that rate; what does not fit in a short queue is lost."""
        run(f"tc -n {self.venue} qdisc add dev cable root tbf rate {rate} burst 2kb limit 4kb")
        try:
            yield
        finally:
            run(f"tc -n {self.venue} qdisc del dev cable root")

    def kill_sockets(self) -> None:
        run(f"ip netns exec {self.client} ss -K dst {VENUE} dport = {PORT}")


def _set_namespace(file: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(file, 0):
        raise OSError(ctypes.get_errno(), "setns")


def _cannot() -> str | None:
    """Why there can be no network of our own, or None."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    missing = [tool for tool in ("ip", "nft", "ss", "tc") if shutil.which(tool) is None]
    return f"no {', '.join(missing)}: install iproute2 and nftables" if missing else None


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    reason = _cannot()
    made: Network | None = None
    if reason is None:
        try:
            made = Network(f"lab{os.getpid()}")
            made.drop(f"tcp sport {PORT}")
            made.release()
            with made.inside(made.client):
                pass
        except (AssertionError, OSError) as error:
            reason = f"this machine does not let us: {error}"
    try:
        if reason is not None:
            if os.environ.get("FASTFEED_REQUIRE_NETWORK") == "1":
                pytest.fail(f"FASTFEED_REQUIRE_NETWORK=1, but {reason}")
            pytest.skip(reason)
        assert made is not None
        yield made
    finally:
        if made is not None:
            made.close()


class Stage:
    """A venue on the far side and a feed on this one, delivering."""

    def __init__(self, network: Network, venue: VenueProcess, feed: Feed) -> None:
        self.network, self.venue, self.feed = network, venue, feed
        self._told = feed.events()

    async def stalls(self) -> None:
        """Wait until nothing has come for a while."""
        seen, quiet = -1, 0

        def is_quiet() -> bool:
            nonlocal seen, quiet
            now = self.feed.prices.updates
            seen, quiet = now, quiet + 1 if now == seen else 0
            return quiet >= 20

        await until(is_quiet, "the flow to stop")

    async def loses(self) -> events.Disconnected:
        """Wait until the feed says that its connection is gone."""
        async with asyncio.timeout(BACK_SECONDS):
            async for event in self._told:
                if isinstance(event, events.Disconnected):
                    return event
        raise AssertionError("the feed ended")

    async def fails_to_dial(self) -> events.Reconnecting:
        """Wait until a redial has failed, too."""
        async with asyncio.timeout(BACK_SECONDS):
            async for event in self._told:
                if isinstance(event, events.Reconnecting) and event.attempt >= 2:
                    return event
        raise AssertionError("the feed ended")

    async def delivers(self) -> None:
        """Wait until every symbol has ticked since now."""
        before = self.feed.prices.array["updates"].copy()

        def behind() -> list[str]:
            rows = self.feed.prices.array["updates"] <= before
            return [symbol for symbol, is_behind in zip(self.feed.prices.symbols, rows, strict=True) if is_behind]

        try:
            async with asyncio.timeout(BACK_SECONDS):
                while behind():  # noqa: ASYNC110 - nothing rings for this
                    await asyncio.sleep(0.005)
        except TimeoutError:
            pytest.fail(f"waited {BACK_SECONDS:g} s for {behind()}; {self.feed!r}")
        assert len(before) == SYMBOLS

    @property
    def dials(self) -> int:
        return int(self.feed.stats()["dials"])


@pytest.fixture
async def stage(network: Network) -> AsyncIterator[Stage]:
    with network.inside(network.venue):
        venue = VenueProcess("binance-usdm", symbols=SYMBOLS, rate=5_000, host=VENUE, port=PORT)
    with venue, network.inside(network.client):
        async with Feed(
            "binance-usdm",
            symbol_names(SYMBOLS),
            url=venue.url,
            heartbeat=HEARTBEAT,
            backoff=Backoff(base=0.1, cap=0.4, stable_after=0.2),
            connect_timeout=5.0,
            close_timeout=1.0,
        ) as feed:
            await feed.wait_live(timeout=5.0)
            yield Stage(network, venue, feed)


async def test_a_blackholed_connection_is_found_dead_and_replaced(stage: Stage) -> None:
    stage.network.drop(f"tcp sport {PORT}")
    lost = await stage.loses()
    assert (lost.code, lost.cause) == (1006, "no pong within 0.6 s")
    stage.network.release()
    await stage.delivers()
    assert stage.dials >= 2


async def test_a_blackhole_shorter_than_the_timeout_costs_no_connection(stage: Stage) -> None:
    stage.network.drop(f"tcp sport {PORT}")
    await stage.stalls()
    stage.network.release()
    await stage.delivers()
    assert stage.dials == 1


async def test_a_reset_on_the_way_is_redialled(stage: Stage) -> None:
    stage.network.drop(f"tcp dport {PORT}", "reject with tcp reset")
    assert (await stage.loses()).code == 1006
    await stage.fails_to_dial()
    stage.network.release()
    await stage.delivers()


async def test_a_socket_killed_by_the_kernel_is_replaced(stage: Stage) -> None:
    stage.network.kill_sockets()
    assert (await stage.loses()).code == 1006
    await stage.delivers()
    assert stage.dials == 2


async def test_a_cable_pulled_and_put_back_costs_only_the_time_between(stage: Stage) -> None:
    stage.network.cable("down")
    assert (await stage.loses()).code == 1006
    await stage.fails_to_dial()
    stage.network.cable("up")
    await stage.delivers()


async def test_a_frozen_peer_is_given_up_and_taken_again_when_it_thaws(stage: Stage) -> None:
    os.kill(stage.venue.pid, signal.SIGSTOP)
    try:
        assert (await stage.loses()).cause == "no pong within 0.6 s"
    finally:
        os.kill(stage.venue.pid, signal.SIGCONT)
    await stage.delivers()


@pytest.mark.parametrize("verdict", ["drop", "reject with tcp reset"], ids=["dropped", "refused"])
async def test_dials_that_go_nowhere_are_repeated_until_one_gets_through(stage: Stage, verdict: str) -> None:
    stage.network.drop(f"tcp dport {PORT} tcp flags & (syn | ack) == syn", verdict)
    stage.venue.cuts()
    await stage.loses()
    await until(lambda: stage.network.dropped() >= 2, "two SYNs to be caught")
    stage.network.release()
    await stage.delivers()


async def test_a_link_far_too_narrow_is_survived(stage: Stage) -> None:
    with stage.network.narrow("16kbit"):
        await stage.stalls()
    await stage.delivers()


async def test_random_loss_is_repaired_by_tcp_and_no_connection_is_lost(stage: Stage) -> None:
    stage.network.drop(f"tcp sport {PORT} numgen random mod 100 < 10")
    await until(lambda: stage.network.dropped() >= 20, "twenty packets to be lost")
    await stage.delivers()
    stage.network.release()
    await stage.delivers()
    stats: dict[str, Any] = stage.feed.decoder.stats()
    assert (stats["malformed"], stats["unknown"], len(stage.feed.gaps())) == (0, 0, 0)
    assert stage.dials == 1


def test_a_table_that_must_run_is_not_skipped(tmp_path: Path) -> None:
    """With the variable set and no tools to be found, the run fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", "killed_by_the_kernel"],
        env={
            **os.environ,
            "FASTFEED_REQUIRE_NETWORK": "1",
            "PATH": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "FASTFEED_REQUIRE_NETWORK=1, but" in done.stdout
