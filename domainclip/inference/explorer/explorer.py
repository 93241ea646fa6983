"""The answers behind the page: computed once for each question, and chosen by what the address asks for.

Legend: n items, d embedding width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from domainclip.data.cards import Prompts
from domainclip.errors import RecipeError
from domainclip.evaluation.encoder import CachedEncoder
from domainclip.evaluation.metrics.text_to_image import rounded_cosines
from domainclip.inference.explorer import answers, typed_classes
from domainclip.inference.explorer.answers import Answers
from domainclip.inference.explorer.embedding_map import EmbeddingMap, Method, embedding_maps
from domainclip.inference.explorer.explored import Explored, filters
from domainclip.inference.explorer.outcomes import Compared
from domainclip.inference.explorer.view import View

_REMEMBERED = 64  # answers and query vectors of the last questions
T = TypeVar("T")


class Explorer:
    """Answers for the items of one split. One request at a time may use it.

    `on_prompts` is called with each new set of classes and prompts that is tried.
    """

    def __init__(
        self,
        explored: Explored,
        method: Method = "pca",
        on_prompts: Callable[[Mapping[str, Prompts]], None] = lambda classes: None,
    ) -> None:
        self.explored, self.method, self.on_prompts = explored, method, on_prompts
        self.filters = filters(explored.data)
        labels: list[list[str]] = explored.data.items["labels"][:]
        self.labels = [set(of_item) for of_item in labels]
        self.groups = np.asarray(explored.data.items["group"][:], dtype=str)
        self.recent: OrderedDict[Hashable, object] = OrderedDict()
        self.tried: set[str] = set()
        self.maps: list[EmbeddingMap] = []
        for model, one in enumerate(explored.models):
            explored.images(model)
            if explored.gallery is not None:
                one.encoder.texts(explored.gallery.texts)
        # Embeddings of typed texts are added to a branch of these, and released with it.
        self.held = [model.encoder.cache for model in explored.models]

    def prepare(self) -> None:
        """Compute the answers to the question of the run and the maps, which the page asks for first."""
        self.compared(View())
        if self.explored.gallery is not None:
            self.compared(View(kind="captions"))
        self.embedding_maps()

    @property
    def class_names(self) -> list[str]:
        """The classes of the run or card."""
        return list(self.explored.data.classes)

    def classes(self, view: View) -> Mapping[str, Prompts]:
        """The classes that are typed, else those of the run.

        Raises: RecipeError for what cannot be read.
        """
        if not view.classes and not view.templates:
            return self.explored.data.classes
        typed = view.classes or typed_classes.lines(
            {name: Prompts(positive=[name]) for name in self.class_names}, ["{}"]
        )
        classes = typed_classes.parse(typed, view.template_list or self.explored.card.templates)
        if (key := repr(classes)) not in self.tried and classes != self.explored.data.classes:
            self.tried.add(key)
            self.on_prompts(classes)
        return classes

    def asks_findings(self, classes: Mapping[str, Prompts]) -> bool:
        """Whether each class is a separate question: several may hold, or each has negative prompts."""
        opposed = bool(classes) and all(prompts.negative for prompts in classes.values())
        return self.explored.card.multi_label or opposed

    def finding(self, view: View, classes: Mapping[str, Prompts]) -> str:
        """The finding that is judged: the chosen one, else the first; "" where classes exclude each other.

        Raises: RecipeError for one that is none of the classes.
        """
        if not self.asks_findings(classes):
            return ""
        typed_classes.check_class(view.finding, classes)
        return view.finding or next(iter(classes), "")

    def kind(self, view: View, classes: Mapping[str, Prompts]) -> str:
        """What the models answer: "classes", "captions", or "" where the set has neither.

        Raises: RecipeError for a single class to choose among.
        """
        answerable = len(classes) >= (1 if self.asks_findings(classes) else 2)
        if (view.classes or view.kind == "classes") and not answerable:
            raise RecipeError("classes: fewer than two to choose among: name two or more, one a line")
        if answerable and view.kind != "captions":
            return "classes"
        return "captions" if self.explored.gallery is not None else ""

    def answers(self, view: View, model: int) -> Answers | None:
        """The answers of one model to the question of a view; None where there is none.

        Raises: RecipeError for classes that cannot be read.
        """
        classes = self.classes(view)
        kind, finding = self.kind(view, classes), self.finding(view, classes)
        if not kind:
            return None

        def compute() -> Answers:
            if kind == "captions":
                return answers.first_captions(self.explored, model)
            if finding:
                encoder = self._with_validation(model)
                return answers.finding(encoder, self.explored.data, classes, finding)[0]
            return answers.one_of_classes(self._encoder(model), self.explored.data, classes)

        key = (kind, model) if kind == "captions" else (kind, model, finding, repr(classes))
        return self._remember(key, compute)

    def compared(self, view: View) -> Compared | None:
        """The answers of the first model and of the one that is compared with it.

        Raises: RecipeError for classes that cannot be read, or for a model that there is not.
        """
        if not 0 <= view.second < len(self.explored.models):
            raise RecipeError(f"second: models are numbered from 0 to {len(self.explored.models) - 1}")
        first, second = self.answers(view, 0), self.answers(view, view.second)
        return Compared(first, second) if first is not None and second is not None else None

    def cosines(self, view: View, model: int) -> np.ndarray | None:
        """(n,) cosines of all items with what is searched for; None where nothing is.

        Words and an item together are the normalised sum of both embeddings.

        Raises: RecipeError for an item that there is not.
        """
        if not view.words and view.like < 0:
            return None
        if view.like >= self.explored.size:
            raise RecipeError(f"like: items are numbered from 0 to {self.explored.size - 1}")

        def compute() -> np.ndarray:
            images = self.explored.images(model)
            parts = [self._encoder(model).texts([view.words])[0]] if view.words else []
            parts += [images[view.like]] if view.like >= 0 else []
            total = np.sum(parts, axis=0) if len(parts) > 1 else parts[0]
            vector = (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)
            return rounded_cosines(images, vector[None])[:, 0]

        return self._remember(("search", model, view.words, view.like), compute)

    def embedding_maps(self) -> list[EmbeddingMap]:
        """The map of each model, computed once."""
        if not self.maps:
            vectors = [self.explored.images(model) for model in range(len(self.explored.models))]
            self.maps = embedding_maps(vectors, self.method)
        return self.maps

    def rows(self, view: View, compared: Compared | None) -> np.ndarray:
        """The rows that the filters of a view leave, in its order; before a search.

        Raises: RecipeError for a filter that there is not.
        """
        chosen = np.ones(self.explored.size, dtype=bool)
        if view.label:
            chosen &= np.array([view.label in of_item for of_item in self.labels], dtype=bool)
        if view.group:
            chosen &= self.groups == view.group
        if view.part:
            if view.part not in self.filters:
                raise RecipeError("part: no attribute of the items has this value: choose another one")
            chosen &= np.isin(np.arange(self.explored.size), self.filters[view.part])
        if view.rectangle is not None:
            chosen &= self._inside(*view.rectangle)
        if compared is not None and view.outcome:
            chosen &= compared.members[view.outcome]
        rows = np.flatnonzero(chosen)
        return rows if compared is None else compared.order(rows, view.order)

    def _inside(self, model: int, edges: Sequence[float]) -> np.ndarray:
        if not 0 <= model < len(self.explored.models):
            raise RecipeError("box: the first number is that of a model, from 0")
        x, y = self.embedding_maps()[model].points.T
        left, top, right, bottom = edges
        inside: np.ndarray = (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
        return inside

    def _encoder(self, model: int) -> CachedEncoder:
        encoder = self.explored.models[model].encoder
        encoder.cache = self.held[model].branch()
        return encoder

    def _with_validation(self, model: int) -> CachedEncoder:
        """The encoder with the images of the validation split, on which thresholds are chosen."""
        encoder, validation = self.explored.models[model].encoder, self.explored.data.validation
        if validation is not None:
            encoder.cache = self.held[model]
            encoder.images(validation)
        return self._encoder(model)

    def _remember(self, key: Hashable, compute: Callable[[], T]) -> T:
        if key not in self.recent:
            self.recent[key] = compute()
            while len(self.recent) > _REMEMBERED:
                self.recent.popitem(last=False)
        self.recent.move_to_end(key)
        return self.recent[key]  # type: ignore[return-value]
