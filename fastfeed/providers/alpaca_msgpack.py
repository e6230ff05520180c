"""Alpaca's market data as MessagePack: the same streams as in alpaca.py, and options, which come as nothing else.

Needs the `msgpack` extra for what is said and for control messages; data is read by the machine room. Data only.
"""

from __future__ import annotations

from typing import Any

from fastfeed.errors import ConfigError
from fastfeed.providers.alpaca import OPTIONS, STREAMS

try:
    import msgpack
except ImportError as error:
    raise ConfigError("Alpaca's MessagePack needs the msgpack extra: pip install 'fastfeed[msgpack]'") from error


def _dump(value: object) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def _load(payload: bytes) -> Any:
    return msgpack.unpackb(payload)  # whatever is wrong with it is a ValueError


_OFFERS = {**{f"{name}-msgpack": one for name, one in STREAMS.items()}, **OPTIONS}

PROVIDERS = {
    f"alpaca{name}": one.provider(f"alpaca{name}", encoding="msgpack", dump=_dump, load=_load)
    for name, one in _OFFERS.items()
}
