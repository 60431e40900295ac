"""``fedguard serve``: the control room on a port of this machine (extra: serve)."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable
from pathlib import Path

from ..core.errors import ConfigError, ParameterError
from ..core.extras import extra_module
from .live import Live
from .sessions import Sessions, token_from


def serve(
    ledger: Path,
    events: Path | None,
    host: str,
    port: int,
    token_file: Path | None,
    read_only: bool,
    user_header: str,
    say: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C.

    Args:
        ledger: the ledger's file.
        events: what an EventLog writes.
        host: the address to listen at.
        port: the port; 0 for a free one.
        token_file: where the token is; None for a new one, which is said once.
        read_only: refuse bans and unbans.
        user_header: the header in which a proxy that logs users in names them; needs a token file.
        say: prints a line.

    Raises:
        ParameterError: the extra is not installed, the token is too short, or a user header without a
            token file.
        LedgerError: the ledger cannot be read.
        ConfigError: the port is taken, or the token file cannot be used.
    """
    uvicorn = extra_module("uvicorn", "serve", "fedguard serve")
    extra_module("starlette", "serve", "fedguard serve")
    from .app import PROXY_TOKEN, Room

    if user_header and token_file is None:
        raise ParameterError(
            "--user-header needs --token-file: the proxy shows by the token that it is the proxy"
        )
    live = Live(ledger, events, read_only)
    token = secrets.token_urlsafe(32) if token_file is None else token_from(token_file)
    app = Room(live, Sessions(token), user_header=user_header).app()
    # No access log: queries hold client ids. No names of software in headers.
    config = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=1, limit_concurrency=200,
    )  # fmt: skip
    try:
        bound = config.bind_socket()
    except SystemExit:  # uvicorn has logged why
        raise ConfigError(f"cannot listen at {host}, port {port}; choose another --port") from None
    where = f"[{host}]" if ":" in host else host
    say(
        f"control room of {ledger}{' (read-only)' if read_only else ''}: http://{where}:{bound.getsockname()[1]}/"
    )
    say(f"token: {token}" if token_file is None else f"token: the content of {token_file}")
    if user_header:
        say(f"users are those whom a proxy names in {user_header}, with the token in {PROXY_TOKEN}")
    if not loopback(host):
        say(f"{host} is open to other machines, and http is not encrypted: put a proxy with TLS in front")
    uvicorn.Server(config).run(sockets=[bound])


def loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
