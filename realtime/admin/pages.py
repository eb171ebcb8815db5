"""Render a page inside the admin's layout, for any site and any model."""

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
    """A response whose text can always be encoded as UTF-8.

    JSON can contain lone surrogates, which UTF-8 cannot encode; the page shows their escapes.
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
    breadcrumbs: list[tuple[str, str]],
    page_name: str,
) -> Page:
    """Render a template of ``admin/realtime``.

    Args:
        model_admin: supplies the admin site and the app of the page.
        request: the request to answer.
        template: file name without ``.html``.
        context: for the template.
        breadcrumbs: URLs and names of the pages between the app's index and this page.
        page_name: the last breadcrumb and the title of the page.
    """
    site, opts = model_admin.admin_site, model_admin.opts
    request.current_app = site.name
    app = (
        reverse(f"{site.name}:app_list", args=(opts.app_label,)),
        opts.app_config.verbose_name,
    )
    home = (reverse(f"{site.name}:index"), gettext("Home"))
    full_context = {
        **site.each_context(request),
        "opts": opts,
        "breadcrumbs": [home, app, *breadcrumbs],
        "page_name": page_name,
        # Django 6.1 changed the breadcrumbs to a list and added nonces.
        "from_django_61": django.VERSION >= (6, 1),
        **context,
    }
    return Page(request, f"admin/realtime/{template}.html", full_context)
