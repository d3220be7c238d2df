"""The page of a leaderboard as a browser shows it."""

from collections.abc import Iterator
from typing import Any

import pytest
from browser import chromium, requested
from small_sweeps import write_failed, write_run

from tocsin.jobs import State
from tocsin.leaderboard.files import after_sweep

pytestmark = pytest.mark.slow
VALUES = {"2": 0.095, "16": 0.7, "128": 0.4}  # as texts 0.095 < 0.4 < 0.7 and 128 < 16 < 2


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser that has opened the page of a small sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    plots = ("signal", "confusion_matrix")
    for number, (width, value) in enumerate(VALUES.items()):
        write_run(
            folder / str(number),
            {"model.d_model": width},
            value=value,
            plots=plots,
            timing={"fit_s": 10 + number},
        )
    hostile = {"model.d_model": "<script>document.title='taken'</script><img src=x onerror=alert(1)>"}
    write_run(folder / "7", hostile, value=0.01)
    write_failed(folder / "8", hostile, state=State.FAILED, error="<b>no memory</b>")
    after_sweep(folder)
    with chromium(tmp_path_factory.mktemp("profile")) as browser:
        browser.get("about:blank")
        requested(browser)  # what the browser's own first page asked for
        browser.get((folder / "leaderboard.html").as_uri())
        yield browser


def column(page: Any, name: str) -> list[str]:
    """Texts of a column, from top to bottom, of what is shown."""
    return page.execute_script(
        "const heads = [...document.querySelectorAll('table thead')[0].rows[0].cells];"
        "const at = heads.findIndex(head => head.textContent.trim() === arguments[0]);"
        "return [...document.querySelectorAll('tbody.entry')].filter(body => !body.hidden)"
        ".map(body => body.rows[0].cells[at].innerText.trim())",
        name,
    )


def click(page: Any, name: str) -> str:
    """Click the head of a column; its `aria-sort` then."""
    (button,) = [b for b in page.find_elements("css selector", "th button") if b.text.strip() == name]
    button.click()
    return page.execute_script("return arguments[0].closest('th').getAttribute('aria-sort')", button)


def test_rows_stand_in_the_order_of_their_ranks(page: Any) -> None:
    assert column(page, "#")[:3] == ["1", "2", "3"]
    assert column(page, "VUS-PR")[:2] == ["0.700", "0.400"]
    assert "1 without a result" in page.find_element("css selector", "header").text
    assert "<b>no memory</b>" in page.find_element("id", "lost").text


def test_a_click_sorts_numbers_as_numbers_both_ways(page: Any) -> None:
    assert click(page, "VUS-PR") == "ascending"
    rising = [float(text.split()[0]) for text in column(page, "VUS-PR")]
    assert rising == sorted(rising)
    assert len(rising) == 6
    assert click(page, "VUS-PR") == "descending"
    assert [float(text.split()[0]) for text in column(page, "VUS-PR")] == rising[::-1]
    assert click(page, "d_model") == "ascending"
    assert column(page, "d_model")[:3] == ["2", "16", "128"]
    assert page.execute_script("return document.querySelectorAll('th[aria-sort]').length") == 1


def test_what_is_unknown_stands_last_either_way(page: Any) -> None:
    for order in ("ascending", "descending"):
        assert click(page, "train s") == order
        assert column(page, "train s")[-2:] == ["\N{EN DASH}"] * 2  # scores without a model


def test_the_filter_leaves_lines_with_all_words(page: Any) -> None:
    box = page.find_element("css selector", ".find input")
    box.send_keys("MAE d_model=16")
    assert column(page, "VUS-PR") == ["0.700"]
    assert page.find_element("css selector", ".find output").text == "1 of 6 lines"
    box.clear()
    box.send_keys(" ")
    assert len(column(page, "VUS-PR")) == 6


def test_details_open_with_pictures_that_load(page: Any) -> None:
    hidden = page.find_element("css selector", "tr.detail")
    assert not hidden.is_displayed()
    for summary in page.find_elements("css selector", "summary"):
        summary.click()
    assert hidden.is_displayed()
    widths = page.execute_async_script(
        "const done = arguments[0], pictures = [...document.images];"
        "Promise.all(pictures.map(picture => { picture.loading = 'eager'; return picture.decode(); }))"
        ".then(() => done(pictures.map(picture => picture.naturalWidth)), error => done(String(error)))"
    )
    assert len(widths) == 1 + 2 * len(VALUES)
    assert all(width > 0 for width in widths)
    assert "seed 1: 0.700" in page.find_element("css selector", "main").text


def test_nothing_leaves_the_page_and_nothing_goes_wrong(page: Any) -> None:
    assert page.title.startswith("Leaderboard: ")  # no script of a run has changed it
    asked = [address for address in requested(page) if not address.startswith("data:")]
    assert asked == [page.current_url]
    assert [entry["message"] for entry in page.get_log("browser")] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(page: Any, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    script = (
        "const style = getComputedStyle(document.querySelector(arguments[0])); return style[arguments[1]]"
    )
    ink, card = (
        [int(part) for part in page.execute_script(script, *where).strip("rgba()").split(",")[:3]]
        for where in (("h2", "color"), ("section", "backgroundColor"))
    )
    assert (sum(ink) < sum(card)) == (scheme == "light")
    assert abs(sum(ink) - sum(card)) > 400


def test_a_narrow_window_scrolls_the_table_and_not_the_page(page: Any) -> None:
    page.set_window_size(600, 900)
    inner, outer = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert inner <= outer
    page.execute_script("document.querySelector('summary').parentElement.open = true")
    detail = page.find_element("css selector", "tr.detail .within")
    assert detail.rect["x"] >= 0
    assert detail.rect["x"] + detail.rect["width"] <= 600  # can be read without scrolling sideways
