"""A process with the manners of an agent as `datatailr up` sees them; starts one `keeper`.

The keeper is a process in a session of its own that outlives it, as the real one does. See the
control plane's stand-in for failures.
"""

from __future__ import annotations

import sys

from stand_in import serve

serve("agent", sys.argv[1:])
