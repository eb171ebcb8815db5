from django.conf import settings
from django.db import models, transaction

from realtime import publish


class Team(models.Model):
    members = models.ManyToManyField(settings.AUTH_USER_MODEL)


class Order(models.Model):
    customer = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE)
    title = models.CharField(max_length=80)
    state = models.CharField(max_length=20, default="open")


class Article(models.Model):
    text = models.TextField()

    def save(self, **kwargs):
        with transaction.atomic():
            super().save(**kwargs)
            publish(f"articles.{self.pk}", "saved", {"article": self.pk})


class Payment(models.Model):
    order = models.PositiveIntegerField()
