"""The usual headings of reports: synonyms by section and language, and codes in structured reports.

English ones from DICOM PS3.16 CID 7001 and LOINC 18748-4; those of other languages are in common use.
"""

from __future__ import annotations

from collections.abc import Mapping

# By section, then by language; written in lower case.
SYNONYMS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "findings": {
        "ar": ("الموجودات", "النتائج", "المشاهدات"),
        "cs": ("nález", "nálezy", "popis"),
        "da": ("fund", "beskrivelse"),
        "de": ("befund", "befunde", "befundung"),
        "el": ("ευρήματα", "εύρημα"),
        "en": ("finding", "findings", "imaging findings", "radiological findings", "procedure findings"),
        "es": ("hallazgo", "hallazgos", "hallazgos radiológicos", "descripción"),
        "fa": ("یافته ها", "یافته‌ها"),
        "fi": ("löydös", "löydökset"),
        "fr": ("constatation", "constatations", "résultat", "résultats"),
        "he": ("ממצאים",),
        "hu": ("lelet", "leírás"),
        "id": ("temuan",),
        "it": ("reperto", "reperti", "rilievi"),
        "ja": ("所見", "画像所見"),
        "ko": ("소견", "판독소견", "판독 소견"),
        "nb": ("funn",),
        "nl": ("bevinding", "bevindingen"),
        "pl": ("opis", "opis badania"),
        "pt": ("achado", "achados", "análise"),
        "ro": ("constatări", "descriere"),
        "ru": ("описание", "находки", "данные исследования"),
        "sk": ("nález", "nálezy"),
        "sv": ("fynd",),
        "tr": ("bulgu", "bulgular"),
        "uk": ("опис",),
        "vi": ("mô tả", "kết quả"),
        "zh": ("所见", "所見", "影像所见", "检查所见", "影像表现", "影像描述", "檢查所見"),
    },
    "impression": {
        "ar": ("الانطباع", "الخلاصة", "الاستنتاج"),
        "cs": ("závěr", "závěry"),
        "da": ("konklusion", "konklusioner"),
        "de": (
            *("beurteilung", "zusammenfassende beurteilung", "zusammenfassung", "impression", "fazit"),
            *("schlussfolgerung", "schlussfolgerungen"),
        ),
        "el": ("συμπέρασμα", "συμπεράσματα", "εντύπωση"),
        "en": (
            *("impression", "impressions", "conclusion", "conclusions", "summary", "opinion"),
            *("interpretation", "assessment"),
        ),
        "es": (
            *("impresión", "impresiones", "impresión diagnóstica", "conclusión", "conclusiones", "resumen"),
            "juicio diagnóstico",
        ),
        "fa": ("نتیجه گیری", "نتیجه‌گیری", "برداشت"),
        "fi": ("johtopäätös", "johtopäätökset", "yhteenveto", "lausunto"),
        "fr": ("impression", "impressions", "conclusion", "conclusions", "synthèse", "au total"),
        "he": ("התרשמות", "מסקנה", "מסקנות", "סיכום"),
        "hu": ("vélemény", "összefoglalás"),
        "id": ("kesan", "kesimpulan"),
        "it": ("impressione", "impressioni", "conclusione", "conclusioni", "sintesi"),
        "ja": ("印象", "診断", "結論", "まとめ", "画像診断"),
        "ko": ("결론", "인상", "판독결과", "요약"),
        "nb": ("konklusjon", "vurdering", "konklusjoner"),
        "nl": ("impressie", "indruk", "conclusie", "conclusies", "samenvatting", "beoordeling"),
        "pl": ("wniosek", "wnioski", "podsumowanie"),
        "pt": ("impressão", "impressões", "impressão diagnóstica", "conclusão", "conclusões", "opinião"),
        "ro": ("concluzie", "concluzii", "impresie"),
        "ru": ("заключение", "вывод", "выводы"),
        "sk": ("záver", "závery"),
        "sv": ("bedömning", "slutsats", "sammanfattning", "utlåtande"),
        "tr": ("sonuç", "izlenim", "kanaat"),
        "uk": ("висновок", "висновки"),
        "vi": ("kết luận",),
        "zh": ("印象", "结论", "結論", "诊断意见", "影像诊断", "诊断印象", "診斷", "诊断"),
    },
}
# Headings of the sections before and after these, which end a section that is extracted.
OTHERS = (
    *("examination", "exam", "study", "procedure", "indication", "clinical indication", "reason for exam"),
    *("reason for examination", "reason for study", "history", "clinical history", "clinical information"),
    *("comparison", "comparisons", "technique", "contrast", "recommendation", "recommendations", "addendum"),
    *("notification", "wet read", "final report", "report", "attestation", "signed by", "dictated by"),
    *("klinische angaben", "fragestellung", "indikation", "rechtfertigende indikation", "anamnese"),
    *("technik", "untersuchung", "vergleich", "empfehlung", "empfehlungen"),
    *("renseignements cliniques", "motif", "comparaison", "recommandation", "recommandations"),
    *("indicación", "motivo", "antecedentes", "técnica", "comparación", "recomendación", "recomendaciones"),
    *("indicazione", "quesito clinico", "anamnesi", "tecnica", "confronto", "raccomandazioni"),
    *("indicação", "história clínica", "comparação", "recomendação", "recomendações"),
    *("klinische gegevens", "vraagstelling", "indicatie", "techniek", "vergelijking", "advies"),
)
# Codes of DICOM (scheme DCM) and LOINC (LN) for the headings of a structured report.
_CODES = {
    "findings": ("121070", "121071", "59776-5", "18782-3"),
    "impression": ("121072", "121073", "19005-8", "121076", "121077", "55110-1", "121111", "55112-7"),
}
SECTION_OF_CODE: Mapping[str, str] = {code: name for name, codes in _CODES.items() for code in codes}


def synonyms(section: str) -> tuple[str, ...]:
    """The headings of a section in every language; of a section that is not listed, none."""
    by_language = SYNONYMS.get(section, {})
    return tuple(dict.fromkeys(heading for headings in by_language.values() for heading in headings))


def is_known(heading: str) -> bool:
    """Whether a heading is one of the synonyms, case ignored."""
    folded = " ".join(heading.casefold().split())
    return any(folded in synonyms(section) for section in SYNONYMS)
