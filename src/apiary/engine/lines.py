"""A queue in memory: its calls that are due, and which of them may begin next. Values only: no clock, no database.

Within a queue, those of the highest priority come first; among these, each share (the calls with one value of the
argument by which the queue is fair) has its turn.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence

from apiary.runtime.queueing import Queue
from apiary.runtime.session import Call, Queued

Group = tuple[int, str]
"""A priority and a share."""


class Line:
    """One queue of an app; also that of the calls that name none, which has no limits.

    `handed` out are the calls that run here now, `begun` the workflows that have begun and not ended, wherever, and
    `elsewhere` what the process before this one still runs.
    """

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.more = False
        self.paused = False
        self.known = 0
        self.due = 0
        self.handed: set[bytes] = set()
        self.begun: set[bytes] = set()
        self.elsewhere: set[bytes] = set()
        self._due: dict[int, OrderedDict[str, deque[Call]]] = {}

    def put(self, call: Call, group: Group) -> None:
        """A call is due."""
        priority, share = group
        self._due.setdefault(priority, OrderedDict()).setdefault(share, deque()).append(call)
        self.due += 1

    def take(self) -> Call:
        """The call that begins next; there must be one."""
        priority = max(self._due)
        shares = self._due[priority]
        share, calls = shares.popitem(last=False)
        call = calls.popleft()
        if calls:
            shares[share] = calls
        elif not shares:
            del self._due[priority]
        self.due -= 1
        self.handed.add(call.id)
        return call

    def can_begin(self) -> bool:
        """Whether one of those that are due may begin now, without a question about the rate of the queue."""
        return self.due > 0 and self.queue.rate is None and self.has_room()

    def could_begin(self, limit: int) -> int:
        """How many of those that are due may begin now, up to a limit, if the rate of the queue lets them."""
        if not self.has_room():
            return 0
        most = self.queue.concurrency
        return min(limit, self.due) if most is None else min(limit, self.due, most - self.occupied())

    def has_room(self) -> bool:
        """Whether fewer run than may."""
        most = self.queue.concurrency
        return not self.paused and (most is None or self.occupied() < most)

    def occupied(self) -> int:
        """How many run."""
        return len(self.handed) + len(self.begun) + len(self.elsewhere)

    def waits_for_rate(self) -> bool:
        """Whether calls are due that could begin if the rate of the queue lets them."""
        return self.queue.rate is not None and self.could_begin(1) > 0

    def has_group(self, group: Group) -> bool:
        """Whether a call of this priority and this share is due."""
        return group[1] in self._due.get(group[0], ())

    def clear(self) -> None:
        """Forget what has not begun."""
        self._due.clear()
        self.due = 0


def most_of_share(limit: int, shares: int) -> int:
    """How many calls of each of so many shares are held in memory, where a queue may have `limit`."""
    return max(1, limit // shares)


def unfinished(found: Sequence[Queued], limit: int) -> set[str]:
    """The queues of which the table has more than was `found` there."""
    waiting = [queued for queued in found if queued.version is None]
    groups = Counter((queued.queue, queued.priority, queued.share, queued.delayed) for queued in waiting)
    shares = Counter(queue for queue, *_ in groups)
    full = {queue for (queue, *_), calls in groups.items() if calls >= most_of_share(limit, shares[queue])}
    return full if len(groups) < limit else set(shares)
