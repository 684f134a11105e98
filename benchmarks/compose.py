"""Composing a config as tutelage does, against Hydra as it is: what each further job of a sweep pays.

    python benchmarks/compose.py [REPEATS]

Prints CPU milliseconds of each, by alternating measurements in one process, and their ratio.
"""

import sys
import time
from statistics import median

from hydra import compose, initialize_config_dir
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins

from tutelage.compat.hydra import compose_quickly
from tutelage.config import resolvers
from tutelage.config.paths import conf_dir

OVERRIDES = ["data=digits", "loss=dkd", "loss.temperature=4"]


def milliseconds() -> float:
    """CPU time of one composition."""
    begin = time.process_time()
    compose("distill", OVERRIDES)
    return 1e3 * (time.process_time() - begin)


def main() -> None:
    """Measures and prints."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    resolvers.register()
    Plugins.instance()
    kinds = [SourcesRegistry.instance().resolve(scheme) for scheme in ("file", "pkg")]
    places = [
        *((kind, "load_config") for kind in kinds),
        (defaults_list, "_create_interpolation_map"),
        (config_loader_impl, "create_defaults_list"),
        (config_loader_impl.ConfigLoaderImpl, "_compose_config_from_defaults_list"),
    ]
    own = [getattr(*place) for place in places]
    compose_quickly()
    quick = [getattr(*place) for place in places]
    found: dict[str, list[float]] = {"as Hydra does": [], "tutelage": []}
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        for i in range(repeats + 1):
            for name, functions in zip(found, (own, quick), strict=True):
                for place, function in zip(places, functions, strict=True):
                    setattr(*place, function)
                if (one := milliseconds()) and i:  # the first fills the memory
                    found[name].append(one)
    for name, times in found.items():
        print(f"{name:14s} {median(times):6.1f} ms")
    each = [before / after for before, after in zip(*found.values(), strict=True)]
    print(f"ratio {median(each):.2f} (median of {len(each)} pairs, {min(each):.2f} to {max(each):.2f})")


if __name__ == "__main__":
    main()
