"""Write docs/cli.md from the help of every verb, or check that it is up to date.

python tools/cli_reference.py docs/cli.md
python tools/cli_reference.py --check docs/cli.md
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import sys
from pathlib import Path

from plusx.cli.run import VERBS, build
from plusx.config import Config

FIELD = re.compile(r"^    (?P<name>\w+): (?P<type>.+?) = .*?(?:  # (?P<comment>.*))?$", re.MULTILINE)

ENVIRONMENT = """## Environment

`PLUSX_KEY=value` sets a setting; a name of that kind which is no setting is refused. `PLUSX_CACHE_GB` bounds the
cache of decoded photos (20), which lies in `$XDG_CACHE_HOME/plusx`, else `~/.cache/plusx`. `PLUSX_TRACE=1` prints
the stack trace of a fault of plusx itself.
`NO_COLOR` is respected. `OMP_NUM_THREADS` sets the threads of a training."""

INTRODUCTION = """# Command line

Generated from `plusx --help` by `make docs`; `make check` fails when it is stale.

Exit codes: 0 ok · 1 the run failed, or `check` found problems · 2 usage or settings · 3 data ·
4 model or checkpoint · 5 disk · 75 interrupted and resumable ·
130 stopped with nothing to resume, or at the second Ctrl-C.
"""


def help_of(*tokens: str) -> str:
    """What `plusx TOKENS --help` prints, 100 columns wide."""
    from rich.console import Console

    text = io.StringIO()
    screen = Console(file=text, width=100, color_system=None, force_terminal=False)
    with contextlib.suppress(SystemExit):
        build()([*tokens, "--help"], console=screen)
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())


def settings() -> str:
    """A table of every field of Config and its default, for `--set`."""
    told = {m["name"]: m for m in FIELD.finditer(inspect.getsource(Config))}
    rows = [
        f"| `{name}` | {_cell(told[name]['type'])} | `{field.default!r}` | {told[name]['comment'] or ''} |"
        for name, field in Config.model_fields.items()
    ]
    return "\n".join(["| setting | kind | default before any recipe | meaning |", "|---|---|---|---|", *rows])


def _cell(kind: str) -> str:
    """A type as a table shows it: the choices of a Literal, else the code."""
    choices = re.fullmatch(r"Literal\[(.*)\]", kind)
    return (choices[1].replace('"', "`") if choices else f"`{kind}`").replace("|", "\\|")


def page() -> str:
    """The whole reference."""
    parts = [INTRODUCTION, f"```\n{help_of()}\n```"]
    parts += [f"## plusx {verb}\n\n```\n{help_of(verb)}\n```" for verb in VERBS]
    parts.append(f"## Settings\n\nFor `--set key=value`, `--config FILE` and `PLUSX_KEY`.\n\n{settings()}")
    parts.append(ENVIRONMENT)
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
    """Write or check; 1 where a check finds the file stale."""
    path = Path(arguments[-1])
    if arguments[0] != "--check":
        path.write_text(page())
        return 0
    if path.exists() and path.read_text() == page():
        print(f"{path} is up to date")
        return 0
    print(f"{path} is stale; run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
