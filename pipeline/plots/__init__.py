"""Pictures of models, decodings and trainings, drawn with matplotlib."""
