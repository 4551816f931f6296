"""Training a run.

- network: models, zoo, weights
- batches: loader
- loop: engine, with step and components; features, of a frozen backbone; run, pretrain
- results: record, predictions, run_cache
- cost: preflight
"""
