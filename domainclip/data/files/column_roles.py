"""The column of a source for each role of an item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from domainclip.config.strict_model import StrictModel
from domainclip.data.files.column_names import column_name

# In the form in which the columns of a table are named.
ColumnName = Annotated[str, AfterValidator(column_name)]


class Columns(StrictModel):
    """The column of the source for each role.

    `null`: guessed from the names, and the guess is printed; `""` or `[]`: this corpus has none.
    """

    id: ColumnName | None = None  # a unique name of each row; default: that of the image
    image: ColumnName | None = None  # the names of the files, or the images
    texts: list[ColumnName] | None = None  # several captions of one image
    language: ColumnName | None = None  # a column with a language code …
    languages: dict[ColumnName, str] = {}  # … or the language of each caption column
    group: ColumnName | None = None  # patient, study, object: in one split only, resampled together
    # Report, study, object: the captions of each item are right for the images of all items of one key. It is
    # never guessed; without it, captions are right for their image, and for items with an equal caption.
    truth: ColumnName | None = None
    labels: ColumnName | list[ColumnName] | None = (
        None  # one column of class names, or one 0/1/-1 column a class
    )
    # Of one column a class: whether a blank cell says that the class does not apply, or nothing.
    blank_labels: Literal["absent", "unknown"] = "absent"
    split: ColumnName | None = None  # train, validation or test, in any usual word
    meta: list[ColumnName] = []  # for subgroups; all other columns are dropped when read
    # Where an image comes from (site, scanner, repository), and how it was taken (view, device, protocol),
    # which a model may recognise instead of the class. Several columns of acquisition count together.
    source: ColumnName | None = None
    acquisition: list[ColumnName] = []  # how the image was taken: view, device, protocol
    # Of an image that is another one with a change: the id of that image (the name of its file, where no
    # column has ids), the change in words, and the ids of the images that a search is limited to.
    reference: ColumnName | None = None  # the id of the image that was changed
    change: ColumnName | None = None  # what changed, in words
    candidates: ColumnName | None = None  # ids: a list, or a text with ; between them
    written: ColumnName | None = None  # the words in the image: a list, or a text with ; between them

    def roles(self) -> Iterator[tuple[str, Any]]:
        """Each role with its column or columns, without the settings that name no column."""
        return ((key, value) for key, value in self if key != "blank_labels")

    @property
    def matched_by(self) -> Literal["group", "truth"]:
        """The standard column whose equal values are never each other's negatives in training.

        A negative that is right teaches a falsehood, a missed one costs little. So without a truth key the
        whole group is left out, although evaluation does not count its other captions as right.
        """
        return "truth" if self.truth else "group"
