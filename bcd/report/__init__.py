"""Tables, figures and panels from finished runs."""
