"""Load tests of a server of a classifier, one concern a module: what `benchmarks/serve.py` is made of."""
