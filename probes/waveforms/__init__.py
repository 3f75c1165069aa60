"""A wave language model as a report: harmonics, fringes, stability and use of its parts, beside nulls; and a film."""
