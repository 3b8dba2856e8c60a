"""The wrk script of a workload: Lua text made from the workload's description (`mix.py`).

wrk asks the script for each request and, at the end, for a summary; the script prints that as one line of JSON.
"""

import json

from bench.mix import SCATTER, UNIFORM, ZIPF_EXPONENT, Draw, Key, Operation, Range, Word, Workload

SUMMARY_MARK = "SUMMARY "

SETUP = """\
local threads = 0
function setup(thread)
  threads = threads + 1
  thread:set("number", threads)
end
"""

DRAWING = """\
local random, format = math.random, string.format
local cumulative = {}
local function zipf_table(count)
  local sums, total = {}, 0
  for rank = 1, count do
    total = total + rank ^ -EXPONENT
    sums[rank] = total
  end
  for rank = 1, count do sums[rank] = sums[rank] / total end
  return sums
end
local function zipf(count)
  local sums, wanted, low, high = cumulative[count], random(), 1, count
  while low < high do
    local middle = math.floor((low + high) / 2)
    if sums[middle] < wanted then low = middle + 1 else high = middle end
  end
  return low * SCATTER % count + 1
end
"""

SENDING = """\
local function message(path, body)
  return "POST " .. path .. HEAD .. #body .. "\\r\\n\\r\\n" .. body
end
"""

DONE = """\
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    'SUMMARY {"requests": %d, "duration_us": %d, "bytes": %d, "status_errors": %d, "socket_errors": %d, ' ..
    '"timeouts": %d, "mean_us": %.1f, "p50_us": %d, "p90_us": %d, "p99_us": %d, "p999_us": %d, "max_us": %d}\\n',
    summary.requests, summary.duration, summary.bytes, errors.status, errors.connect + errors.read + errors.write,
    errors.timeout, latency.mean, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency:percentile(99.9), latency.max))
end
"""


def script(workload: Workload, keys: str, seed: int, address: str) -> str:
    """Lua text: uniform or Zipf `keys`, each wrk thread with a seed of its own derived from `seed`."""
    head = f" HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: "
    counts = sorted({count for operation in workload.operations for count in skewed_counts(operation)})
    tables = "" if keys == UNIFORM else "".join(f"  cumulative[{count}] = zipf_table({count})\n" for count in counts)
    return "\n".join(
        (
            SETUP,
            DRAWING.replace("EXPONENT", str(ZIPF_EXPONENT)).replace("SCATTER", str(SCATTER)),
            f"local HEAD = {lua_text(head)}",
            *(word_table(operation, name) for operation in workload.operations for name in word_names(operation)),
            SENDING,
            *(operation_function(workload, operation, keys) for operation in workload.operations),
            f"function init(args)\n  math.randomseed({seed} * 1000 + number)\n{tables}end\n",
            request_function(workload),
            DONE,
        )
    )


def lua_text(text: str) -> str:
    """A Lua string literal: JSON's escapes are Lua's as far as printable ASCII and line ends go."""
    return json.dumps(text)


def skewed_counts(operation: Operation) -> list[int]:
    keys = [what.count for what in operation.draws.values() if isinstance(what, Key)]
    return keys + [len(what.words) for what in operation.draws.values() if isinstance(what, Word)]


def word_names(operation: Operation) -> list[str]:
    return [name for name, what in operation.draws.items() if isinstance(what, Word)]


def word_table(operation: Operation, name: str) -> str:
    what = operation.draws[name]
    assert isinstance(what, Word)
    return f"local {operation.function}_{name} = {{{', '.join(lua_text(word) for word in what.words)}}}"


def draw_expression(operation: Operation, name: str, what: Draw, keys: str) -> str:
    def index(count: int) -> str:
        return f"random({count})" if keys == UNIFORM else f"zipf({count})"

    match what:
        case Key(count):
            return index(count)
        case Range(first, last):
            return f"random({first}, {last})"
        case Word(words):
            return f"{operation.function}_{name}[{index(len(words))}]"


def operation_function(workload: Workload, operation: Operation, keys: str) -> str:
    draws = "".join(
        f"  local {name} = {draw_expression(operation, name, what, keys)}\n" for name, what in operation.draws.items()
    )
    texts = word_names(operation)
    fields = ",".join(f'"{name}":' + ('"%s"' if value in texts else "%d") for name, value in operation.sends.items())
    values = ", ".join(operation.sends.values())
    body = f"format('{{{fields}}}', {values})"
    path = lua_text(workload.path(operation.function))
    return f"local function send_{operation.function}()\n{draws}  return message({path}, {body})\nend\n"


def request_function(workload: Workload) -> str:
    """Chooses an operation by its share; the last one takes what is left."""
    *first, last = workload.operations
    lines, reached = [], 0.0
    for operation in first:
        reached += operation.share
        lines.append(f"  if chosen < {reached:.6f} then return send_{operation.function}() end")
    choice = "  local chosen = random()\n" if first else ""
    return "function request()\n" + choice + "\n".join([*lines, f"  return send_{last.function}()"]) + "\nend\n"
