"""Metrics in words: every sentence that states a result is made here."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from markupsafe import Markup

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import BETTER, NO_VERDICT, SAME, UNKNOWN, WORSE, ComparisonRow

MINUS = "−"
MARKS = {BETTER: "▲", WORSE: "▼", SAME: "=", UNKNOWN: "?", NO_VERDICT: "·"}
_METRICS = {
    "auroc": "AUROC",
    "macro_auroc": "macro AUROC",
    "auprc": "AUPRC",
    "macro_auprc": "macro AUPRC",
    "ece": "ECE",
    "nll": "NLL",
    "image_to_text": "image-to-text",
    "text_to_image": "text-to-image",
}
_NAMES = {
    r"_r(\d+)(?=_|$)": r" R@\1",
    r"(?<![a-z])map(?![a-z])": "mAP",
    r"(?<![a-z])f1(?![a-z])": "F1",
    r"(?<![a-z])top_?(\d+)_percent": r"top \1 %",
    r"(?<![a-z])top_?(\d+)_": r"top-\1 ",
}


def metric_name(metric: str) -> str:
    """The usual name of a metric: "image_to_text_r5/de" is "image-to-text R@5, de"."""
    whole, _, part = metric.partition("/")
    for code, words in _METRICS.items():
        if whole == code or whole.startswith(f"{code}_"):
            whole = words + whole[len(code) :]
            break
    for pattern, words in _NAMES.items():
        whole = re.sub(pattern, words, whole)
    name = whole.replace("_", " ")
    return f"{name}, {part}" if part else name


def probe_name(probe: str) -> str:
    """The usual name of a probe: "zero_shot" is "zero-shot"."""
    return {"knn": "k-NN"}.get(probe, probe.replace("_", "-"))


def number(value: float | None, unit: str = "share") -> str:
    """A value as text: three decimals of a share, one of a rank."""
    if value is None or math.isnan(value):
        return "–"
    return f"{round(value, 1):g}" if unit == "rank" else f"{value:.3f}"


def signed(value: float, unit: str = "share") -> str:
    """A value with its sign; zero has none."""
    text = number(abs(value), unit)
    if not re.search(r"[1-9]", text):
        return text
    return (MINUS if value < 0 else "+") + text


def span(estimate: Estimate, unit: str = "share", sign: bool = False) -> str:
    """An interval, as "0.410 to 0.470"."""
    if math.isnan(estimate.low):
        return "no interval"
    show = signed if sign else number
    return f"{show(estimate.low, unit)} to {show(estimate.high, unit)}"


def claim(row: ComparisonRow, retention_set: str, valid: bool = True) -> str:
    """One sentence: the change of a metric, its interval, and whether it is significant."""
    place = f"Retention ({row.dataset})" if row.dataset == retention_set else f"On {row.dataset}"
    name = f"{probe_name(row.probe)} {metric_name(row.metric)}"
    base = number(row.base.value, row.unit)
    if row.adapted is None or row.difference is None:
        chance = "" if row.chance is None else f"; chance is {number(row.chance, row.unit)}"
        doubt = f"; do not rely on it, since {row.control_fault}" if row.control_fault else ""
        return f"{place}, {name} is {base} (95\u00a0% interval {span(row.base, row.unit)}{chance}){doubt}."
    after = number(row.adapted.value, row.unit)
    if not valid:
        return f"{place}, {name} is {base} before and {after} after: not valid, see above."
    if row.verdict == UNKNOWN:
        return f"{place}, {name} went from {base} to {after}; this is not tested, since {row.too_few}."
    if row.control_fault:
        return f"{place}, {name} went from {base} to {after}; this is not judged, since {row.control_fault}."
    if row.verdict == NO_VERDICT:
        return f"{place}, {name} went from {base} to {after}; this metric is not judged."
    if row.verdict == SAME:
        return (
            f"{place}, no difference shown in {name}: {base} before, {after} after (95\u00a0% interval of "
            f"the difference {span(row.difference, row.unit, sign=True)}; {p_values(row)}){_at_most(row)}."
        )
    verb = "rose" if row.difference.value > 0 else "fell"
    kind = "gain" if row.verdict == BETTER else "loss"
    return (
        f"{place}, {name} {verb} from {base} to {after}, by {number(abs(row.difference.value), row.unit)} "
        f"(95\u00a0% interval {_size_interval(row)}; {p_values(row)}): a significant {kind}."
    )


def p_values(row: ComparisonRow) -> str:
    """The p of a difference: "p = 0.012", or "p = 0.012, 0.063 after correction for 11 comparisons"."""
    if row.difference is None or row.difference.p is None or math.isnan(row.difference.p):
        return ""
    plain = _p_value(row.difference.p)
    if row.adjusted_p is None:
        return f"p {plain}"
    adjusted = _p_value(row.adjusted_p).removeprefix("= ")
    return f"p {plain}, {adjusted} after correction for {row.comparisons} comparisons"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _at_most(row: ComparisonRow) -> str:
    """How much may have been lost although no difference is shown: the outer end of the interval."""
    assert row.difference is not None
    worst = row.difference.low if row.higher_is_better else -row.difference.high
    lost = number(abs(worst), row.unit)
    return f": at most {lost} is lost" if worst < 0 and re.search(r"[1-9]", lost) else ""


def summary(rows: Sequence[ComparisonRow], subject: str, retention_set: str, valid: bool) -> str:
    """The summary in words: gain, cost, and the number of metrics that changed.

    The headline metrics of the first two probes are named, the others counted; changes follow the verdicts.
    """
    if not valid:
        return "This evaluation is not valid: do not rely on the values below; none is reported as a change."
    if all(row.adapted is None for row in rows):
        return f"One model was measured on {_count(len(rows), 'metric')}; no models are compared."
    named = list(dict.fromkeys(row.probe for row in rows))[:2]
    head = [row for row in rows if row.primary and row.probe in named]
    inside = [row for row in head if row.dataset != retention_set]
    outside = [row for row in head if row.dataset == retention_set]
    sentences = [f"In the domain, {subject} {_changes_in_words(inside)}."]
    if outside:
        sentences.append(f"On the retention set, it {_changes_in_words(outside)}.")
    else:
        sentences.append("Forgetting outside the domain was not measured.")
    better, worse = (sum(row.verdict == verdict for row in rows) for verdict in (BETTER, WORSE))
    sentences.append(f"Of {_count(len(rows), 'metric')}, {better} got better and {worse} got worse.")
    return " ".join(sentences)


def _changes_in_words(head: Sequence[ComparisonRow]) -> str:
    """The changes of the headline metrics in words, significant ones first."""
    clauses = []
    for verdict, verb in ((BETTER, "improved"), (WORSE, "got worse in")):
        named = [f"{_name(row)} ({_change(row)})" for row in head if row.verdict == verdict]
        if named:
            clauses.append(f"{verb} {_listed(named)}")
    same = [_name(row) for row in head if row.verdict == SAME]
    if same:
        clauses.append(f"shows no difference in {_listed(same)}")
    few = [_name(row) for row in head if row.verdict == UNKNOWN]
    if few:
        clauses.append(f"has too few groups for a verdict on {_listed(few)}")
    untested = [f"{_name(row)} ({_change(row)})" for row in head if row.verdict == NO_VERDICT]
    if untested:
        clauses.append(
            f"changed {_listed(untested)}, which {'is' if len(untested) == 1 else 'are'} not judged"
            + (", since a control failed" if any(row.control_fault for row in head) else "")
        )
    return ", and ".join(clauses) or "was not measured"


def _name(row: ComparisonRow) -> str:
    return f"{probe_name(row.probe)} {metric_name(row.metric)}"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")


def changes(rows: Sequence[ComparisonRow], verdict: str) -> list[str]:
    """The metrics that got better (or worse): a line for each, one for all classes of a metric."""
    chosen = [row for row in rows if row.verdict == verdict and row.adapted and row.difference]
    lines = [
        f"{probe_name(row.probe)} {metric_name(row.metric)} on {row.dataset}: {_change(row)}, "
        f"{signed(row.difference.value, row.unit)}"
        for row in chosen
        if not row.part and row.difference
    ]
    for key in dict.fromkeys(_family(row) for row in chosen if row.part):
        members = [row for row in chosen if _family(row) == key and row.part]
        members.sort(key=lambda row: -abs(row.difference.value if row.difference else 0))
        total = sum(1 for row in rows if row.part and _family(row) == key)
        parts = "; ".join(f"{row.part} ({_change(row)})" for row in members)
        name = f"{probe_name(key[0])} {metric_name(key[2])} on {key[1]}"
        lines.append(f"{name}, {len(members)} of its {total} parts: {parts}")
    return lines


def no_changes(rows: Sequence[ComparisonRow], verdict: str) -> str:
    """The sentence for no metric that got better (or worse)."""
    return f"None of {_count(len(rows), 'metric')} got significantly {verdict}."


def duration(seconds: float) -> str:
    """A duration, for example "2 h 05 min", "3 min 20 s" or "12 s"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def plain(value: object) -> object:
    """Text with control and direction characters as escapes, such as \\u202e.

    A caption could otherwise reverse the text of the page around it.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(
        char
        if char in "\n\t\u200c\u200d" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co")
        else _code(char)
        for char in value
    )


def markdown(value: object) -> object:
    """Text escaped for Markdown, HTML and spreadsheets; Markup, which the package made, is unchanged."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    line = " ".join(str(plain(value)).split())
    line = re.sub(r"([\\`*_{}\[\]#|!~$])", r"\\\1", line)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"^([=@]|[+-](?![\d.]))", r"\\\1", line)


def fence(text: str) -> Markup:
    """A block of code with a fence longer than any in its content."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    bars = "`" * max(3, longest + 1)
    return Markup(f"{bars}\n{plain(text)}\n{bars}")


def _family(row: ComparisonRow) -> tuple[str, str, str]:
    return row.probe, row.dataset, row.whole


def _change(row: ComparisonRow) -> str:
    assert row.adapted is not None
    return f"{number(row.base.value, row.unit)} → {number(row.adapted.value, row.unit)}"


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}"


def _size_interval(row: ComparisonRow) -> str:
    """The interval of the size of a change, without signs, as the verb gives the direction."""
    assert row.difference is not None
    low, high = sorted(abs(edge) for edge in (row.difference.low, row.difference.high))
    return f"{number(low, row.unit)} to {number(high, row.unit)}"
