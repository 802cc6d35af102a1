"""`plusx shard DATA OUT`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from plusx.cli.flags import Decisions, Json, Quiet, Switch


def shard(
    data: str,
    out: str,
    /,
    *,
    size: Annotated[str, Parameter(name="--size")] = "100MB",
    skip_bad: Switch = False,
    decisions: Decisions = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Write photos as tar shards with an index: WebDataset's convention, the bytes of the photos as they are.

    `plusx train OUT` then gives what `plusx train DATA` gives, and begins at once, however many photos there are.

    Parameters
    ----------
    data
        Photos: a folder with one folder per class (or train/, val/, test/ of them), a tar archive, a glob, or a CSV.
    out
        The folder for the shards, index.safetensors and SHA256SUMS; new or empty.
    size
        The most bytes of a shard, such as 100MB or 1GB.
    skip_bad
        Leave out photos that cannot be read, instead of refusing.
    decisions
        A table of photos to leave out or to relabel, as `plusx check` writes and people edit it; may be repeated.
    """
    from plusx.cli.terminal import console, document, result, stages, suggest
    from plusx.verbs.shard import shard as write

    err = console(quiet or json)
    with stages(err) as progress:
        report = write(data, out, size=size, skip_bad=skip_bad, decided=decisions or (), on_progress=progress)
    if json:
        document(report.to_json())
    else:
        for line in report.lines():
            result(line)
    suggest(err, "plusx", "train", out)
    return 0
