"""YAML in, typed values out: recipe, training settings, overrides, built-in files."""
