"""What is asked: models, engines, attention, hardware, the page and the workload, as frozen specs.

`catalog` makes specs of names, `run_spec` of a whole command line; nothing else knows a config file.
"""
