"""The stores of earlier releases, unpacked for a test."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STORES = sorted(Path(__file__).parent.glob("stores/*/store.tar.xz"))
RELEASES = [path.parent.name for path in STORES]


@dataclass(frozen=True)
class Unpacked:
    """A store in a folder of the test."""

    folder: Path
    facts: dict[str, Any]

    @property
    def database(self) -> Path:
        return self.folder / "data" / "controlplane" / "state.db"

    @property
    def journal(self) -> Path:
        return self.folder / "data" / "agent" / "journal.db"


def unpack(release: str, folder: Path) -> Unpacked:
    """Puts the data of a release below the folder, with the modes it had."""
    with tarfile.open(STORES[RELEASES.index(release)]) as archive:
        archive.extractall(folder, filter="fully_trusted")
    return Unpacked(folder, json.loads((folder / "facts.json").read_text(encoding="utf-8")))
