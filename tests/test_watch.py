"""`foretrace watch`: one page of one run, on this machine alone, or one sentence why not."""

import contextlib
import http.client
import json
import socket
import threading
import time

import jax
import pytest

from foretrace import forecast
from foretrace._checks import UserError
from foretrace.cli import _server, main, watch
from foretrace.plotting import Page
from test_forecast import wave
from test_pages import run_of


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Optax relies on the usual promotion."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@contextlib.contextmanager
def served(run, port=0):
    """A server of a run's page; gives what asks it: (path, headers) -> (status, text)."""
    pages = _server.Pages(watch._drawer(run), lambda: watch._mark(run))
    with _server.server_of(pages, port) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def ask(path, **headers):
            with contextlib.closing(http.client.HTTPConnection(*server.server_address)) as connection:
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()

        yield ask, server.server_address
        server.shutdown()
        thread.join()


def test_the_page_and_its_news_are_served_to_this_machine_and_nothing_else(tmp_path):
    run = run_of(tmp_path, wave(40))
    with served(run) as (ask, (host, _)):
        assert host == "127.0.0.1"
        status, text = ask("/")
        assert status == 200 and "<h1>y, 1 row ahead</h1>" in text and "data-watched" in text
        for path in ("/config.json", "/../config.json", "/predictions.csv", "/content/x", "//etc/passwd"):
            assert ask(path) == (404, "")
        # Another site may let its name lead here.
        assert ask("/", Host="example.org")[0] == ask("/content", Host="example.org:8471")[0] == 403


def test_news_are_told_once_and_again_when_the_run_went_on(tmp_path):
    run = run_of(tmp_path, wave(40))
    with served(run) as (ask, _):
        first = json.loads(ask("/content?seen=")[1])
        assert ask(f"/content?seen={first['version']}") == (204, "")
        path = run / "predictions.csv"
        kept = path.read_text().splitlines(keepends=True)[:-1]
        path.write_text("".join([*kept, "2026-01-02 16:00:00,1,9,8,10,9.5,0.5\n"]))
        end = time.monotonic() + 60
        while (answer := ask(f"/content?seen={first['version']}"))[0] != 200:
            assert answer == (204, "") and time.monotonic() < end
            time.sleep(0.05)
        news = json.loads(answer[1])
        assert "40 rows" in news["body"] and "39 rows" in first["body"]
        assert news["figures"]["columns"]["actual"][-1] == 9.5
        path.unlink()  # the last page stays
        time.sleep(0.5)
        assert ask(f"/content?seen={news['version']}") == (204, "")
        assert "40 rows" in ask("/")[1]


def test_new_pages_take_a_small_share_of_the_time():
    drawn = []

    def slow():
        drawn.append(time.monotonic())
        time.sleep(0.02)
        return Page("title")

    marks = iter(range(10**6))
    pages = _server.Pages(slow, lambda: str(next(marks)))
    end = time.monotonic() + 1
    while time.monotonic() < end:
        pages.newest()
    assert 2 <= len(drawn) <= 1 / (0.02 * _server._SHARE) + 2


def test_a_port_that_is_taken_is_replaced_unless_it_was_asked_for(tmp_path, monkeypatch):
    run = run_of(tmp_path, wave(40))
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        monkeypatch.setattr(_server, "PORT", taken)
        with served(run, None) as (ask, (_, port)):
            assert port != taken and ask("/")[0] == 200
        pages = _server.Pages(watch._drawer(run), str)
        for port in (taken, 70_000):
            with pytest.raises(UserError, match=f"port must be a free one, from 1 to 65535; got {port}: "):
                _server.server_of(pages, port)


def test_runs_of_train_and_compare_are_shown_while_they_go_on(tmp_path):
    small = ["--hidden", "4", "--lanes", "2", "--steps", "200", "--chunk", "50"]
    assert main(["train", "copy", "--learner", "uoro", *small, "--out", str(tmp_path / "a")]) == 0
    learners = ["--learner", "uoro", "--learner", "tbptt:2"]
    assert main(["compare", "copy", *learners, *small, "--seeds", "2", "--out", str(tmp_path / "b")]) == 0
    lines = (tmp_path / "a" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "a" / "metrics.jsonl").write_text(lines[0] + lines[1][:9])
    page = watch._drawer(tmp_path / "a")()
    assert page.title == "Copy: uoro trains highway, 4 units"
    assert len(page.below[-1].traces[0]["x"]) == 1
    lines = (tmp_path / "b" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "b" / "metrics.jsonl").write_text("".join(line for line in lines if "uoro" in line))
    assert {trace["name"] for trace in watch._drawer(tmp_path / "b")().below[0].traces} == {"uoro"}


def test_a_run_that_has_just_begun_has_a_page_that_waits(tmp_path, capsys):
    run = run_of(tmp_path, wave(40))
    (run / "predictions.csv").write_text(forecast._scores.HEADING)
    assert main(["watch", str(run)]) == 2
    sentence = "run must have forecasts; got one whose predictions.csv has none; wait for its second row."
    assert f"foretrace: {sentence}" in capsys.readouterr().err
    (run / "lock").touch()
    page = watch._page_or_reason(watch._drawer(run), run)
    assert page.lead == [sentence]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (None, "run must be a folder with a run; got"),
        ("{}", "run must have a config.json that foretrace forecast, train or compare wrote; got"),
        ("[", "run must have a config.json that foretrace forecast, train or compare wrote; got"),
        ('{"command": ["bench"]}', "run must have a config.json that foretrace"),
        ('{"command": ["train", "copy"]}', "run must be a folder that can be read; got"),
        ('{"kind": "forecast"}', "run must be a folder of foretrace forecast; got"),
    ],
)
def test_a_folder_without_a_page_is_refused_in_one_sentence(tmp_path, capsys, config, sentence):
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    assert main(["watch", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"foretrace: {sentence}") and error.count("\n") == 1


def test_a_run_without_a_line_of_metrics_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"command": ["train", "copy"]}')
    (tmp_path / "metrics.jsonl").touch()
    assert main(["watch", str(tmp_path)]) == 2
    assert "without one; wait for its first chunk." in capsys.readouterr().err
