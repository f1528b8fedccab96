"""Make moto's queues safe under a threaded server, and tell listeners when one changes.

moto's own code hands one message to two receivers that ask at the same time, loses a message that is sent
while another is deleted, forgets the deduplication ids of deleted messages, keeps expired messages, notices a
message whose visibility timeout has passed only once a second, and calls event source mappings inside
``SendMessage``. Every operation on a queue's messages therefore runs under the queue's lock here. moto also
looks at all messages of a queue to send or to delete one: thousands that wait made each of them cost 15 ms.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from copy import copy, deepcopy
from typing import Any

from moto.core.utils import unix_time_millis
from moto.sqs.exceptions import ReceiptHandleIsInvalid
from moto.sqs.models import DEDUPLICATION_TIME_IN_SECONDS, Queue, SQSBackend, _filter_message_attributes


def install() -> None:
    """Replace what moto does with the messages of a queue."""
    Queue.add_message = _add_message
    SQSBackend.receive_message = _receive_message
    Queue.delete_message = _locked(_delete_message, lambda queue, *_, **__: queue)
    read_attributes = Queue.attributes.fget
    Queue.attributes = property(lambda queue: _Attributes(queue, read_attributes))
    Queue.messages = property(_messages)
    Queue.approximate_number_of_messages = property(lambda queue: _count(queue, _available))
    Queue.approximate_number_of_messages_not_visible = property(lambda queue: _count(queue, _hidden))
    Queue.approximate_number_of_messages_delayed = property(lambda queue: _count(queue, _delayed))
    for name in ("change_message_visibility", "purge_queue"):
        setattr(SQSBackend, name, _locked_by_name(getattr(SQSBackend, name)))
    SQSBackend.delete_queue = _announced(SQSBackend.delete_queue)


_observers: list[Callable[[Any], None]] = []


def observe(observer: Callable[[Any], None]) -> None:
    """Call ``observer``, which must not block, with every queue that changes."""
    _observers.append(observer)


def listen(queue: Any, listener: Callable[[], None]) -> None:
    """Call ``listener``, which must not block, whenever a message of ``queue`` may have become available."""
    with queue._messages_lock:
        listeners = queue.__dict__.setdefault("_listeners", [])
        if listener not in listeners:
            listeners.append(listener)


def unlisten(queue: Any, listener: Callable[[], None]) -> None:
    """Stop calling ``listener``."""
    with queue._messages_lock:
        listeners = queue.__dict__.setdefault("_listeners", [])
        if listener in listeners:
            listeners.remove(listener)


def take(queue: Any, count: int, visibility_timeout: int) -> list[Any]:
    """Receive up to ``count`` messages: hide them, count the receive, redrive what was received too often.

    Returns
    -------
    list
        Copies of moto's ``Message``, in the order of sending.
    """
    taken: list[Any] = []
    redriven: list[Any] = []
    with queue._messages_lock:
        _expire(queue)
        target, policy = queue.dead_letter_queue, queue.redrive_policy
        now = unix_time_millis()
        in_flight = (
            {message.group_id for message in queue._messages if _hidden(message, now)}
            if queue.fifo_queue
            else set()
        )
        for message in queue._messages:
            if len(taken) >= count:
                break
            if not _available(message, now) or (queue.fifo_queue and message.group_id in in_flight):
                continue
            if (
                target is not None
                and policy
                and message.approximate_receive_count >= policy["maxReceiveCount"]
            ):
                redriven.append(message)
                continue
            message.mark_received(visibility_timeout=visibility_timeout)
            taken.append(_copied(message))
        if redriven:
            queue._messages = [message for message in queue._messages if message not in redriven]
    for message in redriven:
        target.add_message(message)
    return taken


def seconds_until_change(queue: Any) -> float | None:
    """Return when a hidden or delayed message becomes available, in seconds from now; None when none is."""
    now = unix_time_millis()
    with queue._messages_lock:
        moments = [max(message.visible_at, message.delayed_until) for message in queue._messages]
    future = [moment for moment in moments if moment >= now]
    # One millisecond more: moto's "visible" is a strict comparison.
    return (min(future) - now + 1) / 1000 if future else None


class _Attributes(Mapping[str, Any]):
    """A queue's attributes, read when one is asked for: three of them count all its messages.

    moto asks for them to find out whether a queue deduplicates by content, for each message sent to it.
    """

    def __init__(self, queue: Any, read: Callable[[Any], dict[str, Any]]) -> None:
        self._queue = queue
        self._read = functools.cache(lambda: read(queue))

    def __getitem__(self, name: str) -> Any:
        if name in Queue.FIFO_ATTRIBUTES and not self._queue.fifo_queue:
            raise KeyError(name)
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def _hidden(message: Any, now: float) -> bool:
    return bool(now <= message.visible_at)


def _delayed(message: Any, now: float) -> bool:
    return bool(now < message.delayed_until)


def _available(message: Any, now: float) -> bool:
    return not _hidden(message, now) and not _delayed(message, now)


def _messages(queue: Any) -> list[Any]:
    now = unix_time_millis()
    return [message for message in queue._messages if _available(message, now)]


def _count(queue: Any, kind: Callable[[Any, float], bool]) -> int:
    now = unix_time_millis()
    return sum(kind(message, now) for message in queue._messages)


def _copied(message: Any) -> Any:
    """Return a message that its receiver may change, in a tenth of what ``deepcopy`` takes."""
    one = copy(message)
    one.message_attributes = deepcopy(message.message_attributes)
    one.system_attributes = deepcopy(message.system_attributes)
    one._old_receipt_handles = list(message._old_receipt_handles)
    return one


def _delete_message(self: Any, receipt_handle: str) -> None:
    """Delete the message that ever had this handle; a message that is deleted already may be deleted again.

    What can be deleted was received, and what was received stands near the front.
    """
    if receipt_handle in self.deleted_messages:
        return
    for position, message in enumerate(self._messages):
        if message.receipt_handle == receipt_handle or receipt_handle in message._old_receipt_handles:
            self.pending_messages.discard(message)
            self.deleted_messages.update(message.all_receipt_handles)
            del self._messages[position]
            return
    raise ReceiptHandleIsInvalid


def _expire(queue: Any) -> None:
    oldest = unix_time_millis() - queue.message_retention_period * 1000
    if any(message.sent_timestamp <= oldest for message in queue._messages):
        queue._messages = [message for message in queue._messages if message.sent_timestamp > oldest]


def _announce(queue: Any) -> None:
    """Wake long polls and listeners; the caller holds the lock."""
    queue._messages_lock.notify_all()
    for listener in queue.__dict__.get("_listeners", ()):
        listener()
    for observer in _observers:
        observer(queue)


def _add_message(self: Any, message: Any) -> None:
    with self._messages_lock:
        if self.fifo_queue and message.deduplication_id:
            seen: dict[str, float] = self.__dict__.setdefault("_deduplication_ids", {})
            sent = seen.get(message.deduplication_id)
            if sent is not None and message.sent_timestamp - sent < DEDUPLICATION_TIME_IN_SECONDS * 1000:
                return
            seen[message.deduplication_id] = message.sent_timestamp
        self._messages.append(message)
        _announce(self)


def _receive_message(
    self: Any,
    queue_name: str,
    count: int,
    wait_seconds_timeout: int,
    visibility_timeout: int,
    message_attribute_names: list[str] | None = None,
) -> list[Any]:
    deadline = time.monotonic() + wait_seconds_timeout
    while True:
        queue = self.get_queue(queue_name)
        with queue._messages_lock:
            messages = take(queue, count, visibility_timeout)
            left = deadline - time.monotonic()
            if messages or left <= 0:
                break
            change = seconds_until_change(queue)
            queue._messages_lock.wait(left if change is None else min(left, change))
    for message in messages:
        _filter_message_attributes(message, message_attribute_names or [])
    return messages


def _locked(operation: Callable[..., Any], queue_of: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(operation)
    def call(first: Any, *args: Any, **kwargs: Any) -> Any:
        queue = queue_of(first, *args, **kwargs)
        with queue._messages_lock:
            try:
                return operation(first, *args, **kwargs)
            finally:
                _announce(queue)

    return call


def _locked_by_name(operation: Callable[..., Any]) -> Callable[..., Any]:
    return _locked(operation, lambda backend, queue_name, *_, **__: backend.get_queue(queue_name))


def _announced(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Wake everybody who waits at the queue after the operation: it is gone then."""

    @functools.wraps(operation)
    def call(self: Any, queue_name: str) -> Any:
        queue = self.get_queue(queue_name)
        answer = operation(self, queue_name)
        with queue._messages_lock:
            _announce(queue)
        return answer

    return call
