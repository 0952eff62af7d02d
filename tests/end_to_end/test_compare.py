"""``unbraid compare``: from two folders of results to tables, a page and CSV."""

import csv
import math
from pathlib import Path

import pytest

from command_line import files_below, unbraid
from hand_made_runs import make_item, make_run, make_source, write_run

CONFIG_ERROR = 2
AUDIO_ERROR = 4
DATA_ERROR = 6


@pytest.fixture
def first(tmp_path: Path) -> Path:
    items = [
        make_item(f"m{n}", make_source("speech", 5.0), make_source("music", 1.0)) for n in range(9)
    ]
    return write_run(tmp_path / "first", make_run(items, model="small"))


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Speech gains 0.5 to 2.5 dB, music loses nothing but in one mixture."""
    items = [
        make_item(
            f"m{n}",
            make_source("speech", 5.5 + n / 4, stoi=0.75),
            make_source("music", -1.0 if n == 4 else 1.0),
        )
        for n in range(9)
    ]
    return write_run(tmp_path / "second", make_run(items, model="large"))


def test_the_table_says_how_much_better_and_how_sure(first: Path, second: Path) -> None:
    outcome = unbraid("compare", first, second)
    assert (outcome.code, outcome.stderr) == (0, "")
    lines = outcome.stdout.splitlines()
    assert lines[0].startswith("first:  small (abababababab) on wham, unbraid ")
    assert lines[1].startswith("second: large ")
    # Nine gains of 1.5 dB on average and one loss of 2 dB, over 18 sources.
    [everything] = [line for line in lines if line.startswith("all ")]
    assert everything.split()[:4] == ["all", "18", "3.00", "3.64"]
    assert "+0.64 ± " in everything
    assert everything.split()[-2:] == ["9", "1"]
    [stoi] = [line for line in lines if line.startswith("STOI ")]
    assert "+0.1250" in stoi
    lost = lines[lines.index("lost most, SI-SDR (dB):") + 2]
    assert lost.split() == ["m4", "music", "1.00", "-1.00", "-2.00"]
    gained = lines[lines.index("gained most, SI-SDR (dB):") + 2]
    assert gained.split() == ["m8", "speech", "5.00", "7.50", "+2.50"]


def test_a_run_beside_itself_has_not_changed(first: Path) -> None:
    outcome = unbraid("compare", first, first / "results.jsonl", "--json")
    rows = outcome.json["rows"]
    assert all(row["difference"]["value"] == 0 for row in rows)
    assert all(row["p_value"] == 1 for row in rows)
    assert "lost most" not in unbraid("compare", first, first).stdout


def test_json_holds_everything(first: Path, second: Path) -> None:
    compared = unbraid("compare", first, second, "--json").json
    assert compared["first"]["model_name"] == "small"
    row = compared["rows"][0]
    assert (row["measure"], row["title"], row["num_pairs"]) == ("si_sdr_db", "all", 18)
    assert row["difference"]["value"] == pytest.approx((9 * 1.5 - 2) / 18)
    assert len(compared["changes"]) == 18
    assert compared["changes"][0] == {"item": "m4", "stem": "music", "first": 1.0, "second": -1.0}


def test_measures_can_be_chosen_and_the_first_leads(first: Path, second: Path) -> None:
    chosen = ("--measure", "stoi", "--measure", "si_sdr_db_improvement")
    compared = unbraid("compare", first, second, *chosen, "--json").json
    assert list(dict.fromkeys(row["measure"] for row in compared["rows"])) == [
        "stoi",
        "si_sdr_db_improvement",
    ]
    assert "gained most, STOI:" in unbraid("compare", first, second, *chosen).stdout


def test_page_and_csv_are_written(tmp_path: Path, first: Path, second: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    html, table = out / "compared.html", out / "compared.csv"
    assert unbraid("compare", first, second, "--html", html, "--csv", table).code == 0
    assert files_below(out) == ["compared.csv", "compared.html"]
    text = html.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert "large beside small" in text
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert (rows[0]["item"], float(rows[0]["difference"])) == ("m4", -2.0)


def test_values_that_are_not_defined_are_left_out(tmp_path: Path, first: Path) -> None:
    items = [make_item("m0", make_source("speech", math.nan), make_source("music", 4.0))]
    other = write_run(tmp_path / "other", make_run(items, model="large"))
    compared = unbraid("compare", first, other, "--json").json
    [everything] = [
        row for row in compared["rows"] if (row["measure"], row["title"]) == ("si_sdr_db", "all")
    ]
    assert (everything["num_pairs"], everything["difference"]["value"]) == (1, 3.0)


def test_what_makes_runs_differ_is_a_warning(tmp_path: Path, first: Path) -> None:
    items = [make_item("m0", make_source("speech", 4.0))]
    rules = {"chunks": "model", "summary": "mean", "channels": "first"}
    other = write_run(tmp_path / "other", make_run(items, protocol=rules))
    outcome = unbraid("compare", first, other)
    assert outcome.code == 0
    warnings = outcome.stderr.splitlines()
    assert all(line.startswith("warning: ") for line in warnings)
    assert any("chunks" in line for line in warnings)


def test_runs_without_common_mixtures_cannot_be_compared(tmp_path: Path, first: Path) -> None:
    other = write_run(tmp_path / "other", make_run([make_item("x", make_source("speech", 1.0))]))
    outcome = unbraid("compare", first, other)
    assert outcome.code == DATA_ERROR
    assert "share no source" in outcome.error


def test_a_measure_that_was_not_measured_is_refused(first: Path, second: Path) -> None:
    outcome = unbraid("compare", first, second, "--measure", "pesq_wb")
    assert outcome.code == DATA_ERROR
    assert "pesq_wb" in outcome.error


def test_a_folder_without_results_is_named(tmp_path: Path, first: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = unbraid("compare", first, tmp_path / "empty")
    assert outcome.code == DATA_ERROR
    assert str(tmp_path / "empty" / "results.jsonl") in outcome.error


def test_results_that_are_something_else_are_refused(tmp_path: Path, first: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text('{"event": "start"}\n', encoding="utf-8")
    outcome = unbraid("compare", first, file)
    assert outcome.code == DATA_ERROR
    assert "line 1" in outcome.error


def test_a_page_that_cannot_be_written_is_one_clear_error(
    tmp_path: Path, first: Path, second: Path
) -> None:
    outcome = unbraid("compare", first, second, "--html", tmp_path / "nowhere" / "a.html")
    assert outcome.code == AUDIO_ERROR
    assert "cannot be written" in outcome.error
    assert outcome.stdout == ""
