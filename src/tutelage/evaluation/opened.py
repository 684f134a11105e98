"""What a file of ours carries, built again: its network and its data."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from tutelage import build
from tutelage.data.base import ImageData
from tutelage.trust import refuse_strangers
from tutelage.weights import about, load_into


def network_of(path: str | Path, trusted: Iterable[str] = ()) -> tuple[nn.Module, dict[str, Any]]:
    """The network with its weights, and what the file's header says.

    Raises:
        TutelageError: none of our files, damaged, or it wants to run code that is not ``trusted``.
    """
    header = about(path)
    refuse_strangers(header["network"], path, trusted)
    net = build.network(OmegaConf.create(header["network"]), 0).net
    load_into(net, path)
    return net, header


def data_of(
    header: Mapping[str, Any], changes: DictConfig | dict[str, Any], path: str | Path, trusted: Iterable[str] = ()
) -> ImageData:
    """The data that the network was trained for, ``changes`` laid over their config.

    Raises:
        TutelageError: they are not there, or want to run code that is not ``trusted``.
    """
    refuse_strangers(header["data"], path, trusted)
    return build.data(OmegaConf.merge({"data": header["data"]}, {"data": changes}))  # type: ignore[arg-type]
