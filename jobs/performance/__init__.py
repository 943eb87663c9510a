"""How fast is labelling? Benchmarks of the engine, the pipeline and its start; run `python jobs/performance`."""
