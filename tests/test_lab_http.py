"""What the lab's venue gives over HTTP, beside the stream and however much of that was left out; and how it refuses."""

import asyncio
import json
from typing import Any

import pytest
from exchange import until

from fastfeed import ConnectError, rest
from fastfeed.lab import Venue, VenueProcess
from fastfeed.lab.binance import SPOT, USDM
from fastfeed.lab.load import AGGREGATE, TRADE, Synthetic

NAMES = ["BTCUSDT", "ETHUSDT"]
ROOTS = {"binance-usdm": "/fapi/v1", "binance-spot": "/api/v3"}


async def get(venue: Venue | VenueProcess, path: str, timeout: float = 5.0) -> rest.Answer:  # noqa: ASYNC109
    return await rest.ask("GET", "http" + venue.url.removeprefix("ws") + path, timeout=timeout)


async def read(venue: Venue, path: str) -> Any:
    answer = await get(venue, path)
    assert answer.status == 200, answer
    return json.loads(answer.body)


async def played(venue: Venue, events: int = 2000) -> None:
    await until(lambda: venue.present() >= events, "some events to fall due")
    venue.rests()


@pytest.mark.parametrize("market", ROOTS)
async def test_a_book_has_the_best_levels_first_and_the_number_the_stream_goes_on_from(market: str) -> None:
    async with Venue(market, symbols=NAMES, rate=20_000) as venue:
        await played(venue)
        book = await read(venue, f"{ROOTS[market]}/depth?symbol=ETHUSDT&limit=5")
        truth = venue.load.book("ETHUSDT", venue.present())
        assert truth is not None
        assert book["lastUpdateId"] == truth.id
        assert [tuple(level) for level in book["bids"]] == truth.bids[:5]
        assert [tuple(level) for level in book["asks"]] == truth.asks[:5]
        bids, asks = ([float(price) for price, _ in book[side]] for side in ("bids", "asks"))
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)


@pytest.mark.parametrize(
    ("market", "path", "kind", "number"),
    [
        ("binance-usdm", "aggTrades", AGGREGATE, "a"),
        ("binance-spot", "aggTrades", AGGREGATE, "a"),
        ("binance-spot", "historicalTrades", TRADE, "id"),
    ],
)
async def test_trades_are_given_from_a_number_on(market: str, path: str, kind: int, number: str) -> None:
    async with Venue(market, symbols=NAMES, rate=20_000) as venue:
        await played(venue)
        all_of_it = venue.load.fills(kind, "BTCUSDT", 0, 10_000, venue.present())
        assert all_of_it is not None
        first = all_of_it[7].id
        trades = await read(venue, f"{ROOTS[market]}/{path}?symbol=BTCUSDT&fromId={first}&limit=3")
        assert [trade[number] for trade in trades] == [first, first + 1, first + 2]
        assert [trade.get("p", trade.get("price")) for trade in trades] == [fill.price for fill in all_of_it[7:10]]
        assert await read(venue, f"{ROOTS[market]}/{path}?symbol=BTCUSDT&fromId={all_of_it[-1].id + 1}") == []


@pytest.mark.parametrize("market", ROOTS)
async def test_the_last_quote_is_the_one_that_was_sent_last(market: str) -> None:
    async with Venue(market, symbols=NAMES, rate=20_000) as venue:
        await played(venue)
        quote = await read(venue, f"{ROOTS[market]}/ticker/bookTicker?symbol=BTCUSDT")
        top = venue.load.top("BTCUSDT", venue.present())
        assert top is not None
        assert (quote["symbol"], quote["bidPrice"], quote["askPrice"]) == ("BTCUSDT", top.bid, top.ask)


async def test_questions_that_make_no_sense_are_refused_and_counted() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue:
        for path, status in (
            ("/fapi/v1/depth", 400),
            ("/fapi/v1/depth?symbol=NONE", 400),
            ("/fapi/v1/depth?symbol=BTCUSDT&limit=many", 400),
            ("/fapi/v1/exchangeInfo", 400),
        ):
            assert (await get(venue, path)).status == status
        assert venue.count()["asked"] == 3  # the last one is no path of its own


async def test_it_refuses_as_often_as_told_and_then_answers() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue:
        venue.refuses_requests(429, retry_after=7, times=2)
        for _ in range(2):
            answer = await get(venue, "/fapi/v1/depth?symbol=BTCUSDT")
            assert (answer.status, answer.headers["retry-after"]) == (429, "7")
        assert (await get(venue, "/fapi/v1/depth?symbol=BTCUSDT")).status == 200
        venue.refuses_requests(500)
        for _ in range(3):
            assert (await get(venue, "/fapi/v1/depth?symbol=BTCUSDT")).status == 500
        venue.answers_again()
        assert (await get(venue, "/fapi/v1/depth?symbol=BTCUSDT")).status == 200


async def test_it_answers_slowly_until_told_otherwise() -> None:
    async with Venue("binance-usdm", symbols=NAMES) as venue:
        venue.answers_slowly(30)
        with pytest.raises(ConnectError, match="no HTTP answer"):
            await get(venue, "/fapi/v1/depth?symbol=BTCUSDT", timeout=0.1)
        venue.answers_again()
        assert (await get(venue, "/fapi/v1/depth?symbol=BTCUSDT")).status == 200


async def test_an_old_book_is_the_one_of_then() -> None:
    async with Venue("binance-usdm", symbols=NAMES, rate=20_000) as venue:
        await played(venue)
        venue.shows_old_books(1_000, times=1)
        old = await read(venue, "/fapi/v1/depth?symbol=BTCUSDT")
        new = await read(venue, "/fapi/v1/depth?symbol=BTCUSDT")
        then = venue.load.book("BTCUSDT", venue.present() - 1_000)
        assert then is not None
        assert old["lastUpdateId"] == then.id < new["lastUpdateId"]


async def test_a_venue_in_a_process_of_its_own_answers_too() -> None:
    with VenueProcess("binance-usdm", symbols=2) as venue:
        venue.refuses_requests(503, times=1)
        assert (await get(venue, "/fapi/v1/depth?symbol=BTCUSDT")).status == 503
        assert (await get(venue, "/fapi/v1/depth?symbol=BTCUSDT")).status == 200
        assert (await asyncio.to_thread(venue.count))["asked"] == 2


@pytest.mark.parametrize("market", [SPOT, USDM], ids=lambda market: market.name)
def test_trades_go_on_without_a_hole_across_passes(market: Any) -> None:
    load = Synthetic(market, symbols=NAMES, events=1)
    for kind in (TRADE, AGGREGATE):
        fills = load.fills(kind, "BTCUSDT", 0, 10**6, 3 * load.events)
        assert fills is not None
        numbers = [fill.id for fill in fills]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert [fill.event for fill in fills] == sorted(fill.event for fill in fills)
        later = load.fills(kind, "BTCUSDT", numbers[-5], 10**6, 3 * load.events)
        assert later is not None
        assert [fill.id for fill in later] == numbers[-5:]
