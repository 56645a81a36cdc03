"""The report is one file that needs no other."""

import re
from html.parser import HTMLParser
from typing import Any

from tests.training.evaluation.test_held_out import some
from training.evaluation.held_out import measure
from training.evaluation.report_page import report_page


class Tags(HTMLParser):
    """The open tags, and every address that a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_report_needs_no_other_file_and_shows_every_plot() -> None:
    rollouts, promises = some()
    figures = measure(rollouts, promises, trained_on=rollouts[:4])
    training = {"recipe": {"lora": 16, "learning_rate": 1e-4}, "base": "<b>", "validation_auc": [0.6, 0.8, 0.7]}
    page = report_page(figures.to_json(), training, "mine@1")
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(address.startswith("#") for address in tags.loaded)
    assert not re.search(r"url\((?!#)|@import|<script", page)
    assert page.count("<svg") == 4
    assert "&lt;b&gt;" in page
    assert f"{figures.step_auc.value:.3f}" in page
    assert "were trained on under another query" in page


def test_a_report_of_nothing_says_so() -> None:
    nothing: dict[str, Any] = measure([], []).to_json()
    assert "Nothing is known of held-out queries" in report_page(nothing, {}, "mine@1")
    assert "Nothing is known of held-out queries" in report_page({}, {}, "mine@1")


def test_equal_figures_make_equal_pages() -> None:
    rollouts, promises = some()
    pages = [report_page(measure(rollouts, promises).to_json(), {}, "mine@1") for _ in range(2)]
    assert pages[0] == pages[1]
