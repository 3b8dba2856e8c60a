"""Bundles: the same bytes for the same sources, nothing that should stay at home, nothing that escapes."""

import gzip
import io
import lzma
import os
import tarfile

import pytest

from apiary import bundle
from apiary.bundle import load_app, locate, make_bundle, read_migrations, unpack
from apiary.runtime.errors import BundleRefused, PayloadTooLarge

APP = "from apiary import App\napp = App('shop')\n"


def names(content: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return archive.getnames()


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "project"
    for name, text in {
        "shop/__init__.py": APP,
        "shop/models.py": "",
        "shop/migrations/001-a.sql": "select 1;",
        "shop/web/index.html": "<p>",
        "requirements.txt": "",
        "wheels/x-1-py3-none-any.whl": "",
        # what stays at home
        "shop/.env": "SECRET=1",
        "shop/.git/config": "",
        "shop/__pycache__/models.cpython-311.pyc": "",
        "shop/old.pyc": "",
        "shop/data.db": "",
        "shop/data.db-wal": "",
        "shop/node_modules/x.js": "",
        "shop/tests/test_x.py": "",
        "README.md": "",
        ".env": "SECRET=1",
        "wheels/notes.txt": "",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


SHIPPED = [
    "requirements.txt",
    "shop/__init__.py",
    "shop/migrations/001-a.sql",
    "shop/models.py",
    "shop/web/index.html",
    "wheels/x-1-py3-none-any.whl",
]


def test_only_what_is_of_use_travels(package):
    assert names(make_bundle(package).content) == SHIPPED
    assert names(make_bundle(package / "shop").content) == SHIPPED
    assert make_bundle(package).module == "shop"


def test_a_single_file_travels_with_its_migrations(tmp_path):
    for name in ("shop.py", "migrations/1.sql", "migrations/notes.txt", "web/x.html", "other.py", ".env"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(APP if name == "shop.py" else "")
    packed = make_bundle(tmp_path / "shop.py")
    assert (packed.module, names(packed.content)) == ("shop", ["migrations/1.sql", "shop.py", "web/x.html"])
    assert make_bundle(tmp_path) == packed


def test_the_same_sources_are_the_same_bytes(package, monkeypatch):
    first = make_bundle(package)
    for file in package.rglob("*.py"):
        os.utime(file, (1, 1))
        file.chmod(0o600)
    monkeypatch.chdir(package)
    second = make_bundle(package / "." / "shop")
    assert first == second
    assert first.version == second.version
    assert len(first.version) == 12
    (package / "shop" / "models.py").write_text("x = 1")
    assert make_bundle(package).version != first.version


def test_a_bundle_unpacks_as_it_was_packed(package, tmp_path):
    unpack(make_bundle(package).content, tmp_path / "out")
    for name in SHIPPED:
        assert (tmp_path / "out" / name).read_bytes() == (package / name).read_bytes()


def test_links_that_lead_nowhere_and_pipes_are_left_out(package):
    (package / "shop" / "broken.py").symlink_to("nowhere")
    os.mkfifo(package / "shop" / "pipe.py")
    assert names(make_bundle(package).content) == SHIPPED


def test_requirements_may_lie_inside_the_package(package):
    """There, they come before those beside it, which may be those of something else."""
    (package / "requirements.txt").write_text("beside")
    (package / "shop" / "requirements.txt").write_text("inside")
    (package / "shop" / "wheels").mkdir()
    (package / "shop" / "wheels" / "a.whl").write_text("")
    found = make_bundle(package).content
    assert sorted(names(found)) == sorted([*SHIPPED[:-1], "shop/requirements.txt", "wheels/a.whl"])
    with tarfile.open(fileobj=io.BytesIO(found)) as archive:
        assert archive.extractfile("requirements.txt").read() == b"inside"


def test_a_bundle_that_is_too_large_is_refused(package, monkeypatch):
    monkeypatch.setattr(bundle, "MAX_BUNDLE_BYTES", 100_000)
    with (package / "shop" / "film.bin").open("wb") as file:
        file.truncate(10**12)  # it takes no room on the disk, and must not be read
    with pytest.raises(PayloadTooLarge):
        make_bundle(package)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"one.py": "x = 1"},
    ],
)
def test_a_folder_that_holds_no_app_is_refused(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BundleRefused, match="no app at") as raised:
        locate(tmp_path)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"one.py": APP, "two.py": APP, "three.py": "x = 1"}, "one.py, two.py"),
        ({"one/__init__.py": "", "two/__init__.py": ""}, "one, two"),
    ],
)
def test_a_folder_that_holds_several_apps_is_refused_with_their_names(tmp_path, files, names):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(BundleRefused, match=f"several that may be the app: {names}$") as raised:
        locate(tmp_path)
    assert raised.value.hint


def entry(name="a.py", type=tarfile.REGTYPE, content=b"", **fields):
    made = tarfile.TarInfo(name)
    made.type, made.size = type, len(content)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, content


def archive(*entries, format=tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as written:
        for made, content in entries:
            written.addfile(made, io.BytesIO(content))
    return buffer.getvalue()


def sparse_bomb() -> bytes:
    """A few bytes that say to be a file of a terabyte of zeros."""
    headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "a.py",
        "GNU.sparse.map": "0,1",
        "GNU.sparse.size": str(10**12),
    }
    return archive(entry(content=b"x", pax_headers=headers))


GOOD = archive(entry(content=b"x = 1"))


@pytest.mark.parametrize(
    "content",
    [
        archive(entry("/etc/passwd")),
        archive(entry("../a.py")),
        archive(entry("a/../../a.py")),
        archive(entry("a/../b.py")),
        archive(entry("link", tarfile.SYMTYPE, linkname="/etc/passwd")),
        archive(entry("link", tarfile.LNKTYPE, linkname="a.py")),
        archive(entry("folder", tarfile.DIRTYPE)),
        archive(entry("device", tarfile.CHRTYPE)),
        archive(entry("pipe", tarfile.FIFOTYPE)),
        archive(entry("link", tarfile.SYMTYPE, linkname="."), entry("link/a.py")),
        archive(entry(".")),
        archive(entry("./")),
        archive(entry("a"), entry("a/b")),
        archive(entry("a/b"), entry("a")),
        archive(entry("a.py", content=b"1"), entry("a.py", content=b"2")),
        archive(entry("x" * 300)),
        sparse_bomb(),
        gzip.compress(GOOD),
        lzma.compress(archive(entry(content=bytes(10**7)))),
        b"",
        b"no archive",
        GOOD[:600],
        GOOD[:100],
        GOOD[:300] + b"\xff" * 100 + GOOD[400:],
        os.urandom(2048),
    ],
    ids=lambda content: "archive",
)
def test_an_archive_that_is_none_or_means_harm_is_refused(tmp_path, content):
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(BundleRefused):
        unpack(content, outside / "inside")
    assert [path.name for path in outside.iterdir()] in ([], ["inside"])
    assert sum(path.stat().st_size for path in outside.rglob("*") if path.is_file()) < 100


def test_a_module_that_fails_shows_its_own_traceback(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_one.py").write_text("import json\n\ndef f():\n    raise ValueError('oops')\n\nf()\n")
    (tmp_path / "broken_two.py").write_text("from apiary import App\napp = App('Bad Name')\n")
    (tmp_path / "broken_three.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "broken_four.py").write_text("x = 1\n")
    (tmp_path / "broken_five.py").write_text("from apiary import App\na = App('a')\nb = App('b')\nc = a\n")
    (tmp_path / "broken_six.py").write_text("def f(:\n")
    with pytest.raises(BundleRefused, match="oops") as raised:
        load_app("broken_one")
    traceback = raised.value.details["traceback"]
    assert "broken_one.py" in traceback
    assert "raise ValueError('oops')" in traceback
    assert "apiary/bundle.py" not in traceback
    with pytest.raises(BundleRefused, match="cannot be the name of an app") as raised:
        load_app("broken_two")
    assert "broken_two.py" in raised.value.details["traceback"]
    assert "lower-case" in raised.value.hint
    for module, message in [
        ("broken_three", "cannot be imported"),
        ("broken_four", "has none"),
        ("broken_five", "has a, b"),
        ("broken_six", "broken_six.py"),
        ("not_there", "not_there"),
    ]:
        with pytest.raises(BundleRefused, match=message):
            load_app(module)


def test_a_syntax_error_shows_nothing_but_its_place(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_seven.py").write_text("def f(:\n")
    with pytest.raises(BundleRefused) as raised:
        load_app("broken_seven")
    traceback = raised.value.details["traceback"]
    assert traceback.count("File ") == 1
    assert "broken_seven.py" in traceback


def test_migrations_are_read_in_the_order_of_their_numbers(tmp_path):
    for name in ("10-ten.sql", "9-nine.sql", "001.sql", "2_two.sql", "notes.txt"):
        (tmp_path / name).write_text("select 1;\r\n", newline="")
    found = read_migrations(tmp_path, "sqlite")
    assert [migration.name for migration in found] == ["001.sql", "2_two.sql", "9-nine.sql", "10-ten.sql"]
    assert found[0].sql == "select 1;\n"
    assert len({migration.checksum for migration in found}) == 1
    assert read_migrations(tmp_path / "missing", "sqlite") == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"create.sql": b""}, "has no number"),
        ({"1-a.sql": b"", "001-b.sql": b""}, "two migrations have the number 1"),
        ({"1-a.sql": b"\xff\xfe"}, "UTF-8"),
    ],
)
def test_migrations_that_cannot_be_ordered_or_read_are_refused(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BundleRefused, match=message):
        read_migrations(tmp_path, "sqlite")


@pytest.mark.parametrize("name", ["shop/web/passwd", "shop/models2.py"])
def test_links_out_of_the_folder_of_the_app_are_refused(package, tmp_path, name):
    (tmp_path / "secret").write_text("x")
    (package / name).symlink_to(tmp_path / "secret")
    with pytest.raises(BundleRefused, match=f"{name} leads out of the folder of the app"):
        make_bundle(package)


def test_a_link_of_a_whole_folder_is_refused_and_one_within_the_app_is_followed(tmp_path):
    app = tmp_path / "app"
    (app / "pages").mkdir(parents=True)
    (app / "shop.py").write_text(APP)
    (app / "pages" / "index.html").write_text("<p>")
    (app / "web").symlink_to("pages")
    assert names(make_bundle(app / "shop.py").content) == ["shop.py", "web/index.html"]
    (app / "web").unlink()
    (app / "web").symlink_to("/etc")
    with pytest.raises(BundleRefused, match="leads out of the folder"):
        make_bundle(app / "shop.py")


def test_names_of_python_itself_are_refused(tmp_path):
    module = tmp_path / "calendar.py"
    module.write_text('from apiary import App\napp = App("calendar")\n')
    with pytest.raises(BundleRefused, match="calendar is the name of a module of Python's own"):
        make_bundle(module)
