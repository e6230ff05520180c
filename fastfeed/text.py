"""JSON for control messages and replies: orjson, or the standard library where orjson has no build. Never market data.

A free-threaded interpreter takes the standard library: orjson would give it its lock back.
"""

from __future__ import annotations

import json
import sys
from typing import Any

try:
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise ImportError
    from orjson import JSONDecodeError, dumps, loads
except ImportError:
    JSONDecodeError = ValueError  # type: ignore[misc, assignment]

    def _refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    def loads(text: bytes | str, /) -> Any:  # type: ignore[misc]
        """As orjson's."""
        return json.loads(text, parse_constant=_refuse)

    def dumps(value: Any, /) -> bytes:  # type: ignore[misc]
        """As orjson's: compact, UTF-8."""
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def mapping(payload: bytes) -> dict[str, Any]:
    """The JSON object that a control message is; empty for anything else."""
    try:
        message = loads(payload)
    except JSONDecodeError:
        return {}
    return message if isinstance(message, dict) else {}


__all__ = ["JSONDecodeError", "dumps", "loads", "mapping"]
