"""Tutelage: knowledge distillation for research, on Hydra, Lightning and TensorBoard."""

import os

# Before torch is imported: on a shared machine spinning OpenMP threads lose a factor of 2 to 17.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
