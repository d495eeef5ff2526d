"""The statements behind `dt job ls` and `dt job runs`: filtered, sorted, in pages that go on after a row.

A page begins after the values of the last row of the page before, not after a count of rows, so rows that are
added meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select

from datatailr.filters import Expression, SortKey

from ..core.rows import RunRow
from . import filtering
from .schema import definitions, images, jobs, runs, versions

_FEW_JOBS = 8
"""Up to so many ids stand in the statement; more travel as one JSON text."""


@dataclass(frozen=True)
class Page:
    """Which part of a listing is wanted.

    Args:
        limit: Most rows.
        after: Values of the order's terms in the row before the first one; None for the first page.
        offset: Rows to leave out, on the first page only.
    """

    limit: int
    after: Sequence[Any] | None = None
    offset: int = 0


@dataclass(frozen=True)
class RunQuery:
    """Which runs are wanted, and in which order.

    Args:
        job_ids: Only runs of these jobs; None for all.
        environment: Only this one; 0 for all.
        start_time_from: Lower bound of the start, inclusive; 0 for none.
        start_time_to: Upper bound likewise; leaves out runs that have not started.
        filter: What else they must fit.
        sort: Their order; those equal by it come newest first.
    """

    job_ids: Collection[str] | None = None
    environment: int = 0
    start_time_from: int = 0
    start_time_to: int = 0
    filter: Expression | None = None
    sort: tuple[SortKey, ...] = ()

    @property
    def terms(self) -> list[filtering.Order]:
        """The terms of the order."""
        return filtering.order(self.sort, filtering.RUN_SOURCES, [("run_id", True)])

    def statement(self, page: Page) -> Select[Any]:
        """Selects the columns of `RunRow` and then the values of the order's terms."""
        # First the ids of the page, then their rows: where the database must sort, it sorts short rows.
        statement = select(runs.c.run_id)
        if self.job_ids is not None:
            statement = statement.where(_one_of(runs.c.job_id, self.job_ids))
        if self.environment:
            statement = statement.where(runs.c.environment == self.environment)
        if self.start_time_from:
            statement = statement.where(runs.c.start_time >= self.start_time_from)
        if self.start_time_to:
            # A run that has not started has no start time to lie within a bound.
            statement = statement.where(runs.c.start_time <= self.start_time_to, runs.c.start_time > 0)
        if self.filter is not None:
            statement = statement.where(filtering.condition(self.filter, filtering.RUN_SOURCES))
        terms = self.terms
        ids = _paged(statement, terms, page).subquery("page")
        values = [ids.c[_order_name(number)] for number in range(len(terms))]
        return (
            select(*(runs.c[name] for name in RunRow._fields), *values)
            .join_from(ids, runs, runs.c.run_id == ids.c.run_id)
            .order_by(*_directed(terms, values))
        )


@dataclass(frozen=True)
class JobQuery:
    """Which jobs are wanted, each with its latest version, and in which order.

    Args:
        job_ids: Only these; None for all.
        environment: Only this one; 0 for all.
        type: Only this one; 0 for all.
        include_removed: Also jobs of which every version was removed, with their latest.
        filter: What else they must fit.
        sort: Their order; those equal by it follow by name and environment.
    """

    job_ids: Collection[str] | None = None
    environment: int = 0
    type: int = 0
    include_removed: bool = False
    filter: Expression | None = None
    sort: tuple[SortKey, ...] = ()

    @property
    def terms(self) -> list[filtering.Order]:
        """The terms of the order."""
        ties = [("name", False), ("environment", False)]
        return filtering.order(self.sort, filtering.JOB_SOURCES, ties)

    def statement(self, page: Page) -> Select[Any]:
        """Selects job id, number of the version, and then the values of the order's terms."""
        statement = (
            select(jobs.c.job_id, versions.c.version)
            .select_from(jobs)
            .join(versions, and_(versions.c.job_id == jobs.c.job_id, versions.c.version == self._shown()))
            .join(definitions, definitions.c.definition_id == versions.c.definition_id)
            .outerjoin(images, images.c.image_key == versions.c.image_key)
        )
        if self.job_ids is not None:
            statement = statement.where(_one_of(jobs.c.job_id, self.job_ids))
        if self.environment:
            statement = statement.where(jobs.c.environment == self.environment)
        if self.type:
            statement = statement.where(jobs.c.type == self.type)
        if self.filter is not None:
            statement = statement.where(filtering.condition(self.filter, filtering.JOB_SOURCES))
        return _paged(statement, self.terms, page)

    def _shown(self) -> ColumnElement[int]:
        """Number of the version that stands for a job: the latest that is not removed."""
        other = versions.alias()
        newest = (
            select(other.c.version)
            .where(other.c.job_id == jobs.c.job_id, other.c.instant.is_(False))
            .order_by(other.c.version.desc())
            .limit(1)
            .correlate(jobs)
        )
        latest = newest.where(other.c.removed.is_(False)).scalar_subquery()
        return func.coalesce(latest, newest.scalar_subquery()) if self.include_removed else latest


def _paged(statement: Select[Any], terms: Sequence[filtering.Order], page: Page) -> Select[Any]:
    if page.after is not None:
        statement = statement.where(filtering.after(terms, page.after))
    elif page.offset:
        statement = statement.offset(page.offset)
    expressions = [term.expression for term in terms]
    return (
        statement.add_columns(*(e.label(_order_name(number)) for number, e in enumerate(expressions)))
        .order_by(*_directed(terms, expressions))
        .limit(page.limit)
    )


def _directed(
    terms: Sequence[filtering.Order], expressions: Sequence[ColumnElement[Any]]
) -> list[ColumnElement[Any]]:
    return [e.desc() if term.descending else e for term, e in zip(terms, expressions)]


def _order_name(number: int) -> str:
    return f"order_{number}"


def _one_of(column: ColumnElement[Any], ids: Collection[str]) -> ColumnElement[bool]:
    if len(ids) == 1:
        return column == next(iter(ids))
    if len(ids) <= _FEW_JOBS:
        return column.in_(sorted(ids))
    # One parameter, however many there are.
    each = func.json_each(json.dumps(sorted(ids))).table_valued("value")
    return column.in_(select(each.c.value))
