"""Fine-tuning measured: batches beside the usual padding, SST-2 before and after, and large shapes on a GPU."""
