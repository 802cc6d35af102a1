"""Over HTTP: a model that answers, and a run that is watched."""
