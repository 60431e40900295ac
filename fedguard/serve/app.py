"""The control room's server: pages, JSON, server-sent events; Starlette (extra: serve)."""

from __future__ import annotations

import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from anyio import sleep
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from ..core.errors import FedGuardError, LedgerError
from .contents import overview, printable, told
from .live import Live
from .page import login, policy, room
from .sessions import Sessions

COOKIE = "fedguard_session"
#: The header in which a proxy that logs users in sends the token.
PROXY_TOKEN = "x-fedguard-token"  # noqa: S105 - a name
#: The most bytes of a request's body, and the most browsers that listen at a time.
MAX_BODY, MAX_STREAMS = 16 * 1024, 32
_HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "same-origin",  # without any, browsers send "Origin: null" with the login form
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
Handler = Callable[[Request], Awaitable[Response]]


class RefusedError(Exception):
    """A request that is not answered, with its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Room:
    """The handlers.

    Args:
        live: what to show.
        sessions: who may see it.
        pause: seconds between two looks at the files.
        user_header: the header in which a proxy that knows the token names its user; empty for none.
    """

    def __init__(self, live: Live, sessions: Sessions, pause: float = 0.5, user_header: str = "") -> None:
        self.live, self.sessions, self.pause, self.user_header = live, sessions, pause, user_header
        self._streams = 0

    def app(self) -> Starlette:
        """The application."""
        routes = [
            ("/", self.index, "GET"),
            ("/login", self.login, "POST"),
            ("/logout", self.logout, "POST"),
            ("/api/clients", self.clients, "GET"),
            ("/api/client", self.client, "GET"),
            ("/api/ban", self.ban, "POST"),
            ("/api/unban", self.unban, "POST"),
            ("/events", self.events, "GET"),
        ]
        return Starlette(routes=[Route(path, _guarded(do), methods=[method]) for path, do, method in routes])

    # --- pages

    async def index(self, request: Request) -> Response:
        """The page, or the one that asks for the token."""
        csrf = self._csrf(request)
        if csrf is None:
            return HTMLResponse(login())
        data = {
            "title": printable(self.live.path.name),
            "csrf": csrf,
            "writable": not self.live.read_only,
            "user": self._user(request),
        }
        return HTMLResponse(room(data, live=True))

    async def login(self, request: Request) -> Response:
        """Begin a session if the form holds the token."""
        _same_origin(request)
        form = parse_qs((await _body(request)).decode("utf-8", "replace"))
        if not self.sessions.is_token(form.get("token", [""])[0].strip()):
            return HTMLResponse(login("This is not the token."), status_code=403)
        answer = RedirectResponse("/", status_code=303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, self.sessions.begin(), httponly=True, samesite="strict", secure=secure)
        return answer

    async def logout(self, request: Request) -> Response:
        """End the session."""
        _same_origin(request)
        self.sessions.end(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/", status_code=303)
        answer.delete_cookie(COOKIE)
        return answer

    # --- values

    async def clients(self, request: Request) -> Response:
        """A page of clients."""
        self._may_see(request)
        query = request.query_params
        offset, limit = _whole(query.get("offset", "0")), _whole(query.get("limit", "50"))
        which, search = query.get("which", "all"), query.get("search", "")[:200]
        return _json(await run_in_threadpool(overview, self.live.ledger, offset, limit, which, search))

    async def client(self, request: Request) -> Response:
        """One client's story."""
        self._may_see(request)
        number = _whole(request.query_params.get("number", ""))
        return _json(await run_in_threadpool(told, self.live.ledger, number))

    async def ban(self, request: Request) -> Response:
        """Ban a client."""
        client, by, why, rounds = await self._decision(request)
        said = await run_in_threadpool(self.live.ban, client, by, why, rounds)
        return _json({"standing": said})

    async def unban(self, request: Request) -> Response:
        """Lift a ban."""
        client, by, why, _ = await self._decision(request)
        await run_in_threadpool(self.live.unban, client, by, why)
        return _json({"standing": "admitted"})

    async def events(self, request: Request) -> Response:
        """News, as server-sent events."""
        self._may_see(request)
        if self._streams >= MAX_STREAMS:
            raise RefusedError(503, f"{MAX_STREAMS} browsers listen already; close one of them")
        return StreamingResponse(self._news(request), media_type="text/event-stream")

    async def _news(self, request: Request) -> AsyncIterator[str]:
        self._streams += 1
        try:
            last, since = None, 0.0
            while self._knows(request) and not await request.is_disconnected():
                state = await run_in_threadpool(self.live.state)
                if last is None or state.rounds != last.rounds:
                    yield f"event: rounds\ndata: {json.dumps(self.live.rounds())}\n\n"
                if last is None or state.ledger != last.ledger:
                    yield "event: ledger\ndata: changed\n\n"
                since = 0.0 if state != last else since + self.pause
                if since > 15:
                    since = 0.0
                    yield ": still here\n\n"
                last = state
                await sleep(self.pause)
        finally:
            self._streams -= 1

    # --- who may

    def _user(self, request: Request) -> str | None:
        """The user whom the proxy has logged in; None if it was not the proxy that asked."""
        named = request.headers.getlist(self.user_header) if self.user_header else []
        # Two names: the proxy has added its own to one that came from outside.
        if len(named) != 1 or not self.sessions.is_token(request.headers.get(PROXY_TOKEN, "")):
            return None
        return printable(named[0].encode("latin-1").decode("utf-8", "replace").strip(), 100) or None

    def _csrf(self, request: Request) -> str | None:
        user = self._user(request)
        if user is not None:
            return self.sessions.csrf_of(user)
        return self.sessions.csrf(request.cookies.get(COOKIE, ""))

    def _knows(self, request: Request) -> bool:
        return self._bears(request) or self._csrf(request) is not None

    def _bears(self, request: Request) -> bool:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and self.sessions.is_token(token.strip())

    def _may_see(self, request: Request) -> None:
        if not self._knows(request):
            raise RefusedError(401, "log in first")

    async def _decision(self, request: Request) -> tuple[str | int, str, str, int | None]:
        """Check who asks before what is asked; the body of a ban or an unban."""
        _same_origin(request)
        if not self._bears(request):  # a cookie is sent along without the page's knowledge, a header is not
            csrf = self._csrf(request)
            if csrf is None:
                raise RefusedError(401, "log in first")
            if not _equal(request.headers.get("x-csrf-token", ""), csrf):
                raise RefusedError(403, "the request is not from the page; reload it")
        if self.live.read_only:
            raise RefusedError(403, "the control room is read-only")
        client, by, why, rounds = _decided(await _body(request))
        return client, self._user(request) or by, why, rounds


def _decided(body: bytes) -> tuple[str | int, str, str, int | None]:
    try:
        asked: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(asked, dict):
        raise RefusedError(400, "the body is not an object")
    client, by, why, rounds = (asked.get(name) for name in ("client", "by", "why", "rounds"))
    fits = type(client) in (str, int) and isinstance(by, str) and isinstance(why, str)
    if not fits or type(rounds) not in (int, type(None)) or not 1 <= len(str(client)) <= 1000:
        raise RefusedError(400, "send client, by and why as text, and rounds as a whole number or not at all")
    return client, by, why, rounds  # type: ignore[return-value]


def _guarded(do: Handler) -> Handler:
    """Every answer with the headers, every error of ours as JSON."""

    async def answered(request: Request) -> Response:
        try:
            answer = await do(request)
        except RefusedError as error:
            answer = _json({"error": str(error)}, error.status)
        except LedgerError as error:
            answer = _json({"error": printable(error, 1000)}, 503)
        except FedGuardError as error:
            answer = _json({"error": printable(error, 1000)}, 400)
        answer.headers.update({**_HEADERS, "content-security-policy": policy(live=True)})
        return answer

    return answered


def _same_origin(request: Request) -> None:
    """Browsers say where a request that changes something comes from: another site's is refused."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    elsewhere = origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")
    if elsewhere or site not in ("same-origin", "none"):
        raise RefusedError(403, "the request comes from another site")


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise RefusedError(413, f"the body has more than {MAX_BODY} bytes")
    return body


def _json(values: dict[str, Any], status: int = 200) -> Response:
    """ASCII: an id may hold characters that have no UTF-8."""
    return Response(json.dumps(values, allow_nan=False), status, media_type="application/json")


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise RefusedError(400, f"{printable(text, 40)!r} is not a whole number")
    return int(text)


def _equal(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode("utf-8", "surrogatepass"), b.encode())
