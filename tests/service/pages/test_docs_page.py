"""The docs page of an app, in a browser: it lists functions, calls them, shows errors, and needs nobody else."""

import json
from urllib.parse import urlsplit

import pytest

PASSWORD = "royal jelly"


def call(browser, function, arguments, status="200"):
    """Call a function by its form, which must answer with this status; the JSON of the answer that the page shows."""
    browser.click(".opblock-post .opblock-summary-path", f"/apps/nectar/{function}")
    browser.type(".opblock.is-open .body-param__text", json.dumps(arguments))
    browser.click(".opblock.is-open .execute")
    answer = ".opblock.is-open .live-responses-table"
    browser.see(f"{answer} .response-col_status", status)
    return json.loads(browser.see(f"{answer} .highlight-code code").text)


def test_it_lists_functions_and_what_they_do(browser, site):
    browser.open(f"{site.url}/apps/nectar/docs")
    browser.see(".opblock-summary")
    rows = [row.text for row in browser.all(".opblock-summary")]
    for function, words in [
        ("register", "Open an account, and sign in."),
        ("like", "Like a post; liking it twice counts once."),
        ("profile", "One user. Needs no session."),
    ]:
        assert f"POST\n/apps/nectar/{function}\n{words}" in rows
    assert browser.driver.title == "nectar · Apiary"
    assert browser.complaints() == []


@pytest.mark.parametrize("name", ["127.0.0.1", "apiary.example"])
def test_a_form_calls_a_function_and_nobody_else_is_asked(browser, site, name):
    """Whatever the server is called: Swagger UI treats the name of one's own machine differently."""
    browser.open(f"http://{name}:{urlsplit(site.url).port}/apps/nectar/docs")
    handle = f"docs_{name.partition('.')[0]}"
    assert call(browser, "register", {"handle": handle, "password": PASSWORD})["handle"] == handle
    assert site.call("profile", app="nectar", handle=handle)["posts"] == 0
    assert browser.hosts() == {name}
    assert browser.complaints() == []


@pytest.mark.parametrize(
    ("size", "status", "code", "function", "handle", "words"),
    [
        ("desktop", "422", "wrong_login", "login", "nobody", "the handle or the password is wrong"),
        ("phone", "400", "wrong_arguments", "register", "No Handle", "handle"),
    ],
)
def test_an_error_can_be_read_in_a_window_of_any_size(browser, site, size, status, code, function, handle, words):
    browser.open(f"{site.url}/apps/nectar/docs", size)
    browser.see(".opblock-summary")
    assert browser.overflow() == 0
    problem = call(browser, function, {"handle": handle, "password": PASSWORD}, status)
    assert problem["code"] == code
    assert words in problem["detail"]
    assert browser.overflow() == 0
    (complaint,) = browser.complaints()  # the browser's own, of every answer that is an error
    assert f"/{function} - Failed to load resource: the server responded with a status of {status}" in complaint
