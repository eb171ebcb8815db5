"""The people of the demo, each one click away."""

from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth import get_user_model, login, logout
from django.http import HttpRequest

NOBODY = "nobody"
CHOSEN = "demo_persona"  # in the session: what the browser was told to be, nobody included


@dataclass(frozen=True)
class Persona:
    """Somebody whom a browser of the demo can be.

    Attributes:
        key: the username; `nobody` is not signed in.
        name: the first name.
        role: what the page says about them.
        permissions: codenames.
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
        Persona(NOBODY, "Nobody", "not signed in"),
    ),
    "desk": (
        Persona(
            "dana", "Dana", "staff, may publish from the admin", True, (*ORDERS, "publish_event")
        ),
        Persona("eli", "Eli", "staff, may not", True, ORDERS),
    ),
}
CUSTOMERS = tuple(one for one in PERSONAS["customer"] if one.key != NOBODY)
PEOPLE = (*CUSTOMERS, *PERSONAS["desk"])


def current(request: HttpRequest) -> str:
    """Return the key of whom this browser is."""
    return request.user.get_username() or NOBODY


def become(request: HttpRequest, key: str) -> bool:
    """Sign in as a persona, or out for `nobody`; False if load_demo has not made it."""
    if not settings.DEMO_PERSONAS:
        return False
    if key == NOBODY:
        logout(request)
    else:
        user = get_user_model().objects.filter(username=key).first()
        if user is None:
            return False
        login(request, user)
    request.session[CHOSEN] = key
    return True


def greet(request: HttpRequest, browser: str) -> None:
    """Sign in the browser's first persona when it comes for the first time.

    That a GET signs somebody in is for a demo, whose people have nothing to lose.
    """
    if request.session.get(CHOSEN) is None and not request.user.is_authenticated:
        become(request, PERSONAS[browser][0].key)
