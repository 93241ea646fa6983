"""What `domainclip data check` and `data preview` do: a corpus looked at before anything is trained."""

from __future__ import annotations

from domainclip.checkup.found import Checkup, Target, of_card, of_recipe, run
from domainclip.checkup.page import write_page, write_preview

__all__ = ["Checkup", "Target", "of_card", "of_recipe", "run", "write_page", "write_preview"]
