"""A folder for PYTHONPATH: its `sitecustomize` brings the recorder into the subprocesses of a run."""
