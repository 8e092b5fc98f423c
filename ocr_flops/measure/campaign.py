"""`python -m ocr_flops.measure.campaign` is an alias, for one version, of `python -m ocr_flops.evidence.records.campaign`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("ocr_flops.evidence.records.campaign", run_name="__main__", alter_sys=True)
