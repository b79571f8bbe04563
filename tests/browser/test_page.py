"""The gateway's page in Chromium, of a fleet of real processes. `scripts/test-gateway` installs Chromium if need be."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import alert_is_present
from selenium.webdriver.support.ui import WebDriverWait

from batchfleet.gateway.api_keys import new_key
from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import PATIENCE_S, Processes, wait_until

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here: see scripts/test-gateway"),
]
HOSTILE = "<img src=x onerror=alert(1)>"
FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "disable-dev-shm-usage",
)  # fmt: skip
PHONE, DESKTOP = (390, 844), (1280, 900)
RUN = "gsm8k"
DONE = "return document.querySelector('#runs progress')?.value ?? 0"
SETTINGS = {"BATCHFLEET_STUB_STEP_S": "0.05", "BATCHFLEET_STUB_REFUSE_ON": HOSTILE}


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """Chromium with an empty profile, without a screen, that talks to nobody by itself."""
    options = ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in (*FLAGS, f"user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    options.unhandled_prompt_behavior = "ignore"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    driver.set_page_load_timeout(PATIENCE_S)
    yield driver
    driver.quit()


def look(browser: Chrome, size: tuple[int, int], theme: str, picture: Path) -> str:
    """Show the page as on that device, and keep a picture; returns the colour of its ground."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
    picture.write_bytes(base64.b64decode(shot["data"]))
    fits = browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert fits, f"too wide: {picture}"
    return str(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))


def click(browser: Chrome, selector: str) -> None:
    """Click what is there, or will be.

    In one step, because the next look puts another element in its place; and later, because a question may open.
    """
    script = """
        const selector = arguments[0]
        setTimeout(() => document.querySelector(selector)?.click())
        return document.querySelector(selector) !== null
    """
    WebDriverWait(browser, PATIENCE_S).until(lambda it: it.execute_script(script, selector))


def confirm(browser: Chrome) -> None:
    """Say yes."""
    WebDriverWait(browser, PATIENCE_S).until(alert_is_present())
    browser.switch_to.alert.accept()


def wait_for(browser: Chrome, selector: str, words: str) -> None:
    """Wait until these words are shown there."""
    script = "return [...document.querySelectorAll(arguments[0])].map(one => one.innerText).join(' ')"
    WebDriverWait(browser, PATIENCE_S).until(lambda it: words in it.execute_script(script, selector))


def start(fleet: Processes, *options: str) -> str:
    """Start a fleet with a gateway; returns its address."""
    data = str(fleet.folder / "data")
    fleet.start("gateway", "gateway", "--listen", "127.0.0.1:0", "--data", data, *options)
    fleet.batcher()
    fleet.worker()
    wait_until(lambda: "listening on" in fleet.log("gateway"), "the gateway listens")
    found = re.search(r"listening on (http://\S+)/v1", fleet.log("gateway"))
    assert found is not None
    return found[1]


def submit_batch(address: str, key: str = "") -> str:
    """Three requests, of which the stub refuses one; returns the id of the batch."""
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/chat/completions", "body": {
            "model": "stub", "messages": [{"role": "user", "content": words}]}}
        for number, words in enumerate(["one", "two", HOSTILE])
    ]  # fmt: skip
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx2.Client(base_url=address, timeout=PATIENCE_S, headers=headers) as client:
        content = "\n".join(map(json.dumps, lines)).encode()
        file = client.post("/v1/files", data={"purpose": "batch"}, files={"file": ("q.jsonl", content)}).json()
        asked = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return str(client.post("/v1/batches", json=asked | {"metadata": {"name": HOSTILE}}).json()["id"])


def test_the_page_lives(tmp_path: Path, redis_server: EmbeddedServer, browser: Chrome) -> None:
    """It moves by itself, fits phone and desktop, light and dark, shows what is said as text, and ends a run.

    Nothing is loaded from elsewhere, and answers of a batch can be downloaded.
    """
    questions = tmp_path / "questions.jsonl"
    lines = ({"id": str(number), "question": HOSTILE if number % 9 == 0 else str(number)} for number in range(30_000))
    questions.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with Processes(redis_server.url, tmp_path, SETTINGS) as fleet:
        address = start(fleet)
        fleet.submit(questions, tmp_path / "answers.jsonl", "--run", RUN)
        browser.get(address)
        browser.execute_script("window.sameDocument = true")
        wait_for(browser, "#runs", RUN)
        first = browser.execute_script(DONE)
        WebDriverWait(browser, PATIENCE_S).until(lambda it: it.execute_script(DONE) > first)
        wait_for(browser, "#failures", HOSTILE)
        click(browser, "#runs button.end")
        confirm(browser)
        wait_for(browser, "#notice", f"Run {RUN} is cancelled")
        wait_for(browser, "#runs .state", "cancelled")

        submit_batch(address)
        wait_for(browser, "#batches .state", "completed")
        wait_for(browser, "#batches", HOSTILE)
        click(browser, "#batches .buttons button")
        wait_until(lambda: [*(tmp_path / "downloads").glob("file-*.jsonl")], "the answers are downloaded")
        looks = ((size, theme) for size in (PHONE, DESKTOP) for theme in ("light", "dark"))
        grounds = [look(browser, size, theme, tmp_path / f"{size[0]}-{theme}.png") for size, theme in looks]

        assert browser.execute_script("return window.sameDocument"), "the page was loaded anew"
        assert grounds == [grounds[0], grounds[1], grounds[0], grounds[1]]
        assert grounds[0] != grounds[1]
        assert not browser.find_elements(By.TAG_NAME, "img")
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
        assert all(name.startswith(address) for name in loaded)
        # A policy that was broken, and a script that failed, would be told of here.
        assert browser.execute("getLog", {"type": "browser"})["value"] == []
    (answers,) = (tmp_path / "downloads").glob("file-*.jsonl")
    assert {json.loads(line)["custom_id"] for line in answers.read_text().splitlines()} == {"0", "1"}


def test_a_key_shows_the_batches_of_its_name(tmp_path: Path, redis_server: EmbeddedServer, browser: Chrome) -> None:
    """Without one there is nothing of them to see or to end; typed in, it brings them, and they can be cancelled."""
    key, line = new_key("lab")
    (tmp_path / "keys").write_text(f"{line}\n")
    with Processes(redis_server.url, tmp_path, SETTINGS | {"BATCHFLEET_STUB_HANG_ON": "two"}) as fleet:
        address = start(fleet, "--keys", str(tmp_path / "keys"))
        batch = submit_batch(address, key)
        browser.get(address)
        wait_for(browser, "#runs", batch[:12])
        assert batch not in browser.page_source
        assert not browser.find_elements(By.CSS_SELECTOR, "button.end")
        browser.find_element(By.NAME, "key").send_keys(f"{key}\n")
        wait_for(browser, "#batches", batch)
        look(browser, PHONE, "light", tmp_path / "key.png")
        click(browser, "#batches button.end")
        confirm(browser)
        wait_for(browser, "#notice", "is being cancelled")
        wait_for(browser, "#batches .state", "cancel")
