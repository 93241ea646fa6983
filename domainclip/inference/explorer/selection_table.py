"""A selection of items as a table for a spreadsheet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domainclip.inference.explorer.cards import shown_labels
from domainclip.inference.explorer.explorer import Explorer
from domainclip.inference.explorer.outcomes import Compared
from domainclip.inference.explorer.view import View
from domainclip.report import csv_links


def selection_csv(explorer: Explorer, view: View, compared: Compared | None, rows: Sequence[int]) -> str:
    """CSV with a line for each row: what the page shows of the item, and the answers of each model."""
    explored, chosen = explorer.explored, [int(row) for row in rows]
    items = explored.data.items.select(chosen)
    columns: dict[str, Sequence[object]] = {
        "item": items["id"][:],
        "group": items["group"][:],
        "labels": [", ".join(shown_labels(explorer, row)) for row in chosen],
    }
    if explored.shows_content:
        columns["caption"] = explored.captions(chosen)
    if compared is not None:
        columns["outcome"] = compared.outcomes[chosen].tolist()
    for model in dict.fromkeys((0, view.second)):
        label, of_model = explored.models[model].label, explorer.answers(view, model)
        cosines = explorer.cosines(view, model)
        if of_model is not None:
            right = np.where(of_model.known, np.where(of_model.right, "true", "false"), "")
            columns[f"{label}: answer"] = of_model.describe(chosen)
            columns[f"{label}: right"] = right[chosen].tolist()
            columns[f"{label}: strength"] = of_model.strengths[chosen].tolist()
            columns[f"{label}: rank"] = of_model.ranks[chosen].tolist()
        if cosines is not None:
            columns[f"{label}: cosine"] = [round(float(cosines[row]), 6) for row in chosen]
    return csv_links.table(list(columns), zip(*columns.values(), strict=True))
