"""Pages in a real browser: they draw, zoom and answer, on a desk and on a phone, without one error."""

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from foretrace.cli import main
from test_forecast import SMALL, wave
from test_pages import NASTY, run_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = not (CHROMIUM and DRIVER)
if MISSING and os.environ.get("FORETRACE_NEEDS_BROWSER"):
    raise RuntimeError("no chromium and chromedriver are on the PATH, and FORETRACE_NEEDS_BROWSER is set")
pytestmark = pytest.mark.skipif(
    MISSING,
    reason="NO PAGE WAS OPENED IN A BROWSER: install chromium and chromedriver (apt: chromium-driver)",
)
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
)


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax relies on the usual promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        *FLAGS,
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
        "--window-size=1280,900",
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A forecast three rows ahead, with one value that nobody could expect."""
    values = wave(400)
    values[350] += 5
    with jax.numpy_dtype_promotion("standard"):
        return run_of(tmp_path_factory.mktemp("run"), values, "--horizon", "3")


def until(condition, seconds=60):
    """Waits for something to become true, and returns it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # A page that renews itself puts new elements in the place of old ones.
        with contextlib.suppress(StaleElementReferenceException):
            if value := condition():
                return value
        time.sleep(0.05)
    raise AssertionError("it did not come")


def opened(browser, address, width=1280):
    """Opens a page at a width, and waits until it is drawn."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 600})
    browser.get(address)
    until(lambda: browser.execute_script("return document.body.dataset.ready"))
    return browser


def figures(browser):
    return [each for each in browser.find_elements(By.CSS_SELECTOR, ".figure") if each.is_displayed()]


def axes(browser, figure):
    """Both ends of the time axis, in milliseconds, and of the other one, as drawn."""
    script = (
        "const l = arguments[0]._fullLayout; return [l.xaxis.range.map(e => l.xaxis.r2c(e)), l.yaxis.range]"
    )
    return browser.execute_script(script, figure)


def settled(browser, figure, before):
    """The ends of the axes, once they are others than before and stay."""
    until(lambda: axes(browser, figure) != before)
    time.sleep(0.3)
    return until(lambda: axes(browser, figure))


def drag(browser, figure, start, end):
    """Drags over a figure between two shares of its width."""
    plot = figure.find_element(By.CSS_SELECTOR, ".nsewdrag")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    width = plot.rect["width"]
    chain = ActionChains(browser).move_to_element_with_offset(plot, int((start - 0.5) * width), 0)
    chain.click_and_hold().move_by_offset(int((end - start) * width), 0).pause(0.1).release().perform()
    return plot


@pytest.mark.parametrize("width", [1280, 400])
def test_a_report_draws_without_a_network_and_without_an_error(browser, run, width):
    opened(browser, (run / "report.html").as_uri(), width)
    drawn = [figure.find_elements(By.CSS_SELECTOR, ".scatterlayer .js-line") for figure in figures(browser)]
    assert len(drawn) == 4 and all(drawn)
    assert all(path.get_attribute("d") for lines in drawn for path in lines[-1:])
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    script = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    wide, has = browser.execute_script(script)
    assert wide <= has
    # Nothing may offer to send the data away.
    titles = [
        each.get_attribute("data-title") for each in browser.find_elements(By.CSS_SELECTOR, ".modebar-btn")
    ]
    assert not any("hare" in title or "loud" in title for title in titles)


def test_a_drag_zooms_with_fitting_heights_and_a_double_click_goes_back(browser, run):
    forecast = figures(opened(browser, (run / "report.html").as_uri()))[0]
    before = axes(browser, forecast)
    plot = drag(browser, forecast, 0.1, 0.3)
    (first, last), heights = settled(browser, forecast, before)
    (least, most), _ = before
    assert first == pytest.approx(least + 0.1 * (most - least), abs=0.02 * (most - least))
    assert last == pytest.approx(least + 0.3 * (most - least), abs=0.02 * (most - least))
    assert heights[1] - heights[0] < before[1][1] - before[1][0]  # the spike is not among these rows
    ActionChains(browser).double_click(plot).perform()
    until(lambda: axes(browser, forecast)[0] == before[0])
    assert browser.get_log("browser") == []


def test_the_other_figures_follow_a_zoom_over_means(browser, run):
    forecast, errors, coverage, experts = figures(opened(browser, (run / "report.html").as_uri()))
    before = axes(browser, forecast)
    drag(browser, errors, 0.2, 0.6)
    settled(browser, forecast, before)
    for other in (forecast, coverage, experts):
        assert axes(browser, other)[0] == pytest.approx(axes(browser, errors)[0])


def test_the_pointer_shows_the_numbers_of_a_row(browser, run):
    forecast = figures(opened(browser, (run / "report.html").as_uri()))[0]
    ActionChains(browser).move_to_element(forecast.find_element(By.CSS_SELECTOR, ".nsewdrag")).perform()
    label = until(lambda: forecast.find_elements(By.CSS_SELECTOR, ".hoverlayer .legendtext"))
    shown = [each.text for each in label]
    rows = list(csv.DictReader((run / "predictions.csv").read_text().splitlines()))
    observed = next(text.split(": ")[1] for text in shown if text.startswith("observed"))
    assert any(
        row["horizon"] == "3" and row["actual"] and float(row["actual"]) == float(observed) for row in rows
    )
    assert any(text.startswith("upper") for text in shown)


def test_buttons_show_more_rows_and_an_anomaly_is_shown_by_its_row(browser, run):
    opened(browser, (run / "report.html").as_uri())
    forecast = figures(browser)[0]
    before = axes(browser, forecast)
    browser.find_element(By.XPATH, "//div[@class='ranges']/button[text()='all']").click()
    (first, last), _ = settled(browser, forecast, before)
    assert last - first == pytest.approx(401 * 3_600_000)
    row = next(
        each
        for each in browser.find_elements(By.CSS_SELECTOR, "tr[data-place]")
        if "2026-01-15 14:00" in each.text
    )
    row.click()
    (first, last), _ = settled(browser, forecast, [[first, last], _])
    assert (first + last) / 2 == pytest.approx(float(row.get_attribute("data-place")))
    assert forecast.find_elements(By.CSS_SELECTOR, ".points path")


def test_another_horizon_is_shown_when_it_is_chosen(browser, run):
    opened(browser, (run / "report.html").as_uri())
    shown = figures(browser)
    browser.find_element(By.XPATH, "//nav/button[text()='1 row ahead']").click()
    until(
        lambda: (
            len([each for each in figures(browser) if each.find_elements(By.CSS_SELECTOR, ".js-line")]) == 4
        )
    )
    assert figures(browser)[:3] != shown[:3] and figures(browser)[3] == shown[3]
    assert browser.get_log("browser") == []


def test_a_click_on_a_heading_sorts_by_numbers(browser, run):
    opened(browser, (run / "report.html").as_uri())
    heading = browser.find_elements(By.XPATH, "//h2[text()='Anomalies']/..//th/button")[4]

    def errors():
        cells = browser.find_elements(By.XPATH, "//h2[text()='Anomalies']/..//td[5]")
        return [float(cell.get_attribute("data-order")) for cell in cells]

    browser.execute_script("arguments[0].click()", heading)
    assert len(errors()) > 1 and errors() == sorted(errors(), reverse=True)
    browser.execute_script("arguments[0].click()", heading)
    assert errors() == sorted(errors())


@pytest.mark.parametrize("width", [1280, 400])
def test_a_row_of_a_fleet_opens_its_series(browser, tmp_path, width):
    rows = [
        f"{name},{t},{value}" for t in range(60) for name, value in (("low", t % 7), ("high", 900 + t % 5))
    ]
    (tmp_path / "data.csv").write_text("\n".join(["id,t,y", *rows, ""]))
    words = ["--target", "y", "--time", "t", "--series", "id", "--horizon", "2", "--hidden", "4"]
    assert main(["forecast", str(tmp_path / "data.csv"), *words, "--out", str(tmp_path / "run")]) == 0
    opened(browser, (tmp_path / "run" / "report.html").as_uri(), width)
    (figure,) = figures(browser)
    for name, least, most in (("high", 850, 950), ("low", -50, 50), ("high", 850, 950)):
        row = next(
            each for each in browser.find_elements(By.CSS_SELECTOR, "tr[data-opens]") if name in each.text
        )
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", row)
        row.click()
        until(lambda: least < axes(browser, figure)[1][0] < axes(browser, figure)[1][1] < most)  # noqa: B023
        assert figure.find_element(By.XPATH, "ancestor::section/h2").text == name
    assert browser.get_log("browser") == []


def test_a_column_whose_name_is_a_program_is_only_a_name(browser, tmp_path):
    run = run_of(tmp_path, wave(40), target=NASTY)
    opened(browser, (run / "report.html").as_uri())
    assert browser.title == f"{NASTY}, 1 row ahead"
    assert browser.find_element(By.TAG_NAME, "h1").text == f"{NASTY}, 1 row ahead"
    assert figures(browser)[0].find_element(By.CSS_SELECTOR, ".ytitle").text == NASTY
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("width", [1280, 400])
def test_pages_of_train_and_compare_draw(browser, tmp_path, width):
    small = ["--hidden", "4", "--lanes", "2", "--steps", "200", "--chunk", "50"]
    main(["train", "copy", "--learner", "uoro", *small, "--out", str(tmp_path / "a")])
    main(
        [
            "compare",
            "copy",
            "--learner",
            "uoro",
            "--learner",
            "tbptt:2",
            *small,
            "--out",
            str(tmp_path / "b"),
        ]
    )
    for name in "ab":
        opened(browser, (tmp_path / name / "report.html").as_uri(), width)
        assert all(each.find_elements(By.CSS_SELECTOR, ".js-line") for each in figures(browser))
        assert browser.get_log("browser") == []
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= browser.execute_script("return document.documentElement.clientWidth")


def start(*words, **pipes):
    """Starts the command in a process of its own."""
    # A shell starts processes in the background with SIGINT ignored.
    listen = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = f"{listen}from foretrace.cli import main; sys.exit(main())"
    return subprocess.Popen([sys.executable, "-c", code, *words], text=True, **pipes)


def test_a_page_that_is_watched_renews_itself_and_keeps_what_was_zoomed(browser, tmp_path):
    run, values = tmp_path / "run", wave(60)
    words = ["forecast", "-", "--target", "y", "--checkpoint-every", "1", "--out", str(run), *SMALL]
    stream = start(*words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def send(values):
        stream.stdin.writelines(f"{value}\n" for value in values)
        stream.stdin.flush()

    def says(words):
        return words in browser.find_element(By.TAG_NAME, "main").text

    send(["y", *values[:30]])
    until(lambda: run.exists() and len((run / "predictions.csv").read_text().splitlines()) == 30, 300)
    watch = start("watch", str(run), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        opened(browser, watch.stdout.readline().split()[0])
        until(lambda: says("29 rows"))
        (figure, *_) = figures(browser)
        assert any("to come" in each.text for each in figure.find_elements(By.CSS_SELECTOR, ".legendtext"))
        before = axes(browser, figure)
        drag(browser, figure, 0.2, 0.6)
        zoomed, _ = settled(browser, figure, before)
        send(values[30:50])
        until(lambda: says("49 rows"))
        assert until(lambda: axes(browser, figures(browser)[0]))[0] == zoomed
        browser.find_element(By.XPATH, "//div[@class='ranges']/button[text()='all']").click()
        send(values[50:])
        stream.stdin.close()
        assert stream.wait(300) == 0
        until(lambda: says("Forecast for 61:"))
        assert until(lambda: axes(browser, figures(browser)[0]))[0] == [2, 61]
        assert browser.get_log("browser") == []
        watch.send_signal(signal.SIGINT)
        said, complained = watch.communicate(timeout=60)
        assert watch.returncode == 0 and complained == "" and "keyboard ended it" in said
        until(lambda: "has ended" in browser.find_element(By.ID, "state").text)
        browser.get_log("browser")  # that nobody answers is told there
    finally:
        watch.kill()
        stream.kill()
        watch.communicate()
        stream.wait()
