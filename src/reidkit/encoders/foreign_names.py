"""How other toolkits name their weights, beside our names: ``backbone.``, ``pooling.``, ``neck.``.

A ResNet's own layers have the same names everywhere (torchvision's ``conv1``, ``bn1``, ``layer1.0.conv1``),
an OSNet's those of Torchreid; toolkits differ in what stands before them, and in neck and classifier.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Toolkit:
    """Names of one family of files.

    ``mark`` is the beginning of a name that tells its files from others. Of ``renames`` (beginning there,
    beginning here) the first that fits holds. ``classifiers`` are beginnings of weights that belong to the
    identities or classes trained on, ``left_out`` those of parts that no network here has and that can be
    left out, because ``left_out_reason``. ``side_information`` are endings of weights that embed something
    besides the image. With ``by_token`` the embedding is the class token.
    """

    name: str
    mark: str
    renames: tuple[tuple[str, str], ...]
    classifiers: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    left_out_reason: str = ""
    side_information: tuple[str, ...] = ()
    by_token: bool = False

    def our_name(self, name: str) -> str:
        for there, here in self.renames:
            if name.startswith(there):
                return here + name.removeprefix(there)
        return name

    def is_classifier(self, name: str) -> bool:
        return name.startswith(self.classifiers)

    def is_left_out(self, name: str) -> bool:
        return name.startswith(self.left_out)


FASTREID = Toolkit(
    "FastReID",
    mark="heads.",
    renames=(
        ("heads.bottleneck.0.", "neck."),
        ("heads.bnneck.", "neck."),  # until version 0.2
        ("heads.pool_layer.", "pooling."),
        ("backbone.NL_2.", "backbone.layer2.non_local."),
        ("backbone.NL_3.", "backbone.layer3.non_local."),
    ),
    classifiers=("heads.weight", "heads.classifier.", "heads.cls_layer."),
)
STRONG_BASELINE = Toolkit(
    "reid-strong-baseline",
    mark="base.",
    renames=(("base.", "backbone."), ("bottleneck.", "neck.")),
    classifiers=("classifier.", "base.fc."),
)
_SOLIDER_UNUSED = ("norm0.", "norm1.", "norm2.", "semantic_embed_w.3.", "semantic_embed_b.3.")
SOLIDER = Toolkit(
    "SOLIDER",
    mark="",  # see toolkit_of
    renames=(("base.", "backbone."), ("bottleneck.", "neck.")),  # pre-trained ones begin with our "backbone."
    classifiers=("classifier.", "head."),
    left_out=tuple(f"{network}.{part}" for network in ("base", "backbone") for part in _SOLIDER_UNUSED),
    left_out_reason="norms and controllers of SOLIDER's Swin that its embedding does not depend on",
)
REIDKIT = Toolkit("reidkit", mark="backbone.", renames=(), classifiers=())
PLAIN = Toolkit(
    "torchvision, timm or Torchreid",
    mark="",
    # Torchreid's feature layer is fc.0 and fc.1; torchvision's classifier is fc alone.
    renames=(("fc.0.", "neck.0."), ("fc.1.", "neck.1."), ("", "backbone.")),
    classifiers=("fc.weight", "fc.bias", "classifier.", "head.fc.", "head.weight", "head.bias"),
)

_TOOLKITS = (FASTREID, STRONG_BASELINE, REIDKIT, PLAIN)


def transreid(names: Iterable[str]) -> Toolkit:
    """TransReID's names, of a transformer with a batch norm behind its class token.

    With its jigsaw branch (JPM) the last block and norm are there three times: ``base`` has them as they were
    at the start and does not use them, ``b1`` embeds the whole image, ``b2`` its parts, for ``bottleneck_1``
    to ``_4``.
    """
    names = tuple(names)
    renames: tuple[tuple[str, str], ...] = (("base.", "backbone."), ("bottleneck.", "neck."))
    left_out: tuple[str, ...] = ()
    if any(name.startswith("b1.0.") for name in names):
        blocks = [int(found[1]) for name in names if (found := re.match(r"base\.blocks\.(\d+)\.", name))]
        last = max(blocks, default=0)
        renames = (("b1.0.", f"backbone.blocks.{last}."), ("b1.1.", "backbone.norm."), *renames)
        left_out = (f"base.blocks.{last}.", "base.norm.", "b2.", *(f"bottleneck_{i}." for i in range(1, 5)))
    return Toolkit(
        "TransReID",
        mark="base.cls_token",
        renames=renames,
        classifiers=("classifier.", *(f"classifier_{i}." for i in range(1, 5)), "base.fc.", "base.head."),
        left_out=left_out,
        left_out_reason="the local branches of TransReID's JPM; the embedding is the global feature alone, "
        "where the authors join the two",
        side_information=("sie_embed",),
        by_token=True,
    )


def toolkit_of(names: Iterable[str]) -> Toolkit:
    """The toolkit whose mark is seen among the names of a file."""
    names = tuple(names)
    if "base.cls_token" in names:
        return transreid(names)
    if any(name.endswith("semantic_embed_w.3.weight") for name in names):
        return SOLIDER
    return next(t for t in _TOOLKITS if any(name.startswith(t.mark) for name in names))
