"""What leaves the program as files: reports as Markdown and HTML, charts as SVG and PNG, tables as CSV, Parquet and JSON.

Importing it loads none of Altair, polars or vl-convert: the child that draws charts starts in 60 ms.
"""

from importlib import import_module as _import_module

_HOMES = {
    "Subject": "estimate_subject",
    "report_html": "estimate_report",
    "report_markdown": "estimate_report",
    "write_report": "estimate_report",
    "chart_images": "images",
    "table_bytes": "export",
}
__all__ = list(_HOMES)


def __getattr__(name: str):
    """Imports a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ocr_flops.reports' has no attribute {name!r}")
    return getattr(_import_module(f"ocr_flops.reports.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
