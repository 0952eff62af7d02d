"""What the site shows of the code itself, made when it is built: nothing is written down twice.

- the reference of the command line, from the commands;
- the reference of Python, from the public names;
- the cards of the models that ship with unbraid, from their folders.
"""

from __future__ import annotations

import importlib
import pkgutil
import posixpath
import re
from collections.abc import Mapping
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

import unbraid
from unbraid.checkpoints import ModelInfo, list_models
from unbraid.checkpoints.card import parse_card
from unbraid.cli import app

_PYTHON = "reference/python"
_MODELS = "reference/models"
_COMMANDS = "reference/commands.md"

#: Pages of the Python reference, in the order of the floors: title, and a sentence. Those whose
#: module has no public list of names show the modules inside it.
_PACKAGES: Mapping[str, str] = {
    "unbraid": "What most programs need.",
    "unbraid.errors": "Everything that is raised on purpose.",
    "unbraid.types": "Records that are handed around.",
    "unbraid.audio": "Files in and out.",
    "unbraid.checkpoints": "Models and prompts in files.",
    "unbraid.apps": "Whole tasks on files.",
    "unbraid.separation": "From a stream of samples to streams of sources.",
    "unbraid.prompts": "Names and the rows of one matrix.",
    "unbraid.models": "Networks, and what all of them promise.",
    "unbraid.nn": "Blocks that networks are made of.",
    "unbraid.dsp": "Spectrograms, bands, levels, resampling.",
    "unbraid.objectives": "Losses and measures.",
    "unbraid.mixing": "How mixtures are drawn and rendered.",
    "unbraid.data": "Manifests, pools and corpora.",
    "unbraid.evaluation": "Benchmarks, measures, oracles.",
    "unbraid.training": "Recipes, runs and methods.",
}

#: Links of the guides to files outside the folder of the site.
_CARD = re.compile(
    r"\]\((?:\.\./)*src/unbraid/weights/(?P<name>[\w.-]+)/README\.md(?P<anchor>#[^)]*)?\)"
)
_README = re.compile(r"\]\((?:\.\./)+README\.md(?P<anchor>#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> None:
    """List the pages that are made in the navigation."""
    pages = {
        _PYTHON: [_python_page(name) for name in _PACKAGES],
        _MODELS: [_model_page(info) for info in _shipped()],
    }
    config.nav = _filled(config.nav, pages)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Make the pages."""
    made = {_COMMANDS: command_page()}
    made |= {_model_page(info): model_page(info) for info in _shipped()}
    made |= {_python_page(name): python_page(name, text) for name, text in _PACKAGES.items()}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links to files of the repository lead to the pages made of them."""
    here = posixpath.dirname(page.file.src_uri)

    def to_card(found: re.Match[str]) -> str:
        target = posixpath.relpath(f"{_MODELS}/{found['name']}.md", here)
        return f"]({target}{found['anchor'] or ''})"

    def to_start(found: re.Match[str]) -> str:
        # The table of quality that the README has is on the card, in more detail.
        target = posixpath.relpath(f"{_MODELS}/mini.md", here)
        return f"]({target})"

    return _README.sub(to_start, _CARD.sub(to_card, markdown))


# ------------------------------------------------------------------ commands


def command_page() -> str:
    """Every command with its arguments and flags, as ``--help`` has them, by typer's own tool."""
    root = typer.main.get_command(app)
    context = root.context_class(root, info_name="unbraid")
    made = get_docs_for_click(obj=root, ctx=context, name="unbraid")
    _, _, commands = made.partition("# `unbraid`\n")
    return (
        "# All commands and flags\n\nMade from the program: `unbraid COMMAND --help` says the "
        "same. [What goes in and what comes out](../command-line.md) is another page.\n" + commands
    )


# ------------------------------------------------------------------ models


def model_page(info: ModelInfo) -> str:
    """The card of a model, headed by what its files say."""
    card = parse_card((info.path / "README.md").read_text(encoding="utf-8"), info.name)
    facts = {
        "licence": info.licence,
        "parameters": f"{info.num_parameters:,}",
        "sample rate": f"{info.sample_rate:,} Hz",
        "prompts": ", ".join(f"`{name}`" for name in info.prompts)
        or "none: it is asked by example",
        "weights": info.source,
        "digest": f"`{info.digest}`",
    }
    table = "\n".join(
        ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())]
    )
    title, _, text = card.text.partition("\n")
    return f"{title}\n\n{table}\n\n{text.strip()}\n"


def _shipped() -> list[ModelInfo]:
    return [info for info in list_models() if info.origin == "embedded"]


def _model_page(info: ModelInfo) -> str:
    return f"{_MODELS}/{info.name}.md"


# ------------------------------------------------------------------ Python


def python_page(package: str, about: str) -> str:
    """The public names of a package; for a package without such a list, of its modules.

    What ``unbraid`` itself offers has its place on that page and on no other.
    """
    module = importlib.import_module(package)
    parts = [f"# {package}", about]
    if package == "unbraid":
        parts += [_entry(_home(name), f"unbraid.{name}") for name in _public_names()]
    elif hasattr(module, "__path__") and not hasattr(module, "__all__"):
        parts += [_entry(name, name) for name in _modules_of(module)]
    elif hasattr(module, "__all__"):
        names = [name for name in module.__all__ if name not in _public_names()]
        parts += [_entry(f"{package}.{name}", f"{package}.{name}") for name in names]
    else:
        parts.append(_entry(package, package))
    return "\n\n".join(parts) + "\n"


def _public_names() -> list[str]:
    return sorted(set(unbraid.__all__) - {"__version__"})


def _home(name: str) -> str:
    """Where a public name is defined."""
    thing = getattr(unbraid, name)
    return f"{thing.__module__}.{thing.__qualname__}"


def _entry(identifier: str, heading: str) -> str:
    options = [f"heading: {heading}", f"toc_label: {heading.rpartition('.')[2]}"]
    homes = [home.rpartition(".") for home in map(_home, _public_names())]
    shown = [name for module, _, name in homes if module == identifier]
    if shown:
        filters = ["!^_", *(f"!^{name}$" for name in shown)]
        options.append(f"filters: {filters}")
    return "\n".join([f"::: {identifier}", "    options:", *(f"      {o}" for o in options)])


def _modules_of(package: Any) -> list[str]:
    """The public modules inside a package, packages inside it left out."""
    found = pkgutil.iter_modules(package.__path__)
    return [
        f"{package.__name__}.{module.name}"
        for module in found
        if not module.ispkg and not module.name.startswith("_")
    ]


def _python_page(package: str) -> str:
    return f"{_PYTHON}/{package}.md"


def _filled(nav: Any, pages: Mapping[str, list[str]]) -> Any:
    """The navigation with lists of pages in the place of the names of their folders."""
    if isinstance(nav, list):
        return [_filled(item, pages) for item in nav]
    if isinstance(nav, dict):
        return {title: _filled(item, pages) for title, item in nav.items()}
    return pages.get(nav, nav)
