"""How soon an agent dials again: a control plane on the same machine is back within a second or two."""

from __future__ import annotations

import pytest

from opentailr_agent.session import CHANNEL_OPTIONS, NEAR_OPTIONS, is_loopback


@pytest.mark.parametrize("address", ["127.0.0.1:7071", "localhost:7071", "[::1]:7071", "127.8.8.8:1"])
def test_the_own_machine_is_known_by_its_address(address: str) -> None:
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address", ["10.0.0.1:7071", "host.example:7071", "[fe80::1]:7071", "localhost.example:1"]
)
def test_other_machines_are_dialled_with_longer_pauses(address: str) -> None:
    assert not is_loopback(address)


def test_the_channel_adds_no_long_pause_of_its_own() -> None:
    assert (
        NEAR_OPTIONS["grpc.max_reconnect_backoff_ms"]
        < CHANNEL_OPTIONS["grpc.max_reconnect_backoff_ms"]
        <= 1000
    )
    assert CHANNEL_OPTIONS["grpc.initial_reconnect_backoff_ms"] <= 100
