"""What the pages of the app are made of: controls, and what each tab shows; the notebook holds them together.

Nothing here keeps a state: a function takes what the controls say, and returns something that marimo shows.
"""
