"""The page in a real browser: on a desk, a phone and paper, in light and dark, by keyboard, and without scripts."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.report.to_html import to_html
from tests.conftest import browser
from tests.report import subjects

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")
pypdf = pytest.importorskip("pypdf", reason="needs pypdf, which reads what the browser prints")

pytestmark = pytest.mark.browser


SHOWN = ("sweep", "one_piece", "nothing_completed", "killed", "capacity", "probe", "comparison", "side_by_side")
DOCUMENTS = {name: subjects.DOCUMENTS[name] for name in SHOWN}
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def chromium() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        program = driver.chromium.launch(
            executable_path=browser(), args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND"]
        )
        yield program
        program.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each kind of report as a file, made once."""
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for name, document in DOCUMENTS.items():
        made[name] = folder / f"{name}.html"
        made[name].write_text(to_html(document()), encoding="utf-8")
    return made


def shown(chromium: playwright.Browser, path: Path, size: dict[str, int], **settings: object) -> playwright.Page:
    """The page in a window; whatever it would load or complain of fails the test that closes it."""
    page = chromium.new_context(viewport=size, java_script_enabled=True, **settings).new_page()
    page.complaints = []  # type: ignore[attr-defined]
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("request", lambda asked: asked.url.startswith("file:") or page.complaints.append(asked.url))
    page.goto(path.as_uri())
    return page


OVERFLOWING = """() => [...document.querySelectorAll("main *:not(svg *)")]
    .filter(each => !each.closest("thead") || getComputedStyle(each.closest("thead")).position !== "absolute")
    .filter(each => each.getClientRects().length)
    .filter(each => each.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5
        || each.getBoundingClientRect().left < -0.5
        || (each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== "inline"
            && each.clientWidth > 0))
    .map(each => `${each.tagName} ${each.textContent.slice(0, 60)}`)"""


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("name", DOCUMENTS)
def test_nothing_is_cut_and_the_answer_comes_first(
    chromium: playwright.Browser, pages: dict[str, Path], name: str, size: dict[str, int]
) -> None:
    """No box is wider than the window, the answer stands on the first screen above any table, nothing is loaded."""
    page = shown(chromium, pages[name], size)
    assert page.evaluate(OVERFLOWING) == []
    box = page.locator(".answer").bounding_box()
    assert box["y"] + box["height"] < size["height"]
    assert page.evaluate(
        "() => [...document.querySelectorAll('table, .notice')].every(each => "
        "each.compareDocumentPosition(document.querySelector('.answer')) & Node.DOCUMENT_POSITION_PRECEDING)"
    )
    assert page.complaints == []
    page.context.close()


@pytest.mark.parametrize(("name", "scheme"), [("sweep", "light"), ("capacity", "dark")])
def test_axe_finds_nothing(chromium: playwright.Browser, pages: dict[str, Path], name: str, scheme: str) -> None:
    """The rules of axe-core, contrast included, on a desk and on a phone."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-core").Axe()
    page = shown(chromium, pages[name], DESK, color_scheme=scheme, bypass_csp=True)
    for size in (DESK, PHONE):
        page.set_viewport_size(size)
        found = axe.run(page, context={"exclude": [["svg"]]}).response  # a picture by its role, named from outside
        assert [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found["violations"]] == []
    page.context.close()


TEXTS = """() => {
    const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT), texts = [];
    while (walker.nextNode()) {
        if (!walker.currentNode.parentElement.closest(".over-phone")) texts.push(walker.currentNode.data);
    }
    return texts;
}"""


@pytest.mark.parametrize("name", ["sweep", "one_piece", "capacity", "side_by_side"])
def test_every_word_is_on_paper(chromium: playwright.Browser, pages: dict[str, Path], name: str) -> None:
    """Also of what is folded on the screen; printed on A4 no word of the page is missing."""
    page = shown(chromium, pages[name], DESK)
    words = [word for text in page.evaluate(TEXTS) for word in text.split()]
    paper = pypdf.PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True)))
    printed = _letters("".join(sheet.extract_text() for sheet in paper.pages))
    assert [word for word in words if _letters(word) not in printed] == []
    assert [round(float(side)) for side in paper.pages[0].mediabox[2:]] in ([595, 842], [596, 842])
    page.context.close()


def _letters(text: str) -> str:
    """Without ligatures, and without what a line end may add or take."""
    return re.sub(r"[\s\u00ad-]", "", unicodedata.normalize("NFKC", text)).lower()


@pytest.mark.parametrize("name", ["sweep"])
def test_every_chart_is_seen_without_javascript(
    chromium: playwright.Browser, pages: dict[str, Path], name: str
) -> None:
    """One picture of each at any width, with a name, marks in it, and its words beside it."""
    for size in (DESK, PHONE):
        page = chromium.new_context(viewport=size, java_script_enabled=False).new_page()
        page.goto(pages[name].as_uri())
        figures = page.locator("figure").all()
        assert len(figures) == 9
        for figure in figures:
            picture = [each for each in figure.locator("svg").all() if each.is_visible()]
            assert len(picture) == 1
            assert picture[0].bounding_box()["width"] > 250
            assert picture[0].locator("path[stroke^='var(--series'], path[fill^='var(--series']").count() > 0
            assert re.search(r"\d", figure.locator("figcaption").inner_text())
        page.context.close()


def test_what_is_folded_opens_by_keyboard(chromium: playwright.Browser, pages: dict[str, Path]) -> None:
    """Whatever takes the focus shows it, and there is no box to scroll that the keyboard cannot reach."""
    page = shown(chromium, pages["sweep"], PHONE)
    page.keyboard.press("Tab")
    focused = "() => [document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
    assert page.evaluate(focused) == ["SUMMARY", "solid"]
    assert not page.locator("details li").first.is_visible()
    page.keyboard.press("Enter")
    assert page.locator("details li").first.is_visible()
    page.context.close()


def test_the_dark_page_is_dark_with_its_charts(chromium: playwright.Browser, pages: dict[str, Path]) -> None:
    """Lines and letters of a chart take the page's colours, not those of paper."""
    colours = {}
    for scheme in ("light", "dark"):
        page = shown(chromium, pages["sweep"], DESK, color_scheme=scheme)
        colours[scheme] = page.evaluate(
            "() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.querySelector("
            "\"svg path[stroke='var(--series-1)']\")).stroke]"
        )
        page.context.close()
    assert colours == {
        "light": ["rgb(252, 252, 251)", "rgb(31, 95, 191)"],
        "dark": ["rgb(20, 23, 26)", "rgb(127, 176, 255)"],
    }


def test_the_print_of_a_document_needs_no_ink_for_the_dark(
    chromium: playwright.Browser, pages: dict[str, Path]
) -> None:
    """Who prints from a dark screen gets paper, white."""
    page = shown(chromium, pages["sweep"], DESK, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(252, 252, 251)"
    page.context.close()


def test_a_document_has_a_title_of_its_own() -> None:
    """Two runs of one model are told apart in a list of open pages."""
    assert len({make().title for make in DOCUMENTS.values()}) == len(DOCUMENTS)
