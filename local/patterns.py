"""The regular expressions of AWS's API models, which are Java's, as Python knows them."""

from __future__ import annotations

import re
from functools import cache

_SPELT_FOR_PYTHON = {
    # Python's re has no Unicode categories. These classes together allow every printable character…
    r"[\p{L}\p{M}\p{Z}\p{S}\p{N}\p{P}]": r"[^\x00-\x1f\x7f]",
    r"[\p{L}\p{M}\p{Z}\p{N}\p{P}]": r"[^\x00-\x1f\x7f]",
    # … and these every one that is not white space.
    r"[\p{L}\p{M}\p{S}\p{N}\p{P}]": r"[^\x00-\x20\x7f]",
    # Java writes characters beyond the first plane as surrogate pairs.
    r"\uD800\uDC00-\uDBFF\uDFFF": r"\U00010000-\U0010FFFF",
    r"\p{L}\p{Z}\p{N}": r"\w ",
    r"\p{Alnum}": r"A-Za-z0-9",
    r"\p{Print}": r"\x20-\x7e",
    r"\p{ASCII}": r"[\x00-\x7f]",
    r"\z": r"\Z",
}


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """Return a model's pattern, with Java's Unicode classes spelt for Python.

    Raises
    ------
    re.error
        For a class that is not in the table above: add it, or what it should refuse is taken.
    """
    for theirs, ours in _SPELT_FOR_PYTHON.items():
        pattern = pattern.replace(theirs, ours)
    return re.compile(re.sub(r"\$\{1,\d+\}$", "", pattern), re.DOTALL)
