"""A model as an ONNX graph that needs neither unbraid nor PyTorch to run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from unbraid._version import __version__
from unbraid.checkpoints.bundle import Bundle
from unbraid.errors import MissingExtra
from unbraid.models.exportable import ExportableModel
from unbraid.types import stem_names

try:
    import onnx
    import onnxruntime
    import onnxscript.optimizer
    from onnx_ir.passes import Sequential
    from onnx_ir.passes import common as passes
except ModuleNotFoundError as error:
    raise MissingExtra(
        f"exporting needs the package {error.name}; install it with: pip install 'unbraid[export]'"
    ) from error

#: Names of the one input, ``[batch, time]``, and the one output, ``[batch, source, time]``.
INPUT = "mixture"
OUTPUT = "sources"

#: Every runtime of the last years knows it; newer sets have nothing that we need.
_OPERATOR_SET = 20

# What the graph is traced with. Sizes that are left open must not be 0 or 1, and should not be
# equal to each other or to anything in the network.
_TRACED_BATCH = 2
_TRACED_HOPS = 23


def as_onnx(bundle: Bundle, prompts: Sequence[str], num_samples: int | None = None) -> bytes:
    """Trace a model with chosen prompts into an ONNX file.

    The graph holds level, STFT, network and inverse STFT, all in real numbers of 32 bits. What
    its user has to know stands in its metadata: ``name``, ``prompts``, ``stems``,
    ``sample_rate``, ``segment_s``, ``overlap_s``, ``licence``, ``source``, ``digest`` and
    ``unbraid``, the version that made it. Lists have commas between their items.

    Args:
        bundle: The model.
        prompts: One name per wanted source, in the order of the outputs; names may repeat.
        num_samples: Length of the input, with a batch of one; None leaves both open, from two
            samples on.

    Returns:
        The content of the file.

    Raises:
        PromptError: For an empty list, or a name that the model does not know.
    """
    names = bundle.model.prompts.resolve(prompts)
    exportable = ExportableModel(bundle.model, names).eval()
    open_sizes = None
    shape = (1, num_samples or 0)
    if num_samples is None:
        shape = (_TRACED_BATCH, _TRACED_HOPS * bundle.config.stft.hop_length - 1)
        open_sizes = ({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    with torch.no_grad(), _quiet_exporter():
        traced = torch.export.export(
            exportable, (torch.zeros(shape),), dynamic_shapes=open_sizes, strict=False
        )
        program = torch.onnx.export(
            traced,
            (),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=_OPERATOR_SET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    _tidy(program.model)
    graph = program.model_proto
    _drop_traces(graph)
    if num_samples is None:
        for value in (*graph.graph.input, *graph.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
            value.type.tensor_type.shape.dim[-1].dim_param = "time"
    onnx.helper.set_model_props(
        graph,
        {
            "name": bundle.card.name,
            "prompts": ",".join(names),
            "stems": ",".join(stem_names(names)),
            "sample_rate": str(bundle.config.sample_rate),
            "segment_s": f"{bundle.config.segment_s:g}",
            "overlap_s": f"{bundle.config.overlap_s:g}",
            "licence": bundle.card.licence,
            "source": bundle.card.source,
            "digest": bundle.digest,
            "unbraid": __version__,
        },
    )
    onnx.checker.check_model(graph)
    return graph.SerializeToString()


def onnx_runner(
    content: bytes, num_threads: int
) -> Callable[[Float[Tensor, "batch time"]], Float[Tensor, "batch source time"]]:
    """Make the separation of an ONNX file callable, on the processor.

    Args:
        content: What ``as_onnx`` gave.
        num_threads: How many threads onnxruntime may use.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(mixture: Tensor) -> Tensor:
        (sources,) = session.run([OUTPUT], {INPUT: mixture.numpy()})
        return torch.from_numpy(sources)

    return run


def _tidy(model: Any) -> None:
    """Compute beforehand what is known, and keep everything once.

    As the exporter's own optimisation, but for its rules of rewriting: they take the 1e-8 that
    stands between silence and a division by zero for 0.
    """
    onnxscript.optimizer.inline(model)
    onnxscript.optimizer.fold_constants(model)
    onnxscript.optimizer.remove_unused_nodes(model)
    Sequential(
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.NameFixPass(),
    )(model)


def _drop_traces(model: Any) -> None:
    """Remove what the exporter notes for its makers: among it paths on this machine."""
    graph = model.graph
    del graph.value_info[:]
    for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del noted.metadata_props[:]


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep to itself what PyTorch's exporter says about its own code."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # it misses torchvision
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*isinstance.treespec, LeafSpec.*", FutureWarning)
            yield
    finally:
        registration.setLevel(level)
