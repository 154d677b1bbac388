"""How other toolkits name their weights, beside our names: ``backbone.``, ``pooling.``, ``neck.``.

A ResNet's own layers have the same names everywhere (torchvision's ``conv1``, ``bn1``, ``layer1.0.conv1``),
an OSNet's those of Torchreid; toolkits differ in what stands before them, and in neck and classifier.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Toolkit:
    """Names of one family of files.

    ``mark`` is the beginning of a name that tells its files from others. Of ``renames`` (beginning there,
    beginning here) the first that fits holds. ``classifiers`` are beginnings of weights that belong to the
    identities or classes trained on.
    """

    name: str
    mark: str
    renames: tuple[tuple[str, str], ...]
    classifiers: tuple[str, ...]

    def our_name(self, name: str) -> str:
        for there, here in self.renames:
            if name.startswith(there):
                return here + name.removeprefix(there)
        return name

    def is_classifier(self, name: str) -> bool:
        return name.startswith(self.classifiers)


FASTREID = Toolkit(
    "FastReID",
    mark="heads.",
    renames=(
        ("heads.bottleneck.0.", "neck."),
        ("heads.bnneck.", "neck."),  # until version 0.2
        ("heads.pool_layer.", "pooling."),
    ),
    classifiers=("heads.weight", "heads.classifier.", "heads.cls_layer."),
)
STRONG_BASELINE = Toolkit(
    "reid-strong-baseline",
    mark="base.",
    renames=(("base.", "backbone."), ("bottleneck.", "neck.")),
    classifiers=("classifier.", "base.fc."),
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


def toolkit_of(names: Iterable[str]) -> Toolkit:
    """The toolkit whose mark is seen among the names of a file."""
    names = tuple(names)
    return next(t for t in _TOOLKITS if any(name.startswith(t.mark) for name in names))
