"""Trains the quickstart base: a 2-million-weight CLIP that has seen generated pictures and nothing else.

    python examples/make_base.py examples/quickstart/base    (22 minutes on one busy core, bf16)

On 800 held-out pictures of 40 classes its zero-shot accuracy is 0.86 (chance 0.025).

The base is general on purpose: no radiograph, no medical word. Its tokenizer knows the words of the
captions and common English, so that a medical word falls apart into pieces, as it does with a real base.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from generated_pictures import CLASSES, HELD_OUT_SEED, Picture, make
from tokenizers import pre_tokenizers
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

MERGES = 1200
CONTEXT = 77
PEAK = 8e-4  # learning rate

# Only for the tokenizer: common words that the captions do not use.
COMMON_WORDS = """
about above across after again against air all almost alone along already also always among another answer
any appear are area around ask away back bad base because become been before began behind being below best
better between body book born bottom boy break bring brought build but call came can care carry change child
children city class clear close cold come common complete contain could country course cover cross cut day
deep did different direct do does done door down draw drive dry during each early earth ease east eat end
enough even every example eye fact fall family far farm fast father feel feet few field figure final find
fire first five follow food foot force form found four free friend from front full game gave get girl give
go gold good govern great group grow had half hand happen hard has have he head hear heat heavy help her
here high him his hold home horse hot hour how hundred idea if inch interest into island just keep kind king
knew know land language last late laugh lay lead learn leave less let letter life list listen live long look
low machine made main make man many map mark matter may mean measure men might mile mind minute miss money
more morning most mother mountain move much must name near need never new next night north note nothing
notice now number object often old once only open or order other our out over own page paper part pass
pattern people perhaps person piece place plain plan plane plant play point power present press problem
produce pull put question quick rain ran reach read ready real record remember rest river road rock room
rule run said same saw say school science sea second seem self sentence serve set several shape she ship
short should show side simple since sing sit six sleep slow snow so some song soon sound south space special
stand start state stay step still stood stop story street strong study such sure surface system table take
talk teach tell ten test than that their them then these they thing think this those though thought thousand
through time together told too took top toward town travel tree true try turn under unit until up usual very
voice vowel wait walk want war warm was watch water way week weight well went were west what wheel when
where which while who whole why will wind wish with wonder wood word work world would write year you young
your
"""


def train_tokenizer(captions: list[str]) -> CLIPTokenizer:
    """CLIP's byte-level tokenizer, with merges learned from captions and common words."""
    tokenizer = CLIPTokenizer().backend_tokenizer
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = BpeTrainer(
        vocab_size=2 * len(letters) + MERGES,
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([*captions, *COMMON_WORDS.split() * 20], trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]][:MERGES]
    # Every byte stands alone and as a word's end: without that, an unseen letter would be read as the end
    # of the text, because CLIP's unknown token is its end token.
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT)


def new_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The architecture: 64 pixels in patches of 8, four image layers and three text layers."""
    image = {"image_size": 64, "patch_size": 8, "hidden_size": 160, "intermediate_size": 640}
    image |= {"num_hidden_layers": 4, "num_attention_heads": 5}
    text = {"max_position_embeddings": CONTEXT, "hidden_size": 128, "intermediate_size": 512}
    text |= {"num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": len(tokenizer)}
    text |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model = CLIPModel(CLIPConfig(vision_config=image, text_config=text, projection_dim=128))
    # Which patch is beside which would cost a transformer many pictures to find out: it starts from waves.
    place = np.mgrid[:8, :8].reshape(2, 64, 1) / 100 ** (np.arange(40) / 40)
    waves = np.concatenate([*np.sin(place), *np.cos(place)], axis=1)
    model.vision_model.embeddings.position_embedding.weight.data[1:] = 0.2 * torch.tensor(waves)
    return model


def loss_of(model: CLIPModel, processor: CLIPProcessor, pictures: list[Picture]) -> Tensor:
    """The symmetric contrastive loss over captions, and the choice among the bare names of all classes.

    Captions alone are matched by colour and place long before the shape is seen.
    """
    captions = [picture.caption for picture in pictures]
    texts = [*captions, *(f"A {name}." for name in CLASSES)]
    images = [picture.image for picture in pictures]
    inputs = processor(text=texts, images=images, return_tensors="pt", padding=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(**inputs)
    own, names = out.logits_per_image.float().split([len(captions), len(CLASSES)], dim=1)
    same = torch.tensor([[a == b for b in captions] for a in captions]) & ~torch.eye(len(captions)).bool()
    own = own.masked_fill(same, -torch.inf)  # equal captions are not each other's negatives
    target = torch.arange(len(captions))
    contrast = (F.cross_entropy(own, target) + F.cross_entropy(own.T, target)) / 2
    return contrast + F.cross_entropy(names, torch.tensor([CLASSES.index(p.name) for p in pictures]))


def train(model: CLIPModel, processor: CLIPProcessor, steps: int, batch_size: int) -> None:
    """AdamW, one cycle, fresh pictures at every step; simple ones first, for shapes are learned on those."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, steps, pct_start=0.1)
    for step in range(steps):
        ease = max(0.0, 1 - 2 * step / steps)
        loss = loss_of(model, processor, make(0, batch_size, start=step * batch_size, ease=ease))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=np.log(100))
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:5d} of {steps}  loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def accuracy(model: CLIPModel, processor: CLIPProcessor, count: int = 800) -> float:
    """Zero-shot, one template, on held-out pictures."""
    pictures = make(HELD_OUT_SEED, count)
    texts = processor(text=[f"A {name}." for name in CLASSES], return_tensors="pt", padding=True)
    hits = 0
    for start in range(0, count, 100):
        part = pictures[start : start + 100]
        images = processor(images=[picture.image for picture in part], return_tensors="pt")
        found = model(**texts, **images).logits_per_image.argmax(dim=1)
        hits += sum(CLASSES[k] == picture.name for k, picture in zip(found, part, strict=True))
    return hits / count


def main() -> None:
    """Train, measure on held-out pictures, save."""
    parser = argparse.ArgumentParser(description="Train the quickstart base.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2200)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokenizer = train_tokenizer([picture.caption for picture in make(seed=1, count=20000)])
    image = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    processor = CLIPProcessor(image_processor=image, tokenizer=tokenizer)
    model = new_model(tokenizer)
    train(model, processor, options.steps, options.batch_size)
    print(f"held-out pictures: zero-shot accuracy {accuracy(model, processor):.3f}")
    # Half the bytes in the repository; the config still says float32, so that every loader computes in it.
    halves = {name: weight.half() for name, weight in model.state_dict().items()}
    model.save_pretrained(options.folder, state_dict=halves)
    processor.save_pretrained(options.folder)


if __name__ == "__main__":
    main()
