"""Receivers of alerts: a webhook, an e-mail, a command. Each delivers one alert, or raises an error."""

from __future__ import annotations

import http.client
import json
import os
import smtplib
import ssl
import subprocess
import urllib.request
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import PositiveFloat

from ..core.errors import ParameterError

if TYPE_CHECKING:
    from .alert import Alert

#: Most bytes of a webhook's answer that are read; nothing is done with them.
_ANSWER = 1024


class Receiver(Protocol):
    """Anything that delivers an alert."""

    def deliver(self, alert: Alert) -> None:
        """Deliver one alert, within a time limit; raises any exception if that fails."""


class Webhook:
    """POST of ``alert.as_json()`` to a URL. Redirects are refused: they could lead the token elsewhere.

    The body's ``text`` is a sentence, which Slack and Mattermost show.

    Args:
        url: an http or https URL.
        url_env: the environment variable that holds the URL, if the URL itself is a secret.
        token_env: the environment variable whose content is sent as ``Authorization: Bearer …``.
        timeout: seconds to wait for the connection and for each part of the answer.

    Raises:
        ParameterError: not exactly one of ``url`` and ``url_env``, the variable is empty, or the URL is not
            of http or https.

    Example:
        >>> from fedguard.observers.receivers import Webhook
        >>> Webhook("https://hooks.example.org/T1/secret")
        Webhook(hooks.example.org)
    """

    def __init__(
        self,
        url: str | None = None,
        url_env: str | None = None,
        token_env: str | None = None,
        timeout: PositiveFloat = 5.0,
    ) -> None:
        if (url is None) == (url_env is None):
            raise ParameterError("webhook: give either url or url_env")
        self._url = _secret(url_env, "webhook: url_env") if url is None else url
        try:
            parts = urlsplit(self._url)
            self._host = parts.hostname or ""
            wrong = parts.scheme not in ("http", "https") or not self._host or not self._url.isascii()
            wrong |= parts.username is not None or (parts.port or 1) < 1
        except ValueError:
            wrong = True
        if wrong or any(c.isspace() or not c.isprintable() for c in self._url):
            raise ParameterError(
                "webhook: the URL is not valid; write https://host/path, and give a password by token_env"
            )
        self._headers = {"Content-Type": "application/json", "User-Agent": "fedguard"}
        if token_env is not None:
            self._headers["Authorization"] = f"Bearer {_secret(token_env, 'webhook: token_env')}"
        self.timeout = _positive(timeout, "webhook")
        self._opener = urllib.request.build_opener(_NoRedirect)

    def __repr__(self) -> str:
        """The host only: paths often hold a secret."""
        return f"Webhook({self._host})"

    def deliver(self, alert: Alert) -> None:
        """POST the alert.

        Raises:
            OSError: no connection, no answer in time, or a status other than 2xx.
        """
        body = json.dumps(alert.as_json(), allow_nan=False).encode()
        request = urllib.request.Request(self._url, body, self._headers, method="POST")  # noqa: S310 - checked
        with self._opener.open(request, timeout=self.timeout) as answer:
            answer.read(_ANSWER)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error, as any status but 2xx."""

    def redirect_request(self, *args: Any) -> None:
        """Follow none."""


class Email:
    """One mail per alert; its subject holds no client's id.

    Args:
        host: the SMTP server.
        sender: the address in From.
        to: one address or several.
        port: the server's port; 587, or 465 with ``security="tls"``, or 25 with "none".
        security: "starttls", "tls" (from the first byte), or "none".
        user: the name to log in with; no login if absent.
        password_env: the environment variable that holds the password.
        timeout: seconds to wait for each answer.

    Raises:
        ParameterError: an address or the host is not valid, a user without a password or the other way
            round, or a password without encryption.
    """

    def __init__(
        self,
        host: str,
        sender: str,
        to: str | list[str],
        port: int | None = None,
        security: Literal["starttls", "tls", "none"] = "starttls",
        user: str | None = None,
        password_env: str | None = None,
        timeout: PositiveFloat = 10.0,
    ) -> None:
        ports = {"starttls": 587, "tls": 465, "none": 25}
        if security not in ports:
            raise ParameterError(f"email: security is {security!r}; use 'starttls', 'tls' or 'none'")
        if (user is None) != (password_env is None):
            raise ParameterError("email: user and password_env go together")
        if user is not None and security == "none":
            raise ParameterError("email: a password would be sent in the clear; use starttls or tls")
        self.host = host
        self.to = [to] if isinstance(to, str) else list(to)
        for address in (sender, *self.to):
            if address.count("@") != 1 or any(c.isspace() or not c.isprintable() for c in address):
                raise ParameterError(f"email: {address!r} is not an address; write name@host")
        if not self.to or not host or any(c.isspace() for c in host):
            raise ParameterError("email: give a host and at least one address in `to`")
        self.sender = sender
        self.port = ports[security] if port is None else port
        self.security = security
        self._user = user
        self._password = None if password_env is None else _secret(password_env, "email: password_env")
        self.timeout = _positive(timeout, "email")

    def __repr__(self) -> str:
        """The server only."""
        return f"Email({self.host})"

    def deliver(self, alert: Alert) -> None:
        """Send the mail.

        Raises:
            OSError: no connection, or the server refused (``smtplib.SMTPException``).
        """
        mail = EmailMessage()
        mail["Subject"] = f"FedGuard: {alert.title}"
        mail["From"], mail["To"] = self.sender, ", ".join(self.to)
        mail["Date"], mail["Message-ID"] = formatdate(), make_msgid(domain=self.sender.split("@")[1])
        mail["Auto-Submitted"] = "auto-generated"  # so that nobody's absence note answers (RFC 3834)
        facts = json.dumps(alert.as_json(), indent=1, allow_nan=False)
        mail.set_content(f"{alert.text}\n\n{facts}\n")
        context = ssl.create_default_context()
        if self.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self.host, self.port, timeout=self.timeout, context=context
            )
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        with server:
            if self.security == "starttls":
                server.starttls(context=context)
            if self._user is not None and self._password is not None:
                server.login(self._user, self._password)
            server.send_message(mail)


class Command:
    """Run a program with ``alert.as_json()`` on its standard input. There is no shell.

    The environment has two more variables, FEDGUARD_ALERT (the kind) and FEDGUARD_ROUND. What clients chose
    (ids) is on standard input only.

    Args:
        run: the program and its arguments, as a list.
        timeout: seconds until the program is killed.

    Raises:
        ParameterError: ``run`` is empty or not a list of texts.
    """

    def __init__(self, run: list[str], timeout: PositiveFloat = 10.0) -> None:
        if isinstance(run, str) or not isinstance(run, Sequence) or not run:
            raise ParameterError(
                "command: run is a list of the program and its arguments: [notify, --urgent]"
            )
        if any(not isinstance(part, str) or "\0" in part for part in run) or not run[0]:
            raise ParameterError("command: every part of run is a text without NUL")
        self._run = list(run)
        self.timeout = _positive(timeout, "command")

    def __repr__(self) -> str:
        """The program only: arguments may hold a secret."""
        return f"Command({self._run[0]})"

    def deliver(self, alert: Alert) -> None:
        """Run the program.

        Raises:
            OSError: the program cannot be started.
            subprocess.SubprocessError: it failed, or took too long.
        """
        subprocess.run(  # noqa: S603 - the operator's own program, without a shell
            self._run,
            input=json.dumps(alert.as_json(), allow_nan=False).encode(),
            env={**os.environ, "FEDGUARD_ALERT": alert.kind, "FEDGUARD_ROUND": str(alert.round)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=self.timeout,
            check=True,
        )


def why_not(error: Exception) -> str:
    """Why a delivery failed, in words of ours: messages of errors may hold addresses, tokens or answers."""
    if isinstance(error, subprocess.CalledProcessError):
        return f"exit status {error.returncode}"
    if isinstance(error, urllib.request.HTTPError):
        return f"HTTP status {error.code}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"SMTP status {error.smtp_code}"
    if isinstance(error, TimeoutError | subprocess.TimeoutExpired):
        return "no answer in time"
    if isinstance(error, http.client.HTTPException):
        return "no answer in HTTP"
    reason = getattr(error, "reason", error)  # of a URLError
    return str(getattr(reason, "strerror", None) or type(error).__name__)


def _secret(variable: str | None, where: str) -> str:
    value = os.environ.get(variable or "", "").strip()
    if not value:
        raise ParameterError(f"{where}: the environment variable {variable!r} is not set, or empty")
    if not value.isprintable() or not value.isascii():
        raise ParameterError(f"{where}: the environment variable {variable!r} holds more than ASCII letters")
    return value


def _positive(timeout: float, where: str) -> float:
    if not 0 < timeout <= 600:
        raise ParameterError(f"{where}: timeout is {timeout} seconds; use more than 0, at most 600")
    return timeout
