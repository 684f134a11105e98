"""Teachers and other sources of signals. Import neither configs nor Lightning modules."""
