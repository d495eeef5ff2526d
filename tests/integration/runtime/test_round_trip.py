from __future__ import annotations

import pytest
from conftest import Bench, stderr, stdout, value

pytestmark = pytest.mark.timeout(60)


async def test_a_function_gets_its_arguments_and_returns_its_result(bench: Bench) -> None:
    outcome, order = await bench.call(
        "def task(a, b=2):\n    print('hello', a)\n    return a + b", arguments={"a": 3, "b": 4}
    )
    assert value(outcome) == 7
    assert "hello 3" in stdout(order), stderr(order)
