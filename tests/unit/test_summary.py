"""Summing up a run: every rule by hand."""

from __future__ import annotations

import math

import pytest

from unbraid.errors import DataError
from unbraid.evaluation.results import ItemResult, Run, RunInfo, SourceResult
from unbraid.evaluation.summary import SummaryRow, summarise

NAN = math.nan


def source(
    prompt: str, value: float, mixture: float = 0.0, oracle: float | None = None, stem: str = ""
) -> SourceResult:
    return SourceResult(
        stem=stem or prompt,
        prompt=prompt,
        is_silent=False,
        estimate={"snr_db": value},
        mixture={"snr_db": mixture},
        oracles={} if oracle is None else {"ideal_ratio": {"snr_db": oracle}},
    )


def item(name: str, *sources: SourceResult, part: str = "", group: str = "") -> ItemResult:
    return ItemResult(name, part, group, 10.0, 2.0, sources)


def run(*items: ItemResult, **protocol: object) -> Run:
    info = RunInfo("a benchmark", "a model", "", ("snr_db",), protocol, "1")
    return Run(info, items)


def rows(*items: ItemResult, **protocol: object) -> dict[str, SummaryRow]:
    return {row.title: row for row in summarise(run(*items, **protocol)).rows}


def value(row: SummaryRow) -> float:
    return row.estimate["snr_db"].value


UNEVEN = (
    item("one", source("speech", 10.0)),
    item(
        "two",
        source("speech", 2.0, stem="speech_1"),
        source("speech", 4.0, stem="speech_2"),
        source("sfx", 6.0),
    ),
)


def test_a_mean_is_over_the_sources_of_a_mixture_and_then_over_mixtures() -> None:
    found = rows(*UNEVEN, summary="mean")
    assert value(found["all"]) == (10.0 + 4.0) / 2
    assert value(found["speech"]) == (10.0 + 3.0) / 2
    assert value(found["sfx"]) == 6.0
    assert found["all"].estimate["snr_db"].count == 4
    assert (found["all"].num_items, found["all"].num_sources) == (2, 4)
    assert (found["sfx"].num_items, found["sfx"].num_sources) == (1, 1)


def test_the_mean_is_the_rule_where_none_is_named() -> None:
    assert value(rows(*UNEVEN)["all"]) == 7.0


def test_a_mean_of_sources_is_over_all_at_once() -> None:
    found = rows(*UNEVEN, summary="mean-of-sources")
    assert value(found["all"]) == 22.0 / 4
    assert value(found["speech"]) == 16.0 / 3


def test_a_median_is_over_sources_prompt_by_prompt_and_over_all() -> None:
    found = rows(*UNEVEN, summary="median")
    assert value(found["speech"]) == 4.0
    assert value(found["sfx"]) == 6.0
    assert value(found["all"]) == 5.0


def test_a_median_of_groups_is_over_a_song_and_then_over_songs() -> None:
    songs = [
        item(f"{song} @ {position}", source("drums", number), group=song)
        for song, numbers in {"a": (1.0, 2.0, 9.0), "b": (5.0,), "c": (6.0, 8.0)}.items()
        for position, number in enumerate(numbers)
    ]
    found = rows(*songs, summary="median-of-groups")
    assert value(found["drums"]) == 5.0  # of 2, 5 and 7
    assert value(found["all"]) == 5.5  # of all six pieces


def test_measures_among_the_medians_go_their_own_way() -> None:
    found = rows(*UNEVEN, summary="mean", medians=["snr_db"])
    assert value(found["speech"]) == 4.0
    assert value(found["all"]) == (4.0 + 6.0) / 2


def test_parts_come_in_order_and_mixtures_without_one_are_in_none() -> None:
    summary = summarise(
        run(
            item("one", source("speech", 1.0), part="quiet"),
            item("two", source("sfx", 2.0)),
            item("three", source("speech", 3.0), part="loud"),
            item("four", source("speech", 5.0), part="quiet"),
        )
    )
    assert [(row.kind, row.title) for row in summary.rows] == [
        ("all", "all"),
        ("part", "quiet"),
        ("part", "loud"),
        ("prompt", "speech"),
        ("prompt", "sfx"),
    ]
    assert [value(row) for row in summary.rows] == [2.75, 3.0, 3.0, 3.0, 2.0]


def test_gains_are_source_by_source() -> None:
    found = rows(
        item("one", source("speech", 10.0, mixture=1.0), source("sfx", 5.0, mixture=NAN)),
        item("two", source("speech", 4.0, mixture=3.0), source("sfx", NAN, mixture=3.0)),
        summary="mean-of-sources",
    )
    row = found["all"]
    assert row.improvement["snr_db"].value == (9.0 + 1.0) / 2
    assert row.improvement["snr_db"].count == 2
    assert row.mixture["snr_db"] == 7.0 / 3
    assert row.estimate["snr_db"].count == 3


def test_what_is_not_defined_is_left_out() -> None:
    found = rows(
        item("one", source("speech", 8.0), source("sfx", NAN)),
        item("two", source("sfx", NAN)),
    )
    assert value(found["all"]) == 8.0
    assert found["all"].estimate["snr_db"].count == 1
    assert math.isnan(value(found["sfx"]))
    assert found["sfx"].estimate["snr_db"].count == 0


def test_oracles_are_summed_up_where_they_were_measured() -> None:
    found = rows(
        item("one", source("speech", 8.0, oracle=12.0), source("sfx", 1.0)),
        item("two", source("speech", 6.0, oracle=14.0)),
    )
    assert found["all"].oracles == {"ideal_ratio": {"snr_db": 13.0}}
    assert found["sfx"].oracles == {}


def test_times_are_added_up() -> None:
    summary = summarise(run(*UNEVEN))
    assert (summary.audio_s, summary.elapsed_s) == (20.0, 4.0)
    assert summary.measures == ("snr_db",)


def test_a_run_of_nothing_has_no_numbers() -> None:
    (row,) = summarise(run()).rows
    assert (row.num_items, row.num_sources) == (0, 0)
    assert math.isnan(value(row))


def test_songs_are_resampled_whole() -> None:
    pieces = [
        item(f"{song} @ {position}", source("drums", 1.0 + song + 0.01 * position), group=str(song))
        for song in range(8)
        for position in range(50)
    ]
    lone = [ItemResult(each.item, "", "", 10.0, 2.0, each.sources) for each in pieces]
    in_songs = rows(*pieces)["all"].estimate["snr_db"]
    by_piece = rows(*lone)["all"].estimate["snr_db"]
    assert in_songs.value == by_piece.value
    assert in_songs.high - in_songs.low > 4 * (by_piece.high - by_piece.low)


def test_the_same_run_and_seed_give_the_same_summary() -> None:
    many = [item(str(number), source("sfx", float(number**2 % 17))) for number in range(30)]
    assert summarise(run(*many), seed=3) == summarise(run(*many), seed=3)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(DataError, match=r"a benchmark sums up by 'mode'; known: mean, "):
        summarise(run(*UNEVEN, summary="mode"))
