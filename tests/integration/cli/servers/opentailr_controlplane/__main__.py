"""A process with the manners of a control plane as `datatailr up` sees them, and nothing behind.

`STAND_IN_FAILURES` may name a file with lines `controlplane WHAT`; WHAT is `exit:CODE` (end at once
with a reason), `deaf` (does not end at SIGTERM). The line is used up when it was read.
"""

from __future__ import annotations

import sys

from stand_in import serve

serve("controlplane", sys.argv[1:])
