"""Tables of results: the right number in the right place, in every medium."""

import csv
import io
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hand_made_runs import certain, make_item, make_row, make_run, make_source, make_summary
from unbraid.cli.tables import print_table
from unbraid.evaluation.benchmark import PublishedResult
from unbraid.evaluation.comparing import Change, ComparisonRow, RunComparison
from unbraid.evaluation.comparison_tables import (
    changes_table,
    comparison_table,
    csv_of_changes,
    losses_and_gains,
    measures_table,
)
from unbraid.evaluation.summary import summarise
from unbraid.evaluation.tables import (
    Table,
    TableRow,
    csv_of_sources,
    format_interval,
    format_markdown,
    format_p_value,
    format_value,
    measure_table,
    overall_line,
    summary_table,
    values_table,
    words_of,
)

TWO_ITEMS = make_run(
    [make_item("a", make_source("speech", 9.0)), make_item("b", make_source("speech", 10.0))]
)


def cells(table: Table) -> list[tuple[str, ...]]:
    return [row.cells for row in table.rows]


# ------------------------------------------------------------------ numbers


@pytest.mark.parametrize(
    ("value", "measure", "text"),
    [
        (9.44, "si_sdr_db", "9.4"),
        (-9.46, "si_sdr_db", "-9.5"),
        (-0.04, "si_sdr_db", "0.0"),
        (0.9344, "stoi", "0.934"),
        (math.nan, "stoi", "n/a"),
        (3.16, "si_sdr_db_improvement", "3.2"),
        (3.16, "a_measure_of_tomorrow_db", "3.2"),
    ],
)
def test_values_have_the_decimals_that_tell_something(
    value: float, measure: str, text: str
) -> None:
    assert format_value(value, measure) == text


@pytest.mark.parametrize(("value", "text"), [(1.26, "+1.3"), (-1.26, "-1.3"), (0.01, "0.0")])
def test_signed_values_have_a_plus_above_zero_only(value: float, text: str) -> None:
    assert format_value(value, "si_sdr_db", is_signed=True) == text


def test_an_interval_is_given_as_half_its_width() -> None:
    assert format_interval(certain(9.44, 0.31), "si_sdr_db") == "9.4 ± 0.3"
    assert format_interval(certain(-0.5, 0.25), "stoi", is_signed=True) == "-0.500 ± 0.250"


def test_a_number_that_could_not_be_resampled_stands_alone() -> None:
    assert format_interval(certain(9.44, count=1), "si_sdr_db") == "9.4"
    assert format_interval(certain(9.44, 1e-12), "si_sdr_db") == "9.4"
    assert format_interval(certain(math.nan, math.nan, 0), "si_sdr_db") == "n/a"


def test_small_chances_are_never_zero() -> None:
    assert [format_p_value(p) for p in (0.0, 0.0123, 0.5, math.nan)] == [
        "<0.001",
        "0.012",
        "0.50",
        "n/a",
    ]


def test_a_measure_from_elsewhere_has_its_own_name() -> None:
    words = words_of("loudness_db")
    assert (words.heading, words.is_better, words.description) == (
        "loudness_db (dB)",
        "higher",
        "",
    )


def test_a_gain_is_a_change_where_lower_is_better() -> None:
    assert words_of("si_sdr_db_improvement").title == "SI-SDR gain"
    assert words_of("log_spectral_distance_improvement").title.endswith(" change")


# ------------------------------------------------------------------ one run


def test_the_summary_leads_with_the_first_measure_and_its_gain() -> None:
    table = summary_table(TWO_ITEMS, make_summary(make_row("all", "all", 9.0, -1.0)))
    assert table.headers == ("over", "SI-SDR (dB)", "gain", "STOI", "mixtures", "sources")
    assert cells(table) == [("all", "9.0 ± 0.2", "+10.0 ± 0.2", "0.500 ± 0.020", "12", "24")]


def test_one_measure_in_full_has_mixture_and_masks() -> None:
    table = measure_table(TWO_ITEMS, make_summary(make_row("all", "all", 9.0, -1.0)), "si_sdr_db")
    assert table.headers == (
        *("SI-SDR (dB)", "mixture", "estimate", "gain", "ratio mask"),
        *("mixtures", "sources"),
    )
    assert cells(table) == [("all", "-1.0", "9.0 ± 0.2", "+10.0 ± 0.2", "15.0", "12", "24")]
    assert any("Masks" in note for note in table.notes)


def test_other_measures_over_all_fit_in_a_line() -> None:
    summary = summarise(TWO_ITEMS)
    assert overall_line(summary, ["stoi"]).startswith("By other measures, over all: STOI 0.500")
    assert overall_line(summary, []) == ""
    assert overall_line(summarise(make_run([make_item("a", make_source("x", math.nan))])),
                        ["si_sdr_db"]) == ""  # fmt: skip


def test_a_measure_without_oracles_has_no_empty_columns() -> None:
    table = measure_table(TWO_ITEMS, make_summary(make_row("all", "all", 9.0)), "stoi")
    assert table.headers[:4] == ("STOI", "mixture", "estimate", "gain")
    assert not any("Masks" in note for note in table.notes)


def test_published_figures_stand_below_ours_with_the_difference() -> None:
    published = [
        PublishedResult("TUSS", {"si_sdr_db": 12.0}, "a paper"),
        PublishedResult(
            "Other", {"si_sdr_db_improvement": 8.5, "pesq_wb": 3.0}, "a talk", "speech"
        ),
        PublishedResult("Lost", {"si_sdr_db": 1.0}, "a paper", "piano"),
        PublishedResult("Unmeasured", {"pesq_wb": 3.0}, "a paper"),
    ]
    rows = [make_row("all", "all", 9.0), make_row("prompt", "speech", 10.0, 1.0)]
    table = summary_table(TWO_ITEMS, make_summary(*rows), published)
    assert [(row.kind, row.cells[:3]) for row in table.rows] == [
        ("all", ("all", "9.0 ± 0.2", "+9.0 ± 0.2")),
        ("published", ("TUSS, published", "12.0 (-3.0)", "")),
        ("prompt", ("speech", "10.0 ± 0.2", "+9.0 ± 0.2")),
        ("published", ("Other, published", "", "8.5 (+0.5)")),
    ]
    assert "TUSS: a paper." in table.notes
    assert "Other: a talk." in table.notes
    assert not any("Lost" in note or "Unmeasured" in note for note in table.notes)


def test_systems_of_one_source_share_a_note() -> None:
    published = [
        PublishedResult(system, {"si_sdr_db": 12.0}, "a paper", note="First channel only.")
        for system in ("small", "large")
    ]
    table = summary_table(TWO_ITEMS, make_summary(make_row("all", "all", 9.0)), published)
    assert "small; large: a paper. First channel only." in table.notes


def test_a_part_or_prompt_that_is_called_all_is_not_everything() -> None:
    published = [PublishedResult("TUSS", {"si_sdr_db": 12.0}, "a paper")]
    rows = [make_row("all", "all", 9.0), make_row("part", "all", 5.0)]
    table = summary_table(TWO_ITEMS, make_summary(*rows), published)
    assert [row.kind for row in table.rows] == ["all", "published", "part"]


def test_a_source_is_shown_by_what_could_be_measured() -> None:
    source = make_source("speech", 4.0, 1.0, stoi=math.nan)
    source.mixture["stoi"] = math.nan  # type: ignore[index]
    assert cells(values_table(source)) == [("SI-SDR (dB)", "1.0", "4.0", "+3.0")]


def test_the_csv_reads_back_exactly() -> None:
    third = 1 / 3
    oracles = {"ideal_ratio": {"si_sdr_db": 20.25}}
    run = make_run(
        [
            make_item('a, "b"\nc', make_source("speech_1", third, oracles=oracles), part="rain"),
            make_item("d", make_source("music", math.nan), group="song"),
        ]
    )
    first, second = csv.DictReader(io.StringIO(csv_of_sources(run), newline=""))
    assert first["item"] == 'a, "b"\nc'
    assert (first["part"], first["stem"], first["prompt"]) == ("rain", "speech_1", "speech")
    assert float(first["si_sdr_db"]) == third
    assert float(first["oracle_ideal_ratio_si_sdr_db"]) == 20.25
    assert float(second["mixture_stoi"]) == 0.1
    assert (second["si_sdr_db"], second["oracle_ideal_ratio_si_sdr_db"]) == ("", "")
    assert (second["group"], second["is_silent"]) == ("song", "true")


# ------------------------------------------------------------------ media


def test_markdown_aligns_numbers_and_keeps_text_as_it_is() -> None:
    rows = (TableRow(("a|b *x*\n<i>", "1.0")),)
    assert format_markdown(Table(("name", "dB"), rows, notes=("n_1",))).splitlines() == [
        "| name | dB |",
        "| --- | ---: |",
        r"| a\|b \*x\* \<i> | 1.0 |",
        "",
        r"n\_1",
    ]


def test_a_pipe_gets_the_whole_width(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (TableRow(("all", *("12.34 ± 0.12",) * 20)),)
    print_table(Table(("over", *("measure",) * 20), rows, notes=("A note.",)))
    head, line, note = capsys.readouterr().out.splitlines()
    assert head.count("measure") == line.count("12.34 ± 0.12") == 20
    assert note == "A note."


def test_a_narrow_terminal_gets_several_tables_and_no_number_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    numbers = [f"{n}.25 ± 0.1" for n in range(10, 20)]
    print_table(Table(("over", *numbers), (TableRow(("everything", *numbers)),)))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    lines = [line for line in plain.splitlines() if line.strip()]
    assert max(map(len, lines)) <= 50
    assert sum(line.startswith("everything") for line in lines) == len(lines) / 2 > 1
    for number in numbers:
        assert sum(number in line for line in lines) == 2


def test_names_from_files_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(Table(("over",), (TableRow(("[bold]x[/] :smile: a\nb",)),)))
    assert "[bold]x[/] :smile: a b" in capsys.readouterr().out


# ------------------------------------------------------------------ two runs


def comparison(measure: str, *changes: tuple[str, float, float], **changed: Any) -> RunComparison:
    row: dict[str, Any] = {
        "measure": measure,
        "title": "all",
        "num_pairs": 3,
        "first": 8.0,
        "second": 9.25,
        "difference": certain(1.25, 0.5),
        "p_value": 0.0004,
        "num_better": 2,
        "num_worse": 1,
    }
    return RunComparison(
        first=TWO_ITEMS.info,
        second=TWO_ITEMS.info,
        rows=(ComparisonRow(**row | changed),),
        changes=tuple(Change(name, "speech", first, second) for name, first, second in changes),
        warnings=(),
    )


def test_a_comparison_says_how_much_and_how_sure() -> None:
    compared = comparison("si_sdr_db")
    numbers = ("3", "8.00", "9.25", "+1.25 ± 0.50", "<0.001", "2", "1")
    assert cells(comparison_table(compared, "si_sdr_db")) == [("all", *numbers)]
    assert cells(measures_table(compared)) == [("SI-SDR (dB)", *numbers)]
    assert cells(comparison_table(compared, "stoi")) == []


def test_losses_come_first_and_hold_no_gains() -> None:
    compared = comparison("si_sdr_db", ("a", 5.0, 1.0), ("b", 5.0, 5.0), ("c", 5.0, 6.0))
    losses, gains = losses_and_gains(compared)
    assert [change.item for change in losses] == ["a"]
    assert [change.item for change in gains] == ["c"]
    assert cells(changes_table(losses, "si_sdr_db")) == [("a", "speech", "5.00", "1.00", "-4.00")]


@pytest.mark.parametrize(
    ("measure", "lost"), [("log_spectral_distance", "up"), ("level_error", "down")]
)
def test_a_loss_is_what_the_measure_calls_worse(measure: str, lost: str) -> None:
    changes = [("up", 1.0, 2.0), ("down", 1.0, -3.0)]
    if measure == "level_error":
        changes[0] = ("up", 2.0, 1.0)
    losses, _ = losses_and_gains(comparison(measure, *changes))
    assert [change.item for change in losses] == [lost]


def test_the_number_of_changes_is_limited() -> None:
    many = [(str(n), 0.0, -9.0 + n) for n in range(20)]
    losses, gains = losses_and_gains(comparison("si_sdr_db", *many), 3)
    assert [change.item for change in losses] == ["0", "1", "2"]
    assert [change.item for change in gains] == ["19", "18", "17"]


def test_changes_as_csv_read_back_exactly() -> None:
    compared = comparison("si_sdr_db", ("a", 1 / 3, 2.0), ("b", math.nan, 2.0))
    first, second = csv.DictReader(io.StringIO(csv_of_changes(compared)))
    assert float(first["first_si_sdr_db"]) == 1 / 3
    assert float(first["difference"]) == 2.0 - 1 / 3
    assert (second["first_si_sdr_db"], second["difference"]) == ("", "")


@given(st.floats(-200, 200))
def test_no_number_is_a_negative_zero(value: float) -> None:
    assert format_value(value, "si_sdr_db") != "-0.0"
