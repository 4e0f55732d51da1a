"""Fine-tuning: a recipe, rows turned into supervised tokens, a report on them, and the training itself as a run.

``recipe`` is what one asks for, ``encoding`` turns rows into tokens and labels, ``packing`` puts several into one
sequence, ``supervision`` reports what will be learnt, ``adapting`` prepares the model (full, LoRA, QLoRA),
``trainer`` is transformers' own with our loss and our care for checkpoints, ``work`` is the run. Distillation is the
same with a teacher: ``distillation`` is its recipe, ``divergence`` its loss, ``teaching`` its work. Why this floor:
docs/decisions/0030.
"""
