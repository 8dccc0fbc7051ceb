"""Fetching over HTTP from a server of our own, which misbehaves in every way."""

import base64
import contextlib
import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from mlcls_jax.errors import InputError
from mlcls_jax.inference.safe_fetch import Policy, _is_public, fetch
from tests.helpers.web import Server

BODY = bytes(range(256)) * 4


class Handler(BaseHTTPRequestHandler):
    """Answers by path; what it was asked is in `server.asked`."""

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        path, _, argument = self.path.partition("=")
        match path:
            case "/good":
                self.answer(200, {"Content-Length": len(BODY)}, BODY)
            case "/unannounced":
                self.answer(200, {}, BODY)
            case "/chunked":
                self.protocol_version = "HTTP/1.1"
                chunks = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (BODY[:7], BODY[7:]))
                self.answer(200, {"Transfer-Encoding": "chunked"}, chunks + b"0\r\n\r\n")
            case "/announced":
                self.answer(200, {"Content-Length": 10**12}, b"")
            case "/short":
                self.answer(200, {"Content-Length": len(BODY) + 1}, BODY)
            case "/to":
                self.answer(302, {"Location": argument}, b"")
            case "/round":
                self.answer(301, {"Location": "/round"}, b"")
            case "/secret":
                self.answer(302, {"Location": "http://bob:s%40crt@127.0.0.1:1/?crt"}, b"")
            case "/nowhere":
                self.answer(307, {}, b"")
            case "/silent":
                self.server.closing.wait(20)
            case "/dripping" | "/dripping-head":
                if path == "/dripping":
                    self.answer(200, {"Content-Length": 10**6}, b"")
                else:
                    self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
                with contextlib.suppress(OSError):
                    while not self.server.closing.wait(0.05):
                        self.wfile.write(b"x")
            case _:
                self.answer(404, {}, b"no")

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with Server(Handler) as server:
        server.closing = threading.Event()
        yield server
        server.closing.set()


@pytest.mark.parametrize("path", ["good", "unannounced", "chunked", "to=/good", "to=/to=good"])
def test_content_arrives_whole(server, path):
    assert fetch(f"{server.url}/{path}", Policy()) == BODY
    assert fetch(f"{server.url}/{path}", Policy(max_bytes=len(BODY))) == BODY


@pytest.mark.parametrize("path", ["good", "unannounced", "chunked", "announced"])
def test_too_large(server, path):
    with pytest.raises(InputError, match=f"{path}: cannot be fetched: .* bytes.* limit"):
        fetch(f"{server.url}/{path}", Policy(max_bytes=len(BODY) - 1))


@pytest.mark.parametrize("path", ["silent", "dripping", "dripping-head"])
def test_the_time_limit_is_for_everything(server, path):
    # Each byte comes well within the limit, so one that began anew with each would never end.
    with pytest.raises(InputError, match=f"/{path}: no whole answer within 0.3 s"):
        fetch(f"{server.url}/{path}", Policy(timeout=0.3))


def test_redirects_share_the_time_limit(server):
    with pytest.raises(InputError, match="no whole answer"):
        fetch(f"{server.url}/to=/dripping", Policy(timeout=0.3))


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("missing", "answered 404 Not Found"),
        ("short", f"broke off after {len(BODY)} of {len(BODY) + 1}"),
        ("round", "more than 5 redirects"),
        ("nowhere", "a redirect without"),
        ("to=ftp://127.0.0.1/", "ftp:// is not supported"),
        ("to=file:///etc/passwd", "file:// is not supported"),
    ],
)
def test_failures_name_url_and_cause(server, path, cause):
    with pytest.raises(InputError, match=cause) as caught:
        fetch(f"{server.url}/{path}", Policy())
    assert caught.value.message.startswith(f"{server.url}/{path}: ")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "http://", "http://[::1/x", "http://a:99999/x"]
)
def test_other_urls_are_refused(url):
    with pytest.raises(InputError):
        fetch(url, Policy())


def test_no_more_redirects_than_allowed(server):
    url = f"{server.url}/to=/to=good"
    assert fetch(url, Policy(max_redirects=2)) == BODY
    with pytest.raises(InputError, match="more than 1 redirects"):
        fetch(url, Policy(max_redirects=1))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "0"])
def test_private_networks_are_refused_before_anything_is_sent(server, host):
    server.asked.clear()
    with pytest.raises(InputError, match="not in a public network"):
        fetch(f"http://{host}:{server.port}/good", Policy(allow_private=False))
    assert not server.asked


def test_each_redirect_is_checked_against_the_list(server):
    server.asked.clear()
    policy = Policy(hosts=("127.0.0.1",))
    assert fetch(f"{server.url}/good", policy) == BODY
    with pytest.raises(InputError, match="after a redirect to .*: localhost is not among"):
        fetch(f"{server.url}/to=http://localhost:{server.port}/good", policy)
    assert [path for path, _ in server.asked].count("/good") == 1


def test_each_redirect_is_checked_against_the_networks(server, monkeypatch):
    # The first host, and it alone, counts as public here: there is no public one to test with.
    import mlcls_jax.inference.safe_fetch as module

    first = ipaddress.ip_address("127.0.0.1")
    monkeypatch.setattr(module, "_is_public", lambda address: address == first)
    policy = Policy(allow_private=False)
    assert fetch(f"{server.url}/good", policy) == BODY
    server.asked.clear()
    for host in ("127.0.0.2", "[::1]", "169.254.169.254", "10.0.0.1"):
        with pytest.raises(InputError, match="after a redirect .* not in a public network"):
            fetch(f"{server.url}/to=http://{host}:{server.port}/good", policy)
    assert all(path != "/good" for path, _ in server.asked)


def test_the_address_that_was_checked_is_the_one_connected_to(server, monkeypatch):
    look_ups = []
    real = socket.getaddrinfo

    def rebinding(host, port, *rest, **options):
        look_ups.append(host)
        # A second look-up would give another address, where nobody listens.
        return real("127.0.0.1" if len(look_ups) == 1 else "127.0.0.9", port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert fetch(f"http://pictures.example:{server.port}/good", Policy()) == BODY
    assert look_ups == ["pictures.example"]
    assert server.asked[-1][1]["Host"] == f"pictures.example:{server.port}"


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("example.org", True),
        ("EXAMPLE.org", True),
        ("example.org.", True),
        ("a.pictures.net", True),
        ("a.b.pictures.net", True),
        ("pictures.net", False),
        ("evilpictures.net", False),
        ("example.org.evil.net", False),
        ("example.org@evil.net", False),
    ],
)
def test_the_list_of_hosts(host, is_allowed):
    policy = Policy(hosts=("Example.org", "*.pictures.net"), timeout=5)
    with pytest.raises(InputError) as caught:  # those names have no such port, or no address
        fetch(f"http://{host}:1/", policy)
    assert ("not among the hosts allowed" in caught.value.message) is not is_allowed


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1"),
        *("::1", "::", "fe80::1", "fe80::1%1", "fc00::1", "fd12::1", "ff02::1", "fec0::1"),
        *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "2001:db8::1"),
        *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "100::1"),
    ],
)
def test_addresses_that_are_not_public(address):
    assert not _is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_addresses_that_are_public(address):
    assert _is_public(ipaddress.ip_address(address))


def test_credentials_are_sent_but_not_told(server):
    url = f"http://ann:s%40crt@127.0.0.1:{server.port}"
    assert fetch(f"{url}/to=/good", Policy()) == BODY
    expected = "Basic " + base64.b64encode(b"ann:s@crt").decode()
    assert [headers["Authorization"] for _, headers in server.asked[-2:]] == [expected] * 2
    fetch(f"{url}/to=http://localhost:{server.port}/good", Policy())
    assert "Authorization" not in server.asked[-1][1]  # another host
    for path in ("missing?key=s%40crt", "to=/missing", "secret"):
        with pytest.raises(InputError) as caught:
            fetch(f"{url}/{path}", Policy())
        told = caught.value.message
        assert told.startswith(f"{server.url}/{path.partition('?')[0]}")
        assert not any(secret in told for secret in ("ann:", "bob", "crt"))


def test_blanks_and_foreign_letters_are_quoted(server):
    with pytest.raises(InputError, match="404"):
        fetch(f"{server.url}/bild größe.jpg?a=ü%20b", Policy())
    assert server.asked[-1][0] == "/bild%20gr%C3%B6%C3%9Fe.jpg?a=%C3%BC%20b"


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but does not listen
        with pytest.raises(InputError, match="(?i)refused"):
            fetch(f"http://127.0.0.1:{taken.getsockname()[1]}/", Policy())


def test_a_host_without_an_address():
    with pytest.raises(InputError, match="nowhere.invalid"):
        fetch("http://nowhere.invalid/x.jpg", Policy(timeout=20))


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory):
    """A server on localhost with a certificate that it signed itself, in `server.certificate`."""
    if not shutil.which("openssl"):
        pytest.skip("needs the command openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    make = [*make.split(), "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.certificate = str(certificate)
    with server:
        yield server


def test_https_with_a_trusted_certificate(tls_server, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", tls_server.certificate)
    assert fetch(f"https://localhost:{tls_server.port}/good", Policy()) == BODY
    with pytest.raises(InputError, match="limit"):
        fetch(f"https://localhost:{tls_server.port}/good", Policy(max_bytes=9))
    with pytest.raises(InputError, match="127.0.0.1"):  # the certificate is for another name
        fetch(f"https://127.0.0.1:{tls_server.port}/good", Policy())


def test_https_with_an_unknown_certificate(tls_server):
    with pytest.raises(InputError, match="(?i)certificate"):
        fetch(f"https://localhost:{tls_server.port}/good", Policy())


def test_https_where_none_is_spoken(server):
    with pytest.raises(InputError, match="(?i)ssl"):
        fetch(f"https://127.0.0.1:{server.port}/good", Policy())


class Proxy(BaseHTTPRequestHandler):
    """Answers for http:// hosts itself, and connects to localhost whatever the https:// host."""

    def do_GET(self):
        self.server.asked.append((self.path, dict(self.headers)))
        self.send_response(302 if self.path.endswith("/to") else 200)
        if self.path.endswith("/to"):
            self.send_header("Location", "http://other.example/there")
        self.end_headers()
        self.wfile.write(BODY)

    def do_CONNECT(self):
        self.server.asked.append((self.path, dict(self.headers)))
        if "forbidden" in self.path:
            return self.send_error(403)
        self.send_response(200)
        self.end_headers()
        with socket.create_connection(("127.0.0.1", self.path.rpartition(":")[2])) as server:
            back = threading.Thread(target=pump, args=(server, self.connection))
            back.start()
            pump(self.connection, server)
            back.join()

    def log_message(self, *_):
        pass


def pump(source, target):
    with contextlib.suppress(OSError):
        while data := source.recv(9999):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.fixture
def proxy(monkeypatch):
    with Server(Proxy) as server:
        server.place = f"127.0.0.1:{server.port}"
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(name, server.url)
        yield server


def test_a_proxy_of_the_environment_is_used(proxy):
    # Hosts that this machine cannot look up, as in networks where only the proxy can.
    assert fetch("http://pictures.invalid:81/a b.jpg?c=1", Policy()) == BODY
    path, headers = proxy.asked[-1]
    assert path == "http://pictures.invalid:81/a%20b.jpg?c=1"
    assert headers["Host"] == "pictures.invalid:81" and "Proxy-Authorization" not in headers
    assert fetch("http://pictures.invalid/to", Policy()) == BODY
    assert proxy.asked[-1][0] == "http://other.example/there"


def test_https_goes_through_a_tunnel_of_the_proxy(proxy, tls_server, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", tls_server.certificate)
    monkeypatch.setenv("https_proxy", f"ann:s%40crt@{proxy.place}")  # as some write it
    url = f"https://localhost:{tls_server.port}/good"
    assert fetch(url, Policy()) == BODY
    path, headers = proxy.asked[-1]
    assert path == f"localhost:{tls_server.port}"
    expected = "Basic " + base64.b64encode(b"ann:s@crt").decode()
    assert headers["Proxy-Authorization"] == expected
    assert "Proxy-Authorization" not in tls_server.asked[-1][1]  # it is the proxy's alone
    with pytest.raises(InputError, match="(?i)certificate"):  # of another name: nobody in between
        fetch(f"https://pictures.invalid:{tls_server.port}/good", Policy())
    with pytest.raises(InputError) as caught:
        fetch("https://forbidden.invalid/", Policy())
    assert f"through the proxy {proxy.place}: the proxy answered 403" in caught.value.message
    assert "crt" not in caught.value.message


@pytest.mark.parametrize("names", ["127.0.0.1", "localhost,127.0.0.1", "*"])
def test_hosts_named_in_no_proxy_are_asked_directly(proxy, server, monkeypatch, names):
    monkeypatch.setenv("no_proxy", names)
    assert fetch(f"{server.url}/good", Policy()) == BODY
    assert not proxy.asked


@pytest.mark.parametrize("limits", [{"hosts": ("127.0.0.1",)}, {"allow_private": False}])
def test_limits_of_hosts_and_networks_are_kept_from_proxies(proxy, server, limits):
    with contextlib.suppress(InputError):  # not in a public network
        fetch(f"{server.url}/good", Policy(**limits))
    assert not proxy.asked


def test_a_proxy_that_cannot_be_used_is_named(monkeypatch, server):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # but does not listen
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", f"http://ann:crt@{place}")
        with pytest.raises(
            InputError, match=f"through the proxy {place}: (?i:.*refused)"
        ) as caught:
            fetch(f"{server.url}/good", Policy())
        assert "crt" not in caught.value.message
    monkeypatch.setenv("http_proxy", "socks5://ann:crt@127.0.0.1:1080")
    with pytest.raises(
        InputError, match="socks5://127.0.0.1:1080 .* only http:// proxies"
    ) as caught:
        fetch(f"{server.url}/good", Policy())


def test_a_handshake_that_stalls():
    with socket.create_server(("127.0.0.1", 0)) as stalling:
        url = f"https://127.0.0.1:{stalling.getsockname()[1]}/"
        with pytest.raises(InputError, match="no whole answer"):
            fetch(url, Policy(timeout=0.3))
