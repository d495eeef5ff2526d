"""The way in: `python boot.py MODE ...`, started by path in the user's environment.

The folder of this file must not be on `sys.path` (its module names would shadow
the user's), and the package `datatailr` around it must not be imported (it
belongs to the user's environment). So the runner is registered by hand as a
package of its own, and its `state` also under the name by which the SDK asks for
it: there must be one set of switches in a process.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

PACKAGE = "opentailr_runner"
STATE = "datatailr.runner.state"


def register_package() -> None:
    """Makes the runner importable as the package `opentailr_runner`."""
    from importlib.util import module_from_spec, spec_from_file_location

    folder = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == folder:
        del sys.path[0]
    spec = spec_from_file_location(
        PACKAGE, os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"the runner cannot be loaded from {folder}")
    package = module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
    sys.modules[STATE] = import_module(PACKAGE + ".state")


def main(arguments: list[str]) -> None:
    """Runs one mode: `keeper CONFIG`, `stage CONTROL SPEC`, `attempt ORDER CHANNEL` or `sweep MARK...`."""
    register_package()
    mode, rest = arguments[0], arguments[1:]
    if mode == "keeper":
        import_module(PACKAGE + ".keeper").launch(rest[0])
    elif mode == "stage":
        import_module(PACKAGE + ".template").run_base(int(rest[0]), int(rest[1]))
    elif mode == "attempt":
        import_module(PACKAGE + ".child").run_fresh(int(rest[0]), int(rest[1]))
    elif mode == "sweep":
        raise SystemExit(0 if import_module(PACKAGE + ".procs").sweep(frozenset(rest)) else 1)
    else:
        raise SystemExit(f"unknown mode {mode!r}: expected keeper, stage, attempt or sweep")


if __name__ == "__main__":
    main(sys.argv[1:])
