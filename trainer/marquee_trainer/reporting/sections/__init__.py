"""The sections of the report; each function turns results into a `page.Section`."""
