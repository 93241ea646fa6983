"""The words in the name of a column, and what they mean for its role."""

from __future__ import annotations

import re

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PART = re.compile(r"[^\W_]+")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Of captions: the first word of a name, which a number or a language may follow: text_2, caption_de.
CAPTIONS = _listed(
    """text texts caption captions report reports description descriptions sentence sentences findings
    impression title note notes abstract alt comment summary explanation narrative conclusion
    observation prompt beschreibung befund titel légende texte descripción texto"""
)
CLASSES = _listed(
    """label labels class classes category categories diagnosis finding findings disease pathology dx style
    genre movement species breed type morphology kind condition material product stage grade kategorie
    klasse catégorie categoria diagnose tumor tissue organ"""
)
GROUPS = _listed(
    """patient subject participant person case animal specimen mouse object target work artwork scene series
    study exam lesion slide plate well group family user sku product item artist"""
)
SOURCES = _listed(
    """site hospital center centre clinic institution scanner telescope survey instrument museum collection
    shop vendor repository repo dataset origin source"""
)
ACQUISITION = _listed(
    "view projection device camera protocol stain staining magnification filter band modality"
)
SUBGROUPS = _listed("sex gender age ethnicity race country region year")
# Of columns whose cells, or whose rows, belong to persons.
IDENTIFYING = _listed(
    """firstname lastname surname birth birthdate dob street phone email mrn insurance ssn mother father
    patient subject participant person"""
)
# Of columns about the file or the source of a row, which are neither captions nor classes.
ADMINISTRATIVE = _listed(
    """license licence copyright credit url uri link doi repo path file filename source hash md5 sha256 date
    time created id uid width height size version wnid"""
)


def words(name: str) -> list[str]:
    """The words of a name in lower case: patient and id of PatientID, patient_id and "Patient ID"."""
    return [part.casefold() for part in _PART.findall(_CAMEL.sub(" ", name))]


def find_word(name: str, known: tuple[str, ...]) -> str:
    """The first word of a name that is known, a plural as its singular; "" without one."""
    for word in words(name):
        for form in (word, word.removesuffix("s")):
            if form in known:
                return form
    return ""
