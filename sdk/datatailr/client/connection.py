"""One server, one channel, and the one wrapper that makes every call.

A `Connection` may be used from any thread. It survives a fork: the child makes a channel of its
own at the first call, because a channel's threads exist only in the process that made it.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

# The C core reports each broken connection on stderr by itself; our exceptions say it better.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from datatailr.client import trace
from datatailr.client.status import PROTOCOL_KEY, PROTOCOL_VERSION, status_of, to_exception
from datatailr.v1 import (
    identity_pb2_grpc,
    image_pb2_grpc,
    job_pb2_grpc,
    log_pb2_grpc,
    node_pb2_grpc,
    object_pb2_grpc,
    run_pb2_grpc,
)

Request = TypeVar("Request")
Response = TypeVar("Response")

_CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A peer that vanished without a word is noticed after some 30 s while calls are open.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Coming back after a restart of the server should not wait for a long back-off.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # How long a peer may take to prove that it speaks HTTP/2.
    ("grpc.min_reconnect_backoff_ms", 3_000),
    # Jobs may run with an http_proxy that is meant for their own traffic, not for this channel.
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True)
class RetryPolicy:
    """When a call that found no server is made again.

    The pause before repetition n is random between half and all of `first_pause * 2**n`, at most
    `longest_pause`; with the defaults 5 repetitions within about 3 s bridge a restart of the
    server. A connection that never reached its server repeats once only, so that a wrong address
    is told at once.
    """

    repetitions: int = 5
    first_pause: float = 0.1
    """Seconds."""
    longest_pause: float = 2.0
    """Seconds."""

    def pause(self, repetition: int) -> float:
        """Seconds to wait before repetition 0, 1, 2, …"""
        ceiling = min(self.longest_pause, self.first_pause * 2.0**repetition)
        return ceiling * random.uniform(0.5, 1.0)


def new_key() -> str:
    """An idempotency key for one intended call, whatever number of tries it takes."""
    return uuid.uuid4().hex


class Stubs:
    """The services of one channel, made when first asked for."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    @cached_property
    def identity(self) -> identity_pb2_grpc.IdentityServiceStub:
        """Who is calling."""
        return identity_pb2_grpc.IdentityServiceStub(self._channel)

    @cached_property
    def jobs(self) -> job_pb2_grpc.JobServiceStub:
        """Definitions."""
        return job_pb2_grpc.JobServiceStub(self._channel)

    @cached_property
    def runs(self) -> run_pb2_grpc.RunServiceStub:
        """Executions."""
        return run_pb2_grpc.RunServiceStub(self._channel)

    @cached_property
    def images(self) -> image_pb2_grpc.ImageServiceStub:
        """What code runs in."""
        return image_pb2_grpc.ImageServiceStub(self._channel)

    @cached_property
    def logs(self) -> log_pb2_grpc.LogServiceStub:
        """What processes wrote."""
        return log_pb2_grpc.LogServiceStub(self._channel)

    @cached_property
    def objects(self) -> object_pb2_grpc.ObjectServiceStub:
        """Content-addressed bytes."""
        return object_pb2_grpc.ObjectServiceStub(self._channel)

    @cached_property
    def nodes(self) -> node_pb2_grpc.NodeServiceStub:
        """Worker hosts."""
        return node_pb2_grpc.NodeServiceStub(self._channel)


class Connection:
    """The way to one control plane.

    Args:
        address: `HOST:PORT`.
        token: Bearer token; empty to send none.
        retry: When calls that found no server are made again.
        patience: Seconds that a followed stream may stay cut before `follow` gives up.
    """

    def __init__(
        self, address: str, token: str, *, retry: RetryPolicy | None = None, patience: float = 60.0
    ) -> None:
        self.address = address
        self.patience = patience
        self._token = token
        self._retry = retry or RetryPolicy()
        self._metadata: tuple[tuple[str, str], ...] = ((PROTOCOL_KEY, str(PROTOCOL_VERSION)),)

        if token:
            self._metadata += (("authorization", f"Bearer {token}"),)

        self._inherited: list[object] = []
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._stubs: Stubs | None = None
        self._reached = False
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget_channel(reference))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    @property
    def stubs(self) -> Stubs:
        """The services on this process's channel, which is made if need be."""
        with self._lock:
            if self._stubs is None:
                self._channel = grpc.insecure_channel(self.address, options=_CHANNEL_OPTIONS)
                self._stubs = Stubs(trace.traced(self._channel))

            return self._stubs

    def close(self) -> None:
        """Close the channel; a later call makes a new one."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()

            self._channel = None
            self._stubs = None

    def call(
        self,
        method: Callable[[Stubs], grpc.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
        *,
        timeout: float = 30.0,
        repeatable: bool = True,
    ) -> Response:
        """Make one unary call.

        Args:
            method: Picks the method, for instance `lambda s: s.jobs.SaveJob`.
            request: Sent unchanged with every repetition, its idempotency key included.
            timeout: Seconds for each try.
            repeatable: False when the call may have been done although no answer came, and doing
                it twice is not the same as once. It is then never made again.

        Raises:
            PlatformError: The subclass that `datatailr.client.status` names for the failure.
        """
        repetition = 0

        while True:
            try:
                response = method(self.stubs)(request, timeout=timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                failure = error
            else:
                self._reached = True
                return response

            if not (repeatable and self._worth_repeating(failure, repetition)):
                break

            pause = self._retry.pause(repetition)
            repetition += 1
            trace.tell_repetition(repetition, pause, failure)
            time.sleep(pause)

        # Raised outside the handler: frames of the transport are of no use to the caller.
        raise self.explain(failure)

    def stream(
        self,
        method: Callable[[Stubs], grpc.UnaryStreamMultiCallable[Request, Response]],
        request: Request,
    ) -> Iterator[Response]:
        """Make one call that answers with a stream; no repetition, no deadline.

        Raises:
            PlatformError: As `call`, from the iteration.
        """
        answers = method(self.stubs)(request, metadata=self._metadata)

        try:
            for answer in answers:
                self._reached = True
                yield answer
        except grpc.RpcError as error:
            failure = error
        else:
            return
        finally:
            answers.cancel()

        raise self.explain(failure)

    def follow(
        self,
        method: Callable[[Stubs], grpc.UnaryStreamMultiCallable[Request, Response]],
        request: Callable[[], Request],
        *,
        on_cut: Callable[[], None] | None = None,
    ) -> Iterator[Response]:
        """Iterate over a stream that is opened again after each cut.

        Args:
            method: As for `call`.
            request: Called before each opening; the caller keeps its position in there.
            on_cut: Called when a stream that had answered was cut.

        Raises:
            PlatformError: The stream failed for another reason than a cut, or stayed cut longer
                than the connection's patience.
        """
        backoff = Backoff(self._retry, self.patience)

        while True:
            answers = method(self.stubs)(request(), metadata=self._metadata)

            try:
                for answer in answers:
                    self._reached = True
                    backoff.reset()
                    yield answer
            except grpc.RpcError as error:
                failure = error
            else:
                return
            finally:
                answers.cancel()

            if not (is_cut(failure) and self._reached and backoff.wait(on_cut)):
                raise self.explain(failure)

    def explain(self, error: grpc.RpcError) -> Exception:
        """The exception of `datatailr.errors` for a failed call on this connection."""
        return to_exception(error, address=self.address, token_sent=bool(self._token))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries; holds the token, so it must not be shown."""
        return self._metadata

    def backoff(self) -> Backoff:
        """A fresh measure of patience, for streams that are driven by hand."""
        return Backoff(self._retry, self.patience)

    def _begin_again(self) -> None:
        """In a forked child: give up the parent's channel without touching it.

        Closing it, or letting it be collected, would reach into threads that the child does not
        have; it is kept, unused, until the child ends. The lock may have been held in the parent.
        """
        self._inherited.append((self._channel, self._stubs))
        self._lock = threading.Lock()
        self._channel = None
        self._stubs = None
        self._reached = False

    def _worth_repeating(self, error: grpc.RpcError, repetition: int) -> bool:
        allowed = self._retry.repetitions if self._reached else min(1, self._retry.repetitions)
        return repetition < allowed and is_cut(error)


class Backoff:
    """Pauses between openings of a stream, until patience ends."""

    def __init__(self, retry: RetryPolicy, patience: float) -> None:
        self._retry = retry
        self._patience = patience
        self.reset()

    def reset(self) -> None:
        """The stream answered: the next cut starts from nothing."""
        self._repetition = 0
        self._since: float | None = None

    def wait(self, on_cut: Callable[[], None] | None = None) -> bool:
        """Pause before the next opening; False when patience is at its end."""
        now = time.monotonic()

        if self._since is None:
            self._since = now

            if on_cut is not None:
                on_cut()

        if now - self._since > self._patience:
            return False

        time.sleep(self._retry.pause(self._repetition))
        self._repetition += 1
        return True


def is_cut(error: grpc.RpcError) -> bool:
    """Whether the server could not be reached or went away, rather than refused."""
    return status_of(error)[0] is grpc.StatusCode.UNAVAILABLE


def _forget_channel(reference: weakref.ref[Connection]) -> None:
    connection = reference()

    if connection is not None:
        connection._begin_again()
