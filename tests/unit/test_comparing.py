"""Two runs, source by source."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from unbraid.errors import DataError
from unbraid.evaluation.comparing import Change, ComparisonRow, RunComparison, compare_runs
from unbraid.evaluation.results import (
    ItemResult,
    Run,
    RunInfo,
    SourceResult,
    info_line,
    item_line,
    parse_info,
    parse_items,
)

NAN = math.nan
MEASURES = ("snr_db", "log_spectral_distance", "level_error")


def source(stem: str, *values: float) -> SourceResult:
    """With 1 as the mixture's value of every measure."""
    estimate = dict(zip(MEASURES, values, strict=False))
    return SourceResult(stem, stem.split("_")[0], False, estimate, dict.fromkeys(estimate, 1.0))


def item(name: str, *sources: SourceResult, part: str = "", group: str = "") -> ItemResult:
    return ItemResult(name, part, group, 10.0, 2.0, sources)


def run(*items: ItemResult, measures: tuple[str, ...] = MEASURES[:1]) -> Run:
    info = RunInfo("a benchmark", "a model", "", measures, {"channels": "first"}, "1", "abc")
    return Run(info, items)


def row(comparison: RunComparison, title: str = "all", measure: str = "snr_db") -> ComparisonRow:
    (found,) = (row for row in comparison.rows if (row.title, row.measure) == (title, measure))
    return found


FIRST = run(
    item("one", source("speech_1", 5.0), source("speech_2", 6.0), part="quiet"),
    item("two", source("speech_1", 7.0), source("sfx", NAN), part="loud"),
    item("three", source("sfx", 2.0), part="loud"),
)
SECOND = run(
    item("three", source("sfx", 1.0), part="loud"),
    item("one", source("speech_2", 9.0), source("speech_1", 6.0), part="quiet"),
    item("two", source("speech_1", 7.0), source("sfx", 4.0), part="loud"),
)


def test_sources_are_paired_by_name_whatever_their_order() -> None:
    found = row(compare_runs(FIRST, SECOND))
    assert found.num_pairs == 4  # one is not defined in the first run
    assert found.first == (5.0 + 6.0 + 7.0 + 2.0) / 4
    assert found.second == (6.0 + 9.0 + 7.0 + 1.0) / 4
    assert found.difference.value == 3.0 / 4
    assert found.difference.low < 0.0 < found.difference.high
    assert (found.num_better, found.num_worse) == (2, 1)


def test_rows_are_for_everything_then_parts_then_prompts() -> None:
    comparison = compare_runs(FIRST, SECOND)
    assert [each.title for each in comparison.rows] == ["all", "quiet", "loud", "speech", "sfx"]
    assert row(comparison, "quiet").difference.value == 2.0
    assert row(comparison, "sfx").num_pairs == 1


def test_changes_begin_with_the_greatest_loss() -> None:
    assert compare_runs(FIRST, SECOND).changes == (
        Change("three", "sfx", 2.0, 1.0),
        Change("two", "speech_1", 7.0, 7.0),
        Change("one", "speech_1", 5.0, 6.0),
        Change("one", "speech_2", 6.0, 9.0),
    )


def test_losses_are_losses_where_lower_or_near_zero_is_better() -> None:
    before = run(
        item("one", source("a", 0.0, 2.0, -1.0), source("b", 0.0, 2.0, 3.0)), measures=MEASURES
    )
    after = run(
        item("one", source("a", 0.0, 3.0, 2.0), source("b", 0.0, 1.0, -2.0)), measures=MEASURES
    )
    for measure in MEASURES[1:]:
        comparison = compare_runs(before, after, [measure])
        assert [change.stem for change in comparison.changes] == ["a", "b"]
        found = row(comparison, measure=measure)
        assert (found.num_better, found.num_worse) == (1, 1)
    assert row(comparison, measure="level_error").difference.value == -1.0  # from 1 to 0


def test_improvements_are_compared_too() -> None:
    gained = replace(SECOND.items[0].sources[0], mixture={"snr_db": -4.0})
    second = run(item("three", gained))
    comparison = compare_runs(FIRST, second, ["snr_db_improvement"])
    found = row(comparison, measure="snr_db_improvement")
    assert (found.first, found.second) == (1.0, 5.0)


def test_many_equal_gains_are_no_chance() -> None:
    before = run(*(item(str(n), source("sfx", float(n % 5))) for n in range(20)))
    after = run(*(item(str(n), source("sfx", n % 5 + 0.5 + 0.01 * n)) for n in range(20)))
    found = row(compare_runs(before, after))
    assert found.p_value == pytest.approx(2 / 2**20)
    assert found.difference.low > 0.5


def test_the_pieces_of_one_song_are_one_observation() -> None:
    before = run(*(item(str(n), source("sfx", 1.0), group="song") for n in range(20)))
    after = run(*(item(str(n), source("sfx", 2.0 + n), group="song") for n in range(20)))
    assert row(compare_runs(before, after)).p_value == 1.0


def test_a_run_does_not_differ_from_itself() -> None:
    comparison = compare_runs(FIRST, FIRST)
    assert comparison.warnings == ()
    for each in comparison.rows:
        assert (each.difference.value, each.p_value) == (0.0, 1.0)
        assert (each.num_better, each.num_worse) == (0, 0)


def test_a_run_that_was_written_and_read_is_the_same() -> None:
    info = replace(FIRST.info, protocol={"measures": ("snr_db",), "segment_s": None})
    kept = replace(FIRST, info=info)
    read = Run(
        parse_info(info_line(info), Path("file")),
        tuple(parse_items([item_line(each) for each in kept.items], Path("file"))),
    )
    assert json.loads(info_line(info))["run"]["protocol"]["measures"] == ["snr_db"]
    assert compare_runs(kept, read).warnings == ()


def test_what_makes_runs_not_quite_comparable_is_said() -> None:
    fewer = Run(
        replace(
            FIRST.info,
            benchmark="another",
            protocol={"channels": "each", "summary": "median", "oracles": True},
            items_digest="def",
            version="2",
        ),
        FIRST.items[:2],
    )
    assert compare_runs(FIRST, fewer).warnings == (
        "different benchmarks: a benchmark and another",
        'different protocols: channels is "first" in the first run, "each" in the second',
        "the mixtures are not made of the same files",
        "sources in the first run only, left out: 1",
        "measured by different versions: 1 and 2",
    )


def test_an_unknown_digest_is_no_difference() -> None:
    unknown = replace(FIRST, info=replace(FIRST.info, items_digest=""))
    assert compare_runs(FIRST, unknown).warnings == ()


def test_runs_that_share_nothing_are_refused() -> None:
    other = run(item("elsewhere", source("sfx", 1.0)))
    with pytest.raises(DataError, match=r"share no source \(3 mixtures of a benchmark; 1 "):
        compare_runs(FIRST, other)
    with pytest.raises(DataError, match=r"share no measure: the first has snr_db, the second "):
        compare_runs(FIRST, replace(FIRST, info=replace(FIRST.info, measures=("stoi",))))


def test_a_measure_that_a_run_lacks_is_refused() -> None:
    with pytest.raises(DataError, match=r"stoi is not in both runs; both have snr_db"):
        compare_runs(FIRST, SECOND, ["stoi"])


def test_a_measure_that_is_nowhere_defined_has_no_row() -> None:
    undefined = run(item("three", source("sfx", NAN)))
    comparison = compare_runs(FIRST, undefined)
    assert (comparison.rows, comparison.changes) == ((), ())
