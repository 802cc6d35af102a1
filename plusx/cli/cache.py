"""`plusx cache`."""

from __future__ import annotations

from plusx.cli.flags import Json, Switch


def cache(*, clear: Switch = False, json: Json = False) -> int:
    """Show the cache of decoded photos and unpacked archives, or clear it.

    Parameters
    ----------
    clear
        Remove every entry that no running command is using.
    """
    from plusx.cli.terminal import document, result
    from plusx.verbs.cache import cache

    report = cache(clear=clear)
    if json:
        document(report.to_json())
    else:
        for line in report.lines():
            result(line)
    return 0
