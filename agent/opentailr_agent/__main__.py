"""`python -m opentailr_agent`: exit codes 0 clean, 2 bad configuration, 3 data directory in use,
4 written by a newer version; the reason as one line on stderr."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import structlog

from opentailr_agent.agent import run_agent
from opentailr_agent.config import ConfigError, load
from opentailr_agent.datadir import DataDirBusyError, DataDirError, DataDirNewerError
from opentailr_agent.journal import NewerJournalError


def main() -> int:
    """Runs the agent; returns the exit code."""
    # Whatever the data directory is like: what lies in it is for nobody else's eyes.
    os.umask(0o077)
    _configure_log()

    try:
        asyncio.run(run_agent(load()))
    except DataDirBusyError as error:
        return _say(error, 3)
    except (DataDirNewerError, NewerJournalError) as error:
        return _say(error, 4)
    except (ConfigError, DataDirError) as error:
        return _say(error, 2)

    return 0


def _say(error: Exception, code: int) -> int:
    sys.stderr.write(f"opentailr_agent: {error}\n")
    return code


def _configure_log() -> None:
    wanted = os.environ.get("OPENTAILR_LOG_LEVEL", "info").upper()
    level = logging.getLevelNamesMapping().get(wanted, logging.INFO)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
