"""The commands, one file or folder each: hops that take values and return the next value.

`finetune` is the longest way: open_run → load_inputs → make_protocol → measure_baseline → plan_training →
train_in_stages → interpolate_weights → evaluate_pair → write_run_report.
"""
