"""`plusx download NAME DIR`."""

from __future__ import annotations

import shlex
from pathlib import Path

from plusx.cli.flags import Quiet


def download(name: str, folder: Path, *, quiet: Quiet = False) -> int:
    """Fetch a public data set; the only verb that uses the network. Broken downloads continue where they stopped.

    Parameters
    ----------
    name
        The data set: dogs-vs-cats.
    folder
        Where to put it.
    """
    from plusx.cli.terminal import console, counting, result
    from plusx.verbs.download import download

    with counting(console(quiet), "bytes") as progress:
        data = download(name, folder, on_progress=progress)
    result(f"{name} is in {data}. Next: plusx check {shlex.quote(str(data))}")
    return 0
