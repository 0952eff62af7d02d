"""What the guide on serving shows is run as it stands, against ``unbraid serve`` itself."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs unbraid[serve]")

from command_line import start, write_audio
from conftest import ROOT
from unbraid.serve.client import Client

DOCUMENT = ROOT / "docs" / "serving.md"
WRITTEN_ADDRESS = "http://127.0.0.1:8000"
FIRST_LINE = re.compile(r"mini on (http://127\.0\.0\.1:\d+), described at \1/docs\n")


def blocks(language: str, address: str) -> list[str]:
    """The examples in one language, with the address of our server."""
    found = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert any(WRITTEN_ADDRESS in block for block in found)
    return [block.replace(WRITTEN_ADDRESS, address) for block in found]


@pytest.mark.slow
def test_its_examples_run_and_a_stopped_server_puts_its_jobs_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    monkeypatch.chdir(tmp_path)
    spool = tmp_path / "spool"
    flags = ("serve", "--port", "0", "--device", "cpu", "--jobs", "1", "--spool", spool)
    with start(*flags, "--grace", "0") as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = FIRST_LINE.fullmatch(line)
            assert found is not None, line
            address = found[1]
            write_audio(tmp_path / "theirs.wav", 24_000)
            for block in blocks("bash", address):
                subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, check=True)
            with zipfile.ZipFile(tmp_path / "stems.zip") as archive:
                assert "speech.wav" in archive.namelist()
            for block in blocks("python", address):
                exec(compile(block, str(DOCUMENT), "exec"), {})
            assert (tmp_path / "stems" / "speech.wav").is_file()
            long = write_audio(tmp_path / "long.wav", 48_000 * 60)
            jobs = [Client(address).submit(long, ["speech"]).id for _ in range(2)]
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert process.stderr is not None
            assert process.stderr.read() == ""
        finally:
            process.kill()
    for job in jobs:
        assert '"state": "queued"' in (spool / job / "job.json").read_text()
        assert (spool / job / "recording").is_file()
