"""Adapt CLIP models to a domain, and prove what that gained and what it cost.

    from domainclip import Recipe, evaluate, finetune, load_model

The names are imported on first use, so that `import domainclip` and `domainclip --help` stay fast.
"""

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


def _installed_version() -> str:
    """The version of the installed distribution, which its build took from a tag; 0+unknown without one."""
    from importlib import metadata

    try:
        return metadata.version("domainclip")
    except metadata.PackageNotFoundError:
        return "0+unknown"


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name == "__version__":
        return _installed_version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
