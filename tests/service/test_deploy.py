"""Deploys: nothing fails while they happen, what is broken is refused, and what is old can serve again."""

import base64
import hashlib
import io
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pydantic
import pytest
from tests.service.conftest import new_client

APP = """
import os
import time
from apiary import App, Rejected, Transaction

app = App("{name}")


@app.query(timeout=60)
def version(tx: Transaction, until: str = "") -> str:
    while until and not os.path.exists(until):
        time.sleep(0.01)
    return "{version}"


@app.transaction
def count(tx: Transaction) -> int:
    return tx.execute("insert into hits default values returning id").scalar()
"""
MIGRATION = "create table hits (id integer primary key);"


def source(version: str, name: str = "small") -> str:
    return APP.replace("{name}", name).replace("{version}", version)


def app_files(version: str, name: str = "small", **more: str) -> dict[str, str]:
    return {f"{name}.py": source(version, name), "migrations/001-hits.sql": MIGRATION, **more}


def wheel(name: str, version: str) -> tuple[str, bytes]:
    """A wheel with one module, which knows its version."""
    info = f"{name}-{version}.dist-info"
    content = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text)}")
    content[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in content.items():
            archive.writestr(path, text)
    return f"{name}-{version}-py3-none-any.whl", buffer.getvalue()


@pytest.fixture(scope="module")
def server(tmp_path_factory, tools):
    server = tools.Server(tmp_path_factory.mktemp("deploy"), "--anonymous-calls").start()
    yield server
    server.end()


@pytest.fixture
def write(tmp_path, tools):
    def write(files, folder="app"):
        return tools.write_app(tmp_path / folder, files)

    return write


def test_no_request_fails_while_versions_change(server, write, tools):
    server.deployed(write(app_files("v0")))
    stop = threading.Event()
    answers: list[tuple[int, str]] = []

    def load() -> None:
        with new_client(base_url=server.url) as http:
            while not stop.is_set():
                for function in ("version", "count"):
                    response = http.post(f"/apps/small/{function}")
                    answers.append((response.status_code, response.text))

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load) for _ in range(4)]
        for number in range(1, 6):
            done = server.deployed(write(app_files(f"v{number}")))
            assert server.call("version", app="small") == f"v{number}"
            assert done["migrations"] == []
        stop.set()
        for load_done in loads:
            load_done.result()
    assert {status for status, _ in answers} == {200}, [text for status, text in answers if status != 200][:3]
    counted = sorted(int(text) for _, text in answers if not text.startswith('"'))
    assert counted == list(range(1, len(counted) + 1))
    tools.eventually(lambda: len(server.hosts("small")) == 1)


def test_a_key_has_its_outcome_though_its_function_is_gone(server, write):
    server.deployed(write(app_files("with")))
    counted = server.post("count", key="gone", app="small")
    renamed = source("without").replace("def count(", "def counted(")
    server.deployed(write({**app_files("without"), "small.py": renamed}))
    again = server.post("count", key="gone", app="small")
    assert (again.status_code, again.json(), again.headers["idempotency-replayed"]) == (200, counted.json(), "true")
    assert again.headers["apiary-call-id"] == counted.headers["apiary-call-id"]
    for key in (None, "another"):
        unknown = server.post("count", key=key, app="small")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_function")
        assert "counted" in unknown.json()["hint"]


def test_calls_in_flight_finish_on_the_version_that_they_began_with(server, write, tools, tmp_path):
    end = tmp_path / "end"
    server.deployed(write(app_files("old")))
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.call, "version", app="small", until=str(end))
        tools.eventually(lambda: server.hosts("small")[0]["in_flight"] == 1)
        server.deployed(write(app_files("new")))
        assert server.call("version", app="small") == "new"
        assert not slow.done()
        assert {host["state"] for host in server.hosts("small")} == {"serving", "draining"}
        end.touch()
        assert slow.result() == "old"
    tools.eventually(lambda: len(server.hosts("small")) == 1)


UNPRINTABLE = """
class Odd(Exception):
    def __repr__(self):
        raise ValueError
    __str__ = __repr__

raise Odd
"""
STRANGE = "\n\n@app.query\ndef f(tx: Transaction, x: object.__class__) -> int:\n    return 1\n"
LONELY = "\n\n@app.query\ndef f() -> int:\n    return 1\n"
BROKEN = {
    "syntax": {"small.py": "def (:\n"},
    "import": {"small.py": "import no_such_module_anywhere\n"},
    "raises": {"small.py": "x = 1\nraise LookupError('at import')\n"},
    "unprintable": {"small.py": UNPRINTABLE},
    "no app": {"small.py": "x = 1\n"},
    "two apps": {"small.py": "from apiary import App\na = App('a1')\nb = App('b1')\n"},
    "bad name": {"small.py": "from apiary import App\na = App('Not A Name')\n"},
    "reserved": {"small.py": source("x", "apiary")},
    "reserved too": {"small.py": source("x", "platform")},
    "a type that does not travel": {"small.py": source("x") + STRANGE},
    "no transaction": {"small.py": source("x") + LONELY},
    "exit": {"small.py": "import sys\nsys.exit(0)\n"},
    "os exit": {"small.py": "import os\nos._exit(0)\n"},
    "interrupt": {"small.py": "raise KeyboardInterrupt\n"},
    "kill": {"small.py": "import os\nos.kill(os.getpid(), 9)\n"},
    "bad sql": app_files("x", **{"migrations/002-bad.sql": "create table t (a); insert into nowhere values (1);"}),
    "no number": app_files("x", **{"migrations/first.sql": "select 1;"}),
    "one number twice": app_files("x", **{"migrations/1-again.sql": "select 1;"}),
    "changed migration": app_files("x", **{"migrations/001-hits.sql": MIGRATION + " "}),
    "commit": app_files("x", **{"migrations/002-commit.sql": "create table t2 (a); commit;"}),
    "fork": {"small.py": "import os\nif os.fork() == 0:\n    os._exit(0)\nraise RuntimeError('forked')\n"},
}  # fmt: skip


def kept(server):
    """The files of the apps. What is known of their effects is written when there is time."""
    return {path.name for path in server.data.iterdir() if "-" not in path.name and not path.match("*.log.db")}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_refused_and_the_old_version_serves(server, write, tools, what):
    if server.post("version", app="small").text != '"good"':
        server.deployed(write(app_files("good"), "good"))
    before = server.hosts("small")[0]["version"]
    databases = kept(server)
    code = set((server.data / "code").iterdir())
    tools.eventually(lambda: len(server.hosts("small")) == 1)
    files = BROKEN[what]
    response = server.deploy(write(files, "broken") / next(iter(files)))
    assert response.status_code == 422, response.text
    found = response.json()
    assert found["code"] in ("bundle_refused", "migration_refused", "declaration"), found
    assert found["detail"]
    if what in ("syntax", "import", "raises"):
        assert "small.py" in found["traceback"]
        assert "apiary/" not in found["traceback"].split("small.py")[-1]
    assert server.call("version", app="small") == "good"
    assert [v["version"] for v in server.http.get("/api/v1/apps/small/versions").json() if v["active"]] == [before]
    apps = server.http.get("/api/v1/apps").json()
    tools.eventually(lambda: len(tools.working_processes(server.mark)) <= 1 + len(apps), what="its host ends")
    assert kept(server) == databases
    assert set((server.data / "code").iterdir()) == code


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x1f\x8b\x08\x00garbage", b"\x00" * 10240], ids=["empty", "text", "gzip", "zeros"]
)
def test_a_body_that_is_no_bundle_is_refused(server, content):
    response = server.http.post("/api/v1/apps", params={"module": "small"}, content=content)
    assert (response.status_code, response.json()["code"]) == (422, "bundle_refused")
    for module in ("", "a.b", "../x", "1"):
        response = server.http.post("/api/v1/apps", params={"module": module}, content=content)
        assert (response.status_code, response.json()["code"]) == (400, "wrong_arguments")
    response = server.http.post("/api/v1/apps", params={"module": "calendar"}, content=content)
    assert (response.status_code, response.json()["code"]) == (422, "bundle_refused")
    assert "calendar is the name of a module of Python's own" in response.text


@pytest.mark.parametrize("name", ["../evil.py", "/tmp/evil.py", "a/../../evil.py", "\x00.py", "x" * 300 + ".py"])
def test_a_bundle_writes_nothing_outside_of_its_folder(server, tmp_path, name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    before = sorted(server.data.rglob("*.py"))
    response = server.http.post("/api/v1/apps", params={"module": "small"}, content=buffer.getvalue())
    assert response.status_code == 422, response.text
    assert sorted(server.data.rglob("*.py")) == before


def test_a_link_in_a_bundle_is_refused(server):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        link = tarfile.TarInfo("small.py")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    response = server.http.post("/api/v1/apps", params={"module": "small"}, content=buffer.getvalue())
    assert (response.status_code, response.json()["code"]) == (422, "bundle_refused")


def test_the_same_code_twice_is_one_version(server, write):
    first = server.deployed(write(app_files("same", "twice")))
    again = server.deployed(write(app_files("same", "twice")))
    assert first["version"] == again["version"]
    assert (first["migrations"], again["migrations"]) == (["001-hits.sql"], [])
    assert len(server.http.get("/api/v1/apps/twice/versions").json()) == 1


def test_concurrent_deploys_are_made_one_after_another(server, write, tools):
    paths = [write(app_files(f"c{number}", "many"), f"c{number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        done = [result.result() for result in [pool.submit(server.deploy, path) for path in paths]]
    assert {response.status_code for response in done} == {201}
    versions = server.http.get("/api/v1/apps/many/versions").json()
    assert len(versions) == 4
    assert [v["active"] for v in versions] == [True, False, False, False]
    assert server.hosts("many")[0]["version"] == versions[0]["version"]
    tools.eventually(lambda: len(server.hosts("many")) == 1)


@pytest.mark.parametrize(("migration", "status"), [("create table t (x integer);", 201), ("no sql", 422)])
def test_the_same_code_at_once(server, write, migration, status):
    name = f"once{status}"
    path = write(app_files("same", name, **{"migrations/002-t.sql": migration}))
    before = {entry.name for entry in server.data.glob("code/*")}
    with ThreadPoolExecutor(3) as pool:
        done = [result.result() for result in [pool.submit(server.deploy, path) for _ in range(3)]]
    assert [response.status_code for response in done] == [status] * 3, [response.text for response in done]
    versions = server.http.get(f"/api/v1/apps/{name}/versions")
    made = {entry.name for entry in server.data.glob("code/*")} - before
    if status == 201:
        assert made == {version["version"] for version in versions.json()} == {done[0].json()["version"]}
        assert server.call("version", app=name) == "same"
    else:
        assert versions.status_code == 404
        assert not made


def test_rollback(server, write):
    one = server.deployed(write(app_files("one", "back")))["version"]
    response = server.http.post("/api/v1/apps/back/rollback")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    two = server.deployed(write(app_files("two", "back")))["version"]

    def rollback(**params):
        return server.http.post("/api/v1/apps/back/rollback", params=params)

    assert rollback().json()["version"] == one
    assert server.call("version", app="back") == "one"
    assert rollback(version=two[:6]).json()["version"] == two
    assert server.call("version", app="back") == "two"
    for unknown in ("nothing", "%", "_" * 12, "", two + "0"):
        response = rollback(version=unknown)
        assert (response.status_code, response.json()["code"]) == (404, "not_found"), unknown
        assert server.call("version", app="back") == "two"
    assert server.http.post("/api/v1/apps/none/rollback").status_code == 404
    active = [v["version"] for v in server.http.get("/api/v1/apps/back/versions").json() if v["active"]]
    assert active == [two]


def test_an_app_that_is_renamed_is_another_app(server, write):
    server.deployed(write(app_files("x", "before"), "a"))
    files = {"before.py": source("y", "after"), "migrations/001-hits.sql": MIGRATION}
    assert server.deployed(write(files, "b"))["app"] == "after"
    assert (server.call("version", app="before"), server.call("version", app="after")) == ("x", "y")


def test_two_apps_need_two_versions_of_a_library(server, write):
    for number in ("1.0", "2.0"):
        name = "needs" + number[0]
        file, content = wheel("tinylib", number)
        code = f'''
import tinylib
from apiary import App, Transaction
app = App("{name}")

@app.query
def version(tx: Transaction) -> str:
    return tinylib.VERSION
'''
        files = {f"{name}.py": code, "requirements.txt": f"tinylib=={number}\n", f"wheels/{file}": content}
        server.deployed(write(files, name))
    assert (server.call("version", app="needs1"), server.call("version", app="needs2")) == ("1.0", "2.0")
    packages = set((server.data / "packages").iterdir())
    assert len(packages) == 2
    server.deployed(write({**files, "needs2.py": code + "\n"}, "needs2"))
    assert set((server.data / "packages").iterdir()) == packages


def test_a_requirement_that_cannot_be_had_is_refused(server, write):
    file, content = wheel("tinylib", "1.0")
    files = {**app_files("x", "needs3"), "requirements.txt": "tinylib==3.0\n--no-index\n", f"wheels/{file}": content}
    response = server.deploy(write(files, "needs3"))
    assert (response.status_code, response.json()["code"]) == (422, "bundle_refused")
    assert "tinylib" in response.json()["output"]
    assert "needs3" not in server.http.get("/api/v1/apps").text


def test_a_requirement_that_the_platform_has_in_another_version_is_refused_with_what_it_has(server, write):
    file, content = wheel("pydantic", "1.0")
    files = {**app_files("x", "needs4"), "requirements.txt": "pydantic<2\n--no-index\n", f"wheels/{file}": content}
    problem = server.deploy(write(files, "needs4")).json()
    assert (problem["status"], problem["code"]) == (422, "bundle_refused")
    assert "Cannot install pydantic<2" in problem["detail"]
    assert f"the platform's own pydantic {pydantic.VERSION}" in problem["hint"]


def test_an_app_sees_its_bundle_only_and_not_the_folder_of_the_server(server, write):
    (server.folder / "beside.py").write_text("x = 1\n")
    response = server.deploy(write({"small.py": "import beside\n" + source("x")}, "beside"))
    assert response.status_code == 422
    assert "beside" in response.json()["detail"]


def test_a_restarted_server_serves_the_active_versions(new_server, write, tools):
    server = new_server("--anonymous-calls")
    server.deployed(write(app_files("first", "kept"), "a"))
    server.deployed(write(app_files("second", "kept"), "b"))
    server.http.post("/api/v1/apps/kept/rollback")
    assert server.call("count", app="kept") == 1
    assert server.stop() == 0
    server.start()
    assert server.call("version", app="kept") == "first"
    assert server.call("count", app="kept") == 2
    assert len(list((server.data / "code").iterdir())) == 1


@pytest.mark.parametrize("named", ['"sql"', 'Path(__file__).parent / "sql"', '"/nowhere/sql"', '"mistyped"'])
def test_a_named_folder_of_migrations_that_is_not_in_the_bundle_is_refused(new_server, tools, tmp_path, named):
    server = new_server("--anonymous-calls")
    declared = f'from pathlib import Path\nfrom apiary import App\napp = App("small", migrations={named})\n'
    app = tools.write_app(tmp_path / "app", {"small.py": declared, "sql/001-hits.sql": MIGRATION})
    response = server.deploy(app / "small.py")
    assert response.status_code == 422, response.text
    assert "as the folder of its migrations, which is not there" in response.json()["detail"]
    assert "migrations/" in response.json()["hint"]


def test_a_named_folder_of_migrations_outside_of_the_bundle_is_refused(new_server, tools, tmp_path):
    server = new_server("--anonymous-calls")
    tools.write_app(tmp_path / "sql", {"001-hits.sql": MIGRATION})
    declared = f'from apiary import App\napp = App("small", migrations={str(tmp_path / "sql")!r})\n'
    response = server.deploy(tools.write_app(tmp_path / "app", {"small.py": declared}) / "small.py")
    assert response.status_code == 422, response.text
    assert "outside of its bundle" in response.json()["detail"]


def test_a_package_ships_the_folders_that_it_names_and_web_beside_the_module(new_server, tools, tmp_path):
    server = new_server("--anonymous-calls")
    declared = source("x").replace('App("small")', 'App("small", migrations="sql/all")')
    files = {"__init__.py": declared, "sql/all/001-hits.sql": MIGRATION, "web/index.html": "<p>beside the module"}
    tools.write_app(tmp_path / "app" / "small", files)
    assert server.deployed(tmp_path / "app")["migrations"] == ["001-hits.sql"]
    assert server.call("count", app="small") == 1
    assert "beside the module" in server.http.get("/apps/small/web/").text
