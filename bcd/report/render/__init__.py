"""Renderings of a table's content: one format a file, each with a function `render(content)` that gives its text."""
