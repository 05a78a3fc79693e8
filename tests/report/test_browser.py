"""The page in a real browser: on a desk, a phone and paper, in light and dark, by keyboard, and without scripts."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.report.to_html import to_html
from tests.conftest import browser
from tests.report import subjects

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")
pypdf = pytest.importorskip("pypdf", reason="needs pypdf, which reads what the browser prints")

pytestmark = pytest.mark.browser


ALIKE = ("not_told", "several_tokens", "unlike_levels")  # runs that are laid out as others are
DOCUMENTS = {name: make for name, make in subjects.DOCUMENTS.items() if name not in ALIKE}
DRAWN = (
    "sweep",
    "capacity",
    "comparison",
)  # of which the letters in the charts are looked for on paper, which takes long
COLOURED = (*DRAWN, "killed", "probe")  # which have all colours between them: contrast in the dark, the slowest rule
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
def pages(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each kind of report as a file, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("pages")

    def of(name: str) -> Path:
        path = folder / f"{name}.html"
        if not path.exists():
            path.write_text(to_html(DOCUMENTS[name]()), encoding="utf-8")
        return path

    return of


@pytest.fixture(scope="module")
def window(chromium: playwright.Browser) -> Iterator[playwright.Page]:
    """One window for all pages, as opening one takes long. The page's own policy is set aside, as axe-core is a script;
    whatever the page would load is seen all the same.
    """
    page = chromium.new_context(viewport=DESK, bypass_csp=True).new_page()
    page.complaints = []  # type: ignore[attr-defined]
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("request", lambda asked: asked.url.startswith("file:") or page.complaints.append(asked.url))
    yield page
    page.context.close()


def shown(chromium: playwright.Browser, path: Path, size: dict[str, int], **settings: object) -> playwright.Page:
    """The page in a window of its own, as its reader has it."""
    page = chromium.new_context(viewport=size, **settings).new_page()
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

# Letters of a chart beyond its own picture, which would cut them.
CUT_LETTERS = """() => [...document.querySelectorAll("figure svg")].filter(each => each.getClientRects().length)
    .flatMap(each => [...each.querySelectorAll("text")].filter(text => text.textContent.trim())
        .filter(text => {
            const own = text.getBoundingClientRect(), all = each.getBoundingClientRect();
            return own.left < all.left - 1 || own.right > all.right + 1 || own.top < all.top - 1
                || own.bottom > all.bottom + 1;
        }).map(text => text.textContent))"""

ANSWER_FIRST = """() => [...document.querySelectorAll('table, .notice')].every(each =>
    each.compareDocumentPosition(document.querySelector('.answer')) & Node.DOCUMENT_POSITION_PRECEDING)"""


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_page_is_whole_at_any_width_and_on_paper(
    window: playwright.Page, pages: Callable[[str], Path], name: str
) -> None:
    """No box is wider than the window, no letter of a chart is cut, the answer stands on the first screen above any
    table, axe-core finds nothing (contrast included: light on a desk, dark on a phone), nothing is loaded, and on A4 no
    word is missing.
    """
    in_the_dark = {} if name in COLOURED else {"rules": {"color-contrast": {"enabled": False}}}
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-core").Axe()
    window.goto(pages(name).as_uri())
    for size, scheme, rules in ((DESK, "light", {}), (PHONE, "dark", in_the_dark)):
        window.set_viewport_size(size)
        window.emulate_media(color_scheme=scheme)
        assert window.evaluate(OVERFLOWING) == []
        assert window.evaluate(CUT_LETTERS) == []
        box = window.locator(".answer").bounding_box()
        assert box["y"] + box["height"] < size["height"]
        assert window.evaluate(ANSWER_FIRST)
        # A chart is a picture by its role, named from outside.
        found = axe.run(window, {"exclude": [["svg"]]}, {"resultTypes": ["violations"], **rules}).response
        assert [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found["violations"]] == []
    assert window.complaints == []
    window.set_viewport_size(DESK)
    if name not in DRAWN:
        window.add_style_tag(content="figure svg { visibility: hidden; }")
        window.evaluate("() => document.querySelectorAll('figure svg text').forEach(each => each.remove())")
    words = [word for text in window.evaluate(TEXTS) for word in text.split()]
    paper = pypdf.PdfReader(io.BytesIO(window.pdf(prefer_css_page_size=True)))
    printed = _letters("".join(sheet.extract_text() for sheet in paper.pages))
    assert [word for word in words if _letters(word) not in printed] == []
    assert [round(float(side)) for side in paper.pages[0].mediabox[2:]] in ([595, 842], [596, 842])


TEXTS = """() => {
    const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT), texts = [];
    while (walker.nextNode()) {
        if (!walker.currentNode.parentElement.closest(".over-phone")) texts.push(walker.currentNode.data);
    }
    return texts;
}"""


def _letters(text: str) -> str:
    """Without ligatures, and without what a line end may add or take."""
    return re.sub(r"[\s\u00ad-]", "", unicodedata.normalize("NFKC", text)).lower()


def test_every_chart_is_seen_without_javascript(chromium: playwright.Browser, pages: Callable[[str], Path]) -> None:
    """One picture of each at any width, with a name, marks in it, and its words beside it."""
    for size in (DESK, PHONE):
        page = chromium.new_context(viewport=size, java_script_enabled=False).new_page()
        page.goto(pages("sweep").as_uri())
        figures = page.locator("figure").all()
        assert len(figures) == 9
        for figure in figures:
            picture = [each for each in figure.locator("svg").all() if each.is_visible()]
            assert len(picture) == 1
            assert picture[0].bounding_box()["width"] > 250
            assert picture[0].locator("path[stroke^='var(--series'], path[fill^='var(--series']").count() > 0
            assert re.search(r"\d", figure.locator("figcaption").inner_text())
        page.context.close()


def test_the_pages_own_policy_blocks_nothing_of_it(chromium: playwright.Browser, pages: Callable[[str], Path]) -> None:
    """Its styles and pictures are within what it allows: the browser complains of nothing."""
    page = chromium.new_context(viewport=DESK).new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(pages("sweep").as_uri())
    assert page.evaluate("() => getComputedStyle(document.querySelector('.answer')).maxWidth") == "none"
    assert complaints == []
    page.context.close()


def test_what_is_folded_opens_by_keyboard(chromium: playwright.Browser, pages: Callable[[str], Path]) -> None:
    """Whatever takes the focus shows it, and there is no box to scroll that the keyboard cannot reach."""
    page = shown(chromium, pages("sweep"), PHONE)
    page.keyboard.press("Tab")
    focused = "() => [document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
    assert page.evaluate(focused) == ["SUMMARY", "solid"]
    assert not page.locator("details li").first.is_visible()
    page.keyboard.press("Enter")
    assert page.locator("details li").first.is_visible()
    page.context.close()


def test_the_dark_page_is_dark_with_its_charts(chromium: playwright.Browser, pages: Callable[[str], Path]) -> None:
    """Lines and letters of a chart take the page's colours, not those of paper."""
    colours = {}
    for scheme in ("light", "dark"):
        page = shown(chromium, pages("sweep"), DESK, color_scheme=scheme)
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
    chromium: playwright.Browser, pages: Callable[[str], Path]
) -> None:
    """Who prints from a dark screen gets paper, white."""
    page = shown(chromium, pages("sweep"), DESK, color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(252, 252, 251)"
    page.context.close()


def test_a_document_has_a_title_of_its_own() -> None:
    """Two of one model are told apart in a list of open pages, unless they began in one minute with one load."""
    names = ("sweep", "one_piece", "one_request", "killed", "capacity", "surface", "probe", "comparison", "three_gpus")
    assert len({DOCUMENTS[name]().title for name in names}) == len(names)
