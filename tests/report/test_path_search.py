"""Paths of every operating system are recognised in every encoding of a text; what only resembles a path is not."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from domainclip.config import builtin
from domainclip.data.cards import load_card
from domainclip.report import phrasing
from domainclip.report.model_card import first_paragraph
from domainclip.report.redaction import public_recipe, search
from tests.support.run_folders import recipe

PATHS = r"""
D:\PACS\Doe_Jane\scan.dcm
D:/PACS/Doe_Jane/scan.dcm
d:\scan.dcm
D:PACS\Doe_Jane
E:\Müller, Jörg\Röntgen.dcm
C:\Users\jane
D:\(old)\doe.dcm
D:\_archive\doe
D:\new\test\readme
D:\\PACS\\Doe_Jane\\scan.dcm
\\nas01\radiology\Doe_Jane
\\10.0.0.5\share$\Doe
\\\\nas01\\radiology\\Doe
//nas01/radiology/Doe_Jane
\\?\C:\PACS\Doe
\\?\UNC\nas01\radiology\doe
\\wsl.localhost\Ubuntu\home\jane
\\nas@SSL\DavWWWRoot\Doe
file:///srv/PACS/Doe_Jane
file:///D:/PACS/Doe
~/scans
~jane/scans/doe
~\scans\doe
/srv/PACS/Doe_Jane/scan.dcm
/srv/PACS
/mnt/c/Users/jane
/cygdrive/d/PACS/doe
/Volumes/My Passport/Doe
/Doe Jane/scan.dcm
/srv//PACS//doe
/données/François/scan
/データ/山田/画像
smb://nas01/radiology/doe
s3://bucket/key
abfss://c@account.dfs.core.windows.net/doe
sftp://jane@nas/doe
sqlite:////srv/doe.db
dbfs:/mnt/doe/scan.dcm
arn:aws:s3:::hospital/doe
nas01:/export/doe
-I/srv/PACS/doe
-v/mnt/doe:/data
$HOME/scans
${DATA_ROOT}/doe
$(pwd)/doe/x
$env:USERPROFILE\scans
%USERPROFILE%\scans\doe.dcm
../export/Doe_Jane
..\export\Doe_Jane
./export/Doe_Jane
Doe_Jane/scan.dcm
Doe_Jane\scan.dcm
PACS\Doe_Jane\left
\PACS\Doe_Jane\scan
\Device\HarddiskVolume3\PACS\doe
PosixPath('/srv/PACS/doe')
</srv/PACS/doe>
Macintosh HD:Users:jane:scan.dcm
http://pacs01/studies/doe
https://pacs.hospital.local/studies/doe
http://192.168.1.20:8042/instances/doe
D:＼PACS＼Doe
／srv／PACS／doe
/srv/<wbr>PACS/<wbr>doe
\u002fsrv\u002fPACS\u002fdoe
%252Fsrv%252FPACS%252Fdoe
D:&#92;PACS&#92;Doe
\/srv\/PACS\/doe
data:text/plain;base64,L3Nydi9QQUNTL0RvZV9KYW5lL3NjYW4uZGNt
https://example.org/?file=/srv/PACS/doe.dcm
""".strip("\n").split("\n")
TEXTS = r"""
and/or, w/o, 3/4 of the items, 24/7/365, 2024/05/17, 05/2024, 10:30:00
openai/clip-vit-base-patch32, laion/CLIP-ViT-B-32-laion2B-s34B-b79K, lab/clip@main
arXiv:2103.00020, arXiv:hep-th/9901001, [arXiv:2103.00020](https://arxiv.org/abs/2103.00020)
doi:10.1002/(SICI)1097-0258(19980815/30)17:15/16 and https://doi.org/10.1038/s41586-023-06647-8
https://huggingface.co/lab/clip/resolve/main/model.safetensors
https://example.org/a/b/scan.dcm and https://example.org/a/b.png?size=3&x=y
hf://datasets/org/name/train.parquet and git+https://github.com/lab/x
$f:\R\to\R$, $f:\mathbb{R}^d\to\mathbb{R}$, $g:\mathcal{X}\times\mathcal{Y}\to[0,1]$
$x\in\mathbb{R}^{n}$, $\alpha\beta\gamma$, $\frac{a}{b}/\sqrt{2}$, $\mu/\sigma$
\\ \hline a & b \\ \cline{1-2} \begin{tabular}\hline\textbf{x}
see Fig.~\ref{a}, see~\cite{b}
$TP/(TP+FN)$ and $TPR/FPR$ and $5/month, $USD/EUR
mL/min/1.73 m², g/dL, mg/kg/day, W/m²/K, (mL)/min/1.73 m²
left/right/both, image-to-text / text-to-image, A/B, TCP/IP, T1/T2/FLAIR, GPL-2.0/GPL-3.0
R@1/R@5/R@10: 0.1/0.2/0.3, +/- 0.3/0.4, 50 %/60 %, ViT-L/14@336px
zero_shot/macro_accuracy, macro_auroc/de/fr
text/html, image/svg+xml, <br/><hr/></td></tr></svg:g> <path d="M0 0L1/2 3/4"/>
note: c:/ C: the third class; A: first, class A:normal, ratio 1:/2
x ~ y, ~5/6, ~{}, ~100 images/s, $100, $HOME, 100%
config.json, tokenizer.json, README.md/report.md, data_cards/medical_xray.md, runs/art-1
a\_b\_c snake\_case 1\. first\. \- x \# y \[x\]
.../... …/… // a comment /* another */ / or / :/ :-/ ¯\_(ツ)_/¯
f(x)/g(x)/h(x), {"$ref": "#/$defs/Base"}, http://localhost:8080
""".strip("\n").split("\n")
WRITTEN: dict[str, Callable[[str], str]] = {
    "in a sentence": "unreadable: {}, left out".format,
    "in parentheses": "(see {})".format,
    "in code": "`{}`".format,
    "behind a key": "path={}".format,
    "in a table": "| {} |".format,
    "in HTML": lambda text: f"<td>{html.escape(text)}</td>",
    "in Markdown": lambda text: str(phrasing.markdown(text)),
    "in an address": lambda text: quote(text, safe=""),
    "in JSON in Markdown": lambda text: json.dumps({"a": text}),
}
IN_JSON: dict[str, Callable[[str], str]] = {
    "in JSON": lambda text: json.dumps({"a": text}),
    "in JSON in JSON": lambda text: json.dumps(json.dumps({"a": text})),
    "behind a line break": lambda text: json.dumps({"a": f"files\n{text}\nend"}, ensure_ascii=False),
}


@pytest.mark.parametrize("path", PATHS)
def test_a_path_is_reported_in_every_encoding(path: str) -> None:
    missed = [name for name, write in WRITTEN.items() if not [*search(write(path))]]
    missed += [name for name, write in IN_JSON.items() if not [*search(write(path), json=True)]]
    assert missed == []


@pytest.mark.parametrize("path", ["/srv/PACS/doe", "/srv/PACS/doea", "/srv/PACS/doeab", "/srv/a/doe"])
def test_base64_without_its_padding_is_read(path: str) -> None:
    encoded = base64.b64encode(path.encode()).decode().rstrip("=")
    assert [*search(f"data:text/plain;base64,{encoded}")] == [(1, "a local path")]
    # One that is cut off, of five characters, hides no other.
    assert [*search(f"data:a;base64,AAAAA data:a;base64,{encoded}")] == [(1, "a local path")]


@pytest.mark.parametrize("text", [r"D:\d\Doe_Jane", r"PACS\new\Doe_Jane", r"\x2fsrv\x2fPACS\x2fdoe"])
def test_one_step_that_resembles_an_escape_makes_no_path_an_expression(text: str) -> None:
    assert [*search(text)] == [(1, "a local path")]


@pytest.mark.parametrize("text", TEXTS)
def test_what_resembles_a_path_is_not_reported(text: str) -> None:
    assert [*search(text)] == []
    assert [*search(WRITTEN["in HTML"](text))] == []
    assert [*search(WRITTEN["in Markdown"](text))] == []
    assert [*search(IN_JSON["in JSON"](text), json=True)] == []


def test_escapes_of_strings_are_no_path() -> None:
    text = "one\ntwo\nthree\tfour \\d+\\.\\d+ \\bfoo\\b"
    assert [*search(json.dumps({"pattern": text}), json=True)] == []
    assert [*search(r"tab\tand\nline, \d+\.\d+ and \bfoo\b and ^\s+\w+$")] == []


def test_addresses_that_hold_a_secret() -> None:
    for text in ("https://x.org/a?X-Amz-Signature=0123456789abcdef", "https://jane:secret12@x.org/a"):
        assert "an access token" in [what for _, what in search(text)]


@pytest.mark.parametrize(
    "path", ["nas01:/export/doe", "$HOME/doe", "%TEMP%\\doe", "smb://nas/doe", "D:x\\doe"]
)
def test_a_public_recipe_holds_no_path_of_any_system(path: str) -> None:
    corpus = {"options": {"reports": path, "separator": "/"}, "templates": [f"of {path}", "a {}"]}
    data = recipe("lab/clip").model_dump()
    settings = recipe("lab/clip", corpus=data["corpus"] | corpus)
    public = public_recipe(settings)
    assert "doe" not in public
    assert "separator: /" in public
    assert [*search(public)] == []


def test_built_in_cards_can_be_quoted_in_a_model_card() -> None:
    """The first paragraph of a card is a part of the model card, and must not stop a push."""
    cards = sorted(builtin.builtin_folder("data_cards").glob("*.md"))
    assert len(cards) > 15
    for card in cards:
        paragraph = first_paragraph(load_card(card.stem, {}).description)
        assert [*search(paragraph)] == [], card.stem


def test_results_and_reports_of_this_repository() -> None:
    """The pages of results, and recipes without their first comment, hold no path."""
    root = Path(__file__).parents[2]
    for file in [*(root / "docs" / "results").glob("*.md"), *(root / "recipes").glob("*.yaml")]:
        lines = file.read_text(encoding="utf-8").splitlines()
        checked = [line for line in lines if not line.startswith("#") and "](../guide/" not in line]
        checked = [
            line.replace("domainclip-demo/general_captions.txt", "") for line in checked
        ]  # of the demo
        assert len(checked) > 5
        assert [*search("\n".join(checked))] == [], file.name
