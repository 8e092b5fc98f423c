"""The cost of a corpus of pages: groups of pages alike, from a folder or from a table that stays where it is."""
