"""The demo's people, orders and account."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management.base import BaseCommand
from django.db import transaction

from project.desk.models import Order
from project.desk.personas import PEOPLE

ORDERS = [
    ("ada", "Brass gear"),
    ("bo", "Notebook"),
    ("ada", "Copper wire"),
    ("bo", "Pocket lens"),
    ("ada", "Star chart"),
]
ADMIN = "admin"


class Command(BaseCommand):
    help = "Create the demo's people and orders and, under DEBUG, its account. Safe to run twice."

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            people = {one.key: self.person(one) for one in PEOPLE}
            if not Order.objects.exists():
                Order.objects.bulk_create(Order(customer=people[c], item=i) for c, i in ORDERS)
            self.stdout.write(f"Orders: {Order.objects.count()}")
            if settings.DEBUG:
                self.account()
            else:
                self.stdout.write("No account: its password is known, so it needs DEBUG.")

    def person(self, persona: Any) -> Any:
        """Return the persona's user, made if missing; it has no password that could be used."""
        user, created = get_user_model().objects.get_or_create(
            username=persona.key,
            defaults={"first_name": persona.name, "is_staff": persona.is_staff},
        )
        if created:
            user.set_unusable_password()
            user.save()
        # At each run: a permission may be newer than the user.
        user.user_permissions.add(*Permission.objects.filter(codename__in=persona.permissions))
        return user

    def account(self) -> None:
        """Create the administrator; one that is there keeps its password."""
        user, created = get_user_model().objects.get_or_create(
            username=ADMIN, defaults={"is_staff": True, "is_superuser": True}
        )
        if created:
            user.set_password(ADMIN)
            user.save()
        password = ADMIN if user.check_password(ADMIN) else "(was changed)"
        self.stdout.write("The people of the page need no password. Account for /admin/:")
        self.stdout.write(f"  {ADMIN}, password {password}: may do everything")
