"""What is left of the files that output goes to."""

from __future__ import annotations

from pathlib import Path

import pytest

from datatailr.runner.spools import has_open_line


@pytest.mark.clause("B267")
@pytest.mark.parametrize(
    ("content", "is_open"),
    [(b"", False), (b"a line\n", False), (b"\n", False), (b"a line\nhalf", True), (b"50 %\r", True)],
)
def test_a_last_line_without_an_end_is_seen(tmp_path: Path, content: bytes, is_open: bool) -> None:
    file = tmp_path / "stdout"
    file.write_bytes(content)
    assert has_open_line(str(file)) is is_open


def test_a_file_that_cannot_be_read_has_no_open_line(tmp_path: Path) -> None:
    assert not has_open_line(str(tmp_path / "absent"))
    assert not has_open_line(str(tmp_path))
