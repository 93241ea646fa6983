from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from domainclip.errors import DataError, ModelError
from domainclip.models.image_preprocessor import ImagePreprocessor
from tests.support.tiny_models import noise

# Portrait, landscape, odd, smaller than the target, a single column, a single row, a single pixel.
SIZES = [(32, 32), (33, 31), (47, 101), (640, 481), (5, 7), (3, 64), (1, 9), (9, 1), (1, 1), (500, 31)]
CROP = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
PROCESSORS = {
    "clip": transformers.CLIPImageProcessorPil(**CROP),
    "crop larger than resize": transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 20}, crop_size={"height": 33, "width": 24}
    ),
    "exact, then crop": transformers.CLIPImageProcessorPil(
        size={"height": 40, "width": 36}, crop_size={"height": 32, "width": 31}
    ),
    "siglip": transformers.SiglipImageProcessorPil(size={"height": 32, "width": 24}),
    "vit": transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}),
    "lanczos": transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=1),
    "no normalising": transformers.CLIPImageProcessorPil(**CROP, do_normalize=False),
    "no rescaling": transformers.CLIPImageProcessorPil(**CROP, do_rescale=False, image_mean=[100, 90, 80]),
}


def normalised(preprocess: ImagePreprocessor, pixels: np.ndarray) -> np.ndarray:
    """As the device does it, here in numpy and in one line for each colour."""
    scaled = np.empty(pixels.size, np.float32).reshape(-1, 3)
    for i, (mean, std) in enumerate(zip(preprocess.mean, preprocess.std, strict=True)):
        scaled[:, i] = (pixels.reshape(-1, 3)[:, i] * preprocess.rescale - mean) / std
    return scaled.reshape(pixels.shape)


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_processor_of_transformers(name: str, size: tuple[int, int]) -> None:
    processor = PROCESSORS[name]
    preprocess = ImagePreprocessor.of(processor, "base")
    image = noise(*size)
    pixels = preprocess(image)["pixels"]
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*preprocess.size, 3)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(normalised(preprocess, pixels).transpose(2, 0, 1), expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_patches_equal_those_of_transformers(size: tuple[int, int]) -> None:
    processor = transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    preprocess = ImagePreprocessor.of(processor, "base")
    image = noise(*size)
    ours, theirs = preprocess(image), processor(image, return_tensors="np")
    count = int(ours["grid"].prod())
    assert ours["pixels"].shape == (16, 8 * 8 * 3)
    assert not ours["pixels"][count:].any()
    np.testing.assert_array_equal(ours["grid"], theirs["spatial_shapes"][0])
    assert theirs["pixel_attention_mask"][0].sum() == count
    np.testing.assert_allclose(
        normalised(preprocess, ours["pixels"])[:count], theirs["pixel_values"][0][:count], atol=1e-5
    )


def test_the_filter_matters() -> None:
    image = noise(47, 101)
    bicubic, lanczos = (ImagePreprocessor.of(PROCESSORS[name], "base") for name in ("siglip", "lanczos"))
    assert (bicubic(image)["pixels"][:24, :24] != lanczos(image)["pixels"][:24, :24]).any()


def test_older_configs_with_bare_numbers(tmp_path: Path) -> None:
    text = '{"feature_extractor_type": "CLIPFeatureExtractor", "size": 32, "crop_size": 32, "resample": 3}'
    (tmp_path / "preprocessor_config.json").write_text(text)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    assert ImagePreprocessor.of(processor, "base") == ImagePreprocessor.of(PROCESSORS["clip"], "base")


def test_is_a_value_that_workers_can_be_sent() -> None:
    preprocess = ImagePreprocessor.of(PROCESSORS["clip"], "base")
    sent = pickle.loads(pickle.dumps(preprocess))
    assert sent == preprocess
    assert sent.fingerprint() == preprocess.fingerprint()
    assert len(pickle.dumps(preprocess)) < 1000


def test_fingerprints_tell_processors_apart() -> None:
    keys = {ImagePreprocessor.of(processor, "base").fingerprint() for processor in PROCESSORS.values()}
    assert len(keys) == len(PROCESSORS)


def test_a_sliver_is_refused_before_it_fills_the_memory() -> None:
    preprocess = ImagePreprocessor.of(PROCESSORS["clip"], "base")
    with pytest.raises(DataError) as caught:
        preprocess(Image.new("RGB", (1, 300_000)))
    assert str(caught.value) == "an image of 1 by 300000 pixels is too narrow to be resized"


WAY_OUT = "; choose a base that resizes, crops and normalises only"


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"do_pad": True}, "preprocessor option do_pad: true is not supported"),
        ({"do_resize": False}, "preprocessor option do_resize: false is not supported"),
        ({"do_center_crop": False}, "preprocessor option do_center_crop: false leaves any shape"),
        (
            {"size": {"shortest_edge": 32, "longest_edge": 64}},
            "preprocessor option size: {'longest_edge': 64, 'shortest_edge': 32} is not supported",
        ),
    ],
    ids=str,
)
def test_an_option_that_would_be_left_out_is_refused(options: dict[str, Any], fault: str) -> None:
    processor = transformers.CLIPImageProcessorPil(**{**CROP, **options})
    with pytest.raises(ModelError) as caught:
        ImagePreprocessor.of(processor, 'base "x"')
    assert str(caught.value) == f'base "x": {fault}{WAY_OUT}'


def test_a_processor_with_steps_of_its_own_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        ImagePreprocessor.of(transformers.ConvNextImageProcessorPil(), 'base "x"')
    named = "ConvNextImageProcessor has options of its own (crop_pct), not supported"
    assert str(caught.value) == f'base "x": {named}{WAY_OUT}'
