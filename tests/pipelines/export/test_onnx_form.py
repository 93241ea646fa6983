"""ONNX graphs give the embeddings of the run for any number of items; each test uses one conversion."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from domainclip.errors import ModelError
from domainclip.evaluation import run_classes
from domainclip.inference.adapted_model import load_model
from domainclip.models import loading
from domainclip.models.saving import save_model
from domainclip.pipelines.export import check, onnx_graph, onnx_precision, record
from domainclip.pipelines.export.export import export
from domainclip.pipelines.export.onnx_form import OnnxForm, OnnxModel, write_tokenizer
from domainclip.pipelines.export.request import Precision, make_request
from domainclip.pipelines.export.source import TEXTS, drawn_images, open_source
from tests.pipelines.export.conftest import CLASSES
from tests.support import tiny_models
from tests.support.run_folders import made_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one layer a tower: the conversion takes a second for each."""
    folder = made_run(tmp_path_factory.mktemp("onnx") / "run", lora=False)
    model = loading.load_model(folder / "model")
    for tower, config in (
        (model.hf_base.vision_model, model.hf_base.config.vision_config),
        (model.hf_base.text_model, model.hf_base.config.text_config),
    ):
        tower.encoder.layers = tower.encoder.layers[:1]
        config.num_hidden_layers = 1
    save_model(model, folder / "model")
    run_classes.save(folder / "model", CLASSES)
    return folder


@pytest.fixture(scope="module")
def folder(run: Path) -> Path:
    export(make_request(run, "onnx", run.parent / "out"))
    return run.parent / "out"


def test_the_graphs(folder: Path, run: Path) -> None:
    about = record.load(folder)
    assert about.check is not None
    assert about.check.largest_difference <= 1e-5  # 1e-4 is allowed
    assert about.check.same_class == about.check.same_first_text == 1.0
    assert about.files["opset"] == onnx_graph.OPSET == 18
    assert {file.name for file in folder.iterdir()} == {
        *("README.md", "export.json", "image.onnx", "text.onnx", "tokenizer.json"),
    }
    image, text = (onnx.load(str(folder / name)) for name in ("image.onnx", "text.onnx"))
    for graph in (image, text):
        onnx.checker.check_model(graph)
        assert [one.version for one in graph.opset_import if not one.domain] == [18]
        # The exporter notes the lines of Python that each node comes from, with their paths.
        assert b".py" not in graph.SerializeToString()
    assert _shape(image.graph.input[0]) == ("pixel_values", ["batch", 3, 32, 32])
    assert _shape(text.graph.input[0]) == ("input_ids", ["batch", "length"])
    assert _shape(image.graph.output[0]) == ("image_embeds", ["batch", 16])


@pytest.mark.parametrize("count", [1, 5])
def test_any_number_of_items(folder: Path, run: Path, count: int) -> None:
    exported, model = OnnxModel(folder, record.load(folder)), load_model(run)
    images, texts = drawn_images(count), TEXTS[-count:]
    np.testing.assert_allclose(exported.encode_images(images), model.encode_images(images), atol=1e-5)
    np.testing.assert_allclose(exported.encode_texts(texts), model.encode_texts(texts), atol=1e-5)


def test_a_weight_that_differs_is_noticed(folder: Path, run: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(folder, tmp_path / "damaged"))
    graph = onnx.load(str(damaged / "text.onnx"))
    weight = next(one for one in graph.graph.initializer if len(one.dims) == 2 and one.dims[0] == 32)
    weight.CopyFrom(onnx.numpy_helper.from_array(1.01 * onnx.numpy_helper.to_array(weight), weight.name))
    onnx.save_model(graph, str(damaged / "text.onnx"))
    with pytest.raises(ModelError, match=r"more than 0\.0001; nothing is written"):
        check.check(OnnxForm(), open_source(run), OnnxForm().load(damaged))


@pytest.mark.parametrize(("precision", "lowest", "highest"), [("fp16", 1e-5, 5e-3), ("int8", 1e-3, 0.2)])
def test_reduced_precision_is_measured(
    folder: Path, run: Path, tmp_path: Path, precision: Precision, lowest: float, highest: float
) -> None:
    out = Path(shutil.copytree(folder, tmp_path / "out"))
    for name in ("image.onnx", "text.onnx"):
        onnx_precision.reduce(out / name, precision)
        assert (out / name).stat().st_size < 0.9 * (folder / name).stat().st_size
    form = OnnxForm(precision=precision)
    found = check.check(form, open_source(run), form.load(out))
    assert found.tolerance is None
    assert lowest < found.largest_difference < highest
    assert found.same_first_text is not None
    assert found.same_first_text > 0.7
    assert {file.name for file in out.iterdir()} == {file.name for file in folder.iterdir()}


def test_products_that_narrow_a_layer_stay_in_float(folder: Path, tmp_path: Path) -> None:
    """Their inputs have few very large values, whose common scale would leave nothing of the others."""
    shutil.copy(folder / "text.onnx", tmp_path)
    onnx_precision.reduce(tmp_path / "text.onnx", "int8")
    assert _narrowing(folder / "text.onnx") == _narrowing(tmp_path / "text.onnx") == [(64, 32)]
    graph = onnx.load(str(tmp_path / "text.onnx")).graph
    assert "MatMulInteger" in {node.op_type for node in graph.node}


def _narrowing(file: Path) -> list[tuple[int, ...]]:
    graph = onnx.load(str(file)).graph
    shapes = {
        one.name: tuple(one.dims) for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT
    }
    products = [shapes.get(node.input[1], (0, 0)) for node in graph.node if node.op_type == "MatMul"]
    return [shape for shape in products if shape[0] > shape[1]]


def test_the_readme_gives_the_answers_of_classify(
    folder: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (folder / "README.md").read_text()
    assert "library_name: onnx\n" in text
    assert "\n### ▼ Got worse\n" in text  # the card of the run, with its losses
    assert "| largest difference of an embedding |" in text
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    image = drawn_images(3)[2]
    image.save(folder / "image.png")
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {})
    os.remove("image.png")
    printed = json.loads(capsys.readouterr().out.replace("'", '"'))
    expected = load_model(run).classify([image])[0].probabilities
    assert printed == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("family", ["tiny_siglip", "tiny_chinese_clip", "tiny_altclip", "tiny_metaclip_2"])
def test_the_tokenizer_alone(tmp_path: Path, family: str) -> None:
    """The library tokenizers gives the ids of the model, truncated and padded, without any option."""
    from tokenizers import Tokenizer

    model = loading.load_model(getattr(tiny_models, family)(tmp_path / "base"))
    write_tokenizer(model.text_tokenizer, tmp_path / "tokenizer.json")
    rows = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode_batch(TEXTS)
    expected = model.text_tokenizer(TEXTS)
    assert [row.ids for row in rows] == expected["input_ids"].tolist()
    if "attention_mask" in expected:
        assert [row.attention_mask for row in rows] == expected["attention_mask"].tolist()


def test_lower_case_goes_into_the_tokenizer(base: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    model = loading.load_model(tiny_models.tiny_siglip(tmp_path / "base"))
    model.text_tokenizer.lower_case = True
    write_tokenizer(model.text_tokenizer, tmp_path / "tokenizer.json")
    upper, lower = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode_batch(
        ["A RED CAT", "a red cat"]
    )
    assert upper.ids == lower.ids


def test_images_of_any_shape_are_refused(tmp_path: Path) -> None:
    save_model(loading.load_model(tiny_models.tiny_siglip2_naflex(tmp_path / "base")), tmp_path / "run/model")
    with pytest.raises(ModelError) as caught:
        export(make_request(tmp_path / "run", "onnx", tmp_path / "out"))
    assert str(caught.value) == (
        f"{tmp_path}/run: cannot be exported to onnx: family siglip2 reads images of any shape as patches, for which "
        "there is no fixed input: use --to transformers"
    )
    assert not (tmp_path / "out").exists()


def _shape(value: onnx.ValueInfoProto) -> tuple[str, list[str | int]]:
    return value.name, [one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim]
