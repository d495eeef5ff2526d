"""From the `authorization` of a call to the one who makes it, and what kind of caller may call what."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from ..core.errors import PermissionDenied
from ..errors import Unauthenticated
from .tokens import Role, RunTokens, TokenTable
from .users import User, UserDirectory

_BEARER = "bearer "

_AGENT_ONLY = ("/datatailr.v1.AgentService/", "/datatailr.v1.LogService/AppendLogs")
_ANYBODY = ("/datatailr.v1.ObjectService/",)
# Code of an administrator's job is no administrator.
_NOT_FOR_RUNS = ("/datatailr.v1.NodeService/SetNodeSchedulable",)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call."""

    role: Role
    user: User | None
    """The person, or for a run the user it runs as; None for an agent."""
    run_id: int = 0
    """The run whose code calls; 0 otherwise."""


class Authenticator:
    """Finds the caller behind a token.

    Args:
        tokens: Tokens of people and agents.
        run_tokens: Verifies the tokens of runs.
        users: Finds the users that tokens name.
        run_is_active: Whether a run is active; its token is valid only then.
    """

    def __init__(
        self,
        tokens: TokenTable,
        run_tokens: RunTokens,
        users: UserDirectory,
        *,
        run_is_active: Callable[[int], bool],
    ) -> None:
        self._tokens = tokens
        self._run_tokens = run_tokens
        self._users = users
        self._run_is_active = run_is_active

    def by_header(self, header: str | None) -> Caller:
        """The caller that an `authorization` value names. Raises Unauthenticated."""
        if not header:
            raise Unauthenticated(
                "token_missing",
                "this call needs a token and carries none",
                field="authorization",
                hint="send the metadata `authorization: Bearer TOKEN`; clients take it from DATATAILR_TOKEN",
            )
        if not header.lower().startswith(_BEARER):
            raise Unauthenticated(
                "token_malformed",
                "authorization is not of the form `Bearer TOKEN`",
                field="authorization",
                hint="send the metadata `authorization: Bearer TOKEN`",
            )
        return self.by_token(header[len(_BEARER) :].strip())

    def by_token(self, token: str) -> Caller:
        """The caller that a token stands for. Raises Unauthenticated."""
        found = self._tokens.find(token)
        if found is not None:
            role, user_id = found
            if role is Role.AGENT:
                return Caller(role, None)
            user = self._users.by_id(user_id)
            if user is not None:
                return Caller(role, user)
        claim = self._run_tokens.verify(token)
        if claim is not None:
            if not self._run_is_active(claim.run_id):
                raise Unauthenticated(
                    "run_over",
                    f"the token belongs to run {claim.run_id}, which is not active",
                    field="authorization",
                    hint="a token inside a run is valid as long as the run is",
                )
            user = self._users.by_name(claim.user)
            if user is not None:
                return Caller(Role.RUN, user, claim.run_id)
        raise Unauthenticated(
            "token_unknown",
            "the token is not known here",
            field="authorization",
            hint="check that DATATAILR_TOKEN belongs to this address; see admin.token in its data directory",
        )


def check_role(caller: Caller, method: str) -> None:
    """Raises PermissionDenied when this kind of caller may not call the method at all."""
    if method.startswith(_ANYBODY):
        return
    if method.startswith(_AGENT_ONLY):
        if caller.role is not Role.AGENT:
            raise PermissionDenied(
                "agents_only",
                f"{method.rsplit('/', 1)[1]} is for agents",
                hint="an agent calls it with the token in agent.token of the data directory",
            )
    elif caller.role is Role.AGENT:
        raise PermissionDenied(
            "not_for_agents",
            f"{method.rsplit('/', 1)[1]} is for people; the token given is that of agents",
            hint="use the token in admin.token of the data directory",
        )
    elif caller.role is Role.RUN and method in _NOT_FOR_RUNS:
        raise PermissionDenied(
            "not_for_runs",
            f"{method.rsplit('/', 1)[1]} is for people; the token given is that of run {caller.run_id}",
            hint="call it from outside of a task with a token of your own",
        )


_CALLER: ContextVar[Caller] = ContextVar("caller")


def set_caller(caller: Caller) -> None:
    """Makes the caller known to the rest of this call; the interceptor's work."""
    _CALLER.set(caller)


def current_caller() -> Caller:
    """Who makes the present call."""
    return _CALLER.get()


def current_user() -> User:
    """The user who makes the present call, or whose run does."""
    user = _CALLER.get().user
    if user is None:
        raise PermissionDenied("not_for_agents", "this call needs a user", hint="use the token of a user")
    return user
