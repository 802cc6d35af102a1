"""`plusx explain MODEL IMAGE`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from plusx.cli.flags import Device, Json, Quiet, Whole

if TYPE_CHECKING:
    from rich.console import Console

    from plusx.verbs.explain import Explanation

Method = Literal["auto", "cam", "grad-cam", "occlusion"]


def explain(
    model: Annotated[Path, Parameter(name="MODEL")],
    image: Annotated[Path, Parameter(name="IMAGE")],
    /,
    *,
    out: Path | None = None,
    class_: Annotated[str | None, Parameter(name="--class")] = None,
    method: Method = "auto",
    sanity: Whole | None = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Show where in a photo the evidence for an answer lies, and test whether that map can be believed.

    Writes a PNG: the photo, the map over it and, of a run, the nearest training photos.

    Parameters
    ----------
    model
        A run folder or a model file; only a run folder knows its training photos.
    image
        One photo; with --sanity a folder, glob or tar archive of photos.
    out
        The PNG to write; otherwise the photo's name with -explained.png, here, where nothing has that name.
    class_
        What speaks for this class, rather than for the answer.
    method
        auto: cam where the network allows it (exact, no gradient), else grad-cam; occlusion covers place after place.
    sanity
        Test the maps of so many photos, 200 say, and write no picture.
    """
    from plusx.cli.terminal import console, suggest

    err = console(quiet or json)
    if sanity is not None:
        _refuse_both(out, class_)
        return _test(model, image, sanity, method, device, json=json, err=err)
    from plusx.verbs.explain import explain

    target = _target(out, image, model)
    explanation = explain(model, image, name=class_, method=method, device=device)
    _tell(explanation, target, json=json, err=err)
    if image.parent.is_dir():
        suggest(err, "plusx", "explain", model, image.parent, "--sanity", "200")
    return 0


def _test(model: Path, image: Path, count: int, method: str, device: str, *, json: bool, err: Console) -> int:
    from plusx.cli.terminal import counting, document, result
    from plusx.verbs.sanity import maps_tested

    with counting(err, "covering photos") as progress:
        tested = maps_tested(model, image, count, method=method, device=device, on_progress=progress)
    if json:
        document(tested.to_json())
    else:
        for line in tested.lines():
            result(line)
    return 0


def _tell(explanation: Explanation, target: Path, *, json: bool, err: Console) -> None:
    from plusx.cli.terminal import document, result
    from plusx.durable import write_file

    write_file(target, explanation.png())
    if json:
        document(explanation.to_json() | {"picture": str(target)})
        return
    for line in explanation.lines():
        result(line)
    result(f"picture: {target}")
    if explanation.remark:
        err.print(explanation.remark)


def _target(out: Path | None, image: Path, model: Path) -> Path:
    """Where the picture goes. Raises UsageError where that is read, is no PNG, or is there unasked."""
    from plusx.errors import explain as sentences
    from plusx.errors.usage import would_overwrite

    if out is None:
        usual = Path(f"{image.stem}-explained.png")
        if usual.exists():
            raise sentences.picture_exists(usual)
        return usual
    if out.suffix.lower() != ".png":
        raise sentences.no_picture(out)
    for taken in (image, model):
        if out.exists() and taken.exists() and out.samefile(taken):
            raise would_overwrite(out, taken)
    return out


def _refuse_both(out: Path | None, name: str | None) -> None:
    from plusx.errors.explain import one_image_only

    for flag, given in (("--out", out), ("--class", name)):
        if given is not None:
            raise one_image_only(flag)
