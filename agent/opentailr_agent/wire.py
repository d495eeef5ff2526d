"""The only translator between the wire and the core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from datatailr.v1 import agent_pb2 as pb
from datatailr.v1 import common_pb2
from opentailr_agent.core import events as ev
from opentailr_agent.core.model import (
    AnyReport,
    AttemptReport,
    AttemptState,
    BuildReport,
    BuildState,
    Cause,
    CauseKind,
    Desired,
    StoredResult,
)
from opentailr_agent.core.outbox import Entry

__all__ = ["assigned", "decode_entry", "encode_cause", "encode_entry", "report", "welcomed"]


def encode_cause(cause: Cause | None) -> common_pb2.Cause | None:
    """Cause of the core as a message."""
    if cause is None:
        return None

    return common_pb2.Cause(
        kind=cast("common_pb2.CauseKind", int(cause.kind)),
        message=cause.message,
        traceback=cause.traceback,
        exit_code=cause.exit_code,
        signal=cause.signal,
    )


def decode_cause(cause: common_pb2.Cause) -> Cause:
    """Cause of a message for the core."""
    return Cause(CauseKind(cause.kind), cause.message, cause.traceback, cause.exit_code, cause.signal)


def encode_entry(entry: Entry[AnyReport]) -> pb.ReportEntry:
    """A numbered report as it travels and as it is journalled."""
    told = entry.report

    if isinstance(told, BuildReport):
        return pb.ReportEntry(
            report_seq=entry.seq,
            build=pb.BuildReport(
                build_id=told.build_id,
                image_key=told.image_key,
                state=int(told.state),
                observed_at=told.observed_at,
                cause=encode_cause(told.cause),
                notice=told.notice,
            ),
        )

    message = pb.AttemptReport(
        attempt_id=told.attempt_id,
        fence=told.fence,
        state=cast("pb.AttemptState", int(told.state)),
        observed_at=told.observed_at,
        cause=encode_cause(told.cause),
        started_at=told.started_at,
        ended_at=told.ended_at,
        preview=told.preview,
        peak_memory_bytes=told.peak_memory_bytes,
        exception=told.exception,
    )

    if told.result is not None:
        message.result.size = told.result.size

        if told.result.inline is not None:
            message.result.inline = told.result.inline
        else:
            message.result.digest = told.result.digest

    return pb.ReportEntry(report_seq=entry.seq, attempt=message)


def decode_entry(data: bytes) -> Entry[AnyReport]:
    """A journalled report."""
    message = pb.ReportEntry.FromString(data)

    if message.WhichOneof("subject") == "build":
        build = message.build
        cause = decode_cause(build.cause) if build.HasField("cause") else None
        state = BuildState(build.state)
        return Entry(
            message.report_seq,
            BuildReport(build.build_id, build.image_key, state, build.observed_at, cause, build.notice),
        )

    told = message.attempt
    result = None

    if told.HasField("result"):
        inline = told.result.inline if told.result.WhichOneof("content") == "inline" else None
        result = StoredResult(told.result.size, inline, told.result.digest)

    return Entry(
        message.report_seq,
        AttemptReport(
            told.attempt_id,
            told.fence,
            AttemptState(told.state),
            told.observed_at,
            decode_cause(told.cause) if told.HasField("cause") else None,
            told.started_at,
            told.ended_at,
            result,
            told.preview,
            told.peak_memory_bytes,
            told.exception,
        ),
    )


def report(entries: Sequence[Entry[AnyReport]]) -> pb.ConnectRequest:
    """A batch of reports as a frame."""
    return pb.ConnectRequest(report=pb.Report(entries=[encode_entry(entry) for entry in entries]))


def assigned(frame: pb.Assignments) -> ev.Assigned:
    """The desired set; specs stay messages, which the core never opens."""
    return ev.Assigned(
        full=frame.full,
        base=frame.base_revision,
        revision=frame.revision,
        attempts=[
            ev.WantedAttempt(
                entry.attempt_id,
                entry.fence,
                Desired.STOP if entry.desired == pb.DESIRED_STATE_STOP else Desired.RUN,
                entry.grace / 1_000_000,
                entry.spec if entry.HasField("spec") else None,
            )
            for entry in frame.attempts
        ],
        builds=[ev.WantedBuild(build.build_id, build.image_key, build) for build in frame.builds],
        removed=list(frame.removed),
    )


def welcomed(frame: pb.Welcome) -> ev.Welcomed:
    """The answer to Hello."""

    def having(kind: pb.VerdictKind) -> frozenset[str]:
        return frozenset(verdict.attempt_id for verdict in frame.verdicts if verdict.kind == kind)

    return ev.Welcomed(
        keep=having(pb.VERDICT_KIND_KEEP),
        stop=having(pb.VERDICT_KIND_STOP),
        forget=having(pb.VERDICT_KIND_FORGET),
        acknowledged=frame.acknowledged_report_seq,
    )
