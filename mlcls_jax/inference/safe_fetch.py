"""Fetching a picture by HTTP, within limits: which hosts and networks, how large, how long."""

import base64
import http.client
import io
import ipaddress
import socket
import ssl
import string
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from mlcls_jax.errors import InputError

_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK = 1 << 16  # bytes
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # IPv4 addresses inside IPv6, RFC 6052

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Policy:
    """Limits of a download. The defaults suit users who name URLs themselves, not servers.

    Proxies of the environment are used where neither hosts nor networks are limited: a proxy looks
    hosts up by itself, and could not be held to the limits.
    """

    hosts: tuple[str, ...] | None = None  # names, or *.name for all below it; None: any
    allow_private: bool = True  # loopback, private, link-local and other networks not public
    max_bytes: int = 100_000_000
    timeout: float = 60.0  # seconds for everything, redirects included
    max_redirects: int = 5

    @property
    def uses_proxies(self) -> bool:
        """Whether `http_proxy`, `https_proxy` and `no_proxy` are respected."""
        return self.hosts is None and self.allow_private


class _Target(NamedTuple):
    """A URL taken apart."""

    is_tls: bool
    host: str  # ASCII, lower case
    port: int
    path: str  # with the query
    headers: dict[str, str]


def fetch(url: str, policy: Policy) -> bytes:
    """The content that `url`, http or https, leads to.

    A host is looked up once, and the address that was checked is the one connected to; each
    redirect is checked like the first URL. A user and password in the URL are sent as basic
    authentication, and stay out of messages; so do those of a proxy.

    Raises:
      InputError: the policy forbids it, or it failed; the message names the URL and the cause.
    """
    deadline = time.monotonic() + policy.timeout
    shown = redacted(url)
    place, proxy = url, None
    try:
        for _ in range(policy.max_redirects + 1):
            proxy = None  # of what follows a redirect, another
            target = _parse(place)
            proxy = _proxy_of(target, policy)
            answer = _get(target, proxy, policy, deadline)
            if isinstance(answer, bytes):
                return answer
            place = urljoin(place, answer)
    except TimeoutError as error:
        raise InputError(f"{shown}: no whole answer within {policy.timeout:g} s") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        after = "" if place == url else f" after a redirect to {redacted(place)}"
        through = f" through the proxy {proxy.host}:{proxy.port}" if proxy else ""
        raise InputError(f"{shown}: cannot be fetched{after}{through}: {cause}") from error
    raise InputError(f"{shown}: more than {policy.max_redirects} redirects")


def redacted(url: str) -> str:
    """`url` as messages may show it: without user, password and the query, which may hold keys."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition(":")[0] + "://…"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?…" if parts.query else "")


def _parse(url: str) -> _Target:
    """Raises ValueError, which says what is wrong with the URL."""
    parts: SplitResult = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{parts.scheme}:// is not supported, only http:// and https://")
    if not parts.hostname:
        raise ValueError("the URL names no host")
    host = parts.hostname.rstrip(".")
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    is_tls = parts.scheme == "https"
    port = parts.port or (443 if is_tls else 80)
    headers = {
        "Host": (f"[{host}]" if ":" in host else host) + (f":{parts.port}" if parts.port else ""),
        "Accept": "image/*, application/pdf;q=0.9, */*;q=0.1",
        "User-Agent": "mlcls_jax",
        "Connection": "close",
    }
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()
    # As a browser does it: blanks and foreign letters become %…, what is quoted already stays.
    path = quote(parts.path or "/", safe=string.punctuation)
    query = quote(parts.query, safe=string.punctuation)
    return _Target(is_tls, host, port, path + (f"?{query}" if query else ""), headers)


def _proxy_of(target: _Target, policy: Policy) -> _Target | None:
    """The proxy that the environment names for the target; None: it is asked directly."""
    url = getproxies().get("https" if target.is_tls else "http") if policy.uses_proxies else None
    if not url or proxy_bypass(f"{target.host}:{target.port}"):
        return None
    if "://" not in url:
        url = f"http://{url}"
    if not url.lower().startswith("http://"):
        raise ValueError(f"the proxy {redacted(url)} cannot be used, only http:// proxies")
    return _parse(url)


def _get(target: _Target, proxy: _Target | None, policy: Policy, deadline: float) -> bytes | str:
    """The content, or where the server redirects to."""
    _check_host(target.host, policy)
    path, headers = target.path, target.headers
    if proxy and not target.is_tls:
        path, headers = f"http://{headers['Host']}{path}", headers | _credentials(proxy)
    with _connect(target, proxy, policy, deadline) as connected:
        connection = http.client.HTTPConnection(target.host, target.port)
        # In place, so that it does not look up and connect by itself.
        connection.sock = _Wire(connected, deadline)
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        if response.status in _REDIRECTS:
            location = response.headers.get("Location")
            if not location:
                raise ValueError("a redirect without a new location")
            return quote(location, safe=string.punctuation, encoding="latin-1")
        if response.status != 200:
            raise ValueError(f"the server answered {response.status} {response.reason}")
        return _read_body(response, policy.max_bytes)


def _read_body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    announced = response.length  # None: not announced
    if announced is not None and announced > max_bytes:
        raise ValueError(f"{announced} bytes, above the limit of {max_bytes}")
    body = bytearray()
    while chunk := response.read(_CHUNK):
        body += chunk
        if len(body) > max_bytes:
            raise ValueError(f"more than {max_bytes} bytes, the limit")
    if announced is not None and len(body) < announced:
        raise ValueError(f"the answer broke off after {len(body)} of {announced} bytes")
    return bytes(body)


def _check_host(host: str, policy: Policy) -> None:
    if policy.hosts is None:
        return
    for pattern in map(str.lower, policy.hosts):
        if host == pattern or (pattern.startswith("*.") and host.endswith(pattern[1:])):
            return
    raise ValueError(f"{host} is not among the hosts allowed")


def _connect(
    target: _Target, proxy: _Target | None, policy: Policy, deadline: float
) -> socket.socket:
    """A connection to the target, or its proxy, at the first address permitted that answers."""
    nearest = proxy or target
    found = _look_up(nearest.host, nearest.port, deadline)
    if not policy.allow_private:
        found = [entry for entry in found if _is_public(ipaddress.ip_address(entry[4][0]))]
        if not found:
            raise ValueError(f"{target.host} is not in a public network")
    failure = OSError(f"{nearest.host} has no address")
    for number, (family, kind, protocol, _, address) in enumerate(found):
        connected = socket.socket(family, kind, protocol)
        try:
            # A share of the time, so that a silent address leaves some for the next.
            connected.settimeout(_left(deadline) / (len(found) - number))
            connected.connect(address)
            if proxy and target.is_tls:
                _open_tunnel(connected, target, proxy, deadline)
            if target.is_tls:
                connected.settimeout(_left(deadline))
                context = ssl.create_default_context()
                connected = context.wrap_socket(connected, server_hostname=target.host)
            return connected
        except OSError as error:
            connected.close()
            failure = error
    raise failure


def _open_tunnel(
    connected: socket.socket, target: _Target, proxy: _Target, deadline: float
) -> None:
    """Has the proxy pass on what is sent from now on."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    place = f"{host}:{target.port}"
    connection = http.client.HTTPConnection(proxy.host, proxy.port)
    connection.sock = _Wire(connected, deadline)
    connection.request("CONNECT", place, headers={"Host": place, **_credentials(proxy)})
    response = connection.getresponse()
    if response.status != 200:
        raise OSError(f"the proxy answered {response.status} {response.reason}")


def _credentials(proxy: _Target) -> dict[str, str]:
    user = proxy.headers.get("Authorization")
    return {"Proxy-Authorization": user} if user else {}


def _look_up(host: str, port: int, deadline: float) -> list[tuple]:
    # The system's resolver knows no time limit, so it gets a thread that may be left behind.
    found: Future[list[tuple]] = Future()

    def look_up() -> None:
        try:
            found.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.set_exception(error)

    threading.Thread(target=look_up, daemon=True).start()
    return found.result(_left(deadline))


def _is_public(address: Address) -> bool:
    """Return whether an address is public: not loopback, private, link-local, multicast, …."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return _is_public(address.ipv4_mapped)
        if address in _NAT64:
            return _is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour or address.teredo or address.is_site_local:
            return False  # tunnels, whose other end cannot be judged
    return address.is_global and not address.is_multicast and not address.is_reserved


def _left(deadline: float) -> float:
    """Seconds until `deadline`; TimeoutError once it is past."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Wire(io.RawIOBase):
    """A socket that gives up at a moment, however slowly the other side drips its bytes.

    It offers what `http.client` asks of a socket. A plain timeout would begin anew with each byte.
    """

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._connected, self._deadline = connected, deadline

    def sendall(self, data: bytes) -> None:
        self._connected.settimeout(_left(self._deadline))
        self._connected.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        self._connected.settimeout(_left(self._deadline))
        return self._connected.recv_into(buffer)

    def close(self) -> None:
        """Nothing: `http.client` calls it before the answer is read, and `_get` ends the socket."""
