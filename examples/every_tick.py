"""Every trade in order, in blocks as they arrive, with the loss counted if we are too slow."""

import asyncio

import fastfeed
from fastfeed.lab import Venue


async def main() -> None:
    async with (
        Venue("binance-usdm", symbols=["BTCUSDT"], rate=5_000) as venue,
        fastfeed.Feed("binance-usdm", ["BTCUSDT"], channels=["trade"], url=venue.url) as feed,
    ):
        volume = 0.0
        count = 0
        async with feed.ticks() as ticks:
            async for block in ticks:
                trades = fastfeed.trades(block)
                volume += float((trades["price"] * trades["size"]).sum())
                count += len(trades)
                if count >= 1_000:
                    break
            print(f"{count} trades, turnover {volume:,.0f} USDT, lost {ticks.lost}")


asyncio.run(main())
