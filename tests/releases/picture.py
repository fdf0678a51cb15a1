"""A deploy under load as a picture: each request of the sender is a dot. docs/proof/deploy.svg.

    .venv/bin/python tests/releases/picture.py [RECORDS] [PICTURE]

Draws the records that the case "a changed application" of tests/proof/releases.py kept. The picture
follows the reader's light or dark theme, and is the same for the same records.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from ledger import Record, change_of_hands

PROJECT = Path(__file__).parents[2]
PICTURE = PROJECT / "docs" / "proof" / "deploy.svg"
WIDTH, HEIGHT = 860, 340
LEFT, RIGHT, TOP, BOTTOM = 72, 24, 96, 48
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
# How much of the time before the command is shown.
BEFORE_SECONDS = 8.0
# Light, then dark. Old and new are told apart by people who do not see all colours.
COLOURS = {
    # A page may be light where the reader's system is dark.
    "paper": ("#ffffff", "#0d1117"),
    "ink": ("#1f2328", "#e6edf3"),
    "soft": ("#59636e", "#9198a1"),
    "grid": ("#d1d9e0", "#3d444d"),
    "band": ("#eef1f4", "#1c2128"),
    "old": ("#e08214", "#f0a04b"),
    "new": ("#0072b2", "#4fb3ea"),
    "bad": ("#cf222e", "#ff7b72"),
}


@dataclass(frozen=True)
class Deploy:
    """What is drawn. Times are those of the sender's clock.

    Attributes:
        system: of the host.
        mark: of the new release.
        rate: requests a second.
        began: when the command was typed.
        ended: when it had ended.
        records: all requests from a while before until a while after.
    """

    system: str
    mark: str
    rate: float
    began: float
    ended: float
    records: Sequence[Record]

    def save(self, path: Path) -> None:
        """Keep it as a file."""
        path.write_text(json.dumps(asdict(self)) + "\n")

    @classmethod
    def load(cls, path: Path) -> Deploy:
        """What `save` kept."""
        found = json.loads(path.read_text())
        return cls(**{**found, "records": [Record(**each) for each in found["records"]]})


def render(deploy: Deploy) -> str:
    """The picture, as SVG.

    Raises:
        ValueError: not both releases answered, so that no deploy is to be seen.
    """
    first, _ = change_of_hands(deploy.records, deploy.mark)
    since = deploy.began - BEFORE_SECONDS
    records = [
        each for each in sorted(deploy.records, key=lambda each: each.due) if each.due >= since
    ]
    start, end = records[0].due, records[-1].due
    answered = [record for record in records if not record.failure]
    failed = [record for record in records if record.failure]
    top = max(record.seconds for record in records)
    decades = range(-3, max(math.ceil(math.log10(top)), -1) + 1)

    def x(moment: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (moment - start) / (end - start)

    def y(seconds: float) -> float:
        share = (math.log10(max(seconds, 0.001)) - decades[0]) / (decades[-1] - decades[0])
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    def dots(chosen: Iterable[Record], name: str, dot: str) -> str:
        places = (f"M{x(each.due):.1f} {y(each.seconds):.1f}{dot}" for each in chosen)
        return f'<path class="{name}" d="{"".join(places)}"/>'

    new = [record for record in answered if record.release == deploy.mark]
    old = [record for record in answered if record.release != deploy.mark]
    title = f"A deploy while {deploy.rate:g} requests a second arrive"
    summary = (
        f"{len(records):,} requests, half of them writes: {len(failed):,} failed, "
        f"slowest {max(record.seconds for record in records) * 1000:,.0f} ms"
    )
    bottom = HEIGHT - BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" font-family="{escape(FONT)}" font-size="13">',
        f"<title>{escape(title)}. {escape(summary)}.</title>",
        f"<style>{style()}</style>",
        f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
        text(16, 24, title, "ink", size=16, weight=600),
        text(16, 46, summary, "soft"),
        f'<circle class="key-old" cx="{WIDTH - 314}" cy="42" r="4"/>',
        text(WIDTH - 304, 46, "old release", "soft"),
        f'<circle class="key-new" cx="{WIDTH - 214}" cy="42" r="4"/>',
        text(WIDTH - 204, 46, "new release", "soft"),
        f'<circle class="key-bad" cx="{WIDTH - 110}" cy="42" r="4"/>',
        text(WIDTH - 100, 46, "failed or late", "soft"),
        f'<rect class="band" x="{x(deploy.began):.1f}" y="{TOP}" '
        f'width="{x(deploy.ended) - x(deploy.began):.1f}" height="{bottom - TOP}"/>',
    ]
    for power in decades:
        place = y(10.0**power)
        unit = f"{10**power:g} s" if power >= 0 else f"{10 ** (power + 3):g} ms"
        parts.append(f'<path class="grid" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(text(LEFT - 8, place + 4, unit, "soft", anchor="end"))
    for moment, words, anchor, line in (
        (deploy.began, "command typed", "start", 88),
        (first, f"new release serves, {first - deploy.began:.1f} s", "middle", 72),
        (deploy.ended, f"command done, {deploy.ended - deploy.began:.1f} s", "end", 88),
    ):
        parts.append(f'<path class="mark" d="M{x(moment):.1f} {line + 5}V{bottom}"/>')
        parts.append(text(x(moment), line, words, "ink", anchor=anchor, size=12))
    parts += [
        dots(old, "old", "h0"),
        dots(new, "new", "h0"),
        dots(failed, "bad", "m-4-4l8 8m-8 0l8-8"),
    ]
    for tick in range(0, int(end - start) + 1, 5):
        parts.append(text(x(start + tick), bottom + 18, f"{tick}", "soft", anchor="middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        text(middle, HEIGHT - 8, "seconds; each dot is a request", "soft", anchor="middle")
    )
    parts.append("</svg>\n")
    return "\n".join(parts)


def text(
    x: float,
    y: float,
    words: str,
    colour: str,
    *,
    anchor: str = "start",
    size: int = 13,
    weight: int = 400,
) -> str:
    """A line of text."""
    return (
        f'<text class="{colour}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
        f'font-size="{size}" font-weight="{weight}">{escape(words)}</text>'
    )


def style() -> str:
    """Colours by the reader's theme, and what has which."""

    def variables(theme: int) -> str:
        return ";".join(f"--{name}:{values[theme]}" for name, values in COLOURS.items())

    dot = "fill:none;stroke-width:4.5;stroke-linecap:round;stroke-opacity:.75"
    return (
        f"svg{{{variables(0)}}}"
        f"@media(prefers-color-scheme:dark){{svg{{{variables(1)}}}}}"
        ".paper{fill:var(--paper)}.ink{fill:var(--ink)}.soft{fill:var(--soft)}.band{fill:var(--band)}"
        ".grid{stroke:var(--grid)}.mark{stroke:var(--ink);stroke-dasharray:3 3}"
        f".old{{stroke:var(--old);{dot}}}.new{{stroke:var(--new);{dot}}}"
        ".bad{stroke:var(--bad);fill:none;stroke-width:2.5}"
        ".key-old{fill:var(--old)}.key-new{fill:var(--new)}.key-bad{fill:var(--bad)}"
    )


def main(arguments: Sequence[str]) -> None:
    """Draw what the command line names."""
    kept = PROJECT / ".cache" / "testhosts" / "releases" / "deploy-debian13.json"
    records, picture, *_ = [*map(Path, arguments), *(kept, PICTURE)[len(arguments) :]]
    picture.write_text(render(Deploy.load(records)))


if __name__ == "__main__":
    main(sys.argv[1:])
