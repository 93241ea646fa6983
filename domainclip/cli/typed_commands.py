"""The group of all commands: what a word that is no command probably meant, and `help`."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

# What other programs call a command.
_MEANT = {
    "train": "finetune",
    "fit": "finetune",
    "tuning": "tune",
    "fine-tune": "finetune",
    "adapt": "finetune",
    "resume": "finetune --resume --run-dir RUN",
    "evaluate": "eval",
    "test": "eval",
    "val": "eval",
    "benchmark": "eval",
    "compare": "eval A B",
    "ablation": "ablate",
    "predict": "classify",
    "infer": "classify",
    "inference": "classify",
    "describe": "caption",
    "captions": "caption",
    "retrieve": "search",
    "retrieval": "search",
    "encode": "embed",
    "embeddings": "embed",
    "convert": "export",
    "merge": "export --to transformers",
    "upload": "push",
    "publish": "push",
    "check": "data check",
    "preview": "data preview",
    "prepare": "data prepare",
    "cache": "data cache list",
    "list": "recipes list",
    "recipe": "recipes",
    "card": "cards",
    "component": "components",
    "quickstart": "demo",
    "version": "--version",
}


class Commands(TyperGroup):
    """A group that takes `help` for --help, and names the command behind the word of another program."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of the first word."""
        word, *rest = args
        if word == "help" and not rest:
            typer.echo(ctx.get_help())
            raise typer.Exit
        if word == "help":
            return super().resolve_command(ctx, [*rest, "--help"])
        if word in _MEANT and word not in self.commands:
            ctx.fail(f"No such command '{word}'. Did you mean 'domainclip {_MEANT[word]}'?")
        return super().resolve_command(ctx, args)
