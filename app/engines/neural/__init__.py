"""Neural engines: music, sounds, speech both ways, translation, stems, from weights that an operator names.

Read `catalog` first (which engine makes which kind, under which licence, how large), then `predict` (the Cog
predictor), `placement` and `memory` (which device, and what happens when it is full). Each engine is one
module with `load` and a class that renders; PyTorch and the model libraries are imported inside those
functions only, and come from `requirements-neural.txt`, not with the service.
"""
