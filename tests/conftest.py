"""Set before JAX starts: tests run on the CPU, whatever the machine has."""

import logging
import os
import signal

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Servers of tests are on this machine, and no proxy leads there.
for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)

# A shell without a terminal starts background jobs with Ctrl-C ignored, and their children too;
# tests that interrupt a process would then wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def new_logger():
    """Commands that run in this process set up its logger; each test finds it as Python makes it.

    Fixtures of a module run before this one, so that what was there before is not enough.
    """
    logger = logging.getLogger("mlcls_jax")
    logger.propagate, logger.level, logger.handlers[:] = True, logging.NOTSET, []
