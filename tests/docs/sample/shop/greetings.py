from realtime import publish, user_topic
from shop.topics import TeamTopic


def greet(user, team):
    publish(user_topic(user), "hello", {"to": "one user, on every page of theirs"})
    publish(TeamTopic(pk=team.pk), "hello", {"to": "the members of a team"})
    publish("everyone", "hello", {"to": "every user who is signed in"})
