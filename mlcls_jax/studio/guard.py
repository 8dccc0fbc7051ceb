"""Who may ask: the page itself, from this machine or with the token; no page of anybody else."""

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlcls_jax.studio.pictures import MAX_BYTES

LOOPBACK = ("127.0.0.1", "localhost", "::1")
JSON = ("application/json", 2**20)  # type and bytes of bodies
BODIES = {"/picture": ("application/octet-stream", MAX_BYTES)}
COOKIE = "mlcls_studio"

POLICY_HEADER = "Content-Security-Policy"
NEVER = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    f" connect-src 'self'; {NEVER}"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

MAX_ADDRESS = 4_000  # fewer than the digits from which on Python refuses to read a number


class Guard:
    """Middleware that refuses other origins and names of this host, and asks for the token.

    A page of another site can send requests here, but neither without naming its origin, nor, by a
    name of its own that leads to this address ("DNS rebinding"), without that name as the host; and
    a browser that knows the token under our name does not send it along under another.
    """

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        """Without a token only names of the loopback address are answered."""
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        is_answered = False

        async def send_on(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault(POLICY_HEADER, POLICY)  # else its own
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        try:
            await (refusal or self._app)(scope, receive, send_on)
        except Exception:  # told in the terminal; the answer to it would have no headers
            if not is_answered:
                await _refuse(500, "the studio failed; its terminal says why")(
                    scope, receive, send_on
                )
            raise

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        is_reading = scope["method"] in ("GET", "HEAD")
        if self._token is None and _name(host) not in LOOPBACK:
            return _refuse(403, f"this studio is not {host}: open it at 127.0.0.1")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return _refuse(403, "another site may not ask this studio")
        if len(scope["path"]) + len(scope["query_string"]) > MAX_ADDRESS:
            return _refuse(414, f"an address has {MAX_ADDRESS} characters at most")
        if not is_reading and origin is None:
            return _refuse(403, "who asks must name its origin, as browsers do")
        site = headers.get("sec-fetch-site", "none")
        is_visit = scope["path"] == "/" and headers.get("sec-fetch-mode", "navigate") == "navigate"
        if site not in ("none", "same-origin") and not is_visit:
            return _refuse(403, "another site may not ask this studio")
        if not is_reading:
            kind = headers.get("content-type", "").partition(";")[0]
            wanted, limit = BODIES.get(scope["path"], JSON)
            if kind != wanted:  # neither is what a form of another site can send
                return _refuse(415, f"a body must be {wanted}")
            length = headers.get("content-length", "")
            if not length.isdecimal() or len(length) > 18 or int(length) > limit:
                return _refuse(413, f"a body must tell its length, of {limit} bytes at most")
        return self._ask_for_token(scope, headers) if self._token is not None else None

    def _ask_for_token(self, scope: Scope, headers: Headers) -> Response | None:
        if self._is_token(parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]):
            answer = RedirectResponse("/", 303)  # so that it is in no history of addresses
            assert self._token is not None
            answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict")
            return answer
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key if scheme.lower() == "bearer" else (cookie.value if cookie else "")
        if self._is_token(given):
            return None
        return _refuse(401, "open the address with ?token=…, as the terminal shows it")

    def _is_token(self, given: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(given.encode(errors="replace"), self._token.encode())


def _name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _refuse(code: int, message: str) -> Response:
    return PlainTextResponse(message, code)
