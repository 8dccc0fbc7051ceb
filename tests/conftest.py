"""Set before JAX starts: tests run on the CPU, whatever the machine has."""

import os
import signal

os.environ.setdefault("JAX_PLATFORMS", "cpu")

# A shell without a terminal starts background jobs with Ctrl-C ignored, and their children too;
# tests that interrupt a process would then wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
