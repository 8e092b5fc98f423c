"""What leaves the program as files: reports as Markdown and HTML, charts as SVG and PNG, tables as CSV, Parquet and JSON.

This file imports nothing, so that the child that draws charts (`images`) starts in 60 ms.
"""
