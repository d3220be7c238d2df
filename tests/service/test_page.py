"""The page: served as it is, from this server alone; driven as people do in a browser."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from browsing import served
from starlette.testclient import TestClient
from uploads import zipped

from tocsin.data.detection_files import write_figures
from tocsin.data.synthetic.figures import figures
from tocsin.service.routes_page import page_files

# --- as files -----------------------------------------------------------------------------------------------


def test_page_and_its_parts_are_served_and_kept_by_browsers(server: TestClient) -> None:
    for path, kind in (("/", "text/html"), ("/docs", "text/html"), ("/page/page.js", "text/javascript")):
        answer = server.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        tag = answer.headers["etag"]
        again = server.get(path, headers={"If-None-Match": f'"other", W/{tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert server.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    for path in ("/page/none.js", "/page/..%2Fapp.py", "/page/__init__.py"):
        assert server.get(path).status_code == 404


def test_everything_the_page_refers_to_is_there_and_nothing_is_elsewhere(server: TestClient) -> None:
    parts = {name: content.decode() for name, (content, _, _) in page_files().items()}
    assert {"index.html", "docs.html", "page.css", "page.js"} <= parts.keys()
    for name, text in parts.items():
        foreign = set(re.findall(r"https?://[^\s\"'<>]+", text)) - {"http://www.w3.org/2000/svg"}
        assert foreign == set(), name
        for other in re.findall(r'from "\./([^"]+)"', text):
            assert other in parts
        for other in re.findall(r'(?:href|src)="((?:page/)[^"]+)"', text):
            assert server.get(f"/{other}").status_code == 200
        assert not re.search(r"\son\w+=|<script>|\sstyle=|innerHTML", text), name  # the policy forbids them
    page = parts["index.html"]
    assert set(re.findall(r'getElementById\("([^"]+)"\)', "".join(parts.values()))) - {"operations"} <= set(
        re.findall(r'\bid="([^"]+)"', page)
    )


def test_every_control_of_the_page_has_a_name() -> None:
    page = page_files()["index.html"][0].decode()
    labels = re.findall(r"<label>.*?</label>", page, flags=re.DOTALL)
    inside = sum(len(re.findall(r"<(?:input|select)\b", label)) for label in labels)
    assert inside == len(re.findall(r"<(?:input|select)\b", page)) == 15


# --- in a browser -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def figures_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    write_figures(figures(n_images=24, size=96, seed=0), folder)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    (folder / "street.zip").write_bytes(zipped(files))
    return folder / "street.zip"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path) as browser:
        yield browser


def keep(browser: Any, name: str) -> None:
    """A screenshot for people, where TOCSIN_SCREENSHOTS names a folder for them."""
    folder = os.environ.get("TOCSIN_SCREENSHOTS")
    if folder:
        browser.save_screenshot(f"{folder}/{name}.png")


def until(browser: Any, script: str, seconds: float = 20) -> Any:
    """What a script gives, once it gives anything."""
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait

    try:
        return WebDriverWait(browser, seconds, 0.1).until(
            lambda page: page.execute_script(f"return {script}")
        )
    except TimeoutException:
        said = browser.execute_script("return document.getElementById('notice').textContent")
        pytest.fail(f"{script} does not come true; the page says: {said!r}")


def text(browser: Any, selector: str) -> str:
    return str(browser.find_element("css selector", selector).text)


@pytest.mark.slow
def test_people_make_a_patch_and_score_a_table(
    browser: Any, tmp_path: Path, figures_zip: Path, models: Path, drawn: Path
) -> None:
    with served(tmp_path, f"models={models}") as address:
        _uploads(browser, address, figures_zip)
        _makes_a_patch(browser, address)
        _scores_a_table(browser, address, drawn)
        _scores_images(browser, address, drawn)
        _deletes(browser, address)
        browser.get(f"{address}/docs")
        assert until(browser, "document.querySelectorAll('.operation').length") >= 12
        keep(browser, "docs")
    said = [
        entry for entry in browser.get_log("browser") if entry["source"] != "network"
    ]  # refusals were meant
    assert said == []  # of the policy, or of a script


def _uploads(browser: Any, address: str, archive: Path) -> None:
    browser.get(f"{address}/#datasets")
    until(browser, "document.querySelector('#dataset-list .empty')")
    form = browser.find_element("id", "upload")
    form.find_element("name", "file").send_keys(str(archive))
    assert form.find_element("name", "name").get_property("value") == "street"
    form.find_element("tag name", "button").click()
    until(browser, "document.querySelector('#dataset-list td')")
    assert text(browser, "#dataset-list tbody tr").startswith("street 24 ")
    assert text(browser, "#notice").startswith("street: 24 images, ")
    form.find_element("name", "file").send_keys(str(archive))
    form.find_element("tag name", "button").click()
    until(browser, "document.querySelector('#notice.error')")
    assert "there is a data set 'street' already" in text(browser, "#notice")
    keep(browser, "datasets")


def _makes_a_patch(browser: Any, address: str) -> None:
    browser.get(f"{address}/#patches")
    until(browser, "document.querySelector('#ask [name=target_class] option')")
    form = browser.find_element("id", "ask")
    form.find_element("tag name", "summary").click()
    values = {"iterations": "40", "patch_size": "24", "size": "96", "max_images": "20"}
    for name, value in values.items():
        field = form.find_element("name", name)
        field.clear()
        field.send_keys(value)
    form.find_element("css selector", "#ask > button").click()
    until(browser, "document.querySelector('#job .badge.running')", 60)
    until(browser, "document.querySelector('#job path.c0')?.getAttribute('d').length > 30", 300)
    until(browser, "document.querySelector('#job .growth img').naturalWidth >= 24", 60)
    keep(browser, "running")
    until(browser, "document.querySelector('#job .badge.finished')", 300)
    until(browser, "document.querySelectorAll('#job .pictures img').length", 20)
    measured = text(browser, "#job")
    assert "40 of 40" in measured
    for title in ("AP50 without patch", "AP50 with a control", "AP50 with the patch", "Vanished"):
        assert title in measured
    browser.execute_script("document.querySelectorAll('#job img').forEach((i) => i.loading = 'eager')")
    until(
        browser, "[...document.querySelectorAll('#job .pictures img')].every((i) => i.naturalWidth > 100)", 30
    )
    assert browser.execute_script("return document.querySelector('#job .growth img').naturalWidth") == 24
    keep(browser, "finished")
    browser.set_window_size(420, 1500)
    keep(browser, "narrow")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    browser.set_window_size(1200, 1500)


def _scores_a_table(browser: Any, address: str, drawn: Path) -> None:
    browser.get(f"{address}/#scores")
    until(browser, "document.querySelector('#score option[value=\"mae--series\"]')")
    browser.find_element("css selector", "#score option[value='mae--series']").click()
    browser.find_element("css selector", "#score [name=files]").send_keys(str(drawn / "test.csv"))
    browser.find_element("css selector", "#score button").click()
    until(browser, "document.querySelector('#scored svg.chart path')", 60)
    assert browser.execute_script("return document.querySelectorAll('#scored svg .threshold').length") == 1
    n_alarms = browser.execute_script("return document.querySelectorAll('#scored svg rect.alarm').length")
    assert n_alarms >= 1
    assert f"{n_alarms} alarm" in text(browser, "#scored p")
    assert browser.execute_script("return document.querySelectorAll('#scored tbody tr').length") == n_alarms
    keep(browser, "table")
    browser.find_element("id", "theme").click()
    keep(browser, "table_dark")
    (drawn / "bad.csv").write_text("a,b\n1,2\n")
    browser.find_element("css selector", "#score [name=files]").send_keys(str(drawn / "bad.csv"))
    browser.find_element("css selector", "#score button").click()
    until(browser, "document.querySelector('#notice.error')")
    assert len(text(browser, "#notice")) > 20


def _scores_images(browser: Any, address: str, drawn: Path) -> None:
    browser.find_element("css selector", "#score option[value='gaussian--folder']").click()
    files = sorted((drawn / "images" / "test" / "spot").iterdir())
    browser.find_element("css selector", "#score [name=files]").send_keys("\n".join(map(str, files)))
    browser.find_element("css selector", "#score button").click()
    until(browser, f"document.querySelectorAll('#scored .pictures img').length === {len(files)}", 60)
    assert "anomaly" in text(browser, "#scored .pictures")
    keep(browser, "images")


def _deletes(browser: Any, address: str) -> None:
    browser.get(f"{address}/#datasets")
    until(browser, "document.querySelector('#dataset-list .danger')")
    browser.find_element("css selector", "#dataset-list .danger").click()
    browser.switch_to.alert.accept()
    until(browser, "document.querySelector('#dataset-list .empty')")


@pytest.mark.slow
def test_a_browser_asks_for_the_key_and_sends_it(browser: Any, tmp_path: Path) -> None:
    from tocsin.service.keys import hash_of

    with served(tmp_path, f"keys.me={hash_of('secret')}", f"models={tmp_path}") as address:
        browser.get(f"{address}/")
        assert "Data sets" not in browser.page_source
        browser.get(address.replace("://", "://me:secret@") + "/")
        browser.get(f"{address}/#datasets")
        until(browser, "document.querySelector('#dataset-list .empty')")
    assert json.dumps("secret") not in (tmp_path / "server.log").read_text()
