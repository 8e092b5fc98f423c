"""Texts that nobody means well with."""

TEXTS = ["", "-1", "0", "1e999", "nan", "9" * 30, "<script>alert(1)</script>", "../../etc/passwd", "\x00", "☃", "gundam", "eager", "3", "none", "{{7*7}}",
         "'; DROP TABLE x; --", "flash", "fp32", "t4", "65536", "1000000"]  # fmt: skip
