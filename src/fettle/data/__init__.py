"""Rows: read, split, shaped, encoded, packed."""
