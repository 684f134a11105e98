"""What our yamls can compute: ``${one_minus:0.9}``, ``${product:2,3}``, ``${unique:}``, ``${folder_name:…}``."""

import re
import secrets

from omegaconf import OmegaConf


def register() -> None:
    """Makes the resolvers known to OmegaConf; may be called again."""
    OmegaConf.register_new_resolver("one_minus", lambda x: 1.0 - float(x), replace=True)
    OmegaConf.register_new_resolver("product", _product, replace=True)
    OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), replace=True, use_cache=True)
    OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)


def _product(*factors: float) -> float:
    result = 1.0
    for factor in factors:
        result *= float(factor)
    return result


def folder_name(*parts: object) -> str:
    """A readable name for a job's folder: no separators of paths, at most 120 characters."""
    return re.sub(r"[^\w.,=+@-]+", "_", "-".join(str(part) for part in parts if str(part)))[:120]
