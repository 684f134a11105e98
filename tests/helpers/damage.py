"""Ways to damage a file, or to take away a file or a folder."""

import ctypes
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def delete(path: Path) -> None:
    path.unlink()


def flip(place: float) -> Callable[[Path], None]:
    """One bit, at a share of the file's length."""

    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        if content:
            content[int(place * (len(content) - 1))] ^= 1
        path.write_bytes(content or b"\x01")

    return damage


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def zeros(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"garbage")


def wrong_types(path: Path) -> None:
    """Valid JSON whose values are of other types; another tensor in a file of tensors; else text."""
    if path.suffix == ".json":
        document = json.loads(path.read_text())
        path.write_text(json.dumps({key: [str(value)] for key, value in document.items()}))
    else:
        _of_tensors(path, lambda state: {name: tensor.flatten() for name, tensor in state.items()})


def fewer_keys(path: Path) -> None:
    if path.suffix == ".json":
        document = json.loads(path.read_text())
        path.write_text(json.dumps(dict(list(document.items())[1:])))
    else:
        _of_tensors(path, lambda state: dict(list(state.items())[1:]))


def another(path: Path) -> None:
    """A file of the same kind from another run: here, with other content of the same size, time and all."""
    said = path.stat()
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1", b"2") if b"1" in content else content[::-1])
    os.utime(path, ns=(said.st_atime_ns, said.st_mtime_ns))


def unreadable(path: Path) -> None:
    """A file or a folder that its owner may neither read nor write, as after a copy by another user."""
    path.chmod(0)


@contextmanager
def bound_by_permissions() -> Iterator[None]:
    """Inside, root has no more rights to files than their owner: without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.

    Another user would not do, for Python itself may lie in root's own folder.

    Raises:
        OSError: the system has no capabilities.
    """
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3; this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable of the capabilities 0 to 31; of those above

    def call(name: str) -> None:
        if not hasattr(libc, name) or getattr(libc, name)(header, sets):
            raise OSError(ctypes.get_errno(), f"no {name}")

    call("capget")
    before = sets[0]
    sets[0] = before & ~0b110
    call("capset")
    try:
        yield
    finally:
        sets[0] = before
        call("capset")


def _of_tensors(path: Path, change: Callable) -> None:
    try:
        save_file(change(load_file(path)), path)
    except SafetensorError:
        path.write_text("no such thing")


KINDS = {
    "truncated": truncate, "emptied": empty, "deleted": delete, "first-bit": flip(0.0), "middle-bit": flip(0.5),
    "last-bit": flip(1.0), "folder": folder, "zeros": zeros, "appended": append, "wrong-types": wrong_types,
    "fewer-keys": fewer_keys, "another": another, "unreadable": unreadable,
}  # fmt: skip


def copy(tree: Path, to: Path) -> Path:
    """A copy whose files may be damaged."""
    return Path(shutil.copytree(tree, to))
