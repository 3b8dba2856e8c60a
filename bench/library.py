"""A peer that is a library: a program of ours in the peer's environment uses it, and is spoken to in lines of JSON.

`Program` is the harness's side, `serve` the program's. One line asks for one call, or for a closed loop of them that
runs inside the program, in threads: no HTTP stands between the clients and the library. Standard library only.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from bench import loop
from bench.closed_loop import Measured
from bench.mix import Workload
from bench.probe import CallFailed
from bench.process import ServerFailed, kill, tree
from bench.workloads import WORKLOADS

ROOT = Path(__file__).parent.parent
STOP_SECONDS = 15.0
TAIL_CHARACTERS = 3_000

Function = Callable[[str, dict[str, Any]], Any]


class Program:
    """A program that runs, for the harness."""

    def __init__(self, argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
                cwd=ROOT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def call(self, function: str, arguments: Mapping[str, Any], *, queued: bool = False) -> Any:
        """The result of one call; raises `CallFailed` where the function did."""
        return self._ask({"call": function, "arguments": dict(arguments), "queued": queued})

    def load(self, workload: Workload, keys: str, seed: int, clients: int, seconds: float) -> Measured:
        """A closed loop inside the program."""
        how = {"keys": keys, "seed": seed, "clients": clients, "seconds": seconds}
        return Measured(**self._ask({"load": workload.name, **how}))

    def stop(self) -> None:
        """End the program by the end of its input; kill it when it does not."""
        if self.process.poll() is not None:
            return
        started = tree(self.pid)
        try:
            self.process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in reversed(started):
                kill(pid)
            self.process.communicate()

    def _ask(self, message: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer says the same
        line = self.process.stdout.readline()
        if not line:
            raise ServerFailed(f"{self.process.args} ended.\n{self.log.read_text(errors='replace')[-TAIL_CHARACTERS:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise CallFailed(f"{message} raised {answer['error']}")
        return answer["result"]


def serve(call: Function, enqueue: Function) -> None:
    """Answer lines until the input ends. `enqueue` waits for the result of what it enqueued; both run in threads."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the library prints is no answer
    for line in sys.stdin:
        message = json.loads(line)
        try:
            result = loaded(message, call, enqueue) if "load" in message else called(message, call, enqueue)
        except Exception as error:  # noqa: BLE001 - the harness is told
            traceback.print_exc()
            say(answers, {"error": repr(error)})
        else:
            say(answers, {"result": result})


def called(message: dict[str, Any], call: Function, enqueue: Function) -> Any:
    return (enqueue if message["queued"] else call)(message["call"], message["arguments"])


def loaded(message: dict[str, Any], call: Function, enqueue: Function) -> dict[str, Any]:
    workload = WORKLOADS[message["load"]]
    function = enqueue if workload.queued else call

    def caller(one: loop.Call) -> Any:
        return function(one.operation.function, dict(one.arguments))

    how = (message["keys"], message["seed"], message["clients"], message["seconds"])
    return asdict(loop.run(lambda: nullcontext(caller), workload, *how))


def say(answers: TextIO, what: dict[str, Any]) -> None:
    print(json.dumps(what), file=answers, flush=True)
