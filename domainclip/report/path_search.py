r"""Recognise paths of any operating system, but not web addresses, formulas, fractions and names on the Hub.

`D:\PACS\doe.dcm`, `\\nas\scans\doe`, `/srv/scans/doe`, `file:///srv/doe`, `s3://bucket/doe`, `~/doe`,
`$HOME/doe` and `%USERPROFILE%\doe` are paths; `https://arxiv.org/abs/2402.02103`, `and/or`, `org/name`, `3/4`
and `f:\R\to\R` are none.
"""

from __future__ import annotations

import re

# Web addresses that anyone can open.
_PUBLIC = r"(?:https?|hf|git|git\+https)://"
_WEB = re.compile(rf"{_PUBLIC}[^\s<>\"'()\[\]{{}}|\\^`?,;]*", re.IGNORECASE)
# A server without a public name, with a further step: http://pacs01/studies/…
_LOCAL_SERVER = re.compile(
    r"https?://(?:[^/\s@]*@)?"
    r"(?:[\w-]+|[\w.-]+\.(?:local|localdomain|lan|intra|intranet|internal|corp|home|private)"
    r"|(?:127|10)\.[\d.]+|192\.168\.[\d.]+|172\.(?:1[6-9]|2\d|3[01])\.[\d.]+|169\.254\.[\d.]+|\[[\da-f:]+\])"
    r"(?::\d+)?/[\w.~%@-]",
    re.IGNORECASE,
)
_STEP = r"[\w.+@$~%-]+"
# Files of images, tables and texts of a corpus; the files of a model and of this program have other suffixes.
_DATA_FILE = (
    "dcm|dicom|ima|png|jpe?g|jfif|tiff?|bmp|gif|webp|jp2|j2k|heic|avif|dng|nii|nrrd|mha|mhd|svs|ndpi|mrxs|czi|vsi|"
    "lif|fits?|fts|fz|tar|tgz|gz|bz2|xz|zip|7z|rar|zst|parquet|arrow|feather|csv|tsv|xlsx?|xlsm|ods|jsonl|ndjson|"
    "txt|rtf|pdf|docx?|odt|hl7|h5|hdf5|npy|npz|mat|sqlite3?|pkl|edf|avi|mp4|mov|mpe?g|log"
)
# Variables that hold a folder by their name; others are as often fractions: $TPR/FPR$.
_FOLDER = r"\w*(?:HOME|DIR|PATH|ROOT|TMP|TEMP|DATA|FOLDER|SCRATCH|WORK|PROFILE|DRIVE|USER|PWD|STORE)\w*"
_PATHS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # /srv/scans, also behind nas: and path=
        rf"(?<![\w./\\~)\]}}%°#])(?<!\w\+)/+(?:{_STEP}/+)+{_STEP}",
        rf"/(?:home|Users|Volumes|mnt|media|srv)/{_STEP}",
        # //nas/scans
        rf"(?<![\w:/.])//[\w.$@-]+[/\\]+{_STEP}",
        # scans/doe.dcm and scans\doe.dcm
        rf"(?<=\w)[/\\]+(?!\.)[^\s/\\<>\"'|:*?()\[\]{{}},;`]{{1,120}}?\.(?:{_DATA_FILE})(?!\w)",
        # ../scans and ./scans/doe
        rf"(?<![\w.])(?:\.\./+{_STEP}|\./+{_STEP}/+{_STEP})",
        # ~/scans and ~jane/scans
        r"(?<![\w~)/.\\])~(?:[a-z_][\w.-]*)?/+\w",
        # $HOME/scans, ${HOME}/scans, $(pwd)/scans, $env:TEMP\scans, %TEMP%\scans
        rf"\$(?:env:)?(?:{_FOLDER}|\{{[\w:]+\}}|\([a-z_ ]+\))[\\/]+\w",
        r"\$[a-z_]\w{2,}(?:[\\/]+[\w.-]+){2,}(?![\w.-])(?!\S*\$)",
        r"%[a-z_][\w()]*%[\\/]+\w",
        # smb://nas/scans, s3://bucket/doe, file:/doe; public ones are removed before
        r"(?<!\w)(?:[a-z][a-z0-9+.-]{1,20}:/{2,4}|file:[/\\]+)[\w.$~%@\[]",
        r"\barn:aws[\w-]*:s3:::\w",
        r"\bMacintosh HD:\w",
        # C:/scans
        r"(?<![a-z0-9])[a-z]:/+[^\s/\\\"'<>|(]",
    )
]
# With backslashes: drives, \\nas\scans, \\?\C:\scans, ~\scans, ..\scans.
_BACKSLASHED = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?<![a-z0-9])[a-z]:[\\/]*\\+(?P<steps>[^\s\\/\"'<>|]+(?:\\+[^\s\\/\"'<>|]+)*)",
        rf"(?<![a-z0-9])[a-z]:{_STEP}(?P<steps>(?:\\+{_STEP})+)",
        rf"(?:(?<![a-z0-9\\])\\{{2,}}|(?<![\w:/.])//)(?P<steps>[\w.?$@-]+[/\\]+{_STEP}(?:\\+{_STEP})*)",
        rf"(?<![\w~)/.\\])~(?:[a-z_][\w.-]*)?\\+(?P<steps>{_STEP})",
        rf"(?<![\w.])\.\.?\\+(?P<steps>{_STEP}\\+{_STEP}|(?<=\.\.\\){_STEP})",
    )
]
# \scans\doe and scans\doe\left. Regular expressions and the escapes of strings have this form, too.
_NAMES_ONLY = [
    re.compile(pattern)
    for pattern in (
        rf"(?<![\w\\])(?P<steps>\\+(?!_){_STEP}(?:\\+(?!_){_STEP})+)",
        rf"(?<![\w.+@$~%\\-]){_STEP}(?P<steps>\\+(?!_){_STEP}(?:\\+(?!_){_STEP})+)",
    )
]
# Commands of formulas that may follow one another without a blank.
_COMMANDS = """
R N Z Q C E P Pr alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu
nu xi pi rho varrho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi
Psi Omega to mapsto rightarrow leftarrow Rightarrow Leftarrow leftrightarrow longrightarrow implies iff
in notin subset subseteq cup cap times cdot cdots ldots dots vdots ddots pm mp leq geq le ge ne neq
approx sim simeq equiv propto infty partial nabla sum prod int oint lim log ln exp sin cos tan max min
arg argmax argmin sup inf det dim ker gcd bmod pmod frac dfrac tfrac sqrt left right big Big bigg Bigg
mid vert Vert lvert rvert lVert rVert langle rangle lfloor rfloor lceil rceil mathbb mathbf mathcal
mathrm mathit mathsf mathtt mathfrak mathscr text textbf textit textrm texttt textsc emph underline
overline bar hat tilde vec dot ddot widehat widetilde boldsymbol bm operatorname begin end item hline
cline quad qquad label ref eqref cite citep citet footnote section subsection caption centering
includegraphics noindent newline linebreak ell circ bullet star ast oplus otimes wedge vee neg forall
exists emptyset setminus nonumber top perp parallel angle prime hbar Re Im small large tiny normalsize
"""
_TEX = frozenset(_COMMANDS.split())
_CHARACTER_CLASS = re.compile(r"(?:[AbBdDsSwWZ]|[.$])(?:[+*?.$].*)?")
_ESCAPE = re.compile(r"[ntr]\w*|b\w*")  # of a line break, a tabulator, a word boundary


def holds_path(text: str) -> bool:
    """Whether the text holds a path of two steps; a drive, a server and a variable count as one."""
    if _LOCAL_SERVER.search(text):
        return True
    text = _WEB.sub("", text)
    if any(any(letter.isalpha() for letter in match[0]) for path in _PATHS for match in path.finditer(text)):
        return True
    if any(not _is_formula(match["steps"]) for path in _BACKSLASHED for match in path.finditer(text)):
        return True
    return any(
        not (_is_formula(match["steps"]) or _is_escaped(match["steps"]))
        for path in _NAMES_ONLY
        for match in path.finditer(text)
    )


def _steps(text: str) -> list[str]:
    return [name for name in re.split(r"[\\/]+", text) if name]


def _is_formula(steps: str) -> bool:
    """Whether all steps are commands of TeX, or all are classes of characters of a regular expression."""
    commands = {re.split(r"[{}^_$~,;.:()\[\]=+-]", name)[0] for name in _steps(steps)}
    return commands <= _TEX | {""} or all(map(_CHARACTER_CLASS.fullmatch, _steps(steps)))


def _is_escaped(steps: str) -> bool:
    return all(map(_ESCAPE.fullmatch, _steps(steps)))
