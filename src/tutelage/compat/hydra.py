"""Private APIs of Hydra and OmegaConf."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what only hides secrets needs none of Hydra
    from hydra.core.utils import JobReturn
    from omegaconf import Node


def job_result(job_return: "JobReturn") -> Any:
    """Returns what a job has returned, or the exception that ended it.

    The public ``return_value`` raises that exception, and prints before.
    """
    return job_return._return_value


def full_key(node: "Node") -> str:
    """Returns the key of a config's node from its root, such as ``data.roots[0]``; no public function gives it."""
    return str(node._get_full_key(None))
