"""The peer of `whole_run.py`: training by transformers' Trainer, and measurement as CLIP_benchmark does it.

    python benchmarks/whole_run_peer.py train CORPUS BASE ADAPTED --mode full --epochs 1 --batch 128
    python benchmarks/whole_run_peer.py evaluate CORPUS BASE ADAPTED

Training follows transformers' examples/pytorch/contrastive-image-text/run_clip.py: captions padded to the
model's length, images decoded in every epoch, `return_loss`, the Trainer's defaults; a tower is locked as its
--freeze_vision_model does. Of the measurement, each task encodes the test images in a pass of its own, as
CLIP_benchmark's zeroshot_classification.py and zeroshot_retrieval.py do. The images' transform is Pillow and
numpy, which is cheaper than the processor that a checkpoint ships. Nothing here imports domainclip.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import AutoTokenizer, CLIPModel, Trainer, TrainingArguments

TEMPLATE = "a {}"
EVALUATION_BATCH = 64  # CLIP_benchmark's default


class Pairs(Dataset):  # type: ignore[type-arg]
    """The pairs of a split: pixels and token ids."""

    def __init__(self, corpus: Path, split: str, base: Path, tokenizer: Any) -> None:
        with (corpus / "metadata.csv").open(newline="") as stream:
            self.rows = [row for row in csv.DictReader(stream) if row["split"] == split]
        self.corpus, self.shape = corpus, _Shape(base)
        self.tokens = tokenizer([row["text"] for row in self.rows], padding="max_length", truncation=True)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        image = self.shape(self.corpus / self.rows[row]["file_name"])
        return {
            "pixel_values": image,
            "input_ids": torch.tensor(self.tokens["input_ids"][row]),
            "attention_mask": torch.tensor(self.tokens["attention_mask"][row]),
        }


class _Shape:
    """Shortest side, centre, mean and deviation, as the checkpoint's processor states."""

    def __init__(self, base: Path) -> None:
        file = next(base / name for name in _PROCESSORS if (base / name).is_file())
        settings = json.loads(file.read_text())
        settings = settings.get("image_processor", settings)
        self.side = int(settings["crop_size"]["height"])
        self.mean = np.array(settings["image_mean"], np.float32)
        self.deviation = np.array(settings["image_std"], np.float32)

    def __call__(self, file: Path) -> torch.Tensor:
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        scale = self.side / min(image.size)
        size = tuple(max(self.side, round(side * scale)) for side in image.size)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        left, top = ((side - self.side) // 2 for side in image.size)
        image = image.crop((left, top, left + self.side, top + self.side))
        pixels = (np.asarray(image, dtype=np.float32) / 255 - self.mean) / self.deviation
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def train(arguments: argparse.Namespace) -> None:
    """Train and save."""
    model: Any = CLIPModel.from_pretrained(arguments.base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(arguments.base)
    if arguments.mode == "locked_image":
        for weight in model.vision_model.parameters():
            weight.requires_grad = False
    if arguments.mode == "lora":
        from peft import LoraConfig, get_peft_model

        targets = ["q_proj", "k_proj", "v_proj", "out_proj"]
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=targets))
    arguments = TrainingArguments(
        output_dir=str(arguments.adapted),
        per_device_train_batch_size=arguments.batch,
        num_train_epochs=arguments.epochs,
        learning_rate=1e-4,
        warmup_steps=0.1,
        weight_decay=0.1,
        remove_unused_columns=False,
        use_cpu=True,
        report_to=[],
    )
    trainer = _LossTrainer(
        model=model,
        args=arguments,
        train_dataset=Pairs(arguments.corpus, "train", arguments.base, tokenizer),
        data_collator=_collate,
    )
    trainer.train()
    whole = model.merge_and_unload() if arguments.mode == "lora" else model
    whole.save_pretrained(arguments.adapted)


class _LossTrainer(Trainer):
    """The Trainer asks the model for its contrastive loss, as run_clip.py's collator does."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        return model(**inputs, return_loss=True).loss


def _collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}


@torch.no_grad()
def evaluate(arguments: argparse.Namespace) -> None:
    """Print accuracy and recall of both models."""
    for folder in (arguments.base, arguments.adapted):
        for task in (classify, retrieve):
            # CLIP_benchmark loads model and data anew for each combination.
            model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
            tokenizer = AutoTokenizer.from_pretrained(arguments.base)
            pairs = Pairs(arguments.corpus, "test", arguments.base, tokenizer)
            print(folder, json.dumps(task(model, tokenizer, pairs)))


def _unit(output: Any) -> torch.Tensor:
    return F.normalize(output if isinstance(output, torch.Tensor) else output.pooler_output, dim=-1)


def classify(model: Any, tokenizer: Any, pairs: Pairs) -> dict[str, float]:
    """Zero-shot accuracy, top 1 and 5, and the mean recall of the classes."""
    from sklearn.metrics import balanced_accuracy_score

    names = sorted({row["label"] for row in pairs.rows})
    classes = torch.cat(
        [
            _unit(
                model.get_text_features(
                    **tokenizer([TEMPLATE.format(name)], padding="max_length", return_tensors="pt")
                )
            )
            for name in names
        ]
    )
    logits = torch.cat(
        [100 * _unit(model.get_image_features(batch["pixel_values"])) @ classes.T for batch in _loader(pairs)]
    )
    target = torch.tensor([names.index(row["label"]) for row in pairs.rows])
    top = logits.topk(min(5, len(names))).indices == target[:, None]
    return {
        "acc1": float(top[:, 0].float().mean()),
        "acc5": float(top.any(1).float().mean()),
        "mean_per_class_recall": float(balanced_accuracy_score(target, logits.argmax(1))),
    }


def retrieve(model: Any, tokenizer: Any, pairs: Pairs) -> dict[str, float]:
    """Recall at 1, 5 and 10 in both directions."""
    encoded = [
        (
            _unit(model.get_image_features(batch["pixel_values"])),
            _unit(
                model.get_text_features(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
            ),
        )
        for batch in _loader(pairs)
    ]
    scores = torch.cat([image for image, _ in encoded]) @ torch.cat([text for _, text in encoded]).T
    right = torch.arange(len(scores))[:, None]
    figures = {}
    for name, table in (("image", scores.T), ("text", scores)):
        hits = table.topk(min(10, len(table))).indices == right
        figures |= {f"{name}_recall@{k}": float(hits[:, :k].any(1).float().mean()) for k in (1, 5, 10)}
    return figures


def _loader(pairs: Pairs) -> DataLoader:  # type: ignore[type-arg]
    return DataLoader(pairs, batch_size=EVALUATION_BATCH, collate_fn=_collate)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=["train", "evaluate"])
    for name in ("corpus", "base", "adapted"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--mode", choices=["locked_image", "lora", "full"], default="full")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    arguments = parser.parse_args()
    train(arguments) if arguments.task == "train" else evaluate(arguments)


if __name__ == "__main__":
    main()
