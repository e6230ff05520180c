"""A consumer that is too slow gets fewer, newer rows; its books still balance."""

import asyncio

import fastfeed
from fastfeed.lab import Venue

SYMBOLS = [f"C{number}USDT" for number in range(20)]
TERMS = ("delivered", "conflated", "dropped", "pending")


async def main() -> None:
    async with (
        Venue("binance-usdm", symbols=SYMBOLS, rate=50_000) as venue,
        fastfeed.Feed("binance-usdm", SYMBOLS, channels=["quote"], url=venue.url) as feed,
    ):
        batches = feed.batches(name="slow")
        for _ in range(5):
            await asyncio.sleep(0.1)  # work that takes longer than the market waits
            batch = await anext(batches)
            print(f"{len(batch)} rows, {int(batch['conflated'].sum())} updates conflated")
        books = feed.stats()["consumers"]["slow"]
        print(books, "balances:", books["received"] == sum(books[k] for k in TERMS))


asyncio.run(main())
