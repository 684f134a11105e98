"""The wheel in a fresh environment, once for all tests of what a stranger does with it."""

import os
import subprocess

import pytest
from fresh import environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """``wheel(*command, cwd=folder)`` runs a program of the fresh environment, with nothing of this one; its output."""
    place = environment(tmp_path_factory.mktemp("wheel"))
    env = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    env |= {"PATH": f"{place / 'bin'}:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}

    def run(*command, cwd, **more):
        env_here = env | {"HOME": str(cwd)} | more
        done = subprocess.run(command, cwd=cwd, env=env_here, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run.place = place
    return run
