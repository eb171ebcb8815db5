"""Read the code samples that the page shows from the source of the demo's functions."""

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

MARKED = re.compile(r"^ *# shown on the page:\n(.*?)^ *# until here\n", re.DOTALL | re.MULTILINE)


def shown_lines(function: Callable[..., Any]) -> str:
    """Return the lines of a function that are marked for the page.

    Raises:
        LookupError: the function has no lines between `# shown on the page:` and `# until here`.
    """
    marked = MARKED.search(inspect.getsource(function))
    if marked is None:
        raise LookupError(f"{function.__qualname__} has no lines marked for the page")
    return textwrap.dedent(marked[1]).rstrip()
