"""Never act on a dead price: the venue falls silent with the socket open, and the guard says no."""

import asyncio

import fastfeed
from fastfeed.lab import Venue

MAX_AGE = 0.2  # seconds


async def main() -> None:
    async with (
        Venue("binance-usdm", symbols=["BTCUSDT"], rate=1_000) as venue,
        fastfeed.Feed("binance-usdm", ["BTCUSDT"], channels=["quote"], url=venue.url) as feed,
    ):
        await feed.wait_live(timeout=5.0)
        print("while prices flow:", feed.prices.is_fresh("BTCUSDT", max_age=MAX_AGE))
        venue.falls_silent()
        await asyncio.sleep(2 * MAX_AGE)
        print("after silence:", feed.prices.is_fresh("BTCUSDT", max_age=MAX_AGE))
        print("never subscribed:", feed.prices.is_fresh("DOGEUSDT", max_age=MAX_AGE))


asyncio.run(main())
