"""The measures of similarity, for the pages: the module that computes them loads slowly."""

# key → (title, +1 if higher means more similar or transferable and -1 if lower, needs labels)
MEASURES = {
    "batchnorm_frechet": ("Batch-norm Fréchet distance", -1, False),
    "emd_distance": ("Prototype EMD", -1, True),
    "emd_similarity": ("Prototype EMD similarity", +1, True),
    "prediction_entropy": ("Prediction entropy", -1, False),
    "knn_accuracy": ("k-NN accuracy", +1, True),
    "logme": ("LogME", +1, True),
    "leep": ("LEEP", +1, True),
    "h_score": ("H-score", +1, True),
    "gbc": ("GBC", +1, True),
}
