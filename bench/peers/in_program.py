"""What the peers share that are libraries: they are called inside a program of ours, in their environment."""

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import environments, front_door
from bench.closed_loop import Measured
from bench.library import Program
from bench.mix import Workload
from bench.process import tree


class InProgram(ABC):
    """A program and its folder."""

    prefix = "/apps/"
    floor = False
    port = 0

    def __init__(self, name: str, folder: Path, environment: str) -> None:
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
        self.log = folder / f"{self.folder.name}.log"
        self.environment_name = environment
        self.python = environments.python(environment)
        self.program: Program | None = None

    @property
    @abstractmethod
    def module(self) -> str:
        """The program's module."""

    @abstractmethod
    def environment(self) -> Mapping[str, str]:
        """What the program is told by its environment."""

    def launch(self) -> None:
        self.program = Program([self.python, "-m", self.module], self.log, self.environment())

    def halt(self) -> None:
        if self.program is not None:
            self.program.stop()

    def call(self, workload: Workload, function: str, arguments: Mapping[str, Any]) -> Any:
        assert self.program is not None
        return self.program.call(function, arguments, queued=front_door.is_queued(workload, function))

    def load(self, workload: Workload, keys: str, seed: int, clients: int, seconds: float) -> Measured:
        assert self.program is not None
        return self.program.load(workload, keys, seed, clients, seconds)

    def tune(self, _trial: Callable[[], float]) -> None:
        """Nothing to choose: what is measured is the default."""
        return

    def processes(self) -> Mapping[str, list[int]]:
        return {"program": tree(self.program.pid) if self.program is not None else []}

    def network(self) -> list[int]:
        return []

    def settings(self) -> Mapping[str, str]:
        pinned = environments.versions(self.environment_name)
        packages = ", ".join(f"{name} {version}" for name, version in pinned.items())
        return {"clients": "threads of the program, without HTTP", "packages": packages}

    def tear_down(self) -> None:
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)
