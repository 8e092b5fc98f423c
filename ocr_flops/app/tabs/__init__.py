"""What the pages of the app are made of: controls, and what each tab shows; the notebook holds them together.

Nothing here keeps a state: a function takes what the controls say, and returns something that marimo shows.
"""

GROUPS = {  # the tabs, by the question that they answer
    "What does it cost?": ("Plan", "Which mode", "Serving", "Corpus", "Models", "Compare"),
    "Why?": ("Overview", "Roofline", "Memory", "Savings", "Timeline", "Sweep", "Tiling", "Table"),
    "Proof": ("Spot check", "Measured", "Method", "Export"),
}
DRAWN = ("Overview", "Roofline", "Memory", "Savings", "Timeline", "Sweep")  # of which a step changes charts alone
RUNNING = ("Spot check", "Measured", "Method")  # where runs of the real model are asked for
OVERLAID = {"Overview": "matches", "Sweep": "on_curve"}  # where measured points are laid over charts, and which belong there
FIRST = "Overview"  # what opens where a link names no tab
TABS = tuple(tab for group in GROUPS.values() for tab in group)


def group_of(tab: str) -> str:
    """The question that a tab answers."""
    return next(group for group, tabs in GROUPS.items() if tab in tabs)
