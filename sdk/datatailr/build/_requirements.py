"""Requirements as text, and what the code imports without requiring it (clauses B171, B172, B181)."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datatailr.build._project import project_dependencies

__all__ = ["existing_file", "freeze", "missing_packages", "requirement_names", "requirements_text"]

_OWN_NAMES = frozenset(["datatailr", "dt", "opentailr"])
_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[|[<>=!~;@]|$|\s)")
_EGG = re.compile(r"[#&]egg=([A-Za-z0-9._-]+)")
# Distributions whose import name tells nothing of them; the machine that deploys need not have them
# installed, so metadata cannot always say it. Several, where several provide the name.
_WELL_KNOWN = {
    "attr": ("attrs",),
    "bs4": ("beautifulsoup4",),
    "cv2": (
        *("opencv-python", "opencv-python-headless"),
        *("opencv-contrib-python", "opencv-contrib-python-headless"),
    ),
    "Crypto": ("pycryptodome", "pycrypto"),
    "dateutil": ("python-dateutil",),
    "docx": ("python-docx",),
    "dotenv": ("python-dotenv",),
    "faiss": ("faiss-cpu", "faiss-gpu"),
    "fitz": ("pymupdf",),
    "git": ("gitpython",),
    "grpc": ("grpcio",),
    "jose": ("python-jose",),
    "jwt": ("pyjwt",),
    "ldap": ("python-ldap",),
    "magic": ("python-magic",),
    "MySQLdb": ("mysqlclient",),
    "OpenSSL": ("pyopenssl",),
    "PIL": ("pillow",),
    "pkg_resources": ("setuptools",),
    "pptx": ("python-pptx",),
    "psycopg2": ("psycopg2-binary",),
    "serial": ("pyserial",),
    "skimage": ("scikit-image",),
    "sklearn": ("scikit-learn",),
    "slugify": ("python-slugify",),
    "snowflake": ("snowflake-connector-python", "snowflake-snowpark-python"),
    "umap": ("umap-learn",),
    "usb": ("pyusb",),
    "win32api": ("pywin32",),
    "yaml": ("pyyaml",),
    "zmq": ("pyzmq",),
}
# A name longer than this is no file name, and asking the system about it would be an error.
_LONGEST_PATH = 4096


def existing_file(text: str) -> Path | None:
    """The file that a text names, None when it is no name of an existing file."""
    name = text.strip()
    if not name or "\n" in name or "\0" in name or len(name) > _LONGEST_PATH:
        return None
    return Path(name) if os.path.isfile(name) else None


def requirements_text(value: object) -> str:
    """Newline-separated requirements (clause B171); "auto" is resolved by the image, not here.

    Raises:
        TypeError: neither text nor a list of texts.
    """
    if isinstance(value, list | tuple):
        for entry in value:
            if not isinstance(entry, str):
                raise TypeError(f"python_requirements holds {entry!r}; every entry must be a text")
        return "\n".join(value)
    if not isinstance(value, str):
        raise TypeError(f"python_requirements is {value!r}; it must be a text or a list of texts")
    file = existing_file(value)
    if file is not None:
        if file.name == "pyproject.toml":
            return project_dependencies(file) or ""
        return file.read_text(encoding="utf-8-sig")
    if value.strip().endswith(".txt") and "\n" not in value:
        warnings.warn(
            f"python_requirements names the file {value.strip()!r}, which does not exist; "
            "no requirements are installed",
            UserWarning,
            stacklevel=2,
        )
        return ""
    if "," in value:
        return "\n".join(part.strip() for part in value.split(","))
    return value


def freeze() -> str:
    """The packages of this interpreter as `name==version` lines, sorted.

    Left out are this SDK, installers, and packages that were installed from a local directory or
    file, which another machine could not install.
    """
    from importlib import metadata

    lines: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if not name or normalized(name) in _OWN_NAMES | {"pip", "setuptools", "wheel"}:
            continue
        origin = distribution.read_text("direct_url.json")
        if origin and '"file:' in origin.replace(" ", ""):
            continue
        # the first one found is the one that would be imported
        lines.setdefault(normalized(name), f"{name}=={distribution.version}")
    return "\n".join(lines[key] for key in sorted(lines))


def normalized(name: str) -> str:
    """A distribution's name for comparison: without case, `-`, `_` and `.` alike."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_names(text: str) -> set[str]:
    """Normalised names of the distributions that requirement lines name."""
    found: set[str] = set()
    for line in text.splitlines():
        line = line.split(" #")[0].strip()
        egg = _EGG.search(line)
        match = _NAME.match(line)
        if egg:
            found.add(normalized(egg[1]))
        elif match and "://" not in line.split("@")[0]:
            found.add(normalized(match[1]))
    return found


def missing_packages(imports: Iterable[str], requirements: str, own: Iterable[str]) -> list[str]:
    """Imported names that nothing provides, sorted (clause B181).

    Args:
        imports: Top-level names that the code imports.
        requirements: Newline-separated requirements.
        own: Names that the packaged code itself provides.
    """
    provided = {*sys.stdlib_module_names, *_OWN_NAMES, *own}
    candidates = sorted({name for name in imports if name not in provided})
    listed = requirement_names(requirements)
    candidates = [name for name in candidates if not {normalized(name), *_WELL_KNOWN.get(name, ())} & listed]
    if not candidates:
        return []
    providers = _providers()
    missing: list[str] = []
    for name in candidates:
        distributions = providers.get(name, [])
        if not any(normalized(distribution) in listed for distribution in distributions):
            missing.append(name)
    return missing


def _providers() -> dict[str, Any]:
    """Import names to distributions; read only when a name needs it, as it opens many files."""
    from importlib import metadata

    return dict(metadata.packages_distributions())
