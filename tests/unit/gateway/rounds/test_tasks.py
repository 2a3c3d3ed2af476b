"""Ids of tasks, and who hears of a task that changed."""

import json

from gateway.rounds.tasks import TaskIds
from gateway.sessions.subscriptions import Subscriber

TASK = b'{"task":{"taskId":"own-1","status":"working"}}'


def subscriber(heard: list[bytes]) -> Subscriber:
    def put(message: bytes) -> bool:
        heard.append(message)
        return True

    return Subscriber("key-a", put, lambda: True)


def test_an_id_leads_back_for_its_own_key_alone():
    ids = TaskIds(b"secret")
    id = ids.mint("remote", "key-a", "own-1")
    assert ids.read(id, "key-a") == ("remote", "own-1")
    assert ids.read(id, "key-b") is None
    assert TaskIds(b"another").read(id, "key-a") is None
    assert ids.mint("remote", "key-a", "own-1") == id


def test_a_change_is_told_to_the_session_that_began_the_task_under_the_id_it_knows():
    ids = TaskIds(b"secret")
    heard: list[bytes] = []
    begun = json.loads(ids.exposed(TASK, "remote", "key-a", subscriber(heard)))
    ids.changed("remote", b'{"taskId":"own-1","status":"completed","ttl":null}')
    (message,) = [json.loads(one) for one in heard]
    assert message == {
        "jsonrpc": "2.0",
        "method": "notifications/tasks/status",
        "params": {"taskId": begun["task"]["taskId"], "status": "completed", "ttl": None},
    }


def test_looking_at_a_task_from_elsewhere_takes_its_news_from_nobody():
    ids = TaskIds(b"secret")
    heard: list[bytes] = []
    ids.exposed(TASK, "remote", "key-a", subscriber(heard))
    ids.exposed(b'{"taskId":"own-1","status":"working"}', "remote", "key-a")
    ids.changed("remote", b'{"taskId":"own-1","status":"failed"}')
    assert len(heard) == 1


def test_a_task_of_nobody_and_one_of_another_remote_are_told_to_nobody():
    ids = TaskIds(b"secret")
    heard: list[bytes] = []
    ids.exposed(TASK, "remote", "key-a", subscriber(heard))
    ids.changed("remote", b'{"taskId":"own-2","status":"failed"}')
    ids.changed("other", b'{"taskId":"own-1","status":"failed"}')
    assert heard == []
