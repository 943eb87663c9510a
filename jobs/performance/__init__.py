"""How fast is labelling: the engine, the pipeline, and its start? Run `python jobs/performance --help`."""
