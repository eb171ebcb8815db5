"""A page of ours inside of the admin's frame, on whichever site and for whichever model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import django
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.translation import gettext

from realtime.admin.jsontext import escape_surrogates

if TYPE_CHECKING:
    from django.contrib import admin
    from django.http import HttpRequest

__all__ = ["Page", "render"]


class Page(TemplateResponse):
    """A page that can be sent, whatever stands in an event or in a form.

    JSON may hold lone surrogates, which have no UTF-8 form: they are shown as their escapes.
    """

    @property
    def rendered_content(self) -> str:
        """The text of the page."""
        return escape_surrogates(super().rendered_content)


def render(
    model_admin: admin.ModelAdmin[Any],
    request: HttpRequest,
    template: str,
    context: Mapping[str, Any],
    crumbs: list[tuple[str, str]],
    here: str,
) -> Page:
    """Return a page.

    Args:
        model_admin: to whose application and site the page belongs.
        request: that the page answers.
        template: a name in ``admin/realtime``, without its ending.
        context: of the template.
        crumbs: addresses and names of the pages above, below the application's.
        here: how the page itself is called among them.
    """
    site, opts = model_admin.admin_site, model_admin.opts
    request.current_app = site.name
    app = (
        reverse(f"{site.name}:app_list", args=(opts.app_label,)),
        opts.app_config.verbose_name,
    )
    home = (reverse(f"{site.name}:index"), gettext("Home"))
    whole = {
        **site.each_context(request),
        "opts": opts,
        "crumbs": [home, app, *crumbs],
        "here": here,
        "from_django_61": django.VERSION >= (6, 1),  # its breadcrumbs are a list; it has nonces
        **context,
    }
    return Page(request, f"admin/realtime/{template}.html", whole)
