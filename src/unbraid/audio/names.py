"""Output paths: built from a template, safe on every platform.

Nothing that stands in a file name, a prompt or a model's name can lead out of the
output folder or hit a name that some system reserves.
"""

from __future__ import annotations

import re
import string
from pathlib import Path, PurePath

from unbraid.errors import ConfigError

DEFAULT_TEMPLATE = "{model}/{track}/{stem}.{ext}"

_FIELDS = ("model", "track", "stem", "ext")
_REQUIRED_FIELDS = ("stem", "ext")
_UNSAFE_CHARACTERS = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]')
_RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
# File systems allow 255 bytes; the rest is for whatever else the template puts beside it.
_LONGEST_NAME_BYTES = 150


def check_template(template: str) -> None:
    """Refuse a template that cannot name stems safely.

    Raises:
        ConfigError: For unknown fields, format specifications, a missing ``{stem}`` or
            ``{ext}``, an absolute path, or ``..``.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"file name template {template!r}: {error}.") from error
    fields = []
    for _, field, specification, conversion in parts:
        if field is None:
            continue
        if field not in _FIELDS or specification or conversion:
            written = field + (f"!{conversion}" if conversion else "")
            written += f":{specification}" if specification else ""
            known = ", ".join(f"{{{name}}}" for name in _FIELDS)
            raise ConfigError(
                f"file name template {template!r}: unknown field {{{written}}}; known: {known}."
            )
        fields.append(field)
    for name in _REQUIRED_FIELDS:
        if name not in fields:
            raise ConfigError(
                f"file name template {template!r}: needs {{{name}}}, "
                f"for example {DEFAULT_TEMPLATE!r}."
            )
    pieces = re.split(r"[/\\]", template)
    if ".." in pieces or pieces[0] == "" or re.match(r"[A-Za-z]:", template):
        raise ConfigError(
            f"file name template {template!r}: must stay inside the output folder; "
            "choose the folder with --out."
        )


def stem_path(
    template: str, out_dir: Path, *, model: str, track: str | PurePath, stem: str, ext: str
) -> Path:
    """Build the path of one stem.

    Args:
        template: For example ``{model}/{track}/{stem}.{ext}``.
        out_dir: The folder that every stem stays in.
        model: The model's name.
        track: The name of the recording, usually without its extension. A path keeps its
            folders; in text, what separates folders is a character like any other.
        stem: The stem's name, already numbered where prompts repeat.
        ext: The extension, without a dot.

    Raises:
        ConfigError: As ``check_template``.
    """
    check_template(template)
    folders = track.parts if isinstance(track, PurePath) else (track,)
    filled = template.format(
        model=safe_name(model),
        track="/".join(safe_name(folder) for folder in folders),
        stem=safe_name(stem),
        ext=safe_name(ext),
    )
    # The fixed text of the template can hold unsafe names as well.
    pieces = [_portable(piece) for piece in re.split(r"[/\\]", filled) if piece not in ("", ".")]
    return out_dir.joinpath(*pieces)


def safe_name(name: str) -> str:
    """Turn any text into one path component that every platform accepts.

    Long names are cut at 150 bytes, so that the rest of a template fits beside them.

    >>> safe_name("../AC/DC: live?")
    '.._AC_DC_ live_'
    >>> safe_name("con")
    'con_'
    """
    safe = _UNSAFE_CHARACTERS.sub("_", name)
    return _portable(safe.encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore"))


def _portable(name: str) -> str:
    """Repair what some system refuses although its characters are allowed."""
    safe = _UNSAFE_CHARACTERS.sub("_", name).rstrip(" .")
    if not safe:
        return "_"
    if _RESERVED_ON_WINDOWS.fullmatch(safe):
        base, dot, rest = safe.partition(".")
        return f"{base}_{dot}{rest}"
    return safe
