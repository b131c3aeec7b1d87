"""How fast, how large and how true: the engine measured against m-phate, openTSNE and UMAP.

`python -m benchmarks` runs every row of the goals table, `python -m benchmarks --quick` those that take minutes. Each
measurement is a process of its own, so that its peak memory and processor seconds are its own.
"""
