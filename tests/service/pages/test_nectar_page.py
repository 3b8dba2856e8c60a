"""The page of examples/nectar, in a browser."""

from itertools import count

import pytest

PASSWORD = "royal jelly"
HANDLES = (f"bee{number}" for number in count(1))


@pytest.fixture
def page(browser, site):
    """The page, signed out."""
    browser.open(f"{site.url}/apps/nectar/web/index.html")
    browser.see("#sign-in")
    return browser


def enter(page, handle, password=PASSWORD, button="Sign in"):
    page.type("#handle", handle)
    page.type("#password", password)
    page.click("#sign-in button", button)


def join(page):
    """Register, and be signed in; the handle."""
    handle = next(HANDLES)
    enter(page, handle, button="Join")
    page.see("#me", f"@{handle}")
    return handle


def post(page, text):
    page.type("#text", text)
    page.click("#compose button")
    page.see("#feed p", text)


def sign_out(page):
    page.click("#sign-out")
    page.see("#sign-in")


def test_a_post_reaches_the_timeline_of_a_follower(page):
    author = join(page)
    post(page, "the lime trees are out")
    sign_out(page)
    reader = join(page)
    page.see("#empty", "Quiet here.")
    page.click("nav a", "Everyone")
    page.click("#feed .handle", author)
    page.click("#profile button", "Follow")
    page.see("#profile button", "Unfollow")
    page.click("nav a", "Home")
    page.see("#feed p", "the lime trees are out")
    page.click("#feed .like", "♥ 0")
    page.see("#feed .like[aria-pressed=true]", "♥ 1")
    sign_out(page)
    enter(page, author)
    page.see("#feed .like", "♥ 1")
    assert reader not in page.see("#feed").text
    assert page.complaints() == []


def test_a_wrong_password_says_so(page):
    handle = join(page)
    sign_out(page)
    page.complaints()
    enter(page, handle, "wax, not jelly")
    assert page.see("#trouble").text == "the handle or the password is wrong"
    assert page.see("#handle").get_property("value") == handle
    refused = [complaint for complaint in page.complaints() if "/login" in complaint]  # by the browser itself
    assert len(refused) == 1, refused
    assert "/login - Failed to load resource: the server responded with a status of 422" in refused[0]
    enter(page, handle)
    page.see("#me", handle)
    assert not page.all("#trouble")


def test_tabs_follow_each_other(page):
    """Signing in, or out, in one of them holds in the others."""
    first = page.driver.current_window_handle
    address = page.driver.current_url
    page.driver.switch_to.new_window("tab")
    page.open(address)
    handle = join(page)
    second = page.driver.current_window_handle
    page.driver.switch_to.window(first)
    page.see("#me", handle)
    post(page, "from the first tab")
    sign_out(page)
    page.driver.switch_to.window(second)
    page.see("#sign-in")
    assert page.complaints() == []


def test_what_looks_like_html_is_text(page):
    stings = "<script>window.stung = 1</script><img src='/sting' onerror='window.stung = 1'><b>&lt;</b>"
    handle = join(page)
    post(page, stings)
    page.open(page.driver.current_url)
    page.click("#feed .handle", handle)
    page.see("#profile")
    assert page.see("#feed p").text == stings
    assert page.run("return [window.stung, document.querySelectorAll('#feed img, #feed script, #feed b').length]") == [
        None,
        0,
    ]
    assert page.hosts() == {"127.0.0.1"}
    assert page.complaints() == []


@pytest.mark.parametrize("size", ["desktop", "phone"])
def test_it_fits_its_window(page, size):
    page.open(page.driver.current_url, size)
    page.see("#sign-in")
    assert page.overflow() == 0
    join(page)
    post(page, "w" * 280)
    assert page.overflow() == 0
    tops = {element.location["y"] // 20 for element in page.all(".brand, #sign-out")}
    assert len(tops) == 1, "the head of the page is broken"
