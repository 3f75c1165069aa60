"""The task's own loss: name the lemma of a definition."""

from modulators.training.objectives.base import Objective, Term, TrainingBatch


class LemmaObjective(Objective):
    """T5's cross-entropy of the lemma given the definition, in nats per target token.

    The decoder is frozen and teacher-forced; the mean is over all target tokens of the batch.
    """

    needs_task = True
    needs_synsets = False

    def terms(self, batch: TrainingBatch) -> dict[str, Term]:
        assert batch.task_loss is not None
        return {"task": Term(batch.task_loss)}
