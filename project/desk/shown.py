"""Source code for the page: the lines that ran, taken from the function that ran them."""

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

MARKED = re.compile(r"^ *# shown on the page:\n(.*?)^ *# until here\n", re.DOTALL | re.MULTILINE)


def lines_that_ran(function: Callable[..., Any]) -> str:
    """Return the marked lines of a function's source.

    Raises:
        LookupError: it has no lines between `# shown on the page:` and `# until here`.
    """
    marked = MARKED.search(inspect.getsource(function))
    if marked is None:
        raise LookupError(f"{function.__qualname__} has no lines that are marked for the page")
    return textwrap.dedent(marked[1]).rstrip()
