"""Statistics of ImageNet's pixels, RGB in 0…1, with which all published weights were trained."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
