"""The README and the site: what they show runs, what they name exists."""

import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from command_line import unbraid
from conftest import ROOT
from documentation_material import make_material
from documented import Block, all_blocks, blocks, pages, refused
from unbraid.config import check_keys
from unbraid.training.config import TrainConfig
from unbraid.training.recipe_files import shipped_recipes

#: Pages whose Python takes a second or two; that of the others runs with the slow tests.
QUICK = ["README.md", "docs/python.md", "docs/prompts.md", "docs/getting-started.md"]

#: What is added to a command, so that it takes seconds here.
SHORTER = {
    "teach": ["--steps", "1", "--minutes", "0.02", "--quiet"],
    "finetune": ["--steps", "1", "--minutes", "0.02", "--crop", "1", "--keep-last", "--quiet"],
    "adapt": ["--steps", "1", "--minutes", "0.1", "--crop", "1", "--keep-last", "--quiet"],
    "evaluate": ["--limit", "1", "--cases", "1", "--quiet"],
    "export": ["--length", "2"],
    "separate": ["--quiet"],
    "separate-many": ["--jobs", "1", "--quiet"],
}
#: Commands that take long, shown in the same words on several pages: they run on one of these,
#: and elsewhere what follows finds something in the place of what they would have made.
ELSEWHERE = {
    "teach door-bell clips/": "docs/guides/teaching-a-prompt.md",
    "finetune mini --data songs/": "docs/guides/own-training.md",
    "adapt mini recordings/ --prompts speech,sfx-mix": "docs/adapting.md",
    "export mini --onnx mini.onnx --prompts speech,speech,music-mix": "docs/export.md",
}
#: Commands that only list things take no such flags.
AS_THEY_ARE = ("--list", "--measures help")


def runnable(page: str, languages: tuple[str, ...]) -> list[Block]:
    return [
        block for block in blocks(page) if block.language in languages and block.not_run is None
    ]


def run_python(block: Block, names: dict[str, object]) -> None:
    # As many lines above as in the page, so that a failure names the right one.
    source = "\n" * (block.line - 1) + block.text
    exec(compile(source, block.page, "exec"), names)


def names_of_the_reader(folder: Path) -> dict[str, object]:
    """What the blocks take for granted."""
    from unbraid.checkpoints import resolve_model

    noise = np.random.default_rng(0).standard_normal((2, 30000)).astype(np.float32)
    return {
        "array": 0.1 * noise,
        "user_pressed_stop": False,
        "folder": resolve_model("mini"),
        "other_folder": folder / "mine",
    }


def stand_in(command: list[str], folder: Path) -> None:
    """Make what a command would have made, as far as others on the page need it."""
    if command[0] == "teach":
        prompt = folder / "siren.prompt.safetensors"
        assert unbraid("prompts", "install", prompt, "--as", command[1]).code == 0
    elif command[0] in ("finetune", "adapt"):
        from unbraid.checkpoints import resolve_model

        made = {"finetune": "mini-tuned", "adapt": "mini-adapted"}[command[0]]
        shutil.copytree(resolve_model("mini"), folder / made)


@pytest.fixture
def at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that commands name, to work in."""
    make_material(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", QUICK)
def test_the_python_in_it_runs(page: str, at_work: Path) -> None:
    found = runnable(page, ("python",))
    assert found
    names = names_of_the_reader(at_work)
    for block in found:
        run_python(block, names)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in pages() if any(block.commands for block in blocks(page))],
)
def test_all_of_it_runs_in_order(page: str, at_work: Path) -> None:
    pytest.importorskip("onnxruntime", reason="docs/export.md needs unbraid[export]")
    names = names_of_the_reader(at_work)
    for block in runnable(page, ("", "sh", "console", "bash", "python")):
        if block.language == "python":
            run_python(block, names)
        for command in block.commands:
            if ELSEWHERE.get(" ".join(command), page) != page:
                stand_in(command, at_work)
                continue
            listing = any(words in " ".join(command) for words in AS_THEY_ARE)
            outcome = unbraid(*command, *([] if listing else SHORTER.get(command[0], [])))
            assert outcome.code == 0, f"{block.place}: {' '.join(command)}: {outcome.stderr}"


def test_every_command_is_one_of_ours() -> None:
    calls = [(block, command) for block in all_blocks() for command in block.commands]
    assert len(calls) > 60
    for block, command in calls:
        problem = refused(command)
        assert problem is None, f"{block.place}: unbraid {' '.join(command)}: {problem}"


def test_what_runs_on_one_page_is_shown_there() -> None:
    for command, home in ELSEWHERE.items():
        assert command.split() in [one for block in blocks(home) for one in block.commands]


@pytest.mark.parametrize(
    "command", ["seperate a.wav", "separate --promts speech a.wav", "separate", "models rename a"]
)
def test_a_command_that_is_wrong_is_noticed(command: str) -> None:
    assert refused(command.split()) is not None


def test_what_else_the_shell_is_told_exists() -> None:
    for block in all_blocks():
        if block.language == "bash" and block.not_run:
            continue  # a whole script, which a test of its own runs
        for words in block.shell_lines:
            if words[0] != "unbraid":
                check = OTHER_PROGRAMS.get(words[0])
                assert check is not None, f"{block.place}: nobody checks {words[0]}"
                check(words, block.place)


def check_python(words: list[str], place: str) -> None:
    assert (ROOT / words[1]).is_file(), f"{place}: there is no {words[1]}"
    scripts = "".join(path.read_text() for path in (ROOT / words[1]).parent.glob("*.py"))
    for word in words[2:]:
        if word.startswith("--"):
            assert f'"{word}"' in scripts, f"{place}: {words[1]} has no {word}"


def check_pip(words: list[str], place: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    for named in re.findall(r"(?:unbraid|\.)\[([^]]+)\]", " ".join(words)):
        assert set(named.split(",")) <= set(extras), f"{place}: {named} is no extra"


def check_make(words: list[str], place: str) -> None:
    for target in words[1:]:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), place


def check_docker(words: list[str], place: str) -> None:
    if "build" in words:
        assert (ROOT / words[words.index("-f") + 1]).is_file(), place
        return
    image = next(number for number, word in enumerate(words) if word.startswith("unbraid"))
    assert refused(words[image + 1 :]) is None, place


def check_inner(words: list[str], place: str) -> None:
    """A program that starts ours: ``sbatch --wrap "unbraid …"``, ``taskset -c 0 python …``."""
    quoted = [word.split() for word in words if word.startswith("unbraid ")]
    for command in quoted:
        assert refused(command[1:]) is None, place
    if "python" in words:
        check_python(words[words.index("python") :], place)
    assert quoted or "python" in words, place


OTHER_PROGRAMS: dict[str, Callable[[list[str], str], None]] = {
    "python": check_python,
    "pip": check_pip,
    "make": check_make,
    "docker": check_docker,
    "sbatch": check_inner,
    "taskset": check_inner,
    "cat": lambda words, place: None,  # the digest, which test_the_digest_is_what_cat_gives checks
}


def test_the_digest_is_what_cat_gives() -> None:
    import hashlib

    from unbraid.checkpoints import list_models

    info = list_models()[0]
    (block,) = [block for block in blocks("docs/models.md") if block.text.startswith("cat ")]
    files = block.shell_lines[0][1:4]
    together = b"".join((info.path / name).read_bytes() for name in files)
    assert hashlib.sha256(together).hexdigest() == info.digest


def test_every_block_of_yaml_is_a_part_of_a_recipe() -> None:
    found = [block for block in all_blocks() if block.language == "yaml" and not block.not_run]
    assert found
    for block in found:
        settings = yaml.safe_load(block.text)
        settings.pop("base", None)
        check_keys(TrainConfig, settings, block.place)


def test_recipes_that_ship_are_named_without_an_ending() -> None:
    cards = (ROOT / "src/unbraid/weights").glob("*/README.md")
    texts = [*map(ROOT.joinpath, pages()), *cards]
    for path in (*texts, *shipped_recipes().values()):
        for name in re.findall(r"unbraid train ([\w-]+)\.yaml", path.read_text(encoding="utf-8")):
            assert name not in shipped_recipes(), f"{path}: drop the ending of {name}.yaml"


def test_python_that_does_not_run_here_can_be_read() -> None:
    for block in all_blocks():
        if block.language == "python":
            compile(block.text, block.place, "exec")


@pytest.mark.parametrize("page", pages())
def test_its_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        made = path.parent.name == "reference"  # pages there lead to pages that the build makes
        if not target.startswith("http") and not made:
            assert (path.parent / target).exists(), target


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"- ([\w/-]+\.md)", (ROOT / "mkdocs.yml").read_text()))
    for page in pages()[1:]:
        assert page.removeprefix("docs/") in listed, f"{page} is missing in mkdocs.yml"


def test_the_flags_it_names_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a narrow help page cuts flags off
    names = ("command-line", "prompts", "teaching", "finetuning", "adapting", "web")
    guides = [f"docs/{name}.md" for name in names]
    text = "".join((ROOT / guide).read_text() for guide in guides)
    # Further on, it shows flags of other programs.
    text += (ROOT / "docs/cluster.md").read_text().partition("## A cluster")[0]
    text = re.sub(r"^python .*$", "", text, flags=re.MULTILINE)  # scripts have flags of their own
    named = set(re.findall(r"--[a-z][a-z0-9]+", text))
    commands = [
        "", "separate", "discover", "train", "demo", "export", "models list", "models import",
        "evaluate", "compare", "data list", "data prepare", "data pack", "models download",
        "models verify", "models remove", "separate-many", "teach", "finetune", "adapt",
        "models convert", "models inspect",
        "prompts list", "prompts show", "prompts install", "prompts remove", "prompts map",
        "serve", "web",
    ]  # fmt: skip
    helps = [unbraid(*command.split(), "--help").stdout for command in commands]
    assert named <= set(re.findall(r"--[a-z][a-z0-9]+", " ".join(helps)))
