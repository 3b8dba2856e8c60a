"""The command line as people and programs use it: real processes, with and without a terminal."""

import gc
import io
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
from tests.service.conftest import WAIT_SECONDS, new_client

from apiary.cli import main
from apiary.cli.output import Output

COMMANDS = ["new", "serve", "dev", "deploy", "call", "versions", "rollback", "backup", "restore", "doctor", "log",
            "log calls", "log show", "workflow", "workflow list", "workflow show", "workflow result", "workflow send",
            "workflow cancel", "workflow resume", "workflow fork", "workflow export", "queues", "queues pause",
            "queues resume", "replay"]  # fmt: skip


def clean(environment: dict[str, str] | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("APIARY", "FORCE_COLOR"))}
    return {**kept, **(environment or {})}


def process(*words, environment=None):
    """Run a command."""
    argv = [sys.executable, "-m", "apiary", *map(str, words)]
    options = {"capture_output": True, "text": True, "timeout": WAIT_SECONDS, "env": clean(environment)}
    return subprocess.run(argv, check=False, **options)


def apiary(*words, cwd=".", environment=None):
    """Run a command in this process, which is quicker; what came of it is told as of a process."""
    output, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    argv = ["apiary", *map(str, words)]
    with (
        mock.patch.dict(os.environ, clean(environment), clear=True),
        mock.patch.object(sys, "argv", argv),
        mock.patch.object(Output, "json", False),
        chdir(cwd),
        redirect_stdout(output),
        redirect_stderr(errors),
        warnings.catch_warnings(action="ignore", category=ResourceWarning),  # the end of a process closes what is open
    ):
        with pytest.raises(SystemExit) as ended:
            main()
        gc.collect()
    said = []
    for stream in (output, errors):
        stream.seek(0)
        said.append(stream.read())
    return subprocess.CompletedProcess(argv, ended.value.code or 0, *said)


def on_terminal(*words, cwd=None, environment=None, seconds=WAIT_SECONDS, columns=160, typed="") -> tuple[int, str]:
    """Run a command on a pseudo-terminal; returns its status and what was to be seen."""
    main, other = pty.openpty()
    os.write(main, typed.encode())
    process = subprocess.Popen(
        [sys.executable, "-m", "apiary", *map(str, words)],
        stdin=other, stdout=other, stderr=other, cwd=cwd,
        env={**clean(environment), "COLUMNS": str(columns), "TERM": "xterm"},
    )  # fmt: skip
    os.close(other)
    seen = b""
    end = time.monotonic() + seconds
    while time.monotonic() < end and select.select([main], [], [], end - time.monotonic())[0]:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(main)
    return process.wait(seconds), seen.decode()


@pytest.fixture
def here(tmp_path):
    """Run a command in a new folder; returns its status, its output, its errors."""

    def run(*words, environment=None):
        done = apiary(*words, cwd=tmp_path, environment=environment)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="module")
def at(zoo, tools):
    """The environment of somebody with the key of the server."""
    return {"APIARY_URL": zoo.url, "APIARY_KEY": tools.KEY}


def test_every_command_explains_itself():
    for command in COMMANDS:
        done = apiary(*command.split(), "--help")
        assert done.returncode == 0
        assert "Usage: apiary " + command in done.stdout
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", process("--version").stdout)
    done = process()
    assert "Commands" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["frob"], 2),
        (["--frob"], 2),
        (["deploy"], 2),
        (["deploy", "no/such/place"], 1),
        (["deploy", "."], 1),
        (["dev", "no/such/place"], 1),
        (["dev", ".", "--port", "x"], 2),
        (["new"], 2),
        (["new", "Not/A-Name!"], 1),
        (["new", "a.file/app"], 1),
        (["new", "a.file"], 1),
        (["new", "not_empty"], 1),
        (["call", "zoo"], 2),
        (["call", "zoo", "bump", "name"], 1),
        (["call", "zoo", "bump", "=x"], 1),
        (["call", "zoo", "bump", "name=x", "name=y"], 1),
        (["call", "zoo", "bump", "nmae=x"], 1),
        (["call", "zoo", "bump", "by=x", "name=1"], 1),
        (["call", "zoo", "bmup"], 1),
        (["call", "zooo", "bump"], 1),
        (["call", "zoo", "refuse", "name=a"], 1),
        (["call", "zoo", "fail"], 1),
        (["call", "../..", "healthz"], 1),
        (["call", "zoo", "bump", "--url", "http://127.0.0.1:1"], 1),
        (["call", "zoo", "bump", "--url", "localhost:1"], 1),
        (["call", "zoo", "bump", "--url", "http://[::"], 1),
        (["call", "zoo", "bump", "--url", ""], 1),
        (["call", "zoo", "bump", "--key", "wrong"], 1),
        (["call", "zoo", "bump", "--key", "ä"], 1),
        (["call", "zoo", "bump", "--key", "a\nb"], 1),
        (["versions", "none"], 1),
        (["rollback", "zoo"], 1),
        (["rollback", "zoo", "none"], 1),
        (["log", "calls", "none"], 1),
        (["log", "calls", "--limit", "-1"], 1),
        (["log", "calls", "--limit", "x"], 2),
        (["log", "show", "none"], 1),
        (["log", "frob"], 2),
        (["call", "zoo", "bump", "name=x", "--no-wait"], 1),
        (["workflow", "list", "none"], 1),
        (["workflow", "list", "--status", "done"], 1),
        (["workflow", "list", "--limit", "x"], 2),
        (["workflow", "show"], 2),
        (["workflow", "show", "none"], 1),
        (["workflow", "show", ""], 1),
        (["workflow", "show", "../apps/zoo"], 1),
        (["workflow", "result", "none"], 1),
        (["workflow", "result", "none", "--wait", "-1"], 2),
        (["workflow", "send", "none"], 2),
        (["workflow", "send", "none", "topic"], 1),
        (["workflow", "cancel", "none"], 1),
        (["workflow", "resume", "none"], 1),
        (["workflow", "export", "none"], 1),
        (["workflow", "fork", "none", "--step", "1"], 1),
        (["workflow", "fork", "none", "--version", "x"], 1),
        (["backup", "no/such/place.tar"], 1),
        (["backup", "a.file"], 1),
        (["restore", "none.tar", "--database", "sqlite:///new"], 1),
        (["restore", "a.file", "--database", "sqlite:///new"], 1),
        (["restore", "a.file", "--database", "sqlite:///not_empty"], 1),
        (["restore", "not_empty", "--database", "sqlite:///new"], 1),
        (["restore", "a.file", "--database", "postgresql://localhost/x"], 1),
        (["doctor", "--database", "mysql://x"], 1),
        (["doctor", "--database", "sqlite:///broken"], 1),
        (["doctor", "--database", "sqlite:///no/such/place"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_mistake_is_answered_in_words(at, tmp_path, here, words, status):
    (tmp_path / "a.file").write_text("x")
    (tmp_path / "not_empty").mkdir()
    (tmp_path / "not_empty" / "x").write_text("x")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "shop.db").write_text("this is no database, and long enough to be one" * 100)
    found, _, said = here(*words, environment=at)
    assert found == status, said
    if status == 1 and words[0] != "doctor":
        problem = json.loads(said.strip().splitlines()[-1])
        assert problem["detail"]
        assert problem["code"]
    if status == 2:
        assert "Usage" in said


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["call", "zoo", "bump", "name=x", "name=y"], "a list is one value"),
        (["call", "zoo", "bump", "--url", "localhost:8000"], "write it like http://localhost:8000"),
        (["restore", "none.tar", "--database", "postgresql://localhost/x"], "pg_restore"),
        (["serve", "--database", "mysql://localhost/x"], "postgresql://"),
        (["serve", "--database", "sqlite://x"], "sqlite:///path"),
        (["serve", "--database", "sqlite:///locked"], "name another folder: --database"),
        (["serve", "--database", "sqlite:///new", "--host", "203.0.113.1"], "an address of this machine: --host"),
        (["serve", "--database", "sqlite:///new", "--port", "1", "--host", "nowhere.invalid"], "--host"),
    ],
)
def test_a_mistake_is_told_with_what_to_do(at, here, tmp_path, words, hint):
    (tmp_path / "locked" / "server.lock").mkdir(parents=True)
    status, _, said = here(*words, environment=at)
    assert status == 1
    assert hint in json.loads(said.strip().splitlines()[-1])["hint"]


def test_a_mistake_shows_no_traceback(at, tmp_path):
    for words, status in ((("frob",), 2), (("deploy", "none"), 1), (("backup", "no/such/place"), 1)):
        done = apiary(*words, cwd=tmp_path, environment=at)
        assert done.returncode == status
        assert "Traceback" not in done.stderr


def test_calls_by_the_command_line_have_typed_values(at):
    counter = uuid.uuid4().hex
    assert json.loads(apiary("call", "zoo", "bump", f"name={counter}", "by=-3", environment=at).stdout) == -3
    done = apiary("call", "zoo", "scalars", "integer=7", "text=a=b c", "flag=true", "numbers=[1, 2]", environment=at)
    assert json.loads(done.stdout)["text"] == "a=b c"
    assert json.loads(apiary("call", "zoo", "count", 'name="7"', environment=at).stdout) == 0
    for _ in range(2):
        done = apiary("call", "zoo", "bump", f"name={counter}", "--idempotency-key", counter, environment=at)
        assert json.loads(done.stdout) == -2


def test_names_on_the_command_line_are_names_and_no_paths(at):
    for words in (["zoo/../zoo", "count"], ["zoo", "count?name=a"], ["zoo", "x#y"]):
        done = apiary("call", *words, "name=a", environment=at)
        assert done.returncode != 0
        assert json.loads(done.stderr)["code"] in ("unknown_app", "unknown_function", "not_found")
    done = apiary("call", "zoo", "count", "name=a", "--idempotency-key", "a\nb", environment=at)
    assert "an idempotency key is text" in done.stderr


def test_values_keep_their_letters_and_digits_on_the_command_line(at):
    words = ["call", "zoo", "scalars", "integer=1", "text=ärger 🏢"]
    assert '"text": "ärger 🏢"' in apiary(*words, environment=at).stdout
    plain = process(*words, environment={**at, "PYTHONIOENCODING": "ascii"}).stdout
    assert (plain.isascii(), json.loads(plain)["text"]) == (True, "ärger 🏢")
    parts = ['model={"name": "a"}', 'point={"x": 1, "y": 2}', 'pair={"left": 1, "right": "a"}', "either=1"]
    done = apiary("call", "zoo", "structures", *parts, "price=12345678901234567.89", environment=at)
    assert json.loads(done.stdout)["price"] == "12345678901234567.89"


def test_what_ran_is_shown(at):
    name = uuid.uuid4().hex
    apiary("call", "zoo", "bump", f"name={name}", environment=at)
    failed = json.loads(apiary("call", "zoo", "fail", f"name={name}", environment=at).stderr)
    calls = json.loads(apiary("log", "calls", "zoo", "--function", "bump", environment=at).stdout)
    assert (calls[0]["function"], calls[0]["status"]) == ("bump", "ok")
    shown = json.loads(apiary("log", "show", calls[0]["id"], environment=at).stdout)
    assert shown["input"]["name"] == name
    shown = json.loads(apiary("log", "show", failed["call_id"], environment=at).stdout)
    assert "LookupError" in shown["error"]["traceback"]
    statuses = {
        call["status"] for call in json.loads(apiary("log", "calls", "--status", "failed", environment=at).stdout)
    }
    assert statuses == {"failed"}


LOTTERY = """
import random
import secrets

from apiary import App, Transaction

app = App("lottery")


@app.transaction
def draw(tx: Transaction, players: list[str]) -> dict[str, str]:
    winner = random.choice(players)
    tx.log("drawn", winner=winner)
    return {"winner": winner, "ticket": secrets.token_hex(8), "at": tx.now.isoformat()}


@app.query
def first(tx: Transaction, players: list[str]) -> str:
    return players[0]
"""


def test_a_call_is_run_again(new_server, tools, tmp_path):
    at = {"APIARY_URL": new_server().url, "APIARY_KEY": tools.KEY}
    module = tmp_path / "lottery.py"
    module.write_text(LOTTERY)
    apiary("deploy", module, environment=at)
    for players in ('["ada", "bob", "eve"]', '["ada"]'):
        apiary("call", "lottery", "draw", f"players={players}", environment=at)
    call = json.loads(apiary("log", "calls", "lottery", environment=at).stdout)[-1]["id"]
    same = process("replay", call, module, "--save", tmp_path / "run.json", environment=at)
    assert (same.returncode, json.loads(same.stdout)["same"]) == (0, True)
    assert json.loads((tmp_path / "run.json").read_text())["function"] == "draw"
    status, seen = on_terminal("replay", call, module, environment=at)
    assert (status, "the same as then: ok" in seen) == (0, True)
    module.write_text(LOTTERY.replace('"winner": winner', '"winner": winner.title()'))
    other = process("replay", call, module, environment=at)
    assert (other.returncode, json.loads(other.stdout)["same"]) == (1, False)
    assert "it returned" in json.loads(other.stdout)["difference"]
    assert re.search("not the same: .*it returned", on_terminal("replay", call, module, environment=at)[1])
    module.write_text(LOTTERY.replace("secrets.token_hex(8)", "secrets.token_hex(9)"))
    other = process("replay", call, module, environment=at)
    assert (other.returncode, "9 random bytes are drawn where 8" in other.stdout) == (1, True)
    assert "9 random bytes" in on_terminal("replay", call, module, environment=at)[1]
    status, seen = on_terminal("replay", call, module, "--pdb", environment=at, typed="p winner\nq\n")
    assert (status, "(Pdb)" in seen, "lottery.py" in seen) == (1, True, True)
    assert process("replay", str(uuid.uuid4()), module, environment=at).returncode == 1


def test_what_was_written_is_shown(at):
    name = uuid.uuid4().hex
    for by in (1, 4):
        apiary("call", "zoo", "bump", f"name={name}", f"by={by}", environment=at)
    versions = json.loads(apiary("log", "history", "counters", f"name={name}", "--app", "zoo", environment=at).stdout)
    assert [(version["operation"], version["after"]["value"]) for version in versions] == [("insert", 1), ("update", 5)]
    call = json.loads(apiary("log", "show", versions[1]["call"], environment=at).stdout)
    assert call["input"] == {"name": name, "by": 4}
    statement = f"select operation, after ->> 'value' as value from writes where key ->> 'name' = '{name}'"
    rows = json.loads(apiary("log", "sql", statement, environment=at).stdout)
    assert rows == [{"operation": "insert", "value": 1}, {"operation": "update", "value": 5}]
    status, seen = on_terminal("log", "history", "counters", f"name={name}", environment=at)
    assert (status, "update" in seen) == (0, True)
    apiary("call", "zoo", "count", f"name={name}", environment=at)
    readers = json.loads(apiary("log", "readers", "counters", f"name={name}", environment=at).stdout)
    assert (readers[0]["function"], readers[0]["parameters"]) == ("count", {"name": name})
    assert not readers[0]["certain"], "the largest value may be that of any row"
    words = ("log", "readers", "counters", f"name={name}", "--since", "2100-01-01")
    assert json.loads(apiary(*words, environment=at).stdout) == []
    words = ("log", "as-of", "counters", f"name={name}", "--at")
    found = json.loads(apiary(*words, "2100-01-01", environment=at).stdout)
    assert (found["row"]["value"], found["function"]) == (5, "bump")
    assert json.loads(apiary(*words, "2020-01-01", environment=at).stdout) is None
    assert "update by bump" in on_terminal(*words, "2100-01-01", environment=at)[1]
    assert "no such row" in on_terminal(*words, "2020-01-01", environment=at)[1]
    refused = json.loads(apiary("log", "sql", "drop table main.writes", environment=at).stderr)
    assert refused["code"] == "rule_broken"


def test_what_came_of_calls_is_shown(at):
    name = uuid.uuid4().hex
    for function in ("bump", "bump", "count"):
        apiary("call", "zoo", function, f"name={name}", environment=at)
    versions = json.loads(apiary("log", "history", "counters", f"name={name}", "--app", "zoo", environment=at).stdout)
    traced = json.loads(apiary("log", "trace", versions[1]["call"], environment=at).stdout)
    assert [write["key"] for write in traced["writes"]] == [{"name": name}]
    shown = json.loads(apiary("log", "show", versions[1]["call"], environment=at).stdout)
    assert (shown["writes"], shown["reads"]) == (traced["writes"], traced["reads"])
    for question in ("trace", "show"):
        _, seen = on_terminal("log", question, versions[1]["call"], environment=at)
        assert f"update counters name={name}" in re.sub(r"\x1b\[[\d;]*m", "", seen)
    for what in ([versions[1]["call"]], ["counters", f"name={name}", "--app", "zoo"]):
        graph = json.loads(apiary("log", "downstream", *what, environment=at).stdout)
        assert {call["function"] for call in graph["calls"]} >= {"bump", "count"}
        assert apiary("log", "downstream", *what, "--dot", environment=at).stdout.startswith("digraph")
        assert "may have read counters" in on_terminal("log", "downstream", *what, environment=at)[1]
    words = ("log", "leaks", "counters", "--allowed", "caller = 'nobody'", "--function", "count")
    found = json.loads(apiary(*words, environment=at).stdout)
    assert [each["function"] for each in found["callers"]] == ["count"]
    assert "count" in on_terminal(*words, environment=at)[1]
    found = json.loads(apiary("log", "calls", "--text", name, "--since", "2020-01-01", environment=at).stdout)
    assert {call["function"] for call in found} == {"bump", "count"}
    assert json.loads(apiary("log", "calls", "--text", name, "--until", "2020-01-01", environment=at).stdout) == []


def test_people_get_tables_and_programs_json(at):
    status, seen = on_terminal("log", "calls", "zoo", environment=at)
    assert status == 0
    assert "started" in seen
    assert "\x1b[" in seen
    assert not seen.lstrip().startswith("[{")
    for words in (("--json", "log", "calls", "zoo"), ("log", "calls", "zoo", "--json")):
        status, seen = on_terminal(*words, environment=at)
        assert (status, json.loads(seen)[0]["app"]) == (0, "zoo")
    ids = {call["id"] for call in json.loads(apiary("log", "calls", "zoo", environment=at).stdout)}
    status, seen = on_terminal("log", "calls", "zoo", environment=at, columns=80)
    assert len(ids.intersection(re.sub(r"\x1b\[[\d;]*m", "", seen).split())) > 1
    status, seen = on_terminal("call", "zoo", "refuse", "name=[/bold]", environment=at)
    assert status == 1
    assert "error: no, thank you" in re.sub(r"\x1b\[[\d;]*m", "", seen)
    status, seen = on_terminal("versions", "zoo", environment=at)
    assert (status, "serving" in seen) == (0, True)
    status, seen = on_terminal("call", "zoo", "fail", environment=at)
    call = re.search(r"call: (\S+)", re.sub(r"\x1b\[[\d;]*m", "", seen))
    status, seen = on_terminal("log", "show", call[1], environment=at)
    assert (status, "LookupError" in seen) == (0, True)


def test_output_that_nobody_reads_is_no_mistake(at):
    command = f"{sys.executable} -m apiary log calls zoo | true"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=WAIT_SECONDS, env=clean(at), check=False
    )
    assert "Traceback" not in done.stderr


def test_deploy_versions_and_rollback(at, tmp_path):
    made = apiary("new", tmp_path / "clinic")
    assert json.loads(made.stdout)["app"] == "clinic"
    first = json.loads(apiary("deploy", tmp_path / "clinic", environment=at).stdout)
    assert (first["app"], first["migrations"]) == ("clinic", ["001-create-notes.sql"])
    module = tmp_path / "clinic" / "clinic.py"
    module.write_text(module.read_text() + "\n# another version\n")
    second = json.loads(apiary("deploy", tmp_path / "clinic", environment=at).stdout)
    assert second["version"] != first["version"]
    back = json.loads(apiary("rollback", "clinic", environment=at).stdout)
    assert back["version"] == first["version"]
    versions = json.loads(apiary("versions", "clinic", environment=at).stdout)
    assert [(v["version"], v["active"]) for v in versions] == [(first["version"], True), (second["version"], False)]
    module.write_text("import nothing_like_this\n")
    refused = apiary("deploy", module, environment=at)
    assert refused.returncode == 1
    assert "clinic.py" in json.loads(refused.stderr)["traceback"]
    status, seen = on_terminal("deploy", module, environment=at)
    assert status == 1
    assert 'File "' in seen
    assert "nothing_like_this" in seen


@pytest.mark.parametrize("where", ["what is said", "README.md"])
def test_a_new_app_passes_its_own_test_as_told(tmp_path, where):
    told = apiary("new", "rose-garden", cwd=tmp_path).stderr
    folder = tmp_path / "rose-garden"
    if where == "README.md":
        told = (folder / where).read_text()
        assert "NAME" not in told
    commands = [re.split(r"\s{2,}", line.strip())[0] for line in told.splitlines() if line.startswith("  ")]
    assert "apiary dev ." in commands
    install = commands.index("python -m pip install pytest")
    _, *words = commands[install + 1].split()
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True, text=True, timeout=WAIT_SECONDS, check=False, cwd=folder, env=clean(),
    )  # fmt: skip
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done.stdout + done.stderr
    script = Path(sys.executable).with_name("pytest")
    assert subprocess.run([script], capture_output=True, timeout=WAIT_SECONDS, check=False, cwd=folder).returncode == 0


def test_backup_restore_and_doctor(zoo, at, tmp_path, new_server, tools):
    name = uuid.uuid4().hex
    zoo.call("bump", name=name, by=7)
    done = json.loads(apiary("backup", tmp_path / "all.tar", environment=at).stdout)
    assert done["bytes"] == (tmp_path / "all.tar").stat().st_size
    assert apiary("backup", tmp_path / "wrong.tar", "--key", "wrong", environment=at).returncode == 1
    assert not (tmp_path / "wrong.tar").exists()
    assert not [file for file in zoo.data.iterdir() if file.suffix == ".tar"]
    apiary("restore", tmp_path / "all.tar", "--database", f"sqlite:///{tmp_path}/data")
    checks = json.loads(apiary("doctor", "--database", f"sqlite:///{tmp_path}/data").stdout)
    assert all(check["good"] for check in checks)
    assert "zoo.db" in [check["name"] for check in checks]
    restored = new_server("--anonymous-calls")
    assert restored.call("count", name=name) == 7
    assert restored.http.get("/api/v1/apps").status_code == 200
    cut = tmp_path / "cut.tar"
    cut.write_bytes((tmp_path / "all.tar").read_bytes()[:-20_000])
    done = apiary("restore", cut, "--database", f"sqlite:///{tmp_path}/cut")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cut").exists()
    assert apiary("restore", tmp_path / "all.tar", "--database", f"sqlite:///{tmp_path}/cut").returncode == 0


def test_a_backup_that_breaks_off_leaves_no_file_that_looks_like_one(tmp_path, here):
    def cut_off(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        done = pool.submit(cut_off, listener)
        status, _, said = here("backup", "all.tar", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
        done.result()
    assert (status, json.loads(said)["code"]) == (1, "unreachable")
    assert "broke off" in said
    assert list(tmp_path.iterdir()) == []


def test_a_backup_leaves_nothing_on_the_server(new_server, tools, tmp_path):
    server = new_server()
    code = "import os\nfrom apiary import App\nassert not os.path.exists('bad')\napp = App('flaky')\n"
    server.deployed(tools.write_app(tmp_path / "flaky", {"flaky.py": code}))

    def left() -> list[Path]:
        return [
            file
            for file in server.data.rglob("*")
            if ("tmp" in file.name and file.name != "tmp") or ".tar" in file.name
        ]

    with server.http.stream("GET", "/api/v1/backup") as response:
        assert response.status_code == 200
        assert left() == []
    (server.folder / "bad").touch()
    os.kill(server.host("flaky"), signal.SIGKILL)
    assert server.http.get("/api/v1/backup").status_code == 200, "an app needs no process to be backed up"
    (server.data / "flaky.db").rename(server.data / "moved")
    refused = server.http.get("/api/v1/backup")
    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert left() == []


def test_completion_is_offered():
    done = apiary(
        "--show-completion", environment={"SHELL": "/bin/bash", "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    )
    assert "Traceback" not in done.stderr
    done = apiary(
        environment={"_APIARY_COMPLETE": "complete_bash", "COMP_WORDS": "apiary ver", "COMP_CWORD": "1"},
    )
    assert done.stdout.split() == ["versions"]


class Dev:
    """`apiary dev` in a process of its own."""

    def __init__(self, tools, path, cwd):
        self.tools = tools
        self.mark = uuid.uuid4().hex
        self.output = cwd / f"dev-{self.mark}.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "apiary", "dev", str(path), "--port", "0"],
                stdout=output, stderr=subprocess.STDOUT, cwd=cwd, start_new_session=True,
                env={**clean(), "APIARY_TEST_MARK": self.mark, "COLUMNS": "200"},
            )  # fmt: skip
        self.url = self.shown(r"serving (http://\S+)")[1]

    def shown(self, pattern):
        def found():
            assert self.process.poll() is None, self.text()
            return re.search(pattern, self.text())

        return self.tools.eventually(found, what=f"{pattern} in the output")

    def text(self):
        return self.output.read_text()

    def call(self, app, function, **arguments):
        return self.post(f"/apps/{app}/{function}", json=arguments)

    def get(self, path, **options):
        with new_client() as http:
            return http.get(self.url + path, **options)

    def post(self, path, **options):
        with new_client() as http:
            return http.post(self.url + path, **options)


@pytest.mark.parametrize("how", [pytest.param("file", marks=pytest.mark.soak), "here"])
def test_dev_follows_the_files(tools, tmp_path, how):
    apiary("new", "garden", cwd=tmp_path)
    folder = tmp_path / "garden"
    module = folder / "garden.py"
    path = {"file": module, "here": "."}[how]
    dev = Dev(tools, path, folder if how == "here" else tmp_path)
    try:
        assert dev.call("garden", "add_note", text="one").json() == 1
        dev.shown(r"garden\.add_note ok")
        good = module.read_text()

        def change(text):
            fresh = folder / "fresh"
            fresh.write_text(text)
            fresh.replace(module)

        change(good.replace('return tx.execute("select count', 'return 100 + tx.execute("select count'))
        tools.eventually(lambda: dev.call("garden", "add_note", text="two").json() > 100)
        change(good + "\nraise LookupError('a mistake')\n")
        dev.shown("LookupError: a mistake")
        dev.shown(f'File "{re.escape(str(module))}", line')
        assert dev.call("garden", "add_note", text="three").json() > 100
        (folder / "migrations" / "002-more.sql").write_text("create table more (a);")
        change(good)
        tools.eventually(lambda: dev.call("garden", "add_note", text="four").json() < 100)
        dev.shown("applied 002-more.sql")
        deploys = len(re.findall(r"garden \w{12} serves", dev.text()))
        for number in range(20):
            dev.call("garden", "add_note", text=str(number))
        dev.shown("(?s)(garden.add_note ok.*){23}")
        assert len(re.findall(r"garden \w{12} serves", dev.text())) == deploys
        change(good.replace("text.strip()", "text.strop()"))
        tools.eventually(lambda: dev.call("garden", "add_note", text="x").status_code == 500)
        dev.shown("AttributeError: 'str' object has no attribute 'strop'")
        assert dev.text().count(f'File "{module}", line') == 2
        assert ".apiary/code" not in dev.text()
        os.killpg(dev.process.pid, signal.SIGINT)
        assert dev.process.wait(WAIT_SECONDS) == 0
        tools.eventually(lambda: not tools.marked_processes(dev.mark))
        assert dev.text().count("Traceback") == 2
    finally:
        if dev.process.poll() is None:
            dev.process.kill()
            dev.process.wait()


def test_dev_says_what_serves_when_something_is_refused(tools, tmp_path):
    apiary("new", "garden", cwd=tmp_path)
    module, more = tmp_path / "garden" / "garden.py", tmp_path / "garden" / "migrations" / "002-more.sql"
    good = module.read_text()
    module.write_text(good + "def (:\n")
    dev = Dev(tools, tmp_path / "garden", tmp_path)
    try:
        dev.shown("not deployed; nothing serves until that is mended")
        module.write_text(good)
        dev.shown("garden [0-9a-f]+ serves")
        more.write_text("create table more (a);")
        dev.shown("applied 002-more.sql")
        more.write_text("create table more (a, b);")
        dev.shown("002-more.sql was changed")
        dev.shown("to begin anew with an empty database: end this, and remove .apiary/")
        dev.shown("not deployed; the version before serves on")
    finally:
        dev.process.kill()
        dev.process.wait()


def test_dev_trusts_this_machine_and_no_page_of_another_site(tools, tmp_path):
    apiary("new", "garden", cwd=tmp_path)
    dev = Dev(tools, tmp_path / "garden", tmp_path)
    try:
        api = "/api/v1/apps"
        assert dev.get(api).status_code == 200
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}):
            assert dev.get(api, headers=headers).status_code == 403
            assert dev.post("/apps/garden/add_note", json={"text": "x"}, headers=headers).status_code == 403
        assert dev.get(api, headers={"Origin": dev.url}).status_code == 200
        dev.url = dev.url.replace("127.0.0.1", "localhost")
        assert dev.get(api, headers={"Origin": "http://evil.example"}).status_code == 403
    finally:
        dev.process.send_signal(signal.SIGTERM)
        assert dev.process.wait(WAIT_SECONDS) == 0


def test_dev_shows_what_becomes_of_workflows(tools, tmp_path):
    dev = Dev(tools, tools.APPS / "flows", tmp_path)
    try:
        prefer = {"Prefer": "respond-async"}
        body = {"path": str(tmp_path / "changed")}
        blocked = dev.post("/apps/flows/shifty", json=body, headers=prefer).json()["id"]
        dev.shown(f"flows.shifty begun {blocked}")
        (tmp_path / "changed").touch()
        dev.post(f"/api/v1/workflows/{blocked}/messages", json={"topic": "go"})
        dev.shown(f"(?s)flows.shifty blocked {blocked}.*step 0 was transaction put")
        (tmp_path / "changed").unlink()
        dev.post(f"/api/v1/workflows/{blocked}/resume")
        dev.shown(rf"flows.shifty \(workflow\) ok .*{blocked}")
        failed = dev.post("/apps/flows/fail", json={}, headers=prefer).json()["id"]
        dev.shown(rf"(?s)flows.fail \(workflow\) internal_error .*{failed}.*LookupError: a mistake of the app")
    finally:
        dev.process.send_signal(signal.SIGTERM)
        assert dev.process.wait(WAIT_SECONDS) == 0


def test_dev_follows_folders_that_are_made_later(tools, tmp_path):
    module = tmp_path / "late.py"
    module.write_text("from apiary import App\napp = App('late')\n")
    dev = Dev(tools, module, tmp_path)
    try:
        other = {"Authorization": "Bearer a-key-of-another-server"}
        assert dev.get("/api/v1/apps", headers=other).status_code == 200
        assert dev.get("/api/v1/apps", headers={**other, "Origin": "http://evil.example"}).status_code == 403
        (tmp_path / "migrations").mkdir()
        (tmp_path / "migrations" / "001-t.sql").write_text("create table t (a);")
        dev.shown("applied 001-t.sql")
        (tmp_path / "migrations" / "002-u.sql").write_text("create table u (a);")
        dev.shown("applied 002-u.sql")
        for name in ("web", "web/deep"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "index.html").write_text(f"<p>{name}")
            address = f"/apps/late/{name}/index.html"
            tools.eventually(lambda at=address, text=name: dev.get(at).text == f"<p>{text}")
        (tmp_path / "web" / "deep" / "index.html").write_text("<p>changed")
        tools.eventually(lambda: "changed" in dev.get("/apps/late/web/deep/index.html").text)
    finally:
        os.killpg(dev.process.pid, signal.SIGINT)
        assert dev.process.wait(WAIT_SECONDS) == 0


@pytest.fixture(scope="module")
def flows(zoo, tools, at):
    """The environment of somebody on a server with the app `flows`."""
    zoo.deployed(tools.APPS / "flows")
    return at


def begun(environment, *words) -> str:
    """Start a workflow; its id."""
    done = apiary("call", "flows", *words, "--no-wait", environment=environment)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["id"])


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_workflow_is_called_and_started(flows, here):
    name = uuid.uuid4().hex

    def run(*words, status=0):
        """What a command printed; what it said, where it failed."""
        found, out, said = here(*words, environment=flows)
        assert (found or 0) == status, said
        return json.loads(said.strip().splitlines()[-1] if status and not out else out), said

    assert run("call", "flows", "five", f"key={name}")[0] == 10
    identifier = run("call", "flows", "approval", f"key={name}", "--no-wait")[0]["id"]
    shown = run("workflow", "show", identifier)[0]
    assert (shown["function"], shown["input"]) == ("approval", {"key": name})
    early, said = run("workflow", "result", identifier, "--wait", "0.2", status=1)
    assert early["id"] == identifier
    assert f"apiary workflow show {identifier}" in said
    run("workflow", "send", identifier, "other")
    assert run("workflow", "send", identifier, "answer", '{"x": [1]}')[0] == {"id": identifier}
    assert run("workflow", "result", identifier)[0] == {"x": [1]}
    assert run("call", "flows", "refuse", f"key={name}", status=1)[0]["code"] == "not_today"
    fork = run("workflow", "fork", identifier, "--step", "1")[0]["id"]
    run("workflow", "cancel", fork)
    assert run("workflow", "result", fork, status=1)[0]["code"] == "cancelled"
    assert run("workflow", "resume", fork, status=1)[0]["code"] == "conflict"
    words = ("workflow", "list", "flows", "--function", "approval", "--roots", "--limit", "2")
    assert [entry["id"] for entry in run(*words)[0]] == [fork, identifier]
    assert run(*words, "--before", fork, "--status", "ok")[0][0]["id"] == identifier


def test_people_see_workflows_as_tables_and_trees(flows):
    name = uuid.uuid4().hex
    identifier = begun(flows, "parent", f"key={name}")

    def look(*words) -> str:
        status, seen = on_terminal("workflow", *words, environment=flows)
        assert status == 0, seen
        return re.sub(r"\x1b\[[\d;]*m", "", seen)

    def waiting() -> str:
        seen = look("show", identifier)
        return seen if "waits for step 0 (approval)" in seen else ""

    end = time.monotonic() + WAIT_SECONDS
    while not (seen := waiting()):
        assert time.monotonic() < end
    assert re.search(rf'  0 approval\(\{{"key": "{name}"\}}\) (waiting|running) \S+', seen)
    assert "flows.parent waiting" in seen
    seen = look("list", "--function", "approval")
    assert re.search(r"  flows.approval +waiting +a message on answer", seen)
    child = json.loads(apiary("workflow", "show", identifier, environment=flows).stdout)["steps"][0]["id"]
    seen = look("show", child)
    assert f'  0 put({{"key": "{name}", "n": 7}}) → 7 ok' in seen
    assert 'published state: {"waits": true}' in seen
    apiary("workflow", "cancel", child, environment=flows)
    status, seen = on_terminal("workflow", "result", child, environment=flows)
    assert (status, "was cancelled" in seen) == (1, True)
    assert "undo by unput" in look("show", child)


def test_who_stops_waiting_is_told_how_to_find_a_workflow_again(flows, zoo, tools):
    name = uuid.uuid4().hex
    command = [sys.executable, "-m", "apiary", "call", "flows", "approval", f"key={name}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean(flows))

    def found() -> str:
        entries = zoo.http.get("/api/v1/workflows", params={"function": "approval", "status": "waiting"}).json()
        shown = (zoo.http.get(f"/api/v1/workflows/{entry['id']}").json() for entry in entries)
        return next((one["id"] for one in shown if one["input"] == {"key": name}), "")

    identifier = tools.eventually(found)
    tools.eventually(lambda: [host for host in zoo.hosts("flows") if host["in_flight"]])
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, out) == (130, "")
    for command in ("show", "result", "cancel"):
        assert f"apiary workflow {command} {identifier}" in said
    assert "Traceback" not in said
    assert zoo.http.post(f"/api/v1/workflows/{identifier}/cancel").status_code == 200


def test_a_result_is_waited_for_on_a_terminal(flows, zoo):
    identifier = begun(flows, "approval")
    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(on_terminal, "workflow", "result", identifier, environment=flows)
        end = time.monotonic() + WAIT_SECONDS
        while not [host for host in zoo.hosts("flows") if host["in_flight"]]:
            assert time.monotonic() < end
        zoo.http.post(f"/api/v1/workflows/{identifier}/messages", json={"topic": "answer", "value": "on time"})
        status, text = seen.result()
    assert status == 0
    assert f"approval {identifier} waiting for a message on answer" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text)
    assert '"on time"' in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", text)
