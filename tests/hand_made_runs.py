"""Runs and summaries written by hand, with numbers that are easy to follow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unbraid.evaluation.results import (
    ItemResult,
    Run,
    RunInfo,
    SourceResult,
    info_line,
    item_line,
)
from unbraid.evaluation.summary import Interval, Summary, SummaryRow

MEASURES = ("si_sdr_db", "stoi")


def make_source(
    stem: str,
    after_db: float,
    before_db: float = 0.0,
    *,
    stoi: float = 0.5,
    oracles: Mapping[str, Mapping[str, float]] | None = None,
) -> SourceResult:
    """A source with two measures; STOI of the mixture is a tenth."""
    return SourceResult(
        stem=stem,
        prompt=stem.partition("_")[0],
        is_silent=math.isnan(after_db),
        estimate={"si_sdr_db": after_db, "stoi": stoi},
        mixture={"si_sdr_db": before_db, "stoi": 0.1},
        oracles=oracles or {},
    )


def make_item(name: str, *sources: SourceResult, part: str = "", group: str = "") -> ItemResult:
    """Four seconds of audio, separated in one."""
    return ItemResult(name, part, group, 4.0, 1.0, sources)


def make_run(items: Sequence[ItemResult], *, model: str = "mini", **changes: Any) -> Run:
    """A run over these items."""
    settings: dict[str, Any] = {
        "benchmark": "wham",
        "model_name": model,
        "model_digest": "ab" * 32,
        "measures": MEASURES,
        "protocol": {"chunks": "whole", "summary": "mean", "channels": "first"},
        "version": "0.1.0",
        "items_digest": "cd" * 32,
    }
    return Run(RunInfo(**settings | changes), tuple(items))


def write_run(folder: Path, run: Run) -> Path:
    """Write a run as ``unbraid evaluate`` does, and return its folder."""
    folder.mkdir(parents=True)
    lines = [info_line(run.info), *map(item_line, run.items), ""]
    (folder / "results.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def certain(value: float, half: float = 0.0, count: int = 10) -> Interval:
    """A number with an interval of twice ``half`` around it."""
    return Interval(value, value - half, value + half, count)


def make_row(kind: Any, title: str, after_db: float, before_db: float = 0.0) -> SummaryRow:
    """A line of a summary with an interval of 0.25 dB to either side, and one oracle."""
    return SummaryRow(
        kind=kind,
        title=title,
        num_items=12,
        num_sources=24,
        estimate={"si_sdr_db": certain(after_db, 0.25), "stoi": certain(0.5, 0.02)},
        mixture={"si_sdr_db": before_db, "stoi": 0.1},
        improvement={
            "si_sdr_db": certain(after_db - before_db, 0.25),
            "stoi": certain(0.4, 0.02),
        },
        oracles={"ideal_ratio": {"si_sdr_db": 15.0}},
    )


def make_summary(*rows: SummaryRow) -> Summary:
    """A summary of these lines over two minutes of audio."""
    return Summary(rows, MEASURES, audio_s=120.0, elapsed_s=30.0)
