"""The demo's orders and accounts."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management.base import BaseCommand
from django.db import transaction

from project.desk.models import Order

ORDERS = [
    ("Ada Lovelace", "Brass gear"),
    ("Grace Hopper", "Copper wire"),
    ("Alan Kay", "Notebook"),
    ("Katherine Johnson", "Star chart"),
    ("Edsger Dijkstra", "Fountain pen"),
]
ACCOUNTS = {"admin": "may do everything", "desk": "may see and change orders"}


class Command(BaseCommand):
    help = "Create the demo's orders and, under DEBUG, its accounts. Safe to run twice."

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            if not Order.objects.exists():
                Order.objects.bulk_create(Order(customer=c, item=i) for c, i in ORDERS)
            self.stdout.write(f"Orders: {Order.objects.count()}")
            if settings.DEBUG:
                self.accounts()
            else:
                self.stdout.write("No accounts: their passwords are known, so they need DEBUG.")

    def accounts(self) -> None:
        """Create what is missing; an account that is there keeps its password."""
        self.stdout.write("Accounts for /admin/ (the order desk itself needs none):")
        for name, what in ACCOUNTS.items():
            user, created = get_user_model().objects.get_or_create(
                username=name, defaults={"is_staff": True, "is_superuser": name == "admin"}
            )
            if created:
                user.set_password(name)
                user.save()
            password = name if user.check_password(name) else "(was changed)"
            self.stdout.write(f"  {name:<6} password {password:<6} {what}")
        desk = get_user_model().objects.get(username="desk")
        desk.user_permissions.add(
            *Permission.objects.filter(codename__in=["view_order", "change_order"])
        )
