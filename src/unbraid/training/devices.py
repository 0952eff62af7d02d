"""Which devices a run takes, and how they share its work.

Every process draws the whole batch of a step and renders its own share of it; gradients are
averaged over the processes. So the batch of a step, and what is learned from it, is the same for
any number of devices.
"""

from __future__ import annotations

import os

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, Strategy

from unbraid.errors import ConfigError
from unbraid.training.config import TrainConfig


def devices_per_node(config: TrainConfig) -> int:
    """How many devices the run takes on each machine."""
    if config.devices != "auto":
        return config.devices
    if TorchElasticEnvironment.detect():
        return int(os.environ["LOCAL_WORLD_SIZE"])
    is_on_gpu = config.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    return torch.cuda.device_count() if is_on_gpu else 1


def check_devices(config: TrainConfig) -> int:
    """Check that the devices fit the run and the program that started it.

    Returns:
        How many processes share every batch.

    Raises:
        ConfigError: If there are no such devices, a batch cannot be shared equally, the method
            cannot learn from a share, the program that started the processes started another
            number of them, or the strategy does not suit the run.
    """
    _check_accelerator(config)
    ranks = _num_ranks(config)
    _check_launcher(config, ranks)
    sizes = {"batch_size": config.batch_size}
    if config.tagging is not None:
        sizes["tagging.batch_size"] = config.tagging.batch_size
    for name, size in sizes.items():
        if size % ranks:
            raise ConfigError(
                f"{name} is the batch of all {ranks} devices together and must be a multiple of "
                f"{ranks}, not {size}; for example {ranks * max(1, round(size / ranks))}."
            )
    config.check_share(ranks)
    if config.strategy == "fsdp":
        _check_fsdp(config)
    return ranks


def _check_accelerator(config: TrainConfig) -> None:
    present = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(config.accelerator, True):
        others = [name for name, is_there in present.items() if is_there]
        raise ConfigError(
            f"accelerator: {config.accelerator} asks for what this machine does not have; take "
            f"{' or '.join(['auto', 'cpu', *others])}."
        )
    is_on_gpu = config.accelerator in ("auto", "gpu") and present["gpu"]
    if is_on_gpu and devices_per_node(config) > torch.cuda.device_count():
        raise ConfigError(
            f"devices: {config.devices} asks for more GPUs than the "
            f"{torch.cuda.device_count()} of this machine."
        )


def _check_launcher(config: TrainConfig, ranks: int) -> None:
    if TorchElasticEnvironment.detect():
        program, started = "torchrun", int(os.environ["WORLD_SIZE"])
    elif SLURMEnvironment.detect():
        program, started = "SLURM", int(os.environ["SLURM_NTASKS"])
    else:
        return
    if started != ranks:
        raise ConfigError(
            f"{program} starts {started} processes, but the config asks for devices: "
            f"{config.devices} on num_nodes: {config.num_nodes}, which is {ranks}; make the two "
            "equal, one process for each device."
        )


def _check_fsdp(config: TrainConfig) -> None:
    if config.accelerator not in ("auto", "gpu") or not torch.cuda.is_available():
        raise ConfigError("strategy fsdp splits a model among GPUs; without them take ddp.")
    if config.optimiser.average_decay is not None:
        raise ConfigError(
            "strategy fsdp cannot average weights that lie in pieces on several GPUs: set "
            "optimiser.average_decay to null, or take ddp."
        )


def strategy_of(config: TrainConfig) -> Strategy | str:
    """How the devices share the work, in Lightning's words."""
    if config.strategy == "fsdp":
        # One file that any number of devices can go on from.
        return FSDPStrategy(state_dict_type="full")
    if config.strategy == "ddp" or _num_ranks(config) > 1:
        # Every parameter takes part in every step, so nobody has to search for those that do not.
        return DDPStrategy(find_unused_parameters=False)
    return "auto"


def needs_common_norms(config: TrainConfig) -> bool:
    """Whether batch norms are to see the mixtures of all devices; PyTorch has that for GPUs only.

    On a CPU each process norms its own share of a batch.
    """
    is_on_gpu = config.accelerator in ("auto", "gpu") and torch.cuda.is_available()
    return is_on_gpu and _num_ranks(config) > 1


def environment_plugins() -> list[ClusterEnvironment]:
    """What Lightning is to know about the cluster.

    Under SLURM it would save a checkpoint of its own and put the job back into the queue. Ours
    saves where the run always does, and whether a job starts again is said to SLURM.
    """
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def is_first_rank() -> bool:
    """Whether this process is the one of the run that writes files."""
    if TorchElasticEnvironment.detect():
        names = ["RANK"]
    elif SLURMEnvironment.detect():
        names = ["SLURM_PROCID"]
    else:
        names = ["NODE_RANK", "LOCAL_RANK"]  # what Lightning gives the processes that it starts
    return all(os.environ.get(name, "0") == "0" for name in names)


def _num_ranks(config: TrainConfig) -> int:
    return devices_per_node(config) * config.num_nodes
