"""The site, built without running its tutorials, in a real browser: every page, every link, two widths."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from selenium.webdriver.support.ui import WebDriverWait

import test_browser

ROOT = Path(__file__).parents[1]
pytestmark = test_browser.pytestmark
browser = test_browser.browser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the pages."""
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    words = ["--fail-on-warning", "--quiet", "-D", "nb_execution_mode=off", "-d", str(folder / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *words, "docs", str(folder / "pages")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "pages"


def sized(browser, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def visit(browser, path):
    """Opens a page and waits for all of it: under load Chromium is back when half of it has been read."""
    browser.get(path.as_uri())
    complete = "return document.readyState == 'complete' && location.href == arguments[0]"
    WebDriverWait(browser, 60).until(lambda browser: browser.execute_script(complete, path.as_uri()))


PAGE = """
return {
    links: [...document.querySelectorAll('a[href]')].map(each => each.href),
    ids: [...document.querySelectorAll('[id]')].map(each => each.id),
    blank: [...document.images].filter(each => !each.naturalWidth).map(each => each.src),
    unnamed: [...document.querySelectorAll('article img')].filter(e => e.alt.length < 15).map(e => e.src),
    raw: [...document.querySelectorAll('article p, article li')].map(each => each.textContent)
        .filter(text => text.includes('$$') || text.includes('\\\\frac') || text.includes('mathrm')),
    loaded: performance.getEntriesByType('resource').map(each => each.name),
    title: document.title,
}
"""


def test_every_page_loads_every_link_leads_somewhere_and_all_fits_a_phone(browser, site):
    pages = {}
    for path in sorted(site.rglob("*.html")):
        sized(browser, 1280)
        visit(browser, path)
        shown = pages[path] = browser.execute_script(PAGE)
        name = path.relative_to(site)
        assert browser.get_log("browser") == [], name
        assert shown["title"], name
        assert not shown["blank"] and not shown["unnamed"] and not shown["raw"], (name, shown)
        assert all(address.startswith("file:") for address in shown["loaded"]), (name, shown["loaded"])
        sized(browser, 400)
        script = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        wide, has = browser.execute_script(script)
        assert wide <= has, f"{name} is {wide} wide on a screen of {has}"
    assert len(pages) > 50
    for path, shown in pages.items():
        for link in set(shown["links"]):
            address, anchor = urldefrag(link)
            if not address.startswith("file:"):
                continue
            target = Path(unquote(urlparse(address).path))
            assert target.is_file(), f"{path.name}: {link}"
            if anchor and target in pages:
                assert unquote(anchor) in pages[target]["ids"], f"{path.name}: {link}"


@pytest.mark.parametrize("page", ["how.html", "why.html", "learners/ok.html", "learners/rtrl.html"])
def test_mathematics_is_drawn_without_a_script(browser, site, page):
    sized(browser, 1280)
    visit(browser, site / page)
    script = "return [...document.querySelectorAll('.math-block math')].map(each => each.clientHeight)"
    heights = browser.execute_script(script)
    assert len(heights) >= 2 and min(heights) > 10


def test_search_works_without_a_network(browser, site):
    browser.get((site / "search.html").as_uri() + "?q=Kronecker")
    results = test_browser.until(lambda: browser.find_elements("css selector", "ul.search li a"))
    test_browser.until(lambda: "Search finished" in browser.find_element("tag name", "body").text)
    results = browser.find_elements("css selector", "ul.search li a")
    assert any("learners/ok.html" in each.get_attribute("href") for each in results)
    assert browser.get_log("browser") == []
