"""Generate docs/decisions/index.md, the list of decision records."""

import re
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs" / "decisions"
TITLE = re.compile(r"# (?P<number>\d+)\. (?P<title>.+)")
HEAD = """# Decisions

A record explains a decision: a departure from an earlier plan, or a choice between reasonable alternatives.

| no. | decision |
|---|---|
"""


def index() -> str:
    """Return the page, with a row per record.

    Raises:
        ValueError: a record does not begin with its number and title.
    """
    return HEAD + "".join(_row(path) for path in sorted(FOLDER.glob("[0-9]*.md")))


def _row(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    match = TITLE.fullmatch(first)
    if match is None or int(match["number"]) != int(path.name[:4]):
        raise ValueError(f"docs/decisions/{path.name} must begin with `# {int(path.name[:4])}. Title`")
    return f"| {match['number']} | [{match['title']}]({path.name}) |\n"
