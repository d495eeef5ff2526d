from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datatailr.runner import wire

MESSAGES = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=50) | st.integers()), max_size=8)


@given(MESSAGES, st.integers(1, 40))
def test_messages_come_back_however_the_stream_is_cut(messages: list[wire.Message], step: int) -> None:
    data = b"".join(map(wire.pack, messages))
    reader = wire.FrameReader()
    found = [m for start in range(0, len(data), step) for m in reader.feed(data[start : start + step])]
    assert found == messages


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x01x"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(wire.FrameError):
        wire.FrameReader().feed(data)


def test_memory_files_carry_any_text() -> None:
    message = {"a": "\udcff é", "n": [1, None], "long": "x" * 1_000_000}
    assert wire.from_memory(wire.to_memory(message)) == message
