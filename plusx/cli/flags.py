"""The flags that several verbs share, declared once."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

Json = Annotated[bool, Parameter(name="--json", negative="", help="One JSON document on stdout, nothing else.")]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], Parameter(name="--device", help="Where to compute.")]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative="", help="Print results only.")]
Verbose = Annotated[bool, Parameter(name=["--verbose", "-v"], negative="", help="Print more, stack traces included.")]
