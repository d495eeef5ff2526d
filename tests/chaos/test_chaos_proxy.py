"""The proxy itself, and every fault of the network alone, with a run in the middle."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pytest

from .conftest import MakeSession
from .proxy import DOWN, UP, Proxy
from .scenes import grown_up, steady, under
from .session import Session
from .world import SHORT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Echo:
    """A server that sends back what it gets."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                self._threads.append(threading.Thread(target=self._echo, args=(self._listener.accept()[0],)))
                self._threads[-1].start()

    def _echo(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            while data := peer.recv(65536):
                peer.sendall(data)

    def close(self) -> None:
        # Closing alone does not wake a thread that accepts.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    echo = Echo()
    with Proxy("127.0.0.1", echo.port) as running:
        yield running
    echo.close()


def dial(proxy: Proxy) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    link.sendall(b"hello")
    assert link.recv(5) == b"hello"
    return link


def silent(link: socket.socket) -> bool:
    """Nothing comes, and nothing ends."""
    link.settimeout(0.3)
    try:
        link.recv(1)
    except TimeoutError:
        return True
    finally:
        link.settimeout(5)
    return False


def test_reset_and_fin_differ(proxy: Proxy) -> None:
    with dial(proxy) as link:
        assert proxy.cut(reset=True) == 1
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    with dial(proxy) as link:
        assert proxy.cut(reset=False) == 1
        assert link.recv(1) == b""
    dial(proxy).close()


def test_refused_connections_and_the_port_kept(proxy: Proxy) -> None:
    with dial(proxy) as link:
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            link.recv(1)
        with pytest.raises(ConnectionRefusedError):
            dial(proxy)
    proxy.heal()
    dial(proxy).close()


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_held_direction_delivers_later_and_loses_nothing(proxy: Proxy, direction: str) -> None:
    with dial(proxy) as link:
        proxy.hold(direction)
        link.sendall(b"waits")
        assert silent(link)
        assert proxy.carried(UP) == (5 if direction == UP else 10)
        proxy.heal()
        assert link.recv(5) == b"waits"


def test_a_throttled_connection_is_slow_and_whole(proxy: Proxy) -> None:
    sent = bytes(range(256)) * 40
    with dial(proxy) as link:
        proxy.throttle(20_000, UP)
        began = time.monotonic()
        link.sendall(sent)
        got = b""
        while len(got) < len(sent):
            got += link.recv(65536)
        assert got == sent
        # A lower bound only: a busy machine makes it slower, nothing makes it quicker.
        assert time.monotonic() - began > 0.3


def test_a_delayed_chunk_comes_late(proxy: Proxy) -> None:
    with dial(proxy) as link:
        proxy.delay(0.2, DOWN)
        began = time.monotonic()
        link.sendall(b"later")
        assert link.recv(5) == b"later"
        assert time.monotonic() - began > 0.19


NETWORK: dict[str, Callable[[Session], None]] = {
    "reset": lambda s: s.faults.cut(s.world.nodes[0], reset=True),
    "fin": lambda s: s.faults.cut(s.world.nodes[0], reset=False),
    "refuse": lambda s: s.faults.refuse(s.world.nodes[0], 2),
    "hold-up": lambda s: s.faults.hold(s.world.nodes[0], 2, UP),
    "hold-down": lambda s: s.faults.hold(s.world.nodes[0], 2, DOWN),
    "hold-both": lambda s: s.faults.hold(s.world.nodes[0], 2),
    "throttle": lambda s: s.faults.throttle(s.world.nodes[0], 4, rate=24_000),
    "delay": lambda s: s.faults.delay(s.world.nodes[0], 4, each=0.3),
}


def test_each_fault_of_the_network_alone(make_session: MakeSession) -> None:
    session = make_session()
    for name, fault in NETWORK.items():
        under(session, steady(f"network {name}"), fault)
    assert_kept(session)


def test_half_open_links_longer_than_the_lease(make_session: MakeSession) -> None:
    session = make_session(agents=4, leases=SHORT, slots=4)
    span = session.world.leases.deadly

    def all_at_once(session: Session) -> None:
        ways: tuple[tuple[str, ...], ...] = ((UP,), (DOWN,), (UP, DOWN))
        holds = [
            session.beside(partial(session.faults.hold, node, span, *directions))
            for node, directions in zip(session.world.nodes, ways)
        ]
        for hold in holds:
            hold.join()

    grown_up(session)
    # The fourth agent is well: what the others are lost with is done there.
    record = under(session, steady("half open", chains=12, seconds=1), all_at_once, seconds=90)
    assert any(task.tried_to_start_time > 1 for task in record.tasks.values()), session.story()
    assert_kept(session)


def assert_kept(session: Session) -> None:
    found = session.finish()
    assert not found, "\n".join([*found, session.story()])
