"""The runtime for plain processes: keepers in the environments of the user's code.

Everything that matters outlives this object: keepers run in sessions of their
own, their folders say what they did, and a new instance over the same folder
finds both again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from opentailr_agent.ports import (
    Adopted,
    AttemptOrder,
    Ended,
    EndState,
    Failure,
    Outcome,
    RuntimeEvent,
    Started,
)
from opentailr_agent.runtimes.keeper_files import (
    RUNNER_FILE,
    Identity,
    Leavings,
    Message,
    environment_for_keeper,
    mark,
    order_message,
    outcome_of,
    runner_digest,
    runner_of,
)
from opentailr_agent.runtimes.keeper_link import KeeperGone, KeeperLink

LAUNCH_SECONDS = 60.0
CLOSE_SECONDS = 5.0
"""What a keeper may take beyond the grace of its attempts when it is told to end."""
STOP_GRACE = 3.0
"""Seconds between the request to end and the kill when the runtime is closed with its attempts."""
TRIES = 3

logger = logging.getLogger(__name__)


class ProcessRuntime:
    """Runs attempts as processes of this machine, one keeper per environment."""

    name = "process"

    def __init__(
        self,
        folder: Path,
        *,
        idle_seconds: float = 300.0,
        sample_seconds: float = 0.05,
        max_bases: int = 3,
        max_prepared: int = 8,
    ) -> None:
        """Keepers live in `folder`, which belongs to this runtime alone.

        A keeper without work ends after `idle_seconds`; memory is looked at every
        `sample_seconds`; a keeper holds at most `max_bases` interpreters with foreign modules
        and `max_prepared` with the user's, least recently used out.
        """
        self._folder = folder
        self._settings = {
            "idle_seconds": idle_seconds,
            "sample_seconds": sample_seconds,
            "max_bases": max_bases,
            "max_prepared": max_prepared,
        }
        self._boot = _runner_boot()
        self._runner = runner_digest(self._boot)
        self._links: dict[str, KeeperLink] = {}
        """Living keepers by image key."""
        self._older: set[KeeperLink] = set()
        """Living keepers that were found beside the one in `_links`; they get no new orders."""
        self._places: dict[str, KeeperLink] = {}
        """Where an attempt was started or found, until it is removed."""
        self._folders: dict[str, Path] = {}
        self._discarded: set[str] = set()
        """Attempts that a keeper had and the journal did not."""
        self._left: dict[Path, set[str]] = {}
        """Folders of dead keepers and the outcomes in them that still count."""
        self._launching: dict[str, asyncio.Lock] = {}
        self._events: asyncio.Queue[RuntimeEvent | None] = asyncio.Queue()
        self._closing = False

    # The port ----------------------------------------------------------------

    async def start(self, order: AttemptOrder) -> None:
        """See `Runtime.start`. An attempt that another keeper ran before ends LOST, never twice."""
        if order.attempt_id in self._places:
            return
        message = order_message(order)
        for _ in range(TRIES):
            link = await self._keeper(order)
            self._places[order.attempt_id] = link
            self._folders[order.attempt_id] = order.folder
            link.live.add(order.attempt_id)
            try:
                answer = await link.start(message)
            except KeeperGone:
                if order.attempt_id in Leavings.read(link.folder).accepted:
                    return
                self._forget(order.attempt_id, link)
                continue
            if answer["op"] == "accepted":
                return
            self._forget(order.attempt_id, link)
            if answer["reason"] == "error":
                raise RuntimeError(f"attempt {order.attempt_id} cannot be started: {answer['error']}")
            if answer["reason"] == "started before":
                self._events.put_nowait(
                    Ended(_lost(order.attempt_id, "it was started before, by a keeper that is gone"))
                )
                return
            await self._retire(link)
        raise RuntimeError(f"attempt {order.attempt_id} cannot be started: its keeper ends again and again")

    async def stop(self, attempt_id: str, grace_seconds: float) -> None:
        """See `Runtime.stop`."""
        link = self._places.get(attempt_id)
        if link is not None:
            link.tell({"op": "stop", "id": attempt_id, "grace": grace_seconds})

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        """See `Runtime.events`; ends when the runtime is closed and all events are taken."""
        while (event := await self._events.get()) is not None:
            yield event

    async def adopt(self, attempts: Mapping[str, Path]) -> Sequence[Adopted]:
        """See `Runtime.adopt`. What keepers run beyond the given attempts is ended."""
        found: dict[str, Adopted] = {}
        self._folders.update(attempts)
        self._folder.mkdir(parents=True, exist_ok=True)
        known = {link.folder for link in (*self._links.values(), *self._older)} | self._left.keys()
        for folder in sorted(path for path in self._folder.iterdir() if path.is_dir() and path not in known):
            identity = Identity.read(folder)
            if identity is not None and identity.alive():
                try:
                    await self._adopt_keeper(folder, identity, attempts, found)
                    continue
                except KeeperGone:
                    await _kill_keeper(identity)
            await self._read_leavings(folder, attempts, found)
        return list(found.values())

    async def remove(self, attempt_id: str) -> None:
        """See `Runtime.remove`."""
        link = self._places.pop(attempt_id, None)
        self._folders.pop(attempt_id, None)
        if link is not None:
            link.tell({"op": "acknowledge", "id": attempt_id})
        for folder in [folder for folder, left in self._left.items() if attempt_id in left]:
            self._left[folder].discard(attempt_id)
            self._drop_leavings(folder)

    async def close(self, *, stop_attempts: bool) -> None:
        """See `Runtime.close`. With `stop_attempts` it returns when the keepers are gone."""
        self._closing = True
        links = [*self._links.values(), *self._older]
        if stop_attempts:
            for link in links:
                link.tell({"op": "shutdown", "grace": STOP_GRACE})
            await asyncio.gather(*(self._await_end(link) for link in links))
        for link in links:
            await link.close()
        self._links.clear()
        self._older.clear()
        self._events.put_nowait(None)

    # Keepers -------------------------------------------------------------------

    async def _keeper(self, order: AttemptOrder) -> KeeperLink:
        """The living keeper of the order's environment, started if there is none."""
        if self._closing:
            raise RuntimeError("the runtime is closing and starts nothing")
        lock = self._launching.setdefault(order.image_key, asyncio.Lock())
        async with lock:
            link = self._links.get(order.image_key)
            if link is None or not link.usable:
                link = await self._launch(order)
            return link

    async def _launch(self, order: AttemptOrder) -> KeeperLink:
        self._folder.mkdir(parents=True, exist_ok=True)
        folder = self._folder / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        config = folder / "config.json"
        config.write_text(json.dumps({"folder": str(folder), "image_key": order.image_key, **self._settings}))
        (folder / RUNNER_FILE).write_text(self._runner)
        log = os.open(folder / "keeper.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                str(order.python),
                # Isolated and without site: a requirement's start-up hooks must not run in the keeper.
                *("-I", "-S", str(self._boot), "keeper", str(config)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment_for_keeper(),
                start_new_session=True,
            )
            code = await _end_of(process, LAUNCH_SECONDS)
        finally:
            os.close(log)
        identity = Identity.read(folder)
        if code != 0 or identity is None:
            said = (folder / "keeper.log").read_text(errors="replace")[-2000:]
            shutil.rmtree(folder, ignore_errors=True)
            raise RuntimeError(f"no keeper could be started with {order.python} (exit code {code}): {said}")
        link = self._link(folder, identity)
        await link.open()
        self._links[order.image_key] = link
        link.start_reading()
        return link

    def _link(self, folder: Path, identity: Identity) -> KeeperLink:
        return KeeperLink(folder, identity, on_message=self._on_message, on_end=self._on_end)

    def _on_message(self, link: KeeperLink, message: Message) -> None:
        if message["op"] == "started" and message["id"] not in self._discarded:
            self._events.put_nowait(Started(message["id"], message["pid"], message["started_at"]))
        elif message["op"] == "ended":
            self._on_ended(link, outcome_of(message["outcome"]))

    def _on_ended(self, link: KeeperLink, outcome: Outcome) -> None:
        link.live.discard(outcome.attempt_id)
        if outcome.attempt_id in self._discarded:
            self._discarded.discard(outcome.attempt_id)
            link.tell({"op": "acknowledge", "id": outcome.attempt_id})
        else:
            self._events.put_nowait(Ended(outcome))

    async def _on_end(self, link: KeeperLink) -> None:
        """The connection ended: takes it up again, or settles what the dead keeper left."""
        if not link.dead.is_set():
            try:
                await asyncio.wait_for(link.dead.wait(), CLOSE_SECONDS)
            except TimeoutError:
                if not await self._reconnect(link):
                    await _kill_keeper(link.identity)
        if link.usable or self._replaced(link):
            return
        self._links = {key: other for key, other in self._links.items() if other is not link}
        self._older.discard(link)
        leavings = Leavings.read(link.folder)
        lost = set(link.live)
        link.live.clear()
        if lost:
            logger.warning("the keeper %d died with %d attempts", link.identity.pid, len(lost))
        known = lost & self._folders.keys()
        marks = leavings.unswept() | {mark(name, self._folders[name]) for name in known}
        await self._sweep(marks)
        for name in sorted(lost & leavings.accepted.keys()):
            if name not in self._discarded:
                outcome = leavings.outcomes.get(name) or _lost(name, "its keeper died")
                self._events.put_nowait(Ended(outcome))
        self._left[link.folder] = (leavings.outcomes.keys() - leavings.acknowledged) & self._folders.keys()
        self._drop_leavings(link.folder)
        await link.close()

    def _replaced(self, link: KeeperLink) -> bool:
        others = [*self._links.values(), *self._older]
        return any(other is not link and other.folder == link.folder for other in others)

    async def _reconnect(self, link: KeeperLink) -> bool:
        """Connects again to a keeper that lives but has cut the connection."""
        again = self._link(link.folder, link.identity)
        try:
            welcome = await again.open()
        except KeeperGone:
            return False
        again.live = set(link.live)
        for name, place in list(self._places.items()):
            if place is link:
                self._places[name] = again
        if self._links.get(link.image_key) is link:
            self._links[link.image_key] = again
        else:
            self._older.discard(link)
            self._older.add(again)
        for message in welcome["ended"]:
            if message["id"] in again.live:
                self._on_ended(again, outcome_of(message))
        again.start_reading()
        await link.close()
        return True

    async def _retire(self, link: KeeperLink) -> None:
        """A keeper that takes no orders any more lives on only for what it still runs."""
        if self._links.get(link.image_key) is link:
            del self._links[link.image_key]
            if link.usable:
                self._older.add(link)

    async def _await_end(self, link: KeeperLink) -> None:
        try:
            await asyncio.wait_for(link.dead.wait(), STOP_GRACE + CLOSE_SECONDS)
        except TimeoutError:
            await _kill_keeper(link.identity)
        # The last words of the keeper are read before its connection is closed.
        if link.reading is not None:
            await asyncio.wait([link.reading], timeout=CLOSE_SECONDS)

    # Restart -------------------------------------------------------------------

    async def _adopt_keeper(
        self, folder: Path, identity: Identity, attempts: Mapping[str, Path], found: dict[str, Adopted]
    ) -> None:
        link = self._link(folder, identity)
        welcome = await link.open()
        # A keeper of another release goes on with what it has. It gets no new order: the interpreters that
        # it would prepare for it come from the files of this release and would not understand it.
        if identity.image_key in self._links or runner_of(folder) != self._runner:
            self._older.add(link)
        else:
            self._links[identity.image_key] = link
        for running in welcome["running"]:
            name = running["id"]
            self._places[name] = link
            link.live.add(name)
            if name in attempts:
                found[name] = Adopted(name, running=True, pid=running["pid"] or None)
            else:
                self._discarded.add(name)
                link.tell({"op": "stop", "id": name, "grace": 0.0})
        for message in welcome["ended"]:
            name = message["id"]
            if name in attempts:
                self._places[name] = link
                found[name] = Adopted(name, running=False, outcome=outcome_of(message))
            else:
                link.tell({"op": "acknowledge", "id": name})
        link.start_reading()

    async def _read_leavings(
        self, folder: Path, attempts: Mapping[str, Path], found: dict[str, Adopted]
    ) -> None:
        leavings = Leavings.read(folder)
        await self._sweep(leavings.unswept())
        for name, outcome in leavings.outcomes.items():
            if name in attempts and name not in found:
                found[name] = Adopted(name, running=False, outcome=outcome)
        self._left[folder] = leavings.outcomes.keys() & attempts.keys()
        self._drop_leavings(folder)

    def _drop_leavings(self, folder: Path) -> None:
        if not self._left[folder]:
            del self._left[folder]
            shutil.rmtree(folder, ignore_errors=True)

    def _forget(self, attempt_id: str, link: KeeperLink) -> None:
        self._places.pop(attempt_id, None)
        self._folders.pop(attempt_id, None)
        link.live.discard(attempt_id)

    async def _sweep(self, marks: Iterable[str]) -> None:
        """Kills the processes that carry one of the marks, in a process of its own: it takes a while."""
        wanted = sorted(marks)
        if not wanted:
            return
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(self._boot), "sweep", *wanted, stdin=asyncio.subprocess.DEVNULL
        )
        await process.wait()


async def _end_of(process: asyncio.subprocess.Process, seconds: float) -> int:
    """Exit code of a process, which is killed when it takes too long or nobody waits any more."""
    try:
        return await asyncio.wait_for(process.wait(), seconds)
    except BaseException:
        if process.returncode is None:
            process.kill()
            await process.wait()

        raise


def _runner_boot() -> Path:
    """The runner's way in; it is started by path and never imported here."""
    spec = find_spec("datatailr")
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        boot = Path(location) / "runner" / "boot.py"
        if boot.is_file():
            return boot
    raise RuntimeError("the package datatailr with its runner is not installed beside the agent")


def _lost(attempt_id: str, reason: str) -> Outcome:
    return Outcome(attempt_id, EndState.LOST, failure=Failure("lost", f"the outcome is unknown: {reason}"))


async def _kill_keeper(identity: Identity) -> None:
    """Ends a keeper that does not answer; its prepared interpreters end with it."""
    if identity.alive():
        os.kill(identity.pid, signal.SIGKILL)
        while identity.alive():  # noqa: ASYNC110 - no event tells of a stranger's end
            await asyncio.sleep(0.005)
