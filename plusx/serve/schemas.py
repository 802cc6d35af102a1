"""What replies look like, for /openapi.json. Replies themselves are made by hand: they were checked when written."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Closed(BaseModel):
    """A reply that holds these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class Problem(Closed):
    """An error (RFC 9457); `detail` is a sentence for people, `code` is for programs."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class State(Closed):
    """Whether the service lives, or is ready."""

    status: str


class Bounds(Closed):
    """What is taken."""

    megabytes: float
    megapixels: float
    deadline_seconds: float
    queue: int


class Model(Closed):
    """The model that answers."""

    name: str
    network: str
    classes: list[str]
    pixels: int
    views: list[str]
    step: int
    calibrated: bool
    thresholds: dict[str, Any] | None
    knows_novelty: bool
    explains: str | None
    sha256: str
    data_fingerprint: str
    plusx: str
    limits: Bounds


class Answer(Closed):
    """An answer: `answer` is a class, "unsure" or "none of these"; `probabilities` are calibrated."""

    label: str
    probability: float
    probabilities: dict[str, float]
    answer: str
    novelty: float | None
    milliseconds: float
    model_sha256: str


class Map(Closed):
    """A map, row by row; above zero speaks for the class."""

    rows: int
    columns: int
    values: list[float]


class Explanation(Answer):
    """An answer with what speaks for `class`; `box` is the part that was seen, as shares of the upright photo."""

    class_: str = Field(alias="class")
    method: str
    words: str
    box: list[float]
    map: Map
