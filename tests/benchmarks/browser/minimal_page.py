"""The yardstick: the least marimo page with a slider, a number and two Altair charts, written as one would without thinking of speed."""

import marimo

app = marimo.App(width="full")

with app.setup:
    import altair as alt
    import marimo as mo
    import polars as pl


@app.cell
def controls():
    slider = mo.ui.slider(1, 64, value=2, show_value=True)
    slider  # noqa: B018
    return (slider,)


@app.cell
def number(slider):
    mo.md(f"**{slider.value:,}**")
    return


@app.cell
def rows(slider):
    frame = pl.DataFrame({"module": [f"module {n}" for n in range(27)], "flops": [(n % 7 + 1) * slider.value for n in range(27)]})
    return (frame,)


@app.cell
def bars(frame):
    alt.Chart(frame).mark_bar().encode(x="flops:Q", y="module:N", color="module:N", tooltip=["module", "flops"]).properties(height=500)
    return


@app.cell
def line(frame):
    alt.Chart(frame).mark_line(point=True).encode(x="module:N", y="flops:Q", tooltip=["module", "flops"]).properties(height=300)
    return


if __name__ == "__main__":
    app.run()
