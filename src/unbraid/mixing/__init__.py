"""Making mixtures: a recipe draws a plan (plain data), a plan is rendered into audio."""
