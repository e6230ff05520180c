"""The newest prices as numpy arrays: one row per symbol that changed, however many updates there were.

The venue is a local one that speaks Binance's protocol; leave `url=` away to reach the real one.
"""

import asyncio

import fastfeed
from fastfeed.lab import Venue


async def main() -> None:
    async with (
        Venue("binance-usdm", symbols=["BTCUSDT", "ETHUSDT"], rate=10_000) as venue,
        fastfeed.Feed("binance-usdm", ["BTCUSDT", "ETHUSDT"], channels=["quote", "trade"], url=venue.url) as feed,
    ):
        await feed.wait_live(timeout=5.0)
        seen = 0
        async for batch in feed.batches(window=0.1):
            for row in batch:
                symbol = feed.prices.symbols[row["symbol_id"]]
                print(f"{symbol} bid {row['bid']} ask {row['ask']} last {row['last']} conflated {row['conflated']}")
            seen += 1
            if seen == 3:
                break


asyncio.run(main())
