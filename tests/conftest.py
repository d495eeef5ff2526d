"""What every test may rely on."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    # A shell that starts the tests in the background leaves them SIGINT ignored, and so everything
    # they start; programs that are to be interrupted must find it as a terminal would leave it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
