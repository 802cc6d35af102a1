"""The Python API, one file per verb: here the rooms below are joined."""
