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
from domainclip.towers import Towers


@torch.no_grad()
def images(towers: Towers, pairs: Pairs, batch_size: int) -> Tensor:
    """(n, d) embeddings of every training image, in order, on the CPU; the processes share the work."""
    towers.eval()
    mine = list(range(len(pairs)))[distributed.rank() :: distributed.world()]
    order = [[(0, i) for i in mine[at : at + batch_size]] for at in range(0, len(mine), batch_size)]
    found: dict[int, Tensor] = {}
    for batch in DataLoader(pairs, batch_sampler=order, collate_fn=collate):  # type: ignore[arg-type]
        rows = towers.encode_image({key: value.to(_device(towers)) for key, value in batch.image.items()})
        found.update(zip(batch.index.tolist(), rows.cpu(), strict=True))
    everything: dict[int, Tensor] = {}
    for share in distributed.gather_objects(found):
        everything.update(share)
    return torch.stack([everything[i] for i in range(len(pairs))])


@torch.no_grad()
def texts(towers: Towers, sentences: Sequence[str], batch_size: int) -> Tensor:
    """(m, d) embeddings of texts, in order, on the CPU."""
    towers.eval()
    rows = []
    for at in range(0, len(sentences), batch_size):
        tokens = towers.tokenise(list(sentences[at : at + batch_size]))
        rows.append(towers.encode_text({key: value.to(_device(towers)) for key, value in tokens.items()}).cpu())
    return torch.cat(rows)


def _device(towers: Towers) -> torch.device:
    return next(towers.parameters()).device
