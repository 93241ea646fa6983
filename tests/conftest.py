"""Shared fixtures: one tiny base, one tiny corpus, made once."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

from domainclip.distributed import phases
from tests.support.tiny_models import tiny_clip

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220), "white": (240, 240, 240)}
ITEMS = 64


# Files that train whole runs, start processes or wait: `make test-fast` leaves them out. Measured with --durations.
WHOLE_RUNS = {
    *("cli/test_app.py", "test_extending.py", "distributed/test_timeout.py"),
    *("data/images/test_image_faults.py", "data/test_streaming.py", "data/batching/test_pixel_cache.py"),
    *(
        "data/checks/test_leakage.py",
        "data/readers/test_webdataset.py",
        "data/images/test_near_duplicates.py",
    ),
    *(
        "evaluation/test_contamination.py",
        "evaluation/test_evaluate.py",
        "evaluation/test_embedding_cache.py",
    ),
    *("evaluation/test_verdicts.py", "evaluation/statistics/test_intervals.py"),
    *("evaluation/probes/test_all_probes.py", "models/test_onednn.py"),
    *(
        "objectives/test_three_towers.py",
        "objectives/test_extra_text_objectives.py",
        "report/test_hostile.py",
    ),
    *("pipelines/test_finetune_seeds.py", "pipelines/test_tuning.py", "pipelines/test_merge_runs.py"),
    *("pipelines/test_ablation.py", "pipelines/test_api.py", "pipelines/test_data_prepare.py"),
    *("pipelines/test_external_evaluation.py", "pipelines/test_search_recipes.py"),
    *("pipelines/test_evaluate.py", "pipelines/test_protocol.py", "pipelines/export/test_onnx_form.py"),
    *("strategies/test_multi_frame.py", "strategies/test_replace_text_tower.py"),
    *("strategies/test_prompt_learning.py", "strategies/test_exact_steps.py"),
    *("strategies/test_training_free.py", "strategies/test_retrieval_fusion.py"),
    "strategies/test_backbone_ensemble.py",
    *(
        "training/test_stages.py",
        "training/test_fsdp.py",
        "training/test_memory.py",
        "training/test_pair_selection.py",
        "training/test_precompute.py",
        "training/test_step.py",
    ),
    *(
        "data/curation/test_cluster_batches.py",
        "objectives/losses/test_blockwise.py",
        "training/test_views.py",
    ),
    *(
        "evaluation/probes/test_modality_gap.py",
        "training/test_validation.py",
        "pipelines/plan/test_cluster.py",
    ),
    *("examples/test_quickstart_base.py", "examples/test_generated_pictures.py"),
    *("training/test_micro_batch_size.py", "training/monitoring/test_trackers.py"),
}


# The longest tests, four seconds or more: `make test` leaves them out, `make test-long` runs them, and so does CI.
LONG = {
    "test_a_folder_of_another_recipe_is_not_taken_for_it",
    "test_a_folder_of_dicom_files_is_read_once",
    "test_a_job_that_is_ended_by_its_time_limit_ends_bit_equal",
    "test_a_measured_micro_batch_is_written_down_and_not_measured_again",
    "test_a_prepared_corpus_trains_the_same_weights",
    "test_a_process_that_stops_answering_is_named",
    "test_a_run_goes_on_from_any_folder",
    "test_a_run_goes_on_in_parts",
    "test_a_run_learns_the_same_whether_anyone_looks",
    "test_a_run_of_the_recipe_classifies_as_it_was_measured",
    "test_a_run_of_the_recipe_grows_the_base",
    "test_a_run_of_the_recipe_is_compared_with_the_base_at_its_own_size",
    "test_a_run_of_the_recipe_learns_from_pseudo_labels_alone",
    "test_a_run_removes_the_source_and_saves_it",
    "test_a_run_resumed_between_two_choices_ends_bit_equal",
    "test_a_run_resumed_with_queues_and_averages_ends_bit_equal",
    "test_a_run_stands_against_the_base_as_published",
    "test_a_seed_that_fails_is_named_and_the_others_are_reported",
    "test_a_signal_to_the_launcher_saves_once",
    "test_a_slow_process_is_waited_for",
    "test_a_stopped_run_takes_the_same_course",
    "test_a_stream_trains_and_resumes_to_the_same_weights",
    "test_a_whole_search_chooses_on_validation_and_goes_on",
    "test_at_weight_0_it_is_contrastive_bit_by_bit",
    "test_base_and_adapted_are_measured_on_the_same_pictures",
    "test_compiled_layers_can_be_computed_again_in_the_backward_pass",
    "test_compiled_layers_give_the_same_gradients",
    "test_every_pair_once_an_epoch_in_another_order",
    "test_kept_pixels_change_no_weight",
    "test_kill_9_at_any_moment_loses_no_more_than_time",
    "test_killed_and_resumed_ends_bit_equal",
    "test_models_and_the_main_job_without_torchvision",
    "test_nobody_leaves_before_all_have_come",
    "test_nothing_tells_of_her",
    "test_one_stage_is_the_plain_strategy_bit_by_bit",
    "test_one_two_and_four_processes_in_turn",
    "test_other_workers_after_a_resume",
    "test_resumed_at_every_checkpoint_ends_bit_equal",
    "test_resumed_at_every_step_ends_bit_equal",
    "test_runs_of_their_own_process",
    "test_shared_weights_learn_what_whole_ones_do",
    "test_stopped_after_every_step",
    "test_the_base_stays_where_no_variant_qualifies",
    "test_the_best_step_stays_and_is_taken",
    "test_the_chosen_variant_alone_is_measured_on_the_test_split",
    "test_the_chosen_variant_and_the_reference_are_measured_on_the_test_split",
    "test_two_launched_processes_train_what_one_does",
    "test_two_machines_train_what_one_process_does",
    "test_two_processes_each_with_its_rows",
    "test_two_processes_find_what_one_finds",
    "test_two_processes_leave_out_what_one_does",
    "test_two_processes_make_one_entry",
    "test_two_processes_remember_what_one_does",
    "test_two_processes_see_what_one_sees",
    "test_two_processes_switch_together",
    "test_two_processes_train_what_one_does",
    "test_two_seeds_are_two_runs_and_one_report",
    "test_what_is_kept_gives_the_weights_of_the_plain_path",
    "test_what_is_not_valid_of_one_run_is_not_of_the_table",
    "test_what_objectives_leave_in_a_model_is_saved_measured_and_loaded",
    "test_what_the_base_takes_is_what_is_prepared",
    "test_what_was_interrupted_goes_on_and_what_failed_is_written_down",
    "test_workers_processes_and_a_resume_change_nothing",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of whole runs: all of tests/system, and the files listed above."""
    tests = Path(__file__).parent
    for item in items:
        file = item.path.relative_to(tests).as_posix()
        if file.startswith("system/") or file in WHOLE_RUNS:
            item.add_marker("run")
        if item.name.partition("[")[0] in LONG:
            item.add_marker("long")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _one_secret() -> Iterator[None]:
    """Pseudonyms, and what follows from their order, are the same on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOMAINCLIP_SECRET", "for tests")
        yield


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the home of whoever runs it, and none reaches a hub."""
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp() / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(phases, "FIRST_SECONDS", 1e6)  # no line, however slow the machine is
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-layer CLIP of random weights; read it, never write to it."""
    return tiny_clip(tmp_path_factory.mktemp("base") / "clip")


def make_corpus(folder: Path, items: int = ITEMS) -> Path:
    """Coloured squares with captions, two pictures a group, classes by colour: a table with its images."""
    (folder / "images").mkdir(parents=True)
    names = sorted(COLOURS)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file_name", "text", "label", "group_id", "split"])
        for i in range(items):
            colour, side = names[i // 2 % 4], 8 + i % 16
            picture = Image.new("RGB", (40, 36), (10, 10, 10))
            ImageDraw.Draw(picture).rectangle((i % 10, 3, i % 10 + side, 3 + side), fill=COLOURS[colour])
            picture.save(folder / "images" / f"{i:03d}.png")
            split = ("train", "train", "train", "val", "test", "train", "train", "test")[i // 8 % 8]
            rows.writerow([f"images/{i:03d}.png", f"a {colour} square {side}", colour, f"g{i // 2}", split])
    return folder


def with_general(recipe_file: Path, folder: Path, items: int) -> Path:
    """The recipe with a general set: the squares as negatives, so that no picture is one of the corpus."""
    for file in (make_corpus(folder, items) / "images").glob("*.png"):
        with Image.open(file) as picture:
            negative = ImageOps.invert(picture)
        negative.save(file)
    columns = "{image: file_name, texts: text, labels: label, group: group_id, split: split}"
    said = f'path: {folder}, columns: {columns}, templates: ["a {{}} square"], min_items: 1'
    with recipe_file.open("a", encoding="utf-8") as stream:
        stream.write(f"retention: {{{said}}}\n")
    return recipe_file


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus; read it, never write to it."""
    return make_corpus(tmp_path_factory.mktemp("corpus") / "squares")


RECIPE = """
base: {{path: {base}}}
corpus:
  path: {corpus}
  columns: {{image: file_name, texts: text, labels: label, group: group_id, split: split}}
  templates: ["a {{}} square"]
  min_items: 1
  privacy: {{identifiers: none, burned_in_text: "no"}}
strategy: full
train: {{epochs: 3, batch_size: 16, learning_rate: 1e-3, save_every: 2, keep_checkpoints: 3}}
evaluate: {{bootstrap_samples: 100}}
"""


@pytest.fixture
def recipe_file(tmp_path: Path, base: Path, corpus: Path) -> Path:
    """A recipe that trains the tiny base on the tiny corpus in a second."""
    file = tmp_path / "squares.yaml"
    file.write_text(RECIPE.format(base=base, corpus=corpus), encoding="utf-8")
    return file
