"""The conversation with one client: topics, answers, limits, and its end."""

import contextlib
import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from realtime.exceptions import (
    DataTooLarge,
    InvalidTopicName,
    ProtocolError,
    PublishError,
    StoreUnavailable,
    UnknownTopic,
)
from realtime.protocol import dialogue
from realtime.protocol.commands import Call, Ping, Subscribe, Unsubscribe
from realtime.protocol.cursors import compose, entry
from realtime.protocol.dialogue import BAD_FRAMES, Dialogue, forbidden, refusal
from realtime.protocol.events import Cursor
from realtime.protocol.frames import CloseCode, frame

CURSOR = Cursor("epoch", 17, 0xABC)


@dataclass(frozen=True)
class Limits:
    frame_bytes: int = 65_536
    topics: int = 3
    commands_per_second: int = 10
    commands_burst: int = 20
    publish_bytes_per_second: int = 1_000
    publish_bytes_burst: int = 4_000
    pending: int = 2


def talk(**limits):
    return Dialogue(Limits(**{"commands_burst": 1000} | limits))


def receive(talk, type="ping", now=0.0, **fields):
    return talk.receive_text(frame(type, **fields), now)


def refused(talk, text, now=0.0):
    with pytest.raises(ProtocolError) as caught:
        talk.receive_text(text, now)
    return caught.value


def follow(talk, topic="a", **fields):
    command = receive(talk, "subscribe", topic=topic, **fields)
    talk.subscribed(command, CURSOR)


def test_every_exported_name_exists():
    assert all(hasattr(dialogue, name) for name in dialogue.__all__)


# Topics


def test_a_topic_is_followed_from_subscribe_to_unsubscribe():
    d = talk()
    command = receive(d, "subscribe", topic="a", id=1)
    assert d.topics == {"a"}
    assert json.loads(d.subscribed(command, CURSOR)) == {
        "type": "subscribed",
        "id": 1,
        "topic": "a",
        "cursor": "epoch.17.00000abc",
        "replayed": 0,
    }
    assert d.topics == {"a"}
    command = receive(d, "unsubscribe", topic="a", id=2)
    assert d.topics == set()
    assert d.unsubscribed(command) == (
        '{"type":"unsubscribed","id":2,"topic":"a","reason":"asked"}'
    )


def test_recovered_is_sent_only_if_the_subscribe_had_since():
    d = talk()
    command = receive(d, "subscribe", topic="a", since=str(CURSOR))
    assert '"recovered":false,"replayed":0' in d.subscribed(command, CURSOR, recovered=False)
    command = receive(d, "subscribe", topic="b", last=3)
    text = d.subscribed(command, CURSOR, recovered=True, replayed=3)
    assert '"replayed":3' in text
    assert "recovered" not in text


@pytest.mark.parametrize("answered", [True, False])
def test_a_second_subscribe_to_a_topic_is_an_error_and_changes_nothing(answered):
    d = talk()
    first = receive(d, "subscribe", topic="a", id=1)
    if answered:
        d.subscribed(first, CURSOR)
    error = refused(d, frame("subscribe", topic="a", id=2))
    assert (error.code, error.id, error.close_code) == ("already_subscribed", 2, None)
    assert d.topics == {"a"}


def test_a_refused_subscribe_does_not_follow_the_topic():
    d = talk()
    command = receive(d, "subscribe", topic="a", id=1)
    assert '"code":"forbidden"' in d.refused(command, UnknownTopic("a"))
    assert d.topics == set()
    follow(d, "a")


def test_a_subscribe_with_a_bad_cursor_does_not_follow_the_topic():
    d = talk()
    assert refused(d, frame("subscribe", topic="a", id=1, since="x")).code == "bad_cursor"
    assert d.topics == set()


def test_a_composite_cursor_must_contain_the_topic():
    cursor = Cursor("e", 5, 1)
    composite = compose([entry("a", cursor), entry("b", Cursor("e", 7, 2))])
    d = talk()
    assert receive(d, "subscribe", topic="a", since=composite).since == cursor
    error = refused(d, frame("subscribe", topic="c", id=1, since=composite))
    assert error.code == "bad_cursor"
    assert "does not contain 'c'" in error.reason
    assert "c" not in d.topics


def test_exceeding_the_topic_limit_is_an_error_until_a_topic_is_unsubscribed():
    d = talk(topics=2)
    follow(d, "a")
    receive(d, "subscribe", topic="b")
    error = refused(d, frame("subscribe", topic="c", id=3))
    assert (error.code, error.id, error.close_code) == ("too_many_topics", 3, None)
    receive(d, "unsubscribe", topic="b")
    follow(d, "c")


def test_unsubscribing_from_a_topic_that_is_not_followed_is_answered_the_same():
    d = talk()
    assert '"unsubscribed"' in d.unsubscribed(receive(d, "unsubscribe", topic="a"))


def test_a_withdrawn_topic_can_be_subscribed_again():
    d = talk()
    follow(d, "a")
    assert d.withdrawn("a") == '{"type":"unsubscribed","topic":"a","reason":"forbidden"}'
    assert d.topics == set()
    follow(d, "a")


def test_a_late_answer_does_not_undo_a_newer_command():
    d = talk()
    first = receive(d, "subscribe", topic="a", id=1)
    unsubscribe = receive(d, "unsubscribe", topic="a", id=2)
    second = receive(d, "subscribe", topic="a", id=3)
    d.refused(first, forbidden())
    assert d.topics == {"a"}
    d.unsubscribed(unsubscribe)
    d.withdrawn("a")
    assert d.topics == {"a"}  # the second subscribe has no answer yet
    last = receive(d, "unsubscribe", topic="a", id=4)
    d.subscribed(second, CURSOR)
    assert d.topics == set()
    d.unsubscribed(last)


# Other answers


def test_each_command_has_an_answer():
    d = talk()
    publish = receive(d, "publish", topic="a", event="typing", id=3)
    assert d.ok(publish) == '{"type":"ok","id":3}'
    call = receive(d, "call", topic="a", action="rename", id=4)
    assert d.result(call, '{"é":null}') == '{"type":"result","id":4,"data":{"é":null}}'
    assert d.result(receive(d, "call", topic="a", action="rename"), "null") == (
        '{"type":"result","data":null}'
    )
    assert d.pong(receive(d, "ping")) == '{"type":"pong"}'
    assert d.pong(receive(d, "ping", id=5)) == '{"type":"pong","id":5}'


def test_an_error_says_whether_to_retry():
    d = talk()
    assert d.error(forbidden(7)) == (
        '{"type":"error","id":7,"code":"forbidden","message":"this topic does not exist, or you '
        'may not do this with it","retry":false}'
    )
    assert d.error(ProtocolError("busy", "\ud800")).endswith('"message":"\\ud800","retry":true}')


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownTopic("secret.1", ["secret.<int:pk>"]), "forbidden"),
        (InvalidTopicName("secret", "it is a secret"), "forbidden"),
        (DataTooLarge(10, 5), "bad_data"),
        (StoreUnavailable("secret", "secret"), "unavailable"),
        (PublishError("secret"), "unavailable"),
        (RuntimeError("secret"), "failed"),
    ],
)
def test_a_refusal_reveals_no_details_of_the_error(error, code):
    refused = refusal(error, 5)
    assert (refused.code, refused.id, refused.close_code) == (code, 5, None)
    assert "secret" not in refused.reason


def test_unknown_and_forbidden_topics_look_the_same():
    d = talk()
    first = receive(d, "subscribe", topic="orders.1", id=1)
    second = receive(d, "subscribe", topic="nothing", id=1)
    assert d.refused(first, forbidden()) == d.refused(second, UnknownTopic("nothing"))


# Limits


def test_the_number_of_unanswered_commands_is_limited():
    d = talk(pending=2)
    first = receive(d, "call", topic="a", action="x", id=1)
    receive(d, "publish", topic="a", event="x", id=2)
    error = refused(d, frame("members", topic="a", id=3))
    assert (error.code, error.id, error.close_code) == ("busy", 3, None)
    receive(d, "ping")
    receive(d, "subscribe", topic="a")
    d.refused(first, RuntimeError())
    receive(d, "members", topic="a", id=3)


def test_a_member_list_in_several_frames_is_one_answer():
    d = talk(pending=1)
    command = receive(d, "members", topic="a", id=3)
    assert refused(d, frame("members", topic="a", id=4)).code == "busy"
    answers = d.members(command, ['{"id":"x"}'] * 3, 7, max_characters=10)
    assert [json.loads(text)["id"] for text in answers] == [3] * len(answers)
    assert len(answers) > 1
    receive(d, "members", topic="a", id=5)


def test_all_topics_can_be_subscribed_and_unsubscribed_at_once():
    d = talk(topics=50, pending=1)
    topics = [f"t{n}" for n in range(50)]
    for type in ("subscribe", "unsubscribe"):
        for topic in topics:
            receive(d, type, topic=topic)
    assert d.topics == set()


def test_subscribing_and_unsubscribing_in_a_loop_is_limited():
    d = talk(topics=2, pending=3)
    commands = []
    for _ in range(3):
        commands.append(receive(d, "subscribe", topic="a"))
        commands.append(receive(d, "unsubscribe", topic="a"))
    commands.append(receive(d, "subscribe", topic="a"))
    assert refused(d, frame("unsubscribe", topic="a", id=1)).code == "busy"
    assert d.topics == {"a"}
    d.subscribed(commands[0], CURSOR)
    receive(d, "unsubscribe", topic="a", id=1)


def test_commands_above_the_rate_limit_are_refused_with_their_id_until_the_bucket_refills():
    d = talk(commands_per_second=10, commands_burst=20)
    for _ in range(20):
        receive(d, now=100.0)
    error = refused(d, frame("subscribe", topic="a", id=7), now=100.0625)
    assert (error.code, error.id, error.close_code) == ("rate_limited", 7, None)
    assert d.topics == set()
    receive(d, now=100.125)
    refused(d, frame("ping"), now=100.125)
    for _ in range(20):
        receive(d, now=200.0)


def test_a_client_that_does_not_slow_down_is_closed_with_4429():
    d = talk(commands_per_second=10, commands_burst=20)
    for _ in range(20):
        receive(d)
    for _ in range(20):
        assert refused(d, frame("ping")).close_code is None
    error = refused(d, frame("ping"))
    assert (error.code, error.close_code) == ("rate_limited", 4429)
    assert d.is_closing


def test_a_client_slightly_above_the_rate_limit_is_never_closed():
    d = talk(commands_per_second=10, commands_burst=20)
    refusals = 0
    for tick in range(5000):  # 15 per second
        try:
            receive(d, now=tick / 15)
        except ProtocolError as error:
            assert error.close_code is None  # noqa: PT017 - most of them are not refused
            refusals += 1
    assert 1000 < refusals < 2000


def test_frames_that_are_not_commands_count_towards_the_rate_limit():
    d = talk(commands_per_second=10, commands_burst=5)
    for _ in range(5):
        refused(d, frame("x"))
    assert refused(d, frame("x", id=2)).code == "rate_limited"


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "ping"},
        {"type": "auth", "token": "x"},
        {"type": "members", "topic": "a"},
        {"type": "call", "topic": "a", "action": "b"},
        {"type": "publish", "topic": "a", "event": "b"},
        {"type": "unsubscribe", "topic": "a"},
        {"type": "no_such_command"},
    ],
    ids=lambda fields: fields["type"],
)
def test_every_kind_of_frame_counts_towards_the_rate_limit_and_ends_in_4429(fields):
    d = talk(commands_per_second=10, commands_burst=5, pending=100)
    errors = []
    while not d.is_closing:
        assert len(errors) < 20, "it was never closed"
        with contextlib.suppress(ProtocolError):
            errors.append(None)
            d.receive_text(json.dumps({"id": 1, **fields}), 0.0)
    assert len(errors) == 11  # 5 within the rate, 5 refused, 1 closed


def test_publishes_above_the_rate_in_bytes_are_refused_with_their_id():
    d = talk(publish_bytes_per_second=1_000, publish_bytes_burst=4_000)

    def publish(size, now, id=None):
        text = frame("publish", topic="a", event="b", data="", id=id)
        text = text.replace('"data":""', f'"data":"{"é" * ((size - len(text)) // 2)}"')
        command = d.receive_text(text, now)
        d.ok(command)

    for _ in range(4):
        publish(1_000, 100.0)
    with pytest.raises(ProtocolError) as caught:
        publish(1_000, 100.0, id=7)
    error = caught.value
    assert (error.code, error.id, error.close_code) == ("rate_limited", 7, None)
    assert "1000 bytes a second" in error.reason
    receive(d, "call", topic="a", action="b", data="x" * 5_000, now=100.0)  # only publishes count
    publish(1_000, 101.0)
    with pytest.raises(ProtocolError):
        publish(1_000, 101.5)
    publish(1_000, 102.0)


def test_a_publish_larger_than_the_burst_is_accepted_after_a_pause():
    d = talk(publish_bytes_per_second=1_000, publish_bytes_burst=4_000)
    for now in (100.0, 104.0):
        d.ok(receive(d, "publish", topic="a", event="b", data="x" * 10_000, now=now))
        refused(d, frame("publish", topic="a", event="b"), now=now)


def test_a_client_that_keeps_publishing_above_the_rate_in_bytes_is_closed_with_4429():
    d = talk(commands_burst=1000, publish_bytes_burst=1)
    text = frame("publish", topic="a", event="b")
    d.ok(d.receive_text(text, 0.0))
    for _ in range(1000):
        error = refused(d, text)
        assert (error.code, error.close_code) == ("rate_limited", None)
    assert refused(d, text).close_code == 4429
    assert d.is_closing


def test_the_text_of_an_error_is_cut_at_1000_characters():
    d = talk()
    for length in (999, 1000):
        text = "é" * length
        assert json.loads(d.error(ProtocolError("invalid", text)))["message"] == text
    cut = json.loads(d.error(ProtocolError("invalid", "é" * 1001)))["message"]
    assert cut == "é" * 999 + "…"


def test_a_clock_that_goes_back_adds_no_tokens():
    d = talk(commands_per_second=10, commands_burst=2)
    receive(d, now=100.0)
    receive(d, now=100.0)
    for now in (0.0, 100.0):
        refused(d, frame("ping"), now)


# The end


@pytest.mark.parametrize("text", ["nonsense", "[]", "x" * 70_000])
def test_ten_bad_frames_in_a_row_close_with_4400(text):
    d = talk()
    for _ in range(BAD_FRAMES - 1):
        assert refused(d, text).close_code is None
    receive(d)
    for _ in range(BAD_FRAMES - 1):
        assert refused(d, text).close_code is None
    assert not d.is_closing
    assert refused(d, text).close_code == 4400
    assert d.is_closing


def test_refused_commands_and_unknown_types_are_not_bad_frames():
    d = talk()
    for _ in range(2 * BAD_FRAMES):
        refused(d, frame("from_the_future"))
        refused(d, frame("subscribe", topic="a..b"))
        refused(d, frame("subscribe", topic="a", since="x"))
    assert not d.is_closing


@given(st.binary())
def test_a_binary_frame_closes_with_4400(data):
    d = talk()
    with pytest.raises(ProtocolError, match="text frames") as caught:
        d.receive_bytes(data)
    assert caught.value.close_code == 4400
    assert d.is_closing


def test_frames_are_ignored_once_a_close_was_announced():
    d = talk()
    follow(d, "a")
    assert d.closing(CloseCode.RESTART, 2.4) == (
        '{"type":"closing","reason":"restart","retry_after":2.4}'
    )
    assert d.receive_text(frame("subscribe", topic="b"), 0.0) is None
    assert d.receive_text("nonsense", 0.0) is None
    d.receive_bytes(b"x")
    assert d.topics == {"a"}


def test_a_final_close_has_no_retry_after():
    assert talk().closing(CloseCode.SIGNED_OUT) == '{"type":"closing","reason":"signed_out"}'


class Conversation(RuleBasedStateMachine):
    """Commands in any order; the answers keep the order of commands within each topic.

    The model is the server's view: a queue of unanswered commands for each topic.
    """

    def __init__(self):
        super().__init__()
        self.limits = Limits(commands_burst=10**6, pending=3)
        self.dialogue = Dialogue(self.limits)
        self.queues = {topic: [] for topic in "abcde"}
        self.active = set()  # topics whose events the server pushes
        self.wanted = set()  # topics that the client subscribed to without being refused

    @rule(topic=st.sampled_from("abcde"))
    def subscribe(self, topic):
        try:
            command = receive(self.dialogue, "subscribe", topic=topic, id=1)
        except ProtocolError as error:
            codes = {"busy"} if self.following() >= 9 else set()
            codes |= {"already_subscribed"} if topic in self.wanted else set()
            codes |= {"too_many_topics"} if len(self.wanted) == 3 else set()
            assert error.code in codes  # noqa: PT017 - most of them are not refused
        else:
            assert topic not in self.wanted
            assert len(self.wanted) < 3
            self.wanted.add(topic)
            self.queues[topic].append(command)

    @rule(topic=st.sampled_from("abcde"))
    def unsubscribe(self, topic):
        try:
            command = receive(self.dialogue, "unsubscribe", topic=topic)
        except ProtocolError as error:
            assert error.code == "busy"  # noqa: PT017 - most of them are not refused
            assert self.following() == 9
        else:
            self.wanted.discard(topic)
            self.queues[topic].append(command)

    @rule(topic=st.sampled_from("abcde"))
    def call(self, topic):
        waiting = sum(isinstance(c, Call) for queue in self.queues.values() for c in queue)
        if waiting < self.limits.pending:
            self.queues[topic].append(receive(self.dialogue, "call", topic=topic, action="x"))
        else:
            assert refused(self.dialogue, frame("call", topic=topic, action="x")).code == "busy"

    @rule(text=st.text())
    def nonsense(self, text):
        refused(self.dialogue, text)
        assert isinstance(receive(self.dialogue), Ping)

    @rule(topic=st.sampled_from("abcde"), success=st.booleans())
    def answer(self, topic, success):
        if not self.queues[topic]:
            return
        command = self.queues[topic].pop(0)
        match command:
            case Subscribe() if success:
                json.loads(self.dialogue.subscribed(command, CURSOR))
                self.active.add(topic)
            case Unsubscribe():
                json.loads(self.dialogue.unsubscribed(command))
                self.active.discard(topic)
            case Call() if success:
                json.loads(self.dialogue.result(command, "{}"))
            case _:
                json.loads(self.dialogue.refused(command, forbidden()))
                waiting = any(isinstance(c, Subscribe | Unsubscribe) for c in self.queues[topic])
                if isinstance(command, Subscribe) and not waiting:
                    self.wanted.discard(topic)

    @rule(topic=st.sampled_from("abcde"))
    def withdraw(self, topic):
        if topic in self.active:
            self.active.discard(topic)
            json.loads(self.dialogue.withdrawn(topic))
            if not any(isinstance(c, Subscribe | Unsubscribe) for c in self.queues[topic]):
                self.wanted.discard(topic)

    def following(self):
        commands = (c for queue in self.queues.values() for c in queue)
        return sum(isinstance(c, Subscribe | Unsubscribe) for c in commands)

    @invariant()
    def the_topics_are_those_that_the_client_wants(self):
        assert self.dialogue.topics == self.wanted

    @invariant()
    def a_topic_without_unanswered_commands_is_followed_exactly_if_it_is_pushed(self):
        for topic, queue in self.queues.items():
            if not any(isinstance(c, Subscribe | Unsubscribe) for c in queue):
                assert (topic in self.active) == (topic in self.dialogue.topics)


TestConversation = Conversation.TestCase
