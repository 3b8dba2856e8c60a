"""What the code of an app finds in the process that runs it."""

APP = """
import os
from apiary import App

app = App("curious")


@app.action
def variables() -> list[str]:
    return sorted(os.environ)
"""


def test_the_code_of_an_app_is_not_given_the_secrets_of_the_server(new_server, tools, tmp_path):
    secrets = {"PGPASSWORD": "secret", "APIARY_KEY": "secret", "APIARY_DATABASE": "postgresql://boss:secret@nowhere/"}
    server = new_server(environment={**secrets, "OPEN": "to all"})
    server.deployed(tools.write_app(tmp_path / "app", {"curious.py": APP}))
    found = server.call("variables", app="curious")
    assert "OPEN" in found
    assert not {*secrets, "APIARY_ADMIN_KEY"} & set(found)
