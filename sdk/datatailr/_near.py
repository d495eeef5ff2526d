"""Near misses: the one place that turns a wrong word into a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST = 200
"""Characters of a word that are compared; the effort grows with their square."""

_MOST_LISTED = 12


def near(word: str, known: Iterable[str]) -> str:
    """The known word that is most like `word`, empty when none is."""
    by_folded = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word[:_LONGEST].casefold(), by_folded, n=1)
    return by_folded[found[0]] if found else ""


def suggestion(word: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """What to say of a word that is not known: `did you mean 'dev'?`, or what there is.

    Args:
        word: What was written.
        known: What could have been meant.
        otherwise: Said where nothing is near; by default the known words, if they are few.
    """
    words = list(known)
    match = near(word, words)

    if match:
        return f"did you mean {match!r}?"

    if otherwise or not words:
        return otherwise

    more = f" and {len(words) - _MOST_LISTED} more" if len(words) > _MOST_LISTED else ""
    return f"there are {', '.join(words[:_MOST_LISTED])}{more}"
