"""Draws every picture of docs/losses and writes what the pages take from the code.

    python docs/make_loss_pages.py

All of it comes from the loss classes themselves: pictures and numbers from their gradients on one toy batch,
options and advice from their docstrings. The prose around it is written by hand.
"""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor, nn

from reidkit import registry
from reidkit.losses.sparsity import Norm, StructuredSparsity, share_of_small_groups
from reidkit.ops import batch_statistics, normalized

PAGES = Path(__file__).parent / "losses"
PICTURES = PAGES / "images"

# Okabe and Ito's palette, which colour-blind readers can tell apart; identities differ in shape too.
PULL, PUSH = "#0072b2", "#d55e00"
IDENTITIES = [("#111111", "o"), ("#009e73", "s"), ("#cc79a7", "^"), ("#f0c020", "D")]
INK, GREY, PAPER = "#222222", "#8a8a8a", "#f7f7f5"
LABEL = {"facecolor": PAPER, "edgecolor": "none", "pad": 1}
DASHES = (0, (2, 1))

# The toy batch: an identity a row. Distances lie in [0, 2], as those of unit embeddings do.
POINTS = [
    [(-0.62, 0.52), (-0.48, 0.28), (-0.76, 0.26), (-0.30, 0.48), (0.62, -0.40)],
    [(0.58, 0.56), (0.72, 0.36), (0.46, 0.32), (0.02, 0.44)],
    [(-0.50, -0.40), (-0.30, -0.62), (-0.66, -0.66)],
    [(0.38, -0.66), (0.22, -0.48)],
]
OUTLIER, HARD_NEGATIVE = 4, 8

TOY_OPTIONS: dict[str, dict[str, Any]] = {
    "identity": {"num_identities": 4, "dim": 2, "init_std": 0.0},
    "arcface": {"num_identities": 4, "dim": 2, "scale": 8.0},
    "center": {"num_identities": 4, "dim": 2},
    "circle": {"scale": 8.0},
    "multi_similarity": {"beta": 10.0},
    "smooth_ap": {"temperature": 0.1},
    "sn": {"num_neighbors": 5},
}
"""Options for a batch of 14; all others are the defaults, without normalisation."""

KINDS: dict[str, dict[str, Any]] = {
    "pulls, one identity": {"color": PULL, "linestyle": "-"},
    "pushes, two identities": {"color": PUSH, "linestyle": DASHES},
    "pushes, one identity": {"color": PUSH, "linestyle": "-"},
    "pulls, two identities": {"color": PULL, "linestyle": DASHES},
}

SPARSITY_STRENGTHS: dict[Norm, float] = {"l21": 0.8, "l12": 0.15}

SHARE_FELT = 0.01
"""Pairs and images with a smaller share of the strongest gradient are not drawn and not counted."""

NUM_STEPS = 200
FIRST_STEP = 0.05
"""Length of the first step, over all coordinates together; it sets the learning rate of each loss."""


# --- what the losses do to the toy batch -----------------------------------------------------------------


def toy_batch() -> tuple[Tensor, Tensor]:
    """Embeddings (14, 2) in float64 and labels (14,)."""
    labels = [identity for identity, points in enumerate(POINTS) for _ in points]
    return torch.tensor([p for points in POINTS for p in points], dtype=torch.float64), torch.tensor(labels)


def toy_loss(name: str) -> nn.Module:
    """The loss as the pictures use it. A classifier has first been fitted to the batch, which held still."""
    factory = registry.get("loss", name)
    options = dict(TOY_OPTIONS.get(name, {}))
    if "normalize" in registry.defaults(factory):
        options["normalize"] = False
    with torch.random.fork_rng():
        torch.manual_seed(0)
        loss: nn.Module = factory(**options).double()
    if has_classes(name):
        embeddings, labels = toy_batch()
        classifier = torch.optim.SGD(loss.parameters(), lr=1.0)
        for _ in range(50):
            step(classifier, lambda: loss(embeddings, labels))
    return loss


def has_classes(name: str) -> bool:
    """Whether a loss has parameters for each identity, and compares images with these."""
    return reads(name) != "weight" and hasattr(registry.get("loss", name), "fill")


def reads(name: str) -> str:
    return str(registry.get("loss", name).reads)  # type: ignore[attr-defined]


def pair_gradients(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    """How much the loss changes with each pair's distance, (N, N): positive pulls, negative pushes.

    Each image gets an axis of its own and a tiny step on it. The gradient of image i along the axis of j is
    then -step * g(i, j) / d(i, j), as no other distance of i changes with it, and the loss, whatever it is
    made of, need not be opened.
    """
    tiny = 1e-5
    lifted = torch.cat((embeddings, tiny * torch.eye(len(embeddings), dtype=embeddings.dtype)), dim=1)
    lifted.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(lifted, labels), lifted)
    return (-gradient[:, embeddings.shape[1] :] * torch.cdist(embeddings, embeddings) / tiny).fill_diagonal_(
        0
    )


def image_gradients(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each image, (N, 2)."""
    embeddings = embeddings.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(embeddings, labels), embeddings)
    return gradient


def trajectory(loss: nn.Module) -> Tensor:
    """Places of the toy batch in plain gradient descent, (NUM_STEPS + 1, N, 2)."""
    embeddings, labels = toy_batch()
    rate = FIRST_STEP / float(image_gradients(loss, embeddings, labels).norm())
    embeddings.requires_grad_()
    descent = torch.optim.SGD([embeddings, *loss.parameters()], lr=rate)
    places = [embeddings.detach().clone()]
    for _ in range(NUM_STEPS):
        step(descent, lambda: loss(embeddings, labels))
        places.append(embeddings.detach().clone())
    return torch.stack(places)


def step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss())
    optimizer.step()


def felt_pairs(gradients: Tensor) -> list[tuple[int, int]]:
    """Pairs i < j that feel the loss."""
    felt = gradients.triu().abs() > SHARE_FELT * gradients.abs().max()
    return [(i, j) for i, j in felt.nonzero().tolist()]


def kind_of(same_identity: Tensor | bool, gradient: float) -> str:
    return f"{'pulls' if gradient > 0 else 'pushes'}, {'one identity' if same_identity else 'two identities'}"


def toy_weight() -> Tensor:
    """Weights of 10 outputs and 16 inputs, of which some matter more than others."""
    generator = torch.Generator().manual_seed(0)
    importance = torch.tensor(
        [1.0, 0.2, 0.6, 0.1, 0.1, 0.8, 0.2, 0.3, 0.15, 0.1, 0.2, 0.25, 0.9, 0.1, 0.5, 0.3]
    )
    return torch.randn(10, 16, generator=generator) * importance


def shrunk(norm: Norm) -> Tensor:
    """The toy weights, pulled back to what they were while the regulariser shrinks them."""
    loss, weight = StructuredSparsity(norm, groups=4), toy_weight()
    moving = weight.clone().requires_grad_()
    for number in range(1000):
        descent = torch.optim.SGD([moving], lr=0.1 / (1 + number / 20))
        step(descent, lambda: (moving - weight).square().sum() / 2 + SPARSITY_STRENGTHS[norm] * loss(moving))
    return moving.detach()


# --- pictures ----------------------------------------------------------------------------------------------


def draw_gradients(name: str) -> Figure:
    """Left, the pairs that a loss pulls and pushes, or the classes; right, where each image is sent."""
    loss, (embeddings, labels) = toy_loss(name), toy_batch()
    figure, (left, right) = panels(2)
    if not has_classes(name):
        left.set_title("pairs it pulls and pushes")
        kinds = draw_pairs(left, embeddings, labels, pair_gradients(loss, embeddings, labels))
        handles = [
            Line2D([], [], linewidth=2.5, label=label, **KINDS[label]) for label in KINDS if label in kinds
        ]
        left.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, frameon=False)
    elif name == "center":
        left.set_title("identities: their learned centres")
        draw_centers(left, next(loss.parameters()).detach())
    else:
        left.set_title("classes: the directions of their weights")
        draw_classes(left, next(loss.parameters()).detach(), of_equal_length=name == "arcface")
    right.set_title("where it sends each image")
    draw_arrows(right, embeddings, image_gradients(loss, embeddings, labels))
    for axes in (left, right):
        draw_points(axes, embeddings, labels, s=80)
    for number, text, offset in ((OUTLIER, "outlier", (10, 8)), (HARD_NEGATIVE, "hard negative", (-34, 13))):
        x, y = embeddings[number].tolist()
        left.annotate(text, (x, y), offset, textcoords="offset points", color=INK, bbox=LABEL)
    return figure


def panels(number: int, *, half_width: float = 1.0) -> tuple[Figure, list[Axes]]:
    """Square panels side by side, with room for a title above and, under two, a legend below."""
    legend = 0.6 if number > 1 else 0.1
    height = 4.4 + 0.35 + legend
    figure = Figure(figsize=(4.5 * number, height), facecolor="white")
    axes = [
        figure.add_axes((i / number + 0.05 / 4.5 / number, legend / height, 4.4 / 4.5 / number, 4.4 / height))
        for i in range(number)
    ]
    for each in axes:
        limits = (-half_width, half_width)
        each.set(facecolor=PAPER, xticks=[], yticks=[], xlim=limits, ylim=limits)
        each.spines[:].set_visible(False)
    return figure, axes


def draw_points(axes: Axes, embeddings: Tensor, labels: Tensor, *, s: float) -> None:
    for identity, (colour, marker) in enumerate(IDENTITIES):
        x, y = embeddings[labels == identity].T
        axes.scatter(x, y, s=s, c=colour, marker=marker, edgecolors="white", zorder=4)


def draw_pairs(axes: Axes, embeddings: Tensor, labels: Tensor, gradients: Tensor) -> set[str]:
    """A line a pair, as wide as its gradient; returns the kinds of pair drawn."""
    strongest = float(gradients.abs().max())
    kinds = set()
    for i, j in felt_pairs(gradients):
        kind = kind_of(labels[i] == labels[j], float(gradients[i, j]))
        share = abs(float(gradients[i, j])) / strongest
        x, y = embeddings[[i, j]].T
        axes.plot(x, y, linewidth=0.6 + 4.4 * share, alpha=0.25 + 0.75 * share, **KINDS[kind])
        kinds.add(kind)
    return kinds


def draw_arrows(axes: Axes, embeddings: Tensor, gradients: Tensor) -> None:
    """An arrow an image, the longest always of one length."""
    arrows = -0.4 * gradients / gradients.norm(dim=1).max()
    for (x, y), (right, up) in zip(embeddings.tolist(), arrows.tolist(), strict=True):
        if right**2 + up**2 > 0.03**2:
            axes.annotate(
                "", (x + right, y + up), (x, y), arrowprops={"arrowstyle": "->", "color": INK, "lw": 1.6}
            )


def draw_centers(axes: Axes, centers: Tensor) -> None:
    """Centres (C, 2), as crosses."""
    for (x, y), (colour, _) in zip(centers.tolist(), IDENTITIES, strict=True):
        axes.scatter(x, y, s=220, marker="+", c=colour, linewidths=3, zorder=3)


def draw_classes(axes: Axes, weights: Tensor, *, of_equal_length: bool = False) -> None:
    """Directions of the classes' weights (C, 2), and the borders between their sectors."""
    weights = normalized(weights) if of_equal_length else weights
    ticks = torch.linspace(-1.0, 1.0, 401, dtype=weights.dtype)
    grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1)  # (401, 401, 2)
    chosen = (grid @ weights.T).argmax(dim=-1)
    axes.contour(ticks, ticks, chosen, levels=[0.5, 1.5, 2.5], colors=GREY, linewidths=0.8)
    for (x, y), (colour, _) in zip((0.95 * normalized(weights)).tolist(), IDENTITIES, strict=True):
        axes.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 2.5})


def draw_trajectory(name: str) -> Figure:
    """Where NUM_STEPS steps lead: paths, first places small and hollow, last places full."""
    places, labels = trajectory(toy_loss(name)), toy_batch()[1]
    figure, (axes,) = panels(1, half_width=1.2)
    axes.set_title(name)
    for path, label in zip(places.transpose(0, 1), labels.tolist(), strict=True):
        colour, marker = IDENTITIES[label]
        axes.plot(*path.T, color=colour, linewidth=1.2, alpha=0.6)
        x, y = path[0]
        axes.scatter(x, y, s=30, marker=marker, facecolors=PAPER, edgecolors=colour, zorder=3)
    draw_points(axes, places[-1], labels, s=80)
    return figure


def draw_sparsity() -> Figure:
    """Weights before, and after each of the two regularisers; rows are outputs, columns inputs."""
    weight = toy_weight()
    figure = Figure(figsize=(10.5, 3.0), facecolor="white")
    for place, (title, shown) in enumerate(
        {"before": weight, **{f"after {norm}": shrunk(norm) for norm in SPARSITY_STRENGTHS}}.items()
    ):
        axes = figure.add_axes((0.025 + place / 3.05, 0.1, 0.305, 0.78))
        axes.imshow(shown, cmap="PuOr", vmin=-1.5, vmax=1.5, aspect="auto", interpolation="none")
        axes.set(title=title, xticks=[], yticks=[], xlabel="inputs")
        if place == 0:
            axes.set_ylabel("outputs")
        if title == "after l12":
            for border in range(4, 16, 4):
                axes.axvline(border - 0.5, color=INK, linewidth=1.5)
    return figure


def save(figure: Figure, name: str) -> None:
    """As a PNG of 256 colours, a third of the size."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=115, format="png", metadata={"Software": None})
    picture = Image.open(drawn).convert("RGB").quantize(256, kmeans=1, dither=Image.Dither.NONE)
    picture.save(PICTURES / f"{name}.png", optimize=True)


def draw_pictures() -> None:
    for name in registry.names("loss"):
        if reads(name) == "weight":
            save(draw_sparsity(), name)
        else:
            save(draw_gradients(name), name)
            save(draw_trajectory(name), f"{name}-trajectory")


# --- text --------------------------------------------------------------------------------------------------


def blocks(page: str) -> dict[str, str]:
    """What stands between the marks of a page, by the marks' names; ``page`` is README or a loss."""
    if page == "README":
        return {"trajectories": trajectory_table()}
    written = {"advice": advice(page), "options": option_table(page)}
    if not has_classes(page):
        written["picture"] = sparsity_counts() if reads(page) == "weight" else pair_counts(page)
    return written


def with_blocks(text: str, written: dict[str, str]) -> str:
    """The page with its marked parts replaced; a part without marks is an error."""
    for name, block in written.items():
        mark = f"<!-- {name}: written by docs/make_loss_pages.py -->\n"
        before, begin, rest = text.partition(mark)
        _, end, after = rest.partition(f"<!-- end {name} -->")
        if not begin or not end:
            raise ValueError(
                f"no {mark.strip()} ... <!-- end {name} --> in the page that begins {text[:40]!r}"
            )
        text = before + begin + block + "\n" + end + after
    return text


def pair_counts(name: str) -> str:
    (embeddings, labels), loss = toy_batch(), toy_loss(name)
    gradients = pair_gradients(loss, embeddings, labels)
    same = labels[:, None] == labels
    kinds = [kind_of(same[i, j], float(gradients[i, j])) for i, j in felt_pairs(gradients)]
    num_pairs = {True: int(same.triu(1).sum()), False: int((~same).triu(1).sum())}
    counts = [
        f"{verb} {kinds.count(kind)} of {num_pairs[whose == 'one identity']} pairs of {whose}"
        for kind in KINDS
        for verb, whose in [kind.split(", ")]
        if kind in kinds
    ]
    lengths = image_gradients(loss, embeddings, labels).norm(dim=1)
    num_moved = int((lengths > SHARE_FELT * lengths.max()).sum())
    options = "".join(f", `{option}={value!r}`" for option, value in TOY_OPTIONS.get(name, {}).items())
    return (
        f"It {', '.join(counts)}, and moves {num_moved} of {len(labels)} images, not counting those that "
        f"feel less than 1 % of the strongest gradient. Default options, without normalisation{options}."
    )


def sparsity_counts() -> str:
    shown = {"before": toy_weight(), **{f"after {norm}": shrunk(norm) for norm in SPARSITY_STRENGTHS}}
    rows = [
        f"| {title} | {100 * float((weight.abs() < 0.01).float().mean()):.0f} % "
        f"| {100 * share_of_small_groups(weight, norm='l21', below=0.01):.0f} % |"
        for title, weight in shown.items()
    ]
    return "\n".join(
        ["| | weights below 0.01 | columns below 0.01 (root mean square) |", "|---" * 3 + "|", *rows]
    )


def trajectory_table() -> str:
    labels = toy_batch()[1]
    rows = [statistics_row("start", toy_batch()[0], "")]
    for name in registry.names("loss"):
        if reads(name) == "weight":
            continue
        loss = toy_loss(name)
        places = trajectory(loss)
        met = next(
            (str(n) for n, place in enumerate(places) if float(loss(place, labels).detach()) == 0), "never"
        )
        rows.append(statistics_row(f"[{name}]({name}.md)", places[-1], met))
    head = (
        "| loss | nearest image is right | mean positive distance | mean negative | furthest positive "
        "| nearest negative | steps until the loss is 0 |"
    )
    return "\n".join([head, "|---" * 7 + "|", *rows])


def statistics_row(name: str, places: Tensor, met: str) -> str:
    labels = toy_batch()[1]
    nearest = torch.cdist(places, places).fill_diagonal_(torch.inf).argmin(dim=1)
    seen = batch_statistics(places, labels, normalize=False)
    distances = (
        seen.mean_positive_distance,
        seen.mean_negative_distance,
        seen.hardest_positive_distance,
        seen.hardest_negative_distance,
    )
    right = f"{int((labels[nearest] == labels).sum())} of {len(labels)}"
    return f"| {name} | {right} | " + " | ".join(f"{distance:.2f}" for distance in distances) + f" | {met} |"


def advice(name: str) -> str:
    """What the docstring says under Use with and Pitfalls."""
    return "\n\n".join(f"**{title}.** {paragraph(name, title)}" for title in ("Use with", "Pitfalls"))


def paragraph(name: str, title: str) -> str:
    text = inspect.getdoc(registry.get("loss", name)) or ""
    found = re.search(rf"^{title}: (.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert found, f"the docstring of {name} has no paragraph {title!r}"
    sentence = as_markdown(found[1])
    return sentence[0].upper() + sentence[1:]


def option_table(name: str) -> str:
    """A row an option: the docstring's Args beside the defaults."""
    factory = registry.get("loss", name)
    text = inspect.getdoc(factory) or ""
    listed = text.partition("\nArgs:\n")[2].partition("\n\n")[0]
    meanings = dict(re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", listed, re.MULTILINE | re.DOTALL))
    rows = [
        f"| `{option}` | `{quoted(default)}` | {as_markdown(meanings[option])} |"
        for option, default in registry.defaults(factory).items()
    ]
    return "\n".join(["| option | default | what it is |", "|---|---|---|", *rows])


def quoted(default: object) -> str:
    return f'"{default}"' if isinstance(default, str) else repr(default)


def as_markdown(text: str) -> str:
    """One line of the docstrings' markup, with losses as links to their pages."""
    pages = {registry.get("loss", name).__name__: name for name in registry.names("loss")}

    def link(reference: re.Match[str]) -> str:
        target = reference[1]
        return f"[`{target}`]({pages[target]}.md)" if target in pages else f"`{target}`"

    text = re.sub(r":\w+:`([^`]*)`", link, " ".join(text.split()))
    return text.replace("``", "`")


def write_texts() -> None:
    for page in ("README", *registry.names("loss")):
        file = PAGES / f"{page}.md"
        file.write_text(with_blocks(file.read_text("utf-8"), blocks(page)), "utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    PICTURES.mkdir(parents=True, exist_ok=True)
    draw_pictures()
    write_texts()
