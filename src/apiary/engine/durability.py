"""Answers leave when what they tell is on the disk, and one wait for the disk serves all that was committed before it.

A lane commits without waiting, so that the next batch runs while the disk works. Nobody is shown what could still be
lost: answers of transactions wait here, and those of queries that saw commits which are not durable yet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from apiary.runtime.call import problem_of
from apiary.runtime.errors import DatabaseUnavailable
from apiary.runtime.session import Call, Outcome

Answer = Callable[[bool], None]


class Durability:
    """Holds answers back until `sync` has made durable what was committed before it was called.

    An answer is called with whether that worked. Those of one lane are called in the order of its commits. After a disk
    that failed to write, nothing is certain any more: `broken` is called, and the process should end.
    """

    def __init__(self, sync: Callable[[], None], broken: Callable[[], None]) -> None:
        self._sync = sync
        self._broken = broken
        self._waiting: SimpleQueue[Answer | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._unanswered = 0
        self._thread = threading.Thread(target=self._run, name="apiary-sync", daemon=True)
        self._thread.start()

    def settle(self, answer: Answer, *, here: bool) -> None:
        """Wait for the disk and answer: `here`, in the thread that calls, if nothing waits before it."""
        with self._lock:
            here = here and not self._unanswered
            self._unanswered += not here
        if here:
            self._release([answer])
        else:
            self._waiting.put(answer)

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._serve()
        except BaseException:
            self._broken()
            raise

    def _serve(self) -> None:
        closing = False
        while not closing:
            waiting = [self._waiting.get()]
            try:
                while True:
                    waiting.append(self._waiting.get_nowait())
            except Empty:
                pass
            closing = None in waiting
            answers = [answer for answer in waiting if answer is not None]
            self._release(answers)
            with self._lock:
                self._unanswered -= len(answers)

    def _release(self, answers: list[Answer]) -> None:
        try:
            self._sync()
        except OSError:
            for answer in answers:
                answer(False)
            self._broken()
            return
        for answer in answers:
            answer(True)


def uncertain(call: Call) -> Outcome:
    """The outcome of a call of which it is not known whether the disk has it."""
    error = DatabaseUnavailable(
        "the disk failed while the call was being made durable; it may or may not have been kept",
        hint="send it again with the same idempotency key",
    )
    return Outcome(error=problem_of(call, error), cause=error)
