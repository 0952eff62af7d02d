"""Which devices a run takes, and what is refused before any of them starts."""

from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch.strategies import DDPStrategy

from conftest import tiny_config
from tiny_unconditional import tiny_unconditional_config
from unbraid.errors import ConfigError
from unbraid.training import devices
from unbraid.training.config import DataConfig, TrainConfig
from unbraid.training.methods.mixit import MixitConfig
from unbraid.training.methods.remixing import RemixingConfig

TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
SLURM = {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train"}


@pytest.fixture(autouse=True)
def started_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without a GPU, too."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for name in (*TORCHRUN, *SLURM, "RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


def config_of(**changes: Any) -> TrainConfig:
    settings = {"model": tiny_config(), "batch_size": 8, "accelerator": "cpu", **changes}
    return TrainConfig(
        "small", data=DataConfig("manifest.csv", {"speech": ("speech/*",)}), **settings
    )


def set_all(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_one_device_needs_no_strategy() -> None:
    assert devices.check_devices(config_of()) == 1
    assert devices.strategy_of(config_of()) == "auto"
    assert devices.is_first_rank()


@pytest.mark.parametrize("changes", [{"devices": 2}, {"num_nodes": 2}, {"strategy": "ddp"}])
def test_several_devices_share_without_a_search(changes: dict[str, Any]) -> None:
    strategy = devices.strategy_of(config_of(**changes))
    assert isinstance(strategy, DDPStrategy)
    assert strategy._ddp_kwargs["find_unused_parameters"] is False


@pytest.mark.parametrize(("started_by", "name"), [(TORCHRUN, "torchrun"), (SLURM, "SLURM")])
def test_the_processes_that_were_started_must_be_those_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, started_by: dict[str, str], name: str
) -> None:
    set_all(monkeypatch, started_by)
    assert devices.check_devices(config_of(devices=2, num_nodes=2)) == 4
    with pytest.raises(ConfigError, match=f"{name} starts 4 processes, .* which is 1"):
        devices.check_devices(config_of())


def test_auto_takes_what_torchrun_started(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.devices_per_node(config_of(devices="auto")) == 1
    set_all(monkeypatch, TORCHRUN)
    assert devices.check_devices(config_of(devices="auto", num_nodes=2)) == 4


@pytest.mark.parametrize(
    "variables",
    [{**TORCHRUN, "RANK": "2"}, {**SLURM, "SLURM_PROCID": "1"}, {"LOCAL_RANK": "1"}],
)
def test_only_the_first_process_writes(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    set_all(monkeypatch, variables)
    assert not devices.is_first_rank()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 3}, "batch_size .* multiple of 3, not 8; for example 9"),
        ({"strategy": "fsdp"}, "without them take ddp"),
        ({"accelerator": "gpu"}, "accelerator: gpu .* take auto or cpu"),
        ({"accelerator": "mps"}, "accelerator: mps .* take auto or cpu"),
    ],
)
def test_what_cannot_be_shared_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        devices.check_devices(config_of(**changes))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (RemixingConfig(), "2 mixtures or more on each of the 4 devices, not 1; raise batch_size"),
        (MixitConfig(), "must be even for each of the 4 devices, not 1; for example 8 in all"),
    ],
)
def test_a_method_needs_enough_of_a_batch_on_each_device(
    method: MixitConfig | RemixingConfig, message: str
) -> None:
    settings = {"model": tiny_unconditional_config(2), "method": method, "batch_size": 4}
    devices.check_devices(config_of(**settings, devices=1))
    with pytest.raises(ConfigError, match=message):
        devices.check_devices(config_of(**settings, devices=4))


@pytest.mark.parametrize(("devices", "word"), [(0, "not 0"), (-1, "not -1")])
def test_devices_are_counted(devices: int, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        config_of(devices=devices)


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices.check_devices(config_of(accelerator="gpu", devices=2)) == 2
    with pytest.raises(ConfigError, match="devices: 4 asks for more GPUs than the 2"):
        devices.check_devices(config_of(accelerator="gpu", devices=4))


def test_averages_of_a_split_model_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(ConfigError, match="average_decay to null"):
        devices.check_devices(config_of(strategy="fsdp", accelerator="gpu"))
