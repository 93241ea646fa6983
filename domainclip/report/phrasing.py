"""Metrics in words: every sentence that states a result is made here."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from markupsafe import Markup

from domainclip.evaluation.statistics.estimates import Estimate
from domainclip.evaluation.verdicts import (
    BETTER,
    KEPT,
    NO_VERDICT,
    SAME,
    UNKNOWN,
    WORSE,
    ComparisonRow,
    MetricHeader,
)

MINUS = "−"
MARKS = {BETTER: "▲", WORSE: "▼", SAME: "=", KEPT: "≤", UNKNOWN: "?", NO_VERDICT: "·"}
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
    r"(?<![a-z])r_precision(?![a-z])": "R-precision",
    r"(?<![a-z])ndcg_(\d+)": r"nDCG@\1",
    r"(?<![a-z])f1(?![a-z])": "F1",
    r"(?<![a-z])top_?(\d+)_percent": r"top \1 %",
    r"(?<![a-z])top_?(\d+)_": r"top-\1 ",
    r"_at_(\d+)_percent_": r" at \1 % ",
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


def title(row: MetricHeader) -> str:
    """Probe and metric of a row, with an arrow down where lower is better."""
    arrow = "" if row.higher_is_better else "\u00a0↓"
    return f"{probe_name(row.probe)} {metric_name(row.metric)}{arrow}"


def luck(row: ComparisonRow, model: int) -> str:
    """The value of a biased metric that noise alone gives, for the first or second model: "by luck 0.085"."""
    value = row.by_luck[model] if model < len(row.by_luck) else None
    return "" if value is None else f"by luck {number(value, row.unit)}"


def claim(row: ComparisonRow, retention_set: str, valid: bool = True) -> str:
    """One sentence: the change of a metric, its interval, and whether it is significant."""
    place = "On the retention set" if row.dataset == retention_set else f"On {row.dataset}"
    name = f"{probe_name(row.probe)} {metric_name(row.metric)}"
    base = number(row.base.value, row.unit)
    if row.adapted is None or row.difference is None:
        if row.biased:
            alone = f" ({text} alone)" if (text := luck(row, 0)) else ""
            return f"{place}, {name} is {base}{alone}: a description."
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
    if row.biased:
        both = [text for model in (0, 1) if (text := luck(row, model).removeprefix("by luck "))]
        alone = f" ({' and '.join(both)} by luck alone)" if both else ""
        return f"{place}, {name} went from {base} to {after}{alone}; this is a description, not judged."
    if row.verdict == NO_VERDICT:
        return f"{place}, {name} went from {base} to {after}; this metric is not judged."
    assert row.shown is not None
    interval = span(row.shown, row.unit, sign=True)
    if row.verdict not in (BETTER, WORSE):
        return (
            f"{place}, {name} went from {base} to {after}: {row.verdict} (95\u00a0% interval of the "
            f"difference {interval}; {p_values(row)}){_at_most(row)}."
        )
    verb = "rose" if row.difference.value > 0 else "fell"
    kind = "gain" if row.verdict == BETTER else "loss"
    return (
        f"{place}, {name} {verb} from {base} to {after}, by {number(abs(row.difference.value), row.unit)} "
        f"(95\u00a0% interval {_size_interval(row)}; {p_values(row)}): a significant {kind}."
    )


def p_values(row: ComparisonRow) -> str:
    """The p of a difference: "p = 0.012", or "p = 0.012, 0.063 after correction for 11 comparisons"."""
    return p_text(row.difference.p if row.difference else None, row.adjusted_p, row.comparisons)


def p_text(p: float | None, adjusted: float | None, comparisons: int) -> str:
    """A p, with that after correction where several differences are judged together; empty for none."""
    if p is None or math.isnan(p):
        return ""
    if adjusted is None:
        return f"p {_p_value(p)}"
    after = _p_value(adjusted).removeprefix("= ")
    return f"p {_p_value(p)}, {after} after correction for {comparisons} comparisons"


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _at_most(row: ComparisonRow) -> str:
    lost = number(row.at_most_lost, row.unit)
    return f": at most {lost} is lost" if re.search(r"[1-9]", lost) else ""


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")


def changes(rows: Sequence[ComparisonRow], verdict: str) -> list[str]:
    """The metrics that got better (or worse): a line for each, one for all classes of a metric."""
    chosen = [row for row in rows if row.verdict == verdict and row.adapted and row.difference]
    lines = [
        f"{title(row)} on {row.dataset}: {_change(row)}, {signed(row.difference.value, row.unit)}"
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


def fence(text: str, language: str = "") -> Markup:
    """A block of code with a fence longer than any in its content."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    bars = "`" * max(3, longest + 1)
    return Markup(f"{bars}{language}\n{plain(text)}\n{bars}")


def _family(row: ComparisonRow) -> tuple[str, str, str]:
    return row.probe, row.dataset, row.whole


def _change(row: ComparisonRow) -> str:
    assert row.adapted is not None
    return f"{number(row.base.value, row.unit)} → {number(row.adapted.value, row.unit)}"


def _code(char: str) -> str:
    return f"\\u{ord(char):04x}"


def _size_interval(row: ComparisonRow) -> str:
    """The interval of the size of a change, without signs, as the verb gives the direction."""
    assert row.shown is not None
    low, high = sorted(abs(edge) for edge in (row.shown.low, row.shown.high))
    return f"{number(low, row.unit)} to {number(high, row.unit)}"
