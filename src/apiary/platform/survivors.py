"""The calls of hosts that died: which are sent to the next one, and which are given up."""

from __future__ import annotations

import time
from collections.abc import Callable

from apiary.engine.protocol import MAX_DEATHS
from apiary.platform.flights import InFlight, gone
from apiary.platform.messages import Invoke
from apiary.platform.process import HostProcess
from apiary.runtime.errors import DeadlineExceeded, HostCrashed

MAX_SHARED_DEATHS = 6
"""Where other calls ran beside it each time, any of which can have been the reason."""
MAX_ATTEMPTS = 10


class Survivors:
    """Sends calls again, those on their last attempt one at a time, so that none is blamed for what another does."""

    def __init__(self, send: Callable[[InFlight], None]) -> None:
        self._send = send
        self._suspects: list[InFlight] = []
        self._closed = False

    def settle(self, flight: InFlight, suspects: set[bytes], host: HostProcess) -> None:
        """A call without an answer is sent again, under its id: if it had committed, its record answers.

        Only a call that the dead host was just running, or owed an answer for too long, counts the death. One whose
        function was running beyond its deadline was the reason, and has not committed.
        """
        message = flight.message
        if flight.answer.done() or not isinstance(message, Invoke):
            return
        if self._closed:
            flight.fail(gone("the host of the app went away"))
            return
        if any(running.call == message.id and time.monotonic() > running.deadline for running in host.running()):
            flight.fail(DeadlineExceeded(f"{message.function} did not end in time; its process was ended"))
            return
        flight.crashes += message.id in suspects
        most = MAX_DEATHS if suspects == {message.id} else MAX_SHARED_DEATHS
        if flight.crashes >= most or message.attempt >= MAX_ATTEMPTS:
            crashed = HostCrashed(
                f"the host died {message.attempt} times with {message.function}; the last time {host.reason}",
                hint="look at the log for whether it took effect; with an idempotency key it can be sent again",
            )
            flight.fail(crashed)
            return
        message.attempt += 1
        if flight.crashes >= MAX_DEATHS - 1 and flight not in self._suspects:
            self._suspects.append(flight)
            flight.answer.add_done_callback(lambda _: self._cleared(flight))
        if flight not in self._suspects or flight is self._suspects[0]:
            self._send(flight)

    def close(self) -> None:
        """Send nothing any more."""
        self._closed = True

    def refuse(self) -> None:
        """Answer those that still wait for their last attempt: there will be none."""
        for flight in list(self._suspects):
            flight.fail(gone("the server is stopping"))

    def _cleared(self, flight: InFlight) -> None:
        self._suspects.remove(flight)
        if self._suspects and not self._closed:
            self._send(self._suspects[0])
