from django.db.models.signals import post_save
from django.dispatch import receiver

from realtime import publish, user_topic
from shop.models import Order


@receiver(post_save, sender=Order)
def notify_customer(sender, instance, created, **kwargs):
    if created:
        publish(user_topic(instance.customer), "ordered", {"order": instance.pk})
