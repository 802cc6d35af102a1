"""`plusx download NAME DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from plusx.cli.flags import Quiet


def download(
    name: Annotated[str, Parameter(name="NAME")],
    folder: Annotated[Path, Parameter(name="DIR")],
    /,
    *,
    quiet: Quiet = False,
) -> int:
    """Fetch a public data set; the only verb that uses the network. Broken downloads continue where they stopped.

    Parameters
    ----------
    name
        The data set: dogs-vs-cats.
    folder
        Where to put it.
    """
    from plusx.cli.terminal import console, counting, result, suggest
    from plusx.verbs.download import download

    err = console(quiet)
    with counting(err, "bytes") as progress:
        data = download(name, folder, on_progress=progress)
    result(f"{name} is in {data}")
    suggest(err, "plusx", "check", data)
    return 0
