"""The test client: the real consumer and hub without a server.

Covers client.py, environment.py and executor.py.
"""

import datetime
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import SynchronousOnlyOperation
from django.db import transaction
from django.test import TestCase, override_settings

from realtime import Topic, action, apublish, log, presence, publish, register, user_topic
from realtime.exceptions import CommandRefused, ConnectionEnded
from realtime.protocol.events import Member
from realtime.protocol.names import presence_log
from realtime.stores import get_store
from realtime.testing import RealtimeClient, capture_events
from realtime.topics import isolated


@contextmanager
def topic(cls: type[Topic], pattern: str) -> Iterator[type[Topic]]:
    """Register a topic for a test."""
    with isolated():
        yield register(pattern)(cls)


class ClientTests(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = User.objects.create_user("ada")
        cls.bo = User.objects.create_user("bo")

    def test_the_client_receives_the_events_of_its_topics_in_order(self) -> None:
        with RealtimeClient(self.ada) as browser:
            answer = browser.subscribe("orders.42")
            assert answer["cursor"] == str(log.head("orders.42"))
            sent = [publish("orders.42", "counted", number) for number in range(3)]
            publish("orders.43", "counted", "of another topic")
            assert [browser.receive_event() for _ in range(3)] == sent
            browser.assert_no_event()

    def test_the_client_knows_its_user(self) -> None:
        with RealtimeClient(self.ada) as browser:
            assert browser.user_id == str(self.ada.pk)
            assert browser.topics == [str(user_topic(self.ada)), "everyone"]
        for anonymous in (None, AnonymousUser()):
            with RealtimeClient(anonymous) as browser:
                assert browser.user_id is None
                assert browser.topics == []
                browser.subscribe("public.news")

    def test_each_client_has_the_permissions_of_its_user(self) -> None:
        with RealtimeClient(self.ada) as ada, RealtimeClient(self.bo) as bo:
            mine = user_topic(self.ada)
            ada.subscribe(mine)
            with pytest.raises(CommandRefused) as refusal:
                bo.subscribe(mine)
            assert refusal.value.code == "forbidden"
            with pytest.raises(CommandRefused) as unknown:
                bo.subscribe("nowhere.at.all")
            assert str(unknown.value) == str(refusal.value)
            publish(mine, "ready")
            assert ada.receive_event().name == "ready"
            bo.assert_no_event()

    def test_an_event_of_a_transaction_arrives_with_the_commit(self) -> None:
        with RealtimeClient(self.ada) as browser:
            browser.subscribe("orders.42")
            with transaction.atomic():
                publish("orders.42", "shipped")
                browser.assert_no_event()
            assert browser.receive_event().name == "shipped"

    def test_the_client_receives_the_events_of_views(self) -> None:
        with RealtimeClient() as browser:
            browser.subscribe("public.news")
            self.client.get("/publish/sync/")
            self.client.get("/publish/atomic/")
            self.client.get("/publish/async/")
            assert [browser.receive_event().name for _ in range(3)] == ["sync", "atomic", "async"]

    def test_the_client_can_start_from_a_cursor_and_from_the_newest_events(self) -> None:
        with capture_events(), RealtimeClient(self.ada) as browser:
            first = publish("orders.42", "counted", 1)
            assert first is not None
            publish("orders.42", "counted", 2)
            assert browser.subscribe("orders.42", since=first.cursor)["recovered"] is True
            assert browser.receive_event().data == 2
            browser.unsubscribe("orders.42")
            publish("orders.42", "counted", 3)
            browser.assert_no_event()
            assert browser.subscribe("orders.42", last=2)["replayed"] == 2
            assert [browser.receive_event().data for _ in range(2)] == [2, 3]
            log.delete("orders.42")
            assert browser.receive_frame("reset")["topic"] == "orders.42"

    def test_client_events_reach_other_clients(self) -> None:
        with RealtimeClient(self.ada) as ada, RealtimeClient(self.bo) as bo:
            bo.subscribe("orders.42")
            ada.publish("orders.42", "typing", {"on": True})
            ada.publish("orders.42", "comment", "hello")
            received = [bo.receive_event() for _ in range(2)]
            assert [(event.name, event.data, event.seq) for event in received] == [
                ("typing", {"on": True}, None),
                ("comment", "hello", 1),
            ]
            with pytest.raises(CommandRefused, match="forbidden"):
                ada.publish("orders.42", "shipped")

    def test_data_is_encoded_as_publish_encodes_it(self) -> None:
        with RealtimeClient(self.ada) as ada:
            ada.subscribe("orders.42")
            ada.publish("orders.42", "comment", {"on": datetime.date(2026, 11, 24)})
            assert ada.receive_event().data == {"on": "2026-11-24"}

    def test_commands_that_are_too_large_or_too_deeply_nested_are_refused_at_once(self) -> None:
        deep: Any = 0
        for _ in range(150):
            deep = [deep]
        with RealtimeClient(self.ada) as ada:
            for code, data in [("too_large", "x" * 70_000), ("bad_frame", deep)] * 6:
                with pytest.raises(CommandRefused) as refusal:
                    ada.publish("orders.42", "comment", data)
                assert refusal.value.code == code
            ada.publish("orders.42", "comment", "small")

    def test_actions_return_a_result_or_are_refused(self) -> None:
        with RealtimeClient(self.ada) as browser:
            assert browser.call("orders.42", "rename", "desk") == {
                "pk": 42,
                "name": "desk",
                "by": "ada",
            }
            with pytest.raises(CommandRefused, match="unknown_action"):
                browser.call("orders.42", "not_an_action")
            with pytest.raises(CommandRefused, match="invalid: not a name"):
                browser.call("orders.42", "boom", "invalid")

    def test_code_of_the_project_runs_in_the_thread_and_transaction_of_the_test(self) -> None:
        threads: list[threading.Thread] = []

        class Rows(Topic):
            pk: int

            def can_subscribe(self, user: Any) -> bool:
                threads.append(threading.current_thread())
                return User.objects.filter(pk=self.pk).exists()

            async def can_publish(self, user: Any, event: str) -> bool:
                return await User.objects.filter(pk=self.pk).aexists()

            client_events = {"typing"}

            @action
            def create(self, user: Any, name: str) -> str:
                threads.append(threading.current_thread())
                with transaction.atomic():
                    created = User.objects.create_user(name)
                    publish(self, "created", created.username)
                return created.username

            @action
            async def acreate(self, user: Any, name: str) -> str:
                created = await User.objects.acreate(username=name)
                await apublish(self, "created", created.username)
                return created.username

        with topic(Rows, "rows.<int:pk>"), RealtimeClient(self.ada) as browser:
            browser.subscribe(f"rows.{self.bo.pk}")
            browser.publish(f"rows.{self.bo.pk}", "typing")
            assert browser.receive_event().name == "typing"
            with pytest.raises(CommandRefused):
                browser.subscribe("rows.999999")
            for method, name in (("create", "cy"), ("acreate", "di")):
                assert browser.call(f"rows.{self.bo.pk}", method, name) == name
                assert browser.receive_event().data == name
            assert {"cy", "di"} <= set(User.objects.values_list("username", flat=True))
        assert set(threads) == {threading.current_thread()}

    def test_later_code_of_the_test_does_not_run_on_the_loop_of_the_hub(self) -> None:
        async def name() -> str:
            return threading.current_thread().name

        with RealtimeClient(self.ada) as browser:
            browser.subscribe("orders.42")
            assert async_to_sync(name)() != "realtime-testing"

    def test_an_unexpected_event_fails_the_test(self) -> None:
        with RealtimeClient(self.ada) as browser:
            browser.subscribe("orders.42")
            publish("orders.42", "surprise", 7)
            with pytest.raises(AssertionError, match=r"no event should have arrived.*surprise"):
                browser.assert_no_event()

    def test_an_event_that_does_not_arrive_fails_the_test(self) -> None:
        message = r"a frame event did not arrive within 0.05"
        with (
            RealtimeClient(self.ada, timeout=0.05) as browser,
            pytest.raises(AssertionError, match=message),
        ):
            browser.receive_event()

    def test_raw_frames_can_be_sent(self) -> None:
        with RealtimeClient(self.ada) as browser:
            browser.send_frame({"type": "dance", "id": 77})
            assert browser.receive_frame()["code"] == "unknown_type"

    def test_a_closed_connection_raises_the_reason(self) -> None:
        limits = {"commands_per_second": 1, "commands_burst": 1, "pending": 1}
        with (
            override_settings(REALTIME={"LIMITS": limits}),
            RealtimeClient(self.ada) as browser,
        ):
            with pytest.raises(ConnectionEnded) as ended:
                for number in range(100):
                    browser.send_frame({"type": "ping", "id": number})
                while True:
                    browser.receive_frame("pong")
            assert ended.value.code == browser.close_code == 4429
            with pytest.raises(ConnectionEnded):
                browser.send_frame({"type": "ping"})

    def test_a_client_can_connect_again(self) -> None:
        browser = RealtimeClient(self.ada)
        with capture_events():
            with browser:
                cursor = browser.subscribe("orders.42")["cursor"]
            publish("orders.42", "missed")
            with pytest.raises(RuntimeError, match="not connected"):
                browser.receive_event()
            with browser:
                assert browser.subscribe("orders.42", since=cursor)["recovered"] is True
                assert browser.receive_event().name == "missed"
                with pytest.raises(RuntimeError, match="already connected"):
                    browser.__enter__()

    def test_no_thread_is_left_running(self) -> None:
        before = set(threading.enumerate())
        with RealtimeClient(self.ada) as browser:
            browser.subscribe("orders.42")
            assert set(threading.enumerate()) - before
        assert set(threading.enumerate()) <= before

    # Coroutines

    async def test_every_method_has_an_async_version(self) -> None:
        async with capture_events() as events, RealtimeClient(self.ada) as browser:
            await browser.asubscribe("orders.42")
            await apublish("orders.42", "counted", 1)
            assert (await browser.areceive_event()).data == 1
            await browser.apublish("orders.42", "comment", "hello")
            assert (await browser.areceive_event()).name == "comment"
            assert (await browser.acall("orders.42", "rename", "x"))["by"] == "ada"
            await self.async_client.get("/publish/atomic/")
            await browser.asend_frame({"type": "ping", "id": 99})
            assert (await browser.areceive_frame("pong"))["id"] == 99
            await browser.aunsubscribe("orders.42")
            await browser.aassert_no_event()
            with pytest.raises(SynchronousOnlyOperation, match="with the prefix a"):
                browser.receive_event()
        assert [event.name for event in events] == ["counted", "comment", "atomic"]

    async def test_with_in_a_coroutine_raises_and_suggests_async_with(self) -> None:
        with pytest.raises(SynchronousOnlyOperation, match="async with"):
            RealtimeClient(self.ada).__enter__()


class MembersTests(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.ada = User.objects.create_user("ada")
        cls.bo = User.objects.create_user("bo")

    def names(self, client: RealtimeClient) -> list[str]:
        return [member.info["name"] for member in client.members("room.lobby")]

    def test_members_are_the_users_who_follow_the_topic_now(self) -> None:
        with RealtimeClient(self.ada) as ada, RealtimeClient(self.ada) as tab:
            assert ada.members("room.lobby") == []
            for client in (ada, tab):
                client.subscribe("room.lobby")
            member = Member(str(user_topic(self.ada)), str(self.ada.pk), {"name": "ada"})
            assert ada.members("room.lobby") == [member]
            assert presence.members("room.lobby") == [member]
            with RealtimeClient(self.bo) as bo:
                bo.subscribe("room.lobby")
                assert self.names(bo) == self.names(ada) == ["ada", "bo"]
            assert self.names(ada) == ["ada"]
            tab.unsubscribe("room.lobby")
            assert self.names(ada) == ["ada"]
            ada.unsubscribe("room.lobby")
            assert self.names(ada) == []

    def test_a_refused_member_list_raises_the_reason(self) -> None:
        with RealtimeClient(self.ada) as ada:
            for topic, code in [("orders.1", "unsupported"), ("private.1", "forbidden")]:
                with pytest.raises(CommandRefused) as refusal:
                    ada.members(topic)
                assert refusal.value.code == code

    def test_joins_and_leaves_do_not_appear_among_captured_events(self) -> None:
        with capture_events() as events, RealtimeClient(self.ada) as ada:
            ada.subscribe("room.lobby")
            with RealtimeClient() as visitor:
                visitor.subscribe("room.lobby")
                assert len(ada.members("room.lobby")) == 2
                assert ada.receive_frame("members")["members"] == []
                joins = [ada.receive_frame("join")["member"]["info"]["name"] for _ in range(2)]
                assert joins == ["ada", ""]
            assert self.names(ada) == ["ada"]
            assert ada.receive_frame("leave")["member"]["user"] is None
            ada.assert_no_event()
            events.assert_not_published()
            publish("room.lobby", "said")
            assert ada.receive_event().name == "said"
        assert [event.name for event in events] == ["said"]

    def test_a_member_list_in_several_frames_is_returned_as_one_list(self) -> None:
        with RealtimeClient(self.ada) as ada:
            texts = {
                f"user.{pk}": json.dumps({"id": f"user.{pk}", "user": str(pk), "info": "x" * 900})
                for pk in range(400)
            }
            get_store().change_members(presence_log("room.lobby"), "a", texts, [])
            assert [member.id for member in ada.members("room.lobby")] == list(texts)

    @override_settings(REALTIME={"LIMITS": {"members": 2}})
    def test_members_beyond_the_limit_are_not_listed(self) -> None:
        with RealtimeClient(self.ada) as ada:
            log, fields = presence_log("room.lobby"), {"user": None, "info": None}
            texts = {uid: json.dumps({"id": uid, **fields}) for uid in ("user.1", "user.2")}
            get_store().change_members(log, "a", texts, [])
            assert len(ada.members("room.lobby")) == 2
            get_store().change_members(log, "a", {"user.3": "{}"}, [])
            with pytest.raises(CommandRefused, match="3 members") as refused:
                ada.members("room.lobby")
            assert refused.value.code == "too_many_members"

    async def test_a_coroutine_can_list_members(self) -> None:
        async with RealtimeClient(self.ada) as ada:
            await ada.asubscribe("room.lobby")
            (member,) = await ada.amembers("room.lobby")
            assert member.info == {"name": "ada"}


async def test_the_client_works_on_the_event_loop_of_pytest() -> None:
    async with RealtimeClient() as browser:
        await browser.asubscribe("public.news")
        await apublish("public.news", "said")
        assert (await browser.areceive_event()).name == "said"


def test_the_client_needs_no_database() -> None:
    with RealtimeClient() as browser:
        browser.subscribe("public.news")
        publish("public.news", "said")
        assert browser.receive_event().name == "said"
