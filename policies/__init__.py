"""Policies that come with Penstock: one file each, found through the entry points in pyproject.toml."""
