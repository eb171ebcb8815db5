"""Why data cannot be published, for who typed them: the errors' own texts are for programmers."""

from __future__ import annotations

import logging

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from realtime.exceptions import DataNotSerializable, DataTooLarge, InvalidData
from realtime.protocol.frames import MAX_NESTING

__all__ = ["explain"]

logger = logging.getLogger("realtime")

# By the beginning of the error's own reason.
_REASONS = {
    "JSON has no ": _("%(path)s is no finite number, and JSON has no other."),
    "it is nested deeper": _("The data is nested deeper than %(limit)s levels."),
    "it has too many digits": _("%(path)s is a number of too many digits."),
}


def explain(error: InvalidData) -> str:
    """Return a sentence in the active language."""
    if isinstance(error, DataTooLarge):
        text = gettext("The data is %(size)d bytes of JSON, and %(limit)d are allowed.")
        return text % {"size": error.size, "limit": error.limit}
    values = {"path": getattr(error, "path", "data"), "limit": MAX_NESTING}
    if isinstance(error, DataNotSerializable):
        for beginning, reason in _REASONS.items():
            if error.reason.startswith(beginning):
                return str(reason) % values
    # A form or a get_publication() gives what no typing could mend.
    logger.error("data for an event cannot be published: %s", error)
    text = gettext(
        "%(path)s cannot be written as JSON. Tell the programmers: the server's log has more."
    )
    return text % values
