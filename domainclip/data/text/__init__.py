"""Captions and reports as text: sections, sentences, languages, negative and related texts."""
