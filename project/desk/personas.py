"""The personas of the demo; a visitor signs in as one with a click."""

from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth import get_user_model, login, logout
from django.http import HttpRequest

VISITOR = "visitor"  # the persona that is not signed in
SESSION_KEY = "demo_persona"  # stores the choice, so that a visitor is not signed in again


@dataclass(frozen=True)
class Persona:
    """One of the people who can use a browser of the demo.

    Attributes:
        key: the username, or `visitor` for the persona that is not signed in.
        name: the first name.
        role: the tooltip on the page.
        is_staff: whether the person belongs to the desk.
        permissions: the codenames of the person's permissions.
    """

    key: str
    name: str
    role: str
    is_staff: bool = False
    permissions: tuple[str, ...] = ()


ORDERS = ("view_order", "change_order")
PERSONAS = {
    "customer": (
        Persona("ada", "Ada", "customer"),
        Persona("bo", "Bo", "another customer"),
        Persona(VISITOR, "Visitor", "not signed in"),
    ),
    "desk": (
        Persona(
            "dana", "Dana", "staff, can publish in the admin", True, (*ORDERS, "publish_event")
        ),
        Persona("eli", "Eli", "staff, cannot publish", True, ORDERS),
    ),
}
CUSTOMERS = tuple(each for each in PERSONAS["customer"] if each.key != VISITOR)
USERS = (*CUSTOMERS, *PERSONAS["desk"])


def current(request: HttpRequest) -> str:
    """Return the key of this browser's persona."""
    return request.user.get_username() or VISITOR


def switch(request: HttpRequest, key: str) -> bool:
    """Sign in as a persona, or sign out for `visitor`.

    Returns:
        False if the persona's user does not exist; load_demo creates it.
    """
    if not settings.DEMO_PERSONAS:
        return False
    if key == VISITOR:
        logout(request)
    else:
        user = get_user_model().objects.filter(username=key).first()
        if user is None:
            return False
        login(request, user)
    request.session[SESSION_KEY] = key
    return True


def sign_in_first(request: HttpRequest, browser: str) -> None:
    """Sign in the first persona on a browser's first visit.

    Signing in on a GET request is acceptable only in a demo.
    """
    if request.session.get(SESSION_KEY) is None and not request.user.is_authenticated:
        switch(request, PERSONAS[browser][0].key)
