"""Brings a database to the present schema at start; refuses one of the future.

All that is missing is done in one transaction: a process that is killed in the middle leaves the database as
it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event, inspect, text
from sqlalchemy.pool import NullPool

from .errors import NewerSchema

HEAD = "0006"
"""The newest migration. Named here too, so that a database that is up to date needs no Alembic at start."""

SCRIPTS = Path(__file__).parent / "migrations"


def known_schemas() -> set[str]:
    """The schemas that this release can bring to the present one, and that one itself."""
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory(str(SCRIPTS)).walk_revisions()}


def migrate(path: Path) -> None:
    """Upgrades the SQLite database at `path`, making it if it does not exist.

    Raises:
        NewerSchema: it was written by a newer version.
    """
    engine = create_engine(f"sqlite:///{path}", poolclass=NullPool)
    event.listen(engine, "connect", _leave_transactions_to_us)
    event.listen(engine, "begin", _begin)
    try:
        with engine.begin() as connection:
            if inspect(connection).has_table("alembic_version"):
                found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
                if found == HEAD:
                    return
            else:
                found = None
            from alembic import command
            from alembic.config import Config

            config = Config()
            config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
            if found is not None and found not in known_schemas():
                raise NewerSchema(
                    f"{path} was written by a newer version of the program (schema {found}, this version "
                    f"knows up to {HEAD}). Use that version, or another data directory."
                )
            config.attributes["connection"] = connection
            command.upgrade(config, HEAD)
    finally:
        engine.dispose()


def _leave_transactions_to_us(connection: Any, _record: Any) -> None:
    # By itself the driver begins none before a change of the schema, so that each would stand alone.
    connection.isolation_level = None


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
