from django.contrib.auth import get_user_model
from django.tasks import task

from realtime import publish, user_topic


@task
def make_report(user_id):
    user = get_user_model().objects.get(pk=user_id)
    for percent in (25, 50, 75):
        publish(user_topic(user), "progress", {"percent": percent}, ephemeral=True)
    publish(user_topic(user), "ready", {"url": "/reports/7/"})
