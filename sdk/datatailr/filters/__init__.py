"""Filter and sort expressions of listings: text in, a small tree out (clauses B276 to B282).

    name starts_with sales and (state = failed or state = stopped)
    -submit_time +name

Pure: no I/O and no state. The command line reads an expression before it asks the server, so that a
mistake costs no round trip; the server reads it again and compiles the tree to a query.
"""

from __future__ import annotations

from datatailr.filters.errors import FilterError
from datatailr.filters.expressions import (
    And,
    Condition,
    Expression,
    Not,
    Operator,
    Or,
    SortKey,
    filter_text,
    sort_text,
)
from datatailr.filters.fields import GROUPS, JOBS, RUNS, USERS, Field, Kind, Listing
from datatailr.filters.parser import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_VALUES,
    parse_filter,
    parse_sort,
)

__all__ = [
    "GROUPS",
    "JOBS",
    "MAX_CONDITIONS",
    "MAX_DEPTH",
    "MAX_LENGTH",
    "MAX_VALUES",
    "RUNS",
    "USERS",
    "And",
    "Condition",
    "Expression",
    "Field",
    "FilterError",
    "Kind",
    "Listing",
    "Not",
    "Operator",
    "Or",
    "SortKey",
    "filter_text",
    "parse_filter",
    "parse_sort",
    "sort_text",
]
