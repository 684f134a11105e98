"""Every private API of Lightning, Hydra and torch that Tutelage uses: one small function or base class each.

Each says what public way is missing. ``tests/unit/compat`` fails by name when a new release changes one of them, and
pyproject.toml bounds the releases. Nothing here imports more than the library that its file is named after.
"""
