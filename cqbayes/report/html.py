"""A report in one HTML file, with its pictures beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd

from cqbayes._tools.files import replacing


class Section(NamedTuple):
    """A section of a report: heading, paragraph, tables and pictures."""

    heading: str
    text: str
    tables: Sequence[pd.DataFrame] = ()
    pictures: Sequence[tuple[str, str]] = ()  # file name, caption


def write_report(
    path: Path,
    title: str,
    lead: str,
    numbers: Mapping[str, str],
    sections: Sequence[Section],
    provenance: Mapping[str, Any],
) -> Path:
    """Writes the report and returns its path. Text is escaped: data cannot inject markup.

    Args:
        path: the file to write.
        title, lead: the heading and the paragraph under it.
        numbers: the main numbers, by their labels.
        sections: the sections below them.
        provenance: versions, settings, seed.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cqbayes.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("report.html.jinja").render(
        title=title, lead=lead, numbers=numbers, sections=sections, provenance=provenance
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
