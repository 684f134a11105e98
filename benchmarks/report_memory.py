"""Memory and time of `tutelage report`: python benchmarks/report_memory.py --runs 2000 [--no-images].

Makes the folders of so many runs of one sweep, with the config of the default job and answers drawn at random, and
prints the peak and the CPU seconds of the process that reads them all and which large libraries it has imported.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))

import made_runs
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tutelage.config import resolvers
from tutelage.config.paths import conf_dir

# Its own peak: what the system says of a child (ru_maxrss) begins with the memory of the process that starts it.
REPORT = """
import os, re, sys
from tutelage.cli.main import main
main()
print(re.search("VmHWM.*", open("/proc/self/status").read()).group())
print(f"CPU: {sum(os.times()[:2]):.1f} s")
print("imported:", *sorted({"torch", "lightning", "scipy", "sklearn"} & sys.modules.keys()))
"""


def make(root: Path, runs: int) -> None:
    """Ten seeds of so many temperatures; the recipes of teacher and control are as large as the config."""
    resolvers.register()
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        config = OmegaConf.to_container(compose("distill"), resolve=True)
    pattern = made_runs.run(root / "pattern", 0)
    artifacts = json.loads((pattern / "artifacts.json").read_text())
    for number in range(runs):
        seed, temperature = number % 10, 1 + number // 10
        folder = root / "sweep" / f"seed={seed},T={temperature}"
        shutil.copytree(pattern, folder)
        own = {**config, "seed": seed, "loss": {**config["loss"], "temperature": temperature}}
        (folder / "config.yaml").write_text(yaml.safe_dump(own))
        (folder / ".hydra" / "overrides.yaml").write_text(
            yaml.safe_dump([f"seed={seed}", f"loss.temperature={temperature}"])
        )
        metrics = json.loads((folder / "metrics.json").read_text())
        (folder / "metrics.json").write_text(json.dumps({**metrics, "seed": seed}))
        artifacts["control"]["recipe"] = {**config, "seed": seed}
        (folder / "artifacts.json").write_text(json.dumps(artifacts))


def main() -> None:
    """Makes the runs and reports them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--no-images", action="store_true", help="without test images, which need PyTorch")
    chosen = parser.parse_args()
    runs = chosen.runs
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), runs)
        command = [sys.executable, "-c", REPORT, "report", f"{folder}/sweep", "-o", f"{folder}/page"]
        command += ["--no-images"] * chosen.no_images
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
