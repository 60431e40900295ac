"""Who may see the control room: one token, and sessions of browsers that gave it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from ..core.errors import ConfigError, ParameterError
from ..core.files import why

#: The least length of a token; generated ones have 43 characters (256 bits).
LEAST = 20
#: How long a session lasts without a request, in seconds, and how many there may be.
IDLE, MOST = 12 * 3600.0, 100


class Sessions:
    """Sessions by the hash of their secret, in memory: a restart ends them all.

    Args:
        token: what a browser has to give.
        clock: seconds that never go back.

    Raises:
        ParameterError: the token is too short.
    """

    def __init__(self, token: str, clock: Callable[[], float] = time.monotonic) -> None:
        if len(token) < LEAST:
            raise ParameterError(f"the token has {len(token)} characters; use {LEAST} or more")
        self._token = token.encode("utf-8", "surrogatepass")
        self._clock = clock
        self._known: dict[str, tuple[str, float]] = {}

    def is_token(self, text: str) -> bool:
        """Whether this is the token, in time that does not depend on where they differ."""
        return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), self._token)

    def begin(self) -> str:
        """The secret of a new session; the one unused for longest ends if there are too many."""
        secret = secrets.token_urlsafe(32)
        if len(self._known) >= MOST:
            del self._known[min(self._known, key=lambda key: self._known[key][1])]
        self._known[_hash(secret)] = secrets.token_urlsafe(32), self._clock()
        return secret

    def csrf(self, secret: str) -> str | None:
        """What this session's requests that change something have to send along; None if it is no session."""
        csrf, last = self._known.get(_hash(secret), ("", 0.0))
        if not csrf or self._clock() - last > IDLE:
            self.end(secret)
            return None
        self._known[_hash(secret)] = csrf, self._clock()
        return csrf

    def csrf_of(self, user: str) -> str:
        """The same for a user whom a proxy has logged in."""
        text = f"csrf {user}".encode("utf-8", "surrogatepass")
        return hmac.new(self._token, text, hashlib.sha256).hexdigest()

    def end(self, secret: str) -> None:
        """End a session, if it is one."""
        self._known.pop(_hash(secret), None)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def token_from(path: Path) -> str:
    """The token in a file that only its owner may read; a new one is written if there is no file.

    Raises:
        ConfigError: others may read the file, or it cannot be read or written.
        ParameterError: the token is too short.
    """
    try:
        try:
            with open(path, "x", opener=_private) as file:
                token = secrets.token_urlsafe(32)
                file.write(token + "\n")
            return token
        except FileExistsError:
            pass
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"others may read the token in {path}; run `chmod 600 {path}`")
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = why(error) if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"cannot use the token file {path}: {reason}") from None
    if len(token) < LEAST:
        raise ParameterError(f"the token in {path} has {len(token)} characters; use {LEAST} or more")
    return token


def _private(path: str, flags: int) -> int:
    import os

    return os.open(path, flags, 0o600)
