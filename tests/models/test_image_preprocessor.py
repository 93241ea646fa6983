"""The pixels are those of transformers' processors, and unsupported options are refused."""

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
    "no normalizing": transformers.CLIPImageProcessorPil(**CROP, do_normalize=False),
    "no rescaling": transformers.CLIPImageProcessorPil(**CROP, do_rescale=False, image_mean=[100, 90, 80]),
}


def normalized(preprocessor: ImagePreprocessor, pixels: np.ndarray) -> np.ndarray:
    """Rescaled and normalized as on the device, in numpy, color by color."""
    scaled = np.empty(pixels.size, np.float32).reshape(-1, 3)
    for i, (mean, std) in enumerate(zip(preprocessor.mean, preprocessor.std, strict=True)):
        scaled[:, i] = (pixels.reshape(-1, 3)[:, i] * preprocessor.rescale - mean) / std
    return scaled.reshape(pixels.shape)


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_processor_of_transformers(name: str, size: tuple[int, int]) -> None:
    processor = PROCESSORS[name]
    preprocessor = ImagePreprocessor.of(processor, "base")
    image = noise(*size)
    pixels = preprocessor(image)["pixels"]
    assert pixels.dtype == np.uint8
    assert pixels.shape == (*preprocessor.size, 3)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(normalized(preprocessor, pixels).transpose(2, 0, 1), expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_patches_equal_those_of_transformers(size: tuple[int, int]) -> None:
    processor = transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    preprocessor = ImagePreprocessor.of(processor, "base")
    image = noise(*size)
    ours, theirs = preprocessor(image), processor(image, return_tensors="np")
    count = int(ours["grid"].prod())
    assert ours["pixels"].shape == (16, 8 * 8 * 3)
    assert not ours["pixels"][count:].any()
    np.testing.assert_array_equal(ours["grid"], theirs["spatial_shapes"][0])
    assert theirs["pixel_attention_mask"][0].sum() == count
    np.testing.assert_allclose(
        normalized(preprocessor, ours["pixels"])[:count], theirs["pixel_values"][0][:count], atol=1e-5
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


def test_it_is_a_small_value_that_can_be_pickled() -> None:
    preprocessor = ImagePreprocessor.of(PROCESSORS["clip"], "base")
    copy = pickle.loads(pickle.dumps(preprocessor))
    assert copy == preprocessor
    assert copy.fingerprint() == preprocessor.fingerprint()
    assert len(pickle.dumps(preprocessor)) < 1000


def test_fingerprints_differ_between_processors() -> None:
    keys = {ImagePreprocessor.of(processor, "base").fingerprint() for processor in PROCESSORS.values()}
    assert len(keys) == len(PROCESSORS)


def test_a_very_narrow_image_is_refused_before_it_fills_the_memory() -> None:
    preprocessor = ImagePreprocessor.of(PROCESSORS["clip"], "base")
    with pytest.raises(DataError) as caught:
        preprocessor(Image.new("RGB", (1, 300_000)))
    assert str(caught.value) == "an image of 1 by 300000 pixels is too narrow to be resized"


REMEDY = "; choose a base that resizes, crops and normalizes only"


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
def test_an_unsupported_option_is_refused(options: dict[str, Any], fault: str) -> None:
    processor = transformers.CLIPImageProcessorPil(**{**CROP, **options})
    with pytest.raises(ModelError) as caught:
        ImagePreprocessor.of(processor, 'base "x"')
    assert str(caught.value) == f'base "x": {fault}{REMEDY}'


def test_a_processor_with_additional_steps_is_refused() -> None:
    with pytest.raises(ModelError) as caught:
        ImagePreprocessor.of(transformers.ConvNextImageProcessorPil(), 'base "x"')
    fault = "ConvNextImageProcessor has additional options (crop_pct), which are not supported"
    assert str(caught.value) == f'base "x": {fault}{REMEDY}'
