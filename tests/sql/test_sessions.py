"""One session with several programs: apps with modules of the same names, versions that follow each other."""

import pytest

from .conftest import CALL

VALUE = """
import values


@app.transaction
def value(tx: Transaction) -> list[str]:
    import late

    return [values.VALUE, late.VALUE]
"""


def deploy(database, app, value, module=None):
    """An app whose packages have the modules `values` and `late`, which say `value`."""
    packages = database.fresh_folder()
    for name in ("values", "late"):
        (packages / f"{name}.py").write_text(f"VALUE = {value!r}\n")
    return database.deploy(VALUE, app, module=module, packages=packages)


def test_apps_with_modules_of_the_same_name(database, client):
    deploy(database, "one", "1", module="app_module")
    deploy(database, "two", "2", module="app_module")
    grants = [grant.replace("shop", name) for name in ("one", "two") for grant in CALL]
    web = client("web", *grants)
    for _ in range(3):
        assert web.one("select one.value()") == ["1", "1"]
        assert web.one("select two.value()") == ["2", "2"]
    assert web.ask("select one.value(), two.value(), one.value()") == [(["1", "1"], ["2", "2"], ["1", "1"])]


def test_apps_share_libraries_where_they_are_the_same(database, client):
    for name in ("one", "two"):
        database.deploy("@app.transaction\ndef where(tx: Transaction) -> str:\n    return str(id(Transaction))\n", name)
    grants = [grant.replace("shop", name) for name in ("one", "two") for grant in CALL]
    web = client("web", *grants)
    assert web.one("select one.where()") == web.one("select two.where()")


def test_many_versions_in_one_session(database, client):
    source = "import gc\n\n@app.transaction\ndef version(tx: Transaction) -> int:\n    return {}\n"
    database.deploy(source.format(0))
    web = client("web", *CALL)
    for version in range(12):
        database.deploy(source.format(version))
        assert web.one("select shop.version()") == version
    database.ask("create view old as select shop.version()")
    database.deploy(source.format("0").replace("version", "renamed"))
    assert database.ask("select * from old") == [(11,)]


def test_an_app_that_cannot_be_loaded_leaves_the_others_alone(database, client):
    deploy(database, "one", "1")
    database.deploy("@app.transaction\ndef fine(tx: Transaction) -> int:\n    return 1\n", "shop")
    program = database.one("select hash from apiary.programs where app = 'shop'")
    database.ask("update apiary.programs set module = 'nowhere' where hash = %s", program)
    grants = [grant.replace("shop", name) for name in ("one", "shop") for grant in CALL]
    web = client("web", *grants)
    assert web.one("select one.value()")[0] == "1"
    assert "nowhere" in web.refused("select shop.fine()").diag.message_primary
    assert web.one("select one.value()")[1] == "1"
    database.ask("update apiary.programs set module = 'shop' where hash = %s", program)
    assert web.one("select shop.fine()") == 1


def test_a_program_that_is_not_there(database):
    database.deploy("@app.transaction\ndef fine(tx: Transaction) -> int:\n    return 1\n")
    database.ask("delete from apiary.programs")
    with pytest.raises(Exception, match="there is no program") as caught:
        database.ask("select shop.fine()")
    assert caught.value.sqlstate == "AP404"
