"""Set before JAX starts: tests run on the CPU, whatever there is, with caches of their own."""

import gc
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Most programs of tests run once or twice: compiled in half the time, they need not be fast. CI
# compiles as usual for the slow tests.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# One folder per session, which pytest-xdist's workers and the processes that tests start inherit:
# each program is compiled once, and nothing is written to the user's caches.
IS_FIRST_PROCESS = "MLCLS_TEST_FOLDER" not in os.environ
if IS_FIRST_PROCESS:
    os.environ["MLCLS_TEST_FOLDER"] = tempfile.mkdtemp(prefix="mlcls_tests_")
FOLDER = Path(os.environ["MLCLS_TEST_FOLDER"])
os.environ["XDG_CACHE_HOME"] = str(FOLDER / "cache")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(FOLDER / "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# A busy machine is no fault of what is tested.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any")

# Calls of what computes are held to their annotations, shapes included; those in processes that
# tests start are not. With the tower of numbers, a float may be given as 1.
ARITHMETIC = """
losses metrics training.distill training.loss training.mixing training.parts training.step
models.backbones models.chain models.classifier models.csra models.dropout models.inverted_residual
models.kernels models.layers models.ml_decoder models.network models.norms models.pixels
models.positions models.query2label models.residual
"""
jaxtyping.install_import_hook(
    [f"mlcls_jax.{module}" for module in ARITHMETIC.split()],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

# Servers of tests are on this machine, and no proxy leads there.
for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)

# A shell without a terminal starts background jobs with Ctrl-C ignored, and their children too;
# tests that interrupt a process would then wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Looking for cycles among all that tests import and trace takes a fifth of their time. So there is
# none while tests are collected, what is there then is left out for good, the rest is seen rarely.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    gc.enable()


def pytest_unconfigure() -> None:
    if IS_FIRST_PROCESS:
        shutil.rmtree(FOLDER, ignore_errors=True)


@pytest.fixture(autouse=True)
def new_logger():
    """Commands that run in this process set up its logger; each test finds it as Python makes it.

    Fixtures of a module run before this one, so that what was there before is not enough.
    """
    logger = logging.getLogger("mlcls_jax")
    logger.propagate, logger.level, logger.handlers[:] = True, logging.NOTSET, []


@pytest.fixture(scope="module")
def toy() -> Iterator[None]:
    """Have two small models besides: the backbone of tests, which is one line, and a CLIP."""
    from mlcls_jax.models import registry
    from tests.helpers import tiny_vit, toy_backbone

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.FAMILIES, "Toy", toy_backbone.FAMILY)
        tiny_vit.register(patch, "CLIP")
        yield


@pytest.fixture(scope="module")
def compiled_once() -> None:
    """Keep what runs compile in the folder of the session, for the next run of the same kind."""
    from mlcls_jax.start import start_jax

    start_jax(cache=True)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Let wrong arrays reach functions whose annotations are checked, as users' do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
