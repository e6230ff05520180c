"""HTTP for what has no stream: tokens, last values, snapshots. The one room that knows aiohttp, the `http` extra.

One request, one answer, both bounded; no retries, which are decided elsewhere, and no redirects.
"""

from __future__ import annotations

import asyncio
import importlib.util
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastfeed.errors import ConfigError, ConnectError

LONGEST = 32 << 20  # bytes of an answer


@dataclass(frozen=True)
class Answer:
    """What the server said: HTTP status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def is_possible() -> bool:
    """Whether aiohttp is installed."""
    return importlib.util.find_spec("aiohttp") is not None


async def ask(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
    timeout: float = 10.0,  # noqa: ASYNC109
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """One request within `timeout` seconds. `form` is sent as a URL-encoded body; `tls` None verifies as usual.

    Raises:
        ConfigError: aiohttp is not installed.
        ConnectError: no answer; it names the host and not the URL, which may hold secrets.
    """
    if not is_possible():
        raise ConfigError("HTTP requests need the http extra: pip install 'fastfeed[http]'")
    if "aiohttp" not in sys.modules:  # half a second of work, which is not to stand in the way of prices
        await asyncio.to_thread(importlib.import_module, "aiohttp")
    import aiohttp

    limit = aiohttp.ClientTimeout(total=timeout)
    host = urlsplit(url).netloc.rpartition("@")[2]
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, trust_env=False) as session,
            session.request(
                method, url, headers=dict(headers or {}), data=form or None, ssl=tls or True, allow_redirects=False
            ) as answer,
        ):
            body = await answer.content.read(LONGEST + 1)
            while len(body) <= LONGEST and (more := await answer.content.read(LONGEST + 1 - len(body))):
                body += more
            if len(body) > LONGEST:
                raise ConnectError(host, f"an HTTP answer of more than {LONGEST} bytes")
            return Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, body)
    except TimeoutError:
        reason = f"no HTTP answer within {timeout:g} s"
    except (aiohttp.ClientError, ValueError) as error:
        reason = f"HTTP failed: {getattr(error, 'strerror', None) or type(error).__name__}"
    # Out here, as the error caught may hold the URL and must not even be the context of this one.
    raise ConnectError(host, reason)
