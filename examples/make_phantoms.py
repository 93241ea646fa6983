"""Chest phantoms: drawn radiographs as real DICOM files, with reports. No person was ever imaged.

    python examples/make_phantoms.py FOLDER --patients 420        (about 10 seconds, 800 images)

Each patient has one anatomy and one to three studies; each study has one main finding, or is normal.
The table reports.csv names the files. As in a real archive some files are stored inverted (MONOCHROME1),
some are compressed, and every header holds a name, a birth date and dates, all of them made up. Left and
right are the patient's, so the patient's left is the right of the picture. Same seed, same bytes.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

COLUMNS = "file_name findings impression label patient_id laterality age sex view".split()
LABELS = ("normal", "cardiomegaly", "pleural effusion", "pneumothorax", "consolidation", "nodule")
WHITE = 4095  # twelve bits, stored in sixteen

# What is said of a finding that is there; the first words of a report, in a radiologist's short style.
PRESENT = {
    "normal": "The lungs are clear.|Both lungs are clear.|Normal chest.|No focal abnormality in either lung.",
    "cardiomegaly": "The heart is enlarged.|There is {size} cardiomegaly.|Enlarged cardiac silhouette."
    "|{size} enlargement of the heart.|The heart is wide, with a cardiothoracic ratio above one half.",
    "pleural effusion": "There is a {size} pleural effusion {on}.|{size} pleural effusion {on}."
    "|Fluid in the pleural space {on}, {size} in amount.|Blunted costophrenic angle {on}: {size} effusion.",
    "pneumothorax": "There is a {size} pneumothorax {on}.|{size} pneumothorax {on}."
    "|Pleural line {on} with no lung markings beyond it.|Air in the pleural space {on}: {size} pneumothorax.",
    "consolidation": "Consolidation in the {side} {zone} zone.|Hazy opacity in the {zone} part of the {side} lung."
    "|There is a {size} area of consolidation in the {side} {zone} zone.|{size} patchy opacity, {side} {zone} lung.",
    "nodule": "A {size} round nodule in the {side} {zone} zone.|Solitary nodule in the {zone} part of the {side} lung."
    "|There is a {size} round spot in the {side} {zone} lung.|{size} pulmonary nodule, {side} {zone} zone.",
}
ABSENT = {
    "cardiomegaly": "Heart size is normal.|The heart is not enlarged.|Normal heart.",
    "pleural effusion": "No pleural effusion.|The costophrenic angles are sharp.|No effusion on either side.",
    "pneumothorax": "No pneumothorax.|There is no pneumothorax.|No sign of a pneumothorax.",
    "consolidation": "No consolidation.|No focal opacity.|Lungs without consolidation.",
    "nodule": "No nodule.|No nodule or mass is seen.|There is no round opacity.",
}
IMPRESSION = {
    "normal": "No acute finding.|Normal study.|Normal chest radiograph.|No active disease.",
    "cardiomegaly": "Cardiomegaly.|{size} cardiomegaly.|Enlarged heart, otherwise normal.",
    "pleural effusion": "Pleural effusion {on}.|{size} pleural effusion {on}.|Pleural fluid {on}.",
    "pneumothorax": "Pneumothorax {on}.|{size} pneumothorax {on}.|Air in the pleural space {on}.",
    "consolidation": "Consolidation, {side} {zone} zone.|{side} {zone} zone pneumonia.|{side} {zone} consolidation.",
    "nodule": "Nodule, {side} {zone} zone.|{side} {zone} lung nodule.|{size} nodule in the {side} {zone} lung.",
}
SIZES = {"small": "small|mild|slight", "moderate": "moderate", "large": "large|marked|extensive"}
SIDES = {"right": -1, "left": 1}  # where the patient's side stands in the picture


@dataclass(frozen=True)
class Study:
    """One radiograph to draw and report."""

    seed: int
    patient: int
    number: int
    label: str
    laterality: str  # right | left | both | "" where the finding has no side
    zone: str  # upper | lower | ""
    size: str
    age: int
    sex: str
    view: str  # PA | AP
    inverted: bool  # stored as MONOCHROME1
    syntax: str

    @property
    def file_name(self) -> str:
        return f"images/{self.patient:04d}_{self.number}.dcm"

    @property
    def patient_id(self) -> str:
        return f"PHANTOM-{self.patient:04d}"

    def rng(self, stream: int) -> Generator:
        return np.random.default_rng([self.seed, self.patient, self.number, stream])


def studies(seed: int, patients: int) -> list[Study]:
    """All studies, patient after patient; a patient's do not depend on how many patients there are."""
    return [study for patient in range(1, patients + 1) for study in _patient(seed, patient)]


def _patient(seed: int, patient: int) -> list[Study]:
    rng = np.random.default_rng([seed, patient])
    age, sex = int(rng.integers(19, 90)), str(rng.choice(["F", "M"]))
    made = []
    for number in range(1, int(rng.integers(1, 4)) + 1):
        label = str(rng.choice(LABELS, p=[0.25, 0.15, 0.15, 0.15, 0.15, 0.15]))
        both = label == "pleural effusion" and rng.random() < 0.25
        side = "both" if both else str(rng.choice(list(SIDES)))
        sided = label not in ("normal", "cardiomegaly")
        zone = str(rng.choice(["upper", "lower"])) if label in ("consolidation", "nodule") else ""
        size = "" if label == "normal" else str(rng.choice(list(SIZES)))
        view = "AP" if rng.random() < 0.3 else "PA"
        syntax = str(rng.choice(["plain", "rle", "deflated"], p=[0.7, 0.15, 0.15]))
        inverted = bool(rng.random() < 0.3)
        made.append(
            Study(seed, patient, number, label, side if sided else "", zone, size, age, sex, view, inverted, syntax)
        )
    return made
