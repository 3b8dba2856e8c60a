"""A real browser for the pages: Debian's Chromium, headless, driven by Selenium with the driver of the same package."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest
from bench import provision
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

WAIT_SECONDS = 20.0
LOOK_AGAIN_SECONDS = 0.02
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
NAME = "apiary.example"  # leads to this machine, and is no name of it as far as pages can tell
NAMES = f"MAP {NAME} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
NECTAR = Path(__file__).parents[3] / "examples" / "nectar"


class Site(Protocol):
    """A server, as these tests see it."""

    url: str


class Browser:
    """A Chromium. What it asked for over the network and what it wrote to its console is remembered."""

    def __init__(self, folder: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = provision.chromium()
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        switches = ["headless=new", "disable-dev-shm-usage", "disable-gpu", "lang=en-US", f"user-data-dir={folder}"]
        for switch in [*switches, f"host-resolver-rules={NAMES}", *(["no-sandbox"] if os.geteuid() == 0 else [])]:
            options.add_argument(f"--{switch}")
        service = webdriver.ChromeService(provision.chromedriver(), log_output=str(folder / "chromedriver.log"))
        self.driver = webdriver.Chrome(options, service)

    def open(self, url: str, size: str = "desktop") -> None:
        """Show a page anew, in a window whose inner size is one of SIZES."""
        width, height = SIZES[size]
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.get("about:blank")
        self.driver.get(url)

    def wait(self, condition: Callable[[], Any], what: str = "") -> Any:
        """What `condition` returns once that is true; elements that are not there yet, or no more, count as false."""
        missing = (NoSuchElementException, StaleElementReferenceException)
        waiting = WebDriverWait(self.driver, WAIT_SECONDS, LOOK_AGAIN_SECONDS, missing)
        return waiting.until(lambda _: condition(), what)

    def all(self, selector: str) -> list[WebElement]:
        """The elements that can be seen."""
        return [found for found in self.driver.find_elements(By.CSS_SELECTOR, selector) if found.is_displayed()]

    def see(self, selector: str, text: str = "") -> WebElement:
        """The first visible element with this text, once it is there."""

        def look() -> WebElement | None:
            return next((element for element in self.all(selector) if text in element.text), None)

        found: WebElement = self.wait(look, f"{selector} {text!r}")
        return found

    def click(self, selector: str, text: str = "") -> None:
        """Click what can be seen and is not disabled."""
        self.wait(lambda: self.see(selector, text).is_enabled(), f"{selector} {text!r} is enabled")
        self.see(selector, text).click()

    def type(self, selector: str, text: str) -> None:
        """Put a text in place of what a field holds, at once, as pasting does."""
        self.driver.execute_script("arguments[0].focus(); arguments[0].select()", self.see(selector))
        self.driver.execute_cdp_cmd("Input.insertText", {"text": text})

    def hosts(self) -> set[str]:
        """Where requests went since it was asked last."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return {str(urlsplit(url).hostname) for url in urls if urlsplit(url).scheme in {"http", "https", "ws", "wss"}}

    def complaints(self) -> list[str]:
        """What the console got since it was asked last, whatever its level."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def run(self, script: str) -> Any:
        """What JavaScript returns."""
        return self.driver.execute_script(script)

    def forget(self, origin: str) -> None:
        """Close all tabs but one, and forget what the pages of an origin have stored, and what was remembered."""
        first, *others = self.driver.window_handles
        for other in others:
            self.driver.switch_to.window(other)
            self.driver.close()
        self.driver.switch_to.window(first)
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": "all"})
        self.hosts()
        self.complaints()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, tools: Any) -> Iterator[Site]:
    """A server with the app `nectar`, which takes calls without a key."""
    server = tools.Server(tmp_path_factory.mktemp("site"), "--anonymous-calls").start()
    try:
        server.deployed(NECTAR)
        yield server
    finally:
        server.end()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The process, which all tests share."""
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium: Browser, site: Site) -> Browser:
    """A browser that has seen nothing yet."""
    chromium.forget(site.url)
    return chromium
