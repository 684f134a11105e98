"""Reads and writes files of network weights: our self-describing format, and plain state dicts of third parties.

Our format is safetensors: it cannot run code, and its header has the network's origin (model and data configs, seed,
stage, epoch), a SHA-256 over the tensors, and one over the header. It is written atomically, and equal networks with
equal headers have equal bytes.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tutelage.checkpoints import matching, state_dicts
from tutelage.errors import TutelageError
from tutelage.runtime import distributed
from tutelage.runtime.files import recipe_digest, write_atomically
from tutelage.runtime.masking import hidden


def is_shard(tensor: Tensor | None) -> bool:
    """Checks whether ``tensor`` is a ``DTensor``, without importing its class, which takes a second."""
    return hasattr(tensor, "full_tensor")


def gather_full(tensor: Tensor) -> Tensor:
    """Returns ``tensor``, gathered from all ranks if it is sharded; then every rank must call this."""
    return tensor.full_tensor() if is_shard(tensor) else tensor  # type: ignore[attr-defined]


def shard_like(tensor: Tensor, expected: Tensor | None) -> Tensor:
    """Returns ``tensor``, which every rank has in full, or this rank's shard of it if ``expected`` is sharded."""
    if not is_shard(expected):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # takes a second to import

    mesh, placements = expected.device_mesh, expected.placements  # type: ignore[union-attr]
    return distribute_tensor(tensor.to(mesh.device_type), mesh, placements, src_data_rank=None)


def digest(state: nn.Module | Mapping[str, Tensor]) -> str:
    """Returns SHA-256 (64 hex digits) over names, dtypes, shapes and bytes of a module's state."""
    tensors = state.state_dict() if isinstance(state, nn.Module) else state
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = gather_full(tensors[name].detach()).cpu().contiguous()
        sha.update(f"{name}:{tensor.dtype}:{list(tensor.shape)};".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def save_network(net: nn.Module, path: Path, about: Mapping[str, Any], **further: str) -> None:
    """Writes ``net`` atomically, with ``about`` (plain JSON values), the digest and ``further`` in the file's header.

    Rank 0 writes. For a sharded network every rank must call this, and returns once the file exists.
    """
    tensors, state = net.state_dict(), {}
    places: set[int] = set()
    shards = any(is_shard(tensor) for tensor in tensors.values())
    if not (distributed.is_main() or shards):
        return
    for name, tensor in tensors.items():
        full = gather_full(tensor.detach())
        if distributed.is_main():
            state[name] = full.cpu().contiguous()
            if (place := state[name].data_ptr()) in places:  # layers share it, and the format can't
                state[name] = state[name].clone()
            places.add(place)
    if distributed.is_main():
        header = {"about": json.dumps(hidden(dict(about))), "digest": digest(state)}
        write_atomically(path, serialise(state, {**header, **further, "header_digest": recipe_digest(header)}))
    if shards:
        distributed.barrier()


def serialise(tensors: dict[str, Tensor], header: dict[str, str] | None = None) -> bytes:
    """Returns a safetensors file with sorted keys, as the library's own order differs between processes."""
    content = save(tensors, metadata=header)
    length = int.from_bytes(content[:8], "little")
    fields = json.dumps(json.loads(content[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    fields += b" " * (-len(fields) % 8)  # tensors start at a multiple of 8
    return len(fields).to_bytes(8, "little") + fields + content[8 + length :]


def about(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the network's description in the header of one of our files.

    Raises:
        TutelageError: no such file, not one of ours, or its header has been changed.
    """
    header = _open(Path(path))[1]
    if "about" not in header:
        raise TutelageError(f"{path}: not written by Tutelage (its header does not describe a model)")
    _check_header(header, path)
    return json.loads(header["about"])


def _check_header(header: Mapping[str, str], path: object) -> None:
    """Checks the digest of the header of one of our own files."""
    expected = recipe_digest({key: header.get(key) for key in ("about", "digest")})
    if (found := header.get("header_digest")) != expected:
        raise TutelageError(
            f"{path}: its header has digest {expected}, recorded was {found}: it is damaged or was changed"
        )


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise TutelageError(
            f"checkpoint: {path.absolute()} is a folder; expected a file of weights, such as …/last.safetensors "
            "(predict takes the folder of an export, too)"
        )
    if not path.is_file():
        raise TutelageError(f"checkpoint: no file {path.absolute()}")


def _open(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    _check_is_file(path)
    try:
        path.open("rb").close()  # safetensors would report an unreadable file as missing
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except OSError as error:
        raise TutelageError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise TutelageError(f"{path}: truncated, damaged or not a safetensors file ({error})") from error


def read_states(path: str | os.PathLike[str]) -> dict[str, dict[str, Tensor]]:
    """Reads the state dicts, by key, of a safetensors file (ours or not) or a PyTorch file.

    Raises:
        TutelageError: the file is missing, damaged, changed, not a state dict, or would run code.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        state, header = _open(path)
        if "about" in header:
            _check_header(header, path)
        if "digest" in header and header["digest"] != (found := digest(state)):
            raise TutelageError(f"{path}: its tensors have digest {found}, its header says {header['digest']}")
        return {"": state}
    _check_is_file(path)
    return state_dicts.load_states(path)


def read_state(path: str | os.PathLike[str], key: str | None = None, option: str = "key") -> dict[str, Tensor]:
    """Returns the only state dict of a file, or the one under ``key``; messages call the key ``option``.

    Raises:
        TutelageError: as :func:`read_states`; nothing under this key, or several state dicts and no key.
    """
    return state_dicts.one_state(read_states(path), Path(path), key, option)


def load_into(
    net: nn.Module,
    path: str | os.PathLike[str],
    key: str | None = None,
    prefix: str | None = None,
    rename: Mapping[str, str] | None = None,
    strict: bool = True,
) -> str:
    """Loads weights into ``net`` from the part of a file that matches it.

    See :func:`tutelage.checkpoints.matching.fit`.

    Args:
        net: the network.
        path: the file.
        key: key of the state dict in it, if several match.
        prefix: prefix of all names, such as ``teacher.``, if several match.
        rename: pattern → replacement, for names of the file that are not the network's
            (:func:`tutelage.checkpoints.matching.renamed`).
        strict: whether all names and shapes must match; else the network keeps what it has of all others.

    Returns:
        The part of the file that was loaded and what did not match, for a log; empty for all of it.

    Raises:
        TutelageError: names are missing, unexpected or of another shape, or several different weights match.
    """
    expected = net.state_dict()
    found = matching.fit(read_states(path), expected, Path(path), type(net).__name__, key, prefix, rename, strict)
    whole_state = {**expected, **found.usable}
    net.load_state_dict({name: shard_like(tensor, expected[name]) for name, tensor in whole_state.items()})
    return found.description
