"""The manifest of a version: what the server knows of an app without importing it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from apiary.codec import FunctionCodec
from apiary.runtime.call import Program
from apiary.runtime.declaration import App
from apiary.runtime.queueing import Queue


def manifest_of(app: App, program: Program) -> dict[str, Any]:
    """The functions with their options and schemas, the queues, and the folder of web pages, as a JSON object."""
    web = app.folder / "web"
    return {
        "app": app.name,
        "version": program.version,
        "description": app.description,
        "queues": {name: _limits(queue) for name, queue in program.queues.items()},
        "web": str(web) if web.is_dir() else None,
        "keep_workflows_days": app.keep_workflows_days,
        "functions": {
            name: {
                "kind": bound.function.kind.value,
                "description": bound.function.description,
                "roles": sorted(bound.function.options.roles) if bound.function.options.roles is not None else None,
                "timeout": bound.function.options.timeout,
                "placement": bound.function.options.placement,
                "queue": bound.function.options.queue,
                "visible": cast(FunctionCodec, bound.codec).visible,
                "input": cast(FunctionCodec, bound.codec).input_schema(),
                "output": cast(FunctionCodec, bound.codec).output_schema(),
                "signature": asdict(cast(FunctionCodec, bound.codec).signature()),
            }
            for name, bound in program.functions.items()
        },
    }


def _limits(queue: Queue) -> dict[str, Any]:
    return {"concurrency": queue.concurrency, "rate": queue.rate, "fair_by": queue.fair_by}
