"""Reports: pages of text, tables and figures, built from files. Imports no torch."""
