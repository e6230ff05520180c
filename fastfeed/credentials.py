"""Who we are to a provider: keys and tokens, where they come from, where they are shown, and how they stay hidden.

The only room that holds a secret. It refuses to show one in a repr, an error or anything it is asked to `hide`.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit, urlunsplit

from fastfeed import rest
from fastfeed.errors import AuthError, ConfigError, ConnectError

SHORTEST = 4  # characters of what is hidden: anything shorter would hit half of every message, and is no secret

Given = Mapping[str, str] | Callable[[], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Credentials by name, or a function (plain or async) that is called for them, and again when they are refused."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token fetched over HTTP (the `http` extra) before a dial, and known as credential "token" from then on.

    `url`, `headers` and `form` are templates over the credentials. `read` gets the body of a 200 and returns the token
    and the seconds it lives, or None where the answer does not say: then `lifetime` holds (None: until it is refused).
    """

    url: str
    read: Callable[[bytes], tuple[str, float | None]]
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    lifetime: float | None = None


@dataclass(frozen=True, kw_only=True)
class Auth:
    """How a provider wants to be shown who we are.

    `env` maps each credential to the environment variable it is read from. `headers` and `query` of the handshake are
    templates over the credentials ("Bearer {token}"), and so is `rest`, the headers of what is fetched over HTTP;
    `login` makes the messages that log in once connected. Where every request carries the key, the dialect writes one
    of `stamps` in its place: text -> template.
    """

    env: Mapping[str, str]
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    rest: Mapping[str, str] = field(default_factory=dict)
    login: Callable[[Mapping[str, str]], tuple[str | bytes, ...]] | None = None
    stamps: Mapping[str, str] = field(default_factory=dict)
    token: Token | None = None
    optional: bool = False  # without a key less is served, but something is


class Credentials:
    """The credentials of one feed. Nothing but `headers`, `query`, `rest`, `login` and `stamped` ever gives one out.

    Raises:
        ConfigError: what the provider wants was neither given nor found in the environment.
    """

    def __init__(
        self,
        provider: str,
        auth: Auth | None,
        *,
        api_key: str | None = None,
        given: Given | None = None,
        root: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._auth = auth
        self._ask = given if callable(given) else None
        self._root = root  # "http://host:port" instead of the token's own
        self._tls = tls
        self._token_until = 0.0  # monotonic seconds
        self._stale = self._ask is not None
        self._known = _named({} if given is None or callable(given) else given)
        if api_key is not None:
            self._known.update(_named({"api_key": api_key}))
        self._secrets: set[str] = set()  # as they may be met in what a server says
        self._texts, self._bytes = re.compile("(?!)"), re.compile(b"(?!)")  # those, and here nothing
        for secret in self._known.values():
            self._keep(secret)
        for name, variable in ({} if auth is None else auth.env).items():
            if not self._known.get(name) and os.environ.get(variable):
                self._known[name] = os.environ[variable]
                self._keep(self._known[name])
        self._present = auth is not None and (self._ask is not None or all(self._known.get(name) for name in auth.env))
        if auth is not None and not self._present and not auth.optional:
            missing = [(name, variable) for name, variable in auth.env.items() if not self._known.get(name)]
            wanted = ", ".join(
                f"{'api_key=' if name == 'api_key' else f'credentials={{{name!r}: ...}}'} or set {variable}"
                for name, variable in missing
            )
            raise ConfigError(f"{provider} wants a key: pass {wanted}")
        if self._token is not None and not rest.is_possible():
            raise ConfigError(f"{provider} wants a token, which needs the http extra: pip install 'fastfeed[http]'")

    def __repr__(self) -> str:
        return f"<Credentials {', '.join(sorted(self._known)) or 'none'}>"

    @property
    def _token(self) -> Token | None:
        """The token to fetch, if there is one."""
        return None if self._auth is None or not self._present else self._auth.token

    def _keep(self, secret: str) -> None:
        """`secret` is to be hidden from now on, in every way a server may quote it."""
        inside = json.dumps(secret)[1:-1]
        forms = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), escape(secret)}
        forms |= {inside, inside.replace("/", "\\/"), json.dumps(secret, ensure_ascii=False)[1:-1]}
        self._secrets |= {form for form in forms if len(form) >= SHORTEST}
        if not self._secrets:
            return
        found = "|".join(re.escape(form) for form in sorted(self._secrets, key=len, reverse=True))
        # Whatever the case: what goes through logs and header parsers may come back in another.
        self._texts, self._bytes = re.compile(found, re.IGNORECASE), re.compile(found.encode(), re.IGNORECASE)

    @property
    def secret(self) -> bool:
        """There is something to hide."""
        return bool(self._secrets) or self._ask is not None

    @property
    def renewable(self) -> bool:
        """Fresh ones can be had when the present ones are refused."""
        return self._ask is not None or self._token is not None

    @property
    def logs_in(self) -> bool:
        """A login is sent once connected."""
        return self._present and self._auth is not None and self._auth.login is not None

    def hide(self, text: str) -> str:
        """`text` from outside without our secrets, however they are quoted: servers echo them.

        Hide first and cut later: the half of a secret is not recognised.
        """
        return self._texts.sub("***", text)

    def hide_bytes(self, payload: bytes) -> bytes:
        """The same for a message, which need not be text."""
        return self._bytes.sub(b"***", payload)

    def headers(self) -> dict[str, str]:
        """What the handshake shows in its headers."""
        return {} if self._auth is None or not self._present else self._filled(self._auth.headers)

    def rest(self) -> dict[str, str]:
        """What a request over HTTP shows in its headers."""
        return {} if self._auth is None or not self._present else self._filled(self._auth.rest)

    def query(self) -> str:
        """What the handshake shows in its URL: "token=...", quoted."""
        filled = {} if self._auth is None or not self._present else self._filled(self._auth.query)
        return "&".join(f"{name}={quote(value, safe='')}" for name, value in filled.items())

    def login(self) -> tuple[str | bytes, ...]:
        """The messages that log in."""
        if not self.logs_in or self._auth is None or self._auth.login is None:
            return ()
        return self._auth.login(MappingProxyType(self._known))

    def stamped(self, text: str | bytes) -> str | bytes:
        """A message of ours with the credentials in their places."""
        if self._auth is not None and self._auth.stamps and self._present and isinstance(text, str):
            for stamp, value in zip(self._auth.stamps, self._filled(self._auth.stamps).values(), strict=True):
                text = text.replace(stamp, value)
        return text

    def spoil(self) -> None:
        """The present ones were refused: `refresh` gets others."""
        self._stale = self._ask is not None
        self._token_until = 0.0
        self._known.pop("token", None)

    async def refresh(self, now: float) -> None:
        """Get what is missing or has lapsed at `now` (monotonic seconds).

        Raises:
            ConnectError: it cannot be had.
        """
        if self._ask is not None and self._stale:
            await self._ask_owner(self._ask)
        token = self._token
        if token is not None and ("token" not in self._known or now >= self._token_until):
            await self._fetch(token, now)

    async def _ask_owner(self, ask: Callable[[], Any]) -> None:
        failed = ""
        try:
            found = ask()
            if inspect.isawaitable(found):
                found = await found
            self._known.update(_named(found))
        except Exception as error:
            failed = type(error).__name__
        if failed:  # out here, as the error caught may hold secrets and must not even be the context of this one
            raise AuthError("credentials", f"credentials= raised {failed}")
        self._stale = False
        for secret in self._known.values():
            self._keep(secret)

    async def _fetch(self, token: Token, now: float) -> None:
        url = self._filled({"url": token.url}, quoted=True)["url"]
        parts = urlsplit(url)
        if self._root is not None:
            root = urlsplit(self._root)
            parts = parts._replace(scheme=root.scheme, netloc=root.netloc)
        host = parts.netloc.rpartition("@")[2]
        answer = await rest.ask(
            token.method,
            urlunsplit(parts),
            headers=self._filled(token.headers),
            form=self._filled(token.form),
            tls=self._tls,
        )
        if answer.status in (400, 401, 403):
            said = self.hide(answer.body.decode(errors="replace"))[:200].strip()
            raise AuthError(host, f"no token: HTTP {answer.status}" + (f": {said}" if said else ""))
        if answer.status != 200:
            raise ConnectError(host, f"no token: HTTP {answer.status}")
        try:
            text, lives = token.read(answer.body)
        except Exception:
            text, lives = "", None
        if not (text and isinstance(text, str)):
            raise ConnectError(host, "no token: the answer cannot be read")
        self._known["token"] = text
        self._keep(text)
        lives = token.lifetime if lives is None else lives
        self._token_until = float("inf") if lives is None else now + lives

    def _filled(self, templates: Mapping[str, str], *, quoted: bool = False) -> dict[str, str]:
        known = {name: quote(value, safe="") for name, value in self._known.items()} if quoted else self._known
        try:
            return {name: template.format_map(known) for name, template in templates.items()}
        except KeyError as error:
            raise AuthError("credentials", f"credentials= gave no {error.args[0]!r}") from None


def _named(given: Any) -> dict[str, str]:
    """Credentials by name. Raises ConfigError for what is none, without showing it."""
    if not isinstance(given, Mapping) or not all(isinstance(item, str) for pair in given.items() for item in pair):
        raise ConfigError("credentials must be a mapping of names to texts, and api_key= a text")
    return dict(given)
