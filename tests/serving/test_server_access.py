"""The key of a server, its files for HTTPS, and signals where asyncio has none."""

import asyncio
import signal

import pytest

from mlcls_jax.errors import ConfigError, UserError
from mlcls_jax.serving import Options
from mlcls_jax.serving.listener import on_signals
from mlcls_jax.serving.server_process import check_tls
from tests.helpers.bundles import write_small
from tests.helpers.server_process import start, wait

pytestmark = pytest.mark.usefixtures("toy")


def test_a_key_is_not_empty_and_not_shown():
    assert "s3cret" not in repr(Options(api_key="s3cret"))
    with pytest.raises(ConfigError, match="it is empty"):
        Options(api_key="")


def test_files_for_https_are_named_where_they_are_at_fault(tmp_path):
    (tmp_path / "a").write_text("text")
    with pytest.raises(UserError, match="a: holds no certificate"):
        check_tls(str(tmp_path / "a"), str(tmp_path / "b"))
    with pytest.raises(ConfigError, match="tls_key: is missing"):
        Options(tls_cert="a")


def test_signals_work_where_asyncio_has_none():
    class Windows(asyncio.SelectorEventLoop):
        def add_signal_handler(self, *_):
            raise NotImplementedError

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    loop = Windows()
    try:
        on_signals(loop, loop.stop)
        # Called as the interpreter does it: a signal that meets another thread of this process,
        # which has a compiler and other tests in it, could end them all.
        loop.call_soon(signal.getsignal(signal.SIGTERM), signal.SIGTERM, None)
        loop.call_later(60, pytest.fail)
        loop.run_forever()
    finally:
        loop.close()
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.slow
def test_a_server_stopped_while_it_compiles_ends_well(tmp_path):
    bundle = write_small(tmp_path / "bundle", "Toy_ML")
    server = start(bundle, tmp_path / "switches")
    server.wait_for("/health", 200)
    assert server.stop() == 0


@pytest.mark.slow
def test_a_server_waits_for_the_compiler_no_longer_than_for_answers(tmp_path):
    switches = tmp_path / "switches"
    switches.mkdir()
    (switches / "hold").touch()
    server = start(
        write_small(tmp_path / "bundle", "Toy_ML"), switches, drain_timeout_s=1, max_batch=1
    )
    wait((switches / "held").exists)
    assert server.stop() == 0
