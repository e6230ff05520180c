"""The data side of a simulated feed: a real decoder, table and ring, and consumers who look when they please.

What the world sends is counted here, apart from what the books say, and both must agree at every look: nothing is lost
or told twice without being counted, and the newest price wins. Dice of its own, so that no story changes by it.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable

import fastfeed
from fastfeed.providers import Provider
from fastfeed.subscriptions import Subscription

RING = 256  # ticks; small, so that who is slow is overtaken
MAX_AGE = 30.0  # seconds; older rows are dropped by the consumer that minds
AGAIN = 0.02  # the share of frames that come twice
QUOTES = {
    "binance-spot": b'{"u":%d,"s":"%s","b":"%d","B":"1","a":"%d","A":"2"}',
    "binance-usdm": b'{"e":"bookTicker","u":%d,"E":1,"T":1,"s":"%s","b":"%d","B":"1","a":"%d","A":"2"}',
}
TERMS = ("delivered", "conflated", "dropped", "pending")


class Books:
    """One for a world, whatever becomes of its connections. `broken` is called with what does not hold."""

    def __init__(self, provider: Provider, seed: int, broken: Callable[[str], object]) -> None:
        self.broken = broken
        self.words = QUOTES[provider.name]
        self.dice = random.Random(f"{seed}/books")
        self.clock = fastfeed.Clock.manual()
        self.decoder = fastfeed.Decoder(provider, ring_capacity=RING, max_symbols=8192, clock=self.clock)
        self.readers = {
            "rows": self.decoder.prices.reader(),
            "young rows": self.decoder.prices.reader(max_age=MAX_AGE),
            "ticks": self.decoder.ring.reader(),
        }
        self.read: Counter[str] = Counter()  # by reader: rows or ticks that were handed over
        self.sent: Counter[str] = Counter()  # by reader: what it must have received
        self.numbers: dict[str, int] = {}  # by symbol: that of the newest quote, which is its price too
        self.now = 0.0

    def tell(self, wishes: Iterable[Subscription], now: float) -> None:
        """A quote of each symbol among `wishes` comes at `now` (seconds)."""
        self.clock.advance(round((now - self.now) * 1e9))
        self.now = now
        frames = []
        for symbol in [wish.symbol for wish in wishes if wish.channel == "quote"]:
            number = self.numbers[symbol] = self.numbers.get(symbol, 0) + 1
            frames.append(self.words % (number, symbol.encode(), number, number + 1))
            self.sent.update(("rows", "young rows", "ticks"))
            if self.dice.random() < AGAIN:
                frames.append(frames[-1])
                self.sent["ticks"] += 1  # a repeat is a tick, flagged; the table has no use for it
        self.decoder.decode_many(frames)

    def look(self) -> None:
        """Some consumers read, and everybody's books are held to what was sent and what was handed over."""
        for name, reader in self.readers.items():
            if self.dice.random() < 0.4:
                self.read[name] += len(reader.read())
            self.check(name)

    def check(self, name: str) -> None:
        ledger = self.readers[name].ledger()
        if ledger["received"] != sum(ledger[term] for term in TERMS):
            self.broken(f"the books of {name} do not balance: {ledger}")
        if ledger["received"] != self.sent[name]:
            self.broken(f"{name} received {ledger['received']} of {self.sent[name]}: {ledger}")
        if ledger["delivered"] != self.read[name]:
            self.broken(f"{name} were handed {self.read[name]}, the books say {ledger}")

    def close(self) -> Counter[str]:
        """Everybody reads to the end; what the terms came to, over all."""
        total: Counter[str] = Counter()
        for name, reader in self.readers.items():
            while len(rows := reader.read()):
                self.read[name] += len(rows)
            self.check(name)
            ledger = reader.ledger()
            if ledger["pending"]:
                self.broken(f"{name} read to the end, and {ledger['pending']} are pending")
            total.update({term: ledger[term] for term in TERMS})
        for symbol, number in self.numbers.items():
            row = self.decoder.prices[symbol]
            if row["quote_seq"] != number or row["bid"] != number:
                self.broken(f"the row of {symbol} has {row['quote_seq']}, the newest is {number}")
        return total
