"""Sentences about single photos, about the preprocess and about the processes that decode.

The sentences about a photo start in lower case and do not name it: whoever reports one puts the
photo's name and a colon before it ("cat/7.jpg: the file is empty ...").
"""

from __future__ import annotations

from plusx.errors import DataError, ModelError, RunError, UsageError

READABLE = "JPEG, PNG, WebP, BMP, GIF, TIFF and, with the extra plusx[heif], HEIC"


class Undecodable(DataError):
    """These bytes are no photo that can be used. `code` is stable, `reason` is for people.

    Codes: empty, truncated, not-an-image, unreadable, too-large, worker-died, timeout.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason, code=code)
        self.reason = reason

    def __reduce__(self) -> tuple[type[Undecodable], tuple[str, str]]:
        return Undecodable, (self.code, self.reason)


def empty() -> Undecodable:
    """The file has no bytes at all."""
    return Undecodable("empty", "the file is empty (0 bytes); copy or download it again, or remove it")


def truncated(kind: str, size: int) -> Undecodable:
    """A `kind` file of `size` bytes ends before its last pixel."""
    return Undecodable(
        "truncated",
        f"the {kind} is cut off: its {size:,} bytes end before the picture does; copy or download it again",
    )


def cut_archive(expected: int, found: int) -> Undecodable:
    """A member of `expected` bytes has only `found` in the file that holds it."""
    return Undecodable(
        "truncated",
        f"the file that holds it is cut off: {expected:,} bytes were expected and {found:,} are there; "
        "copy or download that file again",
    )


def other_bytes() -> Undecodable:
    """A photo has another SHA-256 than the index or the listing says which names it."""
    return Undecodable(
        "unreadable",
        "its bytes are not those that the index or the listing of its archive states; copy the archive again, "
        "or write index and shards anew with `plusx shard`",
    )


def not_an_image(kind: str) -> Undecodable:
    """The content is recognised as something else than a picture."""
    return Undecodable(
        "not-an-image", f"the content looks like {kind}, not like a picture; remove it or replace it by a photo"
    )


def unsupported(kind: str) -> Undecodable:
    """A picture, in a format that is not on the list."""
    return Undecodable("unreadable", f"the content looks like {kind}, which plusx does not read; save it as {READABLE}")


def unknown_content() -> Undecodable:
    """The bytes are of no known format."""
    return Undecodable(
        "unreadable", f"the content is of no known format ({READABLE} are read); copy or download it again"
    )


def needs_heif() -> Undecodable:
    """A HEIC photo, and pi-heif is not installed."""
    return Undecodable(
        "unreadable",
        "the content is a HEIC or HEIF picture, which needs an extra: pip install 'plusx[heif]', or save it as JPEG",
    )


def damaged(kind: str, detail: str) -> Undecodable:
    """A `kind` file whose decoder failed with `detail`."""
    return Undecodable(
        "unreadable", f"the {kind} is damaged ({detail or 'its decoder failed'}); copy or download it again"
    )


def too_many_pixels(width: int, height: int, limit: int) -> Undecodable:
    """`width` x `height` is over `limit` pixels."""
    return Undecodable(
        "too-large",
        f"the picture claims {width:,} x {height:,} pixels and at most {limit / 1e6:,.0f} million are read; "
        "save it smaller",
    )


def bomb(limit: int) -> Undecodable:
    """Pillow refused the size by itself."""
    return Undecodable(
        "too-large",
        f"the picture claims far more than the {limit / 1e6:,.0f} million pixels that are read; save it smaller",
    )


def too_many_bytes(size: int, limit: int) -> Undecodable:
    """A file of `size` bytes, over `limit`."""
    return Undecodable(
        "too-large", f"the file has {size / 1e6:,.0f} MB and at most {limit / 1e6:,.0f} MB are read; save it smaller"
    )


def large_tile(limit: int) -> Undecodable:
    """A tile of a TIFF claims over `limit` pixels, whatever the picture claims."""
    return Undecodable(
        "too-large", f"a tile of it claims more than the {limit / 1e6:,.0f} million pixels that are read; save it anew"
    )


def text_bomb() -> Undecodable:
    """A PNG whose compressed texts would unpack to more than Pillow allows: 1 MB each, 64 MB in all."""
    return Undecodable(
        "too-large", "the texts beside the picture unpack to megabytes, which no photo needs; save it without them"
    )


def out_of_memory() -> Undecodable:
    """Decoding asked for more memory than the process may use."""
    return Undecodable("too-large", "decoding it takes more memory than a decoding process may use; save it smaller")


def cannot_open(why: str) -> Undecodable:
    """The operating system refused to open or read the file, with its own words `why`."""
    return Undecodable("unreadable", f"the file could not be read ({why}); check that it is there and may be read")


def not_a_regular_file(kind: str) -> Undecodable:
    """A folder, pipe, socket or device where a file was expected."""
    return Undecodable("unreadable", f"this is a {kind}, not a regular file; name a photo, or remove it")


def worker_died() -> Undecodable:
    """The process that was decoding the photo ended."""
    return Undecodable(
        "worker-died",
        "the process that was decoding it ended suddenly; the file may be hostile: remove it or save it anew",
    )


def timed_out(seconds: float) -> Undecodable:
    """Decoding took over `seconds`."""
    return Undecodable("timeout", f"decoding took more than {seconds:g} s and was stopped; remove it or save it anew")


def crop_over_resize(resize: int, crop: int) -> UsageError:
    """The centre crop would be larger than the resized photo."""
    return UsageError(
        f"The preprocess resizes the short side to {resize} and crops {crop} from it; "
        "the crop must be between 1 and the short side.",
        code="bad-preprocess",
    )


def bad_preprocess(field: str, expected: str, found: object) -> ModelError:
    """A stored preprocess lacks `field`, or holds something else than `expected` in it."""
    return ModelError(
        f"The preprocess in the model file is damaged: {field} should be {expected} and is {found!r}; "
        "copy the model file again.",
        code="bad-preprocess",
    )


def workers_do_not_start(detail: str) -> RunError:
    """The decoding processes end before their first word; `detail` is the end of what they printed."""
    return RunError(
        f"The processes that decode photos do not start ({detail or 'they printed nothing'}); "
        "check this Python's installation of Pillow and NumPy, or use --set workers=0.",
        code="workers-do-not-start",
    )
