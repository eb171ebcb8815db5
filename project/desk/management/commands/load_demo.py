"""Create the sample data of the demo."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management.base import BaseCommand
from django.db import transaction

from project.desk.models import Order
from project.desk.personas import USERS

ORDERS = [
    ("ada", "Brass gear"),
    ("bo", "Notebook"),
    ("ada", "Copper wire"),
    ("bo", "Pocket lens"),
    ("ada", "Star chart"),
]
ADMIN = "admin"


class Command(BaseCommand):
    help = (
        "Create the demo's users and orders and, under DEBUG, an admin account. Safe to run twice."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            users = {persona.key: self.create_user(persona) for persona in USERS}
            if not Order.objects.exists():
                Order.objects.bulk_create(Order(customer=users[c], item=i) for c, i in ORDERS)
            self.stdout.write(f"Orders: {Order.objects.count()}")
            if settings.DEBUG:
                self.create_admin()
            else:
                self.stdout.write(
                    "No admin account: it has a known password, so it is created only under DEBUG."
                )

    def create_user(self, persona: Any) -> Any:
        """Return the persona's user; create it without a password if it does not exist."""
        user, created = get_user_model().objects.get_or_create(
            username=persona.key,
            defaults={"first_name": persona.name, "is_staff": persona.is_staff},
        )
        if created:
            user.set_unusable_password()
            user.save()
        # On every run, because the user can be older than the permission.
        user.user_permissions.add(*Permission.objects.filter(codename__in=persona.permissions))
        return user

    def create_admin(self) -> None:
        """Create the admin account unless it exists; an existing one keeps its password."""
        user, created = get_user_model().objects.get_or_create(
            username=ADMIN, defaults={"is_staff": True, "is_superuser": True}
        )
        if created:
            user.set_password(ADMIN)
            user.save()
        password = ADMIN if user.check_password(ADMIN) else "(changed)"
        self.stdout.write("The users of the page need no password. Account for /admin/:")
        self.stdout.write(f"  {ADMIN}, password {password} (superuser)")
