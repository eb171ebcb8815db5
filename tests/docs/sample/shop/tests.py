"""The code that docs/howto.md quotes does what the page says."""

import re
from importlib import util
from io import StringIO
from unittest import skipUnless

from channels.testing import WebsocketCommunicator
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction
from django.test import TestCase

from realtime import presence, publish, user_topic
from realtime.exceptions import AmbiguousTransaction, CommandRefused
from realtime.log import head, history
from realtime.testing import RealtimeClient, capture_events
from shop import asynchronous, billing, greetings, logs
from shop.models import Article, Order, Payment, Team
from shop.topics import OrderTopic

HAS_TASKS = util.find_spec("django.tasks") is not None
HAS_POLICY = any(
    getattr(settings, name, None) for name in ("CONTENT_SECURITY_POLICY", "SECURE_CSP")
)


class Recipes(TestCase):
    databases = {"default", "billing"}

    @classmethod
    def setUpTestData(cls):
        cls.ada = User.objects.create_user("ada")
        cls.bo = User.objects.create_user("bo")
        cls.team = Team.objects.create()
        cls.team.members.add(cls.ada)
        cls.order = Order.objects.create(customer=cls.ada, title="Pie")
        cls.topic = f"orders.{cls.order.pk}"

    def setUp(self):
        self.events = self.enterContext(capture_events())
        self.client.force_login(self.ada)

    def connect(self, user=None):
        return self.enterContext(RealtimeClient(user))

    def test_the_signal_notifies_the_customer_of_new_orders_only(self):
        order = Order.objects.create(customer=self.ada, title="Soup")
        order.save()
        self.events.assert_published(user_topic(self.ada), "ordered", {"order": order.pk}, count=1)

    def test_saving_an_article_publishes_to_anonymous_readers(self):
        article = Article.objects.create(text="one")
        reader = self.connect()
        reader.subscribe(f"articles.{article.pk}")
        article.text = "two" * 100_000  # more than an event can hold
        article.save()
        self.assertEqual(reader.receive_event().data, {"article": article.pk})

    def test_the_command_publishes_one_event_for_each_order(self):
        Order.objects.create(customer=self.bo, title="Soup")
        out = StringIO()
        call_command("close_orders", stdout=out)
        self.assertEqual(out.getvalue(), "2 orders closed\n")
        self.assertEqual(len(self.events.of(name="closed")), 2)
        self.events.assert_published(self.topic, "closed")

    @skipUnless(HAS_TASKS, "django.tasks needs Django 6.0 or newer")
    def test_a_page_that_is_opened_later_receives_the_newest_state_of_the_task(self):
        from shop.tasks import make_report

        make_report.enqueue(self.ada.pk)
        topic = f"reports.{self.ada.pk}"
        progress = self.events.of(topic, "progress")
        self.assertEqual([event.data["percent"] for event in progress], [0, 25, 50, 75])
        page = self.connect(self.ada)
        page.subscribe(topic, last=1)
        self.assertEqual(page.receive_event().name, "ready")
        with self.assertRaises(CommandRefused):
            self.connect(self.bo).subscribe(topic)

    def test_a_capture_has_only_the_events_of_its_block(self):
        publish("orders.42", "shipped", {"eta": "2026-11-24"})
        with capture_events() as events:
            self.client.post(f"/orders/{self.order.pk}/remind/")
        events.assert_published(f"orders.{self.order.pk}", "reminded")
        self.assertEqual([len(events), len(self.events)], [1, 2])

    async def test_coroutines_publish(self):
        await self.async_client.aforce_login(self.ada)
        await self.async_client.post(f"/orders/{self.order.pk}/remind/")
        await asynchronous.ship(self.order.pk)
        await self.events.asettle()
        self.assertEqual(
            [event.name for event in self.events.of(self.topic)], ["reminded", "shipped"]
        )

    async def test_nothing_is_published_about_an_order_that_does_not_exist(self):
        await self.async_client.aforce_login(self.ada)
        before = len(self.events)
        answer = await self.async_client.post("/orders/999999/remind/")
        self.assertEqual(answer.status_code, 404)
        await asynchronous.ship(999_999)
        await self.events.asettle()
        self.assertEqual(len(self.events), before)

    def test_a_rename_excludes_the_page_that_made_it(self):
        headers = {"X-Realtime-Origin": "a secret of the page"}
        url = f"/orders/{self.order.pk}/rename/"
        self.client.post(url, {"title": "Tart"}, headers=headers)
        event = self.events.assert_published(self.topic, "renamed", {"title": "Tart"})
        self.assertIsNotNone(event.origin)

    def test_events_reach_a_user_a_team_and_everyone(self):
        ada, bo = self.connect(self.ada), self.connect(self.bo)
        for client in (ada, bo):
            client.subscribe(user_topic(client.user))
            client.subscribe("everyone")
        ada.subscribe(f"teams.{self.team.pk}")
        with self.assertRaises(CommandRefused):
            bo.subscribe(f"teams.{self.team.pk}")
        greetings.greet(self.bo, self.team)
        self.assertEqual(
            [ada.receive_event().topic for _ in range(2)], [f"teams.{self.team.pk}", "everyone"]
        )
        self.assertEqual(
            [bo.receive_event().topic for _ in range(2)], [str(user_topic(self.bo)), "everyone"]
        )

    def test_the_chat_publishes_valid_messages_and_refuses_others(self):
        topic = f"chats.{self.team.pk}"
        ada = self.connect(self.ada)
        ada.subscribe(topic)
        ada.publish(topic, "typing")
        ada.publish(topic, "drawn", [[0, 0], [9, 9]])
        ada.call(topic, "say", {"text": "Hello", "by": "bo"})
        self.assertEqual([ada.receive_event().seq for _ in range(3)], [None, 1, 2])
        self.assertEqual(history(topic)[-1].data, {"by": "ada", "text": "Hello"})
        for data in (None, {}, {"text": ""}, {"text": 7}, {"text": "x" * 501}):
            with self.assertRaises(CommandRefused) as caught:
                ada.call(topic, "say", data)
            self.assertEqual(caught.exception.code, "invalid")
        with self.assertRaises(CommandRefused):
            self.connect(self.bo).publish(topic, "typing")

    def test_readers_of_a_page_see_each_other(self):
        topic = "readers.about"
        with RealtimeClient(self.ada) as ada, RealtimeClient() as visitor:
            ada.subscribe(topic)
            visitor.subscribe(topic)
            names = [member.info["name"] for member in ada.members(topic)]
            self.assertEqual(names, ["ada", "a visitor"])
            self.assertEqual(presence.members(topic), visitor.members(topic))

    def test_a_log_can_be_read_and_deleted(self):
        publish("audit.door", "opened", {"by": "ada"})
        ((seq, name, data, _),) = logs.latest("audit.door")
        self.assertEqual((seq, name, data), (1, "opened", {"by": "ada"}))
        logs.forget("audit.door")
        self.assertEqual(logs.latest("audit.door"), [])

    def test_an_event_belongs_to_the_transaction_of_the_named_alias(self):
        billing.pay(self.order.pk)
        self.assertTrue(Payment.objects.using("billing").exists())
        self.events.assert_published(self.topic, "paid")
        with transaction.atomic(using="billing"), self.assertRaises(AmbiguousTransaction):
            publish(self.topic, "paid")

    def test_a_card_subscribes_from_its_own_cursor(self):
        before = head(self.topic)
        publish(OrderTopic(pk=self.order.pk), "paid")
        answer = self.client.get(f"/orders/{self.order.pk}/card/")
        self.assertNotContains(answer, before)
        self.assertContains(answer, f'since="{head(self.topic)}"')

    @skipUnless(HAS_POLICY, "these settings have no content security policy")
    def test_the_script_has_the_nonce_of_the_policy(self):
        answer = self.client.get(f"/orders/{self.order.pk}/")
        nonce = re.search("'nonce-([^']+)'", answer["Content-Security-Policy"])
        self.assertContains(answer, f'nonce="{nonce[1]}"', count=1)

    async def test_a_consumer_of_the_project_works_next_to_ours(self):
        from mysite.asgi import application

        game = WebsocketCommunicator(application, "/game/")
        self.assertTrue((await game.connect())[0])
        await game.send_json_to("ping")
        self.assertEqual(await game.receive_json_from(), {"echo": "ping"})
        await game.disconnect()
