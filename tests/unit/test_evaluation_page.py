"""The page of an evaluation: whole by itself, true to the numbers, and usable by everybody."""

import math
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from hand_made_runs import make_item, make_row, make_run, make_source, make_summary
from unbraid.apps.cases import Case, Sound
from unbraid.apps.comparison_page import render_comparison_page
from unbraid.apps.evaluation_page import render_evaluation_page
from unbraid.apps.report_page import duration_text
from unbraid.evaluation.benchmark import PublishedResult
from unbraid.evaluation.comparing import compare_runs
from unbraid.evaluation.results import ItemResult
from unbraid.evaluation.summary import Summary, summarise
from unbraid.evaluation.tables import Table, TableRow

HOSTILE = "<script>alert('x')</script>\"&$title"
VOID = {"meta", "link", "img"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects what the tests ask about."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.headings: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("th", "td"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if self.open and self.open[-1] in ("h1", "h2", "h3", "h4"):
            self.headings.append(self.open[-1])
        if {"th", "td"} & set(self.open):
            self.cells[-1][-1] += data.replace("\N{NO-BREAK SPACE}", " ")

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def some_items() -> list[ItemResult]:
    return [
        make_item(
            f"mixture {number}",
            make_source("speech", 5.0 + 2 * number, float(number), stoi=0.9),
            make_source("music", 2.0 - number, 0.5),
            part="rain" if number % 2 else "wind",
        )
        for number in range(8)
    ]


def a_case(title: str = "the bad one: speech", *, is_best: bool = False) -> Case:
    sounds = tuple(
        Sound(label, label.encode(), "audio/mpeg") for label in ("Mixture", "Estimate", "Reference")
    )
    numbers = Table(("", "estimate"), (TableRow(("SI-SDR (dB)", "-3.0")),))
    return Case(title, "Asked for: speech.", sounds, b"picture", numbers, is_best)


@pytest.fixture(scope="module")
def html() -> str:
    run = make_run(some_items())
    published = [PublishedResult("TUSS", {"si_sdr_db": 10.0}, "a paper")]
    cases = [a_case(), a_case("the good one: music", is_best=True)]
    return render_evaluation_page(
        run, summarise(run), published, cases, title="Speech in noise", notes="First channel only."
    )


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_needs_nothing_beside_it(html: str, page: Page) -> None:
    places = [
        attributes[key]
        for _, attributes in page.tags
        for key in ("src", "href", "srcset", "action", "data", "poster")
        if key in attributes
    ]
    assert len(places) > 8
    assert all(place and place.startswith(("data:", "#")) for place in places)
    assert not page.of("script")
    assert "url(" not in html
    assert "@import" not in html
    assert "http://" not in html
    assert "https://" not in html


def test_links_lead_somewhere(page: Page) -> None:
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    links = [str(link["href"]) for link in page.of("a")]
    assert links == ["#results", "#distributions", "#cases", "#how"]
    assert {link[1:] for link in links} <= set(names)
    labels = {attributes["aria-labelledby"] for attributes in page.of("section")}
    assert labels <= set(names)


def test_headings_go_down_step_by_step(page: Page) -> None:
    levels = [int(heading[1]) for heading in page.headings]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_everything_has_words_for_those_who_do_not_see_it(page: Page) -> None:
    assert page.of("html")[0]["lang"] == "en"
    assert all(image["alt"] for image in page.of("img"))
    assert all(sound["aria-label"] and "controls" in sound for sound in page.of("audio"))
    charts = [chart["aria-label"] for chart in page.of("svg")]
    assert len(charts) == 4
    assert all(charts)
    assert len(page.of("caption")) == len(page.of("table"))
    assert all(head.get("scope") for head in page.of("th"))
    # What scrolls sideways can be scrolled with the keyboard.
    wide = [attributes for attributes in page.of("div") if attributes.get("class") == "wide"]
    assert wide
    assert all(region["tabindex"] == "0" and region["aria-label"] for region in wide)


def test_the_numbers_are_those_of_the_summary(page: Page) -> None:
    run = make_run(some_items())
    row = summarise(run).rows[0]
    value = row.estimate["si_sdr_db"].value
    half = (row.estimate["si_sdr_db"].high - row.estimate["si_sdr_db"].low) / 2
    assert f"{value:.1f} ±\N{NO-BREAK SPACE}{half:.1f}" in page.text
    everything = [cells for cells in page.cells if cells and cells[0] == "all"]
    assert everything[0][2] == f"{value:.1f} ± {half:.1f}"
    theirs = [cells for cells in page.cells if cells and cells[0] == "TUSS, published"]
    difference = f"{value - 10:.1f}".replace("-", "\N{MINUS SIGN}")
    assert f"10.0 ({difference})" in theirs[0]


def test_it_says_how_it_was_measured(page: Page) -> None:
    for words in (
        "Speech in noise",
        "First channel only.",
        "each mixture in one piece",
        "the mean over a mixture's sources, then over mixtures",
        "ab" * 32,
        "Higher is better.",
    ):
        assert words in page.text


def test_sources_that_gained_are_counted(page: Page) -> None:
    # Speech gains five in each of eight mixtures, music gains in the first two.
    assert "10 of 16 sources are better after separation" in page.text


def test_cases_are_worst_first_with_their_sounds(page: Page) -> None:
    worst, best = page.text.index("Where it went worst"), page.text.index("Where it went best")
    assert worst < page.text.index("the bad one: speech") < best
    assert best < page.text.index("the good one: music")
    assert [sound["src"] for sound in page.of("audio")[:2]] == [
        "data:audio/mpeg;base64,TWl4dHVyZQ==",
        "data:audio/mpeg;base64,RXN0aW1hdGU=",
    ]
    assert page.of("img")[0]["src"] == "data:image/png;base64,cGljdHVyZQ=="


def test_nothing_that_comes_from_files_becomes_a_tag() -> None:
    items = [
        make_item(
            f"{HOSTILE}{number}",
            make_source(HOSTILE, 3.0, 1.0),
            part=HOSTILE,
        )
        for number in range(4)
    ]
    run = make_run(
        items,
        model=HOSTILE,
        benchmark=HOSTILE,
        model_digest=HOSTILE,
        items_digest=HOSTILE,
        version=HOSTILE,
        measures=("si_sdr_db", HOSTILE),
        protocol={HOSTILE: HOSTILE, "nested": {HOSTILE: [HOSTILE]}},
    )
    published = [PublishedResult(HOSTILE, {"si_sdr_db": 1.0}, HOSTILE, note=HOSTILE)]
    case = Case(HOSTILE, HOSTILE, (Sound(HOSTILE, b"", "audio/mpeg"),), b"")
    page = Page(render_evaluation_page(run, summarise(run), published, [case], notes=HOSTILE))
    assert not page.of("script")
    assert page.text.count("<script>alert('x')</script>") > 20


def test_a_run_where_nothing_is_defined_still_has_a_page() -> None:
    items = [make_item("a", make_source("speech", math.nan, math.nan, stoi=math.nan))]
    run = make_run(items)
    page = Page(render_evaluation_page(run, summarise(run)))
    assert "Nothing could be measured here." in page.text
    assert "#cases" not in [link["href"] for link in page.of("a")]


def test_a_summary_without_lines_has_a_page() -> None:
    page = Page(render_evaluation_page(make_run([]), Summary((), ("si_sdr_db",), 0.0, 0.0)))
    assert "Nothing could be measured here." in page.text


def test_many_prompts_wait_to_be_unfolded() -> None:
    names = [f"class{number}" for number in range(50)]
    run = make_run(
        [make_item(str(n), *(make_source(name, n) for name in names)) for n in range(3)],
        measures=("si_sdr_db",),
    )
    page = Page(render_evaluation_page(run, summarise(run)))
    heights = [float(chart["height"] or 0) for chart in page.of("svg")]
    assert heights[-2] < 100 < 2000 < heights[-1]
    assert "50 prompts" in page.text


def test_without_a_title_it_is_the_benchmark() -> None:
    run = make_run(some_items())
    summary = make_summary(make_row("all", "all", 9.0))
    assert "<h1>wham</h1>" in render_evaluation_page(run, summary)


@pytest.mark.parametrize(
    ("seconds", "text"), [(9.26, "9.3 s"), (330.0, "5.5 min"), (19_440.0, "5.4 h")]
)
def test_lengths_are_in_the_unit_that_suits(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


# ------------------------------------------------------------------ two runs


def test_the_page_of_a_comparison_is_whole_and_says_the_difference() -> None:
    first = make_run(some_items(), model="small")
    louder = [
        make_item(
            item.item, *(make_source(s.stem, s.estimate["si_sdr_db"] + 2) for s in item.sources)
        )
        for item in first.items
    ]
    second = make_run(louder, model=f"large {HOSTILE}", items_digest="ef" * 32)
    compared = compare_runs(first, second)
    page = Page(render_comparison_page(compared))
    assert not page.of("script")
    assert "+2.00" in page.text
    assert all(warning in page.text for warning in compared.warnings)
    assert compared.warnings
    assert "Gained most" in page.text
    assert "Lost most" not in page.text
