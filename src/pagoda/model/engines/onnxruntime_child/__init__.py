"""The onnxruntime engine process: BERT encoders out of GGUF files, computed by ONNX Runtime in single precision.

``graph`` writes the model of a file's matrices, ``vocabulary`` its tokenizer, ``encoder`` runs both, ``__main__``
serves them. Nothing is converted on the disk: the graph is built in memory at each start, which takes under a second.
"""
