"""`fastfeed.Decoder`: the compiled decoder, addressed by a provider's name, a Provider or a Schema.

No network; nothing else.
"""

from __future__ import annotations

from fastfeed import _core
from fastfeed.errors import ConfigError
from fastfeed.providers import Provider, provider
from fastfeed.schema import Schema


class Decoder(_core.Decoder):
    """Frames in, prices and ticks out: the unit of benchmarks, fuzzing and backtests.

    Args:
        source: a provider's name ("binance-usdm"), a Provider, or a Schema.
        ring_capacity: ticks the ring holds, rounded up to a power of two.
        max_symbols: rows reserved; a symbol beyond them is refused and counted.
        hold_ticks: ticks that can be held back from the ring, while a hole is being filled, over all streams.
        clock: where arrival times come from; the machine's by default.

    Raises:
        ConfigError: unknown provider, or a schema that cannot be compiled.
    """

    def __new__(
        cls,
        source: str | Provider | Schema,
        *,
        ring_capacity: int = 65536,
        max_symbols: int = 65536,
        hold_ticks: int = 65536,
        clock: _core.Clock | None = None,
    ) -> Decoder:
        """See the class."""
        if isinstance(source, (str, Provider)):
            source = provider(source).schema
        elif not isinstance(source, Schema):
            raise ConfigError(f"a decoder runs a provider's name, a Provider or a Schema, not {source!r}")
        return super().__new__(
            cls, source, ring_capacity=ring_capacity, max_symbols=max_symbols, hold_ticks=hold_ticks, clock=clock
        )
