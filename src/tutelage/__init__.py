"""Tutelage: knowledge distillation for research, on Hydra, Lightning and TensorBoard."""

import os

# Before torch is imported: on a shared machine spinning OpenMP threads lose a factor of 2 to 17. GNU's, which torch
# brings along, spin for some 20 µs, which is what a second thread needs to pay at small students' products.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
