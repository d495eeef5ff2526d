"""NodeService: worker hosts."""

from __future__ import annotations

from datatailr.v1 import node_pb2, node_pb2_grpc

from ..core import commands
from ..core.errors import InvalidArgument, NotFound
from ..core.values import SECOND
from ..ports import Engine, NodeView
from ..security.access import check_admin
from ..security.authentication import current_user
from . import wire
from .interceptor import Context
from .lookup import suggest

_LONGEST_DRAIN = 366 * 24 * 3600 * SECOND
_LONGEST_REASON = 200


class NodeService(node_pb2_grpc.NodeServiceServicer):
    """Everybody may see the nodes; administrators may take them out."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ListNodes(
        self, request: node_pb2.ListNodesRequest, context: Context
    ) -> node_pb2.ListNodesResponse:
        """All nodes, by name."""
        current_user()
        return node_pb2.ListNodesResponse(nodes=[wire.node_out(node) for node in self._engine.nodes()])

    async def SetNodeSchedulable(
        self, request: node_pb2.SetNodeSchedulableRequest, context: Context
    ) -> node_pb2.SetNodeSchedulableResponse:
        """Stops or resumes giving a node new work."""
        user = current_user()
        check_admin(user, "take nodes out of service")
        node = self._find(request.node)
        if not 0 <= request.drain_within <= _LONGEST_DRAIN:
            raise InvalidArgument(
                "bad_drain_within",
                f"drain_within is {request.drain_within}; it is microseconds, from 0 to {_LONGEST_DRAIN}.",
                field="drain_within",
                hint="Give 0 to let everything end by itself.",
            )
        reason = "" if request.schedulable else f"taken out of service by {user.name}"
        if reason and request.reason:
            reason += f": {request.reason[:_LONGEST_REASON]}"
        await self._engine.execute(
            commands.SetNodeSchedulable(
                user.name, node.agent_id, request.schedulable, reason, request.drain_within
            )
        )
        return node_pb2.SetNodeSchedulableResponse(node=wire.node_out(self._find(node.agent_id)))

    def _find(self, name: str) -> NodeView:
        nodes = self._engine.nodes()
        for node in nodes:
            if name in (node.agent_id, node.name):
                return node
        raise NotFound(
            "node_not_found",
            f"there is no node {name[:100]!r}",
            field="node",
            hint=suggest(name, (node.name for node in nodes)) or "list the nodes with ListNodes",
        )
