from django.core.management.base import BaseCommand

from shop.bulk import close_orders


class Command(BaseCommand):
    help = "Closes every open order."

    def handle(self, *args, **options):
        count = close_orders()
        self.stdout.write(f"{count} orders closed")
