"""Shares a run: from an allow-list, searched before it leaves, private unless said otherwise."""

from domainclip.hub.leaving import Leaving, files_to_push
from domainclip.hub.pushing import preview, push

__all__ = ["Leaving", "files_to_push", "preview", "push"]
