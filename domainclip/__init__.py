"""Adapt CLIP models to a domain, and prove what that gained and what it cost.

    from domainclip import Recipe, evaluate, finetune, load_model

The names are imported on first use, so that `import domainclip` and `domainclip --help` stay fast.
"""

__version__ = "0.1.0"
__all__ = ["AdaptedModel", "Recipe", "__version__", "evaluate", "finetune", "load_model", "load_recipe"]

_HOMES = {
    "AdaptedModel": "domainclip.inference.adapted_model",
    "Recipe": "domainclip.config.recipe",
    "evaluate": "domainclip.pipelines.api",
    "finetune": "domainclip.pipelines.api",
    "load_model": "domainclip.inference.adapted_model",
    "load_recipe": "domainclip.config.loading",
}


def _stay_offline() -> None:
    """In a process that another one started, as a worker of a run."""
    import os

    if os.environ.get("DOMAINCLIP_OFFLINE"):
        from domainclip.config import offline

        if offline.is_offline():
            offline.go_offline()


_stay_offline()


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
