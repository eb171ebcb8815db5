from datetime import timedelta

from django.core.exceptions import ValidationError

from realtime import Topic, action, publish, register
from shop.models import Order, Team


@register("orders.<int:pk>")
class OrderTopic(Topic):
    pk: int

    def can_subscribe(self, user):
        return Order.objects.filter(pk=self.pk, customer=user).exists()


@register("teams.<int:pk>")
class TeamTopic(Topic):
    pk: int

    def can_subscribe(self, user):
        return Team.objects.filter(pk=self.pk, members=user).exists()


@register("articles.<int:pk>")
class ArticleTopic(Topic):
    pk: int
    anonymous = True

    async def can_subscribe(self, user):
        return True


@register("chats.<int:team>")
class ChatTopic(Topic):
    team: int
    client_events = {"typing"}
    stored_client_events = {"drawn"}

    def can_subscribe(self, user):
        return Team.objects.filter(pk=self.team, members=user).exists()

    def can_publish(self, user, event):
        return self.can_subscribe(user)

    @action
    def say(self, user, data):
        text = data.get("text") if isinstance(data, dict) else None
        if not isinstance(text, str) or not 0 < len(text) <= 500:
            raise ValidationError("text has 1 to 500 characters")
        publish(self, "said", {"by": user.get_username(), "text": text})


@register("readers.<slug:page>")
class ReadersTopic(Topic):
    page: str
    anonymous = True
    presence = True

    def can_subscribe(self, user):
        return True

    def member_info(self, user):
        return {"name": user.get_username() or "a visitor"}


@register("reports.<int:user>")
class ReportTopic(Topic):
    user: int

    def can_subscribe(self, user):
        return user.pk == self.user


@register("audit.<slug:area>")
class AuditTopic(Topic):
    area: str
    max_events = 10_000
    max_age = timedelta(days=30)
    history = False  # clients can resume, but `last` reaches back at most five minutes

    def can_subscribe(self, user):
        return user.is_superuser
