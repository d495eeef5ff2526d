"""Which code is shipped (clauses B182 to B188): finding the package and listing its files."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datatailr.errors import BundleError, EmptyEntrypointBundleError
from datatailr.scheduler._reporting import warn_user

__all__ = ["BundleFile", "CodePackage", "list_files", "locate_package", "maximum_size"]

LIMIT_VARIABLE = "DATATAILR_MAX_BUNDLE_MB"
_DEFAULT_LIMIT_MB = 100
_SKIPPED_DIRECTORIES = frozenset(
    [
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "venv",
        "node_modules",
        "__pycache__",
        ".tox",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".cache",
        "dist",
        "build",
        ".eggs",
        ".idea",
        ".vscode",
    ]
)
_SKIPPED_FILES = frozenset([".env", ".DS_Store"])
_SHOWN_ENTRIES = 8


@dataclass(frozen=True)
class CodePackage:
    """The directory that is shipped for an entrypoint."""

    directory: Path
    """Absolute path of the package directory."""
    repository: Path
    """Git root above it, or its parent directory outside git (clause B183)."""
    in_git: bool
    top_level: bool
    """True for a module without package: the directory belongs on the import path (B176)."""

    @property
    def path_to_repo(self) -> str:
        """The repository as text."""
        return str(self.repository)

    @property
    def path_to_module(self) -> str:
        """The directory relative to the repository, `.` if equal."""
        return self.directory.relative_to(self.repository).as_posix()


@dataclass(frozen=True)
class BundleFile:
    """One file to ship."""

    path: Path
    name: str
    """Path within the package directory, with `/`."""
    size: int
    """Bytes at the time of listing."""
    executable: bool


def _git_root(directory: Path) -> Path | None:
    for candidate in (directory, *directory.parents):
        # in a linked work tree or a submodule .git is a file
        if (candidate / ".git").exists():
            return candidate
    return None


def package_of_directory(directory: Path, *, top_level: bool) -> CodePackage:
    """The package that consists of a directory."""
    directory = directory.resolve()
    root = _git_root(directory)
    return CodePackage(directory, root or directory.parent, in_git=root is not None, top_level=top_level)


def locate_package(module: str, file: Path) -> CodePackage:
    """The top-level package directory of a module (clause B182).

    Args:
        module: Dotted name under which the module is imported.
        file: Its source file.

    Raises:
        BundleError: the file does not lie where the dotted name says.
    """
    parts = module.split(".")
    path = file.resolve()
    is_package = path.name == "__init__.py" and (len(parts) == 1 or path.parent.name == parts[-1])
    if len(parts) == 1 and not is_package:
        return package_of_directory(path.parent, top_level=True)
    depth = len(parts) - 1 if is_package else len(parts) - 2
    directory = path.parents[depth] if depth < len(path.parents) else path.parent
    if directory.name != parts[0]:
        raise BundleError(
            f"module {module} is in {path}, which is not below a directory named {parts[0]}; "
            "lay the package out so that its folders carry the names of its dotted parts"
        )
    return package_of_directory(directory, top_level=False)


def maximum_size() -> int:
    """Limit of a packed directory in bytes: 100 MB, or DATATAILR_MAX_BUNDLE_MB megabytes.

    Raises:
        BundleError: the variable holds no positive whole number.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return _DEFAULT_LIMIT_MB * 1_000_000
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise BundleError(f"{LIMIT_VARIABLE} is {text!r}; it must be a whole number of megabytes")
    return int(text) * 1_000_000


def list_files(package: CodePackage) -> list[BundleFile]:
    """The files to ship, by name; as they are on disk now (clauses B184 to B188).

    Raises:
        BundleError: a home directory or the root of the file system, more than the limit, or git
            failed in a git work tree.
        EmptyEntrypointBundleError: no file is left.
    """
    directory = package.directory
    _refuse_broad_directory(directory)
    limit = maximum_size()
    found: dict[str, BundleFile] = {}
    total = 0
    names = _git_names(directory) if package.in_git else _plain_names(directory)
    for name in names:
        file = _bundle_file(directory, name)
        if file is None or name in found:
            continue
        found[name] = file
        total += file.size
        # The walk ends early: a directory that is far too large may hold millions of files.
        if total > 10 * limit:
            break
    if total > limit:
        raise BundleError(_too_large(directory, list(found.values()), total, limit))
    if not found:
        raise EmptyEntrypointBundleError(
            f"nothing to package in {directory}: every file is ignored or left out; "
            "check the .gitignore rules and that the entrypoint's file is in it"
        )
    return [found[name] for name in sorted(found)]


def _refuse_broad_directory(directory: Path) -> None:
    home = Path(os.path.expanduser("~")).resolve()
    if directory == Path(directory.anchor):
        kind = "the root of the file system"
    elif directory == home or directory in home.parents:
        kind = "a home directory" if directory == home else "a directory of home directories"
    elif directory.parent in (Path("/home"), Path("/Users")):
        kind = "a home directory"
    else:
        return
    try:
        entries = sorted(entry.name for entry in os.scandir(directory))
    except OSError:
        entries = []
    shown = ", ".join(entries[:_SHOWN_ENTRIES]) + (", …" if len(entries) > _SHOWN_ENTRIES else "")
    raise BundleError(
        f"refusing to package {directory}, {kind}: it would have shipped {len(entries)} entries ({shown}). "
        f"Move the code into a directory of its own, such as {directory / 'my_project'}, and run it there"
    )


def _too_large(directory: Path, files: list[BundleFile], total: int, limit: int) -> str:
    sizes: dict[str, int] = {}
    for file in files:
        head = file.name.split("/", 1)[0]
        sizes[head] = sizes.get(head, 0) + file.size
    largest = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN_ENTRIES]
    shown = ", ".join(f"{name} ({size / 1e6:.1f} MB)" for name, size in largest)
    return (
        f"refusing to package {directory}: it would have shipped {len(files)} files of {total / 1e6:.1f} MB, "
        f"more than the limit of {limit / 1e6:g} MB; the largest: {shown}. Keep data outside the package "
        f"directory, list it in .gitignore, or raise the limit with {LIMIT_VARIABLE} (in megabytes)"
    )


def _git_names(directory: Path, prefix: str = "") -> Iterator[str]:
    """Tracked and untracked files that are not ignored, also those of nested repositories."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "."]
    try:
        listed = subprocess.run(command, cwd=directory, capture_output=True, check=False)
    except OSError as error:
        raise BundleError(f"cannot list the files of the git work tree {directory}: git: {error}") from error
    if listed.returncode != 0:
        reason = listed.stderr.decode("utf-8", "replace").strip()
        raise BundleError(f"git cannot list the files of {directory}: {reason}")
    for raw in listed.stdout.split(b"\0"):
        name = os.fsdecode(raw).rstrip("/")
        if not name:
            continue
        parts = name.split("/")
        # Compiled files are made by running the code; shipping them would change every bundle.
        if "__pycache__" in parts:
            continue
        path = directory / name
        if path.is_dir() and not path.is_symlink():
            if (path / ".git").exists():
                yield from _git_names(path, f"{prefix}{name}/")
            continue
        yield prefix + name


def _plain_names(directory: Path) -> Iterator[str]:
    """All files outside git but those in directories of tools (clause B186)."""
    pending = [directory]
    while pending:
        current = pending.pop()
        try:
            entries = sorted(os.scandir(current), key=lambda entry: entry.name)
        except OSError as error:
            raise BundleError(f"cannot read {current}: {error}") from error
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in _SKIPPED_DIRECTORIES and not entry.name.endswith(".egg-info"):
                    pending.append(Path(entry.path))
            elif not (entry.is_symlink() and entry.name in _SKIPPED_DIRECTORIES):
                yield Path(entry.path).relative_to(directory).as_posix()


def _bundle_file(directory: Path, name: str) -> BundleFile | None:
    path = directory / name
    if path.name in _SKIPPED_FILES:
        return None
    try:
        if path.is_symlink():
            target = path.resolve()
            if target.is_dir():
                _skip(path, "a link to a directory")
                return None
            if not target.exists():
                _skip(path, "a broken link")
                return None
            if not target.is_relative_to(directory):
                _skip(path, "a link to a file outside the package directory")
                return None
        status = path.stat()
    except FileNotFoundError:
        return None  # tracked by git, deleted on disk
    except OSError as error:
        _skip(path, str(error))
        return None
    if not stat.S_ISREG(status.st_mode):
        _skip(path, "not a regular file")
        return None
    return BundleFile(path, name, status.st_size, executable=bool(status.st_mode & stat.S_IXUSR))


def _skip(path: Path, reason: str) -> None:
    warn_user(f"{path} is not packaged: {reason}")
