"""Every learner has the BibTeX of its papers, in entries that are whole."""

import inspect
import re

import pytest

import foretrace as ft
from foretrace.learners._catalogue._citations import entries, papers

CONTRIB = {name for name in ft.contrib.__all__ if name.islower()} - {"with_synthesizer"}
FIELDS = {
    "article": {"title", "author", "journal", "volume", "year"},
    "inproceedings": {"title", "author", "booktitle", "year"},
    "misc": {"title", "author", "eprint", "archivePrefix", "year"},
    "software": {"title", "author", "version", "license"},
    "techreport": {"title", "author", "institution", "number", "year"},
    "unpublished": {"title", "author", "note", "year"},
}


def test_every_learner_has_its_papers_and_every_paper_a_learner():
    assert papers().keys() == ft.learners.SPECS.keys() | CONTRIB
    assert all(papers().values()), "name its papers in its SPEC"
    assert {"foretrace"}.union(*papers().values()) == entries().keys()


@pytest.mark.parametrize("key", entries())
def test_every_entry_is_whole(key):
    entry = entries()[key]
    kind, name = re.match(r"@(\w+)\{(\w+),\n", entry).groups()
    assert name == key and entry.count("{") == entry.count("}")
    fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.MULTILINE))
    assert len(fields) == len(entry.splitlines()) - 2 and fields.keys() >= FIELDS[kind]
    if "year" in fields:
        assert name.partition(fields["year"])[2], "a key is author, year, word"


@pytest.mark.parametrize("name", ft.learners.SPECS)
def test_the_years_are_those_of_the_table(name):
    years = re.findall(r"\b(?:19|20)\d\d\b", ft.learners.SPECS[name].source)
    assert all(f"year = {{{year}}}" in ft.citation(name) for year in years)


@pytest.mark.parametrize("learner", ["ok:16/8", ft.ok, ft.learners.parse("ok:16")])
def test_a_learner_is_cited_by_name_or_by_the_function_that_makes_it(learner):
    own, paper = ft.citation(learner).split("\n\n")
    assert f"version = {{{ft.__version__}}}" in own
    assert paper.startswith("@inproceedings{benzing2019optimal,")


def test_learners_of_contrib_are_cited_too():
    assert "tallec2017unbiasing" in ft.citation(ft.contrib.artbp)
    assert ft.citation("artbp") == ft.citation(ft.contrib.artbp)


def test_what_is_no_learner_is_refused():
    with pytest.raises(ValueError, match="learner must be one of rtrl, "):
        ft.citation("adam")
    with pytest.raises(ValueError, match="learner must be one of foretrace's; got online; choose"):
        ft.citation(ft.online)
    built = ft.rtrl(ft.cells.rnn(hidden=2, inputs=1))
    unchecked = inspect.unwrap(ft.citation)  # without the types that execute in tests
    with pytest.raises(
        TypeError, match="learner must be a name or the function that makes it; got Learner;"
    ):
        unchecked(built)
