"""The prompt bank: names on one side, rows of a matrix on the other.

Names end here. What crosses into a network are the rows: so a batch may hold different
prompts, a model can be exported, and teaching a prompt is training one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from unbraid.config import nearest
from unbraid.errors import PromptError

#: The prompts of TUSS under the names that we use.
STANDARD_PROMPTS = ("speech", "sfx", "sfx-mix", "vocals", "drums", "bass", "other", "music-mix")

#: The prompt of models that give sources without saying what they are.
ANY_SOURCE = "source"

#: Other names for the same thing: those of the released checkpoints and of data sets.
ALIASES = {
    "sfxbg": "sfx-mix",
    "effects": "sfx-mix",
    "musicbg": "music-mix",
    "music": "music-mix",
    "instrumental": "music-mix",
}

#: The stem that holds what the others leave of the mixture.
RESIDUAL = "residual"

#: Sounds of a mixture that nobody asks for.
BACKGROUND = "background"

#: The error of a model that has learned no prompt at all.
NO_NAMES = (
    "the model knows no prompt by name; give it an example of the sound (--query CLIP), if it has "
    "a tagger, or teach it one (`unbraid teach`)."
)


def canonical_name(name: str) -> str:
    """The name we use for a prompt: aliases resolved, blanks around it dropped.

    >>> canonical_name(" musicbg")
    'music-mix'
    """
    stripped = name.strip()
    return ALIASES.get(stripped, stripped)


def check_free_name(name: str, learned: Sequence[str]) -> None:
    """Refuse the name of a new prompt if it means something already.

    Taken are the prompts that the model has learned, other names for prompts, and what unbraid
    itself calls stems and sounds. Upper and lower case make no difference, because stems become
    files, and some disks take such names for one.

    Raises:
        PromptError: If it is taken.
    """
    taken = {each.casefold() for each in (*learned, *ALIASES, RESIDUAL, BACKGROUND)}
    if name.casefold() in taken:
        raise PromptError(
            f"prompt name {name!r}: means something already; choose another one, such as my-{name}."
        )


class PromptBank(nn.Module):
    """One learned vector per prompt, looked up by index.

    Prompts that are added may have several vectors (one per band, say). A row is then as wide
    as the longest prompt, and shorter ones are repeated in it, which changes no output.

    Args:
        names: Canonical names, unique, one per row.
        dim: Length of a prompt vector; 0 for a model with fixed outputs, which has no vectors.
        most: How often each prompt can be asked for, in the order of the names; None for as
            often as one likes.
        query_vectors: How many vectors a prompt may have, see ``SpectralModel``.

    Attributes:
        names: The names, one per row.
        dim: Length of a prompt vector.

    Raises:
        PromptError: If a name stands twice or is empty.
    """

    def __init__(
        self,
        names: Sequence[str],
        dim: int,
        most: Sequence[int] | None = None,
        query_vectors: Sequence[int] = (1,),
    ) -> None:
        super().__init__()
        if len(set(names)) != len(names) or not all(names):
            raise PromptError(f"prompt names must be unique and not empty: {', '.join(names)}.")
        self.names = tuple(names)
        self.dim = dim
        self._query_vectors = tuple(query_vectors)
        self._most = {} if most is None else dict(zip(names, most, strict=True))
        weight = torch.empty(len(names), dim)
        # On the meta device only the shape is wanted; see ``nn.rotary``.
        self.weight = nn.Parameter(weight if weight.is_meta else weight.normal_())

    def indices(self, names: Sequence[str]) -> Int[Tensor, source]:
        """Rows of the named prompts, in the order given; repeats and aliases are allowed.

        Raises:
            PromptError: For an empty list, or a name that the bank does not hold.
        """
        return torch.tensor([self.names.index(name) for name in self.resolve(names)])

    def resolve(self, names: Sequence[str]) -> tuple[str, ...]:
        """Canonical names of the prompts, checked to be in the bank.

        A name of the bank's own wins over an alias: a prompt that was added may be
        called ``music``.

        Raises:
            PromptError: For an empty list, a name that the bank does not hold, or one that
                stands more often than the model has outputs for it.
        """
        if not self.names:
            raise PromptError(NO_NAMES)
        if not names:
            raise PromptError(f"no prompt given; name at least one of: {', '.join(self.names)}.")
        resolved = []
        for name in names:
            known = name.strip() if name.strip() in self.names else canonical_name(name)
            if known not in self.names:
                choices = [*self.names, *ALIASES]
                raise PromptError(f"unknown prompt {name.strip()!r}; {nearest(known, choices)}")
            resolved.append(known)
        for name, most in self._most.items():
            if resolved.count(name) > most:
                raise PromptError(
                    f"prompt {name!r} is asked for {resolved.count(name)} times, but the model has "
                    f"{most} output{'s' if most > 1 else ''} for it."
                )
        return tuple(resolved)

    def with_prompts(self, vectors: Mapping[str, Float[Tensor, "vector dim"]]) -> PromptBank:
        """A new bank with further prompts behind those of this one, which stays as it is.

        The new bank's rows are copies. What was asked for before gives exactly the same sources.

        Args:
            vectors: Name → the prompt's vectors, as many as the network takes for a query. The
                name may be an alias of another prompt, and then wins over it.

        Raises:
            PromptError: If the model has fixed outputs, a name is empty or taken, or vectors are
                not finite or do not fit the network.
        """
        if not self.dim:
            raise PromptError(
                f"this model always gives the same outputs ({', '.join(self.names)}), so no prompt "
                "can be added; choose a model that is asked with prompts."
            )
        for name, prompt in vectors.items():
            self._check_new(name, prompt)
        rows = [self.weight, *(prompt.flatten()[None] for prompt in vectors.values())]
        widest = max(row.shape[1] for row in rows)
        wide = [row.detach().to(self.weight).repeat(1, widest // row.shape[1]) for row in rows]
        with torch.device("meta"):  # fresh numbers are not wanted
            bank = PromptBank((*self.names, *vectors), self.dim, None, self._query_vectors)
        bank.weight = nn.Parameter(torch.cat(wide), requires_grad=self.weight.requires_grad)
        return bank

    def _check_new(self, name: str, prompt: Tensor) -> None:
        if not name.strip() or name != name.strip():
            raise PromptError(f"{name!r} is no name for a prompt; choose one without blanks.")
        if name in self.names:
            raise PromptError(
                f"prompt {name!r}: the model has one of that name already; choose another name."
            )
        allowed = " or ".join(str([number, self.dim]) for number in self._query_vectors)
        if list(prompt.shape) not in [[number, self.dim] for number in self._query_vectors]:
            raise PromptError(
                f"prompt {name!r} has the shape {list(prompt.shape)}, but this model takes "
                f"{allowed}; use the model that it was made for."
            )
        if not bool(torch.isfinite(prompt).all()):
            raise PromptError(
                f"prompt {name!r} holds values that are no finite numbers; make or get it again."
            )

    def forward(self, indices: Int[Tensor, "batch source"]) -> Float[Tensor, "batch source query"]:
        """The vectors at ``indices``."""
        return torch.nn.functional.embedding(indices, self.weight)
