"""Every refusal in the source has an example on the page of refusals, from a test that provokes it."""

import json
from collections import Counter

import refusals

ENTRIES = json.loads(refusals.RECORD.read_text())
HOW = "run: pytest -n 0 --record-refusals tests/FILE, with the FILE whose test provokes it"


def test_every_refusal_is_provoked_by_a_test_and_stands_in_the_record():
    missing = refusals.all_places() - {refusals.place_of(entry) for entry in ENTRIES}
    assert not missing, f"write a test for each of these, and {HOW}: {sorted(missing)}"


def test_the_record_names_no_place_and_no_test_that_is_gone():
    gone = [entry for entry in ENTRIES if not refusals.is_there(entry)]
    assert not gone, f"{HOW}: {gone}"


def test_a_place_is_known_by_its_sentence():
    places = [place for path in refusals.SOURCE.rglob("*.py") for _, place in refusals.refusals(path)]
    assert [place for place, count in Counter(places).items() if count > 1] == []


def test_an_example_names_nothing_of_the_machine_that_recorded_it():
    for entry in ENTRIES:
        assert "/tmp" not in str(entry) and str(refusals.ROOT) not in str(entry), entry
        assert " at 0x" not in str(entry), entry
