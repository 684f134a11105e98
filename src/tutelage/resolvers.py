"""What our yamls can compute.

``${one_minus:a}``, ``${product:a,b}`` and ``${minimum:a,b}``; ``${share:a}`` is min(1, 2a), for methods published as
CE + w·X: with ``share(1 − alpha)`` and ``w·share(alpha)`` alpha = ½ is the paper, 0 the control, 1 uses no label;
``${prefixed:s,[a,b]}`` is [s.a, s.b], ``${prefixed:s,[a,b],_x}`` is [s.a_x, s.b_x];
``${copies:n,${net},seed}`` are n frozen networks that differ by seed; ``${unique:}`` and
``${folder_name:…}`` name folders; ``${run_folder:}`` is the job's, or null outside of a job;
``${count_classes:root}`` counts the classes of a folder of images.
"""

import hashlib
import re
import secrets
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from tutelage import masking
from tutelage.data.folder_scan import class_folders


def register() -> None:
    """Makes the resolvers known to OmegaConf; may be called again."""
    OmegaConf.register_new_resolver("oc.env", masking.environment, replace=True)
    OmegaConf.register_new_resolver("one_minus", lambda x: 1.0 - float(x), replace=True)
    OmegaConf.register_new_resolver("share", lambda x: min(1.0, 2.0 * float(x)), replace=True)
    OmegaConf.register_new_resolver("minimum", min, replace=True)
    OmegaConf.register_new_resolver("prefixed", _prefixed, replace=True)
    OmegaConf.register_new_resolver("copies", _copies, replace=True)
    OmegaConf.register_new_resolver("product", _product, replace=True)
    OmegaConf.register_new_resolver("count_classes", _count_classes, replace=True)
    OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), replace=True, use_cache=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)


def _prefixed(source: str, taps: ListConfig, ending: str = "") -> ListConfig:
    return OmegaConf.create([f"{source}.{tap}{ending}" for tap in taps])


def _copies(size: int, net: DictConfig, seed: int) -> ListConfig:
    """``size`` frozen networks like ``net``, to be trained with the seeds from ``seed`` on."""
    content = OmegaConf.to_container(net, resolve=True)
    frozen = {"_target_": "tutelage.sources.frozen.Frozen", "net": content, "checkpoint": None}
    return OmegaConf.create([{**frozen, "seed": seed + number} for number in range(size)])


def _count_classes(root: str) -> int:
    """How many classes the image folder ``root`` has."""
    return len(class_folders(Path(root).absolute()))


def _product(*factors: float) -> float:
    result = 1.0
    for factor in factors:
        result *= float(factor)
    return result


def _run_folder() -> str | None:
    if not HydraConfig.initialized() or OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):
        return None  # a config that is only looked at
    return str(HydraConfig.get().runtime.output_dir)


def folder_name(name: str, number: object = "") -> str:
    """A readable name for a job's folder without separators of paths: ``name``, or ``number`` where that is empty.

    A name beyond 120 characters is cut, and one with a secret in it has none; both end in a digest of all of it.
    """
    plain = re.sub(r"[^\w.,=+@-]+", "_", masking.hide(name)) or str(number)
    return (
        plain
        if len(plain) <= 120 and masking.MASK not in masking.hide(name)
        else f"{plain[:113]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    )
