"""A frozen part is computed once: embeddings of a locked tower, and what the base says of general sentences.

Legend: n items, m texts, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from domainclip import distributed
from domainclip.data.collate import Pairs, collate
from domainclip.data.quarantine import Bad
from domainclip.towers import Towers


@torch.no_grad()
def images(towers: Towers, pairs: Pairs, batch_size: int) -> tuple[Tensor, dict[int, int], list[Bad]]:
    """(n, d) embeddings of every training image, in order, on the CPU; the processes share the work.

    Also which row stands in for an unreadable one, and those that could not be read.
    """
    towers.eval()
    mine = list(range(len(pairs)))[distributed.rank() :: distributed.world()]
    order = [[(0, i) for i in mine[at : at + batch_size]] for at in range(0, len(mine), batch_size)]
    found: dict[int, tuple[Tensor, int]] = {}
    bad: list[Bad] = []
    for batch in DataLoader(pairs, batch_sampler=order, collate_fn=collate):
        rows = towers.encode_image({key: value.to(_device(towers)) for key, value in batch.image.items()})
        places = zip(batch.asked.tolist(), rows.cpu(), batch.index.tolist(), strict=True)
        found.update({asked: (row, index) for asked, row, index in places})
        bad += batch.bad
    everything: dict[int, tuple[Tensor, int]] = {}
    for share in distributed.gather_objects(found):
        everything.update(share)
    replaced = {asked: index for asked, (_, index) in everything.items() if asked != index}
    lost = {item.place: item for share in distributed.gather_objects(bad) for item in share}
    return torch.stack([everything[i][0] for i in range(len(pairs))]), replaced, list(lost.values())


@torch.no_grad()
def texts(towers: Towers, sentences: Sequence[str], batch_size: int) -> Tensor:
    """(m, d) embeddings of texts, in order, on the CPU."""
    towers.eval()
    rows = []
    for at in range(0, len(sentences), batch_size):
        tokens = towers.tokenise(list(sentences[at : at + batch_size]))
        rows.append(
            towers.encode_text({key: value.to(_device(towers)) for key, value in tokens.items()}).cpu()
        )
    return torch.cat(rows)


def _device(towers: Towers) -> torch.device:
    return next(towers.parameters()).device
