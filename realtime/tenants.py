"""Databases with one schema per tenant, as django-tenants makes them, which are not supported.

Topics have the same names in all tenants, and threads of this app read the schema ``public``.
"""

from __future__ import annotations

from django.db import connections

__all__ = ["explain_tenants"]


def explain_tenants(alias: str) -> str:
    """Return why a database cannot be used with this app; "" if it has no tenants.

    The backends of django-tenants and its predecessors select a tenant with ``set_tenant()``.
    """
    connection = connections[alias]
    if not callable(getattr(connection, "set_tenant", None)):
        return ""
    return (
        f"the database {alias!r} has one schema per tenant ({connection.settings_dict['ENGINE']}), "
        "which realtime does not support: topics such as user.7 and everyone would be shared by "
        "all tenants, and its threads would read the schema public; see docs/tenants.md"
    )
