"""`python shortlease.py TIMES ARGUMENTS…`: a control plane whose leases are as short as TIMES (JSON) says.

Times are those of the core's settings, in seconds. Everything else is the real program; only so can a pause
"longer than the lease" be tried many times in a few minutes.
"""

from __future__ import annotations

import functools
import json
import sys

import opentailr_controlplane.engine as engine
from opentailr_controlplane.core.settings import CoreSettings
from opentailr_controlplane.core.values import SECOND
from opentailr_controlplane.server import main

if __name__ == "__main__":
    times = {name: int(seconds * SECOND) for name, seconds in json.loads(sys.argv[1]).items()}
    setattr(engine, "CoreSettings", functools.partial(CoreSettings, **times))  # noqa: B010
    sys.exit(main(sys.argv[2:]))
