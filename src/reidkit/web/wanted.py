"""What can be asked of the service, checked as far as that can be without a gallery."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

MOST_ID = 2**63 - 1

ItemId = Annotated[int, Field(ge=0, le=MOST_ID, examples=[17])]
Name = Annotated[str, Field(min_length=1, max_length=200, examples=["anna"])]
Purpose = Annotated[str, Field("", max_length=500, examples=["lost child, case 4711"])]
Box = tuple[int, int, int, int]


class Wanted(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SearchOptions(Wanted):
    """Who is searched for, besides pictures, and how.

    Pictures, stored items and embeddings together are one query: the mean of their embeddings. ``boxes`` cut
    each picture, (left, top, right, bottom) in pixels of the upright picture, or null for all of it.
    ``where`` holds conditions as galleries take them; ``labels`` what is known of the query, for conditions
    that refer to it. ``group`` asks for people or tracklets in place of pictures, which ``pool`` scores.
    """

    boxes: tuple[Box | None, ...] = ()
    items: tuple[ItemId, ...] = Field((), max_length=100)
    embeddings: tuple[tuple[FiniteFloat, ...], ...] = Field((), max_length=100)
    top: int = Field(10, ge=1, le=10_000)
    where: dict[str, Any] = Field(default_factory=dict, examples=[{"camera": {"not": 3}}])
    labels: dict[str, Any] = Field(default_factory=dict, examples=[{"camera": 3}])
    group: Literal["identity", "tracklet"] | None = None
    pool: Literal["best", "mean", "reciprocal"] = "best"
    items_each: int = Field(10, ge=1, le=100, description="Pictures told of each person.")
    include_self: bool = False
    false_match_rate: FiniteFloat | None = Field(None, gt=0, lt=1)
    prior: FiniteFloat | None = Field(None, gt=0, lt=1)
    purpose: Purpose = ""


class SearchRequest(SearchOptions):
    """Who is searched for, and how; ``pictures`` are files of images."""

    pictures: tuple[bytes, ...] = ()


class NewItem(Wanted):
    """What is said of a picture that is added; what is left out is not known."""

    identity: Name | None = None
    camera: int | Name | None = None
    time: FiniteFloat | Annotated[str, Field(max_length=64)] | None = None
    tracklet: ItemId | None = None
    box: Box | None = None


class DecisionRequest(Wanted):
    """What is decided.

    - "accept": ``items``, or all that are proposed as ``proposal``, show ``identity`` (left out, the
      proposal's name);
    - "reject": the first of ``items`` shows somebody else than each of the others; or, with ``proposal``,
      nobody is to be proposed as that any more;
    - "merge": ``others`` are ``identity`` too;
    - "split": ``items`` do not show who they are said to show, but ``identity``, or nobody knows whom;
    - "undo": decision ``undoes`` is taken back; or ``proposal``, which I rejected last, is proposed again.
    """

    kind: Literal["accept", "reject", "merge", "split", "undo"]
    items: tuple[ItemId, ...] = Field(default=(), max_length=10_000)
    identity: Name | None = None
    proposal: Name | None = None
    others: tuple[Name, ...] = Field(default=(), max_length=1000)
    undoes: ItemId | None = None


class JobRequest(Wanted):
    """Work that takes longer than a request.

    "index" embeds the pictures of a folder that the service's settings name; "import" adds what was exported
    to such a folder; "cluster" proposes people. ``pattern`` reads labels from names of files.
    """

    kind: Literal["index", "cluster", "import"]
    folder: Name | None = None
    pattern: Annotated[str, Field(max_length=500)] | None = None
    camera: int | Name | None = None
    where: dict[str, Any] = Field(default_factory=dict)
    distance: FiniteFloat = Field(0.75, ge=0, lt=1)
    neighbours: int = Field(30, ge=1, le=1000)


class RemoveRequest(Wanted):
    """Items to remove, by number or by conditions."""

    items: tuple[ItemId, ...] = Field(default=(), max_length=10_000)
    where: dict[str, Any] = Field(default_factory=dict, examples=[{"camera": 3}])
    dry_run: bool = False


class ForgetRequest(Wanted):
    """A person to forget."""

    identity: Name
    dry_run: bool = False


class ExpireRequest(Wanted):
    """An age beyond which items are removed."""

    older_than: Annotated[str, Field(max_length=20, examples=["30d"])]
    dry_run: bool = False


class Login(Wanted):
    """A user's name and password."""

    name: Annotated[str, Field(max_length=200)]
    password: Annotated[str, Field(max_length=2000)]


class Problem(BaseModel):
    """What is wrong, where, and what to do (RFC 9457)."""

    type: str = "about:blank"
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["the gallery people has no item 4711"])
    instance: str = Field("", examples=["/v1/galleries/people/items/4711"])
    to_do: str = Field("", examples=["list what there is, and ask again with its name or number"])
    errors: list[dict[str, str]] = Field(
        default_factory=list, examples=[[{"where": "body.top", "what": "..."}]]
    )
