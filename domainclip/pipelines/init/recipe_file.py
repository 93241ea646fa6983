"""The recipe of a draft: the built-in one, with this corpus, and a batch that fits its size."""

from __future__ import annotations

from typing import Any

from domainclip.config.training import auto_epochs
from domainclip.pipelines.init.choices import Choice, class_template, objective_of
from domainclip.pipelines.init.commented_yaml import commented_yaml
from domainclip.pipelines.init.draft import Draft
from domainclip.pipelines.init.items import Items

_CONTRASTIVE = ("contrastive", "sigmoid")
_STEPS_PER_EPOCH = 5  # at least, where the corpus has so many batches of the smallest size
_MIN_BATCH = 16


def recipe_data(
    draft: Draft, choice: Choice, card: str, name: str, base: str | None, items: Items | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The keys of the recipe, and the comments by key."""
    settings = {key: value for key, value in choice.settings.items() if key not in ("name", "base", "corpus")}
    comments = {"strategy": f"as in the built-in recipe {choice.recipe}: {choice.reason}"}
    if base is not None:
        comments["base"] = "as named on the command line"
        settings["objectives"] = _objectives(settings, objective_of(base))
    else:
        comments["base"] = "downloaded from the Hub; base=FOLDER names a local model, with any other size"
    _fit_to_classes(settings, draft, comments)
    if items is not None:
        _fit_to_size(settings, items, comments)
    data = {
        "name": name,
        "base": base or choice.settings["base"],
        "corpus": {"card": card, "path": draft.path},
        **settings,
    }
    comments["corpus.card"] = "columns, captions, splits and prompts; lies beside this file"
    comments["corpus.path"] = draft.about
    return data, comments


def _objectives(settings: dict[str, Any], objective: str) -> dict[str, Any]:
    """The objectives with the contrastive one of the base's family."""
    return {objective if key in _CONTRASTIVE else key: value for key, value in settings["objectives"].items()}


def _fit_to_classes(settings: dict[str, Any], draft: Draft, comments: dict[str, str]) -> None:
    """Prompts of the classes as further captions, and the probes that the corpus has items for."""
    if not draft.has_classes:
        settings["objectives"] = {k: v for k, v in settings["objectives"].items() if k != "class_captions"}
    curation = dict(settings.get("curation", {}))
    if "labels_to_captions" in curation:
        if draft.has_classes:
            curation["labels_to_captions"] = {"templates": [class_template(draft)]}
            comments["curation"] = "an item shows its class in some epochs"
        else:
            del curation["labels_to_captions"]
    settings.pop("curation", None)
    if curation:
        settings["curation"] = curation
    probes = dict(settings.get("probes", {}))
    if draft.has_classes:
        probes = {"zero_shot": {}, **probes}
    else:
        probes = {key: value for key, value in probes.items() if key not in ("zero_shot", "knn")}
    if draft.has_texts or draft.template:
        probes.setdefault("retrieval", {})
    if draft.value("multi_label"):
        probes.pop("knn", None)
    settings["probes"] = probes


def _fit_to_size(settings: dict[str, Any], items: Items, comments: dict[str, str]) -> None:
    """A smaller batch for few items, no choice of α without validation, and the split that is measured."""
    train = dict(settings.get("train", {}))
    count, batch = items.sizes["train"], int(train.get("batch_size", 128))
    fitting = batch
    while fitting > _MIN_BATCH and fitting * _STEPS_PER_EPOCH > count:
        fitting //= 2
    before = train.get("epochs", 5)
    epochs = before if before == "auto" else max(before, int(auto_epochs(count, fitting)))
    changes = {"batch_size": (batch, fitting), "epochs": (before, epochs)}
    changed = [f"{key} {old}" for key, (old, new) in changes.items() if old != new]
    if changed:
        train |= {"batch_size": fitting, "epochs": epochs}
        steps = f"{count} items: {max(1, count // fitting)} steps an epoch"
        comments["train"] = f"{', '.join(changed)} in the {choice_name(comments)}; {steps}"
    settings["train"] = train
    alphas = (settings.get("weight_interpolation") or {}).get("alphas", [0.25, 0.5, 0.75, 1.0])
    if "weight_interpolation" in settings and not items.sizes["validation"] and len(alphas) > 1:
        settings["weight_interpolation"] = None
        comments["weight_interpolation"] = "no item is in validation, where α is chosen"
    if not items.sizes["test"] and items.sizes["validation"]:
        settings["evaluate"] = {"split": "validation"}
        comments["evaluate"] = "no item is in test"


def choice_name(comments: dict[str, str]) -> str:
    """The built-in recipe that the comment on the strategy names."""
    return comments["strategy"].removeprefix("as in the ").partition(":")[0]


def recipe_text(data: dict[str, Any], comments: dict[str, str], file: str) -> str:
    """The file, with the next commands at its head."""
    head = (
        "# Written by domainclip init, with the reasons of its guesses. Keys: docs/reference/recipe-keys.md\n"
        f"# domainclip data check -r {file}\n"
        f"# domainclip finetune -r {file}\n"
    )
    return head + commented_yaml(data, comments)
