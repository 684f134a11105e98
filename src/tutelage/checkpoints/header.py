"""Reads what a file of weights says about itself, without its tensors and without PyTorch."""

from pathlib import Path

from safetensors import SafetensorError, safe_open


def recorded_digest(path: Path) -> str | None:
    """Returns the SHA-256 of the weights in the header of one of our files; None of any other file, or none."""
    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("digest")
    except (OSError, SafetensorError):
        return None


def is_of_other_weights(digest: str | None, path: Path) -> bool:
    """Checks whether figures of weights with ``digest`` are no longer those of the file: it was written again since.

    Args:
        digest: of the weights that were measured; None if it is not known.
        path: of the file that they were read from; one that is not there, or is not ours, is not compared.
    """
    return digest is not None and recorded_digest(path) not in (None, digest)
