"""Arguments in, results and exceptions out, by pickle."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

from .wire import INLINE_RESULT

PROTOCOL = 5
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Numbers of an OSError that mean: no room now."""


class ResultError(Exception):
    """A result that cannot be pickled; the message names the task and the type (B44)."""


class NoRoomError(OSError):
    """The disk has no room for a result now; another try may find some."""


class _ArgumentUnpickler(pickle.Unpickler):
    """Replaces the persistent id `("task", id)` by the result of that task (B43)."""

    def __init__(self, file: BinaryIO, result_of: Callable[[int], Any]) -> None:
        super().__init__(file)
        self._result_of = result_of
        self._results: dict[int, Any] = {}

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) == 2 and pid[0] == "task"):
            raise pickle.UnpicklingError(f"unknown reference {pid!r} among the stored arguments")
        task = pid[1]
        if task not in self._results:
            self._results[task] = self._result_of(task)
        return self._results[task]


def load_arguments(file: BinaryIO, result_of: Callable[[int], Any]) -> dict[str, Any]:
    """Stored arguments with every task replaced by what `result_of` gives for its id (B43).

    A result that is named several times is asked for once and shared.
    """
    arguments = _ArgumentUnpickler(file, result_of).load()
    if not isinstance(arguments, dict):
        raise pickle.UnpicklingError(f"the stored arguments are a {type(arguments).__name__}, not a dict")
    return arguments


def read_arguments(path: str, inputs: Mapping[int, str]) -> dict[str, Any]:
    """The arguments in a file, with the results that lie in the files of `inputs`."""

    def result_of(task: int) -> Any:
        if task not in inputs:
            raise pickle.UnpicklingError(f"the result of task {task!r} was not handed over")
        with open(inputs[task], "rb") as result:
            return pickle.load(result)

    with open(path, "rb") as file:
        return load_arguments(file, result_of)


class ResultWriter(io.RawIOBase):
    """Collects a small result in memory and lets a larger one flow into a file."""

    def __init__(self, path: str, limit: int = INLINE_RESULT) -> None:
        super().__init__()
        self._path = path
        self._limit = limit
        self._memory = bytearray()
        self._file: io.BufferedWriter | None = None
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.size += len(view)
        with _room():
            if self._file is None and self.size > self._limit:
                self._file = open(self._path, "wb")  # noqa: SIM115 - lives until finish or discard
                self._file.write(self._memory)
                self._memory.clear()
            if self._file is None:
                self._memory += view
            else:
                self._file.write(view)
        return len(view)

    def finish(self) -> bytes | None:
        """The small result, or None when it is in the file, which is on the disk then."""
        if self._file is None:
            return bytes(self._memory)
        with _room():
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._file.close()
            folder = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return None

    def discard(self) -> None:
        """Drops what was written so far."""
        self._memory.clear()
        self.size = 0
        if self._file is not None:
            file, self._file = self._file, None
            try:
                # On a full disk closing fails once more, for what is still in its buffer.
                file.close()
            except OSError:
                file.raw.close()
            os.unlink(self._path)


@contextlib.contextmanager
def _room() -> Iterator[None]:
    """Tells a full disk from everything else that can go wrong with a file."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise NoRoomError(error.errno, os.strerror(error.errno or 0)) from None
        raise


def write_result(
    value: Any, path: str, *, task: str, wait: Callable[[int], bool] = lambda size: False
) -> tuple[bytes | None, int]:
    """Pickles a result: (bytes, size) up to 64 KiB, else (None, size) with the bytes in `path`.

    `cloudpickle` takes over where it is installed and pickle fails. When the disk is full, `wait` is
    asked, with the bytes written so far, whether to try again. Raises ResultError that says `task`,
    words that name it, and the type of its result.
    """
    while True:
        writer = ResultWriter(path)
        try:
            return _write_once(writer, value, task)
        except NoRoomError as error:
            size = writer.size
            writer.discard()
            if not wait(size):
                raise ResultError(
                    f"the result of {task} could not be written: the disk of the node is full, and {size} "
                    "bytes were not all of it; free space on the node, or return less"
                ) from error


def _write_once(writer: ResultWriter, value: Any, task: str) -> tuple[bytes | None, int]:
    try:
        pickle.Pickler(writer, PROTOCOL).dump(value)
        return writer.finish(), writer.size
    except NoRoomError:
        raise
    except OSError:
        writer.discard()
        raise
    except Exception as error:
        writer.discard()
        reason = error
    try:
        import cloudpickle

        cloudpickle.Pickler(writer, PROTOCOL).dump(value)
        return writer.finish(), writer.size
    except ImportError:
        pass
    except NoRoomError:
        raise
    except OSError:
        writer.discard()
        raise
    except Exception:
        writer.discard()
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise ResultError(
        f"the result of {task} cannot be pickled: it is a {kind} ({type(reason).__name__}: {reason}); "
        "return something that pickle can store"
    ) from reason


def pickle_exception(error: BaseException) -> bytes | None:
    """Pickle of an exception, None when it cannot be made or read back, or exceeds 64 KiB."""
    try:
        data = pickle.dumps(error, PROTOCOL)
        # Many exception classes pickle but fail to load: their __init__ takes other arguments.
        if len(data) > INLINE_RESULT or not isinstance(pickle.loads(data), BaseException):
            return None
    except Exception:
        return None
    return data
