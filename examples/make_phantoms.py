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
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

COLUMNS = ("file_name", "findings", "impression", "label", "patient_id", "laterality", "age", "sex", "view")
LABELS = ("normal", "cardiomegaly", "pleural effusion", "pneumothorax", "consolidation", "nodule")
WHITE = 4095  # twelve bits, stored in sixteen

# What a report says of a finding that is there, of one that is not, and in conclusion; "|" divides wordings.
PRESENT = {
    "normal": "The lungs are clear.|Both lungs are clear.|Normal chest.|No focal abnormality in either lung.",
    "cardiomegaly": "The heart is enlarged.|There is {grade} cardiomegaly.|Enlarged cardiac silhouette."
    "|{grade} enlargement of the heart.|The heart is wide, with a cardiothoracic ratio above one half.",
    "pleural effusion": "There is a {size} pleural effusion {on}.|{size} pleural effusion {on}."
    "|Fluid in the pleural space {on}, {size} in amount.|Blunted costophrenic angle {on}: {size} effusion.",
    "pneumothorax": "There is a {size} pneumothorax {on}.|{size} pneumothorax {on}."
    "|Pleural line {on} with no lung markings beyond it.|Air in the pleural space {on}: {size} pneumothorax.",
    "consolidation": "Consolidation in the {side} {zone} zone.|{grade} patchy opacity, {side} {zone} lung."
    "|There is a {size} area of consolidation in the {side} {zone} zone."
    "|Hazy opacity in the {zone} part of the {side} lung.",
    "nodule": "A {size} round nodule in the {side} {zone} zone.|{size} pulmonary nodule, {side} {zone} zone."
    "|There is a {size} round spot in the {side} {zone} lung."
    "|Solitary nodule in the {zone} part of the {side} lung.",
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
    "cardiomegaly": "Cardiomegaly.|{grade} cardiomegaly.|Enlarged heart, otherwise normal.",
    "pleural effusion": "Pleural effusion {on}.|{size} pleural effusion {on}.|Pleural fluid {on}.",
    "pneumothorax": "Pneumothorax {on}.|{size} pneumothorax {on}.|Air in the pleural space {on}.",
    "consolidation": "Consolidation, {side} {zone} zone.|{side} {zone} pneumonia.|{side} {zone} opacity.",
    "nodule": "Nodule, {side} {zone} zone.|{side} {zone} lung nodule.|{size} nodule, {side} {zone} lung.",
}
GRADES = {"small": "mild", "moderate": "moderate", "large": "marked"}
SIDES = {"right": -1, "left": 1}  # where the patient's side stands in the picture


Plane = NDArray[np.float64]  # one number a pixel


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
        sides = ["both", *SIDES] if label == "pleural effusion" else list(SIDES)
        side = "" if label in ("normal", "cardiomegaly") else str(rng.choice(sides))
        zone = str(rng.choice(["upper", "lower"])) if label in ("consolidation", "nodule") else ""
        size = "" if label == "normal" else str(rng.choice(list(GRADES)))
        view, inverted = ("AP" if rng.random() < 0.3 else "PA"), bool(rng.random() < 0.3)
        syntax = str(rng.choice(["plain", "rle", "deflated"], p=[0.7, 0.15, 0.15]))
        made.append(Study(seed, patient, number, label, side, zone, size, age, sex, view, inverted, syntax))
    return made


def draw(study: Study) -> Plane:
    """The radiograph before it is stored: (rows, columns) in 0 (air) to 1 (dense)."""
    body, rng = np.random.default_rng([study.seed, study.patient, 7]), study.rng(1)
    side = int(rng.choice([112, 128, 144]))
    v, h = np.mgrid[: side + int(rng.choice([0, 8])), :side] / (side - 1) * 2 - 1
    turn, zoom = rng.normal(0, 0.035), rng.uniform(0.96, 1.06)
    x = (np.cos(turn) * h + np.sin(turn) * v + rng.normal(0, 0.03)) * zoom
    y = (np.cos(turn) * v - np.sin(turn) * h + rng.normal(0, 0.03)) * zoom
    density = _chest(x, y, study, body, rng)
    exposure, noise = rng.uniform(0.85, 1.2), rng.uniform(0.008, 0.025)
    shown: Plane = density**exposure * rng.uniform(0.9, 1.05) + rng.normal(0, noise, x.shape)
    return np.clip(shown, 0, 1)


def _chest(x: Plane, y: Plane, study: Study, body: Generator, rng: Generator) -> Plane:
    """Trunk, lungs, bones, heart; then what the finding adds."""
    width, apex, base = body.uniform(0.7, 0.78), body.uniform(-0.82, -0.74), rng.uniform(0.4, 0.5)
    trunk = _inside(np.abs(x) - (0.3 + 0.64 * _inside(-0.8 - y, 0.06)), 0.02)
    density = 0.03 + 0.55 * trunk + 0.05 * _inside(0.55 - y, 0.1) * trunk
    own = study.rng(3)  # for the finding alone: without it the picture is the same but for the finding
    rows, columns = x.shape
    texture = _fog(rng, (rows, columns), 20) + _fog(rng, (rows, columns), 9)
    spacing, ribs = body.uniform(0.15, 0.18), np.zeros_like(x)
    for s in (-1, 1):
        u = s * x
        lateral = width * np.sqrt(np.clip(1 - ((y - 0.45) / (0.45 - apex)) ** 2, 0.0001, 1))
        dome = base + 0.05 * (s > 0) + 1.1 * (u - 0.36) ** 2
        lung = _inside(np.maximum(np.maximum(0.13 - u, u - lateral), y - dome), 0.012)
        density -= lung * (0.4 - 0.05 * texture * np.clip(1.3 - u, 0, 1))
        hilum = np.exp(-(((u - 0.2) / 0.08) ** 2) - ((y + 0.02) / 0.14) ** 2)
        density += 0.1 * hilum * lung
        rib = np.clip(np.sin(2 * np.pi * (y - 0.5 * (u - 0.1) ** 2) / spacing) - 0.35, 0, 1)
        ribs += rib * _inside(np.maximum(0.08 - u, u - lateral - 0.05), 0.02) * _inside(y - 0.62, 0.03)
        ribs += (
            1.2 * _inside(np.abs(y + 0.66 + 0.12 * u) - 0.022, 0.008) * _inside(np.abs(u - 0.42) - 0.34, 0.02)
        )
        if study.laterality == "both" or SIDES.get(study.laterality) == s:
            density = _lung_finding(density, study, (u, y, lateral, lung), texture, own)
    density = _middle(density, x, y, study, body, own)
    if study.sex == "F":
        density += 0.05 * sum(_inside(np.hypot(s * x - 0.42, y - 0.42) - 0.27, 0.03) for s in (-1, 1))
    return np.clip(density + 0.075 * ribs * trunk, 0, 1)


def _middle(density: Plane, x: Plane, y: Plane, study: Study, body: Generator, own: Generator) -> Plane:
    """Heart in its true width, aortic knob, spine, windpipe, stomach bubble."""
    ratio = body.uniform(0.4, 0.47) + (0.03 if study.view == "AP" else 0)
    if study.label == "cardiomegaly":
        ratio = {"small": 0.58, "moderate": 0.64, "large": 0.71}[study.size] + own.uniform(-0.02, 0.02)
    # An ellipse tilted by 35 degrees, its short axis .72 of the long one: half its width is .92 of that.
    along = (0.82 * (x - 0.1) + 0.57 * (y - 0.2)) / (0.74 * ratio / 0.92)
    across = (0.82 * (y - 0.2) - 0.57 * (x - 0.1)) / (0.72 * 0.74 * ratio / 0.92)
    knob = _inside(np.hypot(x - 0.13, y + 0.33) - 0.1, 0.02)
    density = np.maximum(density, 0.61 * np.maximum(_inside(np.hypot(along, across) - 1, 0.04), 0.95 * knob))
    density = density + 0.12 * np.exp(-((x / 0.09) ** 2)) * (0.7 + 0.3 * np.sin(2 * np.pi * y / 0.15))
    density -= 0.14 * _inside(np.abs(x) - 0.04, 0.01) * _inside(y + 0.25, 0.03)
    return density - 0.2 * _inside(np.hypot((x - 0.38) / 1.7, y - 0.74) - body.uniform(0.05, 0.08), 0.02)


def _lung_finding(
    density: Plane, study: Study, where: tuple[Plane, ...], texture: Plane, rng: Generator
) -> Plane:
    """The density of one side with the study's finding; u runs outwards from the midline, y downwards."""
    u, y, lateral, lung = where
    degree = list(GRADES).index(study.size)
    if study.label == "pleural effusion":
        # Fluid rises towards the side wall: the meniscus.
        level = (0.47, 0.27, 0.02)[degree] + rng.uniform(-0.05, 0.05) - 0.5 * np.clip(u - 0.15, 0, 1) ** 2
        fluid = _inside(np.maximum(np.maximum(0.13 - u, u - lateral - 0.04), level - y), 0.025)
        return np.maximum(density, 0.6 * fluid)
    if study.label == "pneumothorax":
        edge = u - lateral + (0.12, 0.2, 0.32)[degree] * (0.7 + 0.7 * _inside(y + 0.25, 0.15))
        line = lung * _inside(np.abs(edge) - 0.012, 0.006)
        free = lung * _inside(-edge, 0.01)
        return density * (1 - free) + 0.08 * free + 0.2 * line + 0.06 * lung * (1 - free)
    row = (-0.32 if study.zone == "upper" else 0.2) + rng.uniform(-0.08, 0.08)
    r = np.hypot(u - rng.uniform(0.34, 0.48), y - row)
    if study.label == "consolidation":
        patch = _inside(r - (0.14, 0.2, 0.27)[degree] - 0.05 * texture, 0.05)
        return density + lung * patch * 0.3 * np.clip(0.9 + 0.25 * texture, 0.3, 1)
    return density + 0.3 * lung * _inside(r - (0.06, 0.085, 0.115)[degree], 0.012)


def _inside(distance: Plane, softness: float) -> Plane:
    """1 where a signed distance is negative, 0 where positive, with a soft edge."""
    return np.asarray(1 / (1 + np.exp(np.clip(distance / softness, -50, 50))), dtype=np.float64)


def _fog(rng: Generator, shape: tuple[int, int], cells: int) -> Plane:
    coarse = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC), dtype=np.float64)


def report(study: Study) -> tuple[str, str]:
    """Findings and impression: what is there, one or two things that are not, in varied wording."""
    rng = study.rng(2)
    others = [label for label in ABSENT if label != study.label]
    said = [str(label) for label in rng.choice(others, int(rng.integers(1, 3)), replace=False)]
    sentences = [_say(PRESENT[study.label], study, rng), *(_say(ABSENT[label], study, rng) for label in said)]
    if rng.random() < 0.3:
        sentences = [sentences[1], sentences[0], *sentences[2:]]
    return " ".join(sentences), _say(IMPRESSION[study.label], study, rng)


def _say(wordings: str, study: Study, rng: Generator) -> str:
    on = rng.choice(
        ["bilaterally", "on both sides"]
        if study.laterality == "both"
        else ["on the {side}", "on the {side} side"]
    )
    sentence = str(rng.choice(wordings.split("|"))).replace("{on}", str(on))
    grade = GRADES.get(study.size, "")
    sentence = sentence.format(size=study.size, grade=grade, side=study.laterality, zone=study.zone)
    return sentence[0].upper() + sentence[1:]


def dicom(study: Study) -> Dataset:
    """The study as a Computed Radiography object, with a window and an invented identity."""
    density = draw(study)
    low, high = np.percentile(density, [1, 99.5]) * WHITE
    pixels = np.round(density * WHITE).astype("<u2")
    centre = (low + high) / 2
    ds = Dataset()
    ds.file_meta = _meta(study)
    ds.SOPClassUID, ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPClassUID, _uid(study, "image")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(study, "study"), _uid(study, "series")
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "CR", "CHEST", study.view
    ds.PatientName, ds.PatientID = f"PHANTOM^{study.patient:04d}", study.patient_id
    ds.PatientSex, ds.PatientAge = study.sex, f"{study.age:03d}Y"
    ds.PatientBirthDate, ds.StudyDate = f"{2020 - study.age}0101", f"2020{study.number:02d}01"
    ds.InstitutionName, ds.ReferringPhysicianName = "NO HOSPITAL (GENERATED)", "NOBODY^REAL"
    ds.AccessionNumber, ds.BurnedInAnnotation = f"A{study.patient:04d}{study.number}", "NO"
    (ds.Rows, ds.Columns), ds.SamplesPerPixel = pixels.shape, 1
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PhotometricInterpretation = "MONOCHROME1" if study.inverted else "MONOCHROME2"
    ds.WindowCenter, ds.WindowWidth = round(WHITE - centre if study.inverted else centre), round(high - low)
    ds.PixelData = (WHITE - pixels if study.inverted else pixels).tobytes()
    if study.syntax == "rle":
        ds.compress(uid.RLELossless, generate_instance_uid=False)
    return ds


def _meta(study: Study) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = uid.ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(study, "image")
    deflated = study.syntax == "deflated"
    meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian if deflated else uid.ExplicitVRLittleEndian
    # Set, so that the bytes do not change with the version of pydicom.
    meta.ImplementationClassUID = uid.generate_uid(entropy_srcs=["chest phantom"])
    meta.ImplementationVersionName = "PHANTOM_1"
    return meta


def _uid(study: Study, what: str) -> uid.UID:
    return uid.generate_uid(entropy_srcs=[what, str(study.seed), study.file_name])


def write(folder: Path, patients: int = 420, seed: int = 0) -> Path:
    """A folder with images/ and reports.csv, which names the files; gives the table's path."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    table = folder / "reports.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for study in studies(seed, patients):
            dicom(study).save_as(folder / study.file_name, enforce_file_format=True)
            about = (study.label, study.patient_id, study.laterality, study.age, study.sex, study.view)
            rows.writerow([study.file_name, *report(study), *about])
    return table


def main() -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(description="Write chest phantoms as DICOM files with reports.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=420)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(write(options.folder, options.patients, options.seed))


if __name__ == "__main__":
    main()
