"""The towers: each file holds one tower's dimensions (`Spec`) and the operators it executes for a workload."""
