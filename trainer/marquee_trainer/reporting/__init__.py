"""The evaluation's report: plots, tables and the page that holds them."""
