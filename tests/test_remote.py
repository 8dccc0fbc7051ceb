"""Downloads: whole or not at all, begun again where a transfer breaks off."""

import contextlib
import http.server
import time

import pytest

from mlcls_jax import remote
from mlcls_jax.errors import DataError, InputError
from tests.helpers.web import Server


def refuse(path):
    raise DataError("not the right one")


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_transfer_that_breaks_off_is_begun_again(tmp_path, failures):
    left = failures

    def copy(path):
        nonlocal left
        path.write_bytes(b"begun")
        if left:
            left -= 1
            raise ConnectionResetError("by peer")
        path.write_bytes(b"whole")

    target = tmp_path / "file"
    if failures == remote.ATTEMPTS:
        with pytest.raises(ConnectionResetError):
            remote.download(copy, target, check=lambda path: None)
    else:
        remote.download(copy, target, check=lambda path: None)
        assert target.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == ([] if failures == 3 else [target])


def test_a_file_that_is_not_the_right_one_does_not_get_the_name(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(DataError, match="right one"):
        remote.download(lambda path: path.write_bytes(b"new"), tmp_path / "file", check=refuse)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_web_server_that_gives_less_than_it_says_is_noticed(tmp_path):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"short")

        def log_message(self, *_):
            pass

    with (
        Server(Handler) as server,
        pytest.raises(ConnectionError, match="5 bytes came instead of 10"),
    ):
        remote.copy_from_web(f"{server.url}/x", tmp_path / "x", title="x")


def test_a_web_server_that_drips_is_given_up(tmp_path, monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    self.wfile.write(b"1")
                    time.sleep(0.005)

        def log_message(self, *_):
            pass

    monkeypatch.setattr(remote, "PATIENCE", 0.05)
    with (
        Server(Handler) as server,
        pytest.raises(ConnectionError, match=r"only \d+ bytes came in 0.05 s"),
    ):
        remote.copy_from_web(f"{server.url}/x", tmp_path / "x", title="x")


def test_what_a_store_raises_becomes_an_error_about_the_url():
    with (
        pytest.raises(InputError, match=r"^memory://a: cannot be read: KeyError\(\)") as caught,
        remote.store_errors("memory://a", InputError, "Look again."),
    ):
        raise KeyError
    assert caught.value.hint == "Look again."
    with pytest.raises(KeyError), remote.store_errors("a/file", InputError):
        raise KeyError
